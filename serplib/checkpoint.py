"""Checkpoints that are written completely or not at all.

A checkpoint is a folder ``step-00000123`` with ``model.safetensors`` (weights), optionally
``best.safetensors``, and ``state.pt`` (optimiser, epoch, history; read with ``weights_only=True``,
so that no code in it can run). It is written under a temporary name, flushed to disk, and renamed:
a rename is atomic.

No generator state is stored: all randomness of a step comes from generators named after the seed
and the step (`seeding.named_seed`), so a resumed run draws the same as an uninterrupted one. The
state contains what decides the weights; another run is refused (see `experiments.identity`).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from serplib.experiments.identity import settings_of

# Settings that change what weights compute without a change of their shapes: of an encoder, and of
# a whole autoencoder.
_ENCODER = ("encoder_heads", "normalize", "fusion", "positions_every_block")
_DECODER = ("decoder_heads", "decoder_positions", "target_frame", "task", "cosine", "quantize_cls")


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


def save_module(module: nn.Module, path: Path, dtype: torch.dtype | None = None) -> None:
    """Write the weights of a module, with its settings, to a safetensors file.

    Args:
        dtype: of the stored floating-point weights; None keeps theirs.
    """
    about = {"class": type(module).__name__, "settings": json.dumps(settings_of(module))}
    state = module.state_dict()
    save_weights(
        {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}, path, about
    )


def load_module(module: nn.Module, path: Path) -> None:
    """Read weights into a module of the same architecture and settings.

    Raises:
        ValueError: a missing or damaged file, or weights of another model; the message names the
            first difference.
    """
    weights, wanted = load_weights(path), module.state_dict()
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
    stored = json.loads(about.get("settings", "{}"))
    current = json.loads(json.dumps(settings_of(module)))
    other = {n: v for n, v in stored.items() if n in current and current[n] != v}
    decisive = _ENCODER + _DECODER if hasattr(module, "decoder") else _ENCODER
    reasons = [
        f"{name} is {_shape(weights, name)} in the file and {_shape(wanted, name)} in the model"
        for name in wanted | weights
        if _shape(weights, name) != _shape(wanted, name)
    ] or [
        f"{name} is {value!r} in the file and {current[name]!r} in the model"
        for name, value in other.items()
        if name.endswith(decisive)
    ]
    if reasons:
        had = [f"{name}={other[name]!r}" for name in sorted(other, key=lambda n: n.count("."))]
        raise ValueError(
            f"{path}: not weights of this {type(module).__name__}: {reasons[0]}; build the model "
            "with the preset and the changes that the weights were trained with: "
            f"{about.get('class', 'not recorded')} {', '.join(had[:4])}"
        )
    module.load_state_dict(weights)


def _shape(state: dict[str, Tensor], name: str) -> str:
    return str(tuple(state[name].shape)) if name in state else "absent"


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
