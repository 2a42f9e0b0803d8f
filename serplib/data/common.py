"""Clouds of points, and the folders that data sets are looked for in (paper, section 4.1)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor


class DataError(Exception):
    """A data set is missing or damaged; the message names the file, the fault and the remedy.

    Attributes:
        advised: whether the message already says what to do.
    """

    def __init__(self, message: str, advised: bool = False) -> None:
        super().__init__(message)
        self.advised = advised


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
        """Return the clouds at ``index`` (int64 indices or a boolean mask), in that order."""
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


DATASETS = Path(__file__).parents[2] / "datasets"  # searched after the folder in SERP_DATA


def absolute_path(path: str | Path) -> Path:
    """Return a path given by the user as an absolute one, with ``~`` expanded."""
    return Path(os.path.expanduser(path)).absolute()


def data_folder() -> Path | None:
    """Return the folder named by ``SERP_DATA``, or None where that is not set.

    The variable itself is made absolute, so that the same folder is found after a change of the
    working directory, and by child processes that start in another one. A relative path counts
    from the working directory, or else from the project's folder: a notebook's kernel starts in
    ``notebooks/``, not where JupyterLab was started.
    """
    given = os.environ.get("SERP_DATA")
    if not given:
        return None
    folder = absolute_path(given)
    in_project = DATASETS.parent / os.path.expanduser(given)
    if not os.path.isdir(folder) and os.path.isdir(in_project):
        folder = in_project.resolve()
    os.environ["SERP_DATA"] = str(folder)
    return folder


def data_places() -> list[Path]:
    """Return the folders that are searched: the one in ``SERP_DATA`` first, then ``datasets/``."""
    given = data_folder()
    return [DATASETS] if given is None else [given, DATASETS]


def find_folder(title: str, names: Sequence[str], check: str) -> Path:
    """Find the folder of a data set, in ``SERP_DATA`` first and then in ``datasets/``.

    Args:
        title: the data set, for the message.
        names: folder names to look for; the first that exists is taken.
        check: the name that ``serp data check`` takes.

    Raises:
        DataError: none of them exists; the message says where it was looked for.
    """
    places, given = data_places(), data_folder()
    for place in places:
        for name in names:
            if os.path.isdir(place / name):  # Path.is_dir() raises where it may not look
                return place / name
    searched = " or ".join(str(place) for place in places)
    wrong = f" SERP_DATA={given} is not a folder." if given and not os.path.isdir(given) else ""
    raise DataError(
        f"{title} not found: no folder in {searched} is named {', '.join(names)}.{wrong} Put the "
        "set there as datasets/README.md shows, or set SERP_DATA to the folder that holds it, and "
        f"run 'serp data check {check}'",
        advised=True,
    )


def sha256(paths: Iterable[Path]) -> str:
    """Return the sha256 (hex) of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def digest(tensor: Tensor) -> str:
    """Return the start of the sha256 of a tensor: type, shape and bytes."""
    sha = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    sha.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]
