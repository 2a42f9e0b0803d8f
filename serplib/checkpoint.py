"""Checkpoints that are written completely or not at all.

A checkpoint is a folder ``step-00000123`` with ``model.safetensors``, optionally
``best.safetensors``, and ``state.pt`` (optimiser, epoch, history; ``weights_only=True`` refuses
pickled code). It is written under another name, flushed to disk, and renamed atomically.

No generator state is stored: a step's randomness follows from the seed and the step
(`seeding.named_seed`). `experiments.loop` compares what decides the weights before it resumes a
run (see `experiments.identity`).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def save_weights(state: dict[str, Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    """Write tensors, and metadata if any, to a safetensors file, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file({name: t.detach().cpu().contiguous() for name, t in state.items()}, part, about)
    _flush(part)
    os.replace(part, path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ValueError: a missing or damaged file; the message names it.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file of weights; run the pre-training first") from None
    except Exception as error:
        raise ValueError(
            f"{path}: not a whole safetensors file ({error}); delete it and run again"
        ) from error


def save(folder: Path, step: int, weights: dict[str, dict[str, Tensor]], state: dict) -> Path:
    """Write checkpoint ``step`` below ``folder`` and remove all others.

    Args:
        weights: state dicts by file name, such as ``{"model": ..., "best": ...}``.
        state: anything that `torch.load` reads with ``weights_only=True``: tensors, numbers, lists.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: it could not be written (full disk, read-only folder); the last complete
            checkpoint is kept.
    """
    target = folder / f"step-{step:08d}"
    part = folder / f"{target.name}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, tensors in weights.items():
            save_weights(tensors, part / f"{name}.safetensors")
        torch.save(state | {"step": step}, part / "state.pt")
        _flush(part / "state.pt")
        if target.exists():  # the same step, saved by a run that was resumed
            shutil.rmtree(folder / f"{target.name}.old.part", ignore_errors=True)
            os.replace(target, folder / f"{target.name}.old.part")
        os.replace(part, target)
        _flush(folder)
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save: RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        raise OSError(
            f"{target}: could not be written ({error}): free disk space or choose another folder; "
            "the last whole checkpoint is kept, and the same command goes on from it"
        ) from error
    for other in sorted(folder.glob("step-*")):
        if other != target:
            shutil.rmtree(other, ignore_errors=True)
    return target


def load(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict] | None:
    """Read the newest complete checkpoint below ``folder``: weights and state as given to `save`.

    Returns None where there is no checkpoint.

    Raises:
        ValueError: a file is damaged, or was not written by `save`.
    """
    complete = [p for p in sorted(folder.glob("step-*")) if p.is_dir() and p.suffix != ".part"]
    if not complete:
        return None
    weights = {path.stem: load_weights(path) for path in sorted(complete[-1].glob("*.safetensors"))}
    path = complete[-1] / "state.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(  # torch's message would advise to run the code in the file
            f"{path}: not a whole state of tensors, numbers and lists, and nothing in it was run; "
            f"delete {complete[-1]}"
        ) from error
    return weights, state


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
