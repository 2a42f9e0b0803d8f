"""Readers of data sets: each public layout, whatever can be wrong with it, and the real sets."""

from __future__ import annotations

import os
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
    write_scanobjectnn,
    write_shapenet,
    write_text,
    write_tree,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from serplib.checkpoint import load_weights, save_weights
from serplib.data import NAMES, Clouds, DataError, common, load, normalize
from serplib.data import check as checks
from serplib.data.formats import read_h5, read_list, read_npy, read_xyz
from serplib.data.meshes import read_off, sample_surface
from serplib.data.modelnet import CLASSES, CLASSES10
from serplib.data.prepare import choose
from serplib.data.scanobjectnn import VARIANTS
from serplib.data.shapenet import SYNSETS
from serplib.geometry import farthest_point_sample, gather


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder of data sets where only what the test writes can be found."""
    monkeypatch.setenv("SERP_DATA", str(tmp_path))
    monkeypatch.setattr(common, "DATASETS", tmp_path / "datasets")
    return tmp_path


def assert_unit_sphere(clouds: Clouds, shapes: int, num_points: int) -> None:
    assert clouds.points.shape == (shapes, num_points, 3)
    assert clouds.points.dtype == torch.float32
    assert clouds.labels is None or clouds.labels.dtype == torch.int64
    assert clouds.points.mean(1).abs().max() < checks.TOLERANCE
    assert (clouds.points.norm(dim=-1).amax(1) - 1).abs().max() < checks.TOLERANCE
    assert clouds.labels is None or clouds.labels.shape == (shapes,)
    assert len(clouds.checksum) == 64


# ---- each layout, as it is public ----


@pytest.mark.parametrize("folder", ["modelnet40_ply_hdf5_2048", "modelnet40", "ModelNet40"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_h5_layout(root, folder, dtype):
    write_h5(root / folder, 64, dtype)
    train = load("modelnet40", "train", num_points=64)
    assert_unit_sphere(train, 40, 64)
    assert train.classes == CLASSES and train.labels.tolist() == list(range(40))
    want = normalize(torch.from_numpy(cloud(64, 7, dtype).astype("f8"))).float()
    assert torch.allclose(train.points[7], want, atol=1e-6)
    assert len(load("modelnet40", "test", num_points=64)) == 20


def test_h5_labels_follow_the_names_file(root):
    write_h5(root / "modelnet40", 16, names=CLASSES[::-1])
    train = load("modelnet40", "train", num_points=16)
    assert train.classes == CLASSES  # the standard order, whatever the file's
    assert train.labels.tolist() == list(range(39, -1, -1))


def test_h5_flat_labels_and_no_names_file(root):
    folder = write_h5(root / "modelnet40", 16)
    (folder / "shape_names.txt").unlink()
    data = np.stack([cloud(16, i) for i in range(3)])
    write_h5_file(folder / "ply_data_test0.h5", data, np.array([39, 0, 5], "i8"))
    assert load("modelnet40", "test", num_points=16).labels.tolist() == [39, 0, 5]


def test_larger_clouds_keep_their_farthest_points(root):
    write_h5(root / "modelnet40", 80)
    whole = load("modelnet40", "train", num_points=80).points  # (40, 80, 3)
    thin = load("modelnet40", "train", num_points=32).points
    want = normalize(gather(whole, farthest_point_sample(whole, 32)))
    assert torch.allclose(thin, want, atol=1e-5)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_dat_layout_of_point_bert(root, protocol):
    write_dat(root / "modelnet40", 64, protocol)
    train = load("modelnet40", "train", num_points=64)
    assert_unit_sphere(train, 40, 64)
    assert train.classes == CLASSES and train.labels.tolist() == list(range(40))
    want = normalize(torch.from_numpy(cloud(64, 7).astype("f8"))).float()
    assert torch.allclose(train.points[7], want, atol=1e-6)
    assert load("modelnet40", "test", num_points=64).checksum != train.checksum


@pytest.mark.parametrize("folder", ["scanobjectnn", "ScanObjectNN", "scanobjectnn/h5_files"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_scanobjectnn_layout(root, folder, variant):
    write_scanobjectnn(root / folder, 64)
    train, test = (load(variant, split, num_points=64) for split in ("train", "test"))
    assert_unit_sphere(train, 30, 64)
    assert train.name == variant and len(train.classes) == 15 == len(set(train.classes))
    assert train.labels.tolist() == [i % 15 for i in range(30)]
    want = normalize(torch.from_numpy(cloud(64, 107).astype("f8"))).float()
    assert torch.allclose(test.points[7], want, atol=1e-6)
    few = load(variant, "train", 15, 32)
    assert sorted(few.labels.tolist()) == list(range(15)) and few.points.shape[1] == 32


def test_scanobjectnn_damaged_or_missing(root):
    with pytest.raises(DataError, match=r"ScanObjectNN not found.*h5_files.*serp data check"):
        load("scanobjectnn_obj_bg", "train")
    (root / "scanobjectnn").mkdir()
    with pytest.raises(DataError, match=r"ScanObjectNN not found: there is no main_split in"):
        load("scanobjectnn_obj_bg", "train")
    folder = write_scanobjectnn(root / "scanobjectnn", 64)
    path = folder / "main_split" / "test_objectdataset.h5"
    write_h5_file(path, np.stack([cloud(64, 0)] * 3), np.array([0, 15, 2]))
    with pytest.raises(
        DataError, match=r"test_objectdataset\.h5: labels 0 to 15; expected 0 to 14"
    ):
        load("scanobjectnn_obj_bg", "test")
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"not a readable h5.*serp data check scanobjectnn_obj_bg"):
        load("scanobjectnn_obj_bg", "test")
    path.unlink()
    with pytest.raises(DataError, match=r"test_objectdataset\.h5: file not found"):
        load("scanobjectnn_obj_bg", "test")


def test_text_layout(root):
    write_text(root / "modelnet40_normal_resampled")
    test = load("modelnet40", "test", num_points=80)
    assert_unit_sphere(test, 40, 80)
    assert test.classes == CLASSES and test.labels.tolist() == list(range(40))


def test_off_tree_of_modelnet40(root):
    write_tree(root / "ModelNet40", "off", CLASSES)
    train = load("modelnet40", "train", num_points=64)
    assert_unit_sphere(train, 40, 64)
    assert train.name == "modelnet40" and train.classes == CLASSES
    assert not torch.equal(train.points[0], train.points[1])  # the name seeds, not the content


@pytest.mark.parametrize("suffix", ["off", "npy"])
def test_modelnet10_tree_says_its_name(root, suffix):
    write_tree(root / "ModelNet10", suffix)
    train = load("modelnet40", "train", num_points=64)
    assert_unit_sphere(train, 10, 64)
    assert train.name == "modelnet10" and train.classes == CLASSES10


@pytest.mark.parametrize("lists", [".", "ShapeNet-55"])
@pytest.mark.parametrize("folder", ["shapenet55", "ShapeNet55-34"])
def test_shapenet_layout(root, folder, lists):
    write_shapenet(root / folder, lists=lists)
    train = load("shapenet55", "train", num_points=64)
    assert_unit_sphere(train, 55, 64)
    assert train.classes == tuple(SYNSETS.values()) and train.classes[18] == "chair"
    assert list(SYNSETS) == sorted(SYNSETS) and len(set(SYNSETS.values())) == 55


def test_sets_in_the_datasets_folder_and_in_a_folder_within(root, monkeypatch):
    write_h5(root / "datasets" / "modelnet40" / "modelnet40_ply_hdf5_2048", 16)
    monkeypatch.delenv("SERP_DATA")
    assert len(load("modelnet40", "test", num_points=16)) == 20


# ---- meshes ----


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


# ---- subsets, cache, arguments ----


def test_subsets_are_stratified_nested_and_seeded():
    labels = torch.arange(40).repeat_interleave(torch.arange(10, 410, 10))  # 8,200 labels
    small, large = choose(labels, 200, 0), choose(labels, 1000, 0)
    assert set(small.tolist()) < set(large.tolist())
    assert (small.diff() > 0).all()
    share = labels.bincount() * 1000 / 8200  # (40,) 1.2 to 48.8 shapes
    assert (labels[large].bincount(minlength=40) - share).abs().max() <= 2
    assert len(labels[choose(labels, 40, 3)].unique()) == 40
    assert not torch.equal(small, choose(labels, 200, 1))
    assert torch.equal(small, choose(labels, 200, 0))
    assert len(choose(labels, None, 0)) == 8200


def test_load_of_a_subset_is_part_of_the_whole(root):
    write_h5(root / "modelnet40", 16)
    whole, part = (load("modelnet40", "train", n, 16) for n in (None, 7))
    index = [int((whole.points == cloud).all((1, 2)).nonzero()) for cloud in part.points]
    assert torch.equal(part.labels, whole.labels[index]) and len(part) == 7


def test_cache_is_used_refreshed_and_never_trusted_blindly(root):
    folder = write_tree(root / "ModelNet10", "npy")
    first = load("modelnet40", "train", num_points=32)
    (kept,) = (folder / "cache").iterdir()
    stamp = kept.stat().st_mtime_ns
    assert torch.equal(load("modelnet40", "train", num_points=32).points, first.points)
    assert kept.stat().st_mtime_ns == stamp
    kept.write_bytes(kept.read_bytes()[:-100])  # damaged: made again
    again = load("modelnet40", "train", num_points=32)
    assert torch.equal(again.points, first.points) and again.checksum == first.checksum
    np.save(folder / "bed" / "train" / "bed_0001.npy", cloud(90, 99))  # a source changes
    assert not torch.equal(load("modelnet40", "train", num_points=32).points[1], first.points[1])


def test_nothing_is_written_beside_read_only_data(root):
    folder = write_tree(root / "ModelNet10", "npy")
    folder.chmod(0o555)
    try:
        assert len(load("modelnet40", "train", num_points=32)) == 10
        assert not (folder / "cache").exists()
    finally:
        folder.chmod(0o755)


def test_global_generator_is_left_alone(root):
    write_tree(root / "ModelNet10", "off")
    state = torch.get_rng_state()
    load("modelnet40", "train", num_shapes=5, num_points=16)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("modelnet", "train"), ["'modelnet'", *NAMES]),
        (("modelnet40", "val"), ["'val'", "train, test"]),
        (("modelnet40", "train", 0), ["num_shapes is 0"]),
        (("modelnet40", "train", 9, -1), ["num_points is -1"]),
        (("modelnet40", "train", 41), ["41 shapes", "has 40"]),
        (("modelnet40", "train", 4, 17), ["16 points", "num_points=17"]),
        (("shapenet55", "train"), ["ShapeNet55 not found", "SERP_DATA", "serp data check"]),
    ],
)
def test_arguments_out_of_range(root, arguments, words):
    write_h5(root / "modelnet40", 16)
    with pytest.raises(DataError) as error:
        load(*arguments)
    assert all(word in str(error.value) for word in words), error.value


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
    "list missing": ("h5", put("train_files.txt", None), "train_files.txt", "not found"),
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
        "'0 1 1'",
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
    "off vertex words": ("off", put(OFF, CUBE.replace("0 1 1\n", "0 x 1\n")), OFF, "three numbers"),
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


# ---- what `serp data` prints ----


def test_describe_says_what_is_found_and_where(root):
    write_h5(root / "modelnet40_ply_hdf5_2048", 16)
    rows = {row["name"]: row for row in checks.describe()}
    assert tuple(rows) == NAMES
    assert all(set(row) == {"name", "what", "licence", "found", "where"} for row in rows.values())
    assert rows["objects"]["found"] and rows["modelnet40"]["found"]
    assert rows["modelnet40"]["where"].endswith("modelnet40_ply_hdf5_2048")
    assert not rows["shapenet55"]["found"] and "not found" in rows["shapenet55"]["where"]


def test_check_states_facts_and_refuses_other_counts(root, monkeypatch):
    write_h5(root / "modelnet40", 1100)
    with pytest.raises(DataError, match="40 shapes, expected 9,843 or 9,840"):
        checks.check("modelnet40")
    monkeypatch.setitem(checks.COUNTS, "modelnet40", {"train": (40,), "test": (20,)})
    facts = "\n".join(checks.check("modelnet40"))
    for fact in (
        "modelnet40: h5 layout in",
        "train: 40 shapes of 1,024 points",
        "finite",
        "sha256",
        "labels 0",
    ):
        assert fact in facts
    with pytest.raises(DataError, match="unknown data set 'nothing'"):
        checks.check("nothing")


def test_check_reads_the_files_and_not_the_cache(root, monkeypatch):
    folder = write_tree(root / "ModelNet10", "npy", num_points=1030)
    monkeypatch.setitem(checks.COUNTS, "modelnet10", {"train": (10,), "test": (10,)})
    assert "modelnet10: npy layout in" in checks.check("modelnet40")[0]
    path = folder / "bed" / "train" / "bed_0001.npy"
    stat = path.stat()
    damaged = np.load(path)
    damaged[0] = np.nan
    np.save(path, damaged)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # unchanged, for all the cache can see
    assert load("modelnet40", "train").points.isfinite().all()
    with pytest.raises(DataError, match=r"bed_0001\.npy: NaN"):
        checks.check("modelnet40")


@pytest.mark.parametrize("name", ["objects", "procedural"])
def test_built_in_sets_through_load(name):
    clouds = load(name, "train", num_shapes=8, num_points=64)
    assert_unit_sphere(clouds, 8, 64)
    assert clouds.name == name and clouds.split == "train"
    assert torch.equal(clouds.points, load(name, "train", 8, 64).points)
    assert not torch.equal(clouds.points, load(name, "test", 8, 64).points)


# ---- the real thing ----


@pytest.fixture
def real():
    row = next(row for row in checks.describe() if row["name"] == "modelnet40")
    if not row["found"]:
        pytest.skip(
            f"the real ModelNet40 is not here (set SERP_DATA to test with it): {row['where']}"
        )


@pytest.mark.modelnet
def test_real_modelnet40_is_whole(real):
    facts = checks.check("modelnet40")
    assert any("train: 9,84" in fact for fact in facts)
    assert any("test: 2,468 shapes of 1,024 points (the official split)" in fact for fact in facts)
    assert any("40 classes" in fact for fact in facts)


@pytest.mark.modelnet
def test_real_modelnet40_classes_are_what_they_say(real):
    test = load("modelnet40", "test", num_shapes=400)
    assert len(test) == 400 and test.classes == CLASSES
    assert len(test.labels.unique()) == 40
    extent = test.points.amax(1) - test.points.amin(1)  # (400, 3)
    flat = [extent[test.labels == CLASSES.index(name)].mean(0) for name in ("airplane", "keyboard")]
    for mean in flat:  # both are flat, whichever axis is up
        assert mean.min() < 0.6 * mean.max()
