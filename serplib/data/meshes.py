"""Meshes in the OFF format, and points sampled on their surface (paper, section 4.1)."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path

import numpy as np

from serplib.data.common import DataError
from serplib.data.formats import check_points, read_text

SURFACE_POINTS = 2048  # sampled on a mesh, as PointNet's authors did


def read_off(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A mesh in the OFF format, its polygons cut into fans of triangles.

    The header may stand on one line (``OFF490 518 0``), ``#`` opens a comment, and what follows a
    polygon's corners on its line (a colour) is skipped.

    Returns:
        Vertices ``(V, 3)`` float64, and triangles ``(F, 3)`` int64 that index them.

    Raises:
        DataError: the file is not such a mesh, or holds other counts than its header says.
    """
    text = re.sub(r"#[^\n]*", "", read_text(path))
    lines = [line for line in text.split("\n") if line.strip()]
    first = lines[0].strip() if lines else ""
    if first[:3].upper() != "OFF":
        raise DataError(f"{path}: begins with {first[:20]!r}; expected 'OFF'")
    lines = [first[3:], *lines[1:]] if first[3:].strip() else lines[1:]
    try:
        num_vertices, num_faces = (int(count) for count in lines[0].split()[:2])
    except (IndexError, ValueError):
        raise DataError(f"{path}: no counts of vertices and faces after 'OFF'") from None
    if num_vertices < 3 or num_faces < 1 or num_vertices + num_faces != len(lines) - 1:
        raise DataError(
            f"{path}: the header declares {lines[0].strip()[:40]!r} (vertices, faces, edges), but "
            f"{len(lines) - 1} lines follow: cut short, or the header lies"
        )
    try:
        rows = lines[1 : 1 + num_vertices]
        vertices = np.loadtxt(rows, usecols=(0, 1, 2), ndmin=2, comments=None)  # (V, 3)
    except (ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{path}: a vertex is not three numbers ({str(error)[:120]})") from None
    check_points(vertices, path)
    return vertices, _triangles(lines[1 + num_vertices :], num_vertices, path)


def _triangles(lines: list[str], num_vertices: int, path: Path) -> np.ndarray:
    """``(F, 3)`` int64 from the face lines of an OFF file, polygons of one size at a time."""
    by_size: dict[str, list[str]] = {}
    for line in lines:
        by_size.setdefault(line.split(None, 1)[0], []).append(line)
    fans = []
    for size, faces in by_size.items():
        where = f"{path}: a face such as {faces[0].strip()[:40]!r}"
        if not size.isdecimal() or not 1 <= int(size[:9]) < len(faces[0].split()):
            raise DataError(f"{where} does not have the corners it announces")
        count = int(size)
        try:
            corners = np.loadtxt(faces, usecols=range(1, count + 1), ndmin=2, comments=None)
        except (ValueError, IndexError, OverflowError) as error:
            raise DataError(f"{where}: corners are missing ({str(error)[:120]})") from None
        index = np.nan_to_num(corners, nan=-1, posinf=-1, neginf=-1)  # (G, count)
        wrong = ((index != index.round()) | (index < 0) | (index >= num_vertices)).any(1)  # (G,)
        if wrong.any():
            line = faces[int(wrong.argmax())].strip()[:40]
            raise DataError(f"{path}: face {line!r} has a corner outside 0..{num_vertices - 1}")
        index = index.astype(np.int64)
        fans += [index[:, [0, i, i + 1]] for i in range(1, count - 1)]  # each (G, 3)
    return np.concatenate([np.empty((0, 3), np.int64), *fans])  # (F, 3)


def sample_surface(
    vertices: np.ndarray, triangles: np.ndarray, num_points: int, source: Path
) -> np.ndarray:
    """Points spread evenly over the area of a mesh, the same ones for the same file name.

    Args:
        vertices: ``(V, 3)`` float64. triangles: ``(F, 3)`` int64.
        num_points: N. source: the file; its name, without folders, seeds the generator.

    Returns:
        ``(N, 3)`` float64. DataError when the triangles have no area.
    """
    corners = vertices[triangles]  # (F, 3 corners, 3)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]  # each (F, 3)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).cumsum()  # (F,) twice the area so far
    if len(area) == 0 or not area[-1] > 0 or not math.isfinite(area[-1]):
        raise DataError(f"{source}: its faces have no area to take points from")
    digest = hashlib.sha256(source.stem.encode("utf-8", "surrogateescape")).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    face = np.searchsorted(area, random.random(num_points) * area[-1], side="right")  # (N,)
    a, b, c = corners[face.clip(max=len(area) - 1)].swapaxes(0, 1)  # each (N, 3)
    u, v = np.sqrt(random.random((num_points, 1))), random.random((num_points, 1))  # (N, 1)
    return check_points(a * (1 - u) + b * u * (1 - v) + c * u * v, source)  # (N, 3)
