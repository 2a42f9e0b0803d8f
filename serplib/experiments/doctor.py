"""Checks of the machine, each with the fix of what it finds (``serp doctor``)."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from serplib import accel
from serplib.experiments.records import environment, project_root


@dataclass(frozen=True)
class Finding:
    """One check: what was checked, its state (``ok``, ``note`` or ``problem``), and the fix."""

    what: str
    state: str
    detail: str
    fix: str = ""


_COURSE = ("jupyterlab", "ipykernel", "ipywidgets", "plotly", "anywidget", "papermill",
           "distributed")  # fmt: skip


def examine() -> list[Finding]:
    """Check versions, device, Jupyter kernel, data and disks."""
    return [_python(), _torch(), _device(), _numba(), _course_packages(), _kernel(),
            _environment(), _data(), _disk(), _temporary()]  # fmt: skip


def _python() -> Finding:
    version = "{}.{}.{}".format(*sys.version_info[:3])
    if sys.version_info < (3, 11):  # noqa: UP036 - run by whatever Python there is
        fix = "install Python 3.11 or later, then 'make setup'"
        return Finding("Python", "problem", version, fix)
    return Finding("Python", "ok", version)


def _torch() -> Finding:
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    if (major, minor) < (2, 6):
        return Finding("torch", "problem", torch.__version__, "pip install 'torch>=2.6'")
    return Finding("torch", "ok", torch.__version__)


def _device() -> Finding:
    about = environment()
    detail = f"{about['device']}, {about['cores']} cores, {about['threads']} threads"
    if torch.cuda.is_available():
        try:
            torch.zeros(1, device="cuda").add_(1).item()
        except RuntimeError as error:
            fix = "install the torch build for your CUDA driver, or hide it: CUDA_VISIBLE_DEVICES="
            return Finding("device", "problem", f"{detail}: {error}".splitlines()[0], fix)
    return Finding("device", "ok", detail)


def _numba() -> Finding:
    status = accel.status("cpu")
    return Finding("Numba", "note" if status.fix else "ok", status.detail, status.fix)


def _course_packages() -> Finding:
    versions: dict[str, str] = {}
    for name in _COURSE:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    missing = [name for name in _COURSE if name not in versions]
    if missing:
        return Finding("course packages", "problem", f"missing: {', '.join(missing)}", "make setup")
    detail = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Finding("course packages", "ok", detail)


def _kernel() -> Finding:
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        return Finding("kernel", "problem", "jupyter_client is not installed", "make setup")
    try:
        python = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        fix = "python -m ipykernel install --sys-prefix"
        return Finding("kernel", "problem", "no kernel 'python3'", fix)
    if python in ("python", "python3", f"python3.{sys.version_info[1]}"):
        python = sys.executable  # without a folder: the Python that starts the kernel
    found = shutil.which(python)
    if found is None or os.path.realpath(found) != os.path.realpath(sys.executable):
        fix = "this environment's python -m ipykernel install --sys-prefix --name python3"
        return Finding("kernel", "problem", f"'python3' starts {python}, not {sys.executable}", fix)
    return Finding("kernel", "ok", "'python3' starts this environment")


def _environment() -> Finding:
    names = [name for name in ("PYTHONPATH", "PYTHONHOME") if os.environ.get(name)]
    if names:
        fix = "unset it if imports find the wrong packages"
        return Finding("environment", "note", f"{', '.join(names)} is set", fix)
    return Finding("environment", "ok", "no PYTHONPATH, no PYTHONHOME")


def _data() -> Finding:
    from serplib.data.check import describe
    from serplib.data.common import data_folder

    root = data_folder()
    if root and not root.is_dir():
        detail = f"SERP_DATA={root} is no folder"
        return Finding("data", "problem", detail, "correct it, or unset it")
    found = f"found: {', '.join(str(row['name']) for row in describe() if row['found'])}"
    if root and not _writable(root):
        fix = "link its data sets into a folder of your own: prepared clouds are cached beside them"
        return Finding("data", "note", f"{found}; {root} is read-only", fix)
    return Finding("data", "ok", found, "serp data list shows the others")


def _writable(folder: Path) -> bool:
    """Tell whether a folder may be written; its mode counts for an administrator, too."""
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)


def _disk() -> Finding:
    root = project_root()
    if not _writable(root):
        fix = "clone the project where you may write"
        return Finding("disk", "problem", f"{root} is read-only", fix)
    free = shutil.disk_usage(root).free / 2**30
    if free < 1:
        return Finding("disk", "problem", f"{free:.1f} GiB free", "free some: runs/ may be deleted")
    return Finding("disk", "ok", "writable, room enough")


def _temporary() -> Finding:
    """Check the folder where Jupyter, torch.compile and matplotlib put temporary files."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(2**20))
            file.flush()
    except OSError as error:
        fix = "free some space there, or set TMPDIR to a writable folder"
        return Finding("temporary files", "problem", str(error), fix)
    return Finding("temporary files", "ok", tempfile.gettempdir())
