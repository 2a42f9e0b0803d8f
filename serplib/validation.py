"""Checks of arguments at public functions: errors of one line, with what was given and accepted."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
import torch
from annotated_types import Lt
from pydantic import ConfigDict, NonNegativeFloat, PositiveFloat, TypeAdapter, ValidationError
from torch import Tensor

Share = Annotated[NonNegativeFloat, Lt(1)]  # 0 to below 1
PositiveShare = Annotated[PositiveFloat, Lt(1)]


def expect(
    tensor: Tensor,
    shape: str,
    name: str = "points",
    *,
    floats: bool = True,
    device: torch.device | None = None,
) -> None:
    """Check type, shape and device of a tensor.

    Args:
        tensor: what was given.
        shape: such as ``"B N 3"``: a number is that size, a word any size of at least 1.
        name: the name of the tensor in the message.
        floats: require a float type.
        device: require this device.

    Raises:
        TypeError: not a tensor, or not of a float type.
        ValueError: another shape, a dimension of size 0, or another device.
    """
    sizes = shape.split()
    wanted = f"wanted ({', '.join(sizes)})"
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}, {wanted} as a tensor")
    if tensor.ndim != len(sizes) or any(
        size != int(want) if want.isdecimal() else size == 0
        for size, want in zip(tensor.shape, sizes)
    ):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, {wanted}, none of them 0")
    if floats and not tensor.is_floating_point():
        raise TypeError(f"{name} is {tensor.dtype}, wanted a float type")
    if device is not None and tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, wanted on {device}: move it with .to()")


def require_at_least(minimum: int, **values: float) -> None:
    """Raise a ValueError for a keyword argument that is below ``minimum`` or not finite."""
    for name, value in values.items():
        if not minimum <= value < math.inf:
            raise ValueError(f"{name} is {value}: wanted a number >= {minimum}")


def check_fields(config: Any) -> None:
    """Check the fields of a frozen dataclass against their annotations; call in ``__post_init__``.

    Where the annotation says so, a whole number becomes a float, a list a tuple, and a NumPy scalar
    a Python number. Nothing else is converted.

    Raises:
        ValueError: names the first field that does not fit, its value and what is accepted.
    """
    config_type: type = type(config)
    for name in field_types(config_type):
        object.__setattr__(config, name, check_field(config_type, name, getattr(config, name)))


def check_field(of: Callable[..., Any], field: str, value: object, title: str = "") -> Any:
    """Check a value for one field of a dataclass; return it converted as `check_fields` does.

    Args:
        of: a dataclass, or a function that takes ``field``.
        title: name of the field in the message, if another one.
    """
    if isinstance(value, np.generic):
        value = value.item()
    try:
        return field_types(of)[field].validate_python(
            tuple(value) if isinstance(value, list) else value, strict=True
        )
    except ValidationError as error:
        first = error.errors()[0]
        item = "".join(f"item {i}: " for i in first["loc"] if isinstance(i, int))
        reason = first["msg"].replace("Input should be", "must be")
        optional = NoneType in get_args(get_type_hints(of)[field])
        raise ValueError(
            f"{title or field} is {value!r}: {item}{reason}{' or None' if optional else ''}"
        ) from None


@functools.cache
def field_types(of: Callable[..., Any]) -> dict[str, TypeAdapter]:
    """Return a pydantic validator for each field of a dataclass or argument, in order."""
    finite = ConfigDict(allow_inf_nan=False)
    return {  # a nested dataclass keeps its own configuration: pydantic refuses another one
        name: TypeAdapter(hint, config=None if is_dataclass(hint) else finite)
        for name, hint in get_type_hints(of, include_extras=True).items()
    }


def change_fields(config: Any, changes: dict[str, object], group: str = "") -> Any:
    """Return a dataclass with some fields changed, by dotted names such as ``"optim.lr"``.

    All changes of one group are made at once: some values are only valid together.

    Raises:
        ValueError: an unknown field, or a value that a field does not accept.
    """
    known = [field.name for field in fields(config)]
    new: dict[str, Any] = {}
    nested: dict[str, dict[str, object]] = {}
    for dotted, value in changes.items():
        name, _, rest = dotted.partition(".")
        full = group + dotted
        if name not in known:
            raise ValueError(f"no setting {full!r}: {type(config).__name__} has {known}")
        if is_dataclass(getattr(config, name)):
            if not rest:
                raise ValueError(f"{full!r} is a group of settings: name one of its fields")
            nested.setdefault(name, {})[rest] = value
        elif rest:
            raise ValueError(f"no setting {full!r}: {name!r} has no fields")
        else:
            new[name] = check_field(type(config), name, value, full)
    for name, below in nested.items():
        new[name] = change_fields(getattr(config, name), below, f"{group}{name}.")
    return replace(config, **new)
