"""Numbers stay numbers: any scale, degenerate clouds, half precision against double.

Gradients against finite differences, in double precision, stand with each loss and bottleneck.
"""

import dataclasses

import pytest
import torch

from serplib.bottlenecks import (
    FiniteScalarQuantizer,
    GaussianBottleneck,
    GumbelBottleneck,
    ResidualQuantizer,
    VectorQuantizer,
)
from serplib.experiments.loop import _optimizer
from serplib.geometry import chamfer_l2
from serplib.point_mae import PointMAE
from serplib.pointnet import SerpPointNet
from serplib.presets import build
from serplib.pretext import Pretext
from serplib.seeding import named_generator
from serplib.transformer import SerpTransformer
from serplib.vasp import Vasp

QUICK = build("quick")
SMALL = dataclasses.replace(QUICK.transformer, num_centers=8, patch_size=12)
AS_PAPER = dataclasses.replace(SMALL, normalize="mean_std", target_frame="input")
AS_RUN = dataclasses.replace(
    SMALL, normalize="center", target_frame="own", loss="union", head="pair"
)
MODELS = {
    "PointNet, delta": lambda: SerpPointNet(dataclasses.replace(QUICK.pointnet, task="delta")),
    "PointNet, cd-l2": lambda: SerpPointNet(dataclasses.replace(QUICK.pointnet, task="cdl2")),
    "Transformer, paper": lambda: SerpTransformer(AS_PAPER),
    "Transformer, authors": lambda: SerpTransformer(AS_RUN),
    "VASP": lambda: Vasp(AS_PAPER, QUICK.vasp),
    "VAE": lambda: Vasp(AS_PAPER, dataclasses.replace(QUICK.vasp, bottleneck="vae")),
    "dVAE": lambda: Vasp(AS_PAPER, dataclasses.replace(QUICK.vasp, bottleneck="dvae")),
    "masked": lambda: PointMAE(AS_PAPER, QUICK.masked),
}


def fresh(name):
    torch.manual_seed(0)
    return MODELS[name]()


def draw(*shape, name="numerics"):
    return torch.randn(*shape, generator=named_generator(name))


def scales(count):
    """As many factors from 1e-6 to 1e6, even in the logarithm."""
    return 10 ** (12 * torch.rand(count, generator=named_generator("scales")) - 6)  # (count,)


def finite(*tensors):
    return all(bool(t.isfinite().all()) for t in tensors)


