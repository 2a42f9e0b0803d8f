"""Fused layers against the plain ones: values, gradients, running averages, and when they apply."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from serplib import accel
from serplib.accel import layers
from serplib.classifier import Classifier, autoencoder
from serplib.perturbation import Perturbation
from serplib.pointnet import PointNetConfig, PointNetEncoder, SerpPointNet, SharedLayer
from serplib.presets import build
from serplib.pretext import Corruption, Pretext
from serplib.seeding import named_generator

CONFIG = PointNetConfig((6, 8, 10), (9, 8, 7, 6), (5, 6, 7, 6, 5), alpha_cls=0.5)


def draw(*shape, name="fused"):
    return torch.randn(*shape, generator=named_generator(name))


def unsettled(module):
    """Scales and shifts of BatchNorm of both signs, and biases that would be noticed."""
    generator = named_generator("unsettled")
    for name, parameter in module.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.normal_(parameter, 0.3, 1.0, generator=generator)
    return module


def model(**changes):
    torch.manual_seed(0)
    return unsettled(SerpPointNet(PointNetConfig(**{**vars(CONFIG), **changes})))


def outcome(module, *inputs):
    """Outputs, gradients of inputs and parameters, and buffers after a step."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    module.zero_grad()
    outputs = module(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = sum((x * draw(*x.shape, name="grad").to(x)).sum() for x in outputs)
    loss.backward()
    found = {f"output {i}": x.detach() for i, x in enumerate(outputs)}
    found |= {f"input {i}": x.grad for i, x in enumerate(inputs)}
    found |= {name: p.grad for name, p in module.named_parameters()}
    return found | {name: b.clone() for name, b in module.named_buffers()}


def compare(plain, fused, *inputs, tolerance):
    """Compare two modules over three steps, relative to the largest entry of each tensor."""
    for step in range(3):
        inputs = [x.roll(step, 0) for x in inputs]
        expected, found = outcome(plain, *inputs), outcome(fused, *inputs)
        assert expected.keys() == found.keys()
        largest = max(v.abs().max() for n, v in expected.items() if n.endswith("weight"))
        for name, value in expected.items():
            # Gradients of biases before a BatchNorm are zero but for rounding.
            scale = largest if name.endswith("bias") else max(value.abs().max(), 1e-3)
            gap = (found[name] - value).abs().max()
            assert gap <= tolerance * scale, (step, name, gap, scale)


@pytest.mark.parametrize("task", ["delta", "cdl2"])
@pytest.mark.parametrize("transforms", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-4)])
def test_a_fused_pointnet_is_the_plain_one(task, transforms, dtype, tolerance):
    plain = model(task=task, input_transform=transforms, feature_transform=transforms).to(dtype)
    fused = accel.fuse(copy.deepcopy(plain))
    assert type(fused) is layers.SerpPointNet and type(plain) is SerpPointNet
    compare(plain.train(), fused.train(), draw(5, 33, 3).to(dtype), tolerance=tolerance)


@pytest.mark.parametrize("shape", [(6, 5), (4, 7, 5), (2, 3, 4, 5), (1, 2, 5), (2, 5, 3)])
@pytest.mark.parametrize("relu", [True, False])
def test_a_fused_layer_is_the_plain_one(shape, relu):
    torch.manual_seed(0)
    plain = unsettled(SharedLayer(shape[-1], 4, relu)).double()
    compare(plain, accel.fuse(copy.deepcopy(plain)), draw(*shape).double(), tolerance=1e-9)


def test_the_gradient_of_the_maximum_is_that_of_finite_differences():
    x, weight = draw(3, 6, 4).double().requires_grad_(), draw(5, 4).double().requires_grad_()
    sign = torch.tensor([1.0, -1, 1, -1, 1]).double()

    def maximum(x, weight):
        return layers._NormalizedMax.apply(x, weight, sign, 1e-5)[0]

    assert torch.autograd.gradcheck(maximum, (x, weight))


def test_biases_before_a_norm_have_a_gradient_of_exactly_zero():
    """DDP waits for a gradient of each parameter; rounding errors would move the bias."""
    fused = accel.fuse(model()).train()
    fused.losses(draw(2, 9, 3), draw(2, 9, 3), torch.zeros(2, 9).bool())["total"].backward()
    biases = [m.linear.bias for m in fused.modules() if isinstance(m, SharedLayer)]
    assert len(biases) > 10 and all(torch.equal(b.grad, torch.zeros_like(b)) for b in biases)


