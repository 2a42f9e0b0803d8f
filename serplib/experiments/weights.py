"""Files of trained weights, with the settings that they belong to."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from serplib import checkpoint
from serplib.experiments.identity import settings_of

# Settings that change what weights compute without a change of their shapes: of an encoder, and of
# a whole autoencoder.
_ENCODER = ("encoder_heads", "normalize", "fusion", "positions_every_block")
_DECODER = ("decoder_heads", "decoder_positions", "target_frame", "task", "cosine", "quantize_cls")


def save_module(module: nn.Module, path: Path, dtype: torch.dtype | None = None) -> None:
    """Write the weights of a module, with its settings, to a safetensors file.

    Args:
        dtype: of the stored floating-point weights; None keeps theirs.
    """
    about = {"class": type(module).__name__, "settings": json.dumps(settings_of(module))}
    state = module.state_dict()
    checkpoint.save_weights(
        {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}, path, about
    )


def load_module(module: nn.Module, path: Path) -> None:
    """Read weights into a module of the same architecture and settings.

    Raises:
        ValueError: a missing or damaged file, or weights of another model; the message names the
            first difference.
    """
    weights, wanted = checkpoint.load_weights(path), module.state_dict()
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
