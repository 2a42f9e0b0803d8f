"""The OFF reader: each legal form, headers that lie, concave polygons, sampling by area."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_helpers import CUBE

from serplib.data import DataError
from serplib.data.meshes import read_off, sample_surface


def off(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "mesh_0001.off"
    path.write_text(text, encoding)
    return path


@pytest.mark.parametrize(
    "text",
    [
        CUBE.replace("OFF\n8 6 0", "OFF8 6 0"),
        CUBE.replace("OFF\n8 6 0", "OFF 8 6 0"),
        CUBE.replace("OFF\n8 6 0", "# a cube\n\nOFF\n# counts\n8 6 12  # vertices, faces, edges"),
        CUBE.replace("\n", "\r\n"),
        CUBE.replace("4 0 1 2 3", "4 0 1 2 3 255 0 0").replace("4 4 5 6 7", "4 4 5 6 7 0.5 0 1"),
        "\ufeff" + CUBE,
        CUBE.replace("8 6 0", "8 6"),
    ],
    ids=["one line", "one line, space", "comments", "crlf", "colours", "byte order mark", "edges"],
)
def test_off_variants_give_the_same_cube(tmp_path, text):
    vertices, triangles = read_off(off(tmp_path, text))
    want_vertices, want_triangles = read_off(off(tmp_path, CUBE))
    assert np.array_equal(vertices, want_vertices) and np.array_equal(triangles, want_triangles)
    assert triangles.shape == (12, 3)


def test_off_comment_in_latin_1(tmp_path):
    vertices, _ = read_off(off(tmp_path, CUBE.replace("OFF", "# Würfel\x85\nOFF"), "latin-1"))
    assert vertices.shape == (8, 3)


def wrapped(text: str, width: int = 7) -> str:
    """All numbers after the keyword, ``width`` a line, across vertices and faces."""
    keyword, *numbers = text.split()
    lines = [numbers[i : i + width] for i in range(0, len(numbers), width)]
    return "\n".join([keyword, *map(" ".join, lines)])


def prefixed(keyword: str, extra: str) -> str:
    """The cube with more numbers behind each vertex: normals, colours, texture coordinates."""
    lines = CUBE.splitlines()
    return "\n".join([keyword, lines[1], *(f"{line} {extra}" for line in lines[2:10]), *lines[10:]])


LEGAL = {
    "no keyword": CUBE.removeprefix("OFF\n"),
    "COFF": prefixed("COFF", "255 0 0 255"),
    "COFF without alpha": prefixed("COFF", "255 0 0"),
    "NOFF": prefixed("NOFF", "0 0 1"),
    "CNOFF": prefixed("CNOFF", "0 0 1 .5 .5 .5 1"),
    "STOFF": prefixed("STOFF", "0.5 0.5"),
    "OFF with normals": prefixed("OFF", "0 0 1"),
    "wrapped": wrapped(CUBE),
    "a number a line": wrapped(CUBE, 1),
    "all on one line": wrapped(CUBE, 1000).replace("\n", " "),
    "COFF wrapped": wrapped(prefixed("COFF", "255 0 0 255")),
    "COFF without alpha, wrapped": wrapped(prefixed("COFF", "255 0 0")),
    "NOFF wrapped": wrapped(prefixed("NOFF", "0 0 1"), 5),
}


@pytest.mark.parametrize("case", LEGAL)
def test_legal_forms_give_the_same_cube(tmp_path, case):
    vertices, triangles = read_off(off(tmp_path, LEGAL[case]))
    want_vertices, want_triangles = read_off(off(tmp_path, CUBE))
    assert np.array_equal(vertices, want_vertices) and np.array_equal(triangles, want_triangles)


SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
COLOURED = SQUARE.replace("0\n", "0 9 9 9 9\n")
RGBA = SQUARE.replace("\n", " 1 0 0 1\n")
PAIR = "3 0 1 2\n3 0 2 3\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        # The sum of the counts fits: a face was read as the vertex (3, 0, 1) once.
        (f"OFF\n5 1 0\n{SQUARE}{PAIR}", "4 vertices and 2 faces follow"),
        (f"OFF\n3 3 0\n{SQUARE}{PAIR}", "4 vertices and 2 faces follow"),
        (f"5 1 0\n{SQUARE}{PAIR}", "4 vertices and 2 faces follow"),
        (f"COFF\n5 1 0\n{COLOURED}{PAIR}", "4 vertices and 2 faces follow"),
        (f"OFF\n4 1 0\n{SQUARE}{PAIR}", "4 vertices and 2 faces follow"),
        # Faces as wide as vertices: seven numbers a line, and four.
        (f"COFF\n5 1 0\n{RGBA}3 0 1 2 255 0 0\n3 0 2 3 255 0 0\n", "4 vertices and 2 faces"),
        (f"OFF\n5 1 0\n{SQUARE.replace(chr(10), ' 1' + chr(10))}{PAIR}", "4 vertices and 2 faces"),
        (wrapped(CUBE.replace("8 6 0", "9 6 0")), "cut short, or the header lies"),
        (wrapped(CUBE.replace("8 6 0", "7 6 0")), "cut short, or the header lies"),
        (wrapped(CUBE.replace("8 6 0", "8 5 0")), "cut short, or the header lies"),
        (wrapped(CUBE)[:-3], "cut short, or the header lies"),
        # 5 corners announced and 4 given: with the next line's numbers all would be used up.
        (CUBE.replace("4 2 3 7 6", "5 2 3 7 6"), "face '5 2 3 7 6' does not have the corners"),
        (CUBE.replace("OFF", "4OFF"), "4- or n-dimensional"),
        (CUBE.replace("OFF", "nOFF"), "4- or n-dimensional"),
        (CUBE.replace("OFF", "OFF BINARY"), "binary"),
    ],
)
def test_a_header_that_lies_is_named(tmp_path, text, fault):
    with pytest.raises(DataError) as error:
        read_off(off(tmp_path, text))
    assert fault in str(error.value) and "mesh_0001.off" in str(error.value), error.value


def polygon(*corners: tuple[float, float], turn: float = 0.0) -> str:
    """A mesh of one face in a plane that is tilted by ``turn`` radians about x."""
    c, s = np.cos(turn), np.sin(turn)
    lines = [f"{x} {y * c:.9f} {y * s:.9f}" for x, y in corners]
    face = " ".join(map(str, [len(corners), *range(len(corners))]))
    return "\n".join(["OFF", f"{len(corners)} 1 0", *lines, face])


ARROW = ((0, 0), (2, -1), (0.5, 0), (2, 1))  # a fan from its first corner is right
NOTCH = ((2, -1), (2, 1), (0, 1), (1, 0), (0, -1))  # a square without a triangle on its left
CORNER = ((0, 3), (0, 0), (3, 0), (3, 1), (1, 1), (1, 3))  # an L
COMB = ((0, 0), (7, 0), (7, 3), (6, 1), (5, 3), (4, 1), (3, 3), (2, 1), (1, 3), (0, 1))
SPIRAL = (
    *((0, 0), (5, 0), (5, 5), (1, 5), (1, 2), (3, 2), (3, 3)),
    *((2, 3), (2, 4), (4, 4), (4, 1), (0, 1)),
)
KEYHOLE = ((0, 0), (4, 0), (4, 4), (0, 4), (0, 0), (1, 1), (1, 3), (3, 3), (3, 1), (1, 1))


@pytest.mark.parametrize("corners", [ARROW, NOTCH, CORNER, COMB, SPIRAL, KEYHOLE])
@pytest.mark.parametrize("turn", [0.0, 0.6, 1.5707963, 3.0])
@pytest.mark.parametrize("order", [1, -1])
def test_concave_polygons_are_covered_once(tmp_path, corners, turn, order):
    """Triangles have the polygon's area and none is turned over, whichever corner comes first."""
    x, y = np.array(corners).T
    want = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
    for first in range(len(corners)):
        rolled = (corners[first:] + corners[:first])[::order]
        vertices, triangles = read_off(off(tmp_path, polygon(*rolled, turn=turn)))
        a, b, c = vertices[triangles].swapaxes(0, 1)  # (F, 3) each
        areas = np.cross(b - a, c - a) / 2  # (F, 3)
        assert len(triangles) == len(corners) - 2
        assert abs(np.linalg.norm(areas, axis=1).sum() - want) < 1e-6
        assert abs(np.linalg.norm(areas.sum(0)) - want) < 1e-6


