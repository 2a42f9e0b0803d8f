"""From clouds of any size to a split of equal ones (paper, section 4.1).

Every reader of a real data set ends here: a subset is chosen, each cloud is centred, scaled and
thinned by farthest points, and what took minutes to make is kept on disk for the next time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from serplib.data.common import DataError, normalize
from serplib.geometry import farthest_point_sample, gather

BATCH = 64  # clouds thinned at once: at 8,192 points their distances still fit a CPU's cache
VERSION = 1  # of what is cached: raise it when the same files give other clouds


@contextmanager
def remedy(advice: str) -> Iterator[None]:
    """Give each DataError from within its last words: what to do about it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{error}. {advice}") from None


def choose(labels: Tensor, num_shapes: int | None, seed: int) -> Tensor:
    """A subset in which every class keeps its share, and at least one shape where that many fit.

    The same seed gives nested subsets: the 100 shapes are among the 200.

    Args:
        labels: ``(S,)`` int64. num_shapes: how many to take; None takes all.
        seed: of the draw.

    Returns:
        ``(num_shapes,)`` int64 indices, increasing.

    Raises:
        DataError: more shapes asked for than there are.
    """
    if num_shapes is None:
        return torch.arange(len(labels))
    if num_shapes > len(labels):
        raise DataError(f"{num_shapes:,} shapes asked for, but the split has {len(labels):,}")
    random = np.random.default_rng(seed)
    kinds = labels.numpy()  # (S,)
    place = np.empty(len(kinds))  # (S,) how soon a shape is taken
    for kind in np.unique(kinds):
        (members,) = np.nonzero(kinds == kind)
        share = (np.arange(len(members)) + 0.5) / len(members)  # of the class, once it is taken
        share[0] = 0  # one of each class comes first
        place[random.permutation(members)] = share
    order = np.lexsort((random.random(len(kinds)), place))  # (S,), equal places shuffled
    return torch.from_numpy(np.sort(order[:num_shapes]))


def fit(clouds: Iterable[tuple[object, np.ndarray]], total: int, num_points: int) -> Tensor:
    """Clouds of ``num_points`` points on the unit sphere.

    A larger cloud keeps its farthest points, picked from its first one on. Distances are taken
    after scaling, so the millimetres or metres of a file do not matter.

    Args:
        clouds: pairs of where a cloud came from and its points, ``(N, 3)`` float64, N may vary.
        total: S, how many there are. num_points: of each.

    Returns:
        ``(S, num_points, 3)`` float32, each centred on its mean, its farthest point at radius 1.

    Raises:
        DataError: a cloud has fewer than ``num_points`` points.
    """
    out = torch.empty(total, num_points, 3)  # (S, num_points, 3)
    done = 0
    for size, same in groupby(clouds, key=lambda pair: len(pair[1])):
        while batch := list(islice(same, BATCH)):
            if size < num_points:
                raise DataError(
                    f"{batch[0][0]}: {size:,} points, fewer than num_points={num_points:,}"
                )
            points = normalize(torch.from_numpy(np.stack([cloud for _, cloud in batch])))
            if size > num_points:
                index = farthest_point_sample(points.float(), num_points)  # (B, num_points)
                points = normalize(gather(points, index))  # (B, num_points, 3)
            out[done : done + len(batch)] = points
            done += len(batch)
    return out


def cached(
    folder: Path,
    files: Sequence[Path],
    detail: str,
    make: Callable[[], tuple[Tensor, str]],
    fresh: bool = False,
) -> tuple[Tensor, str]:
    """What ``make`` returns, from the file where an earlier call kept it when nothing changed.

    The file's name is a digest of each source's path, size and time of change and of ``detail``,
    so a changed source is read again. It is written whole or not at all, a damaged one is made
    again, and beside data marked read-only nothing is written. Deleting the folder is safe.

    Args:
        folder: ``cache`` beside the data. files: the sources.
        detail: whatever else the clouds depend on.
        make: gives clouds ``(S, N, 3)`` float32 and the checksum of their sources.
        fresh: read the sources again in any case, and keep that.
    """
    try:
        stats = [
            (file.relative_to(folder.parent).as_posix(), (s := file.stat()).st_size, s.st_mtime_ns)
            for file in files
        ]
    except OSError as error:
        raise DataError(f"{error.filename}: file not found or not readable") from None
    key = hashlib.sha256(repr((VERSION, detail, stats)).encode()).hexdigest()
    path = folder / f"{key[:24]}.safetensors"
    if not fresh:
        try:
            with safe_open(path, "pt") as file:
                points, checksum = file.get_tensor("points"), file.metadata()["checksum"]
            if points.dtype == torch.float32 and points.isfinite().all():
                return points, checksum
        except (OSError, SafetensorError, KeyError, TypeError):
            pass  # absent or damaged: made again below
    points, checksum = make()
    try:
        # The mode is asked, not the attempt: an administrator may write where nobody should.
        if not folder.parent.stat().st_mode & 0o222:
            return points, checksum
        folder.mkdir(exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        save_file({"points": points}, part, metadata={"checksum": checksum})
        part.replace(path)
    except (OSError, SafetensorError):
        pass  # no right to write here, or a full disk: the clouds are there all the same
    return points, checksum
