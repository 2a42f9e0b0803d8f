"""Answers to the exercises of 09: wrong ones with a piece of their hint, and right ones."""

import math
import statistics

import numpy as np
import torch

NAMES = {"torch": torch}


def bounded(fraction, n, rounding=round):
    return min(max(int(rounding(fraction * n)), 1), n - 1)


def split(labels, fraction, generator, count=None, pick=None, classes=None):
    held = torch.zeros(len(labels), dtype=torch.bool)
    for c in labels.unique() if classes is None else classes:
        own = (labels == c).nonzero()[:, 0]
        n = len(own)
        k = bounded(fraction, n) if count is None else count(fraction, n)
        places = torch.randperm(n, generator=generator)[:k] if pick is None else pick(n, k)
        held[own[places]] = True
    return held


def with_count(count):
    return lambda y, f, g: split(y, f, g, count)


def with_pick(pick):
    return lambda y, f, g: split(y, f, g, pick=lambda n, k: pick(n, k, g))


def block(n, k, generator):
    start = int(torch.randint(n - k + 1, (1,), generator=generator))
    return torch.arange(start, start + k)


def wrapped_block(n, k, generator):
    start = int(torch.randint(n, (1,), generator=generator))
    return (start + torch.arange(k)) % n


def half_up(number):
    return math.floor(number + 0.5)


def over_all(labels, fraction, generator):
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[torch.randperm(len(labels), generator=generator)[: round(fraction * len(labels))]] = True
    return held


def reseeded(labels, fraction, generator):
    """The same positions in all classes of a size."""
    seed = int(torch.randint(2**31, (1,), generator=generator))

    def pick(n, k):
        return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:k]

    return split(labels, fraction, generator, pick=pick)


def first_labels(labels, fraction, generator):
    return split(labels, fraction, generator, classes=range(len(labels.unique())))


def sorting_in_place(labels, fraction, generator):
    held = split(labels, fraction, generator)
    labels.copy_(labels.sort().values)
    return held


def by_sorting(labels, fraction, generator):
    """Shuffle all shapes once; the first of each class are held out."""
    held, left = [False] * len(labels), {}
    for c, n in zip(*labels.unique(return_counts=True)):
        left[int(c)] = bounded(fraction, int(n))
    for place in torch.randperm(len(labels), generator=generator).tolist():
        if left[int(labels[place])] > 0:
            left[int(labels[place])] -= 1
            held[place] = True
    return torch.tensor(held)


def in_numpy(labels, fraction, generator):
    rng = np.random.default_rng(generator.initial_seed())
    labels, held = labels.numpy(), np.zeros(len(labels), dtype=bool)
    for c in np.unique(labels):
        own = np.flatnonzero(labels == c)
        held[rng.choice(own, bounded(fraction, len(own)), replace=False)] = True
    return held


def by_scores(labels, fraction, generator):
    score = torch.rand(len(labels), generator=generator, dtype=torch.float64)
    rank = ((labels[:, None] == labels) & (score[:, None] > score)).sum(1)
    size = (labels[:, None] == labels).sum(1)
    wanted = torch.tensor([bounded(fraction, int(n)) for n in size])
    return rank < wanted


def hits(predictions, labels):
    return [int((p == y).sum()) for p, y in zip(predictions, labels)]


def share(predictions, labels):
    return sum(hits(predictions, labels)) / sum(map(len, labels))


def popped(predictions, labels):
    total, right = 0, 0
    while labels:
        y = labels.pop()
        right += int((predictions.pop() == y).sum())
        total += len(y)
    return right / total


def shifted(predictions, labels):
    for p in predictions:
        p += 1
    return share([p - 1 for p in predictions], labels)


def by_position(ours, base):
    gains = [a - b for a, b in zip(ours.values(), base.values())]
    return sum(gains) / len(gains)


def common(ours, base):
    return [ours[s] - base[s] for s in ours if s in base]


def mean(values):
    return sum(values) / len(values)


def guarded(function):
    """A wrong mean, and the right error where no seed is common."""

    def answer(ours, base):
        if not ours.keys() & base.keys():
            raise ValueError("no seed in common")
        return function(ours, base)

    return answer


def quiet(ours, base):
    gains = common(ours, base)
    return sum(gains) / len(gains) if gains else 0.0


def nonzero(ours, base):
    return mean([ours[s] - base[s] for s in ours if ours.get(s) and base.get(s)])


def deleting(ours, base):
    for seed in list(ours):
        if seed not in base:
            del ours[seed]
    return guarded(lambda a, b: mean(common(a, b)))(ours, base)


def asserted(ours, base):
    assert ours.keys() & base.keys(), "no seed in common"
    return mean(common(ours, base))


def over_union(ours, base):
    return sum(ours.get(s, 0) - base.get(s, 0) for s in ours | base) / len(ours | base)


