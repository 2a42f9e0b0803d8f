"""Answers to the exercises of 08: wrong ones with a piece of their hint, and right ones."""

import copy
import io
import math

import numpy as np
import torch
from torch import nn

NAMES = {"math": math, "copy": copy, "nn": nn}


def fall(p):
    return (1 + math.cos(math.pi * p)) / 2


def schedule(ramp=lambda t, w: (t + 1) / (w + 1), wave=lambda t, w, T: fall((t - w) / (T - w))):
    return lambda t, w, T, lr: lr * (ramp(t, w) if t < w else wave(t, w, T))


def without_return(t, w, T, lr):
    schedule()(t, w, T, lr)


def half_without_return(t, w, T, lr):
    if t < w:
        return lr * (t + 1) / (w + 1)


def by_scheduler(t, w, T, lr):
    """PyTorch's own schedulers, stepped t times."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (w + 1), 1.0) * fall(max(step - w, 0) / (T - w))
    )
    for _ in range(t):
        optimizer.step()
        scheduler.step()
    return scheduler.get_last_lr()[0]


def by_numpy(t, w, T, lr):
    return np.interp(t + 1, [0, w + 1], [0, lr]) * np.cos(np.pi / 2 * max(0, t - w) / (T - w)) ** 2


def groups(decays, keep=lambda name, p: p.requires_grad):
    """Two groups by a rule on name and parameter, as `decay_groups` wants them."""

    def function(module, weight_decay):
        known = [(name, p) for name, p in module.named_parameters() if keep(name, p)]
        return [
            {"params": [p for name, p in known if decays(name, p)], "weight_decay": weight_decay},
            {"params": [p for name, p in known if not decays(name, p)], "weight_decay": 0.0},
        ]

    return function


right_groups = groups(lambda name, p: p.ndim >= 2)


def changed(change):
    """The right two groups, changed."""
    return lambda module, decay: change(right_groups(module, decay))


def without_key(found):
    del found[1]["weight_decay"]
    return found


def twice(found):
    found[1]["params"] = found[0]["params"][:1] + found[1]["params"]
    return found


def copies(found):
    found[0]["params"] = [p.detach().clone().requires_grad_() for p in found[0]["params"]]
    return found


def generators(module, decay):
    found = right_groups(module, decay)
    return [{**group, "params": iter(group["params"])} for group in found]


def unfreezing(module, decay):
    module.requires_grad_(True)
    return right_groups(module, decay)


def by_layer(module, decay):
    layers = [part for part in module.modules() if isinstance(part, (nn.Linear, nn.Conv1d))]
    layers += [part for part in module.modules() if isinstance(part, nn.Embedding)]
    weights = {id(part.weight) for part in layers}
    return groups(lambda name, p: id(p) in weights)(module, decay)


def named_pairs(module, decay):
    pairs = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    return [
        {"params": [x for x in pairs if x[1].ndim >= 2], "weight_decay": decay},
        {"params": [x for x in pairs if x[1].ndim < 2], "weight_decay": 0.0},
    ]


def filtered(module, decay):
    matrices, rest = [], []
    for p in filter(lambda p: p.requires_grad, module.parameters()):
        (matrices if p.dim() > 1 else rest).append(p)
    return ({"weight_decay": 0, "params": rest}, {"weight_decay": decay, "params": matrices})


def by_name(module, decay):
    named = {n: p for n, p in module.named_parameters() if p.requires_grad}
    flat = {n: p for n, p in named.items() if len(p.shape) < 2}
    return [
        {"params": tuple(p for n, p in named.items() if n not in flat), "weight_decay": decay},
        {"params": flat.values(), "weight_decay": 0.0},
    ]


def by_optimizer(module, decay):
    optimizer = torch.optim.AdamW(right_groups(module, decay))
    return optimizer.param_groups


def kept(**parts):
    """A right snapshot in which some parts are made otherwise; None leaves a part out."""

    def function(model, optimizer, epoch):
        whole = {
            "model": lambda: copy.deepcopy(model.state_dict()),
            "optimizer": lambda: copy.deepcopy(optimizer.state_dict()),
            "epoch": lambda: epoch,
        }
        made = {key: make() for key, make in whole.items() if key not in parts}
        for key, make in parts.items():
            if make is not None:
                made[key] = make(model, optimizer, epoch)
        return made

    return function


def in_eval(model, optimizer, epoch):
    model.eval()
    return kept()(model, optimizer, epoch)


def parameters_only(m, o, e):
    return copy.deepcopy(dict(m.named_parameters()))


def through_a_file(model, optimizer, epoch):
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    return {**torch.load(buffer), "epoch": epoch}


def cloned(model, optimizer, epoch):
    state = optimizer.state_dict()
    moments = {
        key: {name: value.clone() for name, value in entry.items()}
        for key, entry in state["state"].items()
    }
    groups = [dict(group) for group in state["param_groups"]]
    return {
        "model": {name: value.detach().clone() for name, value in model.state_dict().items()},
        "optimizer": {"state": moments, "param_groups": groups},
        "epoch": epoch,
    }


def whole_copy(model, optimizer, epoch):
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    return copy.deepcopy(parts)


def other_rate(model, optimizer, epoch):
    optimizer.param_groups[0]["lr"] = 1e-3
    return kept()(model, optimizer, epoch)


WRONG = {
    "warmup_cosine": [
        (schedule(wave=lambda t, w, T: fall(2 * (t - w) / (T - w))), "rises again"),
        (schedule(wave=lambda t, w, T: 2 * fall((t - w) / (T - w)) - 1), "becomes negative"),
        (schedule(wave=lambda t, w, T: 2 * fall((t - w) / (T - w))), "starts at twice lr"),
        (schedule(wave=lambda t, w, T: 1 - fall((t - w) / (T - w))), "rises from 0"),
        (schedule(wave=lambda t, w, T: (T - t) / (T - w)), "straight line"),
        (
            schedule(wave=lambda t, w, T: math.cos(math.pi / 2 * (t - w) / (T - w))),
            "quarter of a period",
        ),
        (lambda t, w, T, lr: lr * fall(t / T), "no warm-up"),
        (lambda t, w, T, lr: lr, "at [20] you return 0.5, wanted 0"),
        (lambda t, w, T, lr: schedule()(t, w, T, 1.0), "return the factor"),
        (schedule(wave=lambda t, w, T: 1.0), "the cosine is missing"),
        (without_return, "returned None"),
    ],
    "decay_groups": [
        (groups(lambda name, p: p.ndim < 2), "wrong way round"),
        (groups(lambda name, p: p.ndim >= 2, lambda name, p: True), "frozen parameters"),
        (groups(lambda name, p: True), "wanted: every tensor"),
        (changed(without_key), "AdamW's default, 0.01"),
        (changed(twice), "in your groups twice"),
        (changed(lambda found: found[:1]), "a list of two groups"),
        (changed(lambda found: [g["params"] for g in found]), "a dictionary with the keys"),
        (changed(lambda found: [found[0], found[1] | {"weight_decay": 0.1}]), "nothing else"),
        (
            lambda module, decay: [
                {"params": ["matrix.weight"], "weight_decay": decay},
                {"params": ["matrix.bias"], "weight_decay": 0.0},
            ],
            "These are names",
        ),
    ],
    "snapshot": [
        (kept(optimizer=None), 'no "optimizer"'),
        (kept(epoch=None), 'no "epoch"'),
        (kept(model=None), 'no "model"'),
        (
            kept(optimizer=lambda m, o, e: copy.deepcopy(o.state_dict()["param_groups"])),
            "not in its param_groups",
        ),
        (kept(epoch=lambda m, o, e: 0), "wanted the one that was given"),
        (lambda m, o, e: None, "returned None"),
        (lambda m, o, e: (m.state_dict(), o.state_dict(), e), "wanted a dictionary"),
    ],
}

SUBTLE = {
    "warmup_cosine": [
        (schedule(ramp=lambda t, w: t / w), "step 0 has rate 0"),
        (schedule(ramp=lambda t, w: (t + 1) / w), "one step early"),
        (schedule(wave=lambda t, w, T: fall(t / T)), "jumps down"),
        (schedule(wave=lambda t, w, T: fall((t - w) / T)), "does not arrive"),
        (schedule(wave=lambda t, w, T: fall((t - w + 1) / (T - w))), "one step off"),
        (schedule(wave=lambda t, w, T: fall((t - w) / (T - w + 1))), "one step off"),
        (schedule(wave=lambda t, w, T: fall((t - w) / (T - w - 1))), "one step off"),
        (
            lambda t, w, T, lr: lr * ((t + 1) / (w + 1) if t <= w - 2 else fall((t - w) / (T - w))),
            "at [3]",
        ),
        (half_without_return, "returned None"),
        (lambda t, w, T, lr: round(schedule()(t, w, T, lr), 3), "You rounded"),
    ],
    "decay_groups": [
        (groups(lambda name, p: "bias" not in name), 'went by "bias"'),
        (groups(lambda name, p: not name.endswith(".bias")), 'went by ".bias"'),
        (groups(lambda name, p: "norm" not in name), 'went by "norm"'),
        (groups(lambda name, p: p.ndim >= 2 and "bias" not in name), "matrix with bias in its"),
        (
            groups(lambda name, p: p.ndim >= 2, lambda name, p: p.requires_grad and p.ndim),
            "temperature is in neither group",
        ),
        (groups(lambda name, p: p.ndim == 2), "three dimensions"),
        (groups(lambda name, p: p.ndim > 2), "not > 2"),
        (groups(lambda name, p: p.ndim != 1), "no dimension at all"),
        (groups(lambda name, p: p.ndim >= 1), "Vectors decay"),
        (groups(lambda name, p: p.squeeze().ndim >= 2), "axis of length 1"),
        (groups(lambda name, p: p.ndim >= 2 and 1 not in p.shape), "axis of length 1"),
        (groups(lambda name, p: p.numel() > 5), "axis of length 1"),
        (by_layer, "belongs to none"),
        (named_pairs, "pairs of name and parameter"),
        (lambda module, decay: right_groups(module.eval(), decay), "changed the module"),
        (changed(copies), "no parameter of the module"),
        (generators, "is an iterator"),
        (unfreezing, "changed the module"),
    ],
    "snapshot": [
        (
            [
                kept(model=lambda m, o, e: m.state_dict()),
                kept(model=lambda m, o, e: dict(m.state_dict())),
                kept(model=lambda m, o, e: {n: v.cpu() for n, v in m.state_dict().items()}),
                kept(model=lambda m, o, e: copy.copy(m.state_dict())),
                kept(model=lambda m, o, e: {n: v.detach() for n, v in m.state_dict().items()}),
            ],
            "tensors that the model trains on",
        ),
        (
            kept(model=lambda m, o, e: {
                n: v.clone() if v.ndim > 1 else v for n, v in m.state_dict().items()
            }),
            "0.bias is not what it was",
        ),
        (
            [
                kept(optimizer=lambda m, o, e: dict(o.state_dict())),
                kept(optimizer=lambda m, o, e: {**o.state_dict()}),
            ],
            "moved on with the optimizer",
        ),
        ([kept(model=parameters_only)], "are buffers"),
        (other_rate, "changed the optimizer"),
        (kept(model=lambda m, o, e: copy.deepcopy(m)), "kept the module itself"),
        (in_eval, "in eval mode"),
        (kept(epoch=lambda m, o, e: e + 1), "wanted the one that was given"),
        (
            kept(model=lambda m, o, e: {n: v.half() for n, v in m.state_dict().items()}),
            "is not what it was",
        ),
    ],
}  # fmt: skip

RIGHT = {
    "warmup_cosine": [
        by_scheduler,
        by_numpy,
        lambda t, w, T, lr: torch.tensor(schedule()(t, w, T, lr)),
        lambda t, w, T, lr: [schedule()(t, w, T, lr)][0],
        lambda t, w, T, lr: lr * min((t + 1) / (w + 1), fall(max(t - w, 0) / (T - w)))
        if t != w else lr,
    ],
    "decay_groups": [filtered, by_name, by_optimizer, lambda m, d: right_groups(m, d)[::-1]],
    "snapshot": [
        through_a_file,
        cloned,
        whole_copy,
        kept(model=lambda m, o, e: copy.deepcopy(m).state_dict()),
        lambda m, o, e: {**whole_copy(m, o, e), "rng": torch.get_rng_state()},
    ],
}  # fmt: skip
