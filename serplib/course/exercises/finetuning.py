"""Checkers of the exercises in 09_finetuning: splits, counts and fair comparisons."""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from serplib.course.exercises.grading import (
    Hint,
    call,
    examination,
    exercise,
    grade,
    normal,
    to_tensor,
    uniform,
)
from serplib.seeding import named_generator

# Class to number of shapes; 5 and 6 are missing, and a quarter of 10 is rounded to 2.
SIZES = {0: 40, 1: 13, 2: 7, 3: 5, 4: 3, 7: 2, 8: 10}
WANTED = {0.25: [10, 3, 2, 1, 1, 1, 2], 0.8: [32, 10, 6, 4, 2, 1, 8]}  # fraction to number held out


@examination
def stratified(function: Callable[[Tensor, float, torch.Generator], Tensor]) -> None:
    """Split by class: ``(labels (S,), fraction, generator) -> (S,) bool``, True is held out."""

    def split(labels: Tensor, fraction: float, seed: int) -> Tensor:
        generator = named_generator("check", "split", seed)
        held = call(function, labels.clone(), fraction, generator, names=("labels", "", ""))
        held = to_tensor(held, "a bool tensor (S,)")
        if held.shape != labels.shape or held.dtype != torch.bool:
            raise Hint(
                f"Wanted a bool tensor {tuple(labels.shape)}, True where a shape is held out; got "
                f"{held.dtype} {tuple(held.shape)}."
            )
        return held

    labels = torch.tensor([label for label, size in SIZES.items() for _ in range(size)])
    labels = labels[normal("labels", len(labels)).argsort()]
    for fraction in WANTED:
        drawn = [split(labels, fraction, seed) for seed in range(12)]
        _check_counts([[int(held[labels == c].sum()) for c in SIZES] for held in drawn], fraction)
    if not torch.equal(drawn[0], split(labels, fraction, 0)):
        raise Hint("The same generator seed gave another split: pass generator=generator on.")
    if all(torch.equal(drawn[0], other) for other in drawn):
        raise Hint("Twelve seeds gave the same split: draw with the generator passed.")
    # Two of four: the 6 pairs are equally likely, and independent in the two classes.
    held = torch.stack([split(torch.tensor([0, 1] * 4), 0.5, seed) for seed in range(400)])
    first, second = (held[:, k::2].long() @ torch.tensor([1, 2, 4, 8]) for k in (0, 1))
    if len(first.unique()) < 6 or first.unique(return_counts=True)[1].min() < 30:
        raise Hint(
            "Some shapes of a class are seldom held out together: a contiguous block, or every "
            "k-th shape, is no random draw. Use torch.randperm(n, generator=generator)[:k]."
        )
    if (first == second).float().mean() > 0.5:
        raise Hint("Two classes lose the same positions: do not seed the generator again.")


def _check_counts(counts: list[list[int]], fraction: float) -> None:
    """Raise a hint unless every draw holds out the wanted number of each class."""
    sizes, wanted = list(SIZES.values()), WANTED[fraction]
    if all(count == wanted for count in counts):
        return
    if all(count == [n - w for n, w in zip(sizes, wanted)] for count in counts):
        raise Hint("True and False are exchanged: True is held out, False stays.")
    if any(n == c for n, c in zip(sizes, counts[0])):
        raise Hint("A class was held out whole: at most count - 1, or nothing is left to learn it.")
    if any(count != counts[0] for count in counts):
        if all(c <= w for count in counts for c, w in zip(count, wanted)):
            raise Hint(
                "The number held out varies with the seed, and is too small: drawn with "
                "replacement, a shape may be drawn twice. Use torch.randperm."
            )
        raise Hint(
            f"The number held out of a class varies with the seed: {counts[0]}, then {counts[1]}, "
            f"wanted {wanted}. Draw within each class, not over all shapes at once; the positions "
            "drawn there are not yet indices of shapes."
        )
    if all(c == w or c == 0 for c, w in zip(counts[0], wanted)):
        raise Hint(
            f"Held out {counts[0]} of classes with {sizes} shapes: at least one of each class. "
            "(Not all labels from 0 to the largest need occur.)"
        )
    raise Hint(
        f"Held out {counts[0]} of classes with {sizes} shapes at fraction {fraction}, wanted "
        f"{wanted}: round(fraction * count), neither floor nor ceil, from 1 to count - 1. Python's "
        "round(2.5) is 2."
    )


def _batches() -> list[tuple[list[Tensor], list[Tensor]]]:
    """Predictions and labels in batches, the last one short."""
    sizes = ((9, 9, 4), (8, 8, 8, 3), (4, 4))
    made = [(3 * uniform("batches", 2, sum(each))).long().split(each, 1) for each in sizes]
    return [([b[0] for b in batches], [b[1] for b in batches]) for batches in made]


