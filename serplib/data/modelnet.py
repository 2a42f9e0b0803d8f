"""ModelNet40 in every layout it is passed around in (paper, section 4.1; Wu et al., 2015).

Five layouts give the same thing: h5 files, meshes (``.off``), text files with normals, ``.npy``
files in the meshes' tree, Point-BERT's pickles (``.dat``). ``datasets/README.md`` shows each one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from serplib.data.common import DataError, find_folder
from serplib.data.formats import (
    as_double,
    check_labels,
    check_points,
    read_h5_files,
    read_list,
    read_npy,
    read_xyz,
)
from serplib.data.meshes import SURFACE_POINTS, read_off, sample_surface
from serplib.data.pickled import read_dat
from serplib.data.prepare import Source

_NAMES40 = (
    "airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser "
    "flower_pot glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano "
    "plant radio range_hood sink sofa stairs stool table tent toilet tv_stand vase wardrobe xbox"
)
_NAMES10 = "bathtub bed chair desk dresser monitor night_stand sofa table toilet"
CLASSES, CLASSES10 = tuple(_NAMES40.split()), tuple(_NAMES10.split())  # of ModelNet40, ModelNet10
FOLDERS = (
    *("modelnet40", "modelnet40_ply_hdf5_2048", "modelnet40_hdf5_2048", "modelnet40_hdf5_1024"),
    *("modelnet40_normal_resampled", "ModelNet40", "ModelNet10", "modelnet10"),
)


def locate() -> Path:
    """Return the folder of ModelNet40; DataError where there is none.

    A download unpacked inside one of ``FOLDERS``, with its own name, is found too.
    """
    root = find_folder("ModelNet40", FOLDERS, "modelnet40")
    inner = (root / name for name in FOLDERS if (root / name).is_dir())
    return root if _layout(root) else next(inner, root)


def read(root: Path, split: str) -> Source:
    """Recognise the layout of a folder and list a split of it.

    Raises:
        DataError: the layout is unknown, or its lists, labels or class folders are damaged.
    """
    layout = _layout(root)
    readers = {"h5": _h5, "txt": _text, "dat": _pickled, "off": _tree, "npy": _tree}
    if layout:
        return readers[layout](root, split)
    raise DataError(
        f"{root}: none of the known layouts; expected train_files.txt with .h5 files, "
        "modelnet40_train.txt with .txt files, <class>/train/*.off or *.npy, or "
        "modelnet40_train_8192pts_fps.dat"
    )


def _layout(root: Path) -> str | None:
    if (root / "train_files.txt").is_file() or any(root.glob("*.h5")):
        return "h5"
    if any(root.glob("modelnet[14]0_t*_8192pts_fps.dat")):
        return "dat"
    if any(root.glob("modelnet[14]0_*.txt")):
        return "txt"
    return _tree_layout(root)


def _tree_layout(root: Path) -> str | None:
    for layout in ("off", "npy"):
        if any(any((root / name).glob(f"t*/*.{layout}")) for name in CLASSES):
            return layout
    return None


def _class_names(names: list[str], source: object) -> tuple[str, ...]:
    """Return the classes in the standard order; DataError unless they are ModelNet40's or 10's."""
    for classes in (CLASSES, CLASSES10):
        if sorted(names) == list(classes):
            return classes
    missing, unknown = sorted(set(CLASSES) - set(names)), sorted(set(names) - set(CLASSES))
    raise DataError(
        f"{source}: expected ModelNet40's 40 classes or ModelNet10's 10, found {len(names)}; "
        f"missing {', '.join(missing[:5]) or 'none'}; unknown {', '.join(unknown[:5]) or 'none'}"
    )


def _h5(root: Path, split: str) -> Source:
    names_file, names = root / "shape_names.txt", list(CLASSES)
    if names_file.exists():
        names = read_list(names_file, r"\w+", "the name of a class")
    classes = _class_names(names, names_file)
    listed = read_list(root / f"{split}_files.txt", r"[\w.-]+\.h5", "the name of an .h5 file")
    files = [root / name for name in listed]
    clouds, labels = read_h5_files(files, len(names))
    standard = torch.tensor([classes.index(name) for name in names])  # the file's label -> ours
    return Source(f"modelnet{len(classes)}", "h5", root, classes, standard[labels], files, clouds)


def _text(root: Path, split: str) -> Source:
    names_files = [root / f"modelnet{n}_shape_names.txt" for n in (40, 10)]
    names_file = next((file for file in names_files if file.exists()), names_files[0])
    classes = _class_names(read_list(names_file, r"\w+", "the name of a class"), names_file)
    split_file = root / f"modelnet{len(classes)}_{split}.txt"
    shapes = read_list(split_file, r"\w+_\d+", "a shape such as airplane_0001")
    kinds = [shape.rpartition("_")[0] for shape in shapes]
    if unknown := sorted(set(kinds) - set(classes)):
        raise DataError(f"{split_file}: {unknown[0]!r} is none of the {len(classes)} classes")
    files = [root / kind / f"{shape}.txt" for kind, shape in zip(kinds, shapes, strict=True)]
    labels = torch.tensor([classes.index(kind) for kind in kinds])  # (S,)
    name = f"modelnet{len(classes)}"
    return Source(
        name, "txt", root, classes, labels, files, lambda i: (files[i], read_xyz(files[i]))
    )


def _tree(root: Path, split: str) -> Source:
    layout = _tree_layout(root)
    classes = _class_names([name for name in CLASSES if (root / name).is_dir()], root)
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted((root / name / split).glob(f"*.{layout}"))
        if not found:
            raise DataError(f"{root / name / split}: holds no .{layout} file; expected one a shape")
        files += found
        labels += [label] * len(found)

    def cloud(i: int) -> tuple[object, np.ndarray]:
        if layout == "npy":
            return files[i], read_npy(files[i])
        return files[i], sample_surface(*read_off(files[i]), SURFACE_POINTS, files[i])

    name = f"modelnet{len(classes)}"
    return Source(name, str(layout), root, classes, torch.tensor(labels), files, cloud)


def _pickled(root: Path, split: str) -> Source:
    file = next(iter(sorted(root.glob(f"modelnet[14]0_{split}_8192pts_fps.dat"))), None)
    if file is None:
        raise DataError(f"{root / f'modelnet40_{split}_8192pts_fps.dat'}: file not found")
    classes = CLASSES if "40" in file.name[:10] else CLASSES10
    clouds, labels = read_dat(file)  # S times (N, 6), (S,)
    check_labels(labels, len(classes), file)

    def cloud(i: int) -> tuple[object, np.ndarray]:
        source = f"{file}, shape {i}"
        return source, check_points(as_double(clouds[i][:, :3]), source)  # (N, 3)

    name = f"modelnet{len(classes)}"
    return Source(name, "dat", root, classes, torch.from_numpy(labels), [file], cloud)
