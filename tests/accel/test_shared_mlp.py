"""BatchNorm after a linear layer without its bias is BatchNorm after the linear layer."""

import copy

import pytest
import torch
from torch import nn

from serplib.accel.shared_mlp import at_points, linear_norm
from serplib.pointnet import Shared


def layers(inputs, outputs, **norm):
    torch.manual_seed(1)
    linear, norm = nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, **norm)
    nn.init.normal_(linear.bias, 2.0)  # a bias that would be noticed
    nn.init.normal_(norm.weight) if norm.affine else None
    return linear.double(), norm.double()


def plain(x, linear, norm, relu):
    y = norm(linear(x).flatten(0, -2)).view(*x.shape[:-1], -1)
    return y.relu() if relu else y


SHAPES = [(6, 5), (4, 7, 5), (2, 3, 4, 5), (1, 2, 5)]


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "norm",
    [{}, {"momentum": 0.3}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}],
)
@pytest.mark.parametrize("training", [True, False])
def test_it_is_batchnorm_of_the_linear_layer(shape, relu, norm, training):
    ours = nn.ModuleList(layers(5, 3, **norm)).train(training)
    theirs = copy.deepcopy(ours)
    torch.manual_seed(2)
    for _ in range(3):  # the running mean and variance move on
        x = torch.randn(shape, dtype=torch.double, requires_grad=True)
        pull = torch.randn(*shape[:-1], 3, dtype=torch.double)
        found, wanted = [], []
        for call, modules, into in ((linear_norm, ours, found), (plain, theirs, wanted)):
            modules.zero_grad()
            x.grad = None
            y = call(x, *modules, relu)
            (y * pull).sum().backward()
            into += [y, x.grad, *(p.grad for p in modules.parameters()), *modules.buffers()]
        for a, b in zip(found, wanted, strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_the_bias_has_a_gradient_of_exactly_zero():
    linear, norm = layers(5, 3)
    linear_norm(torch.randn(4, 7, 5).double(), linear, norm).square().sum().backward()
    assert torch.equal(linear.bias.grad, torch.zeros(3).double())


def test_one_row_alone_is_refused_in_training_as_batchnorm_refuses_it():
    linear, norm = layers(5, 3)
    with pytest.raises(ValueError, match="more than 1 value"):
        linear_norm(torch.ones(1, 1, 5).double(), linear, norm)
    assert linear_norm(torch.ones(1, 1, 5).double(), linear, norm.eval()).shape == (1, 1, 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_products_cloud_by_cloud_are_the_product(shape):
    x = torch.randn(shape, dtype=torch.double)
    weight = torch.randn(3, 5, dtype=torch.double)
    assert torch.allclose(at_points(x, weight), x @ weight.T, rtol=1e-12)


def test_relu_in_place_makes_no_copy():
    """Done on a view it would: of x, of its gradient, and zeros of as many."""
    layer = Shared(5, 3)
    node = layer(torch.randn(4, 7, 5)).grad_fn
    names = []
    while node is not None and "Batch" not in node.name():
        names.append(node.name())
        node = node.next_functions[0][0]
    assert node is not None and "CopySlices" not in names, names
