"""Checkers of the exercises in 08_pretraining."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import nn

from serplib.course.exercises.grading import Hint, exercise
from serplib.seeding import named_generator


@exercise
def warmup_cosine(function: Callable[[int, int, int, float], float]) -> None:
    """Even steps up, then a cosine down to 0: ``(step, warmup, total, lr) -> float``."""
    for warmup, total, lr in ((4, 20, 0.5), (10, 110, 1e-3)):
        answer = [float(function(t, warmup, total, lr)) for t in range(total + 1)]
        right = [_rate(t, warmup, total, lr) for t in range(total + 1)]
        if _close(answer, right, lr):
            continue
        for wrong, hint in _wrong_schedules(warmup, total, lr):
            if _close(answer, wrong, lr):
                raise Hint(hint)
        step = next(t for t in range(total + 1) if not _close([answer[t]], [right[t]], lr))
        raise Hint(
            f"For warmup = {warmup}, total = {total}, lr = {lr:g} you say {answer[step]:.4g} at "
            f"step {step}, wanted {right[step]:.4g}."
        )


def _close(a: list[float], b: list[float], lr: float) -> bool:
    return all(abs(x - y) <= 1e-6 * lr for x, y in zip(a, b))


def _falling(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _rate(step: int, warmup: int, total: int, lr: float) -> float:
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    return lr * _falling((step - warmup) / (total - warmup))


def _wrong_schedules(warmup: int, total: int, lr: float) -> list[tuple[list[float], str]]:
    steps = range(total + 1)

    def ramp(share: Callable[[int], float]) -> list[float]:
        return [lr * share(t) if t < warmup else _rate(t, warmup, total, lr) for t in steps]

    def wave(share: Callable[[int], float]) -> list[float]:
        return [lr * share(t) if t >= warmup else _rate(t, warmup, total, lr) for t in steps]

    def own(step: int) -> float:
        return (step - warmup) / (total - warmup)

    return [
        (
            ramp(lambda t: t / warmup),
            "Your step 0 has rate 0: it computes a gradient and throws it away. Count from 1, and "
            "divide by warmup + 1.",
        ),
        (
            ramp(lambda t: (t + 1) / warmup),
            "You reach lr on the last step of the warm-up, one step early: divide by warmup + 1.",
        ),
        (
            wave(lambda t: _falling(t / total)),
            "Your cosine's clock started at step 0, so that the rate jumps down where the warm-up "
            "ends. It starts at step - warmup, of total - warmup.",
        ),
        (
            wave(lambda t: _falling((t - warmup) / total)),
            "Your cosine does not arrive: at step total the rate is not 0. After the warm-up only "
            "total - warmup steps are left.",
        ),
        (
            wave(lambda t: _falling(2 * own(t))),
            "Your rate falls and rises again, a whole turn of the cosine. Half a turn, pi, is it.",
        ),
        (
            wave(lambda t: math.cos(math.pi * own(t))),
            "Your rate becomes negative: lift the cosine and halve it, (1 + cos) / 2.",
        ),
        (
            wave(lambda t: 2 * _falling(own(t))),
            "Your cosine starts at twice lr: 1 + cos is 2 at first, divide it by 2.",
        ),
        (
            wave(lambda t: 1 - _falling(own(t))),
            "Your cosine rises from 0 after the warm-up: 1 + cos, not 1 - cos.",
        ),
        (
            wave(lambda t: 1 - own(t)),
            "After the warm-up you fall in a straight line. Wanted: half a turn of a cosine.",
        ),
        (
            wave(lambda t: math.cos(math.pi * own(t) / 2)),
            "You took a quarter of a turn, which ends at full speed. Half a turn, lifted and "
            "halved, comes to rest.",
        ),
        (
            [lr * _falling(t / total) for t in steps],
            "There is no warm-up in your answer: step 0 has the full rate.",
        ),
    ]


class _Odd(nn.Module):
    """A module in which names mislead: gains called weight, a scalar, a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Linear(4, 5)
        self.gate = nn.BatchNorm1d(5)
        self.norm = nn.LayerNorm(5)
        self.wide = nn.Conv1d(5, 2, kernel_size=2)
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


