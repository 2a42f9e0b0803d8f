"""Named seeds: all randomness of a run follows from its seed and the name of what is drawn."""

from __future__ import annotations

import hashlib

import torch


def named_seed(*names: object) -> int:
    """Return a seed that is a hash of names, such as ``named_seed(7, "perturb", step)``."""
    text = "/".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def named_generator(*names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator seeded with `named_seed` of the names."""
    return torch.Generator(device=device).manual_seed(named_seed(*names))
