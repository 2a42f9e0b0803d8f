"""Checks of the machine, each with the fix of what it finds (``serp doctor``)."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from serplib import accel
from serplib.experiments.records import environment, project_root, version_of


class Finding(NamedTuple):
    """The result of a check: its state (``ok``, ``note`` or ``problem``), and the fix."""

    state: str
    detail: str
    fix: str = ""


_COURSE = ("jupyterlab", "ipykernel", "ipywidgets", "plotly", "anywidget", "papermill",
           "distributed")  # fmt: skip


def examine() -> dict[str, Finding]:
    """Check versions, device, Jupyter kernel, data and disks: what was checked to the result."""
    return {
        "Python": Finding("ok", platform.python_version()),
        "torch": _torch(),
        "device": _device(),
        "Numba": _numba(),
        "course packages": _course_packages(),
        "kernel": _kernel(),
        "environment": _environment(),
        "data": _data(),
        "disk": _disk(),
        "temporary files": _temporary(),
    }


def _torch() -> Finding:
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        return Finding("problem", torch.__version__, "pip install 'torch>=2.6'")
    return Finding("ok", torch.__version__)


def _device() -> Finding:
    about = environment()
    detail = f"{about['device']}, {about['cores']} cores, {about['threads']} threads"
    if torch.cuda.is_available():
        try:
            torch.zeros(1, device="cuda").add_(1).item()
        except RuntimeError as error:
            fix = "install the torch build for your CUDA driver, or hide it: CUDA_VISIBLE_DEVICES="
            return Finding("problem", f"{detail}: {error}".splitlines()[0], fix)
    return Finding("ok", detail)


def _numba() -> Finding:
    status = accel.status("cpu")
    return Finding("note" if status.fix else "ok", status.detail, status.fix)


def _course_packages() -> Finding:
    versions = {name: version_of(name) for name in _COURSE}
    if missing := [name for name, version in versions.items() if version is None]:
        return Finding("problem", f"missing: {', '.join(missing)}", "make setup")
    return Finding("ok", ", ".join(f"{name} {version}" for name, version in versions.items()))


def _kernel() -> Finding:
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        return Finding("problem", "jupyter_client is not installed", "make setup")
    try:
        python = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Finding("problem", "no kernel 'python3'", "python -m ipykernel install --sys-prefix")
    if python in ("python", "python3", f"python3.{sys.version_info[1]}"):
        python = sys.executable  # without a folder: the Python that starts the kernel
    found = shutil.which(python)
    if found is None or os.path.realpath(found) != os.path.realpath(sys.executable):
        fix = "this environment's python -m ipykernel install --sys-prefix --name python3"
        return Finding("problem", f"'python3' starts {python}, not {sys.executable}", fix)
    return Finding("ok", "'python3' starts this environment")


def _environment() -> Finding:
    if names := [name for name in ("PYTHONPATH", "PYTHONHOME") if os.environ.get(name)]:
        fix = "unset it if imports find the wrong packages"
        return Finding("note", f"{', '.join(names)} is set", fix)
    return Finding("ok", "no PYTHONPATH, no PYTHONHOME")


def _data() -> Finding:
    from serplib.data.check import describe
    from serplib.data.common import data_folder

    root = data_folder()
    if root and not root.is_dir():
        return Finding("problem", f"SERP_DATA={root} is no folder", "correct it, or unset it")
    found = f"found: {', '.join(str(row['name']) for row in describe() if row['found'])}"
    if root and not _writable(root):
        fix = "link its data sets into a folder of your own: prepared clouds are cached beside them"
        return Finding("note", f"{found}; {root} is read-only", fix)
    return Finding("ok", found, "serp data list shows the others")


def _writable(folder: Path) -> bool:
    """Tell whether a folder may be written; its mode counts for an administrator, too."""
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)


def _disk() -> Finding:
    root = project_root()
    if not _writable(root):
        return Finding("problem", f"{root} is read-only", "clone the project where you may write")
    if (free := shutil.disk_usage(root).free / 2**30) < 1:
        return Finding("problem", f"{free:.1f} GiB free", "free some: runs/ may be deleted")
    return Finding("ok", "writable, room enough")


def _temporary() -> Finding:
    """Check the folder where Jupyter, torch.compile and matplotlib put temporary files."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(2**20))
            file.flush()
    except OSError as error:
        fix = "free some space there, or set TMPDIR to a writable folder"
        return Finding("problem", str(error), fix)
    return Finding("ok", tempfile.gettempdir())
