"""ScanObjectNN: objects cut out of scanned rooms (Uy et al., 2019), in its three usual variants."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from serplib.data.common import Clouds, DataError, find_folder, sha256
from serplib.data.formats import as_double, check_points, read_h5
from serplib.data.prepare import cached, choose, fit, remedy

CLASSES = tuple(
    "bag bin box cabinet chair desk display door shelf table bed pillow sink sofa toilet".split()
)
FOLDERS = ("scanobjectnn", "ScanObjectNN", "h5_files")
VARIANTS = {  # name -> folder and end of the file's name
    "scanobjectnn_obj_bg": ("main_split", "objectdataset"),  # with what stands around
    "scanobjectnn_obj_only": ("main_split_nobg", "objectdataset"),  # cut free
    "scanobjectnn_pb_t50_rs": ("main_split", "objectdataset_augmentedrot_scale75"),  # the hardest
}
REMEDY = (
    "Unpack the download again, or point SERP_DATA at another copy, and run 'serp data check NAME'"
)


def locate() -> Path:
    """The folder of ScanObjectNN, the one that holds ``main_split``.

    Raises:
        DataError: there is none; the message says where it was looked for.
    """
    root = find_folder("ScanObjectNN", FOLDERS, "scanobjectnn_obj_bg")
    places = [root, root / "h5_files"]
    for place in places:
        if any((place / folder).is_dir() for folder, _ in VARIANTS.values()):
            return place
    raise DataError(
        f"ScanObjectNN not found: there is no main_split in {root}. Put the set there as "
        "datasets/README.md shows, and run "
        "'serp data check scanobjectnn_obj_bg'"
    )


def scanobjectnn_clouds(
    name: str,
    split: str,
    num_shapes: int | None = None,
    num_points: int = 1024,
    seed: int = 0,
    fresh: bool = False,
) -> Clouds:
    """A split of a variant: one h5 file with ``data`` (S, 2048, 3) and ``label`` (S,).

    Args:
        name: a key of ``VARIANTS``. split: ``"train"`` or ``"test"``.
        num_shapes: a seeded subset with the classes' shares, see ``choose``; None for all.
        num_points: of each cloud, at most 2,048; kept are the farthest.
        seed: of the subset. fresh: do not use the cache.

    Raises:
        DataError: the set is missing or damaged; names the file, the fault and the remedy.
    """
    folder, ending = VARIANTS[name]
    root = locate()
    path = root / folder / f"{'training' if split == 'train' else 'test'}_{ending}.h5"
    with remedy(REMEDY.replace("NAME", name)):
        data, label = read_h5(path)  # (S, 2048, 3), (S,)
        if label.min() < 0 or label.max() >= len(CLASSES):
            raise DataError(f"{path}: labels {label.min()} to {label.max()}; expected 0 to 14")
        labels = torch.from_numpy(label)  # (S,)
        index = choose(labels, num_shapes, seed)  # (S,)

        def make() -> tuple[Tensor, str]:
            sources = ((f"{path}, shape {i}", as_double(data[i])) for i in index.tolist())
            clouds = ((source, check_points(cloud, source)) for source, cloud in sources)
            return fit(clouds, len(index), num_points), sha256([path])

        detail = f"h5 {num_points} {index.tolist()}"
        points, checksum = cached(root / "cache", [path], detail, make, fresh)
    return Clouds(name, split, points, labels[index], CLASSES, checksum)
