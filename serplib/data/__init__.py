"""Point clouds to learn from: built-in and real sets (paper, section 4.1)."""

from __future__ import annotations

from serplib.data.common import Clouds, DataError, normalize
from serplib.data.modelnet import modelnet40_clouds
from serplib.data.scanobjectnn import VARIANTS, scanobjectnn_clouds
from serplib.data.shapenet import shapenet55_clouds

NAMES = ("objects", "procedural", "modelnet40", "shapenet55", *VARIANTS)
SPLITS = ("train", "test")
BUILT_IN_SHAPES = 1024  # of a built-in set, where the caller names no number

__all__ = ["NAMES", "SPLITS", "Clouds", "DataError", "load", "normalize"]


def load(
    name: str, split: str, num_shapes: int | None = None, num_points: int = 1024, seed: int = 0
) -> Clouds:
    """A split of a data set, each cloud centred on its mean and scaled to the unit sphere.

    Args:
        name: one of ``NAMES``: ``"objects"``, ``"modelnet40"``, ...
        split: ``"train"`` or ``"test"``.
        num_shapes: how many clouds. None means 1,024 of a built-in set and all of a real one, of
            which a number takes a seeded subset: one shape of each class, then each class's share.
        num_points: of each cloud; a larger cloud keeps its farthest points (FPS from index 0).
        seed: of the built-in shapes, or of the subset.

    Returns:
        Clouds with ``points`` ``(S, num_points, 3)`` float32 and ``labels`` ``(S,)`` int64, or None
        for the procedural shapes, which have no categories.

    Raises:
        DataError: unknown name or split, or a set that is missing, damaged or too small.
    """
    if name not in NAMES:
        raise DataError(f"unknown data set {name!r}; accepted: {', '.join(NAMES)}")
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r} of {name}; accepted: {', '.join(SPLITS)}")
    for what, value in (("num_shapes", num_shapes), ("num_points", num_points)):
        if value is not None and (isinstance(value, bool) or int(value) != value or value < 1):
            raise DataError(f"{what} is {value!r}; expected a whole number from 1 up")
    if name == "modelnet40":
        return modelnet40_clouds(split, num_shapes, num_points, seed)
    if name == "shapenet55":
        return shapenet55_clouds(split, num_shapes, num_points, seed)
    if name in VARIANTS:
        return scanobjectnn_clouds(name, split, num_shapes, num_points, seed)
    if num_shapes is None:
        num_shapes = BUILT_IN_SHAPES
    from serplib.data.synthetic import shapes  # only here: the real sets do not need it

    make = shapes.objects_clouds if name == "objects" else shapes.procedural_clouds
    return make(split, num_shapes, num_points, seed)
