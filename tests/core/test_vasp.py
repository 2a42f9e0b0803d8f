"""`serplib.vasp`: SeRP-Transformer with a bottleneck, and nothing else changed."""

import dataclasses
import math

import pytest
import torch

from serplib.bottlenecks import (
    FiniteScalarQuantizer,
    GaussianBottleneck,
    GumbelBottleneck,
    Identity,
    ResidualQuantizer,
    VectorQuantizer,
    code_use,
)
from serplib.classifier import Classifier, autoencoder
from serplib.evaluation.reconstruction import restoration
from serplib.experiments.loop import Loop
from serplib.perturbation import Perturbation
from serplib.presets import AUTHORS_CODE, PAPER, QUICK, Optim, build
from serplib.pretext import Corruption
from serplib.seeding import named_generator
from serplib.training import Pretext, pretrain, validate_pretext
from serplib.transformer import SerpTransformer, TransformerConfig, patch_chamfer
from serplib.vasp import Vasp, VaspConfig

TINY = TransformerConfig(
    num_centers=5,
    patch_size=7,
    dim=6,
    latent_dim=8,
    encoder_depth=2,
    decoder_depth=1,
    encoder_heads=2,
    decoder_heads=2,
    mlp_ratio=2,
    drop_path=0.2,
    token_widths=(4, 5, 6),
)
CURED = VaspConfig(codebook_size=16, init="kmeans", ema=0.9, restart=0.2)
KINDS = {
    "none": VaspConfig("none"),
    "paper": VaspConfig(codebook_size=16),
    "authors": VaspConfig(codebook_size=16, alpha=0.25, init="uniform"),
    "cured": CURED,
    "rotation": dataclasses.replace(CURED, rotation=True, cosine=True),
    "vae": VaspConfig("vae", warmup_steps=5, free_bits=0.01),
    "dvae": VaspConfig("dvae", codebook_size=16, anneal_steps=9, warmup_steps=3, kl="mean"),
    "held": VaspConfig("vae", kl_weight=0.05, rate=4.0),
    "fsq": VaspConfig("fsq", levels=(4, 4)),
    "residual": dataclasses.replace(CURED, stages=2),
    "frozen": VaspConfig(codebook_size=16, alpha=0.0, init="sonnet"),
}
CORRUPTION = Corruption(Perturbation(4, 6, 0.1), num_points=40)


def twins(batch=3):
    clean = torch.randn(batch, 40, 3, generator=named_generator("cloud"))
    return clean + 0.1, clean, torch.ones(batch, 40, dtype=torch.bool)


def tiny(kind="paper", model=Vasp, **changes):
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, **changes)
    return model(config) if model is SerpTransformer else model(config, KINDS[kind])


# ---------------------------------------------------------------- what it shares with SeRP


@pytest.mark.parametrize("training", [True, False])
def test_without_a_bottleneck_it_is_serp_bit_for_bit(training):
    serp, vasp = tiny(model=SerpTransformer).train(training), tiny("none").train(training)
    vasp.load_state_dict(serp.state_dict())
    perturbed, clean, touched = twins()
    found = []
    for model in (serp, vasp):
        torch.manual_seed(1)  # drop path
        loss = model.losses(perturbed, clean, touched)["total"]
        loss.backward()
        found.append([loss, *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found))
    assert torch.equal(serp.eval().restore(perturbed), vasp.eval().restore(perturbed))


@pytest.mark.parametrize("kind", KINDS)
def test_all_start_with_the_same_encoder_and_decoder(kind):
    serp, vasp = tiny(model=SerpTransformer).state_dict(), tiny(kind).state_dict()
    assert set(serp) <= set(vasp)
    assert all(torch.equal(serp[name], vasp[name]) for name in serp)
    assert all(name.startswith("bottleneck.") for name in set(vasp) - set(serp))


@pytest.mark.parametrize("kind", KINDS)
def test_interface(kind):
    model, (perturbed, clean, touched) = tiny(kind), twins()
    losses = model.losses(perturbed, clean, touched)
    assert losses["total"].ndim == 0 and losses["total"].requires_grad
    predicted, patches = model(perturbed, clean)
    assert predicted.shape == patches.targets.shape == (3, 5, 7, 3)
    assert model.eval().restore(perturbed).shape == (3, 35, 3)
    assert model.restore(perturbed, clean, centers="clean").shape == (3, 35, 3)
    assert model.config == TINY and model.vasp == KINDS[kind]
    assert Classifier(model.encoder, 4, (8,))(clean).shape == (3, 4)  # fine-tuning: no codebook


