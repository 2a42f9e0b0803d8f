"""The command line: exit status, one-line errors, and what the doctor finds."""

import json
import runpy
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from serplib import accel
from serplib.accel import cpu
from serplib.experiments import cli, doctor
from serplib.experiments.records import project_root

runner = CliRunner()


def ask(*words: str):
    return runner.invoke(cli.app, list(words))


def test_help_names_the_commands():
    done = ask("--help")
    assert done.exit_code == 0
    for command in ("doctor", "data", "run", "report", "verify", "query"):
        assert command in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "no-such-suite"), "quick"),
        (("run", "quick", "--profile", "no-such"), "quick"),
        (("run", "quick", "--seeds", "0"), "seeds"),
        (("run", "quick", "--workers", "0"), "workers is 0, wanted >= 1"),
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
    states = {what: finding.state for what, finding in doctor.examine().items()}
    assert "problem" not in states.values(), states
    assert ask("doctor").exit_code == 0


def _set(name, value):
    return lambda patch, folder: patch.setenv(name, str(value).replace("FOLDER", str(folder)))


def _put(target, name, value):
    return lambda patch, folder: patch.setattr(target, name, value)


def _broken_cuda(patch, folder):
    def fail(*shape, device=None):
        raise RuntimeError("CUDA driver version is insufficient\nfor the runtime")

    patch.setattr(doctor.torch.cuda, "is_available", lambda: True)
    patch.setattr(doctor.torch, "zeros", fail)


def _another_kernel(patch, folder):
    """A kernel 'python3' of another Python, in a folder that Jupyter looks into first."""
    (folder / "kernels" / "python3").mkdir(parents=True)
    spec = {"argv": ["/usr/bin/env", "-m", "ipykernel_launcher"], "display_name": "x"}
    (folder / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    patch.setenv("JUPYTER_PATH", str(folder))


def _no_kernel(patch, folder):
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    def fail(self, name):
        raise NoSuchKernel(name)

    patch.setattr(KernelSpecManager, "get_kernel_spec", fail)


def _load_fails(error):
    return _put(accel, "_load", lambda name: (None, error))


def _no_cache(patch, folder):
    """Numba finds no folder for its cache: the text about it is made at the import."""
    patch.setattr(cpu.numba_ops, "cached", False)
    imported = runpy.run_path(cpu.__file__)
    for name in ("CAVEAT", "FIX"):
        patch.setattr(cpu, name, imported[name])


def _read_only(patch, folder):
    writable = doctor._writable
    patch.setattr(doctor, "_writable", lambda path: path != project_root() and writable(path))


def _read_only_data(patch, folder):
    folder.chmod(0o555)
    patch.setenv("SERP_DATA", str(folder))


def _full_tmp(patch, folder):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    patch.setattr(doctor.tempfile, "TemporaryFile", full)


def _file_for_data(patch, folder):
    (folder / "data.zip").write_bytes(b"PK")
    patch.setenv("SERP_DATA", str(folder / "data.zip"))


FAULTS = {
    # what is planted: (how, the finding, its state, in its detail, in its fix)
    "old torch": (
        _put(doctor.torch, "__version__", "2.5.1"),
        ("torch", "problem", "2.5.1", "pip install 'torch>=2.6'"),
    ),
    "driver older than torch": (
        _broken_cuda,
        ("device", "problem", "driver version", "CUDA_VISIBLE_DEVICES="),
    ),
    "a package missing": (
        _put(doctor, "_COURSE", ("jupyterlab", "no-such-package")),
        ("course packages", "problem", "no-such-package", "make setup"),
    ),
    "no Numba": (
        _load_fails(ModuleNotFoundError("No module named 'numba'", name="numba")),
        ("Numba", "note", "not installed", "pip install numba"),
    ),
    "a broken Numba": (
        _load_fails(AttributeError("module 'numpy' has no attribute 'long'")),
        ("Numba", "note", "broken: AttributeError", "set SERP_FAST=0"),
    ),
    "Numba without a cache": (
        _no_cache,
        ("Numba", "note", "no writable cache folder", "NUMBA_CACHE_DIR"),
    ),
    "Numba switched off": (
        _put(accel, "_enabled", False),
        ("Numba", "note", "SERP_FAST=0", "unset SERP_FAST"),
    ),
    "kernel of another Python": (
        _another_kernel,
        ("kernel", "problem", "/usr/bin/env", "ipykernel install --sys-prefix --name python3"),
    ),
    "no kernel": (_no_kernel, ("kernel", "problem", "no kernel 'python3'", "ipykernel install")),
    "PYTHONPATH set": (
        _set("PYTHONPATH", "FOLDER"),
        ("environment", "note", "PYTHONPATH", "unset it"),
    ),
    "SERP_DATA leads nowhere": (
        _set("SERP_DATA", "FOLDER/nowhere"),
        ("data", "problem", "nowhere is no folder", "correct it, or unset it"),
    ),
    "SERP_DATA is an archive": (
        _file_for_data,
        ("data", "problem", "data.zip is no folder", "correct it, or unset it"),
    ),
    "read-only project": (
        _read_only,
        ("disk", "problem", "is read-only", "clone the project where you may write"),
    ),
    "read-only data": (
        _read_only_data,
        ("data", "note", "is read-only", "folder of your own"),
    ),
    "full folder for temporary files": (
        _full_tmp,
        ("temporary files", "problem", "No space left", "TMPDIR"),
    ),
    "full disk": (
        _put(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**28)),
        ("disk", "problem", "0.2 GiB free", "runs/ may be deleted"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("planted", FAULTS)
def test_doctor_finds_a_planted_fault_and_names_the_fix(planted, monkeypatch, tmp_path):
    plant, (what, state, detail, fix) = FAULTS[planted]
    before = {name: finding.state for name, finding in doctor.examine().items()}
    if before[what] != "ok":
        pytest.skip(f"{what} is a {before[what]} here without any planting")
    plant(monkeypatch, tmp_path)
    found = doctor.examine()
    assert found[what].state == state
    assert detail in found[what].detail and fix in found[what].fix
    others = {name: finding.state for name, finding in found.items() if name != what}
    assert others == {name: state for name, state in before.items() if name != what}
    done = ask("doctor")
    assert done.exit_code == (1 if state == "problem" else 0)
    assert " ".join(fix.split()) in " ".join(done.output.split())
