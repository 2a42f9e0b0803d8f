"""Point-NN: one stage by hand, what its features do not depend on, and its published accuracy."""

import math

import pytest
import torch

from serplib import accel
from serplib.data import DataError, load
from serplib.evaluation import point_nn, probes
from serplib.experiments import pipelines
from serplib.seeding import named_generator

CLOUDS = load("objects", "train", 4, 256).points  # (4, 256, 3)


def gelu(x):
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def test_positions_are_sines_and_cosines_axis_by_axis():
    """d = 2 angles: 100 x and 100 x / 1000^(1/2)."""
    found = point_nn.positions(torch.tensor([0.01, 0.02, -0.03]), 12).tolist()
    slow = math.sqrt(1000)
    wanted = [f(a) for x in (1, 2, -3) for a in (x, x / slow) for f in (math.sin, math.cos)]
    assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("fast", [True, False])
def test_a_stage_by_hand(fast):
    """Two neighbours of one centre, a apart along x; spreads s and t."""
    a, s, t = 0.5, 0.8, 0.2
    points = torch.tensor([[[0.0, 0, 0], [a, 0, 0], [9, 9, 9]]])
    features = torch.tensor([[[1.0, 0, 2], [2, 0, 0], [7, 7, 7]]])
    index = torch.tensor([[0]]), torch.tensor([[[0, 1]]])
    with torch.no_grad():
        if fast:
            (found,) = point_nn.aggregate(points, features, *index, (s, t))
        else:
            with accel.disabled():
                (found,) = point_nn.aggregate(points, features, *index, (s, t))
    angle = 100 * a / t
    expanded = [0, 0, 0, 1, 0, 2], [1 / s, 0, -2 / s, 1, 0, 2]
    placed = [0, 1, 0, 1, 0, 1], [math.sin(angle), math.cos(angle), 0, 1, 0, 1]
    weighed = [[(e + p) * p for e, p in zip(*pair)] for pair in zip(expanded, placed)]
    wanted = [gelu(max(pair) + sum(pair) / 2) for pair in zip(*weighed)]
    assert found[0].tolist() == pytest.approx(wanted, abs=2e-4)


def test_compiled_and_plain_features_agree():
    """Angles reach some 500 radians: float32 rounds them by 3e-5, and features sum such values."""
    fast = point_nn.features(CLOUDS)
    with accel.disabled():
        plain = point_nn.features(CLOUDS)
        exact = point_nn.features(CLOUDS.double())
    assert fast.shape == (4, 1152) and fast.dtype == torch.float32
    for found in (fast, plain):
        difference = (found - exact).norm(dim=1) / exact.norm(dim=1)
        print(f"{difference.max():.1e}")
        assert difference.max() < 1e-4


def test_features_do_not_depend_on_the_order_nor_on_other_clouds():
    """Of the order only the first point counts, at which farthest point sampling starts."""
    order = 1 + torch.randperm(255, generator=named_generator("order"))
    shuffled = CLOUDS[:, torch.cat([torch.zeros(1, dtype=torch.int64), order])]
    found = point_nn.features(CLOUDS)
    torch.testing.assert_close(point_nn.features(shuffled), found, rtol=1e-4, atol=1e-4)
    assert torch.equal(point_nn.features(CLOUDS[2:3]), found[2:3])
    assert torch.equal(point_nn.features(CLOUDS, batch_size=3), found)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_degenerate_clouds_have_finite_features(count, fast):
    """One point many times, a line, and twins."""
    line = torch.linspace(-1, 1, count)[:, None] * torch.tensor([1.0, 0, 0])
    clouds = torch.stack([torch.zeros(count, 3), torch.full((count, 3), 0.3), line, line.round()])
    accelerated = accel._enabled
    accel._enabled = accelerated and fast
    try:
        found = point_nn.features(clouds)
    finally:
        accel._enabled = accelerated
    assert found.shape == (4, 1152) and found.isfinite().all()


def test_the_memory_bank_by_hand():
    """Scores of class 0: exp(-g (1 - 1)); of class 1: two features at 60 degrees."""
    stored = torch.tensor([[2.0, 0], [0.5, math.sqrt(0.75)], [0.5, -math.sqrt(0.75)]]).numpy()
    labels, query = torch.tensor([0, 1, 1]), torch.tensor([[3.0, 0]]).numpy()
    for gamma in (0.5, 1.0, 1.5, 20.0):  # 2 exp(-g / 2) > 1 up to g = 2 ln 2 = 1.39
        head = probes.build_head("memory", gamma).fit(stored, labels)
        assert head.predict(query).tolist() == [int(gamma < 2 * math.log(2))], gamma
        share = 1 / (1 + 2 * math.exp(-gamma / 2))
        assert head.predict_proba(query)[0, 0] == pytest.approx(share, rel=1e-5)
    opposite = probes.build_head("memory", 1.0).fit(-stored[:1], labels[:1])
    assert opposite.predict(query).tolist() == [0]  # at the largest distance, too


def test_the_pipeline_probes_it(tmp_path):
    """gamma is one of the choices and comes from held-out training shapes; no seed of weights."""
    given = {"model": "point_nn", "dataset": "objects", "train_shapes": 90, "test_shapes": 60}
    heads = ["memory", "svm"]
    record, shown = pipelines.probe(**given, heads=heads, seed=1, folder=str(tmp_path))
    found = record["metrics"]["probes"]
    assert found["memory_gamma"] in probes.HEADS["memory"][1] and found["dim"] == 1152
    assert found["memory_accuracy"] > 0.2 and shown["features"].shape == (60, 1152)
    assert not record["parameters"]["pretrained"]


@pytest.mark.slow
@pytest.mark.modelnet
def test_the_recorded_accuracy_on_modelnet40(tmp_path):
    """80.3 %; the paper reports 81.8 %, with gamma chosen on the test set.

    So chosen, ours has 80.5 % (gamma 4,000). What the other 1.3 points are is not known.
    """
    try:
        load("modelnet40", "test", 1)
    except DataError as error:
        pytest.skip(str(error))
    given = {"model": "point_nn", "dataset": "modelnet40", "train_shapes": 0}
    record, _ = pipelines.probe(**given, heads=["memory"], folder=str(tmp_path))
    found = record["metrics"]["probes"]
    assert found["num_shapes"] == 2468
    assert 100 * found["memory_accuracy"] == pytest.approx(80.3, abs=0.5)
