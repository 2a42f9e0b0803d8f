"""Pickled data sets of Point-BERT (``.dat``), opened without running anything in them.

A pickle is a little program that may call any function. The one that reads here knows five names:
those from which numpy rebuilds an array. Whatever else a file asks for ends in a ``DataError``.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from serplib.data.common import DataError

MAX_FILE = 1 << 33  # bytes: ModelNet40 in 8,192 points with normals is 2 GB


def _empty_array(kind: object, shape: object, code: object) -> np.ndarray:
    """What numpy's pickles call first; the bytes follow, and must fit the shape they declare."""
    if kind is not np.ndarray or tuple(shape) != (0,):
        raise pickle.UnpicklingError("an array that is not rebuilt as numpy does it")
    return np.ndarray((0,), np.int8)


def _array(buffer: bytes, kind: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """The same in protocol 5; the bytes must fill the shape."""
    return np.frombuffer(buffer, kind).reshape(shape, order=order)


class _Arrays(pickle.Unpickler):
    """Lists, tuples, numbers, bytes and numpy arrays; nothing else has a name here."""

    _KNOWN = {  # noqa: RUF012 - read only
        "_reconstruct": _empty_array,
        "_frombuffer": _array,
        "ndarray": np.ndarray,
        "dtype": np.dtype,
        "encode": lambda text, code: text.encode("latin-1"),  # bytes in pickles of Python 2
    }
    _HOMES = ("numpy", "_codecs", "numpy.core.multiarray", "numpy.core.numeric",
              "numpy._core.multiarray", "numpy._core.numeric")  # fmt: skip

    def find_class(self, module: str, name: str) -> object:
        if module in self._HOMES and name in self._KNOWN:
            return self._KNOWN[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not run")

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError("it refers to something outside the file")


def read_dat(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Clouds and labels of a file of Point-BERT: a pickled pair of lists.

    Returns:
        A list of S arrays ``(N, 3)`` or ``(N, 6)`` as in the file, values not checked yet, and
        labels ``(S,)`` int64.

    Raises:
        DataError: no such file, or it holds (or does) anything else.
    """
    if not path.is_file():
        raise DataError(f"{path}: file not found")
    if path.stat().st_size > MAX_FILE:
        raise DataError(f"{path}: {path.stat().st_size:,} bytes, more than the {MAX_FILE:,} read")
    try:
        with open(path, "rb") as file:
            content = _Arrays(file).load()
        points, labels = content
        if not all(isinstance(label, int | np.ndarray) for label in labels):
            raise ValueError("a label is no number")  # nested lists could grow without end
        labels = np.array([label if isinstance(label, int) else label.item() for label in labels])
    except Exception as error:  # a bad pickle fails in every way there is
        raise DataError(f"{path}: not a pickled pair of lists ({str(error)[:120]})") from None
    if not isinstance(points, list) or len(points) != len(labels) or not len(points):
        raise DataError(f"{path}: expected a list of clouds and as many labels")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels are {labels.dtype}; expected whole numbers")
    for row, cloud in enumerate(points):
        if not isinstance(cloud, np.ndarray) or cloud.ndim != 2 or cloud.dtype.kind != "f":
            raise DataError(f"{path}, shape {row}: expected an array of floats (N, 3)")
    return points, labels.astype(np.int64)
