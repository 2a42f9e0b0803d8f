"""Malformed files of every layout: named, explained, and never another exception."""

from __future__ import annotations

import json
import pickle
import resource
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from data_helpers import (
    CUBE,
    cloud,
    write_dat,
    write_h5,
    write_h5_file,
    write_shapenet,
    write_text,
    write_tree,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from serplib.checkpoint import load_weights, save_weights
from serplib.data import DataError, load
from serplib.data.formats import read_h5, read_list, read_npy, read_xyz
from serplib.data.meshes import read_off, sample_surface
from serplib.data.modelnet import CLASSES

# ---- malformed files: what is written, how it is damaged, what the message must say ----


def h5(data, label, key="data"):
    def damage(root: Path) -> None:
        with h5py.File(root / "ply_data_train0.h5", "w") as file:
            file[key], file["label"] = data, label

    return damage


def put(name: str, content):
    """Replace a file by text, bytes or an array, or delete it (None)."""

    def damage(root: Path) -> None:
        path = root / name
        path.unlink(missing_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            np.save(path, content, allow_pickle=True)

    return damage


def cut(name: str, keep: float):
    def damage(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: int(len(content) * keep)])

    return damage


def huge_h5(root: Path) -> None:
    with h5py.File(root / "ply_data_train0.h5", "w") as file:
        file.create_dataset("data", (10**9, 2048, 3), "f4", chunks=(1, 2048, 3))  # nothing stored
        file["label"] = np.zeros((20, 1), "u1")


def linked_h5(root: Path) -> None:
    with h5py.File(root / "ply_data_train0.h5", "w") as file:
        file["data"] = h5py.ExternalLink("ply_data_test0.h5", "data")
        file["label"] = np.zeros((20, 1), "u1")


def external_h5(root: Path) -> None:
    with h5py.File(root / "ply_data_train0.h5", "w") as file:
        place = [(str(root / "elsewhere.bin"), 0, GOOD.nbytes)]
        file.create_dataset("data", data=GOOD, dtype="f4", external=place)
        file["label"] = LABEL


def unlisted(root: Path) -> None:
    for file in (root / "train_files.txt", *root.glob("ply_data_train*.h5")):
        file.unlink()


def gap(root: Path) -> None:
    (root / "train_files.txt").unlink()
    (root / "ply_data_train1.h5").rename(root / "ply_data_train2.h5")


def twice(root: Path) -> None:
    (root / "train_files.txt").unlink()
    (root / "ply_data_train1.h5").rename(root / "train0.h5")


def names_of(names):
    def damage(root: Path) -> None:
        (root / "ply_data_train0_id2name.json").write_text(json.dumps(names))

    return damage


def huge_npy(root: Path) -> None:
    with open(root / "bed" / "train" / "bed_0001.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)}
        np.lib.format.write_array_header_1_0(file, header)


def sparse_text(root: Path) -> None:
    with open(root / "airplane" / "airplane_0001.txt", "wb") as file:
        file.truncate(1 << 40)


def empty(root: Path) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def points(*, at=0, value=np.nan) -> np.ndarray:
    data = np.stack([cloud(80, i) for i in range(20)])  # (20, 80, 3)
    data[3, 5, at] = value
    return data


LABEL = np.arange(20, dtype="u1")[:, None]
GOOD = points(value=1.0)
EQUAL = np.concatenate([GOOD[:19], np.full((1, 80, 3), 0.1, "f4")])
OFF, NPY = "bed/train/bed_0001.off", "bed/train/bed_0001.npy"
TXT = "airplane/airplane_0001.txt"
MODEL = "shapenet_pc/02691156-1a04e3eab45ca15dd86060f189ebtrain.npy"
H5_FILE = "ply_data_train0.h5"
MALFORMED = {
    # id: (layout, damage, the file named, the fault named)
    "h5 truncated": ("h5", cut(H5_FILE, 0.5), H5_FILE, "readable h5"),
    "h5 is text": ("h5", put(H5_FILE, "<html>404 Not Found</html>"), H5_FILE, "readable h5"),
    "h5 empty": ("h5", put(H5_FILE, b""), H5_FILE, "readable h5"),
    "h5 missing": ("h5", put(H5_FILE, None), H5_FILE, "not found"),
    "h5 wrong key": ("h5", h5(GOOD, LABEL, "points"), H5_FILE, "no array 'data'"),
    "h5 2-d": ("h5", h5(GOOD[0], LABEL), H5_FILE, "expected floats (S, N, 3)"),
    "h5 with normals": ("h5", h5(np.zeros((20, 80, 6)), LABEL), H5_FILE, "expected floats"),
    "h5 integers": ("h5", h5(np.ones((20, 80, 3), "i4"), LABEL), H5_FILE, "expected floats"),
    "h5 strings": ("h5", h5(b"words", LABEL), H5_FILE, "expected floats"),
    "h5 NaN": ("h5", h5(points(), LABEL), f"{H5_FILE}, shape 3", "NaN"),
    "h5 Inf": ("h5", h5(points(value=-np.inf), LABEL), f"{H5_FILE}, shape 3", "Inf"),
    "h5 huge values": ("h5", h5(points(value=1e30), LABEL), f"{H5_FILE}, shape 3", "past 1e+18"),
    "h5 equal points": ("h5", h5(EQUAL, LABEL), f"{H5_FILE}, shape 19", "80 points are equal"),
    "h5 no points": ("h5", h5(np.zeros((20, 0, 3)), LABEL), H5_FILE, "no points"),
    "h5 one point": ("h5", h5(GOOD[:, :1], LABEL), H5_FILE, "1 points, fewer"),
    "h5 no clouds": ("h5", h5(GOOD[:0], LABEL[:0]), H5_FILE, "no clouds"),
    "h5 label too large": ("h5", h5(GOOD, LABEL + 40), H5_FILE, "labels 40 to 59"),
    "h5 label negative": ("h5", h5(GOOD, LABEL.astype("i4") - 1), H5_FILE, "labels -1"),
    "h5 label float": ("h5", h5(GOOD, LABEL.astype("f4")), H5_FILE, "whole numbers"),
    "h5 lengths differ": ("h5", h5(GOOD, LABEL[:19]), H5_FILE, "one for each cloud"),
    "h5 huge shape": ("h5", huge_h5, H5_FILE, "declares shape (1000000000, 2048, 3)"),
    "h5 link elsewhere": ("h5", linked_h5, H5_FILE, "no array 'data'"),
    "h5 data elsewhere": ("h5", external_h5, H5_FILE, "in another file, which is not followed"),
    "list and numbered files missing": ("h5", unlisted, "train_files.txt", "not found, nor train0"),
    "numbered file missing": ("h5", gap, "modelnet40", "holds ply_data_train2.h5, but no number 1"),
    "two files of a number": ("h5", twice, "train0.h5", "has the number of ply_data_train0.h5"),
    "h5 names shifted": ("h5", names_of(CLASSES[1:21]), "id2name.json", "shape 0 is 'bathtub'"),
    "h5 names short": (
        "h5",
        names_of(CLASSES[:19]),
        "id2name.json",
        "19 names, but ply_data_train",
    ),
    "h5 names no list": ("h5", names_of(3), "id2name.json", "not a list of names"),
    "h5 names no JSON": (
        "h5",
        put("ply_data_train0_id2name.json", "{"),
        "id2name.json",
        "not a list",
    ),
    "list empty": ("h5", put("train_files.txt", " \n"), "train_files.txt", "empty"),
    "list climbs": ("h5", put("train_files.txt", "../../etc/x.h5"), "line 1", "climbs"),
    "list climbs by backslash": ("h5", put("train_files.txt", "..\\x.h5"), "line 1", "climbs"),
    "list names no h5": ("h5", put("train_files.txt", "/etc/passwd"), "line 1", "an .h5 file"),
    "list is binary": ("h5", put("train_files.txt", b"\x89HDF\r\n\x1a\n\xff"), "line 1", "an .h5"),
    "list repeats": ("h5", put("train_files.txt", "a.h5\nb/a.h5"), "line 2", "twice"),
    "names lack a class": ("h5", put("shape_names.txt", "bed\nsofa"), "shape_names", "found 2"),
    "names unknown": ("h5", put("shape_names.txt", "bed\nunicorn"), "shape_names", "unicorn"),
    "off truncated": ("off", cut(OFF, 0.6), OFF, "cut short, or the header lies"),
    "off header too large": (
        "off",
        put(OFF, CUBE.replace("8 6 0", "9 6 0")),
        OFF,
        "declares '9 6 0'",
    ),
    "off header too small": (
        "off",
        put(OFF, CUBE.replace("8 6 0", "8 5 0")),
        OFF,
        "declares '8 5 0'",
    ),
    "off header shifted": (
        "off",
        put(OFF, CUBE.replace("8 6 0", "7 7 0")),
        OFF,
        "declares '7 7 0' (vertices, faces, edges), but 8 vertices and 6 faces follow",
    ),
    "off header huge": (
        "off",
        put(OFF, "OFF\n999999999999 9 0\n0 0 0\n"),
        OFF,
        "declares '999999999999 ",
    ),
    "off header negative": ("off", put(OFF, CUBE.replace("8 6", "-8 6")), OFF, "declares '-8 6"),
    "off header words": ("off", put(OFF, CUBE.replace("8 6 0", "a b c")), OFF, "no counts"),
    "off only the word": ("off", put(OFF, "OFF"), OFF, "no counts"),
    "off other format": ("off", put(OFF, "solid cube\nfacet"), OFF, "expected 'OFF'"),
    "off only a comment": ("off", put(OFF, "# nothing"), OFF, "expected 'OFF'"),
    "off empty": ("off", put(OFF, ""), OFF, "empty"),
    "off vertex words": ("off", put(OFF, CUBE.replace("0 1 1\n", "0 x 1\n")), OFF, "'0 x 1' does"),
    "off vertex of two": ("off", put(OFF, CUBE.replace("0 1 1\n", "0 1\n")), OFF, "three numbers"),
    "off vertex NaN": ("off", put(OFF, CUBE.replace("0 1 1\n", "0 nan 1\n")), OFF, "NaN"),
    "off index too large": (
        "off",
        put(OFF, CUBE.replace("2 3 7 6", "2 3 7 8")),
        OFF,
        "outside 0..7",
    ),
    "off index negative": (
        "off",
        put(OFF, CUBE.replace("2 3 7 6", "2 3 7 -1")),
        OFF,
        "outside 0..7",
    ),
    "off index float": (
        "off",
        put(OFF, CUBE.replace("2 3 7 6", "2 3 7 .5")),
        OFF,
        "outside 0..7",
    ),
    "off corner missing": (
        "off",
        put(OFF, CUBE.replace("4 2 3 7 6", "5 2 3 7 6")),
        OFF,
        "announces",
    ),
    "off corner count huge": ("off", put(OFF, CUBE.replace("4 2 3", f"{10**30} 2 3")), OFF, "face"),
    "off no area": ("off", put(OFF, "OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n"), OFF, "no area"),
    "off points equal": ("off", put(OFF, "OFF\n3 1 0" + "\n1 1 1" * 3 + "\n3 0 1 2"), OFF, "equal"),
    "class folder missing": ("off", lambda r: (r / "bed").rename(r / "bett"), "ModelNet10", "bed"),
    "class folder empty": ("off", put(OFF, None), "bed/train", "no .off file"),
    "npy pickled": ("npy", put(NPY, np.array([{"a": 1}], object)), NPY, "plain .npy"),
    "npy is a pickle": ("npy", put(NPY, pickle.dumps([1, 2])), NPY, "plain .npy"),
    "npy truncated": ("npy", cut(NPY, 0.5), NPY, "plain .npy"),
    "npy empty": ("npy", put(NPY, b""), NPY, "plain .npy"),
    "npy huge shape": ("npy", huge_npy, NPY, "plain .npy"),
    "npy integers": ("npy", put(NPY, np.ones((80, 3), "i4")), NPY, "expected floats"),
    "npy 1-d": ("npy", put(NPY, np.ones(240)), NPY, "expected floats"),
    "npy 3-d": ("npy", put(NPY, GOOD), NPY, "expected floats"),
    "npy transposed": ("npy", put(NPY, GOOD[0].T.copy()), NPY, "expected floats"),
    "npy NaN": ("npy", put(NPY, points()[3]), NPY, "NaN"),
    "txt missing": ("txt", put(TXT, None), TXT, "not found"),
    "txt empty": ("txt", put(TXT, ""), TXT, "empty"),
    "txt words": ("txt", put(TXT, "x,y,z\n1,2,3\n"), TXT, "comma-separated"),
    "txt spaces": ("txt", put(TXT, "1 2 3\n4 5 6\n"), TXT, "comma-separated"),
    "txt ragged": ("txt", put(TXT, "1,2,3\n4,5\n"), TXT, "comma-separated"),
    "txt two columns": ("txt", put(TXT, "1,2\n4,5\n"), TXT, "expected floats (N, 3)"),
    "txt one point": ("txt", put(TXT, "1,2,3\n"), TXT, "1 points, fewer"),
    "txt NaN": ("txt", put(TXT, "1,2,3\n4,nan,6\n"), TXT, "NaN"),
    "txt overflow": ("txt", put(TXT, "1,2,3\n4,1e999,6\n"), TXT, "Inf"),
    "txt Latin-1": ("txt", put(TXT, "1,2,3\n4,é,6\n".encode("latin-1")), TXT, "comma-separated"),
    "txt of a terabyte": ("txt", sparse_text, TXT, "bytes, more than"),
    "txt list climbs": ("txt", put("modelnet40_train.txt", "../bed_0001"), "line 1", "climbs"),
    "txt list of files": ("txt", put("modelnet40_train.txt", "bed.h5"), "line 1", "airplane_0001"),
    "txt list unknown": ("txt", put("modelnet40_train.txt", "cat_0001"), "_train.txt", "'cat'"),
    "txt names missing": (
        "txt",
        put("modelnet40_shape_names.txt", None),
        "_names.txt",
        "not found",
    ),
    "folder empty": ("npy", empty, "ModelNet10", "none of the known layouts"),
    "shapenet cloud missing": ("shapenet", put(MODEL, None), MODEL, "not found"),
    "shapenet cloud cut": ("shapenet", cut(MODEL, 0.9), MODEL, "plain .npy"),
    "shapenet lists missing": (
        "shapenet",
        put("ShapeNet-55/train.txt", None),
        "train.txt",
        "not f",
    ),
    "shapenet climbs": ("shapenet", put("train.txt", "../02691156-a.npy"), "train.txt", "climbs"),
    "shapenet entry": ("shapenet", put("train.txt", "02691156/a.npy"), "train.txt", "<synset>-"),
    "shapenet synset": ("shapenet", put("train.txt", "00000000-a.npy"), "train.txt", "00000000"),
    "shapenet empty": ("shapenet", empty, "train.txt", "not found"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_input_is_named_explained_and_answered(root, case):
    layout, damage, file, fault = MALFORMED[case]
    write = {
        "h5": lambda: write_h5(root / "modelnet40"),
        "txt": lambda: write_text(root / "modelnet40", 5),
        "off": lambda: write_tree(root / "ModelNet10", "off"),
        "npy": lambda: write_tree(root / "ModelNet10", "npy"),
        "shapenet": lambda: write_shapenet(root / "shapenet55", 5),
    }[layout]
    folder = write()
    damage(folder)
    name = "shapenet55" if layout == "shapenet" else "modelnet40"
    started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError) as error:
        load(name, "train", num_points=5)
    assert time.process_time() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000  # KB on Linux
    message = str(error.value)
    assert file in message and fault in message, message
    assert f"serp data check {name}" in message and "SERP_DATA" in message
    assert len(message) < 700


def test_damaged_pickles_are_named(root):
    folder = write_dat(root / "modelnet40")
    path = folder / "modelnet40_train_8192pts_fps.dat"
    good, labels = [cloud(9, 0)] * 3, [np.array([0])] * 3
    for content, fault in (
        (path.read_bytes()[:-300], "not a pickled pair of lists"),
        (b"", "not a pickled pair of lists"),
        (b"<html>", "not a pickled pair of lists"),
        (pickle.dumps([good, labels, 1]), "not a pickled pair of lists"),
        (pickle.dumps([good, [[0]] * 3]), "a label is no number"),
        (pickle.dumps([good, labels[:2]]), "as many labels"),
        (pickle.dumps([[], []]), "as many labels"),
        (pickle.dumps([tuple(good), labels]), "expected a list of clouds"),
        (pickle.dumps([good, [np.array([0.5])] * 3]), "labels are float64"),
        (pickle.dumps([good, [np.array([40])] * 3]), "labels 40 to 40; expected 0 to 39"),
        (pickle.dumps([["x"] * 3, labels]), "shape 0: expected an array of floats"),
        (pickle.dumps([[np.ones((9, 3), int)] * 3, labels]), "shape 0: expected an array"),
        (pickle.dumps([[points()[3]] * 3, labels]), "NaN"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "not a pickled pair of lists"),  # huge bytes
    ):
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            load("modelnet40", "train", num_points=5)
        assert path.name in str(error.value) and fault in str(error.value), error.value
    path.unlink()
    with pytest.raises(DataError, match=r"modelnet40_train_8192pts_fps\.dat: file not found"):
        load("modelnet40", "train", num_points=5)


# ---- fuzz ----

WORDS = "OFF OFF8 8 6 0 1 2 3 4 -1 1e400 nan inf x # , 1,2,3 ../ a.h5 \\ 99999999999999 0.5 \x85 é"
words = st.sampled_from(WORDS.split(" "))
texts = st.lists(st.lists(words, max_size=5).map(" ".join), max_size=12).map("\n".join)
changed = st.tuples(st.integers(0, len(CUBE)), st.integers(0, 6), words).map(
    lambda edit: CUBE[: edit[0]] + edit[2] + CUBE[edit[0] + edit[1] :]
)
junk = st.binary(max_size=60)


def whole(path: Path, write) -> bytes:
    """What ``write`` puts into a file."""
    write(path)
    content = path.read_bytes()
    path.unlink()
    return content


def patched(content: bytes):
    """Some bytes of a good file overwritten, and its end perhaps cut off."""
    edits = st.lists(st.tuples(st.integers(0, len(content) - 1), st.binary(max_size=8)), max_size=3)
    keep = st.one_of(st.just(len(content)), st.integers(0, len(content)))

    def apply(drawn):
        edited = content
        for place, patch in drawn[0]:
            edited = edited[:place] + patch + edited[place + len(patch) :]
        return edited[: drawn[1]]

    return st.tuples(edits, keep).map(apply)


def off_is_a_mesh_or_an_error(path):
    vertices, triangles = read_off(path)
    points = sample_surface(vertices, triangles, 10, path)
    assert points.shape == (10, 3) and np.isfinite(points).all()
    assert triangles.min() >= 0 and triangles.max() < len(vertices)


def points_are_finite(reader):
    def check(path):
        points = reader(path)
        assert points.shape[1] == 3 and np.isfinite(points).all()

    return check


def names_stay_in_the_folder(path):
    names = read_list(path, r"[\w.-]+\.h5", "the name of an .h5 file")
    assert names and all("/" not in name and name.endswith(".h5") for name in names)


def h5_is_a_set_or_an_error(path):
    data, label = read_h5(path)
    assert data.ndim == 3 and data.shape[2] == 3 and label.shape == (len(data),)


def weights_are_tensors(path):
    assert all(isinstance(tensor, torch.Tensor) for tensor in load_weights(path).values())


READERS = {
    # name: (file, what it may hold, what must be true when it is read, the error otherwise)
    "off": ("a_0001.off", st.one_of(changed, texts.map("OFF\n".__add__), texts, junk),
            off_is_a_mesh_or_an_error, DataError),
    "text": ("a_0001.txt", st.one_of(texts, patched(b"0,1,2\n3,4,5.5\n6,-7,8\n"), junk),
             points_are_finite(read_xyz), DataError),
    "list": ("files.txt", st.one_of(texts, patched(b"a.h5\nb/c.h5\n/d/e.h5\n"), junk),
             names_stay_in_the_folder, DataError),
    "npy": ("a_0001.npy", lambda path: np.save(path, cloud(10, 0)),
            points_are_finite(read_npy), DataError),
    "h5": ("a.h5", lambda path: write_h5_file(path, GOOD[:, :4], LABEL),
           h5_is_a_set_or_an_error, DataError),
    "weights": ("a.safetensors", lambda path: save_weights({"a": torch.ones(3)}, path),
                weights_are_tensors, ValueError),
}  # fmt: skip


@pytest.mark.parametrize("cases", [200, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("error")
def test_a_reader_gives_good_data_or_its_own_error(tmp_path, reader, cases):
    """Whatever stands in the file: no other exception, and an error that names it."""
    name, content, check, error = READERS[reader]
    path, outcomes = tmp_path / name, []
    if not hasattr(content, "map"):
        content = patched(whole(path, content))

    @settings(max_examples=cases, deadline=None, derandomize=True, database=None)
    @given(content)
    def read(content):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            check(path)
            outcomes.append("data")
        except error as caught:
            assert name in str(caught)
            outcomes.append("error")

    read()
    assert len(outcomes) >= cases and set(outcomes) == {"data", "error"}  # both were met


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "bad",
    [
        np.frombuffer(b"\x01\x00\x80\x7f", "<f4"),  # a NaN that signals: a cast warns of it
        pytest.param(np.array([1e308], np.longdouble) * 1e10, marks=pytest.mark.skipif(
            np.finfo(np.longdouble).max <= np.finfo(np.float64).max, reason="no longer doubles")),
    ],
    ids=["signalling NaN", "too large for a double"],
)  # fmt: skip
def test_what_a_cast_would_warn_of_is_named_without_a_warning(tmp_path, bad):
    values = np.arange(30).reshape(10, 3).astype(bad.dtype)
    values[4, 1:2] = bad
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(DataError, match=r"a\.npy: NaN, Inf or a coordinate past"):
        read_npy(tmp_path / "a.npy")
