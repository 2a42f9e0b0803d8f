"""What every data set gives: clouds of points on the unit sphere (paper, section 4.1)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor


class DataError(Exception):
    """A data set is missing or damaged; the message names the file, the fault and the remedy."""


@dataclass(frozen=True)
class Clouds:
    """A split of a data set, held in memory.

    Attributes:
        name: the data set, as ``serp data list`` prints it.
        split: ``"train"`` or ``"test"``.
        points: ``(S, N, 3)`` float32, each cloud centred and scaled to the unit sphere.
        labels: ``(S,)`` int64 indices into ``classes``, or None for unlabelled clouds.
        classes: names of the categories, in label order.
        checksum: sha256 (hex) of what the clouds were read or made from.
    """

    name: str
    split: str
    points: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    checksum: str

    def __len__(self) -> int:
        return len(self.points)

    def subset(self, index: Tensor) -> Clouds:
        """The clouds at ``index`` (int64 indices or a boolean mask), in that order."""
        labels = None if self.labels is None else self.labels[index]
        return replace(self, points=self.points[index], labels=labels)


def normalize(points: Tensor) -> Tensor:
    """Centre each cloud on its mean and scale its farthest point to radius 1.

    Args:
        points: ``(..., N, 3)``, any float type. A cloud whose points are all equal becomes zeros.
    """
    points = points - points.mean(-2, keepdim=True)  # (..., N, 3)
    radius = points.norm(dim=-1).amax(-1)[..., None, None]  # (..., 1, 1)
    return points / radius.clamp_min(torch.finfo(points.dtype).tiny)


DATASETS = Path(__file__).parents[2] / "datasets"  # where data lies unless SERP_DATA says else


def data_root(*names: str) -> Path:
    """The folder of a data set: the first of ``names`` in ``$SERP_DATA``, else in ``datasets/``.

    Where none exists it is ``datasets/`` and the first name, for a message to point at.
    """
    below = os.environ.get("SERP_DATA")
    places = [Path(below).expanduser(), DATASETS] if below else [DATASETS]
    folders = [place / name for place in places for name in names]
    return next((folder for folder in folders if folder.is_dir()), DATASETS / names[0])


def sha256(paths: list[Path]) -> str:
    """sha256 (hex) of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
