"""Corruptions do what they say; robustness is measured over the true number of shapes."""

import math

import numpy as np
import pytest
import torch

from serplib.data import DataError, common, load
from serplib.data.common import Clouds
from serplib.evaluation import corruptions, robustness
from serplib.evaluation.corruptions import CORRUPTIONS, corrupt
from serplib.geometry import chamfer_l2, squared_distances
from serplib.seeding import named_generator

CLOUDS = load("objects", "test", 8).points  # (8, 1024, 3)
SIZES = {  # points left of 1,024 at severity 1 and 5, where their number changes
    "background": (1024 + 22, 1024 + 51), "upsampling": (1024 + 204, 2048),
    "cutout": (1024 - 60, 1024 - 300), "density": (1024 - 75, 1024 - 375),
    "density_inc": (512, 512), "lidar": (768, 768),
}  # fmt: skip


def made(name, severity=3, clouds=CLOUDS):
    return corrupt(clouds, name, severity, named_generator(0, name, severity))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_is_finite_seeded_and_of_its_size(name):
    for severity, size in zip((1, 5), SIZES.get(name, (1024, 1024)), strict=True):
        out = made(name, severity)
        assert out.shape == (8, size, 3) and out.dtype == torch.float32 and out.isfinite().all()
        assert torch.equal(out, made(name, severity))
        assert out.norm(dim=-1).amax() < 1.75  # of the cube's corners, at most
        assert chamfer_l2(out, CLOUDS, "none").min() > 1e-6  # no cloud is left as it was
    assert not torch.equal(made(name, 5), corrupt(CLOUDS, name, 5, named_generator(1)))


@pytest.mark.parametrize("name", [n for n in CORRUPTIONS if n not in ("occlusion", "lidar")])
def test_a_higher_severity_is_farther_from_clean(name):
    """Of occlusion and lidar, severity is a side and no strength."""
    distance = [float(chamfer_l2(made(name, severity), CLOUDS)) for severity in (1, 3, 5)]
    if name == "density_inc":  # it thins by half, at every severity
        return
    assert distance[0] < distance[1] < distance[2], distance


def test_there_are_fifteen_in_three_groups():
    assert len(CORRUPTIONS) == 15 == sum(robustness.GROUPS.values())
    assert list(CORRUPTIONS)[:2] == ["occlusion", "lidar"]
    assert list(CORRUPTIONS)[5:10] == ["uniform", "gaussian", "impulse", "upsampling", "background"]


def test_noise_has_the_stated_size():
    points = torch.zeros(4, 1024, 3)
    points[:, 0], points[:, 1] = torch.tensor([1.0, 0, 0]), torch.tensor([-1.0, 0, 0])
    noise = corrupt(points, "gaussian", 5, named_generator(0))[:, 2:]
    assert noise.std() == pytest.approx(0.03, rel=0.05)
    hit = (made("impulse", 5) - made("impulse", 5)).abs().sum()  # seeded
    assert hit == 0
    moved = corrupt(points, "impulse", 5, named_generator(0))
    share = (moved - moved.median(1, keepdim=True).values).abs().amax(-1)[:, 2:] > 0.05
    assert share.float().mean() == pytest.approx(1024 // 10 / 1024, abs=0.01)


def test_rotations_are_rotations():
    for matrix in (corruptions.rotation_matrix(torch.randn(5, 3, generator=named_generator(1))),):
        eye = torch.eye(3).expand(5, 3, 3)
        torch.testing.assert_close(matrix @ matrix.mT, eye, rtol=0, atol=1e-6)
        torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(5))
    quarter = corruptions.rotation_matrix(torch.tensor([[0, 0, math.pi / 2]]))[0]
    torch.testing.assert_close(quarter @ torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]))
    for about in ("z", "so3"):
        out = robustness.rotated(CLOUDS, about, named_generator(2))
        torch.testing.assert_close(squared_distances(out, out), squared_distances(CLOUDS, CLOUDS),
                                   rtol=0, atol=1e-5)  # fmt: skip
        assert torch.allclose(out[..., 2], CLOUDS[..., 2], atol=1e-6) is (about == "z")
    with pytest.raises(ValueError, match="about is 'y', wanted 'z' or 'so3'"):
        robustness.rotated(CLOUDS, "y", named_generator(0))


def test_so3_is_even():
    """Images of one vector are even on the sphere: mean 0, covariance a third of the identity."""
    one = torch.tensor([[[1.0, 0, 0]]]).expand(4000, 1, 3)
    out = robustness.rotated(one, "so3", named_generator(0))[:, 0]
    assert out.mean(0).abs().max() < 0.04
    torch.testing.assert_close(out.T @ out / 4000, torch.eye(3) / 3, rtol=0, atol=0.03)


def test_free_form_deformation_keeps_what_is_not_moved(monkeypatch):
    """Bernstein polynomials sum to one: control points moved alike move every point alike."""
    monkeypatch.setattr(corruptions, "normalize", lambda points: points)
    monkeypatch.setattr(
        corruptions, "_uniform", lambda generator, *shape, low, high: torch.full(shape, high)
    )
    out = corruptions.distortion(CLOUDS, 2, None)
    torch.testing.assert_close(out - CLOUDS, torch.full_like(CLOUDS, 0.4), rtol=0, atol=1e-5)


