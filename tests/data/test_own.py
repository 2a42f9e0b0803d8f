"""A reader's own shapes: layouts, formats, splits, bad files, reports, and suites on them."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from data_helpers import CUBE, cloud
from typer.testing import CliRunner

from serplib.data import DataError, load, own
from serplib.data import check as checks
from serplib.experiments import cli, runner, suites

trimesh = pytest.importorskip("trimesh")


def save(path: Path, points: np.ndarray) -> Path:
    """Write a cloud in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix
    if kind == ".npy":
        np.save(path, points)
    elif kind == ".npz":
        np.savez(path, points=points, colours=points)
    elif kind == ".txt":
        np.savetxt(path, points, "%.9g", delimiter=",", header="x, y, z")
    elif kind == ".xyz":
        np.savetxt(path, np.hstack([points, points]), "%.9g")
    elif kind == ".h5":
        with h5py.File(path, "w") as file:
            file["data"], file["label"] = points, np.zeros(1)
    elif kind == ".ply":
        trimesh.PointCloud(points).export(path)
    else:
        head = "# .PCD v0.7\nVERSION 0.7\nFIELDS rgb x y z\nSIZE 4 4 4 4\nTYPE U F F F\n"
        head += f"COUNT 1 1 1 1\nWIDTH {len(points)}\nHEIGHT 1\nPOINTS {len(points)}\n"
        table = np.zeros(len(points), "u4,3f4")
        table["f1"] = points
        path.write_bytes(f"{head}DATA binary\n".encode() + table.tobytes())
        if path.stem == "ascii":
            rows = "".join(f"7 {x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in points)
            path.write_text(f"{head}DATA ascii\n{rows}")
    return path


def make(root: Path, shapes: int = 6, classes=("lamp", "table"), points: int = 1024) -> Path:
    """A folder ``mine`` of clouds in two classes, not split."""
    for k, name in enumerate(classes):
        for i in range(shapes):
            save(root / "mine" / name / f"{i}.npy", cloud(points, 100 * k + i))
    return root / "mine"


CLOUDS = ("a.npy", "a.npz", "a.txt", "a.xyz", "a.pcd", "ascii.pcd", "a.h5", "a.ply")


@pytest.mark.parametrize("name", CLOUDS)
def test_each_format_of_clouds_gives_the_same_cloud(root, name):
    want = cloud(64, 3)
    file = save(root / "mine" / "train" / name, want)
    (shape,) = own.list_shapes(root / "mine")
    assert np.allclose(shape.read(), want, atol=1e-5) and shape.file == file
    clouds = load("mine", "train", num_points=64)
    assert clouds.labels is None and clouds.classes == () and clouds.name == "mine"


@pytest.mark.parametrize("kind", ["off", "obj", "stl", "ply", "glb", "OFF"])
def test_each_format_of_meshes_is_sampled_by_area(root, kind):
    path = root / "mine" / "box" / "train" / f"a.{kind}"
    path.parent.mkdir(parents=True)
    if kind.lower() == "off":
        path.write_text(CUBE)
    else:
        trimesh.creation.box((1, 2, 4)).export(path)
    (shape,) = own.list_shapes(root / "mine")
    points = shape.read()  # (2048, 3)
    assert points.shape == (2048, 3) and np.array_equal(points, shape.read())
    middle = (points.min(0) + points.max(0)) / 2
    half = np.ptp(points, axis=0) / 2
    on = np.isclose(np.abs(points - middle), half, atol=1e-3)  # (2048, 3)
    assert on.any(1).all()
    if kind.lower() != "off":  # faces across x are 8 of 14 in area, across y 4, across z 2
        assert np.abs(on.mean(0) - np.array([8, 4, 2]) / 14).max() < 0.05
    assert load("mine", "train").points.shape == (1, 1024, 3)


def test_parts_of_a_scene_are_put_where_they_belong(root):
    scene = trimesh.Scene()
    for x in (0, 10):
        place = trimesh.transformations.translation_matrix((x, 0, 0))
        scene.add_geometry(trimesh.creation.box(), transform=place)
    path = root / "mine" / "a.glb"
    path.parent.mkdir()
    scene.export(path)
    (shape,) = own.list_shapes(root / "mine")
    assert np.ptp(shape.read()[:, 0]) == pytest.approx(11, abs=0.01)


@pytest.mark.parametrize("order", ["class first", "split first", "Split first"])
def test_folders_of_classes_and_splits(root, order):
    for name in ("table", "lamp"):
        for split, count in (("train", 3), ("test", 2)):
            split = split.capitalize() if order == "Split first" else split
            folder = f"{name}/{split}" if order == "class first" else f"{split}/{name}"
            for i in range(count):
                save(root / "mine" / folder / f"{i}.npy", cloud(32, i))
    train, test = (load("mine", split, num_points=32) for split in ("train", "test"))
    assert train.classes == ("lamp", "table") and train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (len(train), len(test)) == (6, 4)


def test_without_folders_a_fifth_of_each_class_is_test_and_stays_so(root):
    folder = make(root, 10)
    first = {shape.origin: shape.split for shape in own.list_shapes(folder)}
    assert sorted(first.values()).count("test") == 4
    for name in ("lamp", "table"):
        assert sum(first[f"{name}/{i}.npy"] == "test" for i in range(10)) == 2
    train = load("mine", "train", num_points=64, seed=0)
    assert torch.equal(train.points, load("mine", "train", num_points=64, seed=5).points)
    both = torch.cat([train.points, load("mine", "test", num_points=64).points]).flatten(1)
    assert len(both.unique(dim=0)) == 20
    shutil.copytree(folder, root / "yours")  # wherever it lies
    assert {s.origin: s.split for s in own.list_shapes(root / "yours")} == first


def test_arrays_of_several_clouds_hold_as_many_shapes(root):
    stack = np.stack([cloud(64, i) for i in range(10)])
    save(root / "mine" / "lamp" / "a.npy", stack)
    save(root / "mine" / "table" / "b.h5", stack + np.arange(64)[:, None])
    train, test = (load("mine", split, num_points=32) for split in ("train", "test"))
    assert (len(train), len(test)) == (16, 4) and train.labels.sum() == 8
    whole = torch.cat([train.points, test.points]).flatten(1)
    assert len(whole.unique(dim=0)) == 20  # the cache keeps the splits of one file apart
    few = [load("mine", split, 4, 32).points for split in ("train", "test")]
    assert not torch.equal(*few)


def test_a_set_half_sorted_is_refused(root):
    folder = make(root)
    save(folder / "stray.npy", cloud(64, 0))
    with pytest.raises(DataError, match=r"12 shapes lie in a folder of a class, but 1 do not"):
        load("mine", "train")
    (folder / "stray.npy").unlink()
    save(folder / "lamp" / "train" / "a.npy", cloud(64, 0))
    with pytest.raises(DataError, match=r"1 shapes lie in a folder of train or test, but 12"):
        load("mine", "train")


def spoil(folder: Path) -> None:
    """Four bad files, each in another way."""
    (folder / "lamp" / "0.npy").write_bytes(b"x")
    (folder / "lamp" / "broken.obj").write_text("v 0 0 0\nf 1 2 3\n")
    np.save(folder / "table" / "flat.npy", cloud(64, 0)[0])
    save(folder / "table" / "nan.txt", np.full((1024, 3), np.nan))


def test_bad_files_are_named_together_and_can_be_left_out(root):
    folder = make(root)
    spoil(folder)
    names = ("0.npy", "broken.obj", "flat.npy", "nan.txt")
    for call in (lambda: checks.check("mine"), lambda: load("mine", "train")):
        with pytest.raises(DataError, match="serp data check mine --skip-bad") as error:
            call()
        assert str(error.value).count("\n") >= 2 and "Unpack" not in str(error.value)
    with pytest.raises(DataError) as error:
        checks.check("mine")
    assert all(name in str(error.value) for name in names)
    before = {s.origin: s.split for s in own.list_shapes(folder)}
    facts = "\n".join(checks.check("mine", skip_bad=True))
    assert all(name in facts for name in names) and "mine: 11 shapes" in facts
    assert (folder / own.SKIPPED).read_text().split() == [
        "lamp/0.npy", "lamp/broken.obj", "table/flat.npy", "table/nan.txt",
    ]  # fmt: skip
    assert len(load("mine", "train")) + len(load("mine", "test")) == 11
    after = {s.origin: s.split for s in own.list_shapes(folder)}
    assert after.items() <= before.items()  # the split of the others is the same
    (folder / "lamp" / "0.npy").unlink()
    save(folder / "lamp" / "0.npy", cloud(1024, 0))  # mended: looked at again
    assert "mine: 12 shapes" in checks.check("mine", skip_bad=True)[0]


def test_names_in_any_script_are_left_out_and_a_read_only_folder_says_so(root):
    folder = make(root)
    (folder / "lamp" / "Würfel 立方体.npy").write_bytes(b"x")
    checks.check("mine", skip_bad=True)
    assert own.skipped(folder) == {"lamp/Würfel 立方体.npy"}
    assert "mine: 12 shapes" in checks.check("mine")[0]
    (folder / own.SKIPPED).unlink()
    (folder / own.SKIPPED).mkdir()  # nobody can write a folder
    with pytest.raises(DataError, match=r"skipped\.txt: cannot be written .*move the bad files"):
        checks.check("mine", skip_bad=True)


def test_too_few_points_are_named_for_every_shape(root):
    folder = make(root, 3)
    save(folder / "lamp" / "few.xyz", cloud(500, 0))
    save(folder / "table" / "fewer.xyz", cloud(400, 0))
    facts = "\n".join(checks.check("mine"))
    assert "400 to 1,024" in facts and "at most 400" in facts
    bad = ""
    for split in ("train", "test"):
        try:
            load("mine", split)
        except DataError as error:
            bad += str(error)
    assert bad.count("fewer than num_points=1,024") == 2
    facts = checks.check("mine", skip_bad=True)  # what the error advises helps
    assert "mine: 6 shapes" in facts[0]
    assert sum("00 points, runs of suites take 1024" in fact for fact in facts) == 2
    assert len(load("mine", "train")) + len(load("mine", "test")) == 6


@pytest.mark.parametrize("kind", ["obj", "stl", "ply", "glb", "npz", "pcd", "h5", "xyz"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 40, b"ply\nelement vertex 99999999999\n"])
def test_a_damaged_file_is_an_error_that_names_it(root, kind, content):
    path = root / "mine" / f"a.{kind}"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.{kind}"):
        load("mine", "train", num_points=8)


def test_an_npz_of_objects_or_of_a_huge_array_is_refused(root, monkeypatch):
    path = save(root / "mine" / "a.npz", cloud(64, 0))
    monkeypatch.setattr(own, "MAX_BYTES", 500)
    with pytest.raises(DataError, match=r"a\.npz: 'points' declares 896 bytes, more than 500"):
        load("mine", "train", num_points=8)
    np.savez(path, points=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match=r"a\.npz: not a plain \.npz file"):
        load("mine", "train", num_points=8)


def test_a_mesh_opens_no_other_file(root, monkeypatch):
    secret = root / "secret.mtl"
    secret.write_text("newmtl a\nmap_Kd ../secret.png\n")
    path = root / "mine" / "a.obj"
    path.parent.mkdir()
    text = trimesh.creation.box().export(file_type="obj")
    path.write_text(f"mtllib ../secret.mtl\nusemtl a\n{text}")
    opened, real = [], open

    def watched(file, *rest, **options):
        opened.append(str(file))
        return real(file, *rest, **options)

    monkeypatch.setattr("builtins.open", watched)
    assert load("mine", "train").points.shape == (1, 1024, 3)
    assert not any("secret" in name for name in opened)


def test_units_axes_and_duplicates_are_reported(root):
    folder = make(root, 5)
    save(folder / "lamp" / "large.npy", cloud(1024, 7) * (1000, 10, 100))
    for name in ("lamp/copy.npy", "table/copy.npy"):
        shutil.copy(folder / "lamp" / "3.npy", folder / name)
    facts = "\n".join(checks.check("mine"))
    for words in (
        "2 classes", "13 .npy", "20% of each class drawn as test", "unit: no file states one",
        "axes: mean sides x", "duplicates: 1 shapes occur more than once",
        "lamp/3.npy = lamp/copy.npy = table/copy.npy", "train: sha256", "test: sha256",
    ):  # fmt: skip
        assert words in facts, facts


def test_names_of_published_sets_and_of_nothing_are_no_own_sets(root):
    make(root)
    for name in ("modelnet40_c", "ModelNet10", "h5_files"):
        save(root / name / "a.npy", cloud(16, 0))
    (root / "empty").mkdir()
    assert own.names() == ["mine"]
    for name in ("modelnet40_c", "..", "../mine", "", ".", "nothing"):
        with pytest.raises(DataError, match="unknown data set"):
            load(name, "train")
    with pytest.raises(DataError, match="empty: has no shape for train"):
        load("empty", "train")


# ---- the command, and suites --------------------------------------------------------------------


def test_the_command_lists_checks_and_skips(root, monkeypatch):
    folder = make(root)
    monkeypatch.setattr(cli, "console", cli.Console(width=80))
    listed = CliRunner().invoke(cli.app, ["data", "list"])
    for name in (*checks.ABOUT, "mine"):  # no name is cut at 80 columns
        assert name in listed.output, listed.output
    assert max(map(len, listed.output.splitlines())) <= 80
    assert CliRunner().invoke(cli.app, ["data", "check", "mine"]).exit_code == 0
    spoil(folder)
    done = CliRunner().invoke(cli.app, ["data", "check", "mine"])
    assert done.exit_code == 2 and "4 bad shapes" in done.stderr
    assert CliRunner().invoke(cli.app, ["data", "check", "mine", "--skip-bad"]).exit_code == 0
    assert CliRunner().invoke(cli.app, ["data", "check", "mine"]).exit_code == 0
    done = CliRunner().invoke(cli.app, ["data", "check", "objects", "--skip-bad"])
    assert done.exit_code == 2 and "no folder of your own" in done.stderr


@pytest.mark.parametrize("suite", suites.known_suites())
def test_every_suite_is_planned_on_an_own_set(root, suite):
    make(root, 20)
    for profile in suites.load(suite)["profiles"]:
        runs = suites.plan(suite, profile, 1, dataset="mine")
        usual = suites.plan(suite, profile, 1)
        assert [run.name for run in runs] == [run.name for run in usual]
        assert not {run.hash for run in runs} & {run.hash for run in usual}
        for run in runs:
            given = run.parameters
            assert given["dataset"] == "mine" and run.profile == f"{profile}-mine"
            assert f"{suite}-{profile}-mine" in str(run.folder)
            assert "test_dataset" not in given
            held_out = given.get("valid_shapes", 0)
            assert held_out <= 3 and given.get("train_shapes", 0) + held_out <= 32
            assert given.get("test_shapes", 0) <= 8 and given.get("labels_per_class", 0) <= 16


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A project of its own in which no run is executed: the runs that would be."""
    home = tmp_path / "project" / "notebooks" / "experiments"
    shutil.copytree(suites.experiments_folder(), home)
    monkeypatch.setenv("SERP_ROOT", str(tmp_path / "project"))
    started = []

    def execute(runs, *rest, **options):
        started.extend(runs)
        return [{"name": run.name, "seed": run.seed, "state": "done"} for run in runs]

    monkeypatch.setattr(runner, "execute", execute)
    return started


@pytest.mark.parametrize("folder", ["", "chair"])
def test_a_set_without_two_classes_serves_pre_training_alone(root, started, folder):
    for i in range(30):
        save(root / "mine" / folder / f"{i}.npy", cloud(1024, i))
    for run in suites.plan("quick", None, 1, dataset="mine"):
        assert run.parameters["dataset"] == ("mine" if run.notebook == "pretrain" else "objects")
    done = CliRunner().invoke(cli.app, ["run", "quick", "--dataset", "mine", "--smoke"])
    assert "mine has no two classes: 10 runs on the suite's data" in done.output
    assert len(started) == 13 and done.exit_code == 0
    path = suites.experiments_folder() / "suites" / "quick.yaml"
    path.write_text(path.read_text().replace("dataset: objects", "dataset: mine"))
    done = CliRunner().invoke(cli.app, ["run", "quick"])
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 2 and line.endswith("mine has no two classes, finetune needs them")


@pytest.mark.parametrize("options", [["--smoke"], ["--seeds", "1"]])
def test_bad_shapes_stop_a_suite_once_before_its_first_run(root, started, options):
    """With the remedy, which helps: also for a shape with too few points."""
    folder = make(root, 20)
    (folder / "lamp" / "0.npy").write_bytes(b"x")
    words = ["run", "quick", "--dataset", "mine", *options]
    done = CliRunner().invoke(cli.app, words)
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 2 and not started
    assert line.startswith("serp: mine: 1 bad shape, ") and "0.npy" in line
    assert line.endswith("'serp data check mine --skip-bad'")
    spoil(folder)
    save(folder / "lamp" / "few.npy", cloud(500, 0))
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 2 and not started and "bad shapes\n" in done.stderr
    CliRunner().invoke(cli.app, ["data", "check", "mine", "--skip-bad"])
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0 and len(started) == 13, done.output


@pytest.mark.parametrize(
    ("dataset", "says"), [("modelnet40", "ModelNet40 not found"), ("nothing", "no data set")]
)
def test_a_missing_set_of_a_suite_stops_it_before_its_first_run(root, started, dataset, says):
    path = suites.experiments_folder() / "suites" / "quick.yaml"
    path.write_text(path.read_text().replace("dataset: objects", f"dataset: {dataset}"))
    done = CliRunner().invoke(cli.app, ["run", "quick"])
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 2 and says in line and line.startswith("serp: ") and not started


def test_one_shape_of_a_class_is_not_split_again(root):
    folder = make(root, 6)
    save(folder / "bed" / "a.npy", cloud(1024, 3))
    for run in suites.plan("table2", "laptop", 1, dataset="mine"):
        if run.notebook == "finetune":
            assert run.parameters["valid_fraction"] == 0


def test_a_changed_own_set_is_computed_again(root):
    folder = make(root, 20)
    first = [run.hash for run in suites.plan("quick", None, 1, dataset="mine")]
    assert first == [run.hash for run in suites.plan("quick", None, 1, dataset="mine")]
    save(folder / "lamp" / "3.npy", cloud(1030, 0))
    again = [run.hash for run in suites.plan("quick", None, 1, dataset="mine")]
    assert not set(first) & set(again)


def test_a_wrong_data_set_for_a_suite_is_one_line(root):
    done = CliRunner().invoke(cli.app, ["run", "quick", "--dataset", "nothing"])
    assert done.exit_code == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "no data set 'nothing'" in done.stderr
    save(make(root) / "stray.npy", cloud(64, 0))
    done = CliRunner().invoke(cli.app, ["run", "quick", "--dataset", "mine"])
    assert done.exit_code == 2 and "expected all or none" in done.stderr


def test_pipelines_run_on_an_own_set(root, tmp_path):
    from serplib.experiments import pipelines

    make(root, 12)
    small = {"pretrain_pointnet.epochs": 1}
    done = pipelines.pretrain(
        preset="quick", model="pointnet", changes=small, dataset="mine", train_shapes=0,
        valid_shapes=2, folder=str(tmp_path / "pretrain"),
    )  # fmt: skip
    assert done.record["metrics"]["restoration"]
    done = pipelines.finetune(
        preset="quick", model="pointnet", changes={"finetune.optim.epochs": 1}, dataset="mine",
        train_shapes=0, valid_fraction=0.0, encoder=str(tmp_path / "pretrain/encoder.safetensors"),
        folder=str(tmp_path / "finetune"),
    )  # fmt: skip
    assert 0 <= done.record["metrics"]["test"]["accuracy"] <= 100