def test_a_concave_polygon_of_too_many_corners_is_refused(tmp_path):
    angle = np.arange(600) * (2 * np.pi / 600)
    radius = 2 + np.cos(100 * angle)
    corners = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]).tolist()
    with pytest.raises(DataError, match="a concave face has 600 corners; 512 are accepted"):
        read_off(off(tmp_path, polygon(*corners)))


def test_off_polygons_of_3_4_and_5_corners(tmp_path):
    text = "OFF\n5 3 0\n0 0 0\n2 0 0\n2 1 0\n1 2 0\n0 1 0\n3 0 1 2\n4 0 1 2 4\n5 0 1 2 3 4\n"
    _, triangles = read_off(off(tmp_path, text))
    want = [[0, 1, 2], [0, 1, 2], [0, 2, 4], [0, 1, 2], [0, 2, 3], [0, 3, 4]]  # fans
    assert triangles.tolist() == want


def test_surface_is_sampled_by_area(tmp_path):
    # Two squares, one nine times the other: a tenth of the points falls on the small one.
    text = (
        "OFF\n8 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n5 0 0\n8 0 0\n8 3 0\n5 3 0\n4 0 1 2 3\n4 4 5 6 7"
    )
    path = off(tmp_path, text)
    points = sample_surface(*read_off(path), 20_000, path)  # (20000, 3)
    small = points[points[:, 0] <= 1]
    assert abs(len(small) / 20_000 - 0.1) < 0.01  # 4.7 standard errors
    assert np.abs(small.mean(0) - [0.5, 0.5, 0]).max() < 0.04
    assert (
        np.histogram2d(points[:, 0], points[:, 1], bins=3, range=[[5, 8], [0, 3]])[0].min() > 1800
    )
    assert np.array_equal(points, sample_surface(*read_off(path), 20_000, path))
