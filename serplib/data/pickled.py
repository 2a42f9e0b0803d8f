"""Pickled data sets of Point-BERT (``.dat``), opened without running anything in them.

A pickle may call any function. The unpickler here knows the five names from which NumPy rebuilds an
array; a file that asks for anything else ends in a ``DataError``.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np

from serplib.data.common import DataError
from serplib.data.formats import reading

MAX_FILE = 1 << 33  # bytes: ModelNet40 in 8,192 points with normals is 2 GB


def _empty_array(kind: object, shape: tuple[int, ...], code: object) -> np.ndarray:
    """Stand in for ``_reconstruct``; the bytes follow, and must fit the shape they declare."""
    if kind is not np.ndarray or tuple(shape) != (0,):
        raise pickle.UnpicklingError("an array that is not rebuilt as numpy does it")
    return np.ndarray((0,), np.int8)


def _array(buffer: bytes, kind: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """Stand in for ``_frombuffer`` of protocol 5; the bytes must fill the shape."""
    return np.frombuffer(buffer, kind).reshape(shape, order="F" if order == "F" else "C")


_KNOWN = {
    "_reconstruct": _empty_array,
    "_frombuffer": _array,
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "encode": lambda text, code: text.encode("latin-1"),  # bytes in pickles of Python 2
}
_HOME = re.compile(r"numpy|_codecs|numpy\._?core\.(multiarray|numeric)")


class _Arrays(pickle.Unpickler):
    """An unpickler of lists, tuples, numbers, bytes and NumPy arrays."""

    def find_class(self, module: str, name: str) -> object:
        if _HOME.fullmatch(module) and name in _KNOWN:
            return _KNOWN[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not run")


def read_dat(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Read a file of Point-BERT, a pickled pair of lists: clouds and labels.

    Returns:
        A list of S arrays ``(N, 3)`` or ``(N, 6)`` as in the file, values not checked yet, and
        labels ``(S,)`` int64.
    """
    with reading(path, "not a pickled pair of lists", MAX_FILE), open(path, "rb") as file:
        points, listed = _Arrays(file).load()
        if not all(isinstance(label, int | np.ndarray) for label in listed):
            raise ValueError("a label is no number")  # nested lists could grow without end
        labels = np.array([label if isinstance(label, int) else label.item() for label in listed])
    if not isinstance(points, list) or len(points) != len(labels) or not len(points):
        raise DataError(f"{path}: expected a list of clouds and as many labels")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels are {labels.dtype}; expected whole numbers")
    for row, cloud in enumerate(points):
        if not isinstance(cloud, np.ndarray) or cloud.ndim != 2 or cloud.dtype.kind != "f":
            raise DataError(f"{path}, shape {row}: expected an array of floats (N, 3)")
    return points, labels.astype(np.int64)
