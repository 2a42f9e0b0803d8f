"""What A_engineering builds is what the library has, on inputs that the notebook does not use."""

import ast
import json
import math
from dataclasses import replace

import pytest
import torch
from notebook_helpers import ROOT, built

from serplib import data
from serplib.experiments import pipelines
from serplib.geometry import farthest_point_sample, squared_distances
from serplib.presets import QUICK
from serplib.seeding import named_generator
from serplib.transformer import SerpTransformer


@pytest.fixture(scope="module")
def made():
    return built("A_engineering", ast=ast, json=json)


def test_rounding_is_torchs(made):
    x = torch.randn(1000, generator=named_generator("rounding")) * 3
    assert torch.equal(made["keep_bits"](x, 8), x.bfloat16().float())
    assert torch.equal(made["keep_bits"](x, 11), x.half().float())
    assert torch.equal(made["keep_bits"](x, 24), x)


def test_parameters_are_those_that_suites_accept(made):
    for name in ("pretrain", "finetune"):
        path = ROOT / "notebooks" / "experiments" / f"{name}.ipynb"
        assert set(made["parameters_of"](path)) == set(pipelines.defaults(path.stem))


def test_pairs_are_counted_right(made):
    """Against searches in plain Python that count every pair they look at."""
    num_points, num_centers, size = 12, 4, 5
    points = data.load("procedural", "test", 1, num_points, seed=2).points[0]
    looked = 0
    nearest, picked = [math.inf] * num_points, [0]
    while len(picked) < num_centers:
        for i, point in enumerate(points):
            looked += 1
            nearest[i] = min(nearest[i], float((point - points[picked[-1]]).square().sum()))
        picked.append(max(range(num_points), key=lambda i: nearest[i]))
    assert picked == farthest_point_sample(points[None], num_centers)[0].tolist()
    pairs = made["pairs_looked_at"](num_points, num_centers, size)
    assert pairs["FPS"] == looked
    whole = squared_distances(points[None], points[None])
    assert pairs["Chamfer, whole clouds"] == whole.numel()
    assert pairs["kNN of the centres"] == whole[:, picked].numel()
    patches = torch.zeros(num_centers, size, 3)
    assert pairs["Chamfer, patch by patch"] == squared_distances(patches, patches).numel()
    small = replace(QUICK.transformer, num_centers=num_centers, patch_size=size)
    block = SerpTransformer(small).encoder.blocks[0]
    for tokens, name in ((num_centers, "patches"), (num_points, "points")):
        seen = block.attention.weights(torch.zeros(1, tokens + 1, 2 * small.dim))
        assert pairs[f"attention over {name}"] == seen[0, 0].numel()
