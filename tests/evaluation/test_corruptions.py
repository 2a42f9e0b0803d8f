"""`evaluation.corruptions`: ModelNet40-C's strengths, counts, frames and views."""

import math

import pytest
import torch
from scenes import ball, box_scenes, sample_boxes, sees

from serplib.data import load
from serplib.evaluation import corruptions
from serplib.evaluation.corruptions import CORRUPTIONS, corrupt, fit_box, swap_up
from serplib.geometry import chamfer_l2
from serplib.seeding import named_generator

CLOUDS = load("objects", "test", 8).points  # (8, 1024, 3), z up
SIZES = {  # points left of 1,024 at severity 1 and 5, where their number changes
    "background": (1024 + 22, 1024 + 51), "upsampling": (1024 + 204, 2048),
    "cutout": (1024 - 60, 1024 - 300), "density": (1024 - 75, 1024 - 375),
    "lidar": (768, 768),
}  # fmt: skip
UNIT_SPHERE = ("gaussian", "cutout", "density", "density_inc")  # the frame of the input is kept
VIEWS = ("occlusion", "lidar")


def made(name, severity=3, clouds=CLOUDS, up="z"):
    return corrupt(clouds, name, severity, named_generator(0, name, severity), up)


def extent(points):
    return points.amax(1) - points.amin(1)  # (B, 3)


# ---- all of them -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_is_finite_seeded_and_of_its_size(name):
    for severity, size in zip((1, 5), SIZES.get(name, (1024, 1024)), strict=True):
        out = made(name, severity)
        assert out.shape == (8, size, 3) and out.dtype == torch.float32 and out.isfinite().all()
        assert torch.equal(out, made(name, severity))
        assert out.norm(dim=-1).amax() < 1.75  # the corners of the cube
        assert chamfer_l2(out, CLOUDS, "none").min() > 1e-6  # no cloud is unchanged
    assert not torch.equal(made(name, 5), corrupt(CLOUDS, name, 5, named_generator(1)))


@pytest.mark.parametrize("name", [n for n in CORRUPTIONS if n not in VIEWS])
def test_a_higher_severity_is_farther_from_clean(name):
    """For occlusion and lidar the severity is a side, not a strength."""
    clean = CLOUDS if name in (*UNIT_SPHERE, "background") else fit_box(CLOUDS)
    distance = [float(chamfer_l2(made(name, severity), clean)) for severity in (1, 3, 5)]
    assert distance[0] < distance[1] < distance[2], distance


def test_there_are_fifteen_of_them():
    assert len(CORRUPTIONS) == 15
    assert list(CORRUPTIONS)[:2] == ["occlusion", "lidar"]
    assert list(CORRUPTIONS)[5:10] == ["uniform", "gaussian", "impulse", "upsampling", "background"]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [64, 300])
def test_the_share_of_altered_points_does_not_depend_on_their_number(name, size):
    for severity, count in zip((1, 5), SIZES.get(name, (1024, 1024)), strict=True):
        out = made(name, severity, CLOUDS[:2, :size])
        assert out.shape[1] == pytest.approx(size * count / 1024, abs=11) and out.isfinite().all()


@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_frame_is_that_of_the_published_files(name, severity):
    """The bounding box is centred, its longest side 2, or the frame of the input is kept."""
    out = made(name, severity)
    middle, longest = (out.amax(1) + out.amin(1)) / 2, extent(out).amax(1)
    if name in UNIT_SPHERE:
        torch.testing.assert_close(extent(out), extent(CLOUDS), rtol=0, atol=0.25)
        assert (longest - 2).abs().max() > 0.1
    elif name == "lidar":  # the box of the whole object; only a part of it is seen
        whole = fit_box(CLOUDS)
        assert (out.amax(1) < whole.amax(1) + 0.06).all()
        assert (out.amin(1) > whole.amin(1) - 0.06).all() and middle.abs().max() > 0.02
    else:
        torch.testing.assert_close(longest, torch.full((8,), 2.0))
        torch.testing.assert_close(middle, torch.zeros(8, 3), rtol=0, atol=1e-5)


