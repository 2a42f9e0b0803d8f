"""Checkers of the exercises in 08_pretraining and A_engineering."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from serplib.course.exercises.grading import Hint, call, copied, examination, grade, normal, same


@examination
def warmup_cosine(function: Callable[[int, int, int, float], float]) -> None:
    """Rise in even steps, then fall as a cosine to 0: ``(step, warmup, total, lr) -> float``."""

    def schedule(warmup: int, total: int, lr: float) -> list:
        return [call(function, step, warmup, total, lr) for step in range(total + 1)]

    cases = [(4, 20, 0.5), (10, 110, 1e-3), (1, 3, 2.0)]
    grade(schedule, cases, _schedules, shape="one rate", advice="In brackets stands the step.")


def _schedules(warmup: int, total: int, lr: float):
    past = total - warmup

    def fall(progress: float) -> float:
        return (1 + math.cos(math.pi * progress)) / 2

    def rates(
        ramp: Callable[[int], float] = lambda t: (t + 1) / (warmup + 1),
        wave: Callable[[float], float] = fall,
        clock: Callable[[int], float] = lambda t: (t - warmup) / past,
    ) -> Tensor:
        steps = range(total + 1)
        return torch.tensor([lr * (ramp(t) if t < warmup else wave(clock(t))) for t in steps])

    return rates(), {
        "Your step 0 has rate 0. Count from 1: (step + 1) / (warmup + 1).":
            rates(lambda t: t / warmup),
        "You reach lr one step early: divide by warmup + 1.": rates(lambda t: (t + 1) / warmup),
        "Your cosine's clock started at step 0, so that the rate jumps down where the warm-up "
        "ends. It starts at step - warmup, of total - warmup.": rates(clock=lambda t: t / total),
        "Your cosine does not arrive: at step total the rate is not 0. After the warm-up only "
        "total - warmup steps are left.": rates(clock=lambda t: (t - warmup) / total),
        "Your cosine is one step off: at step warmup the rate is lr, at step total it is 0.": [
            rates(clock=lambda t: (t - warmup + 1) / past),
            rates(clock=lambda t: (t - warmup + 1) / (past + 1)),
            rates(clock=lambda t: (t - warmup) / (past + 1)),
            rates(clock=lambda t: (t - warmup) / (past - 1)),
            rates(clock=lambda t: min(1.0, (t - warmup) / (past - 1))),
        ],
        "Your rate falls and rises again. Take half a period, pi.":
            rates(wave=lambda p: fall(2 * p)),
        "Your rate becomes negative: (1 + cos) / 2.": rates(wave=lambda p: math.cos(math.pi * p)),
        "Your cosine starts at twice lr: halve 1 + cos.": rates(wave=lambda p: 2 * fall(p)),
        "Your cosine rises from 0: 1 + cos, not 1 - cos.": rates(wave=lambda p: 1 - fall(p)),
        "You fall in a straight line. Wanted: half a cosine.": rates(wave=lambda p: 1 - p),
        "You took a quarter of a period, steepest at the end. Take half a period, lifted and "
        "halved.": rates(wave=lambda p: math.cos(math.pi * p / 2)),
        "There is no warm-up in your answer: step 0 has the full rate.":
            [[lr * fall(t / total) for t in range(total + 1)], rates(lambda t: 1.0)],
        "After the warm-up the rate stays at lr: the cosine is missing.": rates(wave=lambda p: 1.0),
        "You return the factor. Multiply by lr.": rates() / lr,
    }  # fmt: skip


class _Misleading(nn.Module):
    """A module in which names, types and sizes mislead; what counts is the number of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Linear(4, 5)
        self.gate = nn.BatchNorm1d(5)
        self.norm = nn.LayerNorm(5)
        self.wide = nn.Conv1d(5, 2, kernel_size=2)
        self.bias_table = nn.Embedding(3, 5)  # a matrix, in spite of its name
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.narrow = nn.Linear(1, 3)  # a matrix with fewer entries than a bias
        self.cls = nn.Parameter(torch.ones(1, 1, 5))  # of no layer, and with axes of length 1
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


