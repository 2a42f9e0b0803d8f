"""ModelNet40 in every layout it is passed around in (paper, section 4.1; Wu et al., 2015).

Five layouts give the same thing: h5 files, meshes (``.off``), text files with normals, ``.npy``
files in the meshes' tree, Point-BERT's pickles (``.dat``). ``datasets/README.md`` shows each one.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch

from serplib.data.common import DataError, find_folder
from serplib.data.formats import (
    Read,
    check_labels,
    in_turn,
    one_each,
    read_h5_files,
    read_list,
    read_npy,
    read_xyz,
)
from serplib.data.meshes import read_mesh
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
Split = tuple[tuple[str, ...], list[int], list[Path], Read]  # classes, labels, files, read


def locate() -> Path:
    """Return the folder of ModelNet40; DataError where there is none.

    A download unpacked inside one of ``FOLDERS``, with its own name, is found too.
    """
    root = find_folder("ModelNet40", FOLDERS, "modelnet40")
    inner = (root / name for name in FOLDERS if (root / name).is_dir())
    return root if _layout(root) else next(inner, root)


def read(root: Path, split: str, name: str) -> Source:
    """Recognise the layout of a folder and list a split of it; its classes decide the name.

    Raises:
        DataError: the layout is unknown, or its lists, labels or class folders are damaged.
    """
    layout = _layout(root)
    if layout is None:
        raise DataError(
            f"{root}: none of the known layouts; expected .h5 files, perhaps with train_files.txt, "
            "modelnet40_train.txt with .txt files, <class>/train/*.off or *.npy, or "
            "modelnet40_train_8192pts_fps.dat"
        )
    readers = {"h5": _h5, "txt": _text, "dat": _pickled, "off": _tree, "npy": _tree}
    classes, labels, files, clouds = readers[layout](root, split)
    name = f"modelnet{len(classes)}"
    return Source(name, layout, root, classes, torch.tensor(labels), files, clouds)


def _layout(root: Path) -> str | None:
    if (root / "train_files.txt").is_file() or visible(root.glob("*.h5")):
        return "h5"
    for layout, pattern in (("dat", "t*_8192pts_fps.dat"), ("txt", "*.txt")):
        if any(root.glob(f"modelnet[14]0_{pattern}")):
            return layout
    return _tree_layout(root)


def _tree_layout(root: Path) -> str | None:
    for layout in ("off", "npy"):
        if any(visible((root / name).glob(f"t*/*.{layout}")) for name in CLASSES):
            return layout
    return None


def visible(files: Iterable[Path]) -> list[Path]:
    """Sort files, without hidden ones such as macOS's ``._airplane_0001.off``."""
    return sorted(file for file in files if file.name[0] != "." and file.is_file())


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


def _h5(root: Path, split: str) -> Split:
    names_file, names = root / "shape_names.txt", list(CLASSES)
    if names_file.exists():
        names = read_list(names_file, r"\w+", "the name of a class")
    classes = _class_names(names, names_file)
    files = _h5_files(root, split)
    clouds, labels = read_h5_files(files, names)
    return classes, [classes.index(names[label]) for label in labels.tolist()], files, clouds


def _h5_files(root: Path, split: str) -> list[Path]:
    """List the h5 files of a split: those in its list, otherwise by the number in their names."""
    list_file = root / f"{split}_files.txt"
    if list_file.exists():
        names = read_list(list_file, r"[\w.-]+\.h5", "the name of an .h5 file")
        return [root / name for name in names]
    numbered: dict[int, Path] = {}
    for file in visible(root.glob("*.h5")):
        if match := re.fullmatch(rf"(?:ply_data_)?{split}_?(\d*)\.h5", file.name):
            number = int(match[1] or 0)
            if number in numbered:
                raise DataError(f"{file}: has the number of {numbered[number].name}; keep one")
            numbered[number] = file
    if not numbered:
        raise DataError(f"{list_file}: file not found, nor {split}0.h5 or ply_data_{split}0.h5")
    order = sorted(numbered)
    if missing := set(range(order[0], order[-1])) - set(order):
        raise DataError(f"{root}: holds {numbered[order[-1]].name}, but no number {min(missing)}")
    return [numbered[number] for number in order]


def _text(root: Path, split: str) -> Split:
    names_files = [root / f"modelnet{n}_shape_names.txt" for n in (40, 10)]
    names_file = next((file for file in names_files if file.exists()), names_files[0])
    classes = _class_names(read_list(names_file, r"\w+", "the name of a class"), names_file)
    split_file = root / f"modelnet{len(classes)}_{split}.txt"
    shapes = read_list(split_file, r"\w+_\d+", "a shape such as airplane_0001")
    kinds = [shape.rpartition("_")[0] for shape in shapes]
    if unknown := sorted(set(kinds) - set(classes)):
        raise DataError(f"{split_file}: {unknown[0]!r} is none of the {len(classes)} classes")
    files = [root / kind / f"{shape}.txt" for kind, shape in zip(kinds, shapes)]
    return classes, [classes.index(kind) for kind in kinds], files, one_each(files, read_xyz)


def _tree(root: Path, split: str) -> Split:
    layout = _tree_layout(root)
    classes = _class_names([name for name in CLASSES if (root / name).is_dir()], root)
    files, labels = [], []
    for label, name in enumerate(classes):
        found = visible((root / name / split).glob(f"*.{layout}"))
        if not found:
            raise DataError(f"{root / name / split}: holds no .{layout} file; expected one a shape")
        numbered = [file for file in found if re.fullmatch(rf"{name}_\d+", file.stem)]
        if numbered and len(numbered) < len(found):
            others = f"{len(found) - len(numbered)} files not named {name}_<number>"
            warnings.warn(f"{root / name / split}: {others} were skipped", stacklevel=2)
            found = numbered
        files += found
        labels += [label] * len(found)
    return classes, labels, files, one_each(files, read_npy if layout == "npy" else read_mesh)


def _pickled(root: Path, split: str) -> Split:
    file = next(iter(sorted(root.glob(f"modelnet[14]0_{split}_8192pts_fps.dat"))), None)
    if file is None:
        raise DataError(f"{root / f'modelnet40_{split}_8192pts_fps.dat'}: file not found")
    classes = CLASSES if "40" in file.name[:10] else CLASSES10
    clouds, labels = read_dat(file)  # S times (N, 6), (S,)
    check_labels(labels, len(classes), file)
    rows = [(f"{file}, shape {row}", cloud[:, :3]) for row, cloud in enumerate(clouds)]
    return classes, labels.tolist(), [file], in_turn(rows)
