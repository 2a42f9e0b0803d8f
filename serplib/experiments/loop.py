"""The machinery of a training loop: accelerator, optimiser, checkpoint, progress bar."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from serplib import checkpoint
from serplib.data.common import absolute_path
from serplib.experiments import identity as identities
from serplib.experiments.accelerators import Prepared, fresh_accelerator, supported
from serplib.experiments.identity import Identity, fingerprint, settings_of
from serplib.presets import Optim
from serplib.seeding import named_generator, named_seed


@contextmanager
def start_loop(
    title: str,
    module: nn.Module,
    optim: Optim,
    seed: int,
    folder: Path | None,
    accelerator: Accelerator | None,
    extend: bool,
    identity: Identity,
    data: dict[str, Tensor],
) -> Iterator[Loop]:
    """Set up the loop of a run and resume its checkpoint.

    Args:
        title: of the progress bar.
        module: trained in place.
        folder, accelerator, extend, identity: as in `training.pretrain`.
        data: ``"train clouds"`` and the other tensors that decide the weights.

    Raises:
        ValueError: the folder holds another run; an accelerator or a batch size that do not fit.
    """
    fresh = fresh_accelerator(cpu=not torch.cuda.is_available())
    with nullcontext(accelerator) if accelerator else fresh as given, supported(given) as used:
        if folder is not None:
            settings = {"seed": seed, "mixed_precision": used.mixed_precision}
            settings |= settings_of(optim, "optim") | {"optim.epochs": [optim.epochs]} | identity
            identity = identities.identify(module, settings, data)
        loop = Loop(title, module, optim, seed, used, len(data["train clouds"]))
        if folder is not None:
            loop.resume(absolute_path(folder), identity, extend)
        try:
            yield loop
        finally:
            loop.bar.close()


class Loop:
    """The state of a training loop: optimiser step, checkpoint, progress bar.

    Processes share each batch evenly and average their gradients, which equals the step of a single
    process, except for dropout (each process draws its own) and BatchNorm (statistics of the whole
    batch on GPUs, of the share of each process on CPUs).
    """

    def __init__(
        self, title: str, module: nn.Module, optim: Optim, seed: int, accelerator: Accelerator,
        num_shapes: int,
    ) -> None:  # fmt: skip
        self.accelerator, self.device = accelerator, accelerator.device
        self.optim, self.seed, self.num_shapes = optim, seed, num_shapes
        processes, batch = accelerator.num_processes, min(optim.batch_size, num_shapes)
        self.steps_per_epoch = num_shapes // batch
        if batch % processes:
            raise ValueError(
                f"{processes} processes for batches of {batch}: wanted the same number of shapes "
                "for each, change optim.batch_size"
            )
        self.share = slice(accelerator.process_index, None, processes)
        if processes > 1 and self.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        self.unwrapped_model = module
        self.module, self.optimizer = accelerator.prepare(
            Prepared(module), _optimizer(module, optim, self.device)
        )
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None  # weights of the best epoch, for finetune
        self.pending: tuple[int, float | Tensor] = (0, 0.0)  # step and loss to check
        self.folder: Path | None = None
        self.identity: Identity = {}
        quiet = None if accelerator.is_main_process else True
        total = optim.epochs * self.steps_per_epoch
        self.bar = tqdm(total=total, desc=title, unit="step", disable=quiet, mininterval=1.0)

    def resume(self, folder: Path, identity: Identity, extend: bool) -> None:
        """Load the checkpoint in a folder, if there is one; write later ones there."""
        self.folder, self.identity = folder, identity
        saved = checkpoint.load(folder)
        if saved is None:
            return
        weights, state = saved
        stored = state.get("identity", {})
        if identity["initial weights"] in map(fingerprint, weights.values()):  # already loaded
            identity["initial weights"] = stored.get("initial weights")
        epochs = stored.get("optim.epochs", [])  # of the run, then of each time it was extended
        if extend and epochs[-1:] <= [self.optim.epochs]:
            more = [] if epochs[-1:] == [self.optim.epochs] else [self.optim.epochs]
            stored = stored | {"optim.epochs": epochs + more}
            identity["optim.epochs"] = epochs + more
        identities.require_same_run(folder, stored, identity)
        self.unwrapped_model.load_state_dict(weights["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.epoch, self.history = state["epoch"], state["history"]
        self.best = weights.get("best")
        self.bar.update(self.epoch * self.steps_per_epoch)

    def epochs(self) -> Iterator[int]:
        """Iterate over the remaining epochs; save a checkpoint after each."""
        while self.epoch < self.optim.epochs:
            yield self.epoch
            self.epoch += 1
            self.save()

    def steps(self, order: Tensor) -> Iterator[tuple[int, Tensor, torch.Generator]]:
        """Iterate over the steps of an epoch.

        Args:
            order: ``(steps, B)`` int64, the shapes of each batch of the epoch.

        Returns:
            Step, indices of the batch ``(B,)``, and the generator of its perturbation.
        """
        rank = self.accelerator.process_index
        for step, indices in enumerate(order, self.epoch * self.steps_per_epoch):
            torch.manual_seed(named_seed(self.seed, "dropout", step, rank))
            yield step, indices, named_generator(self.seed, "perturb", step, 0, device=self.device)
        self.check_loss()

    def forward(self, *arguments: Any) -> Any:
        """Call the module in the precision of the accelerator."""
        try:
            with self.accelerator.autocast():
                return self.module(*arguments)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):  # torch's message for BatchNorm
                raise
            raise ValueError(
                f"{min(self.optim.batch_size, self.num_shapes)} clouds per batch on "
                f"{self.accelerator.num_processes} processes leave one cloud for BatchNorm, which "
                "needs two: raise optim.batch_size, use more training clouds or fewer processes"
            ) from error

    def optimizer_step(self, loss: Tensor, step: int, lr: float) -> None:
        """Make one step of the optimiser with a learning rate."""
        self.check_loss()
        # The sum over all processes: if one process stopped alone, the others would wait for it.
        self.pending = step, self.accelerator.gather(loss.detach()[None]).sum()
        # Reading the loss synchronises a GPU, so there it is checked one step late, and at the end
        # of an epoch, before anything is saved. On a CPU it is checked before it changes a weight.
        if self.device.type == "cpu":
            self.check_loss()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.optim.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.optim.clip_norm)
        self.optimizer.step()
        self.bar.update()

    def check_loss(self) -> None:
        """Raise a FloatingPointError if the last loss was not finite."""
        step, loss = self.pending
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {float(loss)} at step {step}: lower optim.lr, set clip_norm, or "
                "check the data (`serp data check`)"
            )

    def epoch_mean(self, total: Tensor) -> float:
        """Turn a sum over the steps of an epoch into the mean over steps and processes."""
        return float(self.accelerator.reduce(total, "mean")) / self.steps_per_epoch

    def log(self, entry: dict[str, float], shown: str) -> None:
        """Add an epoch to the history, the accelerator's trackers (if any) and the progress bar."""
        self.history.append(entry)
        self.accelerator.log(entry, step=int(entry["epoch"]))
        self.bar.set_postfix_str(shown)

    def keep_best(self) -> None:
        """Copy the current weights: those of the best epoch so far."""
        state = self.unwrapped_model.state_dict()
        self.best = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def save(self) -> None:
        """Write a checkpoint, in the main process."""
        if self.folder is None or not self.accelerator.is_main_process:
            return
        weights = {"model": self.unwrapped_model.state_dict()}
        weights |= {} if self.best is None else {"best": self.best}
        state = {"identity": self.identity, "epoch": self.epoch, "history": self.history}
        state |= {"optimizer": self.optimizer.state_dict()}
        if self.accelerator.scaler is not None:
            state |= {"scaler": self.accelerator.scaler.state_dict()}
        checkpoint.save(self.folder, self.epoch, weights, state)


def _optimizer(
    module: nn.Module, optim: Optim, device: torch.device | str = "cpu"
) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    fused = torch.device(device).type in ("cuda", "cpu")  # one pass over the weights
    return torch.optim.AdamW(trained, lr=optim.lr, weight_decay=optim.weight_decay, fused=fused)
