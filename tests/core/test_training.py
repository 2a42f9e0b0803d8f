"""`serplib.training` and the splits it reads: the loops, and what a comparison rests on."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from serplib import checkpoint, training
from serplib.accel import fuse
from serplib.classifier import Classifier
from serplib.data.common import Clouds, DataError
from serplib.data.splits import few_labels, hold_out
from serplib.evaluation.accuracy import predict, score
from serplib.experiments import loop as loop_module
from serplib.experiments.records import unpack_bits
from serplib.geometry import farthest_point_sample, gather
from serplib.perturbation import Perturbation, authors_normalize, scale_and_shift
from serplib.pointnet import PointNetConfig, PointNetEncoder, SerpPointNet
from serplib.presets import Optim
from serplib.pretext import Corruption
from serplib.seeding import named_generator, named_seed
from serplib.training import (
    Pretext,
    epoch_batches,
    finetune,
    learning_rate,
    pretrain,
    validate_pretext,
)
from serplib.transformer import SerpTransformer, TransformerConfig

POINTNET = PointNetConfig((6, 8, 10), (9, 8, 7, 6), (5, 6, 7, 6, 5))
TRANSFORMER = TransformerConfig(
    num_centers=4,
    patch_size=6,
    dim=6,
    latent_dim=8,
    encoder_depth=2,
    decoder_depth=2,
    encoder_heads=2,
    decoder_heads=2,
    mlp_ratio=2,
    drop_path=0.3,
    token_widths=(4, 5, 6),
)
CORRUPTION = Corruption(
    Perturbation(3, 4, 0.1), augment="scale_shift", subsample="random", num_points=24
)
OPTIM = Optim(epochs=4, batch_size=4, lr=1e-2, weight_decay=0.1, warmup_epochs=0.5, clip_norm=1.0)


def points(num, num_points=30, seed=0):
    return torch.randn(num, num_points, 3, generator=named_generator(seed, "points"))


def clouds(num, num_classes=3, split="train", seed=0):
    """Clouds whose class can be learnt: it is the axis along which they are long."""
    labels = torch.arange(num) % num_classes
    stretch = torch.ones(num, 1, 3) + 2 * F.one_hot(labels, 3)[:, None]
    names = tuple("abcdefgh"[:num_classes])
    return Clouds("toy", split, stretch * points(num, 24, seed) / 4, labels, names, "0")


def task(model="pointnet", init=0, corruption=CORRUPTION, **changes):
    torch.manual_seed(init)
    if model == "pointnet":
        return Pretext(SerpPointNet(dataclasses.replace(POINTNET, **changes)), corruption)
    return Pretext(SerpTransformer(dataclasses.replace(TRANSFORMER, **changes)), corruption)


def classifier(model="pointnet", init=0, num_classes=3, **more):
    torch.manual_seed(init)
    encoder = task(model, init).model.encoder
    return Classifier(encoder, num_classes, **{"widths": (8,), "dropout": 0.4} | more)


def copied(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def interrupt_at(monkeypatch, step):
    """Stop the run as Ctrl-C does, in the middle of a step; once."""
    original = training.learning_rate

    def stopping(current, *rest):
        if current == step:
            raise KeyboardInterrupt
        return original(current, *rest)

    monkeypatch.setattr(training, "learning_rate", stopping)


# ---------------------------------------------------------------- learning rate


def test_cosine_from_the_initial_rate_to_the_final_one():
    optim = Optim(epochs=5, lr=0.1, final_lr=0.02)
    rates = [learning_rate(step, 4, optim) for step in range(21)]
    assert rates[0] == 0.1
    assert rates[10] == pytest.approx(0.06, rel=1e-12)  # half-way
    assert rates[20] == pytest.approx(0.02, rel=1e-12)  # at the end
    assert rates[5] == pytest.approx(0.02 + 0.08 * (1 + math.cos(math.pi / 4)) / 2, rel=1e-12)
    assert all(one > two for one, two in pairwise(rates))


def test_warm_up_rises_evenly_to_the_initial_rate_and_the_cosine_takes_over():
    optim = Optim(epochs=3, lr=0.6, warmup_epochs=0.5)  # 5 of 30 steps
    rates = [learning_rate(step, 10, optim) for step in range(31)]
    assert rates[:6] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], rel=1e-12)
    assert all(one > two for one, two in pairwise(rates[5:]))
    assert rates[30] == pytest.approx(0, abs=1e-15)
    short = [
        learning_rate(step, 10, Optim(epochs=3, lr=0.6, warmup_epochs=0.25)) for step in (0, 2)
    ]
    assert short == pytest.approx([0.6 / 3.5, 0.6 * 3 / 3.5], rel=1e-12)  # 2.5 steps


def test_a_warm_up_of_all_epochs_never_falls():
    optim = Optim(epochs=2, lr=1.0, warmup_epochs=2.0)
    rates = [learning_rate(step, 5, optim) for step in range(10)]
    assert all(one < two < 1 for one, two in pairwise(rates))


def test_steps():
    optim = Optim(epochs=100, lr=0.1, schedule="step", step_epochs=20, step_gamma=0.5)
    rates = [learning_rate(step, 3, optim) for step in range(300)]
    assert rates == [0.1 * 0.5 ** (step // 60) for step in range(300)]
    warm = dataclasses.replace(optim, warmup_epochs=1)
    assert learning_rate(0, 3, warm) == pytest.approx(0.1 / 4)
    assert learning_rate(3, 3, warm) == 0.1


# ---------------------------------------------------------------- batches


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 99), st.integers(0, 99))
def test_no_shape_twice_in_an_epoch_and_only_a_partial_batch_left_out(num, size, seed, epoch):
    batches = epoch_batches(num, size, seed, epoch)
    shapes = batches.flatten().tolist()
    assert len(set(shapes)) == len(shapes) and set(shapes) <= set(range(num))
    if size >= num:
        assert batches.shape == (1, num)
    else:
        assert batches.shape == (num // size, size)
    assert batches.equal(epoch_batches(num, size, seed, epoch))


def test_each_epoch_and_seed_has_its_own_order():
    orders = {
        tuple(epoch_batches(20, 6, seed, epoch).flatten().tolist())
        for seed in range(20)
        for epoch in range(20)
    }
    assert len(orders) == 400


def test_over_epochs_every_shape_is_seen_about_as_often():
    seen = torch.bincount(
        torch.cat([epoch_batches(10, 4, 0, epoch).flatten() for epoch in range(500)])
    )
    assert seen.sum() == 4000  # 8 of 10 each epoch
    assert (seen - 400).abs().max() < 50


def test_processes_that_cannot_share_evenly_are_named(monkeypatch):
    accelerator = Accelerator(cpu=True)
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 9)
    monkeypatch.setitem(accelerator.state.__dict__, "num_processes", 9)
    with pytest.raises(ValueError, match="9 processes for batches of 4: wanted the same number"):
        pretrain(task(), points(8), points(2), OPTIM, 0, None, accelerator)


# ---------------------------------------------------------------- the pretext task


def test_corruption_in_the_papers_order():
    """A large cloud is cut down by FPS, then perturbed; nothing else happens to it."""
    big = points(2, 60)
    corruption = Corruption(Perturbation(3, 4, 0.1), num_points=24)
    perturbed, clean, touched = task(corruption=corruption).corrupt(big, named_generator(1))
    assert clean.equal(gather(big, farthest_point_sample(big, 24)))
    wanted = corruption.perturbation(clean, named_generator(1))
    assert perturbed.equal(wanted.points) and touched.equal(wanted.touched)


def test_corruption_in_the_authors_order():
    """Augment, cut down at random, perturb, normalise."""
    big = points(2, 60)
    corruption = dataclasses.replace(CORRUPTION, normalize_after=True)
    got = task(corruption=corruption).corrupt(big, named_generator(1))
    generator = named_generator(1)
    moved = scale_and_shift(big, generator)
    index = torch.rand(2, 60, generator=generator).argsort(dim=1, stable=True)[:, :24]
    clean = gather(moved, index)
    perturbed, touched, _ = corruption.perturbation(clean, generator)
    assert got[0].equal(authors_normalize(perturbed))
    assert got[1].equal(authors_normalize(clean))
    assert got[2].equal(touched)


@pytest.mark.parametrize(
    ("field", "value"),
    [("augment", "scale_shift"), ("subsample", "random"), ("normalize_after", True)],
)
def test_each_choice_of_the_corruption_changes_the_clean_cloud(field, value):
    big = points(2, 60)
    plain = Corruption(Perturbation(3, 4, 0.1), num_points=24)
    changed = dataclasses.replace(plain, **{field: value})
    one, two = (task(corruption=c).corrupt(big, named_generator(1))[1] for c in (plain, changed))
    assert one.shape == two.shape == (2, 24, 3)
    assert not one.equal(two)


def test_subsets_are_fixed_by_fps_and_new_each_time_at_random():
    big = points(1, 60)
    for subsample, fixed in (("fps", True), ("random", False)):
        pretext = task(corruption=Corruption(Perturbation(3, 4), "none", subsample, 24))
        one = pretext.corrupt(big, named_generator(1))[1]
        two = pretext.corrupt(big, named_generator(2))[1]
        assert one.equal(two) is fixed
        rows = {tuple(row) for row in big[0].tolist()}
        assert len({tuple(row) for row in one[0].tolist()} & rows) == 24  # 24 different points


@pytest.mark.parametrize("num_points", [24, 20])
def test_clouds_that_are_not_larger_are_taken_whole(num_points):
    small = points(2, num_points)
    for subsample in ("fps", "random"):
        corruption = Corruption(Perturbation(3, 4), "none", subsample, 24)
        assert task(corruption=corruption).corrupt(small, named_generator(1))[1].equal(small)


def test_forward_is_the_models_losses_on_the_corrupted_pair():
    pretext = task().eval()
    got = pretext(points(2), named_generator(3))
    wanted = pretext.model.losses(*pretext.corrupt(points(2), named_generator(3)))
    assert got.keys() == wanted.keys()
    assert all(got[name].equal(wanted[name]) for name in wanted)


class Mean(nn.Module):
    """An "autoencoder" whose loss is the mean coordinate of the clean clouds."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def losses(self, perturbed, clean, touched):
        return {"total": clean.mean() + 0 * self.weight}