@exercise(_batches)
def accuracy(predictions: list[Tensor], labels: list[Tensor]):
    """Return the accuracy over batches: ``(predictions, labels) -> float``, 0 to 1."""
    hits = [int((p == y).sum()) for p, y in zip(predictions, labels)]
    sizes, said, true = [len(y) for y in labels], torch.cat(predictions), torch.cat(labels)
    right = sum(hits) / sum(sizes)
    recall = torch.stack([(said[true == c] == c).double().mean() for c in true.unique()])
    return right, {
        "You divided by batches x batch size, the divisor of the published tables. The last batch "
        "is short.": sum(hits) / (len(sizes) * sizes[0]),
        "That is the mean of the batches' accuracies: a shape of the short batch counts more.":
            sum(h / s for h, s in zip(hits, sizes)) / len(sizes),
        "You left the last batch out.":
            [sum(hits[:-1]) / sum(sizes[:-1]), sum(hits[:-1]) / len(true)],
        "That is the number of hits. Divide by the number of shapes.": sum(hits),
        "You divided by the number of batches. Divide by that of shapes.": sum(hits) / len(sizes),
        "That is the accuracy of one batch only.": [hits[0] / sizes[0], hits[-1] / sizes[-1]],
        "That is the mean accuracy over classes. Every shape counts once.": recall.mean(),
        "You rounded, or divided with //.": [0.0, round(right, 2), round(right, 3)],
    }  # fmt: skip


@examination
def fair_gain(function: Callable[[dict, dict], float]) -> None:
    """Return the mean gain over common seeds: ``({seed: accuracy}, {seed: accuracy}) -> float``."""
    cases = [
        ({0: 60.0, 1: 70.0, 5: 95.0}, {1: 64.0, 0: 57.0, 7: 10.0, 8: 20.0}),
        ({3: 50.0, 2: 41.0, 9: 99.0}, {2: 44.0, 3: 51.0, 4: 0.0}),
        ({6: 0.0, 1: 80.0, 4: 50.0}, {6: 12.0, 4: 49.0, 3: 70.0}),  # 0 is an accuracy, too
        ({2: 30.0, 5: 41.0, 3: 64.0, 8: 5.0}, {3: 52.0, 2: 28.0, 5: 0.0, 1: 9.0}),  # three seeds
        ({4: 55.0, 1: 20.0}, {7: 31.0, 4: 58.0}),  # one seed
    ]
    grade(function, cases, _gains)
    for nothing in (({0: 1.0}, {1: 1.0}), ({}, {})):
        try:
            found = f"return {function(*nothing)!r}"
        except ValueError:
            continue
        except ZeroDivisionError:
            found = "divide by zero"
        except Exception as error:
            found = f"raise {type(error).__name__}"
        raise Hint(f"Without a common seed you {found}: raise a ValueError that says so.")


def _gains(ours: dict[int, float], base: dict[int, float]):
    common = sorted(ours.keys() & base.keys())
    gains = torch.tensor([ours[seed] - base[seed] for seed in common])
    right, total = gains.mean(), gains.sum()
    nonzero = [
        [ours[s] - base[s] for s in common if all(accuracies[s] for accuracies in tested)]
        for tested in ((ours, base), (ours,), (base,))
    ]
    by_position = [
        torch.tensor([a - b for a, b in zip(first, second)]).mean()
        for first, second in (
            (ours.values(), base.values()),
            (dict(sorted(ours.items())).values(), dict(sorted(base.items())).values()),
        )
    ]
    means = [sum(accuracies.values()) / len(accuracies) for accuracies in (ours, base)]
    return right, {
        "You compared the means of ALL seeds; some ran in one variant only.": means[0] - means[1],
        "You paired by position. Pair by seed: the order of a dictionary means nothing.":
            by_position,
        "That is the sum of the gains, not their mean.": total,
        "You divided by all seeds of one variant, or of both, not by those that both have.":
            [total / len(n) for n in (ours, base, ours | base)],
        "That is the best seed's gain, or the worst one's. Wanted: the mean.":
            [gains.max(), gains.min(), max(ours.values()) - max(base.values())],
        "You left out a seed with accuracy 0: test `seed in base`, not the value.":
            [sum(kept) / max(1, len(kept)) for kept in nonzero],
        "That is the median gain, or the middle between the two extremes. Wanted: the mean.":
            [statistics.median(gains.tolist()), (gains.max() + gains.min()) / 2],
        "You dropped the sign: abs() counts a loss as a gain.": gains.abs().mean(),
        "That is the relative gain. Wanted: the difference, in points.":
            [f * sum((ours[s] - base[s]) / (base[s] or 1) for s in common) / len(common)
             for f in (1, 100)],
        "You rounded.": [right.round(), right.trunc()],
    }  # fmt: skip
