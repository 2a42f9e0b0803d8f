"""Pre-training on the pretext task and fine-tuning on labels (paper, sections 4.1 and 4.2).

Hugging Face Accelerate provides device, mixed precision and processes: the loops are the same on a
laptop, on one GPU, and on many GPUs through ``accelerate launch``. All randomness of a step follows
from the seed and the step, so that a resumed run equals an uninterrupted one (see `checkpoint`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from serplib import checkpoint
from serplib.classifier import score
from serplib.data.common import Clouds
from serplib.perturbation import scale_and_shift
from serplib.presets import Optim
from serplib.pretext import Augmentation, Pretext
from serplib.seeding import named_generator, named_seed


def pretrain(
    task: Pretext,
    train: Tensor,
    valid: Tensor,
    optim: Optim,
    seed: int,
    folder: Path | None = None,
    accelerator: Accelerator | None = None,
) -> list[dict[str, float]]:
    """Train an autoencoder on its pretext task (section 4.1).

    Args:
        task: model and corruption; trained in place.
        train: ``(S, M, 3)`` float32 clean clouds.
        valid: as ``train``; perturbed in the same way after every epoch, so that losses compare.
        optim: epochs, batch size, learning rates.
        seed: decides order, perturbation and dropout.
        folder: of the checkpoints; a run found there is resumed. None keeps none.
        accelerator: device, precision and processes; by default a GPU if there is one.

    Returns:
        One entry per epoch: ``epoch``, ``lr``, the mean ``train_*`` and ``valid_*`` losses.
    """
    loop = _Loop(task, len(train), optim, seed, folder, accelerator, "pre-training")
    for epoch in loop.epochs():
        loop.module.train()
        sums: dict[str, Tensor] = {}
        for step, indices, generator in loop.batches():
            points = train[indices.to(train.device)].to(loop.device)  # (B, M, 3)
            with loop.accelerator.autocast():
                losses = loop.module(points, generator, loop.share)
            loop.optimizer_step(losses["total"], step)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float()
        entry = {"epoch": epoch + 1, "lr": learning_rate(step, loop.steps_per_epoch, optim)}
        entry |= {f"train_{name}": loop.epoch_mean(total) for name, total in sums.items()}
        entry |= validate_pretext(task, valid, optim.batch_size, seed, loop.device)
        loop.log(entry, f"valid {entry['valid_total']:.5f}")
    return loop.history


@torch.no_grad()
def validate_pretext(
    task: Pretext, valid: Tensor, batch_size: int, seed: int, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Return the mean losses on ``valid (S, M, 3)`` as ``valid_*``; the seed fixes the noise."""
    task.eval()
    sums: dict[str, float] = {}
    for i, points in enumerate(valid.split(batch_size)):
        generator = named_generator(seed, "valid", i, device=device)
        for name, value in task(points.to(device), generator).items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(points)
    return {f"valid_{name}": total / len(valid) for name, total in sums.items()}


def finetune(
    classifier: nn.Module,
    train: Clouds,
    valid: Clouds | None,
    load_test: Callable[[], Clouds],
    optim: Optim,
    seed: int,
    augment: Augmentation = "none",
    folder: Path | None = None,
    accelerator: Accelerator | None = None,
) -> tuple[list[dict[str, float]], dict]:
    """Train a classifier, choose the epoch on ``valid``, and test once at the end (section 4.2).

    Args:
        classifier: maps ``(B, N, 3)`` to logits; trained in place, ends with the chosen weights.
        train: labelled clouds.
        valid: picks the epoch, the first of equal ones; None keeps the last epoch.
        load_test: called once, after training: nothing before can depend on the test set.
        optim, seed, folder, accelerator: as in `pretrain`.
        augment: ``"none"`` or ``"scale_shift"``.

    Returns:
        One entry per epoch (``epoch``, ``lr``, ``train_loss``, ``train_accuracy`` and, with
        ``valid``, ``valid_accuracy``), and the result of `classifier.score` on the test set.
    """
    if train.labels is None:
        raise ValueError(f"{train.name}/{train.split} has no labels to fine-tune on")
    if augment not in get_args(Augmentation):
        raise ValueError(f"augment is {augment!r}, wanted one of {get_args(Augmentation)}")
    loop = _Loop(classifier, len(train), optim, seed, folder, accelerator, "fine-tuning")
    best = max((entry.get("valid_accuracy", -1.0) for entry in loop.history), default=-1.0)
    for epoch in loop.epochs():
        loop.module.train()
        loss_sum = hits = torch.zeros((), device=loop.device)
        for step, indices, generator in loop.batches():
            points = train.points[indices].to(loop.device)  # (B, N, 3)
            labels = train.labels[indices][loop.share].to(loop.device)  # (B / processes,)
            if augment == "scale_shift":
                points = scale_and_shift(points, generator)
            with loop.accelerator.autocast():
                logits = loop.module(points[loop.share])  # (B / processes, classes)
            loss = F.cross_entropy(logits.float(), labels)
            loop.optimizer_step(loss, step)
            loss_sum = loss_sum + loss.detach()
            hits = hits + (logits.argmax(1) == labels).sum()
        entry = {
            "epoch": epoch + 1,
            "lr": learning_rate(step, loop.steps_per_epoch, optim),
            "train_loss": loop.epoch_mean(loss_sum),
            "train_accuracy": loop.epoch_mean(hits.float()) / len(labels),
        }
        if valid is not None:
            entry["valid_accuracy"] = score(classifier, valid, optim.batch_size)["accuracy"]
            if entry["valid_accuracy"] > best:
                best = entry["valid_accuracy"]
                loop.keep_best()
        loop.log(entry, f"valid {best:.3f}" if valid is not None else "")
    if loop.best is not None:
        classifier.load_state_dict(loop.best)
    return loop.history, score(classifier, load_test(), optim.batch_size)


