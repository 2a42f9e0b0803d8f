"""The command line: exit status, one-line errors, and what the doctor finds."""

import pytest
from typer.testing import CliRunner

from serplib import cli, doctor, fast

runner = CliRunner()


def ask(*words: str):
    return runner.invoke(cli.app, list(words))


def test_help_names_the_commands():
    done = ask("--help")
    assert done.exit_code == 0
    for command in ("doctor", "data", "run", "report"):
        assert command in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "no-such-suite"), "quick"),
        (("run", "quick", "--profile", "no-such"), "quick"),
        (("run", "quick", "--seeds", "0"), "seeds"),
        (("report", "no-such-suite"), "quick"),
        (("data", "check", "no-such-set"), "modelnet40"),
        (("data", "make", "modelnet40", "x"), "procedural"),
    ],
)
def test_wrong_requests_exit_with_2_and_one_line(words, says):
    done = ask(*words)
    assert done.exit_code == 2
    assert says in done.stderr and done.stderr.startswith("serp: ")
    assert "Traceback" not in done.output and len(done.stderr.strip().splitlines()) == 1


def test_data_list_names_every_set():
    done = ask("data", "list")
    assert done.exit_code == 0
    for name in ("objects", "procedural", "modelnet40", "shapenet55"):
        assert name in done.output


def test_data_make_writes_what_the_reader_reads(tmp_path, monkeypatch):
    out = tmp_path / "made"
    done = ask("data", "make", "objects", str(out), "--num-shapes", "48", "--num-points", "64")
    assert done.exit_code == 0, done.output
    import h5py
    import torch

    from serplib.data import load

    want = load("objects", "train", num_shapes=48, num_points=64)
    with h5py.File(out / "ply_data_train0.h5") as file:
        assert torch.equal(torch.from_numpy(file["data"][:]), want.points)
        assert torch.equal(torch.from_numpy(file["label"][:, 0]).long(), want.labels)
    again = ask("data", "make", "objects", str(out))
    assert again.exit_code == 2 and "exists" in again.stderr


def test_run_list_names_the_suites():
    done = ask("run", "list")
    assert done.exit_code == 0 and "quick (quick)" in done.output


def test_doctor_is_content_here():
    states = {f.what: f.state for f in doctor.examine()}
    assert "problem" not in states.values(), states
    assert ask("doctor").exit_code == 0


def test_doctor_finds_planted_faults(monkeypatch, tmp_path):
    monkeypatch.setenv("SERP_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr(doctor, "_COURSE", ("jupyterlab", "no-such-package"))
    monkeypatch.setattr(doctor.sys, "executable", str(tmp_path / "another-python"))
    monkeypatch.setattr(fast, "AVAILABLE", False)
    monkeypatch.setenv("SERP_FAST", "0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor.torch, "__version__", "2.5.1")
    found = {f.what: f for f in doctor.examine()}
    for what, word in {
        "data": "nowhere",
        "course packages": "no-such-package",
        "torch": "2.5.1",
    }.items():
        assert found[what].state == "problem" and word in found[what].detail and found[what].fix
    assert found["Numba"].state == "note" and "SERP_FAST" in found["Numba"].detail
    assert found["environment"].state == "note" and "PYTHONPATH" in found["environment"].detail
    done = ask("doctor")
    assert done.exit_code == 1 and "make setup" in done.output
