"""What 03_tokenization builds is what `patches` and `serplib.geometry` have."""

import ast

import pytest
import torch
from notebook_helpers import built, cells
from torch import nn

from serplib import data, geometry, perturbation, seeding
from serplib.patches import TokenPointNet, make_patches

NAME = "03_tokenization"


@pytest.fixture(scope="module")
def twins():
    """Perturbed and clean shapes that the notebook does not use, and a heap of ties."""
    generator = torch.Generator().manual_seed(11)
    ties = torch.randint(-3, 4, (2, 160, 3), generator=generator) / 4
    clean = torch.cat([data.load("objects", "test", 4, 160, seed=5).points, ties])
    return perturbation.Perturbation(6, 9, 0.08)(clean, seeding.named_generator("03")).points, clean


@pytest.fixture(scope="module")
def made():
    return built(NAME, farthest_point_sample=geometry.farthest_point_sample)


def token_network(made, *arguments):
    """The class that the notebook defines."""
    names = made | {"nn": nn}
    for cell in cells(NAME, "code"):
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.ClassDef):
                exec(compile(ast.Module([node], []), NAME, "exec"), names)
    return names["MyTokenPointNet"](*arguments)


@pytest.mark.parametrize(("num_centers", "patch_size"), [(24, 16), (1, 160), (160, 1)])
def test_patches(made, twins, num_centers, patch_size):
    points, clean = twins
    chosen, index = made["cut_patches"](points, num_centers, patch_size)
    theirs = make_patches(points, num_centers, patch_size, clean)
    assert torch.equal(index, theirs.index)
    assert torch.equal(geometry.gather(clean, chosen), theirs.clean_centers)
    visits = made["visits"](index, points.shape[1])
    for cloud, counted in zip(index, visits):
        assert torch.equal(cloud.flatten().bincount(minlength=160).float(), counted)


@pytest.mark.parametrize("normalize", ["center", "mean_std"])
def test_frames(made, twins, normalize):
    points, clean = twins
    for frame, cloud in (("input", points), ("own", clean)):
        theirs = make_patches(points, 20, 12, clean, normalize, frame)
        centers = theirs.centers if frame == "input" else theirs.clean_centers
        patches = geometry.gather(cloud, theirs.index)
        origin, unit = made["frame_of"](patches, centers, normalize)
        torch.testing.assert_close(origin, theirs.origin)
        torch.testing.assert_close(unit, theirs.scale)


@pytest.mark.parametrize("training", [True, False])
def test_token_network(made, twins, training):
    widths = (8, 12, 20)
    torch.manual_seed(3)
    theirs, mine = TokenPointNet(10, widths), token_network(made, 10, widths)
    for norm in (theirs.first_norm, theirs.wide_norm):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.weight)
    mine.load_state_dict(theirs.state_dict())
    patches = make_patches(twins[0], 20, 12, normalize="mean_std").inputs
    with torch.no_grad():
        ours, wanted = mine.train(training)(patches), theirs.train(training)(patches)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.first_norm.running_var, theirs.first_norm.running_var)


def test_shuffled_shuffles_inside_each_patch(made, twins):
    patches = make_patches(twins[0], 20, 12).inputs
    mixed = made["shuffled"](patches, seeding.named_generator("mix"))
    assert not torch.equal(mixed, patches)
    flat, flat_mixed = patches.flatten(0, 1).tolist(), mixed.flatten(0, 1).tolist()
    assert all(sorted(a) == sorted(b) for a, b in zip(flat, flat_mixed))