WRONG = {
    "stratified": [
        (
            [over_all, lambda y, f, g: torch.rand(len(y), generator=g) < f],
            "Draw within each class",
        ),
        (lambda y, f, g: ~split(y, f, g), "are exchanged"),
        (lambda y, f, g: split(y, f, torch.Generator().manual_seed(torch.seed() % 2**31)),
         "pass generator=generator"),
        (with_pick(lambda n, k, g: torch.arange(k)), "Twelve seeds gave the same split"),
        (lambda y, f, g: split(y, f, g).nonzero()[:, 0], "bool tensor"),
    ],
    "accuracy": [
        (lambda p, y: sum(hits(p, y)[:-1]) / sum(len(b) for b in y[:-1]), "last batch out"),
        (lambda p, y: sum(hits(p, y)), "number of hits"),
        (lambda p, y: sum(hits(p, y)) / len(y), "number of batches"),
        (lambda p, y: 1 - share(p, y), "complement"),
        (lambda p, y: 100 * share(p, y), "per cent"),
        (lambda p, y: hits(p, y)[0] / len(y[0]), "one batch only"),
    ],
    "fair_gain": [
        (guarded(lambda a, b: -mean(common(a, b))), "sign is wrong"),
        (guarded(lambda a, b: sum(common(a, b))), "sum of the gains"),
        (guarded(lambda a, b: max(common(a, b))), "best seed's gain"),
        (guarded(lambda a, b: 0.0), "is 0"),
        (lambda a, b: mean(common(a, b)), "divide by zero"),
        (quiet, "return 0.0: raise a ValueError"),
    ],
}  # fmt: skip

SUBTLE = {
    "stratified": [
        (with_count(lambda f, n: bounded(f, n, math.floor)), "neither floor nor ceil"),
        (with_count(lambda f, n: bounded(f, n, math.ceil)), "neither floor nor ceil"),
        (with_count(lambda f, n: bounded(f, n, half_up)), "round(2.5) is 2"),
        (with_count(lambda f, n: max(round(f * n), 1)), "held out whole"),
        (with_count(lambda f, n: min(round(f * n), n - 1)), "at least one of each class"),
        (with_pick(lambda n, k, g: torch.randint(n, (k,), generator=g)), "with replacement"),
        ([with_pick(block), with_pick(wrapped_block)], "seldom held out together"),
        (reseeded, "lose the same positions"),
        (first_labels, "at least one of each class"),
        (sorting_in_place, "labels in place"),
        (lambda y, f, g: split(y, f, g).long(), "bool tensor"),
        (lambda y, f, g: split(y, f, g.manual_seed(0)), "Twelve seeds gave the same split"),
        (with_count(lambda f, n: bounded(0.25, n)), "at fraction 0.8"),
    ],
    "accuracy": [
        (lambda p, y: sum(hits(p, y)) / (len(y) * len(y[0])), "batches x batch size"),
        (
            lambda p, y: torch.tensor(sum(hits(p, y))) / (len(y) * len(y[0])),
            "batches x batch size",
        ),
        (lambda p, y: mean([h / len(b) for h, b in zip(hits(p, y), y)]), "batches' accuracies"),
        (
            lambda p, y: torch.stack([(a == b).float().mean() for a, b in zip(p, y)]).mean(),
            "batches' accuracies",
        ),
        (lambda p, y: sum(hits(p, y)) // sum(map(len, y)), "divided with //"),
        (lambda p, y: round(share(p, y), 2), "You rounded"),
        (lambda p, y: sum(hits(p, y)) / 22, "wanted"),  # the shapes of the first case
        (popped, "argument predictions in place"),
        (shifted, "argument predictions in place"),
        (lambda p, y: torch.tensor(share(p, y)).half(), "float16"),
    ],
    "fair_gain": [
        (guarded(lambda a, b: mean(a.values()) - mean(b.values())), "ALL seeds"),
        (
            [
                guarded(by_position),
                guarded(lambda a, b: by_position(dict(sorted(a.items())), dict(sorted(b.items())))),
            ],
            "paired by position",
        ),
        (
            [
                guarded(lambda a, b: sum(common(a, b)) / len(a)),
                guarded(lambda a, b: sum(common(a, b)) / len(a | b)),
            ],
            "all seeds of one variant",
        ),
        (guarded(lambda a, b: mean(list(map(abs, common(a, b))))), "dropped the sign"),
        (guarded(nonzero), "accuracy 0"),
        (guarded(lambda a, b: mean([a[s] - b[s] for s in a if b.get(s)])), "accuracy 0"),
        (guarded(lambda a, b: statistics.median(common(a, b))), "the median gain"),
        (guarded(lambda a, b: (max(common(a, b)) + min(common(a, b))) / 2), "two extremes"),
        (lambda a, b: statistics.stdev(common(a, b)) and mean(common(a, b)), "requires at least"),
        (guarded(over_union), "wanted 4.5"),
        (deleting, "argument ours in place"),
        (asserted, "raise AssertionError: raise a ValueError"),
        (guarded(lambda a, b: round(mean(common(a, b)))), "You rounded"),
    ],
}

RIGHT = {
    "stratified": [by_sorting, in_numpy, by_scores, split, with_pick(
        lambda n, k, g: torch.multinomial(torch.ones(n), k, generator=g))],
    "accuracy": [
        lambda p, y: float((torch.cat(p) == torch.cat(y)).float().mean()),
        lambda p, y: (torch.cat(p) == torch.cat(y)).double().mean(),
        lambda p, y: np.mean(np.concatenate(p) == np.concatenate(y)),
        lambda p, y: np.average([h / len(b) for h, b in zip(hits(p, y), y)],
                                weights=list(map(len, y))),
        lambda p, y: torch.tensor(sum(hits(p, y))) / sum(map(len, y)),
    ],
    "fair_gain": [
        lambda a, b: statistics.mean(common(a, b)),  # a StatisticsError is a ValueError
        guarded(lambda a, b: np.mean(common(a, b))),
        guarded(lambda a, b: torch.tensor(common(a, b)).mean()),
        guarded(lambda a, b: mean([a[s] for s in a if s in b]) - mean([b[s] for s in a if s in b])),
        guarded(lambda a, b: math.fsum(common(a, b)) / len(set(a) & set(b))),
    ],
}  # fmt: skip
