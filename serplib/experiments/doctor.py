"""What stands in the way of the course on this machine, and how to mend it (``serp doctor``)."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata

import torch

from serplib.accel import cpu
from serplib.experiments.records import environment, project_root


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what, how it stands (``ok``, ``note`` or ``problem``), and the fix."""

    what: str
    state: str
    detail: str
    fix: str = ""


_COURSE = (
    "jupyterlab",
    "ipykernel",
    "ipywidgets",
    "plotly",
    "anywidget",
    "papermill",
    "distributed",
)


def examine() -> list[Finding]:
    """Look at versions, device, Jupyter kernel, data and disk."""
    return [
        _python(),
        _torch(),
        _device(),
        _numba(),
        *_course_packages(),
        _kernel(),
        _shells(),
        _data(),
        _disk(),
    ]


def _python() -> Finding:
    version = "{}.{}.{}".format(*sys.version_info[:3])
    if sys.version_info < (3, 11):  # noqa: UP036 - run by whatever Python there is
        return Finding(
            "Python", "problem", version, "install Python 3.11 or later, then 'make setup'"
        )
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
    if cpu.AVAILABLE:
        return Finding("Numba", "ok", metadata.version("numba"))
    if os.environ.get("SERP_FAST") == "0":
        return Finding("Numba", "note", "switched off by SERP_FAST=0", "unset SERP_FAST")
    fix = "pip install numba (optional: without it the CPU geometry is several times slower)"
    return Finding("Numba", "note", "not installed", fix)


def _course_packages() -> list[Finding]:
    missing = []
    for name in _COURSE:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return [
            Finding("course packages", "problem", f"missing: {', '.join(missing)}", "make setup")
        ]
    return [
        Finding("course packages", "ok", ", ".join(f"{n} {metadata.version(n)}" for n in _COURSE))
    ]


def _kernel() -> Finding:
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        return Finding("kernel", "problem", "jupyter_client is not installed", "make setup")
    try:
        python = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Finding(
            "kernel", "problem", "no kernel 'python3'", "python -m ipykernel install --sys-prefix"
        )
    if python in ("python", "python3", f"python3.{sys.version_info[1]}"):
        python = sys.executable  # a bare name means the Python that starts the kernel
    found = shutil.which(python)
    if found is None or os.path.realpath(found) != os.path.realpath(sys.executable):
        fix = "this environment's python -m ipykernel install --sys-prefix --name python3"
        return Finding("kernel", "problem", f"'python3' starts {python}, not {sys.executable}", fix)
    return Finding("kernel", "ok", "'python3' starts this environment")


def _shells() -> Finding:
    clean = {
        name: os.environ[name] for name in ("PYTHONPATH", "PYTHONHOME") if os.environ.get(name)
    }
    if clean:
        return Finding(
            "environment", "note", f"{', '.join(clean)} is set", "unset it if imports go astray"
        )
    return Finding("environment", "ok", "no PYTHONPATH, no PYTHONHOME")


def _data() -> Finding:
    from serplib.data.check import describe
    from serplib.data.common import data_folder

    root = data_folder()
    if root and not os.path.isdir(root):
        return Finding(
            "data", "problem", f"SERP_DATA={root} is no folder", "correct it, or unset it"
        )

    found = [row["name"] for row in describe() if row["found"]]
    return Finding("data", "ok", f"found: {', '.join(found)}", "serp data list shows the others")


def _disk() -> Finding:
    root = project_root()
    free = shutil.disk_usage(root).free / 2**30
    if not os.access(root, os.W_OK):
        return Finding(
            "disk", "problem", f"{root} is read-only", "clone the project where you may write"
        )
    if free < 1:
        return Finding("disk", "problem", f"{free:.1f} GiB free", "free some: runs/ may be deleted")
    return Finding("disk", "ok", "writable, room enough")