@pytest.mark.parametrize("kind", KINDS)
def test_total_is_reconstruction_and_the_bottlenecks_terms(kind):
    model, (perturbed, clean, touched) = tiny(kind).eval(), twins()
    losses = model.losses(perturbed, clean, touched)
    terms = [
        t for n, t in losses.items() if t.requires_grad and n not in ("total", "reconstruction")
    ]
    expected = {"none": 0, "fsq": 0, "paper": 2, "authors": 2}.get(kind, 1)
    assert len(terms) == expected
    torch.testing.assert_close(losses["total"], losses["reconstruction"] + sum(terms))
    predicted, patches = model(perturbed, clean)
    torch.testing.assert_close(losses["reconstruction"], patch_chamfer(predicted, patches.targets))
    union = tiny(kind, loss="union").eval().losses(perturbed, clean, touched)["reconstruction"]
    torch.testing.assert_close(union, patch_chamfer(predicted, patches.targets, "union"))


# ---------------------------------------------------------------- the bottleneck in its place


def decoder_input(model, perturbed):
    """Latent tokens before the bottleneck, and what the decoder is given."""
    seen = []
    hook = model.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(perturbed)
    hook.remove()
    return model.encoder.encode(model.encoder.patches(perturbed))[0], seen[0]


def test_the_decoder_gets_codes_and_nothing_else():
    model = tiny("authors").eval()
    latent, given = decoder_input(model, twins()[0])
    codes = model.bottleneck.codebook[model.codes(twins()[0])]
    assert codes.shape == (3, 6, 8)  # [CLS] too
    torch.testing.assert_close(given, codes)
    assert not torch.allclose(latent, given)


@pytest.mark.parametrize("kind", ["authors", "vae", "dvae"])
def test_cls_may_pass_as_it_is(kind):
    torch.manual_seed(0)
    model = Vasp(TINY, dataclasses.replace(KINDS[kind], quantize_cls=False)).eval()
    latent, given = decoder_input(model, twins()[0])
    assert torch.equal(latent[:, 0], given[:, 0])
    assert not torch.isclose(latent[:, 1:], given[:, 1:]).all(-1).any()
    if kind != "vae":
        codes = model.codes(twins()[0])
        assert codes.shape == (3, 5)
        torch.testing.assert_close(given[:, 1:], model.bottleneck.codebook[codes])


@pytest.mark.parametrize("decoder_positions", [False, True])
def test_positions_go_around_the_bottleneck(decoder_positions):
    """The authors' decoder is handed continuous positions: tokens are not all it knows."""
    torch.manual_seed(0)
    one_code = VaspConfig(codebook_size=1)
    model = Vasp(dataclasses.replace(TINY, decoder_positions=decoder_positions), one_code).eval()
    first, second = model(torch.randn(2, 40, 3, generator=named_generator("two")))[0]
    # the two passes may round differently (vector lanes, threads): float32 noise is below 1e-5
    assert torch.allclose(first, second, atol=1e-5) is not decoder_positions


def test_codes_need_a_codebook():
    with pytest.raises(ValueError, match="bottleneck 'vae' has no codes: set 'vq', 'fsq' or 'dv"):
        tiny("vae").codes(twins()[0])
    assert tiny("fsq").codes(twins()[0]).shape == (3, 6)
    assert tiny("residual").codes(twins()[0]).shape == (3, 6, 2)  # two stages
    sizes = {kind: config.codebook_sizes() for kind, config in KINDS.items()}
    assert sizes["none"] == sizes["vae"] == () and sizes["dvae"] == sizes["paper"] == (16,)
    assert sizes["fsq"] == (16,) and sizes["residual"] == (16, 16)


# ---------------------------------------------------------------- training


