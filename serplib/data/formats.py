"""Files of points and meshes that others made, read with suspicion (paper, section 4.1).

Each reader says what is wrong with a bad file in a ``DataError``; none runs code from a file, none
follows it elsewhere, and a size is compared with a limit before memory is taken for it.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import tokenize
from pathlib import Path

import h5py
import numpy as np

from serplib.data.common import DataError

MAX_BYTES = 1 << 31  # of one array that a file declares: 2 GiB
MAX_TEXT = 1 << 29  # of one text file, which takes several times its size to parse
MAX_RATIO = 64  # an h5 that declares more than this times its own size is no set of points
MAX_VALUE = 1e18  # squares of larger coordinates, and of their inverses, leave float32
SURFACE_POINTS = 2048  # taken from a mesh, as PointNet's authors did

# numpy parses the header of a .npy file as Python, so a bad one fails in many ways.
_NPY_ERRORS = (
    *(OSError, ValueError, TypeError, EOFError, LookupError, OverflowError),
    *(SyntaxError, tokenize.TokenError, MemoryError, RecursionError),
)


def check_points(points: np.ndarray, source: object) -> np.ndarray:
    """The cloud itself, ``(N, 3)``, when its points can be scaled to the unit sphere.

    Raises:
        DataError: no points; NaN, Inf or a coordinate past 1e18; all points equal.
    """
    if len(points) == 0:
        raise DataError(f"{source}: holds no points")
    if not (np.abs(points) < MAX_VALUE).all():  # false for NaN too
        raise DataError(f"{source}: NaN, Inf or a coordinate past {MAX_VALUE:g} among its points")
    extent = np.ptp(points, axis=0).max()
    if len(points) > 1 and extent <= max(1e-6 * float(np.abs(points).max()), 1 / MAX_VALUE):
        raise DataError(f"{source}: all {len(points)} points are equal, so the cloud has no size")
    return points


def read_text(path: Path) -> str:
    """A text file of at most 512 MiB, as Latin-1, in which no byte is an error.

    Raises:
        DataError: no such file, or it is empty or larger.
    """
    try:
        size = path.stat().st_size if path.is_file() else -1
        if size > MAX_TEXT:
            raise DataError(f"{path}: {size:,} bytes, more than the {MAX_TEXT:,} that are read")
        text = path.read_text("latin-1") if size >= 0 else None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if text is None:
        raise DataError(f"{path}: file not found")
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    return text.removeprefix("\xef\xbb\xbf")  # the mark that some editors put before UTF-8


def read_list(path: Path, entry: str, what: str) -> list[str]:
    """The base names that a list file gives, one a line, in its order.

    Args:
        path: the list. A line may begin with any folder; only its base name counts.
        entry: regular expression that a whole base name matches. what: that, in words.

    Raises:
        DataError: no entry, one that climbs with ``..``, does not match, or comes twice.
    """
    names: dict[str, None] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        parts = re.split(r"[/\\]", line.strip())
        if parts == [""]:
            continue
        where = f"{path}, line {number}: {line.strip()[:80]!r}"
        if ".." in parts:
            raise DataError(f"{where} climbs out of the folder; expected {what}")
        if not re.fullmatch(entry, parts[-1], re.ASCII):
            raise DataError(f"{where}; expected {what}")
        if parts[-1] in names:
            raise DataError(f"{where} is listed twice; expected each file once")
        names[parts[-1]] = None
    return list(names)


def as_double(values: np.ndarray) -> np.ndarray:
    """In float64, silently: a signalling NaN or an overflow is for `check_points` to name."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float64)


def _xyz(values: np.ndarray, source: Path) -> np.ndarray:
    """``(N, 3)`` float64 of an ``(N, 3)`` array, or of ``(N, 6)`` with normals behind."""
    if values.ndim != 2 or values.shape[1] not in (3, 6) or values.dtype.kind != "f":
        raise DataError(
            f"{source}: {values.dtype} of shape {values.shape}; "
            "expected floats (N, 3), or (N, 6) with normals"
        )
    return check_points(as_double(values[:, :3]), source)  # (N, 3)


def read_xyz(path: Path) -> np.ndarray:
    """Points of a comma-separated text file, a point a line: x, y, z and perhaps a normal.

    Returns:
        ``(N, 3)`` float64, as in the file. DataError for whatever is not such a file.
    """
    text = re.sub(r"#[^\n]*", "", read_text(path))
    if not text.strip():
        raise DataError(f"{path}: holds no points")
    try:
        values = np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2, comments=None)
    except (ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{path}: not comma-separated numbers ({str(error)[:120]})") from None
    return _xyz(values, path)


def open_npy(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file, of any shape and type but objects, mapped and not yet read."""
    if not path.is_file():
        raise DataError(f"{path}: file not found")
    try:  # mapped, so a header that promises more than the file holds costs nothing
        values = np.lib.format.open_memmap(path, mode="r")
    except _NPY_ERRORS as error:
        raise DataError(f"{path}: not a plain .npy array ({str(error)[:120]})") from None
    if values.nbytes > MAX_BYTES:
        raise DataError(f"{path}: declares {values.nbytes:,} bytes, more than {MAX_BYTES:,}")
    return values


def read_npy(path: Path) -> np.ndarray:
    """Points of a ``.npy`` file, ``(N, 3)`` or ``(N, 6)`` of any float type; pickles are refused.

    Returns:
        ``(N, 3)`` float64, as in the file.
    """
    return _xyz(open_npy(path), path)


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


def _h5_array(file: h5py.File, key: str, path: Path) -> h5py.Dataset:
    """An array of an h5 file, not read yet, once its size and place are seen to be sane."""
    data = file[key] if isinstance(file.get(key, getlink=True), h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        raise DataError(f"{path}: holds no array {key!r}; it has {sorted(file)[:8]}")
    if data.external or data.is_virtual:
        raise DataError(f"{path}: {key!r} is kept in another file, which is not followed")
    declared, size = data.size * data.dtype.itemsize, path.stat().st_size
    if declared > min(MAX_BYTES, MAX_RATIO * max(size, 1 << 20)):
        raise DataError(
            f"{path}: {key!r} declares shape {data.shape} of {data.dtype}, {declared:,} bytes, "
            f"in a file of {size:,}: damaged, or not a set of clouds"
        )
    return data


def read_h5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Clouds and labels of an h5 file with ``data`` (S, N, 3) and ``label`` (S, 1) or (S,).

    Returns:
        ``(S, N, 3)`` in the file's float type, its values not checked yet; ``(S,)`` int64.
    """
    if not path.is_file():
        raise DataError(f"{path}: file not found")
    try:
        with h5py.File(path, "r") as file:
            data, label = _h5_array(file, "data", path), _h5_array(file, "label", path)
            if data.dtype.kind != "f" or data.ndim != 3 or data.shape[2] != 3:
                raise DataError(
                    f"{path}: 'data' is {data.dtype} {data.shape}; expected floats (S, N, 3)"
                )
            if label.dtype.kind not in "iu" or label.shape not in ((len(data), 1), (len(data),)):
                raise DataError(
                    f"{path}: 'label' is {label.dtype} {label.shape}; expected whole numbers "
                    f"{(len(data), 1)} or {(len(data),)}, one for each cloud"
                )
            if len(data) == 0:
                raise DataError(f"{path}: holds no clouds")
            return data[:], label[:].reshape(-1).astype(np.int64)  # (S, N, 3), (S,)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise DataError(f"{path}: not a readable h5 file ({str(error)[:120]})") from None
