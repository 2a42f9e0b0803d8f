"""Splits of labelled clouds, stratified by class and drawn from a seed."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from serplib.data.common import Clouds, DataError
from serplib.seeding import named_generator


def _shuffled_classes(clouds: Clouds, seed: int, purpose: str) -> list[Tensor]:
    """Shuffle the shapes of each class: one ``(n,)`` int64 tensor of indices a class."""
    labels = clouds.labels
    if labels is None:
        raise DataError(f"{clouds.name}/{clouds.split} has no labels: choose a labelled set")
    generator = named_generator(seed, purpose)
    shapes = [(labels == c).nonzero()[:, 0] for c in labels.unique()]
    return [index[torch.randperm(len(index), generator=generator)] for index in shapes]


def hold_out(clouds: Clouds, fraction: float, seed: int) -> tuple[Clouds, Clouds]:
    """Split labelled clouds into (kept, held out), stratified by class.

    Args:
        clouds: labelled clouds.
        fraction: share of each class held out, rounded, at least one shape and never a whole class.
        seed: of the draw.

    Raises:
        DataError: a class has one shape only, or the clouds have no labels.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}, wanted between 0 and 1")
    kept, held = [], []
    for index in _shuffled_classes(clouds, seed, "hold_out"):
        if len(index) < 2:
            raise DataError(
                f"{clouds.name}/{clouds.split}: a class with one shape cannot be split into "
                "training and validation; pass more shapes, or valid_fraction=0"
            )
        count = min(max(round(fraction * len(index)), 1), len(index) - 1)
        held.append(index[:count])
        kept.append(index[count:])
    return clouds.subset(torch.cat(kept).sort()[0]), clouds.subset(torch.cat(held).sort()[0])


def few_labels(clouds: Clouds, per_class: int, seed: int) -> Clouds:
    """Keep ``per_class`` shapes of each class, the same ones for the same seed.

    Raises:
        DataError: a class has fewer, or the clouds have no labels.
    """
    if per_class < 1:
        raise ValueError(f"per_class is {per_class}, wanted >= 1")
    kept = []
    for index in _shuffled_classes(clouds, seed, "few_labels"):
        if len(index) < per_class:
            raise DataError(
                f"{clouds.name}/{clouds.split}: a class has {len(index)} shapes, "
                f"{per_class} wanted; ask for fewer labels a class"
            )
        kept.append(index[:per_class])
    return clouds.subset(torch.cat(kept).sort()[0])


def same_classes(clouds: Clouds, classes: tuple[str, ...]) -> Clouds:
    """Keep the shapes whose category is one of ``classes``, and label them in that order.

    A classifier trained on one data set can then be tested on another with the same names.

    Raises:
        DataError: no category is shared.
    """
    shared = [name for name in clouds.classes if name in classes]
    if not shared:
        raise DataError(f"{clouds.name} has none of the {len(classes)} categories trained on")
    new = torch.tensor([classes.index(n) if n in classes else -1 for n in clouds.classes])
    labels = new[clouds.labels]  # (S,)
    kept = replace(clouds, labels=labels, classes=classes)
    return kept.subset(labels >= 0)