def learning_rate(step: int, steps_per_epoch: int, optim: Optim) -> float:
    """Return the learning rate of a step (counted from 0): warm-up, then cosine or steps."""
    warmup = optim.warmup_epochs * steps_per_epoch
    if step < warmup:
        return optim.lr * (step + 1) / (warmup + 1)
    if optim.schedule == "step":
        return optim.lr * optim.step_gamma ** (step // steps_per_epoch // optim.step_epochs)
    total = optim.epochs * steps_per_epoch
    progress = (step - warmup) / max(total - warmup, 1)
    return optim.final_lr + (optim.lr - optim.final_lr) * (1 + math.cos(math.pi * progress)) / 2


def epoch_batches(num: int, batch_size: int, seed: int, epoch: int) -> Tensor:
    """Shuffle the shapes of an epoch into batches: ``(steps, batch)`` int64 indices.

    The last incomplete batch is dropped; fewer shapes than a batch are one batch.
    """
    batch_size = min(batch_size, num)
    order = torch.randperm(num, generator=named_generator(seed, "order", epoch))
    return order[: num // batch_size * batch_size].view(-1, batch_size)


class _Loop:
    """The parts that both loops share: optimiser step, checkpoint, progress bar.

    Processes share each batch evenly and average their gradients, which equals the step of a single
    process, except for dropout (each process draws its own) and BatchNorm (statistics of the whole
    batch on GPUs, of the share of each process on CPUs).
    """

    def __init__(
        self,
        module: nn.Module,
        num_shapes: int,
        optim: Optim,
        seed: int,
        folder: Path | None,
        accelerator: Accelerator | None,
        title: str,
    ) -> None:
        self.accelerator = accelerator or Accelerator(cpu=not torch.cuda.is_available())
        self.optim, self.seed, self.folder = optim, seed, folder
        self.num_shapes = num_shapes
        self.steps_per_epoch = len(epoch_batches(num_shapes, optim.batch_size, seed, 0))
        processes, batch = self.accelerator.num_processes, min(optim.batch_size, num_shapes)
        if batch % processes:
            raise ValueError(
                f"{processes} processes for batches of {batch}: wanted the same number of shapes "
                "for each, change optim.batch_size"
            )
        self.share = slice(self.accelerator.process_index, None, processes)
        self.device = self.accelerator.device
        if processes > 1 and self.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        self.unwrapped_model = module
        optimizer = _optimizer(module, optim, self.device)
        self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None  # weights of the best epoch, for finetune
        self.pending: tuple[int, float | Tensor] = (0, 0.0)  # step and loss to check
        saved = checkpoint.load(folder) if folder else None
        if saved is not None:
            weights, state = saved
            self.unwrapped_model.load_state_dict(weights["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.epoch, self.history = state["epoch"], state["history"]
            self.best = weights.get("best")
        self.bar = tqdm(
            total=optim.epochs * self.steps_per_epoch,
            initial=self.epoch * self.steps_per_epoch,
            desc=title,
            unit="step",
            disable=None if self.accelerator.is_main_process else True,
            mininterval=1.0,
        )

    def epochs(self) -> Iterator[int]:
        """Iterate over the remaining epochs; save a checkpoint after each."""
        while self.epoch < self.optim.epochs:
            yield self.epoch
            self.epoch += 1
            self.save()
        self.bar.close()

    def batches(self) -> Iterator[tuple[int, Tensor, torch.Generator]]:
        """Iterate over ``(step, indices of all shapes, generator)`` of the current epoch."""
        order = epoch_batches(self.num_shapes, self.optim.batch_size, self.seed, self.epoch)
        rank = self.accelerator.process_index
        for i, indices in enumerate(order):
            step = self.epoch * self.steps_per_epoch + i
            torch.manual_seed(named_seed(self.seed, "dropout", step, rank))
            yield step, indices, named_generator(self.seed, "perturb", step, 0, device=self.device)
        self.check_loss()

    def optimizer_step(self, loss: Tensor, step: int) -> None:
        """Make one step of the optimiser."""
        self.check_loss()
        # The sum over all processes: if one process stopped alone, the others would wait for it.
        self.pending = step, self.accelerator.gather(loss.detach()[None]).sum()
        # Reading the loss synchronises a GPU, so there it is checked one step late, and at the end
        # of an epoch, before anything is saved. On a CPU it is checked before it changes a weight.
        if self.device.type == "cpu":
            self.check_loss()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.steps_per_epoch, self.optim)
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
        best = {} if self.best is None else {"best": self.best}
        weights = {"model": self.unwrapped_model.state_dict()} | best
        optimizer = self.optimizer.state_dict()
        state = {"epoch": self.epoch, "history": self.history, "optimizer": optimizer}
        checkpoint.save(self.folder, self.epoch, weights, state)


def _optimizer(
    module: nn.Module, optim: Optim, device: torch.device | str = "cpu"
) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    fused = torch.device(device).type in ("cuda", "cpu")  # one pass over the weights
    return torch.optim.AdamW(trained, lr=optim.lr, weight_decay=optim.weight_decay, fused=fused)