@examination
def decay_groups(function: Callable[[nn.Module, float], list[dict]]) -> None:
    """Let matrices decay, biases and gains not: ``(module, weight_decay) -> two groups``."""
    module = _Misleading()
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    before = copied(dict(module.named_parameters()))
    groups = call(function, module, 0.3)
    if any(
        not torch.equal(p, before[name]) or p.requires_grad != before[name].requires_grad
        for name, p in module.named_parameters()
    ) or not all(part.training for part in module.modules()):
        raise Hint("Your function changed the module. It only sorts the parameters.")
    found = _decay_by_name(groups, module)
    if any(name.startswith("frozen") for name in found):
        raise Hint("Your groups hold frozen parameters. Keep those with p.requires_grad.")
    missing = sorted(trained.keys() - found.keys())
    if missing:
        raise Hint(f"{missing[0]} is in neither group: it would never be trained.")
    decayed = {name for name, value in found.items() if value}
    if set(found.values()) - {0.0, 0.3}:
        raise Hint("One group has the weight_decay given, the other 0.0, and nothing else.")
    for hint, rule in _RULES.items():
        if decayed == {name for name, p in trained.items() if rule(name, p)}:
            if hint:
                raise Hint(hint)
            return
    raise Hint(f"{sorted(decayed)} decay in your answer; wanted: every tensor with p.ndim >= 2.")


# Hint to which parameters decay; the right rule comes first and has none.
_RULES: dict[str, Callable[[str, Tensor], bool]] = {
    "": lambda name, p: p.ndim >= 2,
    "The wrong way round: biases and gains decay, and matrices do not.": lambda name, p: p.ndim < 2,
    'You went by "bias" in the name. The gain of a BatchNorm or LayerNorm is called weight, and '
    "decays in your answer: go by p.ndim.": lambda name, p: "bias" not in name,
    'You went by ".bias" at the end of the name. The gain of a BatchNorm or LayerNorm is called '
    "weight: go by p.ndim.": lambda name, p: not name.endswith("bias"),
    'You went by "norm" in the name. Biases decay in your answer, and so does a BatchNorm that is '
    "called something else: go by p.ndim.": lambda name, p: "norm" not in name,
    "A matrix with bias in its name does not decay in your answer: go by p.ndim "
    "alone.": lambda name, p: p.ndim >= 2 and "bias" not in name,
    "A convolution's weight has three dimensions: p.ndim >= 2, not == 2.": lambda name, p: (
        p.ndim == 2
    ),
    "A matrix has two dimensions and decays: p.ndim >= 2, not > 2.": lambda name, p: p.ndim > 2,
    "A scalar has no dimension at all, and does not decay: p.ndim < 2, not == 1.": lambda name, p: (
        p.ndim != 1
    ),
    "Vectors decay in your answer: p.ndim >= 2, not >= 1.": lambda name, p: p.ndim >= 1,
    "A matrix with an axis of length 1 is a matrix, too: go by p.ndim, not by the axes longer than "
    "1.": lambda name, p: p.squeeze().ndim >= 2,
    "You went by the weights of layers. A token (1, 1, d) belongs to none, and has three "
    "dimensions: go by p.ndim.": lambda name, p: p.ndim >= 2 and name != "cls",
}


def _decay_by_name(groups: object, module: nn.Module) -> dict[str, float]:
    """Map the names of the parameters in two AdamW groups to their weight decay."""
    if not (isinstance(groups, list | tuple) and len(groups) == 2):
        raise Hint("Return a list of two groups, one that decays and one that does not.")
    if not all(isinstance(group, dict) and "params" in group for group in groups):
        raise Hint('Each group is a dictionary with the keys "params" and "weight_decay".')
    if any("weight_decay" not in group for group in groups):
        raise Hint(
            "A group without weight_decay is not one without decay: it gets AdamW's default, 0.01. "
            "Write 0.0."
        )
    names = {id(p): name for name, p in module.named_parameters()}
    found: dict[str, float] = {}
    for group in groups:
        if isinstance(group["params"], Iterator):
            raise Hint('"params" is an iterator, empty after its first use. Make it a list.')
        for p in group["params"]:
            if isinstance(p, str | tuple):
                raise Hint("These are names, or pairs of name and parameter. Wanted: parameters.")
            if id(p) not in names:
                raise Hint(
                    "Your groups hold a tensor that is no parameter of the module, such as a copy "
                    "or p.data: AdamW would train it in the place of the parameter."
                )
            if names[id(p)] in found:
                raise Hint(f"{names[id(p)]} is in your groups twice: AdamW refuses that.")
            found[names[id(p)]] = group["weight_decay"]
    return found


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        model(normal(f"snapshot {step}", 6, 3)).square().sum().backward()
        optimizer.step()


