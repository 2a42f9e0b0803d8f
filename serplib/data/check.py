"""List the data sets and check that they are complete (``serp data list``, ``serp data check``)."""

from __future__ import annotations

import torch

from serplib.data import BUILT_IN, READERS, SPLITS, load, modelnet40_c, open_split, own
from serplib.data.common import Clouds, DataError
from serplib.data.prepare import prepare_clouds, remedy, repeated_points

_SCANNED = "academic research, on agreement to its terms"
ABOUT = {  # name -> what it is, its licence
    "objects": ("labelled objects of everyday kinds, made by this package", "MIT"),
    "procedural": ("unlabelled unions of simple solids, made by this package", "MIT"),
    "modelnet40": ("12,311 CAD models in 40 categories, Princeton", "academic research only"),
    "shapenet55": (
        "52,470 CAD models in 55 categories, ShapeNet",
        "non-commercial research, on registration",
    ),
    "scanobjectnn_obj_bg": ("2,890 scanned objects in 15 categories, with background", _SCANNED),
    "scanobjectnn_obj_only": ("the same objects, without background", _SCANNED),
    "scanobjectnn_pb_t50_rs": ("14,298 of them, moved, rotated, scaled and cropped", _SCANNED),
    modelnet40_c.NAME: (
        "ModelNet40's test shapes under 15 corruptions, to measure robustness on",
        "academic research only",
    ),
}
# Shapes of each split: the official number first, then those of common copies.
COUNTS: dict[str, dict[str, tuple[int, ...]]] = {
    "modelnet40": {"train": (9843, 9840), "test": (2468,)},
    "modelnet10": {"train": (3991,), "test": (908,)},
    "shapenet55": {"train": (41952,), "test": (10518,)},
    "scanobjectnn_obj_bg": {"train": (2309,), "test": (581,)},
    "scanobjectnn_obj_only": {"train": (2309,), "test": (581,)},
    "scanobjectnn_pb_t50_rs": {"train": (11416,), "test": (2882,)},
}
TOLERANCE = 1e-3  # unit-sphere radii; built-in shapes lie on a grid of step 2^-11


def describe() -> list[dict[str, object]]:
    """Describe the data sets, for a table.

    Returns:
        For each of ``ABOUT`` and each own set a dict of ``name``, ``what``, ``licence`` (text),
        ``found`` (bool) and ``where`` (text: a folder, or what to do where there is none).
    """
    rows: list[dict[str, object]] = []
    for name, (what, licence) in ABOUT.items():
        found, where = True, "made when asked for"
        try:
            with remedy(name):
                if name not in BUILT_IN:
                    where = str(READERS.get(name, modelnet40_c).locate())
        except DataError as error:
            found, where = False, str(error)
        rows.append(dict(name=name, what=what, licence=licence, found=found, where=where))
    for name in own.names():
        about = {"name": name, "what": "your own shapes", "licence": "yours"}
        rows.append({**about, "found": True, "where": str(own.find(name))})
    return rows


def check(name: str, skip_bad: bool = False) -> list[str]:
    """Read a whole data set, as training would, and report what was found.

    A real set is read from its own files, never from the cache, which is made anew: ShapeNet55
    or a tree of meshes takes minutes.

    Args:
        name: one of ``ABOUT``, or of an own set.
        skip_bad: leave the bad shapes of an own set out, now and whenever it is loaded.

    Returns:
        Facts, a line each: the folder and layout; for each split its counts, labels, range of
        values, sha256 and, where it can be told, the axis that points up. Of an own set also sizes,
        mean sides and duplicates.

    Raises:
        DataError: the set is unknown, missing or damaged, or holds another number of shapes.
    """
    if root := own.find(name):
        facts, num_points = own.facts(root, name, skip_bad)
        for split in sorted({shape.split for shape in own.list_shapes(root)}, reverse=True):
            source = own.read(root, split, name)
            facts += _facts(prepare_clouds(source, split, None, num_points, seed=0, fresh=True))
        return facts
    if skip_bad:
        raise DataError(f"{name!r} is no folder of your own: a published set is not cut")
    if name == modelnet40_c.NAME:
        return _check_modelnet40_c()
    if name not in READERS:
        return [fact for split in SPLITS for fact in _facts(load(name, split))]
    facts = []
    with remedy(name):
        for split in SPLITS:
            source = open_split(name, split)
            facts = facts or [f"{source.name}: {source.layout} layout in {source.root}"]
            facts += _facts(prepare_clouds(source, split, None, 1024, seed=0, fresh=True))
    return facts


