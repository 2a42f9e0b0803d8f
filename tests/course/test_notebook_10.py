"""What 10_leakage_and_beyond builds is what the library has, and its last sections read records."""

import ast
from dataclasses import replace

import pytest
import torch
from notebook_helpers import built, cells
from torch import nn

from serplib import data, presets
from serplib.evaluation import leakage
from serplib.evaluation.significance import paired_gain
from serplib.geometry import chamfer_l2
from serplib.patches import Patches, PositionMLP, make_patches
from serplib.point_mae import PointMAE, PointMAEConfig
from serplib.seeding import named_generator
from serplib.transformer import (
    TransformerConfig,
    TransformerDecoder,
    TransformerEncoder,
    patch_chamfer,
)

NAME = "10_leakage_and_beyond"
CONFIG = TransformerConfig(
    num_centers=7, patch_size=5, dim=12, latent_dim=16, encoder_depth=2, decoder_depth=2,
    encoder_heads=2, decoder_heads=2, mlp_ratio=2, token_widths=(4, 5, 6),
)  # fmt: skip
PARTS = {
    "nn": nn,
    "replace": replace,
    "Patches": Patches,
    "PositionMLP": PositionMLP,
    "TransformerDecoder": TransformerDecoder,
    "TransformerEncoder": TransformerEncoder,
}


def built_class(name):
    """A class that the notebook defines."""
    for cell in cells(NAME, "code"):
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                names = {"torch": torch} | PARTS
                exec(compile(ast.Module([node], []), NAME, "exec"), names)
                return names[name]
    raise AssertionError(f"the notebook defines no class {name}")


@pytest.fixture(scope="module")
def clouds():
    return data.load("procedural", "test", 3, 90, seed=5).points  # (3, 90, 3)


@pytest.mark.parametrize("ratio", [0.3, 0.8])
@pytest.mark.parametrize("point_mae", [True, False])
def test_parity_of_masking(clouds, ratio, point_mae):
    theirs = PointMAE(CONFIG, PointMAEConfig(ratio, point_mae)).eval()
    mine = built_class("MyMAE")(theirs.config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # zeros would hide a part left out
    mine.load_state_dict(theirs.state_dict())
    patches = theirs.encoder.patches(clouds)
    order = torch.rand(3, 7, generator=named_generator("mask")).argsort(1)
    visible, hidden = built(NAME, **PARTS)["hide"](patches, order, theirs.num_masked)
    predicted, masked = theirs(clouds)
    for a, b in zip(hidden, masked):
        assert torch.equal(a, b)
    torch.testing.assert_close(mine(visible, hidden.centers), predicted)
    loss = chamfer_l2(predicted.flatten(0, 1), hidden.targets.flatten(0, 1))
    torch.testing.assert_close(loss, theirs.losses(clouds, clouds, None)["total"])


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("loss", ["patch", "union"])
def test_parity_of_the_position_only_decoder(clouds, positions, loss):
    config = replace(CONFIG, loss=loss)
    theirs = leakage.PositionOnlyDecoder(config, positions, clean=True)
    mine = built_class("MyPositionOnlyDecoder")(config, positions)
    mine.load_state_dict(theirs.state_dict())
    patches = make_patches(clouds, 7, 5, None, config.normalize, config.target_frame)
    mine_loss = patch_chamfer(mine(patches.centers), patches.targets, loss)
    torch.testing.assert_close(mine_loss, theirs.losses(clouds, clouds, None)["total"])


def test_the_worlds_are_what_they_promise():
    """A shell is all that FPS picks; sticks follow the place in one world, a coin in the other."""
    world = built(NAME, seed=0, named_generator=named_generator)["world"]
    for by_place in (True, False):
        points = world(24, "test", by_place)  # (24, 96, 3)
        patches = make_patches(points, 8, 12)
        balls = patches.index // 12  # (24, 8, 12) which ball each point of a patch is of
        assert (balls == balls[..., :1]).all() and (balls[..., 0].sort(1).values.diff() == 1).all()
        assert (patches.index[..., 0] % 12 < 6).all()
        spread = points.unflatten(1, (8, 12))[:, :, 6:].std(2)  # (24, 8, 3) of the sticks
        along_x = spread[..., 0] > spread[..., 1]  # (24, 8)
        right = points.unflatten(1, (8, 12))[..., 0].mean(-1) > 0  # (24, 8)
        alike = (along_x == along_x[:, :1]).all(1)  # (24,)
        assert torch.equal(along_x, right) if by_place else alike.all()
        assert along_x.any() and not along_x.all()


# ---- the sections that read records -------------------------------------------------------------


def record(name, seed, metrics):
    return {"run": {"name": name, "label": name}, "parameters": {"seed": seed}, "metrics": metrics}


def test_gains_are_paired_by_seed():
    made = built(NAME, ("metric", "start"), paired_gain=paired_gain)

    def accuracy(base, seeds):
        return [{"test": {"accuracy": base + 0.1 * seed}} for seed in seeds]

    found = []
    for name, seeds, base in (("scratch", (0, 1, 2), 0), ("paper", (2, 0, 1), 0.05)):
        found += [record(f"few-{name}", s, m) for s, m in zip(seeds, accuracy(base, seeds))]
    found += [record("few-masked", s, m) for s, m in zip(range(3), accuracy(0.03, range(3)))]
    gain = made["gain_of"](found, "paper", "start", "few")
    assert gain["n"] == 3 and gain["gain"] == pytest.approx(5)
    assert gain["verdict"] == "significant gain"
    gain = made["gain_of"](found, "masked", "paper", "few")
    assert gain["gain"] == pytest.approx(-2) and gain["verdict"] == "significant loss"


def test_one_seed_has_no_verdict():
    made = built(NAME, ("metric", "start"), paired_gain=paired_gain)
    found = [record("probe-untrained", 0, {"probes": {"svm_accuracy": 0.1}})]
    found += [record("probe-paper", 0, {"probes": {"svm_accuracy": 0.9}})]
    gain = made["gain_of"](found, "paper", "start", "probe")
    assert gain["gain"] == pytest.approx(80) and gain["verdict"] == "not significant"


def test_presets_of_the_suites_are_still_those_that_the_text_describes():
    """Section 5 says what the paper's decoder and the authors' are handed."""
    assert not presets.PAPER.transformer.decoder_positions
    assert presets.AUTHORS_CODE.transformer.decoder_positions
    assert presets.AUTHORS_CODE.transformer.loss == "union"
