"""Identity of a training run: everything that decides its weights, to resume only the same run."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

import serplib
from serplib.data.common import digest
from serplib.experiments import records

Identity = dict[str, Any]  # settings by dotted name: numbers, strings, tuples, lists


def identify(module: nn.Module, settings: Identity, data: dict[str, Tensor]) -> Identity:
    """Collect what decides the weights of a run.

    Args:
        module: before training; its settings and its initial weights are included.
        settings: all others, such as seed, optimisation and precision.
        data: tensors that are trained on or that pick the epoch, by name.
    """
    parameters = [parameter.requires_grad for parameter in module.parameters()]
    return {
        **settings,
        **{name: digest(tensor) for name, tensor in data.items()},
        **settings_of(module),
        "initial weights": fingerprint(module.state_dict()),
        "trained parameters": f"{sum(parameters)} of {len(parameters)}",
        "torch": ".".join(torch.__version__.split(".")[:2]),
        "serplib": serplib.__version__,
        "code": records.code_digest(),
    }


def require_same_run(folder: Path, stored: Identity, current: Identity) -> None:
    """Compare the run whose checkpoint lies in a folder with the run that would resume it.

    Code that is known to learn the same counts as the same code, see `records.code_changed`.

    Raises:
        ValueError: they differ; the message names the differences.
    """
    names = [name for name in current | stored if stored.get(name) != current.get(name)]
    if "code" in names and records.code_changed({"code": stored.get("code")}) is False:
        names.remove("code")
    if not names:
        return
    if names == ["code"]:
        raise ValueError(
            f"{folder} is of a run that began before serplib was changed: delete it to train anew"
        )
    names.sort(key=lambda name: name.count("."))  # general settings before parts of the model
    shown = [f"{n} was {stored.get(n)!r} and is {current.get(n)!r}" for n in names[:4]]
    more = f", and {len(names) - 4} more" if len(names) > 4 else ""
    hint = ""
    if names == ["optim.epochs"]:
        hint = ", or pass extend=True to add epochs"
    elif names == ["initial weights"]:
        hint = ", or build the model with the same seed or the same encoder"
    raise ValueError(
        f"{folder} holds a run with other settings ({', '.join(shown)}{more}): choose another "
        f"folder, or delete this one to train anew{hint}"
    )


def settings_of(value: Any, name: str = "") -> Identity:
    """List the settings of a module, or of a dataclass, by dotted name.

    Those of a module are the numbers, strings, tuples and dataclasses among the attributes of its
    parts, such as ``model.config.dim``.
    """
    if isinstance(value, nn.Module):
        found: Identity = {}
        for path, part in value.named_modules(prefix=name):
            for key, attribute in vars(part).items():
                if not key.startswith("_") and key != "training":
                    found |= settings_of(attribute, f"{path}.{key}".lstrip("."))
        return found
    if is_dataclass(value):
        parts = [settings_of(getattr(value, f.name), f"{name}.{f.name}") for f in fields(value)]
        return {key: setting for part in parts for key, setting in part.items()}
    return {name: value} if isinstance(value, (bool, int, float, str, tuple, NoneType)) else {}


def fingerprint(state: dict[str, Tensor]) -> str:
    """Summarise weights by numbers that do not depend on the rounding of a processor."""
    total = sum(float(tensor.double().sum()) for tensor in state.values())
    norm = sum(float(tensor.double().square().sum()) for tensor in state.values()) ** 0.5
    return f"sum {total / max(norm, 1e-30):.5f}, norm {norm:.6g}"
