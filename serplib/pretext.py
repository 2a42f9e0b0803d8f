"""The pretext task: restore clean clouds from perturbed ones (paper, sections 3.1 and 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from serplib.families import Affine, Drop, Family, Outliers
from serplib.geometry import farthest_point_sample, gather
from serplib.perturbation import Perturbation, authors_normalize, scale_and_shift
from serplib.validation import check_fields, expect

Augmentation = Literal["none", "scale_shift"]
Step = Literal["noise", "affine", "drop", "outliers"]


class Corrupted(NamedTuple):
    """Corrupted clouds and what the model must restore."""

    points: Tensor  # (B, N, 3) corrupted
    clean: Tensor  # (B, N, 3) the clean partner of each point; see `Corruption.target`
    touched: Tensor  # (B, N) bool, True for points that a step selected, even if moved by 0


@dataclass(frozen=True)
class Corruption:
    """How a pair (corrupted, clean) of clouds is made from a cloud of the data set.

    Attributes:
        perturbation: the paper's noise (section 3.1).
        augment: ``"none"`` or ``"scale_shift"`` (`perturbation.scale_and_shift`), before the noise.
        subsample: how ``num_points`` are picked from larger clouds: ``"fps"`` (section 4.1) or
            ``"random"``, another subset each time (the authors' code). Without effect on clouds of
            ``num_points`` points, which is what `experiments.pipelines` loads.
        num_points: N, points of a training cloud; smaller clouds are taken whole.
        normalize_after: apply `perturbation.authors_normalize` to both clouds at the end.
        steps: what happens to a cloud, in this order: ``"noise"`` is ``perturbation`` (the paper),
            the others are the families of the same name.
        affine, drop, outliers: see `families`.
        target: ``"partners"``, the clean partner of each point, or ``"whole"``, the whole clean
            cloud in its own order. They differ where points were dropped or replaced; ``"whole"``
            needs a loss that compares sets: SeRP-PointNet with the task ``"cdl2"``.
    """

    perturbation: Perturbation = Perturbation()
    augment: Augmentation = "none"
    subsample: Literal["fps", "random"] = "fps"
    num_points: PositiveInt = 1024
    normalize_after: bool = False
    steps: tuple[Step, ...] = ("noise",)
    affine: Affine = Affine()
    drop: Drop = Drop()
    outliers: Outliers = Outliers()
    target: Literal["partners", "whole"] = "partners"

    def __post_init__(self) -> None:
        check_fields(self)


class Pretext(nn.Module):
    """The pretext task: corrupt clean clouds and train a model to restore them.

    Args:
        model: a module with ``losses(perturbed, clean, touched)``, a dict of scalar tensors.
        corruption: how a pair (perturbed, clean) is made.

    Raises:
        ValueError: the target ``"whole"`` for a model that pairs point i with point i.
    """

    def __init__(self, model: nn.Module, corruption: Corruption) -> None:
        super().__init__()
        task = getattr(getattr(model, "config", None), "task", None)
        if corruption.target == "whole" and task != "cdl2":
            raise ValueError("corruption.target is 'whole': needs SeRP-PointNet with task 'cdl2'")
        self.model: Any = model
        self.corruption = corruption

    def corrupt(self, points: Tensor, generator: torch.Generator) -> Corrupted:
        """Turn clouds ``(B, M, 3)`` into corrupted and clean ones ``(B, N, 3)``."""
        expect(points, "B M 3")
        c = self.corruption
        if c.augment == "scale_shift":
            points = scale_and_shift(points, generator)
        if points.shape[1] > c.num_points:
            if c.subsample == "fps":
                index = farthest_point_sample(points, c.num_points)  # (B, N)
            else:
                order = torch.rand(points.shape[:2], generator=generator, device=points.device)
                index = order.argsort(dim=1, stable=True)[:, : c.num_points]  # (B, N)
            points = gather(points, index)  # (B, N, 3)
        corrupted = clean = points  # (B, N, 3)
        touched = torch.zeros_like(points[..., 0], dtype=torch.bool)  # (B, N)
        for step in c.steps:
            if step == "noise":
                corrupted, now, _ = c.perturbation(corrupted, generator)
            else:
                family: Family = getattr(c, step)
                corrupted, source, now = family(corrupted, generator)
                touched = touched.gather(1, source)  # (B, N)
                if c.target == "partners":
                    clean = gather(clean, source)  # (B, N, 3)
            touched = touched | now
        if c.normalize_after:
            corrupted, clean = authors_normalize(corrupted), authors_normalize(clean)
        return Corrupted(corrupted, clean, touched)

    def forward(
        self, points: Tensor, generator: torch.Generator, share: slice = slice(None)
    ) -> dict[str, Tensor]:
        """Return the losses of a batch of clouds ``(B, M, 3)``; ``"total"`` is minimised.

        Args:
            share: the clouds of this process, where several processes share a batch. Each process
                corrupts the whole batch, so that the noise does not depend on their number.
        """
        return self.model.losses(*(part[share] for part in self.corrupt(points, generator)))
