"""Wrong answers to the exercises of 08, each with a piece of the hint meant for it."""

import copy
import math

from torch import nn

NAMES = {"math": math, "copy": copy, "nn": nn}


def fall(p):
    return (1 + math.cos(math.pi * p)) / 2


def schedule(ramp=lambda t, w: (t + 1) / (w + 1), wave=lambda t, w, T: fall((t - w) / (T - w))):
    return lambda t, w, T, lr: lr * (ramp(t, w) if t < w else wave(t, w, T))


def groups(decays, keep=lambda name, p: p.requires_grad):
    """Two groups by a rule on name and parameter, as `decay_groups` wants them."""

    def function(module, weight_decay):
        known = [(name, p) for name, p in module.named_parameters() if keep(name, p)]
        return [
            {"params": [p for name, p in known if decays(name, p)], "weight_decay": weight_decay},
            {"params": [p for name, p in known if not decays(name, p)], "weight_decay": 0.0},
        ]

    return function


def changed(change):
    """The right two groups, changed."""
    return lambda module, decay: change(groups(lambda name, p: p.ndim >= 2)(module, decay))


def without_key(found):
    del found[1]["weight_decay"]
    return found


def twice(found):
    found[1]["params"] = found[0]["params"][:1] + found[1]["params"]
    return found


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


MUTANTS = {
    "warmup_cosine": [
        (schedule(ramp=lambda t, w: t / w), "step 0 has rate 0"),
        (schedule(ramp=lambda t, w: (t + 1) / w), "one step early"),
        (schedule(wave=lambda t, w, T: fall(t / T)), "jumps down"),
        (schedule(wave=lambda t, w, T: fall((t - w) / T)), "does not arrive"),
        (schedule(wave=lambda t, w, T: fall(2 * (t - w) / (T - w))), "rises again"),
        (schedule(wave=lambda t, w, T: 2 * fall((t - w) / (T - w)) - 1), "becomes negative"),
        (schedule(wave=lambda t, w, T: 2 * fall((t - w) / (T - w))), "starts at twice lr"),
        (schedule(wave=lambda t, w, T: 1 - fall((t - w) / (T - w))), "rises from 0"),
        (schedule(wave=lambda t, w, T: (T - t) / (T - w)), "straight line"),
        (
            schedule(wave=lambda t, w, T: math.cos(math.pi / 2 * (t - w) / (T - w))),
            "quarter of a turn",
        ),
        (lambda t, w, T, lr: lr * fall(t / T), "no warm-up"),
        (lambda t, w, T, lr: lr, "you say 0.5 at step 0, wanted 0.1"),
    ],
    "decay_groups": [
        (groups(lambda name, p: "bias" not in name), 'went by "bias"'),
        (groups(lambda name, p: "norm" not in name), 'went by "norm"'),
        (groups(lambda name, p: p.ndim < 2), "wrong way round"),
        (groups(lambda name, p: p.ndim >= 2, lambda name, p: True), "frozen parameters"),
        (
            groups(lambda name, p: p.ndim >= 2, lambda name, p: p.requires_grad and p.ndim),
            "temperature is in neither group",
        ),
        (groups(lambda name, p: p.ndim == 2), "three dimensions"),
        (groups(lambda name, p: p.ndim != 1), "no dimension at all"),
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
        (kept(model=lambda m, o, e: m.state_dict()), "moved on with the model"),
        (kept(optimizer=lambda m, o, e: dict(o.state_dict())), "moved on with the optimizer"),
        (kept(optimizer=None), 'no "optimizer"'),
        (kept(epoch=None), 'no "epoch"'),
        (kept(model=lambda m, o, e: copy.deepcopy(dict(m.named_parameters()))), "are buffers"),
        (kept(model=lambda m, o, e: copy.deepcopy(m)), "kept the module itself"),
        (
            kept(optimizer=lambda m, o, e: copy.deepcopy(o.state_dict()["param_groups"])),
            "not in its param_groups",
        ),
        (kept(epoch=lambda m, o, e: 0), "wanted the one that was given"),
        (in_eval, "in eval mode"),
        (lambda m, o, e: None, "returned None"),
        (lambda m, o, e: (m.state_dict(), o.state_dict(), e), "wanted a dictionary"),
    ],
}
