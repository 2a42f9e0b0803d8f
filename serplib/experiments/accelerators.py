"""Accelerators of Hugging Face Accelerate whose effect depends on their arguments alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn

# Options that the training loops do not use; what they accept, and what to use instead.
_ONLY = {
    "gradient_accumulation_steps": (1, "each batch is a step: set optim.batch_size"),
    "step_scheduler_with_optimizer": (True, "the schedule is that of optim"),
    "device_placement": (True, "the loop moves the model and each batch"),
    "dispatch_batches": (None, "each process picks its share of a batch"),
    "even_batches": (True, "all batches have the same size"),
    "use_seedable_sampler": (False, "the seed of the run decides the order"),
    "use_stateful_dataloader": (False, "the seed of the run decides the order"),
    "non_blocking": (False, "there is no data loader"),
}


@contextmanager
def fresh_accelerator(**options: Any) -> Iterator[Accelerator]:
    """Create an accelerator that earlier ones in this process do not influence.

    Accelerate keeps precision and device in a state that all accelerators of a process share. It is
    set aside, and put back at the end.

    Args:
        options: of `accelerate.Accelerator`.
    """
    states = [state._shared_state for state in (PartialState, AcceleratorState, GradientState)]
    kept = [dict(state) for state in states]
    for state in states:
        state.clear()
    try:
        yield Accelerator(**options)
    finally:
        for state, values in zip(states, kept, strict=True):
            state.clear()
            state.update(values)


@contextmanager
def supported(accelerator: Accelerator) -> Iterator[Accelerator]:
    """Use an accelerator for one run, and leave nothing of the run in it.

    Raises:
        ValueError: an option that the training loops would not honour.
    """
    for name, (accepted, reason) in _ONLY.items():
        if getattr(accelerator, name) != accepted:
            raise ValueError(
                f"the accelerator has {name}={getattr(accelerator, name)!r}, wanted {accepted!r}: "
                f"{reason}"
            )
    kind = accelerator.distributed_type.value
    if kind in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "TP"):
        raise ValueError(f"the accelerator shards models ({kind}): checkpoints need whole ones")
    scaler, precision = accelerator.scaler, accelerator.mixed_precision
    applied = "bf16" if accelerator.native_amp else "no"
    applied = applied if scaler is None else "fp16"
    if precision != applied:
        raise ValueError(
            f"mixed_precision of the accelerator is {precision!r}, but it applies {applied!r}: "
            "fp16 needs a GPU, and accelerators of one process share precision; create it again"
        )
    models, optimizers = len(accelerator._models), len(accelerator._optimizers)
    accelerator.scaler = deepcopy(scaler)  # the scale of one fp16 run must not start the next
    try:
        yield accelerator
    finally:
        accelerator.scaler = scaler
        del accelerator._models[models:], accelerator._optimizers[optimizers:]


class Prepared(nn.Module):
    """A module as handed to Accelerate, which replaces the ``forward`` of what it prepares."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any) -> Any:
        """Call the module."""
        return self.module(*arguments)
