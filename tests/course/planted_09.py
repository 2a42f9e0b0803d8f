"""Wrong answers to the exercises of 09, each with a piece of the hint meant for it."""

import torch

NAMES = {"torch": torch}


def split(labels, fraction, generator, count=None, invert=False):
    held = torch.zeros(len(labels), dtype=torch.bool)
    count = count or (lambda n: min(max(round(fraction * n), 1), n - 1))
    for c in labels.unique():
        own = (labels == c).nonzero()[:, 0]
        order = torch.randperm(len(own), generator=generator)
        held[own[order[: count(len(own))]]] = True
    return ~held if invert else held


def over_all(labels, fraction, generator):
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[torch.randperm(len(labels), generator=generator)[: round(fraction * len(labels))]] = True
    return held


def first_ones(labels, fraction, generator):
    held = torch.zeros(len(labels), dtype=torch.bool)
    for c in labels.unique():
        own = (labels == c).nonzero()[:, 0]
        held[own[: min(max(round(fraction * len(own)), 1), len(own) - 1)]] = True
    return held


def hits(predictions, labels):
    return [int((p == y).sum()) for p, y in zip(predictions, labels)]


def by_position(ours, base):
    gains = [a - b for a, b in zip(ours.values(), base.values())]
    return sum(gains) / len(gains)


def common(ours, base):
    return [ours[s] - base[s] for s in ours if s in base]


def quiet(ours, base):
    gains = common(ours, base)
    return sum(gains) / len(gains) if gains else 0.0


MUTANTS = {
    "stratified": [
        (over_all, "Draw within each class"),
        (lambda y, f, g: split(y, f, g, invert=True), "wrong way round"),
        (lambda y, f, g: split(y, f, g, lambda n: max(int(f * n + 0.5), 2)), "held out whole"),
        (lambda y, f, g: split(y, f, g, lambda n: int(f * n)), "at least one of each class"),
        (lambda y, f, g: split(y, f, torch.Generator().manual_seed(torch.seed() % 2**31)),
         "pass generator=generator"),
        (first_ones, "is anything drawn at random"),
        (lambda y, f, g: split(y, f, g).nonzero()[:, 0], "bool tensor"),
    ],
    "accuracy": [
        (lambda p, y: sum(hits(p, y)) / (len(y) * len(y[0])), "batches x batch size"),
        (lambda p, y: sum(h / len(b) for h, b in zip(hits(p, y), y)) / len(y), "mean of the batch"),
        (lambda p, y: sum(hits(p, y)[:-1]) / sum(len(b) for b in y[:-1]), "last batch out"),
        (lambda p, y: sum(hits(p, y)), "number of hits"),
        (lambda p, y: 1 - sum(hits(p, y)) / sum(map(len, y)), "WRONG answers"),
        (lambda p, y: 100 * sum(hits(p, y)) / sum(map(len, y)), "per cent"),
    ],
    "fair_gain": [
        (lambda a, b: sum(a.values()) / len(a) - sum(b.values()) / len(b), "ALL seeds"),
        (by_position, "paired by position"),
        (lambda a, b: -sum(common(a, b)) / 2, "sign is turned"),
        (lambda a, b: sum(common(a, b)), "sum of the gains"),
        (lambda a, b: sum(common(a, b)) / len(a), "all seeds of one arm"),
        (lambda a, b: max(common(a, b)), "best seed's gain"),
        (lambda a, b: sum(common(a, b)) / len(common(a, b)), "divides by zero"),
        (quiet, "raise a ValueError."),
    ],
}  # fmt: skip
