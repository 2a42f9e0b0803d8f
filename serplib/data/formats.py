"""Readers of files of points; `serplib.data.meshes` reads meshes (paper, section 4.1).

Each reader names what is wrong with a bad file in a ``DataError``. None runs code from a file or
follows a link out of it, and a declared size is compared with a limit before memory is allocated.
"""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from serplib.data.common import DataError

MAX_BYTES = 1 << 31  # of one array that a file declares: 2 GiB
MAX_TEXT = 1 << 29  # of one text file, which takes several times its size to parse
MAX_RATIO = 64  # largest ratio of the size that an h5 declares to its own
MAX_VALUE = 1e18  # squares of larger coordinates, and of their inverses, leave float32

Read = Callable[[int], tuple[object, np.ndarray]]  # shape i: its origin, its points (N, 3) float64


def unreadable(path: str | Path, error: Exception, what: str) -> DataError:
    """Return the DataError for a file that could not be read, with advice that fits its cause."""
    reason = str(error)[:120]
    if "unable to lock file" in str(error):
        return DataError(
            f"{path}: it is locked ({reason}). Close the program that writes it; on a file system "
            "without locks, such as NFS, start Python with HDF5_USE_FILE_LOCKING=FALSE",
            advised=True,
        )
    if isinstance(error, PermissionError):
        return DataError(f"{path}: no permission to read it; ask its owner, or chmod it", True)
    return DataError(f"{path}: {what} ({reason})")


@contextmanager
def reading(path: Path, what: str, limit: int | None = None) -> Iterator[None]:
    """Turn whatever goes wrong within into the DataError of a file, ``what`` it is not.

    Raises:
        DataError: also where there is no such file, or one of more than ``limit`` bytes.
    """
    try:  # a bad pickle, h5 or header of numpy fails in every way there is
        if not path.is_file():
            raise DataError(f"{path}: file not found")
        if limit is not None and (size := path.stat().st_size) > limit:
            raise DataError(f"{path}: {size:,} bytes, more than the {limit:,} that are read")
        yield
    except DataError:
        raise
    except Exception as error:
        raise unreadable(path, error, what) from None


def check_points(points: np.ndarray, source: object) -> np.ndarray:
    """Return the cloud ``(N, 3)`` as float64 if its points can be scaled to the unit sphere.

    Raises:
        DataError: no points; NaN, Inf or a coordinate past 1e18; all points equal.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # named below instead
        points = points.astype(np.float64, copy=False)
    if len(points) == 0:
        raise DataError(f"{source}: holds no points")
    if not (np.abs(points) < MAX_VALUE).all():  # false for NaN too
        raise DataError(f"{source}: NaN, Inf or a coordinate past {MAX_VALUE:g} among its points")
    extent = np.ptp(points, axis=0).max()
    if len(points) > 1 and extent <= max(1e-6 * float(np.abs(points).max()), 1 / MAX_VALUE):
        raise DataError(f"{source}: all {len(points)} points are equal, so the cloud has no size")
    return points


def read_text(path: Path) -> str:
    """Read a text file of at most 512 MiB as Latin-1, in which no byte is an error.

    Raises:
        DataError: there is no such file, or it is empty or larger.
    """
    with reading(path, "cannot be read", MAX_TEXT):
        text = path.read_text("latin-1")
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    return text.removeprefix("\xef\xbb\xbf")  # the mark that some editors put before UTF-8


def read_list(path: Path, entry: str, what: str) -> list[str]:
    """Read the base names that a list file gives, one a line.

    Args:
        path: the list. A line may begin with any folder; only its base name counts.
        entry: regular expression that a whole base name matches.
        what: the same in words, for messages.

    Raises:
        DataError: there is no entry, or one contains ``..``, does not match or comes twice.
    """
    names: dict[str, None] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        parts = re.split(r"[/\\]", line.strip())
        if parts == [""]:
            continue
        where = f"{path}, line {number}: {line.strip()[:80]!r}"
        if ".." in parts:
            raise DataError(f"{where} climbs out of the folder; expected {what}")
        if not re.fullmatch(entry, parts[-1], re.ASCII):
            raise DataError(f"{where}; expected {what}")
        if parts[-1] in names:
            raise DataError(f"{where} is listed twice; expected each file once")
        names[parts[-1]] = None
    return list(names)


def _xyz(values: np.ndarray, source: Path) -> np.ndarray:
    """Return the points ``(N, 3)`` float64 of an array ``(N, 3)``, or ``(N, 6)`` with normals."""
    if values.ndim != 2 or values.shape[1] not in (3, 6) or values.dtype.kind != "f":
        raise DataError(
            f"{source}: {values.dtype} of shape {values.shape}; "
            "expected floats (N, 3), or (N, 6) with normals"
        )
    return check_points(values[:, :3], source)  # (N, 3)


def read_xyz(path: Path) -> np.ndarray:
    """Read a comma-separated text file, a point a line: x, y, z and perhaps a normal.

    Returns:
        ``(N, 3)`` float64, as in the file.
    """
    text = re.sub(r"#[^\n]*", "", read_text(path))
    if not text.strip():
        raise DataError(f"{path}: holds no points")
    with reading(path, "not comma-separated numbers"):
        values = np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2, comments=None)
    return _xyz(values, path)


def open_npy(path: Path) -> np.ndarray:
    """Map the array of a ``.npy`` file, of any shape and any type but objects."""
    with reading(path, "not a plain .npy array"):
        # Mapped, so a header that promises more than the file holds costs nothing.
        values = np.lib.format.open_memmap(path, mode="r")
    if values.nbytes > MAX_BYTES:
        raise DataError(f"{path}: declares {values.nbytes:,} bytes, more than {MAX_BYTES:,}")
    return values


def read_npy(path: Path) -> np.ndarray:
    """Read a ``.npy`` file, ``(N, 3)`` or ``(N, 6)`` of any float type; pickles are refused.

    Returns:
        ``(N, 3)`` float64, as in the file.
    """
    return _xyz(open_npy(path), path)


def h5_array(file: h5py.File, key: str, path: Path) -> h5py.Dataset:
    """Return an array of an h5 file, unread, after a check of its size and place."""
    data = file[key] if isinstance(file.get(key, getlink=True), h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        raise DataError(f"{path}: holds no array {key!r}; it has {sorted(file)[:8]}")
    if data.external or data.is_virtual:
        raise DataError(f"{path}: {key!r} is kept in another file, which is not followed")
    declared, size = data.size * data.dtype.itemsize, path.stat().st_size
    if declared > min(MAX_BYTES, MAX_RATIO * max(size, 1 << 20)):
        raise DataError(
            f"{path}: {key!r} declares shape {data.shape} of {data.dtype}, {declared:,} bytes, "
            f"in a file of {size:,}: damaged, or not a set of clouds"
        )
    return data


def read_h5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an h5 file with ``data`` (S, N, 3) and ``label`` (S, 1) or (S,).

    Returns:
        ``(S, N, 3)`` in the file's float type, its values not checked yet; ``(S,)`` int64.
    """
    with reading(path, "not a readable h5 file"), h5py.File(path, "r") as file:
        data, label = h5_array(file, "data", path), h5_array(file, "label", path)
        if data.dtype.kind != "f" or data.ndim != 3 or data.shape[2] != 3:
            raise DataError(
                f"{path}: 'data' is {data.dtype} {data.shape}; expected floats (S, N, 3)"
            )
        shapes = (len(data), 1), (len(data),)
        if label.dtype.kind not in "iu" or label.shape not in shapes:
            raise DataError(
                f"{path}: 'label' is {label.dtype} {label.shape}; expected whole numbers "
                f"{shapes[0]} or {shapes[1]}, one for each cloud"
            )
        if len(data) == 0:
            raise DataError(f"{path}: holds no clouds")
        return data[:], label[:].reshape(-1).astype(np.int64)  # (S, N, 3), (S,)


