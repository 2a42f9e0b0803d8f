"""Seeds and generators by name: all randomness of a run follows from its seed and a name."""

from __future__ import annotations

import hashlib

import torch


def named_seed(*names: object) -> int:
    """A seed from names: ``named_seed(7, "perturb", step)``; other names give another seed."""
    text = "/".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def named_generator(*names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator seeded by names (see `named_seed`)."""
    return torch.Generator(device=device).manual_seed(named_seed(*names))
