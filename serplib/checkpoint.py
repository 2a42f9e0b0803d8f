"""Checkpoints that are either whole or absent.

A checkpoint is a folder ``step-000123`` with ``model.safetensors`` (weights), optionally
``best.safetensors``, and ``state.pt`` (optimiser, step, history; read back with
``weights_only=True``, so that no code in it can run). It is written beside its final place, flushed
to disk, and renamed: a rename either happens or does not.

No generator state is stored: all randomness of a step is drawn from generators named after the seed
and the step (`seeding.named_seed`), so a resumed run draws what the uninterrupted one would have.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    save_file({name: t.detach().cpu().contiguous() for name, t in state.items()}, beside)
    _flush(beside)
    os.replace(beside, path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; a missing or damaged one is a ValueError that names it."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file of weights; run the pre-training first") from None
    except Exception as error:
        raise ValueError(
            f"{path}: not a whole safetensors file ({error}); delete it and run again"
        ) from error


def save(folder: Path, step: int, weights: dict[str, dict[str, Tensor]], state: dict) -> Path:
    """Write checkpoint ``step`` below ``folder`` and remove the older ones.

    Args:
        weights: state dicts by file name, such as ``{"model": ..., "best": ...}``.
        state: what `torch.load` reads back with ``weights_only=True``: tensors, numbers, lists.

    Raises:
        OSError: it could not be written (a full disk, a read-only folder); the last whole
            checkpoint is still there.
    """
    place = folder / f"step-{step:08d}"
    part = folder / f"{place.name}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, tensors in weights.items():
            save_weights(tensors, part / f"{name}.safetensors")
        torch.save(state | {"step": step}, part / "state.pt")
        _flush(part / "state.pt")
        if place.exists():  # the same step saved again, by a run that was resumed
            shutil.rmtree(folder / f"{place.name}.old.part", ignore_errors=True)
            os.replace(place, folder / f"{place.name}.old.part")
        os.replace(part, place)
        _flush(folder)
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save: RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        raise OSError(
            f"{place}: could not be written ({error}): make room or pass another folder; the last "
            "whole checkpoint is kept, and the same command goes on from it"
        ) from error
    for older in sorted(folder.glob("step-*")):
        if older != place:
            shutil.rmtree(older, ignore_errors=True)
    return place


def load(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict] | None:
    """The newest whole checkpoint below ``folder``, as given to `save`, or None.

    Raises:
        ValueError: a file of it is damaged, or is not what `save` writes.
    """
    whole = [p for p in sorted(folder.glob("step-*")) if p.is_dir() and p.suffix != ".part"]
    if not whole:
        return None
    weights = {path.stem: load_weights(path) for path in sorted(whole[-1].glob("*.safetensors"))}
    path = whole[-1] / "state.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(  # torch's own words would advise to run what the file says
            f"{path}: not a whole state of tensors, numbers and lists, and nothing in it was run; "
            f"delete {whole[-1]}"
        ) from error
    return weights, state


def _flush(path: Path) -> None:
    """To the disk itself; of a folder, the names in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
