"""From the files of a data set to clouds of equal size (paper, section 4.1).

The reader of a real data set returns a `Source`. Here a subset of it is chosen, each cloud is
centred, scaled and thinned by farthest point sampling, and the result is cached.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from serplib.data.common import Clouds, DataError, normalize, sha256
from serplib.data.formats import Read, unreadable
from serplib.geometry import farthest_point_sample, gather

BATCH = 64  # clouds thinned at once: at 8,192 points their distances still fit a CPU's cache
VERSION = 1  # of what is cached: raise it when the same files give other clouds


@dataclass(frozen=True)
class Source:
    """A split of a data set as it lies on disk, before its clouds are made.

    Attributes:
        name: the data set.
        layout: of its files, such as ``"h5"`` or ``"off"``.
        root: the folder of the set.
        classes: names in label order.
        labels: ``(S,)`` int64; all 0 where there are no classes.
        files: what the clouds are read from: one file a shape, or a few that hold them all.
        read: returns the origin of shape i, for messages, and its points.
        identity: what decides the clouds beside the files and the indices, for the cache.
        own: whether all bad shapes are named together, as in a reader's own set.
    """

    name: str
    layout: str
    root: Path
    classes: tuple[str, ...]
    labels: Tensor
    files: list[Path]
    read: Read
    identity: str = ""
    own: bool = False


@contextmanager
def remedy(name: str) -> Iterator[None]:
    """Add to each DataError from within what to do about it, unless it already says so.

    Args:
        name: the data set, as ``serp data check`` takes it.
    """
    try:
        yield
    except PermissionError as error:
        raise unreadable(error.filename, error, "cannot be read") from None
    except DataError as error:
        if error.advised:
            raise
        raise DataError(
            f"{error}. Unpack the download again, or point SERP_DATA at another copy, and run "
            f"'serp data check {name}'",
            advised=True,
        ) from None


def prepare_clouds(
    source: Source, split: str, num_shapes: int | None, num_points: int, seed: int, fresh=False
) -> Clouds:
    """Read a split, or a subset of it, as clouds of equal size on the unit sphere.

    Arguments as for `serplib.data.load`; ``fresh`` ignores the cache and writes it anew.

    Raises:
        DataError: a file is damaged, or a cloud has fewer points. Of an own set all are named.
    """
    index = choose(source.labels, num_shapes, seed)  # (S,)
    packed = len(source.files) < len(source.labels)
    files = source.files if packed else [source.files[i] for i in index]

    def make() -> tuple[Tensor, str]:
        clouds = _read_all(source, index.tolist(), num_points)
        return fit(clouds, len(index), num_points), sha256(files)

    if source.layout == "h5" and len(source.read(int(index[0]))[1]) == num_points:
        points, checksum = make()  # reading the cache would take as long
    else:
        detail = f"{source.layout} {num_points} {index.tolist() if packed else ''}{source.identity}"
        points, checksum = cached(source.root / "cache", files, detail, make, fresh)
    labels = source.labels[index] if source.classes else None
    return Clouds(source.name, split, points, labels, source.classes, checksum)


def _read_all(
    source: Source, index: list[int], num_points: int
) -> Iterator[tuple[object, np.ndarray]]:
    """Read the shapes in ``index``, each with its origin; raise at the first bad one, or the last.

    Raises:
        DataError: a shape is damaged or has fewer points.
    """
    faults = []
    for i in index:
        try:
            origin, points = source.read(i)  # (N, 3)
            if (size := len(points)) < num_points:
                raise DataError(f"{origin}: {size:,} points, fewer than num_points={num_points:,}")
        except DataError as error:
            if not source.own:
                raise
            faults.append(str(error))
        else:
            yield origin, points
    if faults:
        raise faulty(source.name, faults)


def faulty(name: str, faults: list[str]) -> DataError:
    """Return the error that names all bad shapes of an own set: one line, or a line each."""
    remedy = f"or go on without: 'serp data check {name} --skip-bad'"
    if len(faults) == 1:
        message = f"{name}: 1 bad shape, {faults[0]}; mend or delete it, {remedy}"
    else:
        head = f"{name}: {len(faults):,} bad shapes"
        message = "\n".join([head, *faults, f"Mend or delete them, {remedy}"])
    return DataError(message, advised=True)


def repeated_points(clouds: Clouds) -> str | None:
    """Say how many clouds have fewer distinct points than points; None if none has.

    A cloud is thinned to distinct points as long as it has them, so these had too few on disk.
    """
    size, distinct = clouds.points.shape[1], []
    for points in clouds.points.split(BATCH):
        x, y, z = (points + 0.0).view(torch.int32).long().unbind(-1)  # (B, N) each: the bits
        key = (x * 0x1E3779B97F4A7C15) ^ (y * 0x42B2AE3D27D4EB4F + z * 0x165667B19E3779F9)
        distinct.append((key.sort(1)[0].diff(dim=1) != 0).sum(1) + 1)
    count = torch.cat(distinct)  # (S,)
    if (count == size).all():
        return None
    return (
        f"{clouds.name}, {clouds.split}: {int((count < size).sum()):,} of {len(clouds):,} clouds "
        f"have fewer than {size:,} distinct points (fewest: {count.min():,}), so they repeat some"
    )


def choose(labels: Tensor, num_shapes: int | None, seed: int) -> Tensor:
    """Choose a subset in which every class keeps its share, and at least one shape if they fit.

    The same seed gives nested subsets: the 100 shapes are among the 200.

    Args:
        labels: ``(S,)`` int64.
        num_shapes: how many to take; None takes all.
        seed: of the draw.

    Returns:
        ``(num_shapes,)`` int64 indices, increasing.

    Raises:
        DataError: there are fewer shapes.
    """
    if num_shapes is None:
        return torch.arange(len(labels))
    if num_shapes > len(labels):
        message = f"{num_shapes:,} shapes asked for, but the split has {len(labels):,}"
        raise DataError(message, advised=True)
    random = np.random.default_rng(seed)
    kinds = labels.numpy()  # (S,)
    place = np.empty(len(kinds))  # (S,) shapes are taken in increasing order of it
    for kind in np.unique(kinds):
        (members,) = np.nonzero(kinds == kind)
        share = (np.arange(len(members)) + 0.5) / len(members)  # of the class, once it is taken
        share[0] = 0  # one of each class comes first
        place[random.permutation(members)] = share
    order = np.lexsort((random.random(len(kinds)), place))  # (S,), equal places shuffled
    return torch.from_numpy(np.sort(order[:num_shapes]))


def fit(clouds: Iterable[tuple[object, np.ndarray]], total: int, num_points: int) -> Tensor:
    """Scale clouds to the unit sphere and thin them to ``num_points`` points.

    A larger cloud keeps its farthest points, picked from its first one on, with distances taken
    after scaling: the unit of a file does not matter.

    Args:
        clouds: pairs of the origin of a cloud and its points, ``(N, 3)`` float64; N may vary.
        total: S, how many there are.
        num_points: of each, at most N.

    Returns:
        ``(S, num_points, 3)`` float32, each centred on its mean, its farthest point at radius 1.
    """
    out = torch.empty(total, num_points, 3)  # (S, num_points, 3)
    done = 0
    for size, same in groupby(clouds, key=lambda pair: len(pair[1])):
        while batch := list(islice(same, BATCH)):
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
    """Return what ``make`` returns, from the cache where the sources have not changed.

    The file's name is a digest of ``detail`` and of each source's path, size and time of change. It
    is written whole or not at all, and a damaged one is made again. Where it cannot be written, or
    the data is marked read-only, a warning says so. The folder may be deleted at any time.

    Args:
        folder: ``cache`` beside the data.
        files: the sources.
        detail: whatever else the clouds depend on.
        make: returns clouds ``(S, N, 3)`` float32 and the checksum of their sources.
        fresh: make them again in any case.
    """
    home, stats = folder.parent, []
    try:
        for file in files:
            stat = file.stat()
            stats.append((file.relative_to(home).as_posix(), stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        raise unreadable(error.filename, error, "file not found") from None
    key = hashlib.sha256(repr((VERSION, detail, stats)).encode()).hexdigest()
    path = folder / f"{key[:24]}.safetensors"
    with suppress(OSError, SafetensorError, KeyError, TypeError):  # absent or damaged: made again
        if not fresh:
            with safe_open(path, "pt") as kept:
                points, checksum = kept.get_tensor("points"), kept.metadata()["checksum"]
            if points.dtype == torch.float32 and points.isfinite().all():
                return points, checksum
    points, checksum = make()
    part = path.with_suffix(f".{os.getpid()}")
    try:
        # The mode decides, not the attempt: an administrator may write where nobody should.
        if not home.stat().st_mode & 0o222:
            raise PermissionError(f"{home} is read-only")
        folder.mkdir(exist_ok=True)
        save_file({"points": points}, part, metadata={"checksum": checksum})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        warnings.warn(
            f"clouds are not cached ({error}) and will be prepared again at each load: make "
            f"{home} writable and free some space, or link its files into your own folder",
            stacklevel=3,
        )
    return points, checksum