def test_background_noise_does_not_shrink_the_object():
    """Points in the corners of the cube would do so if the farthest one were put at radius 1."""
    clouds = CLOUDS - CLOUDS.mean(1, keepdim=True)
    out = made("background", 5, clouds)[:, :1024]  # the object's own points
    ratio = extent(out).norm(dim=1) / extent(clouds).norm(dim=1)
    assert (ratio > 0.98).all() and (ratio < 1.1).all(), ratio


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_axes_are_renamed_and_nothing_else(name):
    """The same cloud with y up and with z up is corrupted alike."""
    with_y = swap_up(CLOUDS)
    assert torch.equal(swap_up(with_y), CLOUDS)
    torch.testing.assert_close(made(name, 2, with_y, up="y"), swap_up(made(name, 2)))


def test_up_points_up():
    """The tops of tables survive occlusion from above, whichever axis is up."""
    plate = torch.rand(4, 1024, 3, generator=named_generator("plate")) * 2 - 1
    plate[..., 2] = torch.where(torch.arange(1024) % 2 == 0, 0.4, -0.4)  # z up: top and bottom
    shown = made("occlusion", 1, plate)
    top = (shown[..., 2] > shown[..., 2].amax(1, keepdim=True) - 0.2).float().mean(1)
    assert (top > 0.7).all(), top
    sideways = made("occlusion", 1, plate, up="y")  # the camera looks at the edge
    shown = (sideways[..., 2] > sideways[..., 2].amax(1, keepdim=True) - 0.2).float().mean(1)
    assert (shown < 0.7).any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fog", 1), "corruption is 'fog', wanted one of occlusion"),
        (("uniform", 0), "severity is 0, wanted 1 to 5"),
        (("uniform", 6), "severity is 6"),
        (("lidar", 1, "x"), "up is 'x', wanted 'y' or 'z'"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    name, severity, *up = arguments
    with pytest.raises(ValueError, match=words):
        corrupt(CLOUDS, name, severity, named_generator(0), *up)
    with pytest.raises(ValueError, match="clouds of 50 points, wanted 64 or more"):
        corrupt(CLOUDS[:, :50], "uniform", 1, named_generator(0))


# ---- noise and transformations -----------------------------------------------------------------


def test_noise_has_the_stated_size():
    points = torch.zeros(4, 1024, 3)
    points[:, 0], points[:, 1] = torch.tensor([1.0, 0, 0]), torch.tensor([-1.0, 0, 0])
    noise = corrupt(points, "gaussian", 5, named_generator(0))[:, 2:]
    assert noise.std() == pytest.approx(0.03, rel=0.05)
    moved = corrupt(points, "impulse", 5, named_generator(0))
    share = (moved - moved.median(1, keepdim=True).values).abs().amax(-1)[:, 2:] > 0.05
    assert share.float().mean() == pytest.approx(1024 // 10 / 1024, abs=0.01)


def test_rotation_matrices_are_rotations():
    matrix = corruptions.rotation_matrix(torch.randn(5, 3, generator=named_generator(1)))
    eye = torch.eye(3).expand(5, 3, 3)
    torch.testing.assert_close(matrix @ matrix.mT, eye, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(5))
    quarter = corruptions.rotation_matrix(torch.tensor([[0, 0, math.pi / 2]]))[0]
    torch.testing.assert_close(quarter @ torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]))


def test_shear_leaves_heights_in_proportion():
    """The original shears the two horizontal axes, in clouds with y up."""
    for up, axis in (("y", 1), ("z", 2)):
        out, height = made("shear", 5, up=up)[..., axis], CLOUDS[..., axis]
        scale = out.std(1) / height.std(1)
        shift = out.mean(1, keepdim=True) - scale[:, None] * height.mean(1, keepdim=True)
        torch.testing.assert_close(out, scale[:, None] * height + shift, rtol=0, atol=1e-5)


def test_free_form_deformation_keeps_what_is_not_moved(monkeypatch):
    """Bernstein polynomials sum to one: control points moved alike move every point alike."""
    monkeypatch.setattr(corruptions, "fit_box", lambda points: points)
    monkeypatch.setattr(
        corruptions, "_uniform", lambda generator, *shape, low, high: torch.full(shape, high)
    )
    out = corruptions.distortion(CLOUDS, 2, None)
    torch.testing.assert_close(out - CLOUDS, torch.full_like(CLOUDS, 0.4), rtol=0, atol=1e-5)


