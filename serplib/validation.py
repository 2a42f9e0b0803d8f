"""What a function wants of its tensors, told in one line when it gets something else."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def expect(
    tensor: Tensor,
    shape: str,
    name: str = "points",
    *,
    floats: bool = True,
    device: torch.device | None = None,
) -> None:
    """Refuse what is not a tensor of a shape; say nothing otherwise.

    Args:
        tensor: what was given.
        shape: such as ``"B N 3"``: a number stands for itself, a word for any size of at least 1.
        name: what the tensor is called in the message.
        floats: whether it has to be of a float type.
        device: where it has to be, if that matters.

    Raises:
        TypeError: no tensor, or not of a float type.
        ValueError: another shape, an empty one, or another device.
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


def at_least(least: int, **values: float) -> None:
    """Refuse settings, given by name, that are below ``least`` or not finite: a ValueError."""
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} is {value}: wanted a number >= {least}")
