"""Built-in shapes: exact values, uniform sampling, unions, speed."""

from __future__ import annotations

import hashlib
import math
import time

import numpy as np
import pytest
import torch

from serplib.data.common import Clouds
from serplib.data.synthetic.composites import MAX_PRIMITIVES, Composites, union_points
from serplib.data.synthetic.shapes import (
    CATEGORIES,
    DRAWS,
    GRID,
    objects_clouds,
    procedural_clouds,
    to_grid,
)
from serplib.data.synthetic.surfaces import FAMILIES, Parts, sample_parts

MODELNET40 = (
    "airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door "
    "dresser flower_pot glass_box guitar keyboard lamp laptop mantel monitor night_stand person "
    "piano plant radio range_hood sink sofa stairs stool table tent toilet tv_stand vase "
    "wardrobe xbox"
).split()


MAKERS = {"objects": objects_clouds, "procedural": procedural_clouds}
CHECKSUMS = {  # split, shapes, points, seed -> of the objects and their labels, of the composites
    ("train", 1, 1, 0): ("42dcba5124470fc1", "15ec7bf0b50732b4"),
    ("train", 64, 128, 1): ("a044fbb4740906e0", "d0f2f6441ee4a454"),
    ("train", 130, 256, 3): ("de258d37fb8fdbda", "92f0292ed8f2b140"),
    ("train", 250, 1024, 7): ("419cd1663bf97fe5", "5d51ebf5818936ee"),
    ("train", 400, 100, 12): ("8f6c23b511b451ff", "d6aa07725e6b1e49"),
    ("test", 7, 64, 0): ("432bb33188a6ccaa", "94567006810f8e32"),
    ("test", 130, 256, 3): ("2ecb0dad2d97b505", "1d80caa0c931ee41"),
    ("test", 33, 2048, 2): ("4f1e1742a75dc467", "b2a49cc817b44996"),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def both() -> dict[str, torch.Tensor]:
    return {name: make("train", 130, 256, 3).points for name, make in MAKERS.items()}


# ---- clouds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_clouds_lie_on_the_grid_in_the_unit_sphere(both, name):
    points = both[name]
    assert points.shape == (130, 256, 3) and points.dtype == torch.float32
    assert points.is_contiguous() and points.isfinite().all()
    steps = points.double() / GRID
    assert torch.equal(steps, steps.round())
    radius = points.double().norm(dim=-1).amax(1)
    assert radius.max() <= 1 and radius.min() > 1 - 2.5 * GRID
    assert points.double().mean(1).abs().max() < GRID


@pytest.mark.parametrize("name", MAKERS)
def test_squared_distances_are_exact_in_float32(both, name):
    points = both[name]  # (S, N, 3)
    single = (points[:, :, None] - points[:, None, :32]).square().sum(-1)  # (S, N, 32)
    double = (points.double()[:, :, None] - points.double()[:, None, :32]).square().sum(-1)
    assert torch.equal(single.double(), double)


def test_a_cloud_of_one_point_or_of_equal_points_is_zero():
    assert all(make("train", 2, 1).points.eq(0).all() for make in MAKERS.values())
    assert np.all(to_grid(np.ones((3, 2, 5))) == 0)


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_call_gives_the_same_shapes_and_another_seed_others(name):
    first, again, other = (MAKERS[name]("train", 5, 64, seed) for seed in (1, 1, 2))
    assert torch.equal(first.points, again.points) and not torch.equal(first.points, other.points)
    assert first.labels is None or torch.equal(first.labels, again.labels)


@pytest.mark.parametrize("name, sizes", [("procedural", (7, 65)), ("objects", (7, 121))])
def test_asking_for_more_keeps_the_first_ones(both, name, sizes):
    for size in sizes:
        few = MAKERS[name]("train", size, 256, 3)
        assert torch.equal(few.points, both[name][:size])
        if few.labels is not None:
            assert torch.equal(few.labels, MAKERS[name]("train", 130, 1, 3).labels[:size])


@pytest.mark.parametrize("case", CHECKSUMS)
def test_the_shapes_are_these_on_every_machine(case):
    """If this fails, the shapes have changed: results measured on older ones no longer hold."""
    for make, want in zip(MAKERS.values(), CHECKSUMS[case]):
        clouds = make(*case)
        assert clouds.checksum == hashlib.sha256(clouds.points.numpy().tobytes()).hexdigest()
        found = clouds.checksum
        if clouds.labels is not None:
            found = hashlib.sha256(f"{found}{clouds.labels.tolist()}".encode()).hexdigest()
        assert found[:16] == want, clouds.name


def test_splits_share_nothing():
    for make in (procedural_clouds, objects_clouds):
        train, test = make("train", 40, 64), make("test", 40, 64)
        assert isinstance(train, Clouds) and (train.split, test.split) == ("train", "test")
        assert train.checksum != test.checksum and len(train.checksum) == 64
        both = torch.cat([train.points, test.points]).flatten(1)  # (80, 192)
        assert len(both.unique(dim=0)) == 80
        assert not torch.equal(train.points, make("train", 40, 64, seed=1).points)
        assert make("train", 40, 64).checksum == train.checksum
    assert train.classes == CATEGORIES and train.labels.dtype == torch.int64


@pytest.mark.parametrize("bad", [0, -3, 2.0, "8", None])
def test_bad_sizes_are_refused(bad):
    for make in MAKERS.values():
        with pytest.raises(ValueError, match=r"num_shapes is .*1 or more"):
            make("train", bad)
        with pytest.raises(ValueError, match=r"num_points is .*1 or more"):
            make("train", 1, bad)


def test_a_bad_split_is_refused():
    with pytest.raises(ValueError, match=r"'valid'.*'train' or 'test'"):
        objects_clouds("valid", 4)


# ---- objects -----------------------------------------------------------------------------------


def test_categories_are_modelnet40s():
    assert len(CATEGORIES) == len(set(CATEGORIES)) >= 16
    assert set(CATEGORIES) <= set(MODELNET40)


def test_labels_are_balanced_in_every_prefix_and_shuffled():
    labels = objects_clouds("train", 10 * len(CATEGORIES) + 5, 1).labels
    for size in (len(CATEGORIES), 100, len(labels)):
        counts = labels[:size].bincount(minlength=len(CATEGORIES))
        assert counts.max() - counts.min() <= 1
    cycles = labels[: 10 * len(CATEGORIES)].view(10, -1)
    assert len(cycles.unique(dim=0)) == 10


@pytest.mark.parametrize("name", CATEGORIES)
def test_every_family_varies_and_stays_within_its_draws(name):
    counts, sizes = set(), []
    for shape in range(60):
        parts = Parts(0, rng(shape).random(DRAWS).tolist())
        FAMILIES[name](parts)
        rows = np.array(parts.rows)
        assert rows.shape[1] == 16 and np.isfinite(rows).all()
        assert parts.turn in (0, 1, 2, 3)
        counts.add(len(rows))
        points, _ = sample_parts(rows, 1, 200, rng(shape))  # (3, 1, 200)
        sizes.append(np.ptp(points[:, 0], axis=-1))
    sizes = np.array(sizes)
    ratios = np.sort(sizes[:, :2], 1) / sizes[:, 2:]  # (60, 2)
    assert len(counts) > 1, f"{name} always has the same parts"
    assert (ratios.std(0) / ratios.mean(0)).min() > 0.08, f"{name} always has the same proportions"


# ---- points spread by area ---------------------------------------------------------------------


def test_a_box_is_covered_evenly():
    half = np.array([0.5, 1.0, 2.0])
    parts = Parts(0, [])
    parts.box((1, 2, 3), half.tolist())
    points = sample_parts(np.array(parts.rows), 1, 20000, rng())[0][:, 0].T - (1, 2, 3)
    on = np.isclose(np.abs(points), half)  # (N, 3)
    assert on.any(1).all() and (np.abs(points) <= half + 1e-12).all()
    area = half.prod() / half  # of a face across each axis, as a share
    share = area / area.sum()
    assert np.abs(on.mean(0) - share).max() < 0.01
    top = points[points[:, 2] > half[2] - 1e-9, :2]  # (M, 2)
    cells = np.histogram2d(*top.T, bins=4)[0]
    assert ((cells - cells.mean()) ** 2 / cells.mean()).sum() < 45  # chi-square, 15 degrees


def test_a_tapered_box_is_covered_evenly():
    parts = Parts(0, [])
    parts.beam((0, 0, 0), (0, 0, 2), (1, 0, 0), (0, 1e-9, 0), (0.0, 1.0))  # a triangle, twice
    z = sample_parts(np.array(parts.rows), 1, 20000, rng())[0][2, 0]
    for level in (0.5, 1.0, 1.5):
        assert abs((z > level).mean() - (1 - level / 2) ** 2) < 0.01


def test_an_ellipsoid_is_covered_evenly():
    a, b, c = 2.0, 1.0, 0.25
    parts = Parts(0, [])
    parts.ball((0, 0, 0), (a, b, c))
    x, y, z = sample_parts(np.array(parts.rows), 1, 40000, rng())[0][:, 0]
    assert np.allclose((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2, 1)
    h, f = np.meshgrid((np.arange(400) + 0.5) / 200 - 1, (np.arange(400) + 0.5) * (math.pi / 200))
    r = np.sqrt(1 - h * h)
    stretch = np.sqrt(
        (b * c * r * np.cos(f)) ** 2 + (a * c * r * np.sin(f)) ** 2 + (a * b * h) ** 2
    )
    for got, exact in ((np.abs(z) / c, np.abs(h)), (np.abs(x) / a, np.abs(r * np.cos(f)))):
        for level in (0.25, 0.5, 0.75):
            share = stretch[exact < level].sum() / stretch.sum()
            assert abs((got < level).mean() - share) < 0.01


def test_a_cone_and_its_base_are_covered_evenly():
    parts = Parts(0, [])
    parts.lathe([(0, 0), (3, 0), (0, 4)])  # base 9 pi, side 3 * 5 * pi
    x, y, z = sample_parts(np.array(parts.rows), 1, 40000, rng())[0][:, 0]
    base = z < 1e-9
    assert abs(base.mean() - 9 / 24) < 0.01
    assert abs((np.hypot(x, y)[base] < 1.5).mean() - 0.25) < 0.01
    assert abs((z[~base] > 2).mean() - 0.25) < 0.01


def test_parts_share_the_points_by_area():
    parts = Parts(0, [])
    parts.ball((0, 0, 0), (1, 1, 1))
    parts.box((9, 0, 0), (0.5, 0.5, 0.5))
    parts.tube((0, 5, 0), (3, 5, 4), 0.2)
    part = sample_parts(np.array(parts.rows), 1, 20000, rng())[1]
    areas = np.array([4 * math.pi, 6.0, 2 * math.pi * 0.2 * 5])
    assert np.abs(np.bincount(part[0]) / 20000 - areas / areas.sum()).max() < 0.003


# ---- composites --------------------------------------------------------------------------------


def test_composites_are_drawn_as_announced():
    composites = Composites.random(2000, rng())
    half = np.sqrt((composites.axes**2).sum(1))  # (3, S, P)
    assert half.min() >= 0.25 and half.max() <= 2 and abs(half.mean() - 1.125) < 0.01
    assert set(composites.count) == set(range(1, MAX_PRIMITIVES + 1))
    assert np.abs(np.bincount(composites.kind.ravel()) / composites.kind.size - 1 / 3).max() < 0.01
    a, b, c = composites.axes / half[:, None]  # orthonormal, right-handed
    assert np.abs((a * b).sum(0)).max() < 1e-12
    assert np.allclose(np.cross(a, b, axis=0), c)


def test_no_point_of_a_union_lies_inside_another_primitive():
    composites = Composites.random(60, rng(1))
    points, places = union_points(composites, 200, rng(2))  # (3, S, N), (S, N)
    on, within = [], []
    for s in range(60):
        for place in range(composites.count[s]):
            frame = composites.axes[:, :, s, place].T  # (3, 3), columns: half-axis vectors
            away = points[:, s] - composites.offset[:, s, place, None]  # (3, N)
            x, y, z = np.abs(np.linalg.solve(frame, away))  # (N,) each
            gauge = {
                0: np.maximum(np.maximum(x, y), z),
                1: np.sqrt(x**2 + y**2 + z**2),
                2: np.maximum(np.hypot(x, y), z),
            }[int(composites.kind[s, place])]
            height = composites.height(away, np.array(s), np.array(place))
            own = places[s] == place
            on.append(gauge[own] / (1 + height[own]))
            within.append(gauge[~own] / (1 + height[~own]))
    assert np.abs(np.concatenate(on) - 1).max() < 1e-9, "a point left its own surface"
    assert np.concatenate(within).min() > 1 - 1e-9, "a point lies inside another primitive"


def test_a_lone_primitive_keeps_all_its_points_and_bulges_a_little():
    composites = Composites.random(300, rng(3))
    lone = composites.rows(np.flatnonzero((composites.count == 1) & (composites.kind[:, 0] == 1)))
    points, _ = union_points(lone, 400, rng(4))  # (3, S, N)
    away = points - lone.offset[:, :, 0, None]
    size = lone.axes[:, :, :, 0, None] / (lone.axes[:, :, :, 0, None] ** 2).sum(1, keepdims=True)
    gauge = np.sqrt(((size * away).sum(1) ** 2).sum(0))  # (S, N)
    assert gauge.min() > 0.87 and gauge.max() < 1.13 and 0.005 < gauge.std() < 0.08


# ---- speed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, least", [("procedural", 150), ("objects", 400)])
def test_many_shapes_a_second(name, least):
    MAKERS[name]("train", 1)
    start = time.process_time()
    MAKERS[name]("train", 240)
    rate = 240 / (time.process_time() - start)
    assert rate > least, f"{name}: {rate:.0f} shapes a second, expected {least} or more"