def test_validation_is_the_mean_over_shapes_with_a_short_last_batch():
    valid = points(7, 24)
    pretext = Pretext(Mean(), Corruption(Perturbation(3, 4), num_points=24))
    got = validate_pretext(pretext, valid, 3, 0)
    assert got == {"valid_total": pytest.approx(valid.mean().item(), rel=1e-5)}
    by_batch = torch.stack([part.mean() for part in valid.split(3)]).mean().item()
    assert abs(got["valid_total"] - by_batch) > 1e-3  # the mean of batch means is another number


def test_validation_perturbs_the_same_way_every_time_and_changes_nothing():
    pretext = task("transformer").train()
    before = copied(pretext)
    one = validate_pretext(pretext, points(5), 2, seed=1)
    torch.manual_seed(123)
    assert validate_pretext(pretext, points(5), 2, seed=1) == one
    assert validate_pretext(pretext, points(5), 2, seed=2) != one
    assert same(before, copied(pretext))


# ---------------------------------------------------------------- pre-training


def test_pretrain_is_the_loop_written_out():
    """The same in a few lines of torch on the same layers: bit for bit."""
    train, seed = points(10), 5
    mine = task()
    history = pretrain(mine, train, points(3), OPTIM, seed)

    theirs = fuse(task()).train()
    optimizer = torch.optim.AdamW(theirs.parameters(), weight_decay=0.1, fused=True)
    for step in range(8):  # 4 epochs of 2 batches
        indices = epoch_batches(10, 4, seed, step // 2)[step % 2]
        generator = named_generator(seed, "perturb", step, 0)
        theirs.train()
        torch.manual_seed(named_seed(seed, "dropout", step, 0))
        losses = theirs(train[indices], generator)
        optimizer.param_groups[0]["lr"] = learning_rate(step, 2, OPTIM)
        optimizer.zero_grad()
        losses["total"].backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
    assert same(copied(mine), copied(theirs))
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert [entry["lr"] for entry in history] == [learning_rate(s, 2, OPTIM) for s in (1, 3, 5, 7)]
    assert set(history[0]) == {"epoch", "lr"} | {
        f"{role}_{part}"
        for role in ("train", "valid")
        for part in ("total", "classification", "reconstruction")
    }
    last = validate_pretext(theirs, points(3), 4, seed)
    assert {name: history[-1][name] for name in last} == last


@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_the_gradient_is_clipped(clip_norm):
    pretext = task()
    pretrain(pretext, points(4), points(2), dataclasses.replace(OPTIM, clip_norm=clip_norm), 0)
    norm = torch.stack([p.grad.norm() for p in pretext.parameters()]).norm().item()
    assert norm <= 1e-3 * (1 + 1e-5) if clip_norm else norm > 0.01


@pytest.mark.parametrize(
    ("model", "step"), [("pointnet", 1), ("pointnet", 5), ("transformer", 2), ("transformer", 5)]
)
def test_pretrain_resumed_is_pretrain_uninterrupted(model, step, tmp_path, monkeypatch):
    """Stopped in an epoch (2 steps each) and started again, with other random numbers drawn."""
    train, valid = points(9), points(3)
    whole = task(model)
    wanted = pretrain(whole, train, valid, OPTIM, 7, tmp_path / "whole")
    with monkeypatch.context() as stop:
        interrupt_at(stop, step)
        with pytest.raises(KeyboardInterrupt):
            pretrain(task(model), train, valid, OPTIM, 7, tmp_path / "parts")
    saved = checkpoint.load(tmp_path / "parts")
    assert (saved[1]["epoch"] if saved else 0) == step // 2
    other = task(model)
    torch.manual_seed(99)
    got = pretrain(other, train, valid, OPTIM, 7, tmp_path / "parts")
    assert got == wanted
    assert same(copied(other), copied(whole))
    one, two = checkpoint.load(tmp_path / "parts"), checkpoint.load(tmp_path / "whole")
    assert same(one[0]["model"], two[0]["model"]) and one[1]["history"] == two[1]["history"]
    for moments in zip(*(s[1]["optimizer"]["state"].values() for s in (one, two))):
        assert same(*moments)


def test_a_finished_run_is_read_and_not_run_again(tmp_path, monkeypatch):
    whole = task()
    wanted = pretrain(whole, points(8), points(3), OPTIM, 7, tmp_path)
    interrupt_at(monkeypatch, 0)
    again = task()
    assert pretrain(again, points(8), points(3), OPTIM, 7, tmp_path) == wanted
    assert same(copied(again), copied(whole))


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pretrain(task(), points(8), points(3), OPTIM, 7)
    assert list(tmp_path.iterdir()) == []


def test_adamw_is_fused_where_torch_can():
    layer = nn.Linear(2, 2)
    for device, fused in (("cuda", True), ("cpu", True), ("meta", False)):
        groups = loop_module._optimizer(layer, Optim(), torch.device(device)).param_groups
        assert [group["fused"] for group in groups] == [fused]


def test_fused_adamw_makes_the_steps_of_the_plain_one():
    torch.manual_seed(0)
    ours, plain = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()
    plain.load_state_dict(ours.state_dict())
    optim = Optim(lr=1e-2, weight_decay=0.05)
    steppers = (
        loop_module._optimizer(ours, optim),
        torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.05, foreach=False),
    )
    for _ in range(20):
        x = torch.randn(7, 5, dtype=torch.float64)
        for layer, stepper in zip((ours, plain), steppers):
            stepper.zero_grad()
            layer(x).square().sum().backward()
            stepper.step()
    for a, b in zip(ours.parameters(), plain.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_same_seed_same_weights_other_seed_other_weights():
    found = []
    for seed in (7, 7, 8):
        pretext = task("transformer")
        torch.manual_seed(seed + len(found))  # what was drawn before does not matter
        history = pretrain(pretext, points(8), points(3), OPTIM, seed)
        found.append((copied(pretext), history))
    assert same(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    assert not same(found[0][0], found[2][0]) and found[0][1] != found[2][1]


@pytest.mark.parametrize("model", ["pointnet", "transformer"])
def test_pretraining_learns_eight_clouds(model):
    changes = {"task": "cdl2"}
    if model == "transformer":
        changes = {"drop_path": 0.0, "dim": 24, "latent_dim": 48, "token_widths": (16, 24, 32)}
    pretext = task(model, corruption=Corruption(Perturbation(3, 4, 0.03), num_points=24), **changes)
    epochs, lr = {"pointnet": (60, 1e-2), "transformer": (50, 4e-3)}[model]
    optim = Optim(epochs=epochs, batch_size=8, lr=lr, weight_decay=0.0, warmup_epochs=3)
    train = points(8, 24)
    before = validate_pretext(pretext, train, 8, 0)["valid_total"]
    history = pretrain(pretext, train, train, optim, 0)
    assert history[-1]["train_total"] < 0.5 * history[0]["train_total"]
    assert history[-1]["valid_total"] < 0.5 * before


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_with_advice(bad, tmp_path):
    pretext = task()
    before = copied(pretext.model.classification)
    train = points(8)
    train[:, 0] = bad
    message = r"the loss is nan at step 0: lower optim\.lr, set clip_norm, or check the data"
    with pytest.raises(FloatingPointError, match=message):
        pretrain(pretext, train, points(3), OPTIM, 0, tmp_path)
    assert same(before, copied(pretext.model.classification))  # nan reached no weight
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad_step", [1, 2, 3])  # in an epoch, at its end, in the next one
def test_a_gpu_is_asked_a_step_late_and_nothing_bad_is_kept(monkeypatch, tmp_path, bad_step):
    loop = loop_module.Loop("test", nn.Linear(2, 1), OPTIM, 0, Accelerator(cpu=True), 12)
    loop.folder, loop.device = tmp_path, torch.device("meta")  # not the CPU
    monkeypatch.setattr(loop_module, "named_generator", lambda *names, device: None)
    weight = next(loop.module.parameters())
    late = []
    with pytest.raises(FloatingPointError, match=f"inf at step {bad_step}"):
        for _ in loop.epochs():
            for step, _, _ in loop.steps(torch.arange(12).view(3, 4)):
                late.append(step)
                factor = math.inf if step == bad_step else 1
                loop.optimizer_step((weight.square() * factor).sum(), step, 0.1)
    assert late[-1] == (bad_step if bad_step == 2 else bad_step + 1)
    assert len(list(tmp_path.iterdir())) == bad_step // 3


# ---------------------------------------------------------------- fine-tuning


def tune(network, folder=None, seed=3, valid=True, optim=OPTIM, **more):
    return finetune(
        network,
        clouds(10),
        clouds(6, seed=1) if valid else None,
        lambda: clouds(7, split="test", seed=2),
        optim,
        seed,
        folder=folder,
        **more,
    )


@pytest.mark.parametrize(("model", "step"), [("pointnet", 1), ("pointnet", 4), ("transformer", 7)])
def test_finetune_resumed_is_finetune_uninterrupted(model, step, tmp_path, monkeypatch):
    whole = classifier(model)
    wanted = tune(whole, tmp_path / "whole", augment="scale_shift")
    with monkeypatch.context() as stop:
        interrupt_at(stop, step)
        with pytest.raises(KeyboardInterrupt):
            tune(classifier(model), tmp_path / "parts", augment="scale_shift")
    other = classifier(model)
    got = tune(other, tmp_path / "parts", augment="scale_shift")
    assert got == wanted
    assert same(copied(other), copied(whole))


def test_finetune_finished_and_started_again_gives_the_chosen_weights(tmp_path):
    whole = classifier()
    wanted = tune(whole, tmp_path)
    again = classifier()
    assert tune(again, tmp_path) == wanted
    assert same(copied(again), copied(whole))


def test_the_test_set_is_loaded_once_and_after_training(monkeypatch):
    events = []
    original = training.learning_rate
    monkeypatch.setattr(
        training, "learning_rate", lambda *a: events.append("train") or original(*a)
    )

    def load_test():
        events.append("test")
        return clouds(7, split="test")

    finetune(classifier(), clouds(10), clouds(6), load_test, OPTIM, 0)
    assert events.count("test") == 1 and events[-1] == "test"
    assert events.count("train") >= 8


def test_the_test_set_cannot_change_the_weights():
    found = []
    for seed in (2, 3):
        network = classifier()
        finetune(network, clouds(10), clouds(6), lambda s=seed: clouds(7, seed=s), OPTIM, 0)
        found.append(copied(network))
    assert same(*found)


def scripted_scores(monkeypatch, accuracies):
    """Replace `score` by a script; returns the weights that it was asked about."""
    asked, script = [], iter(accuracies)

    def fake(network, *_):
        asked.append(copied(network))
        return {"accuracy": next(script)}

    monkeypatch.setattr(training, "score", fake)
    return asked


@pytest.mark.parametrize(
    ("accuracies", "chosen"),
    [([0.5, 0.9, 0.9, 0.7], 1), ([0.1, 0.2, 0.3, 0.4], 3), ([0.0] * 4, 0), ([1.0, 0, 0, 1], 0)],
)
def test_the_first_best_epoch_on_validation_is_chosen(monkeypatch, accuracies, chosen):
    asked = scripted_scores(monkeypatch, [*accuracies, 0.25])
    network = classifier()
    history, result = tune(network)
    assert [entry["valid_accuracy"] for entry in history] == accuracies
    assert result == {"accuracy": 0.25} and len(asked) == 5
    assert same(asked[4], asked[chosen])  # what is tested, batch statistics included
    assert same(copied(network), asked[chosen])  # and what is handed back
    others = [weights for i, weights in enumerate(asked[:4]) if i != chosen]
    assert not any(same(asked[chosen], weights) for weights in others)


def test_the_choice_survives_an_interruption(monkeypatch, tmp_path):
    """The best epoch lies before the stop, an equal one after it."""
    asked = scripted_scores(monkeypatch, [0.9, 0.1, 0.9, 0.2, 0.25])
    with monkeypatch.context() as stop:
        interrupt_at(stop, 5)  # in the third epoch
        with pytest.raises(KeyboardInterrupt):
            tune(classifier(), tmp_path)
    network = classifier()
    tune(network, tmp_path)
    assert len(asked) == 5 and same(copied(network), asked[0])


def test_without_validation_the_last_epoch_is_kept(monkeypatch):
    asked = scripted_scores(monkeypatch, [0.25])
    network = classifier()
    history, _ = tune(network, valid=False)
    assert len(asked) == 1 and set(history[0]) == {"epoch", "lr", "train_loss", "train_accuracy"}
    assert same(copied(network), asked[0])


@pytest.mark.parametrize("model", ["pointnet", "transformer"])
def test_a_frozen_encoder_does_not_change_at_all(model):
    network = classifier(model, freeze=True)
    encoder, head = copied(network.encoder), copied(network.head)
    tune(network, augment="scale_shift", valid=False)
    assert any(name.endswith("running_var") for name in encoder)
    assert same(copied(network.encoder), encoder)  # weights, BatchNorm statistics and counters
    moved = copied(network.head)
    assert not any(torch.equal(head[name], moved[name]) for name in head)
    assert all(parameter.grad is None for parameter in network.encoder.parameters())


@pytest.mark.parametrize("model", ["pointnet", "transformer"])
def test_an_encoder_that_is_not_frozen_changes(model):
    network = classifier(model)
    encoder = copied(network.encoder)
    tune(network, valid=False)
    after = copied(network.encoder)
    assert [name for name in encoder if torch.equal(encoder[name], after[name])] == []


def test_a_frozen_encoder_stays_in_evaluation_while_the_head_trains():
    network = classifier(freeze=True).train()
    assert network.head.training and not network.encoder.training
    assert not any(module.training for module in network.encoder.modules())
    network.eval()
    assert not network.head.training
    assert classifier().train().encoder.training


def test_the_gradient_of_the_input_passes_a_frozen_encoder():
    points = torch.rand(2, 64, 3)
    gradients = []
    for freeze in (True, False):
        given = points.clone().requires_grad_()
        classifier(freeze=freeze).eval()(given).square().sum().backward()
        gradients.append(given.grad)
    assert gradients[0].abs().sum() > 0 and gradients[0].equal(gradients[1])


def test_finetune_same_seed_same_result():
    one, two, other = classifier(), classifier(), classifier()
    assert tune(one) == tune(two)
    assert same(copied(one), copied(two))
    tune(other, seed=4)
    assert not same(copied(one), copied(other))


def test_augment_changes_training_and_only_training():
    plain, augmented = classifier(), classifier()
    tune(plain, valid=False)
    tune(augmented, valid=False, augment="scale_shift")
    assert not same(copied(plain), copied(augmented))
    test = clouds(7, split="test", seed=2)
    assert tune(classifier(), valid=False, augment="scale_shift")[1] == score(augmented, test)


@pytest.mark.parametrize("model", ["pointnet", "transformer"])
def test_finetuning_learns_eight_clouds(model):
    network = classifier(model, dropout=0.0)
    train = clouds(8)
    optim = Optim(epochs=40, batch_size=8, lr=1e-2, weight_decay=0.0)
    history, result = finetune(network, train, None, lambda: train, optim, 0)
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert history[-1]["train_accuracy"] == result["accuracy"] == 1.0


def test_train_loss_and_accuracy_of_an_epoch():
    """One batch of all shapes with nothing random: the numbers of the untrained network."""
    network = classifier(dropout=0.0)
    train = clouds(6)
    with torch.no_grad():
        logits = classifier(dropout=0.0).train()(train.points)
    optim = Optim(epochs=1, batch_size=6, lr=1e-3)
    history, _ = finetune(network, train, None, lambda: train, optim, 0)
    wanted = F.cross_entropy(logits, train.labels).item()
    assert history[0]["train_loss"] == pytest.approx(wanted, rel=1e-5)
    assert history[0]["train_accuracy"] == (logits.argmax(1) == train.labels).double().mean()


def test_clouds_without_labels_are_refused():
    bare = dataclasses.replace(clouds(10), labels=None)
    with pytest.raises(ValueError, match="toy/train has no labels to fine-tune on"):
        finetune(classifier(), bare, None, lambda: clouds(4), OPTIM, 0)


def test_label_smoothing_is_that_of_torch(monkeypatch):
    seen = []
    loss = torch.nn.functional.cross_entropy

    def spy(logits, labels, **more):
        seen.append(more)
        return loss(logits, labels, **more)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", spy)
    plain, smooth = classifier(), classifier()
    tune(plain, valid=False)
    assert {entry["label_smoothing"] for entry in seen} == {0.0}
    seen.clear()
    tune(smooth, valid=False, label_smoothing=0.2)
    assert {entry["label_smoothing"] for entry in seen} == {0.2}
    assert not same(copied(plain), copied(smooth))


# ---------------------------------------------------------------- the classifier


def test_layers_of_the_head():
    network = Classifier(PointNetEncoder(POINTNET), 40, (256, 128), 0.5)
    kinds = [type(layer).__name__ for layer in network.head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2 + ["Linear"]
    sizes = [m.out_features for m in network.head if isinstance(m, nn.Linear)]
    assert sizes == [256, 128, 40] and network.head[0].in_features == 10
    assert network.head[3].p == 0.5
    assert [type(m).__name__ for m in Classifier(PointNetEncoder(POINTNET), 4, ()).head] == [
        "Linear"
    ]


def test_a_frozen_classifier_does_not_switch_gradients_on_for_others():
    network = classifier(freeze=True)
    with torch.no_grad():
        assert not network(points(2, 24)).requires_grad
    assert network(points(2, 24)).requires_grad  # through the head
    assert torch.is_grad_enabled()


# ---------------------------------------------------------------- scores


class Answers(nn.Module):
    """Reads the number of a shape off its first coordinate and gives a fixed answer."""

    def __init__(self, answers, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.answers, self.num_classes, self.batches = answers, num_classes, []

    def forward(self, clouds):
        self.batches.append(len(clouds))
        assert not self.training and not torch.is_grad_enabled()
        return F.one_hot(self.answers[clouds[:, 0, 0].long()], self.num_classes).float()


def numbered(labels):
    points = torch.arange(float(len(labels)))[:, None, None].expand(-1, 5, 3)
    return Clouds("toy", "test", points, labels, ("a", "b", "c"), "0")


@pytest.mark.parametrize("batch_size", [1, 8, 37, 128])
def test_score_divides_by_the_true_number_of_shapes(batch_size):
    """37 shapes in batches of 8: a divisor of 40 would make 30 hits 0.75 instead of 0.81."""
    labels = torch.tensor([0] * 20 + [1] * 10 + [2] * 7)
    answers = labels.clone()
    wrong = [0, 3, 21, 30, 31, 32, 36]  # 2 of 20, 1 of 10, 4 of 7
    answers[wrong] = (labels[wrong] + 1) % 3
    network = Answers(answers, 3).train()
    got = score(network, numbered(labels), batch_size)
    assert sum(network.batches) == 37
    assert got["num_shapes"] == 37
    assert got["accuracy"] == 30 / 37
    assert got["mean_class_accuracy"] == pytest.approx((18 / 20 + 9 / 10 + 3 / 7) / 3, rel=1e-15)
    assert unpack_bits(got["correct"]) == [i not in wrong for i in range(37)]


def test_score_of_a_class_that_has_no_shape():
    """Three names, two of them in the test set: the mean is over those two."""
    labels = torch.tensor([0, 0, 0, 2])
    got = score(Answers(torch.tensor([0, 0, 1, 1]), 3), numbered(labels))
    assert got["accuracy"] == 0.5
    assert got["mean_class_accuracy"] == pytest.approx((2 / 3 + 0) / 2, rel=1e-15)


@pytest.mark.parametrize("right", [True, False])
def test_bits_of_all_right_and_all_wrong(right):
    labels = torch.zeros(9, dtype=torch.long)
    got = score(Answers(labels if right else labels + 1, 3), numbered(labels), 4)
    assert unpack_bits(got["correct"]) == [right] * 9
    assert got["accuracy"] == got["mean_class_accuracy"] == float(right)


def test_a_score_does_not_depend_on_the_batch_size():
    network = classifier()
    tune(network)
    test = clouds(37, split="test", seed=9)
    assert len({str(score(network, test, size)) for size in (1, 5, 37)}) == 1
    assert predict(network, test.points, 5).dtype == torch.int64


# ---------------------------------------------------------------- splits


def labelled(*counts):
    labels = torch.cat([torch.full((count,), c) for c, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=named_generator("mix"))]
    return dataclasses.replace(numbered(labels), name="toy", split="train")


def numbers(part):
    return part.points[:, 0, 0].long().tolist()


def counts(part):
    return torch.bincount(part.labels, minlength=3).tolist()


@pytest.mark.parametrize(
    ("fraction", "held"),
    [(0.1, [4, 2, 1]), (0.25, [10, 5, 1]), (0.01, [1, 1, 1]), (0.99, [39, 19, 2])],
)
def test_hold_out_is_stratified_and_disjoint(fraction, held):
    whole = labelled(40, 20, 3)
    kept, aside = hold_out(whole, fraction, seed=0)
    assert counts(aside) == held and counts(kept) == [40 - held[0], 20 - held[1], 3 - held[2]]
    assert sorted(numbers(kept) + numbers(aside)) == list(range(63))
    for part in (kept, aside):
        assert numbers(part) == sorted(numbers(part))  # in their old order
        assert part.labels.equal(whole.labels[numbers(part)])
        assert (part.name, part.split, part.classes) == ("toy", "train", ("a", "b", "c"))


def test_hold_out_is_seeded():
    whole = labelled(40, 20, 10)
    one, two, other = (numbers(hold_out(whole, 0.2, seed)[1]) for seed in (0, 0, 1))
    assert one == two and one != other
    held = torch.zeros(70)
    for seed in range(300):
        held[numbers(hold_out(whole, 0.2, seed)[1])] += 1
    assert (held / 300 - 0.2).abs().max() < 0.12  # every shape has its turn


def test_hold_out_names_what_is_wrong():
    for fraction in (0, 1, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="wanted between 0 and 1"):
            hold_out(labelled(5, 5, 5), fraction, 0)
    with pytest.raises(DataError, match="toy/train: a class with one shape cannot be split"):
        hold_out(labelled(5, 1, 5), 0.2, 0)


def test_few_labels_keeps_as_many_of_each_class():
    whole = labelled(40, 20, 10)
    few = few_labels(whole, 5, seed=0)
    assert counts(few) == [5, 5, 5] and few.labels.equal(whole.labels[numbers(few)])
    assert numbers(few) == sorted(set(numbers(few)))
    assert numbers(few) == numbers(few_labels(whole, 5, seed=0))
    assert numbers(few) != numbers(few_labels(whole, 5, seed=1))
    assert counts(few_labels(whole, 10, seed=0)) == [10, 10, 10]


def test_more_labels_of_the_same_seed_contain_the_fewer():
    whole = labelled(40, 20, 10)
    assert set(numbers(few_labels(whole, 3, 0))) < set(numbers(few_labels(whole, 8, 0)))


def test_few_labels_does_not_follow_hold_out():
    """The two draw from streams of their own: labels kept are no function of shapes held out."""
    whole = labelled(40, 40, 40)
    few, held = few_labels(whole, 8, 0), hold_out(whole, 0.2, 0)[1]
    assert counts(few) == counts(held) and numbers(few) != numbers(held)


def test_few_labels_names_what_is_wrong():
    with pytest.raises(ValueError, match="per_class is 0"):
        few_labels(labelled(5, 5, 5), 0, 0)
    with pytest.raises(DataError, match=r"a class has 4 shapes, 5 wanted"):
        few_labels(labelled(5, 4, 5), 5, 0)


def test_an_accelerators_trackers_are_told_of_every_epoch():
    """TensorBoard and others come through Accelerate; without a tracker nothing is logged."""
    from accelerate.tracking import GeneralTracker

    told = []

    class Tracker(GeneralTracker):
        name, requires_logging_directory = "list", False
        main_process_only = True

        @property
        def tracker(self):
            return told

        def log(self, values, step=None, **more):
            told.append((step, values))

    accelerator = Accelerator(cpu=True, log_with=Tracker())
    accelerator.init_trackers("here")
    history = pretrain(task(), points(8), points(2), OPTIM, 0, None, accelerator)
    assert [step for step, _ in told] == [entry["epoch"] for entry in history]
    assert [values for _, values in told] == history
    assert Accelerator(cpu=True).trackers == []
