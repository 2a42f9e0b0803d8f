"""Faster implementations of a few operations: optional, same results within stated rounding.

`geometry` asks `searches` for compiled code, and training calls `fuse` on its model. Both use plain
PyTorch if compiled code is missing, broken or switched off by ``SERP_FAST=0``. Numba and Triton are
imported at their first use.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn


def switched_off(name: str) -> bool:
    """Tell whether an environment variable switches something off, as ``SERP_FAST=0`` does."""
    return os.environ.get(name, "1").strip().lower() in ("0", "false", "no", "off")


_enabled = not switched_off("SERP_FAST")
_PACKAGES = {"cpu": "numba", "triton_ops": "triton"}  # back end: the package that it needs


class Status(NamedTuple):
    """Whether a back end is used."""

    used: bool
    detail: str  # its version, or why it is not used
    fix: str  # empty: nothing to do


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

    Graphs of `torch.compile` and `torch.export` always contain plain PyTorch.
    """
    name = {"cpu": "cpu", "cuda": "triton_ops"}.get(clouds[0].device.type)
    if not _enabled or name is None or torch.compiler.is_compiling():
        return None
    module, _ = _load(name)
    return module if module is not None and module.accepts(*clouds) else None


def status(name: str = "cpu") -> Status:
    """Tell whether a back end (``"cpu"`` or ``"triton_ops"``) is used, else why not."""
    package = _PACKAGES[name]
    if not _enabled:
        return Status(False, "switched off by SERP_FAST=0", "unset SERP_FAST")
    module, error = _load(name)
    if module is not None:
        return Status(True, metadata.version(package) + module.CAVEAT, module.FIX)
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        fix = f"pip install {package} (optional: searches are several times slower without it)"
        return Status(False, "not installed", fix)
    fix = f"pip install --upgrade --force-reinstall {package}, or set SERP_FAST=0"
    return Status(False, f"broken: {type(error).__name__}: {error}".splitlines()[0], fix)


def fuse(model: nn.Module) -> nn.Module:
    """Replace layers of a model by their fused implementations, in place; return the model.

    A fused layer has the same parameters and buffers, and the same outputs and gradients up to
    rounding. In evaluation, on a GPU, under autocast and with SyncBatchNorm it is the plain layer.
    """
    if _enabled:
        from serplib.accel.layers import FUSED

        for module in model.modules():
            module.__class__ = FUSED.get(type(module), type(module))
    return model
