"""What 04_losses_and_baselines builds is what the library has, on inputs it does not use."""

import math
from itertools import pairwise

import pytest
import torch
from notebook_helpers import built
from torch.nn import functional as F

from serplib import data, geometry, patches, perturbation, pointnet, seeding, transformer
from serplib.evaluation import reconstruction

NAME = "04_losses_and_baselines"


@pytest.fixture(scope="module")
def made():
    return built(
        NAME,
        math=math,
        F=F,
        nearest_pairs=geometry.nearest_pairs,
        chamfer_l2=geometry.chamfer_l2,
        named_generator=seeding.named_generator,
        alpha_cls=0.2,
        alpha_rec=0.7,
    )


@pytest.fixture(scope="module")
def pairs():
    """Clouds of unequal size: shapes that the notebook does not use, and a heap of ties."""
    generator = torch.Generator().manual_seed(4)
    a = data.load("objects", "test", 4, 96, seed=9).points
    b = data.load("objects", "test", 4, 70, seed=10).points
    grid = torch.randint(-3, 4, (2, 166, 3), generator=generator) / 4
    return torch.cat([a, grid[:, :96]]), torch.cat([b, grid[:, 96:]])


def test_every_form_of_the_distance_is_serplibs(made, pairs):
    right = geometry.chamfer_l2(*pairs, reduction="none")
    for name in ("chamfer", "chamfer_pairs", "chamfer_cdist"):
        torch.testing.assert_close(made[name](*pairs), right, rtol=1e-4, atol=1e-6)
    astray, hole = made["chamfer_sides"](*pairs)
    torch.testing.assert_close(astray + hole, right, rtol=1e-5, atol=1e-7)
    other, mirrored = made["chamfer_sides"](*pairs[::-1])
    assert torch.equal(astray, mirrored) and torch.equal(hole, other)
    expanded = made["expanded"](*pairs)
    torch.testing.assert_close(expanded, geometry.squared_distances(*pairs), atol=1e-5, rtol=1e-4)
    assert made["mean_chamfer"](expanded) == pytest.approx(right.mean().item(), rel=1e-3)


def test_springs_are_the_gradient(made, pairs):
    answer, clean = (cloud[:4].double() for cloud in pairs)  # no ties among these
    answer = answer.requires_grad_()
    total = geometry.chamfer_l2(answer, clean, reduction="none").sum()
    (right,) = torch.autograd.grad(total, answer)
    springs = [sum(made["pulls"](x, y)) for x, y in zip(answer.detach(), clean)]
    torch.testing.assert_close(torch.stack(springs), right)


def test_bytes_kept_by_formula(made):
    a, b = torch.rand(2, 3, 120, 3, generator=torch.Generator().manual_seed(1))
    kept = {
        name: made["bytes_kept"](made[name], a.clone().requires_grad_(), b[:, :100])
        for name in ("chamfer", "chamfer_cdist", "chamfer_pairs")
    }
    assert kept["chamfer"] == pytest.approx(3 * (16 * 12000 + 4 * 220), rel=0.01)
    assert kept["chamfer_cdist"] == pytest.approx(3 * (8 * 12000 + 16 * 220), rel=0.01)
    assert kept["chamfer_pairs"] == pytest.approx(3 * (12 * 220 + 8 * 100), rel=0.01)


def test_descent_never_rises_and_jumps_to_the_mean_of_partners(made):
    a, b = torch.randn(2, 1, 50, 3, generator=torch.Generator().manual_seed(2))
    end, losses = made["descend"](a, b, 15)
    assert all(new <= old + 1e-6 for old, new in pairwise(losses))
    assert geometry.chamfer_l2(end, b).item() < 0.5 * losses[0]
    one = torch.zeros(1, 1, 3)  # its own search weighs 1, each of four finders 1/4
    four = torch.tensor([[[1.0, 0, 0], [3, 0, 0], [5, 0, 0], [7, 0, 0]]])
    end, _ = made["descend"](one, four, 1)
    torch.testing.assert_close(end[0, 0], torch.tensor([(1 + 4.0) / 2, 0, 0]))
    far, _ = made["descend"](one, four, 1, (0.0, 1.0))  # k-means: the mean of the four
    torch.testing.assert_close(far[0, 0], torch.tensor([4.0, 0, 0]))


def test_patch_and_union_losses(made):
    points = data.load("objects", "test", 3, 256, seed=9).points
    bent = perturbation.Perturbation()(points, seeding.named_generator("parity")).points
    cut = patches.make_patches(bent, 16, 12, points)
    for name, loss in (("patch", "patch_loss"), ("union", "union_loss")):
        right = transformer.patch_chamfer(cut.inputs, cut.targets, name)
        torch.testing.assert_close(made[loss](cut.inputs, cut.targets), right)
    shuffled = cut.targets.flip(1)
    assert made["union_loss"](shuffled, cut.targets) == 0
    assert made["patch_loss"](shuffled, cut.targets) > 0


def test_equation_1(made):
    config = pointnet.PointNetConfig(
        (8, 16, 32), (16, 16, 16, 16), (8, 8, 16, 16, 8), alpha_cls=0.2, alpha_rec=0.7
    )
    model = pointnet.SerpPointNet(config).eval()
    clean = data.load("objects", "test", 2, 64, seed=9).points
    perturbed, touched, _ = perturbation.Perturbation()(clean, seeding.named_generator("eq1"))
    parts = made["eq1"](*model(perturbed), touched, clean - perturbed)
    right = model.losses(perturbed, clean, touched)
    torch.testing.assert_close(sum(parts), right["total"])
    torch.testing.assert_close(parts[0], 0.2 * right["classification"])


def test_baselines(made):
    points = data.load("objects", "test", 5, 200, seed=9).points
    right = reconstruction.resample_baseline(points, 3)["resample"]
    assert made["resample"](points, 3) == pytest.approx(right, rel=1e-5)
    assert made["entropy_of"](0.5) == pytest.approx(math.log(2))
    assert made["entropy_of"](0.327) == pytest.approx(0.632, abs=5e-4)
