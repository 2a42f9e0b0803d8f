"""The maximum over points: what it gives, where its gradient goes, compiled as plain."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from serplib.accel import cpu, openmp, pooling
from serplib.accel.pooling import max_over_points

needs_numba = pytest.mark.skipif(openmp.njit is None, reason="needs numba")


@pytest.fixture(params=["plain", pytest.param("fast", marks=needs_numba)])
def path(request, monkeypatch):
    monkeypatch.setattr(cpu, "AVAILABLE", request.param == "fast")
    return request.param


def layers(width, channels, seed=0, dtype=torch.float32):
    """A linear layer and a BatchNorm whose scales have both signs."""
    torch.manual_seed(seed)
    linear, norm = nn.Linear(width, channels), nn.BatchNorm1d(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return linear.to(dtype), norm.to(dtype)


def found(features, *modules, pull=None):
    """The maxima, every gradient and every running average."""
    features = features.detach().clone().requires_grad_()
    highest = max_over_points(features, *modules)
    pull = (
        torch.linspace(-1, 1, highest.numel()).sin().view(highest.shape) if pull is None else pull
    )
    highest.backward(pull.to(highest.dtype))
    some = {"highest": highest.detach(), "features": features.grad}
    for number, module in enumerate(modules):
        some |= {f"{number} {name}": p.grad for name, p in module.named_parameters()}
        some |= {f"{number} {name}": b.clone() for name, b in module.named_buffers()}
    return some


def random_features(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) + 0.3


def test_by_hand(path):
    features = torch.tensor([[[1.0, -5.0], [3.0, -7.0], [3.0, -6.0]]])  # (1, 3, 2)
    some = found(features, pull=torch.tensor([[10.0, 20.0]]))
    assert some["highest"].tolist() == [[3, -5]]
    assert some["features"].tolist() == [[[0, 20], [10, 0], [0, 0]]]  # the first of equal ones


def test_a_layer_by_hand(path):
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[2.0, -1.0]]))
        linear.bias.fill_(0.5)
    features = torch.tensor([[[1.0, 4.0], [3.0, 1.0], [0.0, 0.0]]])  # -1.5, 5.5 and 0.5
    some = found(features, linear, pull=torch.tensor([[10.0]]))
    assert some["highest"].tolist() == [[5.5]]
    assert some["features"].tolist() == [[[0, 0], [20, -10], [0, 0]]]
    assert some["0 weight"].tolist() == [[30, 10]]
    assert some["0 bias"].tolist() == [10]


SHAPES = [(1, 2, 1, 1), (2, 1, 3, 2), (3, 7, 5, 4), (4, 50, 3, 40), (33, 16, 24, 9)]  # B, N, W, C


@needs_numba
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_compiled_as_the_plain_code_in_double_precision(shape, count, monkeypatch):
    batch, size, width, channels = shape
    features = random_features(batch, size, width)
    wanted = found(features.double(), *layers(width, channels, dtype=torch.float64)[:count])
    monkeypatch.setattr(cpu, "AVAILABLE", True)
    got = found(features, *layers(width, channels)[:count])
    assert wanted.keys() == got.keys()
    for name, value in wanted.items():
        # A feature of few values may have next to no spread, over which BatchNorm divides.
        far = 1e-3 if size * batch < 5 else 2e-5
        scale = max(1.0, value.abs().max().item())
        assert (got[name].double() - value).abs().max() < far * scale, name


def test_the_gradient_is_that_of_finite_differences():
    linear, norm = layers(3, 4, dtype=torch.float64)
    norm.momentum = None  # no running average that would change from call to call
    features = random_features(2, 6, 3).double().requires_grad_()
    for modules in ((), (linear,), (linear, norm)):
        assert torch.autograd.gradcheck(lambda x, m=modules: max_over_points(x, *m), features)


def test_the_compiled_gradient_is_that_of_finite_differences_in_double_precision(monkeypatch):
    """`_NormMax` has no double precision of its own: its formula, with the loops in plain torch."""

    def maximum(x, sign):
        return (sign * x).max(1)

    def to_inputs(on_inputs, weight, where, pull, add):
        assert add
        for b, c in itertools.product(*map(range, where.shape)):
            on_inputs[b, where[b, c]] += pull[b, c] * weight[c]

    def to_weight(inputs, weight, where, pull):
        on_weight = torch.zeros_like(weight)
        for b, c in itertools.product(*map(range, where.shape)):
            on_weight[c] += pull[b, c] * inputs[b, where[b, c]]
        return on_weight

    for function in (maximum, to_inputs, to_weight):
        monkeypatch.setattr(cpu, function.__name__, function)
    linear, norm = layers(3, 4, dtype=torch.float64)
    weights = [p.detach().requires_grad_() for p in (*linear.parameters(), *norm.parameters())]
    features = random_features(2, 6, 3).double().requires_grad_()

    def call(features, *weights):
        running = torch.zeros(4).double(), torch.ones(4).double()
        return pooling._NormMax.apply(features, *weights, *running, 0.1, 1e-5)

    assert torch.autograd.gradcheck(call, (features, *weights))


@needs_numba
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 9), (40, 16, 48), (2, 300, 7)])
@pytest.mark.parametrize("broken", [False, True])
def test_the_first_of_the_highest_is_found(shape, broken):
    generator = torch.Generator().manual_seed(0)
    features = torch.randint(-3, 4, shape, generator=generator).float()  # many are equal
    if broken:
        features[torch.rand(shape, generator=generator) < 0.1] = torch.nan
        features[torch.rand(shape, generator=generator) < 0.1] = -torch.inf
    sign = torch.randint(0, 2, shape[2:], generator=generator) * 2.0 - 1  # (C,)
    for signs, given in ((None, features), (sign, sign * features)):
        highest, where = cpu.maximum(features, signs)
        wanted = given.max(1)
        assert torch.equal(where, wanted.indices)
        assert torch.equal(highest.nan_to_num(99), wanted.values.nan_to_num(99))


def test_a_norm_before_a_maximum_keeps_its_averages(path):
    linear, norm = layers(5, 7)
    twin_linear, twin = copy.deepcopy(linear), copy.deepcopy(norm)
    for seed in range(3):
        features = random_features(4, 20, 5, seed=seed)
        max_over_points(features, linear, norm)
        twin(twin_linear(features).flatten(0, 1))
    assert norm.num_batches_tracked == twin.num_batches_tracked == 3
    assert torch.allclose(norm.running_mean, twin.running_mean, atol=1e-6)
    assert torch.allclose(norm.running_var, twin.running_var, rtol=1e-5)


CHANGES = {
    "evaluation": lambda norm: norm.eval(),
    "cumulative": lambda norm: setattr(norm, "momentum", None),
    "frozen": lambda norm: norm.requires_grad_(False),
    "another": lambda norm: setattr(norm, "eps", 0.5),
}


@needs_numba
@pytest.mark.parametrize("change", CHANGES)
def test_every_kind_of_norm_as_the_plain_code(change, monkeypatch):
    features, outcome = random_features(3, 9, 4), []
    for available in (False, True):
        monkeypatch.setattr(cpu, "AVAILABLE", available)
        linear, norm = layers(4, 6)
        CHANGES[change](norm)
        outcome.append(found(features, linear, norm))
    for name, value in outcome[0].items():
        assert (value is None) == (outcome[1][name] is None), name
        assert value is None or torch.allclose(outcome[1][name], value, atol=2e-5), name


def test_a_linear_layer_without_bias(path):
    linear = nn.Linear(4, 6, bias=False)
    features = random_features(3, 9, 4)
    assert torch.allclose(max_over_points(features, linear), linear(features).amax(1), atol=1e-6)


@needs_numba
@pytest.mark.parametrize("frozen", ["features", "weight", "both"])
def test_nothing_is_asked_of_what_is_frozen(frozen, path):
    for count in (1, 2):
        linear, norm = layers(4, 6)
        linear.requires_grad_(frozen == "features")
        features = random_features(3, 9, 4).requires_grad_(frozen == "weight")
        highest = max_over_points(features, linear, norm) if count == 2 else (
            max_over_points(features, linear))  # fmt: skip
        if highest.requires_grad:
            highest.sum().backward()
        assert (features.grad is not None) == (frozen == "weight" and highest.requires_grad)
        assert (linear.weight.grad is not None) == (frozen == "features")


def test_nan_is_not_lost(path):
    features = random_features(3, 9, 4)
    features[1, 5, 2] = float("nan")
    assert max_over_points(features).isnan().nonzero().tolist() == [[1, 2]]
    linear, norm = layers(4, 6)
    assert max_over_points(features, linear)[1].isnan().all()
    assert max_over_points(features, linear, norm).isnan().all()  # a mean over all of it


def test_half_precision_and_autocast(path):
    linear, norm = layers(4, 6)
    features = random_features(3, 9, 4)
    wanted = max_over_points(features, linear, copy.deepcopy(norm))
    with torch.autocast("cpu", torch.bfloat16):
        got = max_over_points(features, linear, norm)
        assert max_over_points(features, linear).dtype == torch.bfloat16
    assert torch.allclose(got.float(), wanted, atol=0.1)
    assert max_over_points(features.bfloat16()).dtype == torch.bfloat16


def test_one_point_has_no_spread(path):
    linear, norm = layers(4, 6)
    with pytest.raises(ValueError, match="more than 1 value"):
        max_over_points(random_features(1, 1, 4), linear, norm)


@needs_numba
def test_a_second_derivative_is_refused_in_compiled_code(monkeypatch):
    monkeypatch.setattr(cpu, "AVAILABLE", True)
    features = random_features(2, 5, 3).requires_grad_()
    for modules in ((), layers(3, 4)[:1], layers(3, 4)):
        total = max_over_points(features, *modules).square().sum()
        with pytest.raises(NotImplementedError, match="SERP_FAST=0"):
            torch.autograd.grad(total, features, create_graph=True)


@needs_numba
def test_the_number_of_threads_does_not_matter(monkeypatch):
    monkeypatch.setattr(cpu, "AVAILABLE", True)
    monkeypatch.setattr(cpu, "_WORTH_A_TEAM", 1)
    outcome, before = [], torch.get_num_threads()
    features = random_features(16, 64, 24)
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            outcome.append(found(features, layers(24, 40)[0]))
    finally:
        torch.set_num_threads(before)
    for name in ("features", "0 weight"):
        assert torch.allclose(outcome[0][name], outcome[1][name], atol=1e-6), name


@needs_numba
def test_a_transposed_batch_is_read_as_it_is(monkeypatch):
    monkeypatch.setattr(cpu, "AVAILABLE", True)
    features = random_features(4, 3, 9).transpose(1, 2)  # (B, N, W), not contiguous
    linear, norm = layers(3, 5)
    for modules in ((), (linear,), (linear, norm)):
        turned, straight = (
            found(x, *(copy.deepcopy(m) for m in modules))
            for x in (features, features.contiguous())
        )
        for name, value in straight.items():
            assert torch.allclose(turned[name], value, atol=1e-6), name


def test_equal_points_share_a_maximum_and_the_first_has_its_gradient(path):
    linear, _ = layers(3, 5)
    features = random_features(2, 1, 3).expand(2, 4, 3)
    some = found(features, linear)
    assert (some["features"][:, 1:] == 0).all() and (some["features"][:, 0] != 0).any()
    assert torch.equal(some["highest"], F.linear(features, linear.weight, linear.bias)[:, 0])


def test_only_batches_of_points(path):
    with pytest.raises(ValueError, match="features has shape"):
        max_over_points(torch.zeros(3, 4))


def test_a_norm_alone(path):
    _, norm = layers(4, 6)
    features = random_features(3, 9, 6)
    wanted = copy.deepcopy(norm)(features.flatten(0, 1)).view(3, 9, 6).amax(1)
    assert torch.allclose(max_over_points(features, norm=norm), wanted, atol=1e-6)
