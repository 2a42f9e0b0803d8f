"""What 08_pretraining builds is what the library has, on inputs that the notebook does not use."""

import hashlib
import math

import pytest
import torch
from notebook_helpers import built
from torch import nn

from serplib import data, presets, pretext, seeding, training
from serplib.evaluation import probes
from serplib.seeding import named_generator, named_seed
from serplib.transformer import SerpTransformer

SMALL = presets.build(
    "quick",
    {
        "corruption.num_points": 64,
        "corruption.perturbation.num_patches": 5,
        "corruption.perturbation.patch_size": 7,
        "transformer.num_centers": 6,
        "transformer.patch_size": 8,
        "transformer.dim": 16,
        "transformer.latent_dim": 12,
        "transformer.encoder_depth": 1,
        "transformer.drop_path": 0.2,  # the notebook has none: this needs the dropout seed, too
    },
)


@pytest.fixture(scope="module")
def made():
    return built(
        "08_pretraining",
        nn=nn,
        math=math,
        hashlib=hashlib,
        training=training,
        named_generator=named_generator,
        named_seed=named_seed,
    )


@pytest.fixture(scope="module")
def clouds():
    return data.load("procedural", "test", 22, 64, seed=5).points


def fresh(seed):
    torch.manual_seed(named_seed(seed, "weights"))
    return pretext.Pretext(SerpTransformer(SMALL.transformer), SMALL.corruption)


@pytest.mark.parametrize("seed", (3, 4))
@pytest.mark.parametrize(
    "optim",
    (
        presets.Optim(epochs=3, batch_size=5, warmup_epochs=0.5, weight_decay=0.05),
        presets.Optim(epochs=2, batch_size=7, schedule="step", step_epochs=1),
    ),
    ids=("cosine", "step"),
)
def test_the_loop_is_the_librarys_bit_for_bit(made, clouds, optim, seed):
    train, valid = clouds[:17], clouds[17:]
    ours, theirs = fresh(seed), fresh(seed)
    assert made["largest_gap"](ours, theirs) == 0
    optimizer = made["new_optimizer"](ours, optim)
    steps = made["train_steps"](ours, optimizer, train, optim, seed, range(optim.epochs))
    losses = [loss for _, loss in steps]
    history = training.pretrain(theirs, train, valid, optim, seed)
    assert made["largest_gap"](ours, theirs) == 0
    assert made["largest_gap"](ours, fresh(seed)) > 1e-3
    last = losses[-(len(losses) // optim.epochs) :]
    assert math.isclose(sum(last) / len(last), history[-1]["train_total"], rel_tol=1e-5)


def test_the_notebooks_comparison_sees_one_bit(made):
    a, b = fresh(0), fresh(0)
    with torch.no_grad():
        b.model.decoder.head.bias[0] = torch.nextafter(
            a.model.decoder.head.bias[0], torch.tensor(9)
        )
    assert made["largest_gap"](a, b) > 0
    with pytest.raises(AssertionError):
        made["largest_gap"](a, nn.Linear(2, 2))


def test_batches_and_seeds(made):
    for num, size in ((22, 5), (3, 3), (64, 8)):
        for seed, epoch in ((1, 0), (9, 4)):
            assert torch.equal(
                made["my_epoch_batches"](num, size, seed, epoch),
                training.epoch_batches(num, size, seed, epoch),
            )
    for names in ((0,), (7, "perturb", 12, 3), ("a/b", 1.5)):
        assert made["my_named_seed"](*names) == seeding.named_seed(*names)


def test_cosine_is_the_librarys(made):
    optim = presets.Optim(epochs=7, lr=0.02, final_lr=1e-4)
    for step in range(7 * 13):
        ours = made["cosine"](step, 7 * 13, 0.02, 1e-4)
        assert math.isclose(ours, training.learning_rate(step, 13, optim), rel_tol=1e-12)


@pytest.mark.parametrize("decay", (0.0, 0.3))
def test_adamw_step_is_torchs(made, decay):
    weight = nn.Parameter(torch.tensor([1.5, -2.0, 0.1], dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=0.03, weight_decay=decay)
    w, m, v = weight.detach().clone(), torch.zeros(3).double(), torch.zeros(3).double()
    for t in range(1, 20):
        grad = torch.sin(5 * w) + t / 10
        w, m, v = made["adamw_step"](w, grad, m, v, t, 0.03, decay)
        weight.grad = grad
        optimizer.step()
        torch.testing.assert_close(w, weight.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", ((50, 8), (5, 40), (9, 9)))
def test_alarms_are_the_librarys(made, shape):
    features = torch.randn(shape, generator=named_generator("alarms", *shape)) + 0.7
    features[:, 1] = 3 * features[:, 0]  # a singular value of zero
    assert math.isclose(made["effective_rank"](features), probes.rankme(features), rel_tol=1e-9)
    assert math.isclose(made["spread"](features), probes.feature_spread(features), rel_tol=1e-9)


def test_one_tap_is_disturbed_and_names_are_not(made):
    made["seed"] = 11
    assert not torch.equal(made["from_one_tap"](False), made["from_one_tap"](True))
    assert torch.equal(made["from_names"](False), made["from_names"](True))
    assert torch.equal(made["from_names"](False), made["from_names"](True, steps=[5]))
