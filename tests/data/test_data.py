"""Readers of data sets: each public layout, whatever can be wrong with it, and the real sets."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import warnings

import numpy as np
import pytest
import torch
from data_helpers import (
    cloud,
    write_dat,
    write_h5,
    write_h5_file,
    write_modelnet40_c,
    write_scanobjectnn,
    write_shapenet,
    write_text,
    write_tree,
)

from serplib.data import NAMES, Clouds, DataError, load, normalize, own
from serplib.data import check as checks
from serplib.data.modelnet import CLASSES, CLASSES10
from serplib.data.prepare import choose
from serplib.data.scanobjectnn import VARIANTS
from serplib.data.shapenet import SYNSETS
from serplib.geometry import farthest_point_sample, gather


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


def test_shapenet_lists_as_published(root):
    """Two of the 41,952 names of train.txt have no model; both files are in the archive."""
    folder = write_shapenet(root / "ShapeNet55-34")
    train = folder / "ShapeNet-55" / "train.txt"
    nameless = ["04379243-.npy", "02747177-.npy"]
    train.write_text("\n".join([nameless[0], *train.read_text().split(), nameless[1]]) + "\n")
    for k, name in enumerate(nameless):
        np.save(folder / "shapenet_pc" / name, cloud(80, 90 + k))
    (folder / "ShapeNet-34").mkdir()
    (folder / "ShapeNet-34" / "train.txt").write_text("unseen")  # of other splits: not read
    clouds = load("shapenet55", "train", num_points=80)
    assert len(clouds) == 57
    assert [clouds.classes[label] for label in clouds.labels[[0, -1]]] == ["table", "trash bin"]
    want = normalize(torch.from_numpy(cloud(80, 91).astype("f8"))).float()
    assert torch.allclose(clouds.points[-1], want, atol=1e-6)


@pytest.mark.parametrize("stem", ["{}{}", "ply_data_{}{}", "ply_data_{}_{}"])
def test_h5_files_without_lists_are_read_in_numeric_order(root, stem):
    """As in modelnet40_hdf5_2048: train10.h5 comes after train9.h5; names beside are compared."""
    folder = root / "modelnet40_hdf5_2048"
    folder.mkdir()
    for split, count in (("train", 12), ("test", 2)):
        for number in range(count):
            file = folder / (stem.format(split, number) + ".h5")
            data = np.stack([cloud(16, 100 * number + i) for i in range(3)])
            labels = (np.arange(3) + 3 * number) % 40
            write_h5_file(file, data, labels.astype("u1")[:, None])
            names = [CLASSES[label] for label in labels]
            file.with_name(f"{file.stem}_id2name.json").write_text(json.dumps(names))
            paths = [f"{name}/{name}_{k:04d}.ply" for k, name in enumerate(names)]
            file.with_name(f"ply_data_{split}_{number}_id2file.json").write_text(json.dumps(paths))
        (folder / f"._{file.name}").write_bytes(b"Mac OS X")
    train = load("modelnet40", "train", num_points=16)
    assert (
        train.labels.tolist() == list(range(36)) and len(load("modelnet40", "test", None, 16)) == 6
    )
    want = normalize(torch.from_numpy(cloud(16, 1000).astype("f8"))).float()
    assert torch.allclose(train.points[30], want, atol=1e-6)


@pytest.mark.parametrize("suffix", ["off", "npy"])
def test_hidden_and_foreign_files_in_class_folders_are_skipped(root, suffix):
    folder = write_tree(root / "ModelNet10", suffix)
    clean = load("modelnet40", "train", num_points=64)
    for name in CLASSES10:
        train = folder / name / "train"
        (train / f"._{name}_0001.{suffix}").write_bytes(b"\x00\x05\x16\x07Mac OS X")
        (train / ".DS_Store").write_bytes(b"\x00")
        (train / "Thumbs.db").write_bytes(b"\x00")
        (train / f"folder.{suffix}").mkdir()
        (train / ".ipynb_checkpoints").mkdir()
        (train / ".ipynb_checkpoints" / f"{name}_0001-checkpoint.{suffix}").write_text("x")
    (folder / ".ipynb_checkpoints" / "train").mkdir(parents=True)
    (folder / "__MACOSX").mkdir()
    assert torch.equal(load("modelnet40", "train", num_points=64).points, clean.points)
    (folder / "bed" / "train" / f"bed_0001-checkpoint.{suffix}").write_text("x")
    with pytest.warns(UserWarning, match=r"bed/train: 1 files not named bed_<number> were skipped"):
        assert torch.equal(load("modelnet40", "train", num_points=64).points, clean.points)


def test_a_folder_of_hidden_files_alone_is_no_data_set(root):
    for place in ("ModelNet40/bed/train/._bed_0001.off", "ModelNet40/._train0.h5"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(b"x")
    with pytest.raises(DataError, match="none of the known layouts"):
        load("modelnet40", "train")


def test_npy_trees_may_name_their_files_freely(root):
    folder = write_tree(root / "ModelNet10", "npy")
    for file in sorted(folder.rglob("*.npy")):
        file.rename(file.with_name("shape.npy"))
    assert len(load("modelnet40", "train", num_points=64)) == 10


def test_sets_in_the_datasets_folder_and_in_a_folder_within(root, monkeypatch):
    write_h5(root / "datasets" / "modelnet40" / "modelnet40_ply_hdf5_2048", 16)
    monkeypatch.delenv("SERP_DATA")
    assert len(load("modelnet40", "test", num_points=16)) == 20


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
        with pytest.warns(
            UserWarning, match=r"not cached .*ModelNet10 is read-only.*make .* writable"
        ):
            assert len(load("modelnet40", "train", num_points=32)) == 10
        assert not (folder / "cache").exists()
    finally:
        folder.chmod(0o755)


def test_a_full_disk_leaves_the_clouds_and_no_rest(root):
    """The limit on the size of a file stands for the disk: writing fails in the middle."""
    folder = write_tree(root / "ModelNet10", "npy")
    want = load("modelnet40", "train", num_points=32).points
    for file in (folder / "cache").iterdir():
        file.unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.warns(UserWarning, match=r"not cached .*free some space"):
            clouds = load("modelnet40", "train", num_points=32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(clouds.points, want) and not list((folder / "cache").iterdir())


def test_a_file_without_permission_is_not_called_damaged(root):
    """As another user, who may not look into the folder, and as one who may not open the file."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    folder = write_h5(root / "modelnet40", 16)
    file = folder / "ply_data_train0.h5"
    places = [place for place in folder.parents if place != place.parent]
    modes = {place: place.stat().st_mode for place in places}
    try:
        for place in places:
            place.chmod(modes[place] | 0o055)
        for path, mode, fault in (
            (file, 0o600, "no permission to read it; ask its owner, or chmod it"),
            (folder, 0o700, "no permission to read it; ask its owner, or chmod it"),
        ):
            path.chmod(mode)
            os.seteuid(65534)
            try:
                with pytest.raises(DataError, match=fault) as error:
                    load("modelnet40", "train", num_points=16)
            finally:
                os.seteuid(0)
            assert "Unpack" not in str(error.value) and str(path) in str(error.value)
    finally:
        for place in places:
            place.chmod(modes[place])


