"""`experiments.records`: one JSON record a run, whole, strict and complete."""

import datetime
import json
import math
import os
import platform
import re
import subprocess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serplib.data.common import Clouds, digest
from serplib.experiments import records


def clouds(num=4, split="train"):
    points = torch.zeros(num, 16, 3)
    labels = torch.arange(num) % 2
    return Clouds("toy", split, points, labels, ("chair", "lamp"), "abc123")


# ---------------------------------------------------------------- JSON


def test_what_is_written_is_read(tmp_path):
    content = {"b": [1, 2.5, None, True], "a": {"ü": 1 / 3}, "c": "x\ny"}
    path = tmp_path / "deep" / "er" / "record.json"
    records.write_json(path, content)
    assert records.read_json(path) == content
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n") and text.index('"a"') < text.index('"b"')  # sorted: small diffs


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_json_is_refused_and_the_old_file_kept(tmp_path, bad):
    path = tmp_path / "record.json"
    records.write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.write_json(path, {"loss": bad})
    assert records.read_json(path) == {"loss": 1.0}


def test_a_tensor_is_refused(tmp_path):
    with pytest.raises(TypeError):
        records.write_json(tmp_path / "record.json", {"loss": torch.tensor(1.0)})
    assert not (tmp_path / "record.json").exists()


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    records.write_json(path, {"a": 1})

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(records.os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            records.write_json(path, {"a": 2})
    assert records.read_json(path) == {"a": 1}
    records.write_json(path, {"a": 3})
    assert records.read_json(path) == {"a": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_it_is_flushed_to_disk_before_the_rename(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(records.os, "fsync", lambda fd: order.append("fsync") or fsync(fd))
    monkeypatch.setattr(records.os, "replace", lambda *a: order.append("replace") or replace(*a))
    records.write_json(tmp_path / "record.json", {})
    assert order == ["fsync", "replace"]


@pytest.mark.parametrize("text", [b"", b'{"a": 1', b"\xff\xfe", b"{'a': 1}"])
def test_damaged_json_is_named(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"record\.json: not whole JSON .*delete it"):
        records.read_json(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        records.read_json(tmp_path / "record.json")


# ---------------------------------------------------------------- what a record holds


def test_environment():
    found = records.environment()
    assert set(found) == {
        "python",
        "system",
        "machine",
        "packages",
        "device",
        "cores",
        "threads",
        "git",
        "code",
    }
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"] == torch.__version__
    assert found["packages"]["numpy"] and "accelerate" in found["packages"]
    assert found["cores"] == os.cpu_count()
    assert isinstance(found["threads"], int) and found["threads"] >= 1
    assert found["device"] and set(found["git"]) == {"revision", "clean"}
    json.dumps(found, allow_nan=False)


def test_a_package_that_is_not_installed_is_none(monkeypatch):
    monkeypatch.setattr(records, "_PACKAGES", ("torch", "surely-not-installed"))
    records.environment.cache_clear()
    try:
        packages = records.environment()["packages"]
    finally:
        records.environment.cache_clear()
    assert packages == {"torch": torch.__version__, "surely-not-installed": None}


def test_git_outside_a_repository_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records._git() == {"revision": None, "clean": None}


def test_git_not_installed_is_none(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert records._git() == {"revision": None, "clean": None}


def test_a_record(tmp_path):
    history = [{"epoch": 1, "train_loss": 0.5}]
    record = records.make(
        {"seed": 1}, {"train": clouds(), "test": clouds(2, "test")}, {"accuracy": 0.5}, history,
        12.345, note="x",
    )  # fmt: skip
    assert record["version"] == records.RECORD_VERSION == 1
    assert record["parameters"] == {"seed": 1} and record["metrics"] == {"accuracy": 0.5}
    assert record["history"] == history and record["seconds"] == 12.3 and record["note"] == "x"
    assert record["data"]["test"] == {
        "name": "toy",
        "split": "test",
        "num_shapes": 2,
        "num_points": 16,
        "num_classes": 2,
        "checksum": "abc123",
        "labels": digest(clouds(2).labels),
    }
    turned = clouds(3).subset(torch.tensor([1, 0, 2]))
    other = records.make({}, {"test": clouds(3), "again": turned}, {}, [], 1.0)["data"]
    assert other["test"]["labels"] != other["again"]["labels"]  # the order is recorded
    assert set(record["data"]) == {"train", "test"}
    finished = datetime.datetime.fromisoformat(record["finished"])
    assert finished.utcoffset() == datetime.timedelta(0)
    assert abs(datetime.datetime.now(datetime.UTC) - finished) < datetime.timedelta(minutes=5)
    assert record["environment"] == records.environment()
    records.write_json(tmp_path / "r.json", record)
    assert records.read_json(tmp_path / "r.json") == record


def test_unpack_bits():
    assert records.unpack_bits("1") == []
    assert records.unpack_bits("2") == [False]
    assert records.unpack_bits("3") == [True]
    assert records.unpack_bits("13") == [False, False, True, True]  # leading zeros are kept


@settings(deadline=None, derandomize=True)
@given(st.lists(st.booleans(), max_size=300))
def test_unpack_bits_inverts_packing(right):
    packed = f"{int('1' + ''.join('01'[r] for r in right), 2):x}"
    assert records.unpack_bits(packed) == right


def test_unpack_bits_of_a_whole_test_set():
    """Beyond the length up to which Python converts decimal numbers."""
    assert records.unpack_bits("1" + "f" * 15_000) == [True] * 60_000


# ---------------------------------------------------------------- where records lie


def test_root_is_where_the_library_lies_unless_told(monkeypatch, tmp_path):
    monkeypatch.delenv("SERP_ROOT", raising=False)
    assert (records.project_root() / "serplib" / "geometry.py").is_file()
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    assert records.project_root() == tmp_path


def test_read_suite(monkeypatch, tmp_path):
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no committed records of main: there are none; "):
        records.read_suite("main")
    records.write_json(records.results_folder() / "main.json", {"suite": "main", "records": []})
    assert records.read_suite("main") == {"suite": "main", "records": []}


# ---------------------------------------------------------------- has the code changed?


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A small library in a git repository of its own."""
    home = tmp_path / "serplib"
    for name in ("experiments", "data", "evaluation", "course"):
        (home / name).mkdir(parents=True)
    source = '"""Doc."""\n\n\ndef half(x):\n    """Halve."""\n    # why\n    return x / 2\n'
    for name in ("geometry.py", "data/load.py", "course/plots.py", "experiments/loop.py"):
        (home / name).write_text(source)
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    monkeypatch.setattr(records, "__file__", str(home / "experiments" / "records.py"))
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    yield home
    forget()


def forget():
    records.code_digest.cache_clear()
    records._changed_since.cache_clear()


def both(library):
    """Whether a new record and one that only has a revision are called changed."""
    forget()
    return records.code_changed(library["new"]), records.code_changed(library["old"])


def test_a_record_is_stale_once_code_that_decides_it_changes(library):
    forget()
    git = records._git()
    made = {"new": {"code": records.code_digest(), "git": git}, "old": {"git": git}}
    assert git["clean"] and both(made) == (False, False)
    plots = library / "course" / "plots.py"
    plots.write_text("x = 1\n")
    assert both(made) == (False, False)  # a plot decides no number
    loop = library / "experiments" / "loop.py"
    loop.write_text(loop.read_text().replace("Halve.", "Divide by two.").replace("why", "how"))
    assert both(made) == (False, True)  # git cannot tell words from code
    for name in ("experiments/loop.py", "data/load.py", "geometry.py"):
        before = (library / name).read_text()
        (library / name).write_text(before.replace("/ 2", "/ 3"))
        assert both(made) == (True, True), name
        (library / name).write_text(before)
    (library / "new.py").write_text("x = 1\n")
    assert both(made)[0]


def test_other_code_with_the_same_golden_losses_keeps_a_record_valid(library):
    forget()
    old = {"code": records.code_digest(), "git": {}}
    geometry = library / "geometry.py"
    geometry.write_text(geometry.read_text().replace("x / 2", "0.5 * x"))
    forget()
    new = records.code_digest()
    path = records.results_folder() / "code.json"
    for known, changed in (
        ({}, True),
        ({new: "a"}, True),
        ({old["code"]: "a"}, True),
        ({old["code"]: "a", new: "b"}, True),
        ({old["code"]: "a", new: "a"}, False),
    ):
        records.write_json(path, known)
        assert records.code_changed(old) is changed


def test_without_a_known_revision_nothing_is_claimed(library):
    forget()
    for revision in (None, "0" * 40):
        assert records.code_changed({"git": {"revision": revision, "clean": True}}) is None
    revision = records._git()["revision"]
    assert records.code_changed({"git": {"revision": revision, "clean": False}}) is None


def test_the_code_of_this_library_is_read(monkeypatch):
    forget()
    assert re.fullmatch(r"[0-9a-f]{16}", records.code_digest())
    assert records.environment()["code"] == records.code_digest()
