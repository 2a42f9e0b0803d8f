"""`serplib.pointnet`: SeRP-PointNet, its two tasks, and what each choice changes."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from serplib.geometry import chamfer_l2
from serplib.perturbation import Perturbation
from serplib.pointnet import PointNetConfig, PointNetEncoder, SerpPointNet, SharedLayer, TNet
from serplib.seeding import named_generator

TINY = PointNetConfig(
    widths=(6, 8, 10), decoder_widths=(9, 8, 7, 6), transform_widths=(5, 6, 7, 6, 5)
)


def twins(batch=3, num_points=40, dtype=torch.float32):
    clean = torch.randn(batch, num_points, 3, generator=named_generator("cloud"), dtype=dtype)
    perturbed, touched, _ = Perturbation(4, 6, 0.1)(clean, named_generator("noise"))
    return perturbed, clean, touched


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    return SerpPointNet(dataclasses.replace(TINY, **changes))


def settled(model):
    """In evaluation, with T-Nets and BatchNorm layers that are not the initial ones."""
    generator = named_generator("settled")
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_var", "norm.weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith("running_mean") or "matrix" in name:
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


# ---------------------------------------------------------------- shapes, as in the paper


@pytest.fixture(scope="module")
def paper():
    torch.manual_seed(0)
    return SerpPointNet().eval()


def test_shapes_of_the_paper(paper):
    clouds = torch.randn(2, 1024, 3, generator=named_generator("paper"))
    features = []
    hook = paper.decoder.register_forward_hook(lambda *call: features.append(call[-1]))
    with torch.no_grad():
        logits, shift = paper(clouds)
        whole, local = paper.encoder.encode(clouds)
        vector = paper.encoder(clouds)
    hook.remove()
    assert whole.shape == (2, 1024) and local.shape == (2, 1024, 64)
    assert features[0].shape == (2, 1024, 128)  # "per-point 128-dimensional features"
    assert logits.shape == (2, 1024, 2) and shift.shape == (2, 1024, 3)
    assert vector.equal(whole) and paper.encoder.feature_dim == 1024


def test_layers_of_the_paper(paper):
    layers = [shared.linear for shared in paper.decoder]
    assert layers[0].in_features == 1088  # [global; local]
    assert [layer.out_features for layer in layers] == [512, 256, 128, 128]  # four
    assert paper.encoder.input_transform.k == 3 and paper.encoder.feature_transform.k == 64


def test_weights_of_equation_1_are_the_papers():
    assert (PointNetConfig().alpha_cls, PointNetConfig().alpha_rec) == (0.001, 1.5)
    assert PointNetConfig().task == "delta" and PointNetConfig().class_weights == (1.0, 1.0)


# ---------------------------------------------------------------- the parts


def test_shared_treats_all_rows_alike_and_normalises_over_them():
    torch.manual_seed(0)
    layer = SharedLayer(3, 5, relu=False).double().train()
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    y = layer(x).flatten(0, 1)
    assert layer(x).shape == (2, 7, 5)
    assert y.mean(0).abs().max() < 1e-12
    assert (y.var(0, unbiased=False) - 1).abs().max() < 1e-3  # but for BatchNorm's eps
    assert (y < 0).any() and (SharedLayer(3, 5)(x.float()) >= 0).all()


@pytest.mark.parametrize("training", [False, True])
def test_a_new_tnet_is_exactly_the_identity(training):
    torch.manual_seed(0)
    net = TNet(4, (5, 6, 7, 6, 5)).train(training)
    got = net(torch.randn(3, 10, 4))
    assert got.equal(torch.eye(4).expand(3, -1, -1))


def test_a_trained_tnet_gives_each_cloud_its_own_matrix():
    model = settled(tiny())
    x = torch.randn(3, 10, 3, generator=named_generator("tnet"))
    got = model.encoder.input_transform(x)
    assert got.shape == (3, 3, 3)
    assert not got[0].equal(got[1]) and not got[0].equal(torch.eye(3))
    order = torch.randperm(10, generator=named_generator("order"))
    torch.testing.assert_close(model.encoder.input_transform(x[:, order]), got)


@pytest.mark.parametrize("which", ["input_transform", "feature_transform"])
def test_transforms_are_there_or_not_and_are_used(which):
    assert getattr(tiny(**{which: False}).encoder, which) is None
    model = settled(tiny())
    clouds = twins()[0]
    before = model.encoder(clouds)
    transform = getattr(model.encoder, which)
    torch.nn.init.zeros_(transform.matrix.weight)
    torch.nn.init.zeros_(transform.matrix.bias)
    assert not model.encoder(clouds).allclose(before)  # its matrix was in use
    setattr(model.encoder, which, None)
    without = model.encoder(clouds)
    setattr(model.encoder, which, transform)
    torch.testing.assert_close(model.encoder(clouds), without, rtol=0, atol=1e-6)  # identity


def test_the_global_vector_does_not_depend_on_the_order_and_the_rest_follows_it():
    model = settled(tiny()).double()
    clouds = twins(dtype=torch.float64)[0]
    order = torch.randperm(40, generator=named_generator("order"))
    torch.testing.assert_close(
        model.encoder(clouds[:, order]), model.encoder(clouds), rtol=0, atol=1e-12
    )
    for mixed, plain in zip(model(clouds[:, order]), model(clouds), strict=True):
        torch.testing.assert_close(mixed, plain[:, order], rtol=0, atol=1e-12)


def test_the_first_layer_reads_the_global_feature_before_the_local_one():
    model = settled(tiny()).double()
    whole, local = model.encoder.encode(twins(dtype=torch.float64)[0])
    layer = model.decoder[0].linear
    for part, width in ((whole[:, None].expand(-1, 40, -1), slice(0, 10)), (local, slice(10, 16))):
        with torch.no_grad():
            kept = layer.weight.clone()
            layer.weight.zero_()[:, width] = kept[:, width]  # all other inputs do not count
        first = layer(torch.cat([whole[:, None].expand(-1, 40, -1), local], -1))
        torch.testing.assert_close(first, part @ kept[:, width].T + layer.bias)
        expected = model.decoder[1:](model.decoder[0](first_input(whole, local)))
        torch.testing.assert_close(model.point_features(whole, local), expected)
        with torch.no_grad():
            layer.weight.copy_(kept)


def first_input(whole, local):
    return torch.cat([whole[:, None].expand(-1, local.shape[1], -1), local], -1)


def test_every_point_hears_of_the_whole_cloud():
    model = settled(tiny())
    clouds = twins(1)[0]
    changed = clouds.clone()
    changed[0, 0] = 5.0  # one point becomes the farthest: the maximum changes
    assert not model(changed)[1][0, 1:].allclose(model(clouds)[1][0, 1:])


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("task", ["delta", "cdl2"])
def test_equation_1_by_hand(task):
    model = settled(tiny(task=task, alpha_cls=0.001, alpha_rec=1.5))
    perturbed, clean, touched = twins()
    losses = model.losses(perturbed, clean, touched)
    logits, predicted = model(perturbed)
    probability = logits.double().softmax(-1)
    right = torch.where(touched, probability[..., 1], probability[..., 0])
    classification = -right.log().mean()
    if task == "delta":
        reconstruction = (predicted - (clean - perturbed)).double().square().mean()
    else:
        reconstruction = chamfer_l2(predicted.double(), clean.double())
    assert set(losses) == {"total", "classification", "reconstruction"}
    assert losses["classification"].item() == pytest.approx(classification.item(), rel=1e-6)
    assert losses["reconstruction"].item() == pytest.approx(reconstruction.item(), rel=1e-6)
    wanted = 0.001 * losses["classification"] + 1.5 * losses["reconstruction"]
    assert losses["total"].equal(wanted)


@pytest.mark.parametrize("name", ["alpha_cls", "alpha_rec"])
def test_a_weight_of_zero_removes_its_part(name):
    model = settled(tiny(**{name: 0.0}))
    model.losses(*twins())["total"].backward()
    silent, heard = model.classification, model.reconstruction
    if name == "alpha_rec":
        silent, heard = heard, silent
    assert silent.weight.grad.count_nonzero() == 0
    assert heard.weight.grad.count_nonzero() > 0


def test_class_weights_weigh_the_classes():
    perturbed, clean, touched = twins()
    plain = settled(tiny())
    weighted = settled(tiny(class_weights=(0.25, 0.75)))
    logits = plain(perturbed)[0]
    entropy = F.cross_entropy(logits.flatten(0, 1), touched.flatten().long(), reduction="none")
    weights = torch.where(touched.flatten(), 0.75, 0.25)
    wanted = (weights * entropy).sum() / weights.sum()
    got = weighted.losses(perturbed, clean, touched)["classification"]
    torch.testing.assert_close(got, wanted)
    assert not got.allclose(plain.losses(perturbed, clean, touched)["classification"])


def test_class_weights_given_as_whole_numbers():
    perturbed, clean, touched = twins()
    one = settled(tiny(class_weights=(1, 3))).losses(perturbed, clean, touched)
    two = settled(tiny(class_weights=(0.25, 0.75))).losses(perturbed, clean, touched)
    torch.testing.assert_close(one["classification"], two["classification"])


class Total(torch.nn.Module):
    """The total loss as a function of the cloud and, through functional_call, of the weights."""

    def __init__(self, model, clean, touched):
        super().__init__()
        self.model, self.clean, self.touched = model, clean, touched

    def forward(self, perturbed):
        return self.model.losses(perturbed, self.clean, self.touched)["total"]


@pytest.mark.parametrize("task", ["delta", "cdl2"])
def test_gradcheck_of_the_losses(task):
    """By every parameter of a tiny double model, and by the perturbed cloud itself."""
    torch.manual_seed(0)
    config = PointNetConfig((3, 3, 4), (4, 3, 3, 3), (2, 2, 2, 2, 2), task=task, alpha_cls=0.7)
    clean = torch.randn(2, 6, 3, generator=named_generator("grad"), dtype=torch.float64)
    perturbed, touched, _ = Perturbation(2, 2, 0.1)(clean, named_generator("noise"))
    module = Total(settled(SerpPointNet(config).double()), clean, touched)
    names = [name for name, _ in module.named_parameters()]

    def total(perturbed, *parameters):
        weights = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(module, weights, (perturbed,))

    inputs = (
        perturbed.requires_grad_(),
        *(p.detach().requires_grad_() for p in module.parameters()),
    )
    assert total(*inputs).dtype == torch.float64
    assert torch.autograd.gradcheck(total, inputs, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_are_measured_in_float32(dtype):
    model = settled(tiny())
    outputs = tuple(t.to(dtype) for t in model(twins()[0]))
    model.forward = lambda _: outputs
    losses = model.losses(*twins())
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert all(value.isfinite() for value in losses.values())


def test_losses_reach_every_parameter():
    model = tiny().train()
    losses = model.losses(*twins())
    losses["total"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


# ---------------------------------------------------------------- restoring


def test_delta_learns_the_shift_and_cdl2_the_coordinates():
    """One network, read two ways: an exact shift, or exact coordinates, cost nothing."""
    perturbed, clean, touched = twins()
    for task, answer in (("delta", clean - perturbed), ("cdl2", clean)):
        model = tiny(task=task)
        model.forward = lambda _, answer=answer: (torch.zeros(3, 40, 2), answer)
        assert model.losses(perturbed, clean, touched)["reconstruction"] == 0
        torch.testing.assert_close(model.restore(perturbed), clean, rtol=0, atol=1e-6)
    # cdl2 does not ask which point is which, delta does.
    shuffled = clean.flip(1)
    for task, answer, free in (("cdl2", shuffled, True), ("delta", shuffled - perturbed, False)):
        model = tiny(task=task)
        model.forward = lambda _, answer=answer: (torch.zeros(3, 40, 2), answer)
        assert (model.losses(perturbed, clean, touched)["reconstruction"] == 0).item() is free


@pytest.mark.parametrize("task", ["delta", "cdl2"])
def test_restore_is_consistent_with_the_forward_pass(task):
    model = settled(tiny(task=task))
    perturbed, *_ = twins()
    with torch.no_grad():
        predicted = model(perturbed)[1]
    restored = model.restore(perturbed)
    assert not restored.requires_grad
    assert restored.equal(predicted + perturbed if task == "delta" else predicted)


def test_unknown_task_is_named():
    with pytest.raises(ValueError, match="task is 'cd': must be 'delta' or 'cdl2'"):
        PointNetConfig(task="cd")


def test_the_encoder_stands_alone():
    torch.manual_seed(0)
    encoder = PointNetEncoder(TINY).eval()
    other = settled(tiny()).encoder
    encoder.load_state_dict(other.state_dict())
    clouds = twins()[0]
    assert encoder(clouds).equal(other(clouds)) and encoder(clouds).shape == (3, 10)