def clouds(num):
    """Stretched balls: something to learn in a few steps."""
    points = torch.randn(num, 40, 3, generator=named_generator("balls"))
    stretch = 0.3 + torch.rand(num, 1, 3, generator=named_generator("stretch"))
    return points / points.norm(dim=-1, keepdim=True) * stretch


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_lower_the_reconstruction(kind):
    task = Pretext(tiny(kind, drop_path=0.0), CORRUPTION)
    optim = Optim(epochs=8, batch_size=16, lr=5e-3, clip_norm=1.0)
    before = validate_pretext(task, clouds(16), 16, 0)["valid_reconstruction"]
    history = pretrain(task, clouds(64), clouds(16), optim, 0)
    assert history[-1]["valid_reconstruction"] < 0.95 * before
    assert ("train_perplexity" in history[0]) == (kind not in ("none", "vae", "held"))


@pytest.mark.parametrize("kind", ["paper", "cured", "vae", "dvae", "fsq", "residual"])
def test_resumed_is_uninterrupted(kind, tmp_path, monkeypatch):
    """Codebook, moving averages, k-means' "ready" and schedules come back from the checkpoint."""
    optim = Optim(epochs=3, batch_size=4, lr=1e-2, weight_decay=0.05)

    def run(folder):
        torch.manual_seed(0)
        task = Pretext(tiny(kind), CORRUPTION)
        history = pretrain(task, clouds(12), clouds(4), optim, 7, folder)
        return history, task.state_dict()

    history, state = run(None)
    optimizer_step = Loop.optimizer_step

    def stopping(loop, loss, step, lr):
        if step == 4:  # in the middle of the second epoch
            raise KeyboardInterrupt
        optimizer_step(loop, loss, step, lr)

    monkeypatch.setattr(Loop, "optimizer_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.setattr(Loop, "optimizer_step", optimizer_step)
    resumed_history, resumed = run(tmp_path)
    assert resumed_history == history
    assert all(torch.equal(state[name], resumed[name]) for name in state)
    if kind == "cured":
        assert resumed["model.bottleneck.ready"] and (resumed["model.bottleneck.usage"] != 1).any()
    if kind in ("vae", "dvae"):
        assert resumed["model.bottleneck.step"] == 9


def test_restoration_tells_of_codes():
    task = Pretext(tiny("authors"), CORRUPTION)
    points = clouds(6)
    found = restoration(task, points, seed=0, batch_size=4)
    serp = restoration(Pretext(tiny(model=SerpTransformer), CORRUPTION), points, 0, 4)
    assert set(found) - set(serp) == {"perplexity", "live_codes", "bits", "bits_fixed"}
    assert found["bits_fixed"] == 4
    codes = []
    for i, part in enumerate(points.split(4)):
        perturbed, _, _ = task.corrupt(part, named_generator(0, "restoration", i))
        codes.append(task.model.codes(perturbed).flatten())
    use = code_use(torch.cat(codes).bincount(minlength=16))  # of all clouds, not a mean of batches
    assert all(found[name] == use[name] for name in ("perplexity", "live_codes", "bits"))


def test_restoration_tells_the_rate_of_every_bottleneck():
    points, found = clouds(6), {}
    for kind in KINDS:
        task = Pretext(tiny(kind), CORRUPTION)
        found[kind] = restoration(task, points, seed=0, batch_size=4)
        if kind == "vae":
            parts = [task.model.losses(*task.corrupt(part, named_generator(0, "restoration", i)))
                     for i, part in enumerate(points.split(4))]  # fmt: skip
            nats = (4 * parts[0]["nats"] + 2 * parts[1]["nats"]) / 6
            assert found[kind]["bits"] == pytest.approx(nats.item() / math.log(2))
    fixed = {kind: one.get("bits_fixed") for kind, one in found.items()}
    assert fixed["residual"] == 8 and fixed["fsq"] == fixed["dvae"] == fixed["paper"] == 4
    assert fixed["vae"] is fixed["held"] is fixed["none"] is None and "bits" not in found["none"]
    for kind in KINDS.keys() - {"none", "vae", "held"}:
        assert 0 <= found[kind]["bits"] <= fixed[kind] + 1e-6
        assert found[kind]["perplexity"] == pytest.approx(2 ** found[kind]["bits"], rel=1e-4)


# ---------------------------------------------------------------- presets


def test_presets_say_what_the_paper_and_its_code_say():
    paper, authors = PAPER.vasp, AUTHORS_CODE.vasp
    assert (authors.codebook_size, authors.alpha, authors.beta) == (512, 0.25, 0.25)
    assert (authors.init, authors.quantize_cls) == ("uniform", True)
    assert AUTHORS_CODE.transformer.decoder_positions  # continuous, around the codebook
    assert (paper.codebook_size, paper.alpha, paper.beta, paper.init) == (512, 1.0, 0.25, "small")
    for config in (paper, authors):
        assert config.bottleneck == "vq"
        assert (config.ema, config.restart, config.cosine, config.rotation) == (None, None, 0, 0)
    model = autoencoder(QUICK, "vasp")
    assert isinstance(model, Vasp)
    assert model.bottleneck.codebook.shape == (512, QUICK.transformer.latent_dim)


def test_build_chooses_the_bottleneck():
    kinds = {"none": Identity, "vq": VectorQuantizer, "vae": GaussianBottleneck,
             "dvae": GumbelBottleneck, "fsq": FiniteScalarQuantizer}  # fmt: skip
    for kind, wanted in kinds.items():
        assert (
            type(autoencoder(build("quick", {"vasp.bottleneck": kind}), "vasp").bottleneck)
            is wanted
        )
    config = VaspConfig("vq", False, 9, 0.1, 0.2, "kmeans", 0.8, 0.3, True, True)
    vq = config.build(4)
    assert vq.codebook.shape == (9, 4) and not vq.ready
    assert (vq.alpha, vq.beta, vq.ema, vq.restart, vq.cosine, vq.rotation) == (
        0.1, 0.2, 0.8, 0.3, True, True
    )  # fmt: skip
    residual = VaspConfig(codebook_size=9, beta=0.2, ema=0.8, stages=3).build(4)
    assert isinstance(residual, ResidualQuantizer) and len(residual.stages) == 3
    assert all((s.beta, s.ema, len(s.codebook)) == (0.2, 0.8, 9) for s in residual.stages)
    assert VaspConfig("fsq", levels=(5, 4)).build(4).levels == (5, 4)
    vae = VaspConfig("vae", kl_weight=0.3, warmup_steps=7, free_bits=0.2).build(4)
    assert (vae.beta, vae.warmup_steps, vae.free_bits, vae.rate) == (0.3, 7, 0.2, None)
    assert VaspConfig("vae", rate=9.0).build(4).rate == 9
    dvae = VaspConfig("dvae", codebook_size=9, kl_weight=0.3, warmup_steps=7, temperature=2.0,
                      final_temperature=0.5, anneal_steps=3, kl="mean").build(4)  # fmt: skip
    assert dvae.codebook.shape == (9, 4) and dvae.kl == "mean" and dvae.anneal_steps == 3
    assert (dvae.beta, dvae.warmup_steps) == (0.3, 7)
    assert (dvae.temperature, dvae.final_temperature) == (2.0, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vasp.codebook_size": 0}, "codebook_size is 0: must be greater than 0"),
        ({"vasp.bottleneck": "vqvae"}, "bottleneck is 'vqvae': must be 'none', 'vq', 'fsq', 'vae'"),
        ({"vasp.stages": 2, "vasp.cosine": True}, "stages is 2: must be 1 with cosine or rotation"),
        ({"vasp.bottleneck": "vae", "vasp.rate": -1.0}, "rate is -1.0: must be greater than 0"),
        ({"vasp.init": "ones"}, "init is 'ones'"),
        ({"vasp.beta": -0.25}, r"beta is -0\.25"),
        (
            {"vasp.bottleneck": "vae", "vasp.warmup_steps": 21},
            "warmup_steps is 21, but the training",
        ),
        ({"vasp.bottleneck": "dvae", "vasp.anneal_steps": 21}, "lower anneal_steps, or train for"),
        ({"corruption.perturbation.sigma": -0.1}, r"sigma is -0\.1"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        autoencoder(build("quick", changes), "vasp", total_steps=20)


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_checks_itself_without_a_draw(kind):
    before = torch.get_rng_state()
    assert dataclasses.replace(KINDS[kind]) == KINDS[kind]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bottleneck", ["vq", "fsq", "vae", "dvae"])
def test_checking_the_settings_draws_no_random_number(bottleneck):
    before = torch.get_rng_state()
    VaspConfig(bottleneck=bottleneck)
    assert torch.equal(torch.get_rng_state(), before)