CHANGES = {
    "evaluation": lambda norm: norm.eval(),
    "cumulative average": lambda norm: setattr(norm, "momentum", None),
    "another eps": lambda norm: setattr(norm, "eps", 0.5),
    "another momentum": lambda norm: setattr(norm, "momentum", 0.7),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_state_of_batch_norm_is_respected(change):
    plain = model().double()
    for norm in plain.modules():
        if isinstance(norm, nn.BatchNorm1d):
            CHANGES[change](norm)
    fused = accel.fuse(copy.deepcopy(plain))
    compare(plain, fused, draw(4, 20, 3).double(), tolerance=1e-9)


def test_other_norms_and_autocast_take_the_plain_code(monkeypatch):
    plain = model()
    fused = accel.fuse(nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain)))
    for norm in fused.modules():
        assert not isinstance(norm, nn.BatchNorm1d)
    assert not layers._applies(draw(2, 3, 3), fused.decoder[0].norm)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = plain(draw(2, 9, 3)), accel.fuse(copy.deepcopy(plain))(draw(2, 9, 3))
    assert torch.equal(expected[1], found[1]) and found[1].dtype == torch.bfloat16


def test_one_row_is_refused_as_batch_norm_refuses_it():
    with pytest.raises(ValueError, match="more than 1 value"):
        accel.fuse(SharedLayer(3, 4))(torch.ones(1, 1, 3))


def test_constant_and_repeated_points_are_finite():
    for points in (torch.ones(2, 5, 3), torch.zeros(2, 5, 3), draw(2, 1, 3).expand(2, 5, 3)):
        fused = accel.fuse(model()).train()
        fused(points)[1].square().sum().backward()
        grads = [p.grad for p in fused.parameters() if p.grad is not None]
        assert len(grads) > 50 and all(grad.isfinite().all() for grad in grads)
        assert all(b.isfinite().all() for b in fused.buffers())


def test_nan_is_not_lost():
    points = draw(3, 9, 3)
    points[1, 5, 2] = float("nan")
    assert accel.fuse(model()).train().encoder(points).isnan().all()  # a mean over all clouds


def test_a_second_derivative_is_refused():
    points = draw(2, 9, 3).requires_grad_()
    features = accel.fuse(model()).train().encoder(points)
    with pytest.raises(NotImplementedError, match="SERP_FAST=0"):
        torch.autograd.grad(features.sum(), points, create_graph=True)


# ---------------------------------------------------------------- fuse


def test_fuse_changes_nothing_but_the_class():
    plain = model()
    names, state = [n for n, _ in plain.named_parameters()], copy.deepcopy(plain.state_dict())
    fused = accel.fuse(plain)
    assert fused is plain and accel.fuse(fused) is fused
    assert type(fused.encoder) is layers.PointNetEncoder
    assert isinstance(fused, SerpPointNet) and isinstance(fused.encoder, PointNetEncoder)
    assert repr(fused) == repr(model())  # checkpoints name the class of the model
    assert [n for n, _ in fused.named_parameters()] == names
    assert all(torch.equal(fused.state_dict()[n], v) for n, v in state.items())
    model().load_state_dict(fused.state_dict())  # and back into a plain one
    with accel.disabled():
        assert type(accel.fuse(model())) is SerpPointNet
    assert type(accel.fuse(nn.Linear(2, 2))) is nn.Linear


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), "save"])
def test_a_fused_model_is_copied_and_saved_like_others(copied):
    fused, points = accel.fuse(model()).train(), draw(3, 9, 3)
    if copied == "save":
        file = io.BytesIO()
        torch.save(fused.state_dict(), file)
        file.seek(0)
        other = accel.fuse(model(alpha_rec=1.0)).train()
        other.load_state_dict(torch.load(file, weights_only=True))
    else:
        other = copied(fused)
    assert torch.equal(other(points)[1], fused(points)[1])


def test_a_frozen_encoder_stays_frozen():
    classifier = accel.fuse(Classifier(model().encoder, 4, (8,), freeze=True)).train()
    before = copy.deepcopy(classifier.encoder.state_dict())
    classifier(draw(3, 9, 3)).sum().backward()
    assert all(torch.equal(v, before[n]) for n, v in classifier.encoder.state_dict().items())
    assert all(p.grad is None for p in classifier.encoder.parameters())


def test_training_fuses_its_model():
    from serplib.presets import Optim
    from serplib.training import pretrain

    task = Pretext(model(input_transform=False), Corruption(Perturbation(2, 3), num_points=20))
    pretrain(task, draw(4, 20, 3), draw(2, 20, 3), Optim(epochs=1, batch_size=2), 0)
    assert type(task.model) is layers.SerpPointNet


@pytest.mark.parametrize("name", ["pointnet", "transformer"])
def test_a_compiled_encoder_is_the_plain_one(name):
    """`torch.compile` traces plain PyTorch: Numba's dispatcher cannot be traced."""
    encoder = autoencoder(build("quick"), name).encoder.eval()
    clouds = draw(2, 64, 3)
    with torch.no_grad():
        compiled = torch.compile(encoder, backend="eager")(clouds)
        torch.testing.assert_close(compiled, encoder(clouds), rtol=1e-4, atol=1e-5)
