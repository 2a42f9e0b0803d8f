"""ModelNet40 in every layout it is passed around in (paper, section 4.1; Wu et al., 2015).

Five layouts give the same thing: h5 files, meshes (``.off``), text files with normals, ``.npy``
files in the meshes' tree, Point-BERT's pickles (``.dat``). ``datasets/README.md`` shows each one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from serplib.data.common import Clouds, DataError, find_folder, sha256
from serplib.data.formats import (
    SURFACE_POINTS,
    as_double,
    check_points,
    read_h5,
    read_list,
    read_npy,
    read_off,
    read_xyz,
    sample_surface,
)
from serplib.data.pickled import read_dat
from serplib.data.prepare import cached, choose, fit, remedy

_NAMES40 = (
    "airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser "
    "flower_pot glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano "
    "plant radio range_hood sink sofa stairs stool table tent toilet tv_stand vase wardrobe xbox"
)
_NAMES10 = "bathtub bed chair desk dresser monitor night_stand sofa table toilet"
CLASSES, CLASSES10 = tuple(_NAMES40.split()), tuple(_NAMES10.split())  # of ModelNet40, ModelNet10
FOLDERS = (
    "modelnet40",
    "modelnet40_ply_hdf5_2048",
    "modelnet40_hdf5_2048",
    "modelnet40_hdf5_1024",
    "modelnet40_normal_resampled",
    "ModelNet40",
    "ModelNet10",
    "modelnet10",
)
REMEDY = (
    "Unpack the download again, or point SERP_DATA at another copy, and run "
    "'serp data check modelnet40'"
)


@dataclass(frozen=True)
class Source:
    """A split as it lies on disk, before its clouds are made.

    Attributes:
        layout: ``"h5"``, ``"off"``, ``"txt"``, ``"npy"`` or ``"dat"``.
        root: the folder of the set.
        classes: names in label order: 40, or the 10 of ModelNet10.
        labels: ``(S,)`` int64.
        files: what the clouds are read from: the h5 files, or a file for each shape.
        read: gives shape i as where it came from and its points ``(N, 3)`` float64.
    """

    layout: str
    root: Path
    classes: tuple[str, ...]
    labels: Tensor
    files: list[Path]
    read: Callable[[int], tuple[object, np.ndarray]]


def locate() -> Path:
    """The folder of ModelNet40: one of ``FOLDERS`` in ``$SERP_DATA``, else in ``datasets/``.

    A download unpacked inside that folder, with its own name, is found too.

    Raises:
        DataError: there is none; the message says where it was looked for.
    """
    root = find_folder("ModelNet40", FOLDERS, "modelnet40")
    inner = (root / name for name in FOLDERS if (root / name).is_dir())
    return root if _layout(root) else next(inner, root)


def _layout(root: Path) -> str | None:
    if (root / "train_files.txt").is_file() or any(root.glob("*.h5")):
        return "h5"
    if any(root.glob("modelnet[14]0_t*_8192pts_fps.dat")):
        return "dat"
    if any(root.glob("modelnet[14]0_*.txt")):
        return "txt"
    for layout in ("off", "npy"):
        if any(any((root / name).glob(f"t*/*.{layout}")) for name in CLASSES):
            return layout
    return None


def _class_names(names: list[str], source: object) -> tuple[str, ...]:
    """The classes in the standard order, once they are all of ModelNet40's or of ModelNet10's."""
    for classes in (CLASSES, CLASSES10):
        if sorted(names) == list(classes):
            return classes
    missing, unknown = sorted(set(CLASSES) - set(names)), sorted(set(names) - set(CLASSES))
    raise DataError(
        f"{source}: expected ModelNet40's 40 classes or ModelNet10's 10, found {len(names)}; "
        f"missing {', '.join(missing[:5]) or 'none'}; unknown {', '.join(unknown[:5]) or 'none'}"
    )


def _h5(root: Path, split: str) -> Source:
    names_file = root / "shape_names.txt"
    names = list(CLASSES)
    if names_file.exists():
        names = read_list(names_file, r"\w+", "the name of a class")
    classes = _class_names(names, names_file)
    listed = read_list(root / f"{split}_files.txt", r"[\w.-]+\.h5", "the name of an .h5 file")
    files = [root / name for name in listed]
    parts = []
    for file in files:
        data, label = read_h5(file)  # (S, N, 3), (S,)
        if label.min() < 0 or label.max() >= len(names):
            raise DataError(
                f"{file}: labels {label.min()} to {label.max()}; expected 0 to {len(names) - 1}"
            )
        parts.append((file, data, label))
    rows = [(file, row, cloud) for file, data, _ in parts for row, cloud in enumerate(data)]

    def read(i: int) -> tuple[object, np.ndarray]:
        file, row, cloud = rows[i]
        source = f"{file}, shape {row}"
        return source, check_points(as_double(cloud), source)  # (N, 3)

    standard = np.array([classes.index(name) for name in names])  # the file's label -> ours
    labels = torch.from_numpy(standard[np.concatenate([label for _, _, label in parts])])  # (S,)
    return Source("h5", root, classes, labels, files, read)


def _text(root: Path, split: str) -> Source:
    names_file = next(
        (file for n in (40, 10) if (file := root / f"modelnet{n}_shape_names.txt").exists()), None
    )
    if names_file is None:
        raise DataError(f"{root / 'modelnet40_shape_names.txt'}: file not found")
    classes = _class_names(read_list(names_file, r"\w+", "the name of a class"), names_file)
    split_file = root / f"modelnet{len(classes)}_{split}.txt"
    shapes = read_list(split_file, r"\w+_\d+", "a shape such as airplane_0001")
    kinds = [shape.rpartition("_")[0] for shape in shapes]
    if unknown := sorted(set(kinds) - set(classes)):
        raise DataError(f"{split_file}: {unknown[0]!r} is none of the {len(classes)} classes")
    files = [root / kind / f"{shape}.txt" for kind, shape in zip(kinds, shapes, strict=True)]
    labels = torch.tensor([classes.index(kind) for kind in kinds])  # (S,)
    return Source("txt", root, classes, labels, files, lambda i: (files[i], read_xyz(files[i])))


def _tree(root: Path, split: str, layout: str) -> Source:
    present = [name for name in CLASSES if (root / name).is_dir()]
    classes = _class_names(present, root)
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted((root / name / split).glob(f"*.{layout}"))
        if not found:
            raise DataError(f"{root / name / split}: holds no .{layout} file; expected one a shape")
        files += found
        labels += [label] * len(found)

    def read(i: int) -> tuple[object, np.ndarray]:
        if layout == "npy":
            return files[i], read_npy(files[i])
        return files[i], sample_surface(*read_off(files[i]), SURFACE_POINTS, files[i])

    return Source(layout, root, classes, torch.tensor(labels), files, read)


def _pickled(root: Path, split: str) -> Source:
    file = next(iter(sorted(root.glob(f"modelnet[14]0_{split}_8192pts_fps.dat"))), None)
    if file is None:
        raise DataError(f"{root / f'modelnet40_{split}_8192pts_fps.dat'}: file not found")
    classes = CLASSES if "40" in file.name[:10] else CLASSES10
    clouds, labels = read_dat(file)  # S times (N, 6), (S,)
    if labels.min() < 0 or labels.max() >= len(classes):
        raise DataError(
            f"{file}: labels {labels.min()} to {labels.max()}; expected 0 to {len(classes) - 1}"
        )

    def read(i: int) -> tuple[object, np.ndarray]:
        source = f"{file}, shape {i}"
        return source, check_points(as_double(clouds[i][:, :3]), source)  # (N, 3)

    return Source("dat", root, classes, torch.from_numpy(labels), [file], read)


def source(split: str) -> Source:
    """Find ModelNet40, see in which layout it lies, and list a split of it.

    Args:
        split: ``"train"`` or ``"test"``.

    Raises:
        DataError: the set is missing, or its lists, labels or class folders are damaged.
    """
    root = locate()
    layout = _layout(root)
    with remedy(REMEDY):
        if layout == "h5":
            return _h5(root, split)
        if layout == "txt":
            return _text(root, split)
        if layout == "dat":
            return _pickled(root, split)
        if layout:
            return _tree(root, split, layout)
        raise DataError(
            f"{root}: none of the known layouts; expected train_files.txt with .h5 files, "
            "modelnet40_train.txt with .txt files, <class>/train/*.off or *.npy, or "
            "modelnet40_train_8192pts_fps.dat"
        )


def modelnet40_clouds(
    split: str,
    num_shapes: int | None = None,
    num_points: int = 1024,
    seed: int = 0,
    fresh: bool = False,
) -> Clouds:
    """A split of ModelNet40 (or ModelNet10, which the name of the result then says).

    What is thinned or parsed is kept in the set's ``cache`` folder, so that it takes its minutes
    once; clouds in h5 files that have the size asked for are read directly.

    Args:
        split: ``"train"`` or ``"test"``.
        num_shapes: a seeded subset with the classes' shares, see ``choose``; None for all.
        num_points: of each cloud; a mesh gives at most the 2,048 (``SURFACE_POINTS``).
        seed: of the subset.
        fresh: do not use the cache.

    Raises:
        DataError: the set is missing or damaged; names the file, the fault and the remedy.
    """
    from_disk = source(split)
    index = choose(from_disk.labels, num_shapes, seed)  # (S,)
    h5, packed = from_disk.layout == "h5", from_disk.layout in ("h5", "dat")
    files = from_disk.files if packed else [from_disk.files[i] for i in index]

    def clouds() -> Iterator[tuple[object, np.ndarray]]:
        return (from_disk.read(i) for i in index.tolist())

    def make() -> tuple[Tensor, str]:
        return fit(clouds(), len(index), num_points), sha256(files)

    with remedy(REMEDY):
        if h5 and len(next(clouds())[1]) == num_points:
            points, checksum = make()
        else:
            detail = f"{from_disk.layout} {num_points} {index.tolist() if packed else ''}"
            points, checksum = cached(from_disk.root / "cache", files, detail, make, fresh)
    labels, classes = from_disk.labels[index], from_disk.classes
    return Clouds(f"modelnet{len(classes)}", split, points, labels, classes, checksum)