def test_chamfer_is_finite_and_scales_as_a_square_over_10_000_scales():
    factor = scales(10_000)  # (S,)
    a, b = draw(10_000, 12, 3), draw(10_000, 9, 3, name="other")
    x = (a * factor[:, None, None]).requires_grad_()
    loss = chamfer_l2(x, b * factor[:, None, None], "none")  # (S,)
    loss.sum().backward()
    assert finite(loss, x.grad) and (loss > 0).all()
    torch.testing.assert_close(loss, chamfer_l2(a, b, "none") * factor**2, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_losses_are_finite_over_10_000_scales(name):
    """Clouds far from the unit sphere are no use, but they must not end a run in NaN."""
    model = fresh(name).eval()
    clouds, factor = draw(10_000, 24, 3), scales(10_000)[:, None, None]
    for part in (clouds * factor).split(1000):
        noisy = part + 0.03 * part.abs().amax((1, 2), keepdim=True) * draw(len(part), 24, 3)
        touched = torch.zeros(part.shape[:2], dtype=torch.bool)
        with torch.no_grad():
            losses = model.losses(noisy, part, touched)
        assert finite(*losses.values()), losses


@pytest.mark.parametrize(
    "bottleneck",
    [VectorQuantizer(16, 8), VectorQuantizer(16, 8, cosine=True), VectorQuantizer(16, 8, ema=0.9),
     GaussianBottleneck(8), GumbelBottleneck(16, 8), GumbelBottleneck(16, 8, kl="mean"),
     ResidualQuantizer(2, 16, 8), FiniteScalarQuantizer(8), GaussianBottleneck(8, rate=9.0)],
    ids=["vq", "cosine", "ema", "vae", "dvae", "dvae, mean", "residual", "fsq", "held"],
)  # fmt: skip
def test_bottlenecks_are_finite_over_10_000_scales(bottleneck):
    latent = (draw(100, 100, 8) * scales(10_000).view(100, 100, 1)).requires_grad_()
    passed = bottleneck.train()(latent)
    (passed.latent.square().mean() + sum(passed.losses.values())).backward()
    assert finite(passed.latent, latent.grad, *passed.losses.values(), *passed.diagnostics.values())


DEGENERATE = {
    "one point, repeated": lambda x: x[:, :1].expand_as(x),
    "the origin, repeated": torch.zeros_like,
    "each point twice": lambda x: x[:, : x.shape[1] // 2].repeat(1, 2, 1),
    "two points": lambda x: x[:, torch.arange(x.shape[1]) % 2],
    "a line": lambda x: x * torch.tensor([1.0, 0, 0]),
    "a plane": lambda x: x * torch.tensor([1.0, 1, 0]),
    "a grid": lambda x: x.round(),
    "one far point": lambda x: torch.cat([x[:, 1:] * 1e-6, x[:, :1]], 1),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_clouds_train_a_step(name, kind):
    """Duplicates, lines and planes are legal: no NaN in loss, gradients or weights."""
    clouds = DEGENERATE[kind](draw(4, 48, 3))
    corruption = dataclasses.replace(QUICK.corruption, num_points=48)
    task = Pretext(fresh(name), corruption).train()
    optim = QUICK.pretrain_transformer
    optimizer = _optimizer(task, optim)
    for step in range(2):
        total = task(clouds, named_generator("degenerate", step))["total"]
        optimizer.zero_grad()
        total.backward()
        assert finite(total, *(p.grad for p in task.parameters() if p.grad is not None))
        optimizer.step()
    assert finite(*task.state_dict().values())


# relative error of the loss in bfloat16 that is tolerated: 8 bits of mantissa, averaged
TOLERATED = 0.03


@pytest.mark.parametrize("name", [n for n in MODELS if n not in ("VASP", "VAE", "dVAE")])
def test_mixed_precision_is_near_double_precision(name):
    """Geometry stays in float32 under autocast, so that only the network is rounded.

    Behind a bottleneck another code may be nearest, or another sample drawn: see their own tests.
    """
    model, clouds = fresh(name).eval(), draw(8, 64, 3)
    clouds = clouds / clouds.norm(dim=-1).amax(1)[:, None, None]
    noisy, touched = clouds + 0.03 * draw(8, 64, 3, name="noise"), torch.zeros(8, 64).bool()
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            half = model.losses(noisy, clouds, touched)
        single = model.losses(noisy, clouds, touched)
        double = model.double().losses(noisy.double(), clouds.double(), touched)
    for key, value in double.items():
        assert abs(float(half[key] / value) - 1) < TOLERATED, (key, half[key], value)
        assert abs(float(single[key] / value) - 1) < 1e-4, (key, single[key], value)
        assert half[key].dtype == torch.float32


def trained(threads, steps=6):
    """Losses by step and final weights of a small SeRP-Transformer on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        task = Pretext(fresh("Transformer, paper"), QUICK.corruption).train()
        optimizer = _optimizer(task, QUICK.pretrain_transformer)
        optimizer.param_groups[0]["eps"] = 1e-5  # far above the gradients that are rounding errors
        clouds, losses = draw(16, 1024, 3), []
        for step in range(steps):
            total = task(clouds, named_generator("threads", step))["total"]
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(total.detach())
        return {"losses": torch.stack(losses), **task.state_dict()}
    finally:
        torch.set_num_threads(before)


def test_one_thread_or_two_same_bits_each_and_the_same_losses_between():
    """torch promises equal bits for one number of threads, not between two: sums are split.

    Biases before a BatchNorm, or of attention's keys, have gradients of rounding errors only, from
    which AdamW makes steps of full length: its epsilon is raised here, so that these do not count.
    """
    one, again, two, twice = trained(1), trained(1), trained(2), trained(2)
    for name, value in one.items():
        assert torch.equal(value, again[name]) and torch.equal(two[name], twice[name])
    torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-4, atol=0)
    assert one["losses"][-1] < one["losses"][0]


def test_patches_do_not_know_where_the_cloud_lies():
    """Translated clouds have the same patches, and moved centres."""
    clouds = (draw(3, 64, 3) * 64).round() / 64  # on a grid, so that the sums are exact
    step = torch.tensor([0.5, -1.0, 2.0])
    for name in ("Transformer, paper", "Transformer, authors"):
        encoder = fresh(name).eval().encoder
        here, there = encoder.patches(clouds), encoder.patches(clouds + step)
        assert torch.equal(here.index, there.index)
        torch.testing.assert_close(here.inputs, there.inputs, rtol=0, atol=1e-5)
        torch.testing.assert_close(here.targets, there.targets, rtol=0, atol=1e-5)
        assert torch.equal(here.centers + step, there.centers)
