"""`families`: invariants of each family, degenerate clouds, and compositions in `pretext`."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from serplib.families import Affine, Drop, Outliers
from serplib.geometry import gather, squared_distances
from serplib.perturbation import Perturbation
from serplib.pointnet import SerpPointNet
from serplib.presets import QUICK
from serplib.pretext import Corruption, Pretext
from serplib.seeding import named_generator
from serplib.transformer import SerpTransformer

ALL = {
    "rotate_z": Affine(("rotate_z",), 0),
    "rotate": Affine(("rotate",), 0),
    "reflect": Affine(("reflect",), 0),
    "scale": Affine(("scale",), 0),
    "shear": Affine(("shear",), 0),
    "translate": Affine(("translate",), 0),
    "affine": Affine(),
    "drop-local": Drop("local"),
    "drop-random": Drop("random"),
    "outliers-global": Outliers("global", 0.25),
    "outliers-local": Outliers("local", 0.25, 0.05),
}


def draw(*names):
    return named_generator(3, *names)


def clouds(batch=64, num_points=40, dtype=torch.float32):
    return torch.randn(batch, num_points, 3, generator=draw("clouds")).to(dtype) / 3


def linear_part(family, batch=2000):
    """The drawn matrices ``(B, 3, 3)``, from what happens to the origin and three unit vectors."""
    points = torch.cat([torch.zeros(1, 3), torch.eye(3)]).expand(batch, -1, -1)
    moved = family(points, draw("matrices")).points
    return (moved[:, 1:] - moved[:, :1]).mT, moved[:, 0]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_shapes_partners_and_generator(name, dtype):
    points = clouds(dtype=dtype)
    moved, source, touched = ALL[name](points, draw("family"))
    assert moved.shape == points.shape and moved.dtype == dtype and moved.isfinite().all()
    assert source.shape == touched.shape == points.shape[:2]
    assert source.dtype == torch.int64 and touched.dtype == torch.bool
    untouched = ~touched
    assert moved[untouched].equal(gather(points, source)[untouched])  # copies of their partners
    again = ALL[name](points, draw("family"))
    assert all(a.equal(b) for a, b in zip((moved, source, touched), again, strict=True))
    other = ALL[name](points, draw("another state"))
    assert not moved.equal(other.points)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("num_points", [1, 2, 5])
def test_tiny_and_coincident_clouds(name, num_points):
    moved, source, _ = ALL[name](torch.zeros(3, num_points, 3), draw("tiny"))
    assert moved.isfinite().all() and 0 <= source.min() and source.max() < num_points


def test_rotations_keep_distances_and_orientation():
    for name in ("rotate_z", "rotate"):
        matrix, shift = linear_part(ALL[name])
        assert torch.linalg.det(matrix).allclose(torch.ones(2000), atol=1e-5)
        assert (matrix @ matrix.mT).allclose(torch.eye(3).expand(2000, 3, 3), atol=1e-5)
        assert shift.abs().max() < 1e-6
    about_z, _ = linear_part(ALL["rotate_z"])
    assert about_z[:, 2].allclose(torch.tensor([0.0, 0.0, 1.0]))


def test_rotations_in_3d_are_uniform():
    """The image of a fixed vector is uniform on the sphere, the trace's mean is 0 (Haar)."""
    matrix, _ = linear_part(ALL["rotate"], 20000)
    for image in matrix.unbind(-1):  # (B, 3): mean 0, E[x x^T] = I / 3
        assert image.mean(0).abs().max() < 0.02
        assert (image.T @ image / len(image)).allclose(torch.eye(3) / 3, atol=0.01)
    trace = matrix.diagonal(dim1=1, dim2=2).sum(1)
    assert trace.mean().abs() < 0.03 and trace.square().mean() == pytest.approx(1, abs=0.05)


def test_the_other_maps_stay_in_their_ranges():
    signs, _ = linear_part(ALL["reflect"])
    assert signs.abs().equal(torch.eye(3).expand(2000, 3, 3))
    assert len(signs.diagonal(dim1=1, dim2=2).unique(dim=0)) == 8
    scales, _ = linear_part(ALL["scale"])
    factors = scales.diagonal(dim1=1, dim2=2)
    assert 0.5 <= factors.min() < 0.52 and 1.98 < factors.max() <= 2
    shears, _ = linear_part(ALL["shear"])
    assert shears.diagonal(dim1=1, dim2=2).allclose(torch.ones(2000, 3))
    assert 0.49 < (shears - torch.eye(3)).abs().max() <= 0.5
    same, shift = linear_part(ALL["translate"])
    assert same.allclose(torch.eye(3).expand(2000, 3, 3), atol=1e-6)
    assert 0.49 < shift.abs().max() <= 0.5


def test_at_most_so_many_maps_are_applied():
    """Of three maps that each show in another entry, 1 to 2 are seen, each number half the time."""
    family = Affine(("scale", "shear", "translate"), 2)
    matrix, shift = linear_part(family, 4000)
    scaled = (matrix.diagonal(dim1=1, dim2=2) - 1).abs().amax(1) > 1e-6
    sheared = (matrix[:, 0, 1] != 0) | (matrix[:, 2, 0] != 0)
    translated = shift.abs().amax(1) > 0
    number = scaled.int() + sheared.int() + translated.int()
    assert number.min() == 1 and number.max() == 2
    assert (number == 1).double().mean() == pytest.approx(0.5, abs=0.03)
    assert scaled.double().mean() == pytest.approx(0.5, abs=0.03)