def up_axis(clouds: Clouds) -> str | None:
    """Return the axis along which airplanes are lowest, which points up; None without airplanes."""
    if clouds.labels is None or "airplane" not in clouds.classes:
        return None
    planes = clouds.points[clouds.labels == clouds.classes.index("airplane")]  # (P, N, 3)
    height = (planes.amax(1) - planes.amin(1)).mean(0)  # (3,)
    return "xyz"[int(height.argmin())] if len(planes) else None


def _facts(clouds: Clouds) -> list[str]:
    """Return what is true of a split; DataError where it should not be."""
    name, split, points = clouds.name, clouds.split, clouds.points
    accepted = COUNTS.get(name, {}).get(split, (len(clouds),))
    if len(clouds) not in accepted:
        wanted = " or ".join(f"{count:,}" for count in accepted)
        raise DataError(f"{name}, {split}: {len(clouds):,} shapes, expected {wanted}")
    which = " (the official split)" if name in COUNTS and len(clouds) == accepted[0] else ""
    facts = [f"{split}: {len(clouds):,} shapes of {points.shape[1]:,} points{which}"]
    if not points.isfinite().all():
        raise DataError(f"{name}, {split}: NaN or Inf among the points")
    centre = points.mean(1).abs().max().item()
    radius = points.norm(dim=-1).amax(1)  # (S,)
    if centre > TOLERANCE or (radius - 1).abs().max() > TOLERANCE:
        raise DataError(f"{name}, {split}: clouds off the unit sphere")
    facts.append(f"{split}: all values finite, every cloud centred, its farthest point at radius 1")
    if message := repeated_points(clouds):
        facts.append(message)
    if clouds.labels is not None:
        count = torch.bincount(clouds.labels, minlength=len(clouds.classes))  # (classes,)
        full = name not in (*COUNTS, *BUILT_IN) or len(clouds) < 1024 or count.min() > 0
        if len(count) > len(clouds.classes) or not full:
            raise DataError(f"{name}, {split}: labels do not fill the classes")
        facts.append(
            f"{split}: labels {clouds.labels.min()} to {clouds.labels.max()}, "
            f"{count.min():,} to {count.max():,} shapes in each of {len(clouds.classes)} classes"
        )
        if axis := up_axis(clouds):
            facts.append(f"{split}: airplanes are lowest along {axis}: up")
    return [*facts, f"{split}: sha256 {clouds.checksum}"]


def _check_modelnet40_c() -> list[str]:
    """Read every file of ModelNet40-C with its labels."""
    root, wanted = modelnet40_c.locate(), modelnet40_c.NUM_SHAPES
    labels, files = modelnet40_c.read_labels(root), modelnet40_c.corruption_files(root)
    with remedy(modelnet40_c.NAME):
        if len(labels) != wanted:
            raise DataError(f"{root / 'label.npy'}: {len(labels):,} labels, expected {wanted:,}")
        if not files:
            raise DataError(f"{root}: holds no data_<corruption>_<severity>.npy")
    facts = [f"{modelnet40_c.NAME}: npy layout in {root}, {len(labels):,} labels of its own"]
    for name, severities in files.items():
        clouds = [modelnet40_c.read_modelnet40_c(root, name, severity) for severity in severities]
        sizes = [split.points.shape[1] for split in clouds]
        facts.append(
            f"{name}: severities {', '.join(map(str, severities))}; {min(sizes):,} to "
            f"{max(sizes):,} points; airplanes are lowest along {up_axis(clouds[-1])}: up"
        )
    return facts
