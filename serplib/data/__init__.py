"""Point clouds to train on: built-in and real sets (paper, section 4.1)."""

from __future__ import annotations

import warnings
from types import ModuleType

from serplib.data import modelnet, own, scanobjectnn, shapenet
from serplib.data.common import Clouds, DataError, normalize
from serplib.data.prepare import Source, prepare_clouds, remedy, repeated_points

BUILT_IN = ("objects", "procedural")
READERS: dict[str, ModuleType] = {  # each with locate() -> folder, read(folder, split, name)
    "modelnet40": modelnet,
    "shapenet55": shapenet,
    **dict.fromkeys(scanobjectnn.VARIANTS, scanobjectnn),
}
NAMES = (*BUILT_IN, *READERS)
SPLITS = ("train", "test")
BUILT_IN_SHAPES = 1024  # of a built-in set, where the caller gives no number

__all__ = ["NAMES", "SPLITS", "Clouds", "DataError", "load", "normalize"]


def load(
    name: str, split: str, num_shapes: int | None = None, num_points: int = 1024, seed: int = 0
) -> Clouds:
    """Load a split of a data set, each cloud centred on its mean and scaled to the unit sphere.

    Args:
        name: one of ``NAMES``: ``"objects"``, ``"modelnet40"``, ..., or that of a folder of your
            own shapes in ``SERP_DATA`` or ``datasets/`` (see ``datasets/README.md``).
        split: ``"train"`` or ``"test"``.
        num_shapes: how many clouds. None means 1,024 of a built-in set and all of a real one, of
            which a number takes a seeded subset: one shape of each class, then each class's share.
        num_points: of each cloud; a larger cloud keeps its farthest points (FPS from index 0).
        seed: of the built-in shapes, or of the subset.

    Returns:
        Clouds with ``points`` ``(S, num_points, 3)`` float32 and ``labels`` ``(S,)`` int64, or None
        for sets without categories. A warning tells where clouds have fewer distinct points than
        ``num_points``.

    Raises:
        DataError: the name or split is unknown, or the set is missing, damaged or too small.
    """
    if not exists(name):
        raise DataError(
            f"unknown data set {name!r}; accepted: {', '.join(NAMES)}, or the name of a folder of "
            "your own shapes in SERP_DATA or datasets/"
        )
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r} of {name}; accepted: {', '.join(SPLITS)}")
    for what, value in (("num_shapes", num_shapes), ("num_points", num_points)):
        if value is not None and (isinstance(value, bool) or int(value) != value or value < 1):
            raise DataError(f"{what} is {value!r}; expected a whole number from 1 up")
    if name in BUILT_IN:
        from serplib.data.synthetic import shapes  # only here: the real sets do not need it

        make = shapes.objects_clouds if name == "objects" else shapes.procedural_clouds
        return make(split, num_shapes or BUILT_IN_SHAPES, num_points, seed)
    with remedy(name):
        clouds = prepare_clouds(open_split(name, split), split, num_shapes, num_points, seed)
    if message := repeated_points(clouds):
        warnings.warn(message, stacklevel=2)
    return clouds


def exists(name: str) -> bool:
    """Tell whether `load` knows a data set by this name: one of ``NAMES``, or an own folder."""
    return name in NAMES or own.find(name) is not None


def open_split(name: str, split: str) -> Source:
    """Find a real data set and list a split of it; DataError where it is missing or damaged."""
    if root := own.find(name):
        return own.read(root, split, name)
    reader = READERS[name]
    return reader.read(reader.locate(), split, name)
