"""`evaluation.reconstruction`: restorations beside the answers that need no learning."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch

from serplib import presets
from serplib.data import DataError, load
from serplib.evaluation.reconstruction import resample_baseline, restoration
from serplib.geometry import chamfer_l2
from serplib.patches import stitch
from serplib.perturbation import Perturbation
from serplib.pointnet import PointNetConfig, SerpPointNet
from serplib.pretext import Corruption, Step
from serplib.seeding import named_generator
from serplib.training import Pretext
from serplib.transformer import SerpTransformer, TransformerConfig, patch_chamfer

POINTNET = PointNetConfig((6, 8, 10), (9, 8, 7, 6), (5, 6, 7, 6, 5))
TRANSFORMER = TransformerConfig(
    num_centers=4,
    patch_size=6,
    dim=6,
    latent_dim=8,
    encoder_depth=1,
    decoder_depth=1,
    encoder_heads=2,
    decoder_heads=2,
    token_widths=(4, 5, 6),
)
SMALL = Corruption(Perturbation(4, 6, 0.1), num_points=40)
PAPER = Corruption()


def sphere(batch, num_points=1024, seed=0):
    points = torch.randn(batch, num_points, 3, generator=named_generator(seed, "sphere"))
    return points / points.norm(dim=-1, keepdim=True)


class Scripted(SerpPointNet):
    """A SeRP-PointNet that knows the answers and gives those that ``answer`` makes of them."""

    def __init__(self, answer, task="delta"):
        super().__init__(PointNetConfig(POINTNET.widths, POINTNET.decoder_widths,
                                        POINTNET.transform_widths, task=task))  # fmt: skip
        self.answer = answer

    def forward(self, perturbed):
        return self.answer(perturbed, self.clean, self.touched)


class Telling(Pretext):
    """A pretext task that tells the model the answers."""

    def corrupt(self, points, generator):
        perturbed, clean, touched = super().corrupt(points, generator)
        self.model.clean, self.model.touched = clean, touched
        return perturbed, clean, touched


def logits(touched):
    """Certain and right."""
    return torch.stack([-touched.float(), touched.float()], -1)


def pairs(corruption, points, seed, batch_size):
    """The pairs that `restoration` makes, batch by batch."""
    pretext = Pretext(SerpPointNet(POINTNET), corruption)
    for i, part in enumerate(points.split(batch_size)):
        yield pretext.corrupt(part, named_generator(seed, "restoration", i))


def both_models():
    torch.manual_seed(0)
    return {"pointnet": SerpPointNet(POINTNET), "transformer": SerpTransformer(TRANSFORMER)}


# ---------------------------------------------------------------- both models


@pytest.mark.parametrize("model", ["pointnet", "transformer"])
@pytest.mark.parametrize("batch_size", [2, 5, 32])
def test_copy_input_is_the_chamfer_by_hand_and_a_mean_over_clouds(model, batch_size):
    points = torch.randn(5, 40, 3, generator=named_generator("clouds"))  # last batch: 1 of 2
    got = restoration(Pretext(both_models()[model], SMALL), points, 7, batch_size)
    distances, shares = [], []
    for perturbed, clean, touched in pairs(SMALL, points, 7, batch_size):
        for i in range(len(clean)):
            square = torch.cdist(perturbed[i].double(), clean[i].double()).square()
            distances.append((square.amin(0).mean() + square.amin(1).mean()).item())
            shares.append(touched[i].double().mean().item())
    assert len(distances) == 5
    assert got["copy_input"] == pytest.approx(sum(distances) / 5, rel=1e-5)
    assert got["touched"] == pytest.approx(sum(shares) / 5, rel=1e-12)


@pytest.mark.parametrize("model", ["pointnet", "transformer"])
def test_restored_is_the_models_own_restoration(model):
    points = torch.randn(3, 40, 3, generator=named_generator("clouds"))
    network = both_models()[model]
    got = restoration(Pretext(network, SMALL), points, 7)
    ((perturbed, clean, _),) = pairs(SMALL, points, 7, 32)
    wanted = chamfer_l2(network.eval().restore(perturbed), clean).item()
    assert got["restored"] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("model", ["pointnet", "transformer"])
def test_the_same_seed_gives_the_same_numbers_and_the_model_is_left_alone(model):
    points = torch.randn(4, 40, 3, generator=named_generator("clouds"))
    network = both_models()[model].train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    one = restoration(Pretext(network, SMALL), points, 7)
    torch.manual_seed(99)
    assert restoration(Pretext(network, SMALL), points, 7) == one
    assert restoration(Pretext(network, SMALL), points, 8) != one
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(type(value) is float and math.isfinite(value) for value in one.values())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("num_centers", [4, 40])
def test_a_perfect_network_misses_the_points_that_no_patch_holds(num_centers):
    points = torch.randn(3, 40, 3, generator=named_generator("clouds"))
    network = SerpTransformer(replace(TRANSFORMER, num_centers=num_centers)).eval()
    got = restoration(Pretext(network, SMALL), points, 7)["perfect"]
    ((perturbed, clean, _),) = pairs(SMALL, points, 7, 32)
    held = network.encoder.patches(perturbed).index.flatten(1)  # (B, c*n)
    clouds = [chamfer_l2(x[i][None], x[None]).item() for x, i in zip(clean, held)]
    assert got == pytest.approx(sum(clouds) / 3, rel=1e-5)
    assert got == 0 if num_centers == 40 else got > 0.01


@pytest.mark.modelnet
@pytest.mark.parametrize(("num_centers", "floor", "held"), [(32, 7.6, 833), (64, 0.2, 1008)])
def test_the_floor_of_the_results_page_is_that_of_modelnet40(num_centers, floor, held):
    """`laptop` as it is, and with the patches of the paper."""
    try:
        points = load("modelnet40", "test", 128).points
    except DataError as error:
        pytest.skip(str(error))
    settings = presets.build("laptop")
    config = replace(settings.transformer, num_centers=num_centers)
    task = Pretext(SerpTransformer(config).eval(), settings.corruption)
    got = restoration(task, points, 0)
    assert 1e4 * got["perfect"] == pytest.approx(floor, abs=0.05)
    assert 1e4 * got["copy_input"] == pytest.approx(8.8, abs=0.05)
    better = 1 - got["perfect"] / got["copy_input"]
    assert better == pytest.approx(1 / 7, abs=0.01) if num_centers == 32 else better > 0.95
    perturbed = task.corrupt(points, named_generator("floor"))[0]
    index = task.model.encoder.patches(perturbed).index.flatten(1)
    assert sum(len(row.unique()) for row in index) / 128 == pytest.approx(held, abs=3)


# ---------------------------------------------------------------- SeRP-PointNet


def test_keys_of_each_model():
    points = torch.randn(2, 40, 3, generator=named_generator("clouds"))
    base = {"restored", "copy_input", "touched"}
    found = {n: set(restoration(Pretext(m, SMALL), points, 0)) for n, m in both_models().items()}
    assert found["pointnet"] == base | {"detection_auc", "touched_copy", "touched_moved"}
    more = {"restored_clean_centers", "patch", "patch_copy", "perfect"}
    assert found["transformer"] == base | more
    cdl2 = SerpPointNet(PointNetConfig(*(getattr(POINTNET, n) for n in (
        "widths", "decoder_widths", "transform_widths")), task="cdl2"))  # fmt: skip
    assert set(restoration(Pretext(cdl2, SMALL), points, 0)) == base | {
        "detection_auc",
        "touched_copy",
    }  # no point has a twin in a predicted cloud


def test_touched_copy_is_three_sigma_squared():
    model = Scripted(lambda p, c, t: (logits(t), 0 * p))
    got = restoration(Telling(model, PAPER), sphere(20), 1)
    # 20 clouds, some 330 points each, 3 axes: the mean of 20,000 squares is known to 1 %.
    assert got["touched_copy"] == pytest.approx(3 * 0.03**2, rel=0.04)
    assert got["touched"] == pytest.approx(333.8 / 1024, rel=0.03)


def test_a_model_that_does_nothing_restores_the_input():
    model = Scripted(lambda p, c, t: (logits(t), 0 * p))
    got = restoration(Telling(model, SMALL), sphere(5, 60), 1, 2)
    assert got["restored"] == got["copy_input"] > 0
    assert got["touched_moved"] == got["touched_copy"] > 0


@pytest.mark.parametrize("task", ["delta", "cdl2"])
def test_a_perfect_model_restores_exactly(task):
    model = Scripted(lambda p, c, t: (logits(t), c - p if task == "delta" else c), task)
    got = restoration(Telling(model, SMALL), sphere(5, 60), 1, 2)
    assert got["restored"] < 1e-12 < got["copy_input"]
    assert got.get("touched_moved", 0) < 1e-12 < got["touched_copy"]


def test_touched_moved_looks_at_touched_points_only():
    """A model that spoils the untouched ones and puts the touched ones back."""
    model = Scripted(lambda p, c, t: (logits(t), torch.where(t[..., None], c - p, 1.0)))
    got = restoration(Telling(model, SMALL), sphere(5, 60), 1)
    assert got["touched_moved"] < 1e-12 and got["restored"] > 0.1


@pytest.mark.parametrize(
    ("answer", "auc"),
    [
        (lambda p, c, t: (logits(t), 0 * p), 1.0),
        (lambda p, c, t: (-logits(t), 0 * p), 0.0),
        (lambda p, c, t: (torch.zeros(*t.shape, 2), 0 * p), 0.5),
        (lambda p, c, t: (torch.ones(*t.shape, 2) * torch.tensor([3.0, -2.0]), 0 * p), 0.5),
    ],
    ids=["oracle", "always wrong", "undecided", "one answer"],
)
def test_detection_auc(answer, auc):
    got = restoration(Telling(Scripted(answer), SMALL), sphere(5, 60), 1, 2)
    assert got["detection_auc"] == pytest.approx(auc, abs=1e-12)


@pytest.mark.parametrize("steps", [(family,) for family in get_args(Step)] + [("affine", "drop")])
def test_every_family_is_measured_with_finite_values(steps):
    """Affine maps touch all points, and no AUC is defined: a record takes no NaN."""
    found = restoration(Telling(Scripted(lambda p, c, t: (logits(t), 0 * p)),
                                replace(SMALL, steps=steps)), sphere(5, 60), 1, 2)  # fmt: skip
    assert all(math.isfinite(value) for value in found.values()), found
    assert ("detection_auc" in found) == (0 < found["touched"] < 1)


def test_detection_auc_counts_pairs_over_all_clouds():
    """By its meaning: the share of (touched, untouched) pairs that are in the right order."""
    scores = torch.rand(4, 60, generator=named_generator("scores"))
    done = []

    def answer(perturbed, clean, touched):
        mine = scores[sum(done) : sum(done) + len(clean)]
        done.append(len(clean))
        return torch.stack([-mine, mine], -1) + touched[..., None] * torch.tensor([0.0, 0.3]), (
            0 * perturbed
        )

    class Once(Scripted):
        def restore(self, perturbed):  # its own forward pass would draw scores, too
            return perturbed

    corruption = Corruption(Perturbation(4, 6, 0.1), num_points=60)
    points = sphere(4, 60)
    got = restoration(Telling(Once(answer), corruption), points, 1, 3)
    assert done == [3, 1]
    touched = torch.cat([t for *_, t in pairs(corruption, points, 1, 3)]).flatten()
    value = (2 * scores).flatten() + 0.3 * touched
    yes, no = value[touched], value[~touched]
    wanted = (yes[:, None] > no[None]).double().mean().item()
    assert 0.5 < wanted < 0.9
    assert got["detection_auc"] == pytest.approx(wanted, abs=1e-3)  # softmax in float32 ties a few


# ---------------------------------------------------------------- SeRP-Transformer


def test_a_transformer_that_copies_its_patches():
    points = torch.randn(5, 40, 3, generator=named_generator("clouds"))
    model = both_models()["transformer"]

    def copying(perturbed, clean=None):
        patches = model.encoder.patches(perturbed, clean)
        return patches.inputs, patches

    model.forward = copying
    got = restoration(Pretext(model, SMALL), points, 7, 2)
    assert got["patch"] == got["patch_copy"] > 0
    distances = []
    for perturbed, clean, _ in pairs(SMALL, points, 7, 2):
        p = model.encoder.patches(perturbed, clean)
        cloud = stitch(p.inputs, p.origin, p.scale)
        distances += chamfer_l2(cloud, clean, "none").tolist()
    assert got["restored"] == pytest.approx(sum(distances) / 5, rel=1e-5)


def test_patch_distances_are_those_of_the_targets():
    points = torch.randn(3, 40, 3, generator=named_generator("clouds"))
    model = both_models()["transformer"]
    got = restoration(Pretext(model, SMALL), points, 7)
    ((perturbed, clean, _),) = pairs(SMALL, points, 7, 32)
    with torch.no_grad():
        predicted, patches = model.eval()(perturbed, clean)
    wanted = patch_chamfer(predicted, patches.targets, "patch").item()
    assert got["patch"] == pytest.approx(wanted, rel=1e-6)
    wanted = patch_chamfer(patches.inputs, patches.targets, "patch").item()
    assert got["patch_copy"] == pytest.approx(wanted, rel=1e-6)


def test_clean_centers_help_a_model_that_predicts_nothing():
    """The reason for reporting both: c true points are worth something by themselves."""
    config = TransformerConfig(
        **{name: getattr(TRANSFORMER, name) for name in ("dim", "latent_dim", "token_widths")},
        num_centers=20,
        patch_size=2,
        encoder_depth=1,
        decoder_depth=1,
        encoder_heads=2,
        decoder_heads=2,
        normalize="center",
        target_frame="own",
    )
    model = SerpTransformer(config)
    torch.nn.init.zeros_(model.decoder.head.weight)
    torch.nn.init.zeros_(model.decoder.head.bias)
    got = restoration(Pretext(model, Corruption(Perturbation(8, 5, 0.3))), sphere(8, 40), 1)
    assert got["restored_clean_centers"] < 0.8 * got["restored"]


# ---------------------------------------------------------------- two samples of one surface


def test_resampled_points_that_coincide_are_at_no_distance():
    points = torch.randn(3, 1, 3, generator=named_generator("one")).expand(-1, 64, -1)
    assert resample_baseline(points, 0) == {"resample": 0.0, "resample_points": 32}


def test_resample_baseline_on_a_sphere_is_what_geometry_says():
    """The squared distance to the nearest of N points on the unit sphere is 4/N on average."""
    got = resample_baseline(sphere(20, 2048), 0)
    assert got["resample_points"] == 1024
    assert got["resample"] == pytest.approx(2 * 4 / 1024, rel=0.03)
    assert resample_baseline(sphere(20, 1024), 0)["resample"] == pytest.approx(
        2 * got["resample"], rel=0.05
    )


def test_resample_baseline_cuts_into_halves_without_a_common_point():
    """Points far apart in pairs: each has its partner in the other half, or nobody near."""
    line = torch.arange(40.0)[None, :, None] * torch.tensor([1.0, 0, 0])
    got = resample_baseline(line.expand(50, -1, -1), 0)
    assert got["resample"] >= 2.0  # no point meets itself: at least 1 away, on both sides
    assert got["resample_points"] == 20


def test_resample_baseline_is_seeded_and_a_mean_over_clouds():
    points = sphere(37, 60)  # more than one batch of 32
    one = resample_baseline(points, 0)
    assert one == resample_baseline(points, 0) != resample_baseline(points, 1)
    order = torch.rand(37, 60, generator=named_generator(0, "resample")).argsort(1)
    distances = []
    for cloud, index in zip(points, order):
        first, second = cloud[index[:30]][None], cloud[index[30:]][None]
        distances.append(chamfer_l2(first, second).item())
    assert one["resample"] == pytest.approx(sum(distances) / 37, rel=1e-6)


def test_resample_baseline_leaves_an_odd_point_out():
    assert resample_baseline(sphere(2, 7), 0)["resample_points"] == 3


def test_copying_is_closer_than_resampling():
    """The course's point: at the paper's sigma, doing nothing is a strong answer."""
    points = sphere(4, 2048)
    model = Scripted(lambda p, c, t: (logits(t), 0 * p))
    copy = restoration(Telling(model, PAPER), points, 0)["copy_input"]
    assert 5e-4 < copy < 15e-4
    assert copy < 0.25 * resample_baseline(points, 0)["resample"]