def check_labels(labels: np.ndarray, num_classes: int, source: object) -> None:
    """Raise a DataError where labels are not from 0 to ``num_classes - 1``."""
    low, high = labels.min(), labels.max()
    if low < 0 or high >= num_classes:
        raise DataError(f"{source}: labels {low} to {high}; expected 0 to {num_classes - 1}")


def check_names(file: Path, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Compare labels with the names that some copies list beside an h5 file, shape by shape.

    ``train0_id2name.json`` lists classes, ``ply_data_train_0_id2file.json`` files in their folders.

    Raises:
        DataError: a list has another length, or names another class for a shape.
    """
    stems = (file.stem, re.sub(r"(\d+)$", r"_\1", file.stem))
    for stem, kind in itertools.product(stems, ("id2name", "id2file")):
        path = file.with_name(f"{stem}_{kind}.json")
        if not path.is_file():
            continue
        try:
            listed = [re.split(r"[/\\]", name)[0] for name in json.loads(read_text(path))]
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: not a list of names ({str(error)[:120]})") from None
        if len(listed) != len(labels):
            raise DataError(f"{path}: {len(listed):,} names, but {file.name} has {len(labels):,}")
        for row, (name, label) in enumerate(zip(listed, labels.tolist())):
            if name in classes and name != classes[label]:
                raise DataError(
                    f"{path}: shape {row} is {name!r}, but its label {label} is {classes[label]!r}"
                )


def read_h5_files(files: Sequence[Path], classes: Sequence[str]) -> tuple[Read, Tensor]:
    """Read the h5 files of a split, one after the other.

    Args:
        files: in the order of the shapes.
        classes: names, in the order of the files' labels.

    Returns:
        The function that reads a shape, and the labels ``(S,)`` int64.
    """
    rows, labels = [], []
    for file in files:
        data, label = read_h5(file)  # (S', N, 3), (S',)
        check_labels(label, len(classes), file)
        check_names(file, label, classes)
        rows += [(f"{file}, shape {row}", cloud) for row, cloud in enumerate(data)]
        labels.append(label)
    return in_turn(rows), torch.from_numpy(np.concatenate(labels))  # (S,)


def one_each(files: Sequence[Path], reader: Callable[[Path], np.ndarray]) -> Read:
    """Return the function that reads shape i from file i."""
    return lambda i: (files[i], reader(files[i]))


def in_turn(rows: Sequence[tuple[str, np.ndarray]]) -> Read:
    """Return the function that checks and returns row i of ``rows``, an origin and its points."""
    return lambda i: (rows[i][0], check_points(rows[i][1], rows[i][0]))
