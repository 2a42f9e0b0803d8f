"""Faster implementations of a few operations: optional, same results within stated rounding.

`geometry` asks `searches` for compiled code, and training calls `fuse` on its model. Both return to
plain PyTorch where compiled code is missing, broken or switched off by ``SERP_FAST=0``. Numba and
Triton are imported when they are first used.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import platform
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

_enabled = os.environ.get("SERP_FAST", "1") != "0"
_PACKAGES = {"cpu": "numba", "triton_ops": "triton"}  # back end: the package that it needs


class Status(NamedTuple):
    """Whether a back end is used."""

    used: bool
    detail: str  # its version, or the reason why it is not used
    fix: str  # what to do; empty if there is nothing to do


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Use plain PyTorch inside this block."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


@functools.cache
def _load(name: str) -> tuple[ModuleType | None, Exception | None]:
    """Import a back end and try it on a small input; return it, or the error."""
    try:
        module = importlib.import_module(f"serplib.accel.{name}")
        module.self_test()
    except Exception as error:  # an optional part must not stop the library, however it breaks
        return None, error
    return module, None


def searches(*clouds: Tensor) -> ModuleType | None:
    """Return the back end that searches these clouds; None for plain PyTorch.

    Graphs made by `torch.compile` and `torch.export` always contain plain PyTorch.
    """
    if not _enabled or torch.compiler.is_compiling() or clouds[0].device.type not in _BACKENDS:
        return None
    module, _ = _load(_BACKENDS[clouds[0].device.type])
    return module if module is not None and module.accepts(*clouds) else None


_BACKENDS = {"cpu": "cpu", "cuda": "triton_ops"}


def status(name: str = "cpu") -> Status:
    """Tell whether a back end (``"cpu"`` or ``"triton_ops"``) is used, else why not."""
    package = _PACKAGES[name]
    if not _enabled:
        return Status(False, "switched off by SERP_FAST=0", "unset SERP_FAST")
    module, error = _load(name)
    if module is not None:
        return Status(True, *module.describe())
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        fix = f"pip install {package} (optional: searches are several times slower without it)"
        return Status(False, "not installed", fix)
    fix = f"pip install --upgrade --force-reinstall {package}, or set SERP_FAST=0"
    return Status(False, f"broken: {type(error).__name__}: {error}".splitlines()[0], fix)


def fuse(model: nn.Module) -> nn.Module:
    """Give the layers of a model that have a fused implementation that implementation, in place.

    A fused layer has the same parameters, names and buffers, and the same outputs and gradients up
    to float32 rounding. It computes the plain way in evaluation, on a GPU, under autocast, and with
    another norm than `nn.BatchNorm1d`. Calling this twice changes nothing.

    Args:
        model: any module; layers of other types stay as they are.
    """
    if _enabled:
        from serplib.accel.layers import FUSED

        for module in model.modules():
            if type(module) in FUSED:
                module.__class__ = FUSED[type(module)]
    return model


def process_environment() -> dict[str, str]:
    """Return environment variables under which a training process runs faster.

    glibc's malloc returns large blocks to the system, which clears them again when the next step
    asks for them. These settings keep freed memory for the next step.
    """
    if platform.libc_ver()[0] != "glibc" or not _enabled:
        return {}
    return {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**28)}
