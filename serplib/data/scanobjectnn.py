"""ScanObjectNN: objects cut out of scanned rooms (Uy et al., 2019), in its three usual variants."""

from __future__ import annotations

from pathlib import Path

from serplib.data.common import DataError, find_folder
from serplib.data.formats import read_h5_files
from serplib.data.prepare import Source

CLASSES = tuple(
    "bag bin box cabinet chair desk display door shelf table bed pillow sink sofa toilet".split()
)
FOLDERS = ("scanobjectnn", "ScanObjectNN", "h5_files")
VARIANTS = {  # name -> folder and end of the file's name
    "scanobjectnn_obj_bg": ("main_split", "objectdataset"),  # with background
    "scanobjectnn_obj_only": ("main_split_nobg", "objectdataset"),
    "scanobjectnn_pb_t50_rs": ("main_split", "objectdataset_augmentedrot_scale75"),  # the hardest
}


def locate() -> Path:
    """Return the folder that holds ``main_split``; DataError where there is none."""
    root = find_folder("ScanObjectNN", FOLDERS, "scanobjectnn_obj_bg")
    for place in (root, root / "h5_files"):
        if any((place / folder).is_dir() for folder, _ in VARIANTS.values()):
            return place
    raise DataError(
        f"ScanObjectNN not found: there is no main_split in {root}. Put the set there as "
        "datasets/README.md shows, and run 'serp data check scanobjectnn_obj_bg'",
        advised=True,
    )


def read(root: Path, split: str, name: str) -> Source:
    """Open a split of a variant: one h5 file with ``data`` (S, 2048, 3) and ``label`` (S,)."""
    folder, ending = VARIANTS[name]
    path = root / folder / f"{'training' if split == 'train' else 'test'}_{ending}.h5"
    clouds, labels = read_h5_files([path], CLASSES)
    return Source(name, "h5", root, CLASSES, labels, [path], clouds)