def test_maps_are_applied_in_their_order():
    """Translate then scale moves the origin by scale * shift, scale then translate by shift."""
    one, _ = linear_part(Affine(("translate", "scale"), 0, scale=1.0))
    assert one.allclose(torch.eye(3).expand(2000, 3, 3))
    before = linear_part(Affine(("translate", "scale"), 0, shift=0.5, scale=2.0))[1].abs().max()
    after = linear_part(Affine(("scale", "translate"), 0, shift=0.5, scale=2.0))[1].abs().max()
    assert after <= 0.5 < 0.9 < before <= 1


def test_drop_random_keeps_the_share_and_repeats_evenly():
    _, source, touched = Drop("random", 0.75)(clouds(8, 1000), draw("drop"))
    for row in source:
        repeats = row.bincount(minlength=1000)
        assert (repeats > 0).sum() == 250 and repeats.max() == 4  # 250 points, 4 times each
    assert not touched.any()


def test_drop_local_removes_neighbourhoods():
    points = clouds(8, 1000)
    _, source, _ = Drop("local", 0.5, 1)(points, draw("drop"))
    for cloud, row in zip(points, source, strict=True):
        kept = row.unique()
        assert len(kept) == 500
        gone = torch.ones(1000, dtype=torch.bool).index_fill(0, kept, False)
        distance = squared_distances(cloud[None], cloud[None])[0]  # (1000, 1000)
        ball = distance.topk(500, largest=False).indices.sort().values  # of each possible centre
        assert (ball == gone.nonzero()[:, 0]).all(1).any()  # what is gone is one such ball
    overlapping = Drop("local", 0.5, 5)(points, draw("drop")).source
    left = torch.tensor([len(row.unique()) for row in overlapping])
    assert left.min() >= 500 and left.max() < 1000


def test_drop_nothing():
    points = clouds()
    for where in ("local", "random"):
        assert Drop(where, 0.0)(points, draw("drop")).points.equal(points)


def test_outliers_replace_the_share_and_point_to_the_nearest():
    points = clouds(4, 200)
    for family in (Outliers("global", 0.2), Outliers("local", 0.2, 0.05)):
        moved, source, touched = family(points, draw("outliers"))
        assert touched.sum(1).tolist() == [40] * 4 and moved.abs().max() <= 1.5
        nearest = squared_distances(moved, points).argmin(2)
        assert source[touched].equal(nearest[touched])
    on_surface = Outliers("local", 0.2, 0.0)(points, draw("outliers"))
    assert on_surface.points.equal(gather(points, on_surface.source))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Affine(("mirror",)), "maps is"),
        (lambda: Affine(()), "wanted a map"),
        (lambda: Affine(at_most=6), "at_most is 6"),
        (lambda: Affine(scale=0.0), "scale is 0.0"),
        (lambda: Drop("locally"), "where is 'locally'"),
        (lambda: Drop(ratio=1.0), "ratio is 1.0"),
        (lambda: Outliers(ratio=-0.1), "ratio is -0.1"),
        (lambda: Corruption(steps=("noise", "fog")), "steps is"),
    ],
)
def test_wrong_settings(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# ---- compositions in a pretext task -------------------------------------------------------------


def corrupt(points, **changes):
    return Pretext(nn.Identity(), Corruption(num_points=points.shape[1], **changes)).corrupt(
        points, draw("corrupt")
    )


def test_the_default_is_the_papers_noise():
    points = clouds(4, 100)
    ours = corrupt(points)
    theirs = Perturbation()(points, draw("corrupt"))
    assert ours.points.equal(theirs.points) and ours.touched.equal(theirs.touched)
    assert ours.clean is points


def test_partners_follow_every_step():
    """Each corrupted point stays with the clean point that it comes from, in any order."""
    points = clouds(4, 200)
    quiet = {"perturbation": Perturbation(sigma=0.0), "affine": Affine(("reflect",), 0)}
    for steps in (("affine", "drop"), ("drop", "affine"), ("drop", "noise", "affine")):
        moved, clean, touched = corrupt(points, steps=steps, **quiet)
        assert moved.abs().allclose(clean.abs()) and touched.all()  # reflected twins
        assert not clean.equal(points)
    moved, clean, touched = corrupt(points, steps=("noise", "drop"))
    assert (moved != clean).any(-1).equal(touched) and 0 < touched.double().mean() < 1


def test_the_order_of_steps_matters():
    points = clouds(4, 200)
    sizes = {"affine": Affine(("scale",), 0, scale=4.0), "perturbation": Perturbation(sigma=0.1)}
    one = corrupt(points, steps=("noise", "affine"), **sizes).points
    two = corrupt(points, steps=("affine", "noise"), **sizes).points
    assert not one.allclose(two)


def test_whole_targets():
    points = clouds(4, 200)
    corruption = Corruption(num_points=200, steps=("drop",), target="whole")
    by_sets = SerpPointNet(dataclasses.replace(QUICK.pointnet, task="cdl2"))
    moved, clean, _ = Pretext(by_sets, corruption).corrupt(points, draw("corrupt"))
    assert clean is points and not moved.equal(points)
    for pairing in (SerpPointNet(QUICK.pointnet), SerpTransformer(QUICK.transformer)):
        with pytest.raises(ValueError, match="'whole': needs SeRP-PointNet with task 'cdl2'"):
            Pretext(pairing, corruption)


def test_no_step_is_no_corruption():
    points = clouds(4, 50)
    moved, clean, touched = corrupt(points, steps=())
    assert moved is points and clean is points and not touched.any()


def test_an_angle_limits_the_turn():
    matrix, _ = linear_part(Affine(("rotate_z",), 0, angle=math.pi / 6))
    assert matrix[:, 0, 0].min() >= math.cos(math.pi / 6) - 1e-6
    with pytest.raises(dataclasses.FrozenInstanceError):
        Affine().scale = 3.0