def test_a_folder_of_data_sets_that_may_not_be_listed(root, monkeypatch):
    """`serp data list` and an unknown name list the folder; another process may have locked it."""
    listed = os.listdir

    def refuse(path):
        if str(path) == str(root):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(own.os, "listdir", refuse)
    with pytest.raises(DataError, match="no permission to read it") as error:
        own.names()
    assert str(error.value).startswith(f"{root}:")


def test_a_locked_h5_is_not_called_damaged(root):
    path = write_h5(root / "modelnet40", 16) / "ply_data_train0.h5"
    with open(path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # what HDF5 does in a process that writes
        with pytest.raises(DataError, match=r"it is locked .*HDF5_USE_FILE_LOCKING=FALSE") as error:
            load("modelnet40", "train", num_points=16)
    assert "Unpack" not in str(error.value) and path.name in str(error.value)
    assert len(load("modelnet40", "train", num_points=16)) == 40


def test_clouds_with_too_few_distinct_points_are_reported(root, monkeypatch):
    folder = write_h5(root / "modelnet40", 1100)
    data = np.stack([cloud(1100, i) for i in range(20)])
    data[3], data[7] = np.tile(cloud(110, 3), (10, 1)), np.tile(cloud(550, 7), (2, 1))
    write_h5_file(folder / "ply_data_train1.h5", data, np.arange(20, 40, dtype="u1")[:, None])
    monkeypatch.setitem(checks.COUNTS, "modelnet40", {"train": (40,), "test": (20,)})
    message = (
        "modelnet40, train: 2 of 40 clouds have fewer than 1,024 distinct points (fewest: 110), so "
        "they repeat some"
    )
    for _ in range(2):  # thinned, and from the cache
        with pytest.warns(UserWarning) as caught:
            load("modelnet40", "train")
        assert [str(warning.message) for warning in caught] == [message]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("modelnet40", "train", num_points=100)  # all have as many
        assert message in checks.check("modelnet40")


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


# ---- what `serp data` prints ----


def test_describe_says_what_is_found_and_where(root):
    write_h5(root / "modelnet40_ply_hdf5_2048", 16)
    rows = {row["name"]: row for row in checks.describe()}
    assert tuple(rows) == (*NAMES, "modelnet40_c")
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


def test_check_reads_modelnet40_c(root):
    folder = write_modelnet40_c(root / "modelnet40_c", 2468)
    facts = checks.check("modelnet40_c")
    assert facts[0] == f"modelnet40_c: npy layout in {folder}, 2,468 labels of its own"
    assert facts[1].startswith("background: severities 1, 5; 65 to 96 points; airplanes are lowest")
    assert len(facts) == 3
    np.save(folder / "data_background_5.npy", np.load(folder / "data_background_5.npy")[1:])
    with pytest.raises(DataError, match=r"5\.npy: 2,467 clouds, but label\.npy has 2,468"):
        checks.check("modelnet40_c")
    np.save(folder / "label.npy", np.load(folder / "label.npy")[1:])
    with pytest.raises(DataError, match=r"label\.npy: 2,467 labels, expected 2,468"):
        checks.check("modelnet40_c")
    with pytest.raises(DataError, match="unknown data set 'modelnet40_c'"):
        load("modelnet40_c", "test")


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
