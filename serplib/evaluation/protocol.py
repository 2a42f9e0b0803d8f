"""One classifier tested in several ways: what the protocol of a paper is worth (section 4.2).

Published accuracies differ in how the epoch is chosen, in votes, points and divisor, often without
saying so. Here the weights stay the same and the protocol changes (as Goyal et al., arXiv
2106.05304, did for PointNet and others).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from serplib.data.common import Clouds
from serplib.evaluation.accuracy import accuracy_of, features, predict
from serplib.evaluation.corruptions import subset
from serplib.geometry import farthest_point_sample, gather
from serplib.perturbation import scale_and_shift
from serplib.seeding import named_generator
from serplib.validation import require_at_least

VOTES = 10
PADDED_BATCH = 128  # the authors' code divides by batches x 128
WAYS = {  # in words, by the key of `ways_to_test`, in the order of a table
    "last_epoch": "last epoch, not the best on validation",
    "best_epoch": "best epoch on the test set",
    "votes": f"{VOTES} votes",
    "best_votes": f"best of 1 to {VOTES} votes on the test set",
    "class_mean": "mean over classes, not over shapes",
    "padded": f"divisor of batches x {PADDED_BATCH}",
    "farthest": "half of the points, farthest",
    "random": "half of the points, random",
}
ONE_SIGN = {  # ways whose difference from the reference has one sign for all classifiers, and why
    "best_epoch": "never negative",
    "best_votes": "never negative",
    "padded": "arithmetic",
}


def votes(
    classifier: nn.Module,
    points: Tensor,
    count: int,
    generator: torch.Generator,
    batch_size: int = 128,
) -> Tensor:
    """Classify clouds several times, the first time as they are and then scaled and shifted.

    Args:
        classifier: maps ``(B, N, 3)`` to logits; set to evaluation mode.
        points: ``(S, N, 3)``.
        count: number of votes, V.
        generator: of `perturbation.scale_and_shift`, on the CPU.

    Returns:
        ``(V, S)`` int64 on the CPU: row v has the classes by the mean probability of the first
        v + 1 votes.
    """
    require_at_least(1, count=count)
    total: Tensor | float = 0.0  # (S, classes) sum of the probabilities so far
    chosen = []
    for vote in range(count):
        shown = scale_and_shift(points, generator) if vote else points  # (S, N, 3)
        total = total + features(classifier, shown, batch_size).softmax(-1)  # (S, classes)
        chosen.append(total.argmax(-1))  # (S,)
    return torch.stack(chosen)


def ways_to_test(
    classifier: nn.Module, test: Clouds, history: list[dict[str, float]], seed: int
) -> dict[str, float]:
    """Measure the accuracy of a classifier under several protocols.

    Args:
        classifier: with the weights of the epoch that was chosen on validation.
        test: labelled clouds.
        history: of `training.finetune`, with ``monitor_accuracy`` on ``test`` after each epoch.
        seed: of everything random.

    Returns:
        Accuracies, 0 to 1: ``reference`` (this library's protocol: the chosen epoch, one vote, all
        points, the mean over shapes), and one for each key of `WAYS`, which differs in one thing.

    Raises:
        ValueError: no labels, or a history without ``monitor_accuracy``.
    """
    watched = [entry["monitor_accuracy"] for entry in history if "monitor_accuracy" in entry]
    if test.labels is None or not watched:
        raise ValueError("wanted labels, and a history with monitor_accuracy: pass monitor=test")
    draw = named_generator(seed, "votes")
    right = votes(classifier, test.points, VOTES, draw).eq(test.labels)  # (V, S)
    found = accuracy_of(right[0], test.labels)  # of one vote
    voted = right.double().mean(1)  # (V,)
    half = test.points.shape[1] // 2
    spread = gather(test.points, farthest_point_sample(test.points, half))  # (S, N / 2, 3)
    drawn = subset(test.points, half, named_generator(seed, "half"))  # (S, N / 2, 3)
    fewer = [predict(classifier, points).eq(test.labels) for points in (spread, drawn)]  # (S,) each
    padded = math.ceil(len(test) / PADDED_BATCH) * PADDED_BATCH
    return {
        "reference": found["accuracy"],
        "last_epoch": watched[-1],
        "best_epoch": max(watched),
        "votes": voted[-1].item(),
        "best_votes": voted.max().item(),
        "class_mean": found["mean_class_accuracy"],
        "padded": found["accuracy"] * len(test) / padded,
        "farthest": fewer[0].double().mean().item(),
        "random": fewer[1].double().mean().item(),
    }
