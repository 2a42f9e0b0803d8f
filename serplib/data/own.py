"""A reader's own shapes: a folder of meshes or clouds is a data set (see ``datasets/README.md``).

``<name>/<class>/{train,test}/*`` is read as it stands. Without ``train`` and ``test`` a fifth of
each class is the test split, chosen by a hash of the file names. Without classes it is unlabelled.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.lib import npyio

from serplib.data import modelnet, modelnet40_c, scanobjectnn, shapenet
from serplib.data.common import DataError, data_places
from serplib.data.formats import (
    MAX_BYTES,
    MAX_TEXT,
    check_points,
    h5_array,
    open_npy,
    read_text,
    reading,
    unreadable,
)
from serplib.data.meshes import MESHES, read_mesh
from serplib.data.prepare import Source, faulty

CLOUDS = (".npy", ".npz", ".txt", ".xyz", ".pcd", ".h5")
SPLITS = ("train", "test")
TEST_SHARE = 0.2  # of each class, where the folder has no train and test
RUN_POINTS = 1024  # that runs of suites take of each cloud
MAX_COLUMNS = 16  # of a cloud: x, y, z, then anything
SKIPPED = "skipped.txt"  # the shapes to go on without, as `serp data check --skip-bad` found them
_NAMES = ("utf-8", "surrogateescape")  # how the names of files become bytes
_PUBLISHED = {
    *("objects", "procedural", *scanobjectnn.VARIANTS),
    *(*modelnet.FOLDERS, *shapenet.FOLDERS, *scanobjectnn.FOLDERS, *modelnet40_c.FOLDERS),
}


@dataclass(frozen=True)
class Shape:
    """A shape of an own set: where it lies, and where it belongs.

    Attributes:
        file: that holds it.
        row: its place in an array of several clouds ``(S, N, 3)``, otherwise None.
        origin: the file relative to the set's folder, with the row if there is one.
        kind: its class, empty without.
        split: ``"train"`` or ``"test"``.
    """

    file: Path
    row: int | None
    origin: str
    kind: str
    split: str

    def read(self) -> np.ndarray:
        """Read the points ``(N, 3)`` float64; DataError where the file is damaged."""
        if self.file.suffix.lower() in MESHES:
            return read_mesh(self.file)
        source = self.file if self.row is None else f"{self.file}, shape {self.row}"
        values = _array(self.file, self.row)
        if values.ndim != 2 or not 3 <= values.shape[1] <= MAX_COLUMNS:
            raise DataError(
                f"{source}: an array of shape {values.shape}; expected (N, 3), "
                f"or up to {MAX_COLUMNS} columns that begin with x, y, z"
            )
        if values.dtype.kind not in "fiu":
            raise DataError(f"{source}: holds {values.dtype}; expected numbers")
        return check_points(values[:, :3], source)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(*_NAMES)).hexdigest()


def find(name: str) -> Path | None:
    """Return the folder of an own set, in ``SERP_DATA`` first and then in ``datasets/``."""
    if name in _PUBLISHED or not re.fullmatch(r"\w[\w.-]*", name):
        return None
    return next((p / name for p in data_places() if os.path.isdir(p / name)), None)


def names() -> list[str]:
    """List the own sets: the folders that hold a readable file and are no published set.

    Raises:
        DataError: a folder of data sets may not be listed.
    """
    folders = set[str]()
    for place in data_places():
        if os.path.isdir(place):
            try:
                folders.update(os.listdir(place))
            except OSError as error:
                raise unreadable(place, error, "cannot be listed") from None
    return [name for name in sorted(folders) if (root := find(name)) and any(_files(root))]


def read(root: Path, split: str, name: str) -> Source:
    """List a split of an own set.

    Raises:
        DataError: classes or splits are given for some files only, or the split is empty.
    """
    known = list_shapes(root)
    shapes = [shape for shape in known if shape.split == split]
    if not shapes:
        raise DataError(
            f"{root}: has no shape for {split}; wanted shapes in folders train and test, or at "
            "least two of a class without these folders",
            advised=True,
        )
    classes = tuple(sorted({shape.kind for shape in known} - {""}))
    labels = torch.tensor([classes.index(s.kind) if classes else 0 for s in shapes])  # (S,)
    files = list(dict.fromkeys(shape.file for shape in shapes))
    identity = _digest("\n".join(shape.origin for shape in shapes))
    return Source(
        name, "own", root, classes, labels, files,
        lambda i: (shapes[i].origin, shapes[i].read()), identity, own=True,
    )  # fmt: skip


def limits(name: str) -> dict[str, Any] | None:
    """Return what a run can take of an own set; None where ``name`` is no own set.

    Returns:
        ``train`` and ``test``, numbers of shapes; ``classes``, names; ``labels_per_class``, the
        training shapes of the smallest class; ``identity``, a digest of names, sizes and times of
        change.

    Raises:
        DataError: classes or splits are given for some files only.
    """
    root = find(name)
    if root is None:
        return None
    shapes = list_shapes(root)
    train = Counter(shape.kind for shape in shapes if shape.split == "train")
    classes = sorted({shape.kind for shape in shapes} - {""})
    total = sum(train.values())
    per_class = min((train[kind] for kind in classes), default=0)
    stats = {shape.file: shape.file.stat() for shape in shapes}
    known = [(s.origin, stats[s.file].st_size, stats[s.file].st_mtime_ns) for s in shapes]
    return {
        "train": total,
        "test": len(shapes) - total,
        "classes": classes,
        "labels_per_class": per_class,
        "identity": _digest(repr(known)),
    }


def list_shapes(root: Path, skip: bool = True) -> list[Shape]:
    """List the shapes of both splits, in the order of their names.

    Args:
        root: folder of the set.
        skip: leave out what ``skipped.txt`` names.

    Raises:
        DataError: classes or splits are given for some files only.
    """
    found = []
    for file in sorted(_files(root)):
        *folders, _ = file.relative_to(root).parts
        split = next((folder.lower() for folder in folders if folder.lower() in SPLITS), "")
        kind = next((folder for folder in folders if folder.lower() not in SPLITS), "")
        origin = file.relative_to(root).as_posix()
        count = _count(file)
        for row in [None] if count is None else range(count):
            place = origin if row is None else f"{origin}, shape {row}"
            found.append(Shape(file, row, place, kind, split))
    for what, given in (
        ("a class", [bool(shape.kind) for shape in found]),
        ("train or test", [bool(shape.split) for shape in found]),
    ):
        if any(given) and not all(given):
            others = found[given.index(False)].origin
            raise DataError(
                f"{root}: {sum(given):,} shapes lie in a folder of {what}, but "
                f"{len(given) - sum(given):,} do not, such as {others}; expected all or none",
                advised=True,
            )
    if found and not found[0].split:
        found = _with_splits(found)
    left_out = skipped(root) if skip else set()
    return [shape for shape in found if shape.origin not in left_out]


def skipped(root: Path) -> set[str]:
    """Return the origins that ``skipped.txt`` names; empty where there is no such file."""
    path = root / SKIPPED
    if not os.path.isfile(path):
        return set()
    with reading(path, "cannot be read", MAX_TEXT):
        return set(path.read_bytes().decode(*_NAMES).splitlines()) - {""}


def _files(root: Path) -> Iterator[Path]:
    """Find the files that can be read, without hidden ones and the list of skipped ones."""
    for file in root.rglob("*"):
        hidden = any(part[0] == "." for part in file.relative_to(root).parts)
        if file.suffix.lower() in MESHES + CLOUDS and not hidden and file != root / SKIPPED:
            if os.path.isfile(file):
                yield file


def _with_splits(shapes: list[Shape]) -> list[Shape]:
    """Put a fifth of each class into ``test``, at least one of two: those of the smallest hash."""
    test = set()
    for kind in {shape.kind for shape in shapes}:
        origins = [shape.origin for shape in shapes if shape.kind == kind]
        origins.sort(key=lambda origin: _digest(f"split/{origin}"))
        count = max(round(TEST_SHARE * len(origins)), 1) if len(origins) > 1 else 0
        test.update(origins[:count])
    return [
        Shape(s.file, s.row, s.origin, s.kind, "test" if s.origin in test else "train")
        for s in shapes
    ]


# ---- files of clouds ----------------------------------------------------------------------------


def _count(file: Path) -> int | None:
    """Return how many clouds an array ``(S, N, 3)`` holds; None for a single cloud, or no array."""
    if file.suffix.lower() not in (".npy", ".h5"):
        return None
    try:
        if file.suffix.lower() == ".npy":
            shape = open_npy(file).shape
        else:
            with reading(file, "not a readable h5 file"), h5py.File(file, "r") as opened:
                shape = _only(opened, file).shape
    except DataError:  # named when it is read
        return None
    return shape[0] if len(shape) == 3 else None


def _array(path: Path, row: int | None) -> np.ndarray:
    """Read the array of a cloud; of several clouds only that in ``row``."""
    kind = path.suffix.lower()
    if kind == ".npy":
        values = open_npy(path)
        return np.array(values if row is None else values[row])
    if kind == ".h5":
        with reading(path, "not a readable h5 file"), h5py.File(path, "r") as file:
            return _only(file, path)[() if row is None else row]
    if kind == ".npz":
        # Not through numpy's load(), which also opens pickles; arrays of objects are refused here.
        with reading(path, "not a plain .npz file", MAX_TEXT), path.open("rb") as file:
            arrays = npyio.NpzFile(file)
            key, packed = _key(list(arrays), path), arrays.zip
            assert packed is not None  # until it is closed
            if (size := packed.getinfo(f"{key}.npy").file_size) > MAX_BYTES:
                raise DataError(f"{path}: {key!r} declares {size:,} bytes, more than {MAX_BYTES:,}")
            return arrays[key]
    if kind == ".pcd":
        return _read_pcd(path)
    text = re.sub(r"#[^\n]*", "", read_text(path)).replace(",", " ")
    if not text.strip():
        raise DataError(f"{path}: holds no points")
    with reading(path, "not lines of numbers"):
        return np.loadtxt(io.StringIO(text), ndmin=2, comments=None)


def _only(file: h5py.File, path: Path) -> h5py.Dataset:
    return h5_array(file, _key([key for key in file if key != "label"], path), path)


def _key(keys: list[str], path: Path) -> str:
    """Choose the array of points by its name, or because it is alone."""
    for key in ("points", "data", "pos", "xyz", *keys[: len(keys) == 1]):
        if key in keys:
            return key
    raise DataError(f"{path}: holds the arrays {keys[:8]}; expected one, or one named 'points'")


def _read_pcd(path: Path) -> np.ndarray:
    """Read the columns x, y, z of a PCD file, ASCII or binary: ``(N, 3)``."""
    with reading(path, "not a readable pcd file", MAX_TEXT):
        head, form, body = re.findall(
            rb"\A(.*?\n)DATA\s+(\w+)[^\n]*\n(.*)", path.read_bytes(), re.DOTALL
        )[0]
        lines = [line.split() for line in head.decode("ascii").split("\n") if line[:1] != "#"]
        fields = {words[0]: words[1:] for words in lines if words}
        columns = fields["FIELDS"]
        counts = [int(count) for count in fields.get("COUNT", ["1"] * len(columns))]
        if form == b"ascii":
            values = np.loadtxt(io.BytesIO(body), ndmin=2)
            places = np.cumsum([0, *counts])
            planes = [values[:, places[columns.index(axis)]] for axis in "xyz"]
        elif form == b"binary":
            types = [f"{count}{kind.lower()}{size}" for count, kind, size in
                     zip(counts, fields["TYPE"], fields["SIZE"])]  # fmt: skip
            row = np.dtype([(f"{i}", kind) for i, kind in enumerate(types)])
            table = np.frombuffer(body, row, int(fields["POINTS"][0]))
            planes = [table[f"{columns.index(axis)}"].reshape(-1) for axis in "xyz"]
        else:
            raise DataError(f"{path}: {form.decode()} data is not read; save it as ascii or binary")
        if len(planes[0]) != int(fields["POINTS"][0]):
            raise DataError(f"{path}: {len(planes[0])} points, but {fields['POINTS'][0]} announced")
        return np.stack(planes, 1)


# ---- what `serp data check` prints --------------------------------------------------------------


def facts(root: Path, name: str, skip_bad: bool = False) -> tuple[list[str], int]:
    """Read every shape and report what the files do not say: units, axes, duplicates.

    Args:
        root: folder of the set.
        name: of the set.
        skip_bad: write the bad shapes to ``skipped.txt``, which `load` leaves out from then on, and
            those with fewer points than runs of suites take, if others have enough.

    Returns:
        Facts, a line each, and the number of points to load: 1,024, or those of the smallest.

    Raises:
        DataError: bad shapes, all of them named, unless they are skipped; or none is left.
    """
    rows, bad = list[tuple[Shape, int, np.ndarray, bytes]](), []
    for shape in list_shapes(root, skip=not skip_bad):
        try:
            points = shape.read()  # (N, 3)
        except DataError as error:
            bad.append((shape.origin, str(error)))
            continue
        content = shape.file.read_bytes() if shape.row is None else points.tobytes()
        digest = hashlib.sha256(content).digest()
        rows.append((shape, len(points), np.ptp(points, axis=0), digest))
    if bad and not skip_bad:
        raise faulty(name, [message for _, message in bad])
    if skip_bad and any(size >= RUN_POINTS for _, size, *_ in rows):
        bad += [(shape.origin, f"{shape.origin}: {size:,} points, runs of suites take {RUN_POINTS}")
                for shape, size, *_ in rows if size < RUN_POINTS]  # fmt: skip
        rows = [row for row in rows if row[1] >= RUN_POINTS]
    if not rows:
        known = ", ".join((*MESHES, *CLOUDS))
        raise DataError(f"{root}: no shape can be read; wanted files of {known}", advised=True)
    shapes, sizes, sides, digests = zip(*rows)
    if skip_bad and (bad or (root / SKIPPED).is_file()):
        content = "".join(f"{origin}\n" for origin, _ in bad).encode(*_NAMES)
        try:
            (root / SKIPPED).write_bytes(content)
        except OSError as error:
            raise DataError(
                f"{root / SKIPPED}: cannot be written ({error}); make the folder writable, or move "
                "the bad files away",
                advised=True,
            ) from None
    kinds = Counter(shape.file.suffix.lower() for shape in shapes)
    classes = {shape.kind for shape in shapes} - {""}
    drawn = not any(part.lower() in SPLITS for part in shapes[0].file.relative_to(root).parts)
    long, side = np.max(sides, 1), np.array(sides)  # (S,), (S, 3)
    share = (side / long[:, None]).mean(0)  # (3,)
    found = [
        f"{name}: {len(shapes):,} shape{'s' * (len(shapes) > 1)} in {root}, "
        + (f"{len(classes)} classes" if len(classes) > 1 else "no two classes: for pre-training"),
        "files: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items())),
        f"split: {TEST_SHARE:.0%} of each class drawn as test" if drawn else "split: by folders",
        f"points in a file: {min(sizes):,} to {max(sizes):,} (of a mesh: sampled); num_points can "
        f"be at most {min(sizes):,}, and runs of suites take {RUN_POINTS:,}",
        f"unit: no file states one; longest sides {long.min():.3g} to {long.max():.3g}, median "
        f"{np.median(long):.3g}; every cloud is scaled to radius 1",
        f"axes: mean sides x {share[0]:.2f}, y {share[1]:.2f}, z {share[2]:.2f} of the longest; "
        "nothing is turned, so give all files the same axis up",
    ]
    alike: dict[bytes, list[Shape]] = {}
    for shape, digest in zip(shapes, digests):
        alike.setdefault(digest, []).append(shape)
    same = [group for group in alike.values() if len(group) > 1]
    across = sum(len({shape.split for shape in group}) > 1 for group in same)
    first = "; ".join(" = ".join(shape.origin for shape in group) for group in same[:5])
    found.append(
        f"duplicates: {len(same):,} shapes occur more than once, {across:,} of them in train and "
        f"test: {first}" if same else "duplicates: none"
    )  # fmt: skip
    left_out = skipped(root)
    if left_out:
        found.append(f"left out by {root / SKIPPED}: {', '.join(sorted(left_out))}")
    found += [f"left out: {message}" for _, message in bad]
    return found, min(RUN_POINTS, *sizes)
