"""What 04_losses_and_baselines builds is what the library has, on inputs it does not use."""

import math

import pytest
import torch
from notebook_helpers import built
from torch.nn import functional as F

from serplib import data, geometry, patches, perturbation, pointnet, seeding, transformer

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
    for name in ("chamfer", "chamfer_pairs"):
        torch.testing.assert_close(made[name](*pairs), right, rtol=1e-4, atol=1e-6)
    accuracy, complete = made["chamfer_sides"](*pairs)
    torch.testing.assert_close(accuracy + complete, right, rtol=1e-5, atol=1e-7)
    other, mirrored = made["chamfer_sides"](*pairs[::-1])
    assert torch.equal(accuracy, mirrored) and torch.equal(complete, other)


def test_springs_are_the_gradient(made, pairs):
    answer, clean = (cloud[:4].double() for cloud in pairs)  # no ties among these
    answer = answer.requires_grad_()
    total = geometry.chamfer_l2(answer, clean, reduction="none").sum()
    (right,) = torch.autograd.grad(total, answer)
    springs = [sum(made["pulls"](x, y)) for x, y in zip(answer.detach(), clean)]
    torch.testing.assert_close(torch.stack(springs), right)


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


def test_entropy(made):
    assert made["entropy_of"](0.5) == pytest.approx(math.log(2))
    assert made["entropy_of"](0.327) == pytest.approx(0.632, abs=5e-4)


def explained_along_the_surface(sample, dense):
    """R2 of a linear rule on the neighbours for the displacement along the surface."""

    def tangent(vectors, normal):
        return vectors - (vectors * normal).sum(-1, keepdim=True) * normal

    noise = seeding.named_generator("floor")
    moved, hit, _ = perturbation.Perturbation()(sample, noise)
    near = geometry.gather(dense, geometry.knn(sample, dense, 32))  # (B, N, 32, 3)
    near = near - near.mean(2, keepdim=True)
    normal = torch.linalg.svd(near, full_matrices=False)[2][:, :, 2]  # (B, N, 3)
    along = tangent(sample - moved, normal)  # (B, N, 3)
    offset = geometry.gather(moved, geometry.knn(moved, moved, 33)[..., 1:]) - moved[:, :, None]
    gap = offset.norm(dim=-1, keepdim=True)  # (B, N, 32, 1)
    gap = gap / gap[:, :, :1].mean((1, 2), keepdim=True)  # in units of the spacing
    offset = tangent(offset, normal[:, :, None])
    features = [(torch.exp(-((gap / h) ** 2)) * offset).mean(2) for h in (1, 1.5, 2, 3, 100)]
    features = torch.stack(features, -1)  # (B, N, 3, 5)
    half = len(sample) // 2
    x, y = (part[:half][hit[:half]].flatten(0, 1) for part in (features, along[..., None]))
    rule = torch.linalg.lstsq(x, y).solution  # (5, 1), fitted on half of the shapes
    error = (along[half:] - (features[half:] @ rule)[..., 0])[hit[half:]]
    return 1 - (error.square().mean() / along[half:][hit[half:]].square().mean()).item()


def test_farthest_points_reveal_more_of_the_displacement_than_uniform_ones():
    """The floor of two thirds holds for uniform samples only: 8 and 5 per cent (section 8)."""
    dense = data.load("objects", "train", 24, 16 * 1024, seed=0).points
    farthest = geometry.gather(dense, geometry.farthest_point_sample(dense, 1024))
    fps = explained_along_the_surface(farthest, dense)
    uniform = explained_along_the_surface(dense[:, -1024:], dense)
    assert (fps, uniform) == pytest.approx((0.08, 0.05), abs=0.01)