@pytest.mark.parametrize("power", [0.5, -0.5])
def test_splines_pass_through_the_control_points(power, monkeypatch):
    monkeypatch.setattr(corruptions, "fit_box", lambda points: points)
    axis = torch.linspace(-1, 1, 5)
    grid = torch.cartesian_prod(axis, axis, axis)[None]
    out = corruptions._splines(grid, 4, named_generator(0), power)
    step = (out - grid).norm(dim=-1)
    torch.testing.assert_close(step, torch.full_like(step, 0.1), rtol=0, atol=1e-5)


# ---- density -----------------------------------------------------------------------------------


def line(batch):
    """Points one step apart on a line, numbered along it, in random order."""
    order = torch.rand(batch, 1024, generator=named_generator("line")).argsort(1)
    return torch.stack([order / 1023.0 * 2 - 1, 0 * order, 0 * order], -1)


def removed(out, batch):
    """Which places of the line are empty: ``(B, 1024)`` bool."""
    place = ((out[..., 0] + 1) / 2 * 1023).round().long()
    return torch.ones(batch, 1024, dtype=torch.bool).scatter_(1, place, False)


def longest_run(mask):
    best = run = torch.zeros(len(mask), dtype=torch.long)
    for column in mask.T:
        run = (run + 1) * column
        best = torch.maximum(best, run)
    return best  # (B,)


def test_density_thins_one_patch_after_another():
    """A quarter of each patch stays, also where a patch meets one that is thinned already."""
    gone = removed(made("density", 5, line(300)), 300)
    assert (gone.sum(1) == 375).all()
    # Patches that are united before anything is removed would lose up to 375 neighbours in a row.
    runs = longest_run(gone).float()
    assert runs.max() < 150 and runs.mean() < 40
    one = removed(made("density", 1, line(300)), 300)
    first = one.long().argmax(1)
    last = 1023 - one.flip(1).long().argmax(1)
    assert (last - first < 100).all() and (last - first > 75).all()


def test_cutout_removes_whole_patches():
    """Ten patches of 30 neighbours: at most ten gaps, none of them shorter than 30."""
    gone = removed(made("cutout", 5, line(100)), 100)
    assert (gone.sum(1) == 300).all()
    starts = (gone & ~torch.nn.functional.pad(gone, (1, 0))[:, :-1]).sum(1)
    assert (starts <= 10).all()
    one = removed(made("cutout", 1, line(100)), 100)
    assert ((longest_run(one) == 30) | (longest_run(one) == 60)).all()


def test_density_inc_keeps_a_twentieth_of_the_surface_dense():
    """On a square: 100 of 1,024 points in 100 / 2,048 of the area, and as many points as before."""
    square = torch.rand(20, 1024, 3, generator=named_generator("square")) * 2 - 1
    square[..., 2] = 0
    out = made("density_inc", 1, square)
    assert out.shape == (20, 1024, 3)
    patch = out[:, :100]  # patches come first
    radius = (patch - patch.mean(1, keepdim=True)).norm(dim=-1).amax(1)  # (20,)
    inner = patch.mean(1).abs().amax(1) < 0.7  # not cut by an edge
    area = math.pi * radius[inner].square() / 4
    assert area.mean() == pytest.approx(100 / 2048, rel=0.35) and inner.sum() > 5
    distinct = [len(cloud.unique(dim=0)) for cloud in patch]
    assert min(distinct) == 100  # not each point twice
    dense = torch.cdist(out, out).topk(9, largest=False).values[..., -1]  # (20, 1024)
    assert (dense[:, :100].mean(1) < 0.85 * dense[:, 100:].mean(1)).all()


# ---- views -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elevation", "distance"), [((math.pi / 6, math.pi / 3), 3.0), ((math.pi / 8,) * 2, 5.0)]
)
def test_visibility_of_scenes_of_boxes(elevation, distance):
    """Against exact rays: few hidden points pass, few visible ones are lost."""
    hidden = passed = shown = lost = 0
    for number, boxes in enumerate(box_scenes(20)):
        points = sample_boxes(boxes, 1024, number)[None]
        camera = corruptions.place_camera(
            1, number % 5 + 1, *elevation, distance, named_generator("camera", number)
        )
        truth, found = sees(camera[0], points[0], boxes), corruptions.visible(points, camera)[0]
        hidden, passed = hidden + (~truth).sum(), passed + (found & ~truth).sum()
        shown, lost = shown + truth.sum(), lost + (truth & ~found).sum()
    assert passed / hidden < 0.18 and lost / shown < 0.12, (passed / hidden, lost / shown)