@pytest.mark.parametrize("power", [0.5, -0.5])
def test_splines_pass_through_the_control_points(power, monkeypatch):
    monkeypatch.setattr(corruptions, "normalize", lambda points: points)
    axis = torch.linspace(-1, 1, 5)
    grid = torch.cartesian_prod(axis, axis, axis)[None]
    out = corruptions._splines(grid, 4, named_generator(0), power)
    step = (out - grid).norm(dim=-1)
    torch.testing.assert_close(step, torch.full_like(step, 0.1), rtol=0, atol=1e-5)


def test_of_a_sphere_the_near_half_is_seen():
    sphere = torch.randn(5, 2048, 3, generator=named_generator(0))
    sphere = sphere / sphere.norm(dim=-1, keepdim=True)
    sides = []
    for severity in (1, 2, 3, 4, 5):
        camera, visible = corruptions._visible(sphere, severity, named_generator(severity))
        near = camera[..., 1] < 0
        assert visible[camera[..., 1] < -0.3].float().mean() > 0.95
        assert visible[camera[..., 1] > 0.3].float().mean() < 0.1
        assert (visible == near).float().mean() > 0.85
        sides.append((sphere * visible[..., None]).mean(1))  # (5, 3) where the seen half lies
    sides = torch.stack(sides)  # (severities, clouds, 3)
    assert (sides[..., 2] > 0.05).all()  # always from above
    ahead = torch.atan2(sides[..., 1], sides[..., 0])
    apart = (ahead[:, None] - ahead[None]).abs() % (2 * math.pi)
    assert (apart[0, 2] > 0.5).all()  # and from another side


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fog", 1), "corruption is 'fog', wanted one of occlusion"),
        (("uniform", 0), "severity is 0, wanted 1 to 5"),
        (("uniform", 6), "severity is 6"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        corrupt(CLOUDS, *arguments, named_generator(0))
    with pytest.raises(ValueError, match="clouds of 100 points, wanted 520 or more"):
        corrupt(CLOUDS[:, :100], "uniform", 1, named_generator(0))


# ---- the measurement ----


def by_size(points):
    """A classifier that counts: 0 where a cloud has 1,024 points, else 1."""
    return torch.full((len(points),), int(points.shape[1] != 1024))


def test_robustness_is_accuracy_over_all_shapes():
    test = Clouds("objects", "test", CLOUDS, torch.zeros(8, dtype=torch.long), ("a", "b"), "0")
    found = robustness.robustness(by_size, test, 0, (1,))
    assert found["clean"] == 1 and found["points_64"] == 0 and found["rotated_so3"] == 1
    for name in CORRUPTIONS:
        assert found[f"{name}_1"] == float(name not in SIZES)
    assert len(found) == 1 + 15 + 4 + 2 + 1 and found["files"] == 0
    means = robustness.summary(found)
    assert means == pytest.approx(
        {"density": 1 / 5, "noise": 3 / 5, "transformation": 1, "corrupted": (0.2 + 0.6 + 1) / 3}
    )


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("SERP_DATA", str(tmp_path))
    monkeypatch.setattr(common, "DATASETS", tmp_path / "datasets")
    folder = tmp_path / "modelnet40_c"
    folder.mkdir()
    return folder


def test_files_of_modelnet40_c_are_read_where_they_are(files):
    values = np.random.default_rng(0).normal(size=(5, 700, 3))
    np.save(files / "data_cutout_2.npy", values)
    assert robustness.modelnet40c("cutout", 3, 5) is None
    read = robustness.modelnet40c("cutout", 2, 5)
    assert read.shape == (5, 700, 3) and read.dtype == torch.float32
    np.testing.assert_allclose(read, values, rtol=1e-6)


def test_the_public_files_stand_in_for_ours(files, monkeypatch):
    """2,468 shapes named modelnet40, and a file: it is read; other sets never read it."""
    np.save(files / "data_uniform_1.npy", np.ones((2468, 600, 3), "f4") * np.arange(600)[:, None])
    points = CLOUDS[:1].expand(2468, -1, -1)
    test = Clouds("modelnet40", "test", points, torch.zeros(2468).long(), ("a", "b"), "0")
    monkeypatch.setattr(robustness, "CORRUPTIONS", {"uniform": CORRUPTIONS["uniform"]})
    assert robustness.robustness(by_size, test, 0, (1,))["uniform_1"] == 0  # 600 points: the file
    assert robustness.robustness(by_size, test, 0, (1,))["files"] == 1
    other = Clouds("objects", "test", CLOUDS, torch.zeros(8).long(), ("a", "b"), "0")
    assert robustness.robustness(by_size, other, 0, (1,))["uniform_1"] == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones((4, 10, 3), "f4"), "4 shapes; expected 5"),
        (np.ones((5, 10, 2), "f4"), r"expected floats \(S, N, 3\)"),
        (np.ones((5, 10, 3), "i4"), "expected floats"),
        (np.full((5, 10, 3), np.nan), "NaN"),
        (np.array([{}], object), "not a plain"),
    ],
)
def test_damaged_files_are_named(values, words, files):
    np.save(files / "data_lidar_1.npy", values, allow_pickle=True)
    with pytest.raises(DataError, match=rf"data_lidar_1\.npy.*{words}"):
        robustness.modelnet40c("lidar", 1, 5)