def _pair() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    for number, p in enumerate(model.parameters()):
        p.data = normal(f"snapshot, weights {number}", *p.shape)
    return model, torch.optim.AdamW(model.parameters(), lr=0.05)


def _moved(a: dict, b: dict) -> list[str]:
    """Names of the tensors that differ, or are in one dictionary only."""
    return [name for name in {**a, **b} if not (name in a and name in b and same(a[name], b[name]))]


@examination
def snapshot(function: Callable[[nn.Module, torch.optim.Optimizer, int], dict]) -> None:
    """Keep all that a run needs to go on: ``(model, optimizer, epoch) -> dict``."""
    model, optimizer = _pair()
    _train(model, optimizer, range(3))
    then, before = copied(model.state_dict()), copied(optimizer.state_dict())
    moments = before["state"]
    taken = call(function, model, optimizer, 3)
    if not isinstance(taken, dict):
        raise Hint(f"Your function returned {type(taken).__name__}, wanted a dictionary.")
    for key, lost in (
        ("model", "no weights to go on with"),
        ("optimizer", "AdamW starts again with m = v = t = 0, and takes its first step twice"),
        ("epoch", "the resumed run starts again with the first rates and the first noise"),
    ):
        if key not in taken:
            raise Hint(f'There is no "{key}" in your dictionary: {lost}.')
    if not model.training:
        raise Hint("You left the model in eval mode: the run that goes on would train that way.")
    if _moved(model.state_dict(), then):
        raise Hint("Your function changed the model.")
    if not same(before, optimizer.state_dict()):
        raise Hint("Your function changed the optimizer.")
    saved, kept = taken["model"], taken["optimizer"]
    if isinstance(saved, nn.Module):
        raise Hint(
            "You kept the module itself: to read it back, its code must be there unchanged, and be "
            "run. Keep its state_dict()."
        )
    _train(model, optimizer, range(3, 5))  # the run goes on before anybody reads the snapshot
    if not isinstance(saved, dict) or saved.keys() - then.keys():
        raise Hint('"model" is not a state_dict: wanted a dictionary from names to tensors.')
    if saved.keys() < then.keys():
        raise Hint(
            "BatchNorm's running mean and variance are missing: they are buffers, not parameters. "
            "state_dict() has both."
        )
    if moved := _moved(saved, then):
        raise Hint(
            f"{moved[0]} is not what it was: state_dict() hands out the tensors that the model "
            "trains on (and .cpu() and dict() copy none on a CPU). Take a deep copy."
        )
    if not isinstance(kept, dict) or "state" not in kept:
        raise Hint(
            "AdamW's m, v and t are missing: they are in optimizer.state_dict()['state'], not in "
            "its param_groups."
        )
    if any(_moved(moments[key], kept["state"].get(key, {})) for key in moments):
        raise Hint(
            "AdamW's m and v moved on with the optimizer: its state_dict() hands out the tensors "
            "themselves. A deep copy goes down to them."
        )
    if taken["epoch"] is True or taken["epoch"] != 3:
        raise Hint(f"The epoch is {taken['epoch']!r}; wanted the one that was given, 3.")
    fresh, starting = _pair()
    try:
        fresh.load_state_dict(saved)
        starting.load_state_dict(copied(kept))
        _train(fresh, starting, range(3, 5))
    except Exception as error:
        raise Hint(f"No run can go on from your snapshot: {error}") from error
    if _moved(fresh.state_dict(), model.state_dict()):
        raise Hint("A run resumed from your snapshot ends with other weights.")
