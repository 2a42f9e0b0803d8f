"""Meshes, and points sampled on their surface (paper, section 4.1)."""

from __future__ import annotations

import hashlib
import io
import math
import re
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from serplib.data.common import DataError
from serplib.data.formats import MAX_TEXT, check_points, read_text, reading

MESHES = (".off", ".obj", ".stl", ".ply", ".glb")
SURFACE_POINTS = 2048  # sampled on a mesh, as PointNet's authors did
LIES = "follow: cut short, or the header lies"
MAX_CORNERS = 512  # of a polygon that needs ear clipping, which takes cubic time


def read_off(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a mesh in the ASCII OFF format, its polygons cut into triangles.

    The keyword may be ``OFF`` with the prefixes ``ST``, ``C`` or ``N``, or absent, and the counts
    may stand on its line (``OFF490 518 0``). ``#`` opens a comment. Numbers may be wrapped across
    lines; where each vertex and face has a line, what follows its numbers (a colour) is skipped.

    Returns:
        Vertices ``(V, 3)`` float64, and triangles ``(F, 3)`` int64 that index them.

    Raises:
        DataError: the file is not such a mesh, or holds other counts than its header declares.
    """
    text = re.sub(r"#[^\n]*", "", read_text(path)).strip()
    pattern = r"\A((?:ST)?C?N?4?n?OFF|off|)\s*(BINARY|)\s*(.*)"
    keyword, binary, body = re.findall(pattern, text, re.DOTALL)[0]
    if not keyword and not body[:1].isdecimal():
        raise DataError(f"{path}: begins with {body[:20]!r}; expected 'OFF'")
    if binary or re.search("[4n]", keyword):
        raise DataError(f"{path}: a binary, 4- or n-dimensional OFF is not read; save ASCII OFF")
    declared = body.split(None, 3)[:3]
    if len(declared) < 2 or not all(re.fullmatch(r"-?\d{1,18}", count) for count in declared[:2]):
        raise DataError(f"{path}: no counts of vertices and faces after 'OFF'")
    lines = [line.strip() for line in body.split("\n") if line.strip()]
    rows = [_floats(line, path) for line in lines]
    numbers = np.array(list(chain.from_iterable(rows)))  # (W,) float64, of all lines
    num_vertices, num_faces = int(declared[0]), int(declared[1])
    says = f"{path}: the header declares {' '.join(declared)!r} (vertices, faces, edges), but"
    if num_vertices < 3 or num_faces < 1 or num_vertices + num_faces > len(numbers):
        raise DataError(f"{says} {len(lines) - 1} lines {LIES}")
    try:
        starts = _starts(
            lines, np.array([*map(len, rows)]), numbers, num_vertices, num_faces, keyword
        )
    except ValueError as error:
        raise DataError(f"{says} {error}") from None
    vertices = numbers[starts[:num_vertices, None] + np.arange(3)]  # (V, 3)
    check_points(vertices, path)
    return vertices, _triangles(numbers, starts[num_vertices:], vertices, path)


def _floats(line: str, path: Path) -> list[float]:
    try:
        return [float(word) for word in line.split()]
    except ValueError:
        raise DataError(f"{path}: line {line[:40]!r} does not hold numbers") from None


def _starts(
    lines: list[str],
    sizes: np.ndarray,
    numbers: np.ndarray,
    num_vertices: int,
    num_faces: int,
    keyword: str,
) -> np.ndarray:
    """Locate the records, on one line each or wrapped: ``(V + F,)`` indices into ``numbers``.

    Raises:
        ValueError: the lines are not those that the header declares; says which differ.
    """
    starts, sizes = sizes.cumsum()[:-1], sizes[1:]  # (L - 1,) of the lines after the counts
    counts = numbers[starts]
    is_vertex = (sizes >= 3) & (sizes == sizes[:1])
    is_face = (counts >= 1) & (counts == counts.round()) & (counts < sizes)
    right = np.append(is_vertex[:num_vertices], is_face[num_vertices:])
    lined = len(sizes) == num_vertices + num_faces  # then no number is wrapped
    if lined and right.all():
        last = num_vertices - 1  # where faces are as wide, a face may be counted as a vertex
        if (sizes[num_vertices:] == sizes[:1]).any() and is_face[last] and counts[last] >= 3:
            corners = numbers[starts[last] + 1 :][: int(counts[last])]
            if set(corners) <= set(range(last)) and len(set(corners)) == len(corners):
                raise ValueError(f"{last} vertices and {len(sizes) - last} faces {LIES}")
        return starts
    size = 3 + 3 * ("N" in keyword) + 2 * ("ST" in keyword)
    widths = (size + 4, size + 3) if "C" in keyword else (size,)  # a colour: with alpha or not
    for width in () if lined else widths:
        found = [3 + width * i for i in range(num_vertices)]  # after three counts
        place = 3 + width * num_vertices
        while len(found) < num_vertices + num_faces and place < len(numbers):
            if not 3 <= numbers[place] < len(numbers) or numbers[place] % 1:
                break
            found.append(place)
            place += 1 + int(numbers[place])
        if len(found) == num_vertices + num_faces and place == len(numbers):
            return np.array(found)
    vertices = int(np.append(~is_vertex, True).argmax())  # lines, if the rest are faces
    if 3 <= vertices < len(sizes) and is_face[vertices:].all():
        raise ValueError(f"{vertices} vertices and {len(sizes) - vertices} faces {LIES}")
    if not lined:
        raise ValueError(f"{len(sizes)} lines {LIES}")
    row = int(right.argmin())
    if row < num_vertices:
        raise ValueError(f"vertex {lines[row + 1][:40]!r} is not three numbers as the others are")
    raise ValueError(f"face {lines[row + 1][:40]!r} does not have the corners it announces")


def _triangles(
    numbers: np.ndarray, starts: np.ndarray, vertices: np.ndarray, path: Path
) -> np.ndarray:
    """Cut the faces that begin at ``starts`` into triangles ``(F, 3)`` int64."""
    sizes = numbers[starts].astype(np.int64)
    order = np.sort(np.unique(sizes, return_index=True)[1])  # sizes as they first appear
    triangles = [np.empty((0, 3), np.int64)]
    for size in sizes[order].tolist():
        corners = numbers[starts[sizes == size, None] + np.arange(1, size + 1)]  # (G, size)
        index = np.nan_to_num(corners, nan=-1, posinf=-1, neginf=-1)
        wrong = ((index != index.round()) | (index < 0) | (index >= len(vertices))).any(1)  # (G,)
        if wrong.any():
            face = " ".join(f"{corner:g}" for corner in corners[wrong][0, :8])
            raise DataError(
                f"{path}: face '{size} {face}' has a corner outside 0..{len(vertices) - 1}"
            )
        triangles += _cut(index.astype(np.int64), vertices, path)
    return np.concatenate(triangles)


def _cut(polygons: np.ndarray, vertices: np.ndarray, path: Path) -> list[np.ndarray]:
    """Cut polygons ``(G, size)`` into triangles: fans where these do not overlap, else ears."""
    size = polygons.shape[1]
    fans = [polygons[:, [0, i, i + 1]] for i in range(1, size - 1)]  # each (G, 3)
    if size <= 3:
        return fans
    edges = vertices[polygons[:, 1:]] - vertices[polygons[:, :1]]  # (G, size - 1, 3)
    areas = np.cross(edges[:, :-1], edges[:, 1:])  # (G, size - 2, 3)
    normal = areas.sum(1)  # (G, 3)
    signed = (areas * normal[:, None]).sum(-1)  # (G, size - 2)
    concave = (signed < -1e-9 * (normal**2).sum(-1, keepdims=True)).any(1)  # (G,)
    if concave.any() and size > MAX_CORNERS:
        raise DataError(f"{path}: a concave face has {size} corners; {MAX_CORNERS} are accepted")
    pieces = [fan[~concave] for fan in fans]
    for polygon, up in zip(polygons[concave], normal[concave]):
        axis = int(np.abs(up).argmax())
        flat = vertices[polygon][:, [axis - 2, axis - 1]] * (1, np.sign(up[axis]))  # (size, 2)
        pieces.append(polygon[_clip_ears(flat)])
    return pieces


def _clip_ears(flat: np.ndarray) -> np.ndarray:
    """Triangulate a simple polygon ``(k, 2)``, anticlockwise, by clipping ears (Meisters, 1975).

    Returns:
        ``(k - 2, 3)`` int64 indices of corners. Of a polygon that crosses itself, which has no
        right answer, some triangles overlap.
    """
    left, triangles = np.arange(len(flat)), []
    while len(left) > 3:
        a, b, c = (np.roll(left, shift) for shift in (1, 0, -1))
        area = _doubled_area(flat[a], flat[b], flat[c])  # (k',)
        ear = int(area.argmax())
        for place in np.flatnonzero(area > 0):
            p, q, r = flat[a[place]], flat[b[place]], flat[c[place]]
            others = flat[np.delete(left, [place - 1, place, (place + 1) % len(left)])]
            others = others[np.all([(others != corner).any(1) for corner in (p, q, r)], axis=0)]
            within = [_doubled_area(*pair, others) >= 0 for pair in ((p, q), (q, r), (r, p))]
            if not np.all(within, axis=0).any():
                ear = int(place)
                break
        triangles.append((a[ear], b[ear], c[ear]))
        left = np.delete(left, ear)
    return np.array([*triangles, tuple(left)])


def _doubled_area(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return twice the signed area of triangles in the plane, positive if anticlockwise."""
    u, v = b - a, c - a
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def read_mesh(path: Path) -> np.ndarray:
    """Read a mesh and sample ``SURFACE_POINTS`` points on it: ``(N, 3)`` float64.

    Formats other than OFF are read by trimesh, without materials and without the files that they
    refer to. A file of points alone, such as a scan in ``.ply``, gives its points.

    Raises:
        DataError: the file is no mesh, or has no area.
    """
    kind = path.suffix.lower()
    if kind == ".off":
        return sample_surface(*read_off(path), SURFACE_POINTS, path)
    with reading(path, f"not a readable {kind} file", MAX_TEXT):
        import trimesh  # only here: the other sets do not need it

        content = io.BytesIO(path.read_bytes())  # not a path: nothing beside the file is opened
        scene = trimesh.load_scene(content, file_type=kind[1:], process=False, skip_materials=True)
        pieces: list[Any] = scene.dump()  # each where the scene puts it
        solid = [piece for piece in pieces if len(getattr(piece, "faces", ()))]
        mesh: Any = trimesh.util.concatenate(solid) if solid else None
    if mesh is None:
        return check_points(np.concatenate([np.empty((0, 3)), *(p.vertices for p in pieces)]), path)
    return sample_surface(np.asarray(mesh.vertices), np.asarray(mesh.faces), SURFACE_POINTS, path)


def sample_surface(
    vertices: np.ndarray, triangles: np.ndarray, num_points: int, source: Path
) -> np.ndarray:
    """Sample points uniformly on a mesh, the same ones for the same file name.

    Args:
        vertices: ``(V, 3)`` float64.
        triangles: ``(F, 3)`` int64.
        num_points: N, of the ``(N, 3)`` float64 that is returned.
        source: the file; its name, without folders, seeds the generator.

    Raises:
        DataError: the triangles have no area.
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