@exercise
def decay_groups(function: Callable[[nn.Module, float], list[dict]]) -> None:
    """Matrices decay, biases and gains do not: ``(module, weight_decay) -> two groups``."""
    module = _Odd()
    names = {id(p): name for name, p in module.named_parameters()}
    groups = function(module, 0.3)
    if not (isinstance(groups, list | tuple) and len(groups) == 2):
        raise Hint("Return a list of two groups, one that decays and one that does not.")
    if not all(isinstance(group, dict) and "params" in group for group in groups):
        raise Hint('Each group is a dictionary with the keys "params" and "weight_decay".')
    if any("weight_decay" not in group for group in groups):
        raise Hint(
            "A group without weight_decay is not one without decay: it gets AdamW's default, 0.01. "
            "Write 0.0."
        )
    found = {}
    for group in groups:
        for p in list(group["params"]):
            if isinstance(p, str | tuple):
                raise Hint("These are names. AdamW wants the parameters themselves.")
            if id(p) in found:
                raise Hint(f"{names.get(id(p))} is in your groups twice: AdamW refuses that.")
            found[id(p)] = group["weight_decay"]
    told = {name: found[key] for key, name in names.items() if key in found}
    if any(name.startswith("frozen") for name in told):
        raise Hint("You put frozen parameters in, too. Keep those with p.requires_grad.")
    wanted = {
        name: 0.3 if p.ndim >= 2 else 0.0
        for name, p in module.named_parameters()
        if p.requires_grad
    }
    missing = sorted(set(wanted) - set(told))
    if missing:
        raise Hint(f"{missing[0]} is in neither group: it would never be trained.")
    if told == wanted:
        return
    if set(told.values()) - {0.0, 0.3}:
        raise Hint("One group has the weight_decay given, the other 0.0, and nothing else.")
    if told == {name: 0.3 - value for name, value in wanted.items()}:
        raise Hint("The wrong way round: you decay the biases and gains, and spare the matrices.")
    decayed = {name for name, value in told.items() if value}
    if "wide.weight" not in decayed:
        raise Hint("A convolution's weight has three dimensions and decays: p.ndim >= 2, not == 2.")
    if {"gate.weight", "norm.weight"} & decayed and not any("bias" in name for name in decayed):
        raise Hint(
            'You went by "bias" in the name. The gain of a BatchNorm or LayerNorm is called '
            "weight, and decays in your answer: go by p.ndim."
        )
    if "matrix.bias" in decayed and "norm.weight" not in decayed:
        raise Hint(
            'You went by "norm" in the name. Biases decay in your answer, and so does a BatchNorm '
            "that is called something else: go by p.ndim."
        )
    if decayed - {"temperature"} == {"matrix.weight", "wide.weight"}:
        raise Hint("A scalar has no dimension at all, and does not decay: p.ndim < 2, not == 1.")
    raise Hint(f"{sorted(decayed)} decay in your answer; wanted: every tensor with p.ndim >= 2.")


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(6, 3, generator=named_generator("check", "snapshot", step))  # (6, 3)
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()


def _pair() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            generator = named_generator("check", "snapshot, weights", number)
            p.copy_(torch.randn(p.shape, generator=generator))
    return model, torch.optim.AdamW(model.parameters(), lr=0.05)


def _equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@exercise
def snapshot(function: Callable[[nn.Module, torch.optim.Optimizer, int], dict]) -> None:
    """All that a run needs to go on: ``(model, optimizer, epoch) -> dict``."""
    model, optimizer = _pair()
    _train(model, optimizer, range(3))
    then = copy.deepcopy(model.state_dict())
    moments = copy.deepcopy(optimizer.state_dict()["state"])
    taken = function(model, optimizer, 3)
    if taken is None:
        raise Hint("Your function returned None. Is a 'return' missing?")
    if not isinstance(taken, dict):
        raise Hint(f"Your function returned {type(taken).__name__}, wanted a dictionary.")
    for key, lost in (
        ("model", "there is nothing to go on with"),
        ("optimizer", "AdamW starts again with m = v = t = 0, and takes its first step twice"),
        ("epoch", "the resumed run starts again with the first rates and the first noise"),
    ):
        if key not in taken:
            raise Hint(f'There is no "{key}" in your dictionary: {lost}.')
    if not model.training:
        raise Hint("You left the model in eval mode: the run that goes on would train that way.")
    if isinstance(taken["model"], nn.Module):
        raise Hint(
            "You kept the module itself: to read it back, its code must be there unchanged, and be "
            "run. Keep its state_dict()."
        )
    _train(model, optimizer, range(3, 5))  # the run goes on before anybody reads the snapshot
    saved, kept = taken["model"], taken["optimizer"]
    if set(saved) < set(then):
        raise Hint(
            "BatchNorm's running mean and variance are missing: they are buffers, not parameters. "
            "state_dict() has both."
        )
    if _equal(saved, model.state_dict()):
        raise Hint(
            "Your weights moved on with the model: state_dict() hands out the tensors themselves "
            "(and .cpu() copies nothing on a CPU). Take a deep copy."
        )
    if not isinstance(kept, dict) or "state" not in kept:
        raise Hint(
            "AdamW's m, v and t are missing: they are in optimizer.state_dict()['state'], not in "
            "its param_groups."
        )
    if not all(_equal(moments[key], kept["state"].get(key, {})) for key in moments):
        raise Hint(
            "AdamW's m and v moved on with the optimizer: its state_dict() hands out the tensors "
            "themselves. A deep copy goes down to them."
        )
    if taken["epoch"] != 3:
        raise Hint(f"The epoch is {taken['epoch']!r}; wanted the one that was given, 3.")
    fresh, starting = _pair()
    fresh.load_state_dict(saved)
    starting.load_state_dict(copy.deepcopy(kept))
    _train(fresh, starting, range(3, 5))
    if not _equal(fresh.state_dict(), model.state_dict()):
        raise Hint("A run resumed from your snapshot ends with other weights.")