def test_visibility_of_a_ball():
    points = ball(5, 2048)
    for severity in (1, 2, 3, 4, 5):
        camera = corruptions.place_camera(5, severity, 0.6, 0.9, 3, named_generator(severity))
        cosine = (points * camera[:, None]).sum(-1) / 3  # (5, 2048); visible above 1 / 3
        seen = corruptions.visible(points, camera)
        assert seen[cosine > 0.45].float().mean() > 0.99
        assert seen[cosine < 0.2].float().mean() < 0.01


def test_few_distinct_points_hide_nothing():
    points = torch.zeros(2, 64, 3)
    points[1, 1:, 0] = 1
    assert corruptions.visible(points, torch.tensor([[0.0, 0, 3]]).expand(2, 3)).all()
    for name in CORRUPTIONS:
        assert made(name, 1, points).isfinite().all(), name


@pytest.mark.parametrize("name", VIEWS)
def test_cameras_stand_where_the_original_puts_them(name):
    low, high, distance = (30, 60, 3) if name == "occlusion" else (22.5, 22.5, 5)
    generator = named_generator("cameras")
    seen = []
    place = corruptions.place_camera

    def keep(*arguments):
        seen.append(place(*arguments))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruptions, "place_camera", keep)
        for severity in (1, 2, 3, 4, 5):
            corrupt(ball(20, 64), name, severity, generator, up="y")
    camera = torch.stack(seen)  # (5, 20, 3), y up
    torch.testing.assert_close(camera.norm(dim=-1), torch.full((5, 20), float(distance)))
    elevation = torch.rad2deg((camera[..., 1] / distance).asin())
    assert elevation.min() > low - 0.01 and elevation.max() < high + 0.01
    assert elevation.max() - elevation.min() >= 0.7 * (high - low)
    azimuth = torch.rad2deg(torch.atan2(camera[..., 0], camera[..., 2]))  # (5, 20)
    sector = 72 * torch.arange(1, 6)[:, None]
    apart = (azimuth - sector + 180) % 360 - 180
    assert apart.abs().max() <= 36.01 and apart.abs().max() > 25


def test_a_view_is_even_over_the_image():
    """A depth camera gives as many points to equal parts of its image, not of the surface."""
    points = ball(30, 1024)
    camera = corruptions.place_camera(30, 2, math.pi / 6, math.pi / 3, 3, named_generator(0))
    ray = corruptions._scan(points, camera, named_generator(1)) - camera[:, None]
    depth = (ray * -camera[:, None] / 3).sum(-1, keepdim=True)
    across = (ray / depth + camera[:, None] / 3).norm(dim=-1)  # 0 to tan(asin(1 / 3)) = 0.354
    assert across.max() < 0.36
    inner = (across < 0.354 / 2).float().mean()  # a quarter of the disc, a tenth of the surface
    assert inner == pytest.approx(0.25, abs=0.05)


def test_lidar_rings_lie_about_the_vertical_one_degree_apart():
    clouds = fit_box(swap_up(CLOUDS))
    out = corrupt(clouds, "lidar", 4, named_generator(7), up="y")
    camera = corruptions.place_camera(8, 4, math.pi / 8, math.pi / 8, 5, named_generator(7))
    ray = (out - camera[:, None]).double()
    polar = torch.rad2deg((ray[..., 1] / ray.norm(dim=-1)).acos())  # (8, 768) degrees from above
    offset = polar - polar.amin(1, keepdim=True)
    assert (offset - offset.round()).abs().max() < 2e-3
    rings = [len(cloud.round().unique()) for cloud in offset]
    assert min(rings) >= 4 and out.shape == (8, 768, 3)
    assert (out[:, :, None] - clouds[:, None]).norm(dim=-1).amin(2).max() < 0.15  # near the object
