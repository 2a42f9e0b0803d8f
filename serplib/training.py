"""Pre-training on the pretext task and fine-tuning on labels (paper, sections 4.1 and 4.2).

Hugging Face Accelerate carries device, mixed precision and processes: the loops below are the same
on a laptop, on one GPU, and on many through ``accelerate launch``. All randomness of a step follows
from ``(seed, step)``: see `checkpoint` for what that saves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

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
from serplib.pretext import Pretext
from serplib.seeding import named_generator, named_seed


def learning_rate(step: int, steps_per_epoch: int, optim: Optim) -> float:
    """The learning rate of a step (counted from 0): warm-up, then cosine or steps."""
    warmup = optim.warmup_epochs * steps_per_epoch
    if step < warmup:
        return optim.lr * (step + 1) / (warmup + 1)
    if optim.schedule == "step":
        return optim.lr * optim.step_gamma ** (step // steps_per_epoch // optim.step_epochs)
    total = optim.epochs * steps_per_epoch
    progress = (step - warmup) / max(total - warmup, 1)
    return optim.final_lr + (optim.lr - optim.final_lr) * (1 + math.cos(math.pi * progress)) / 2


def epoch_batches(num: int, batch_size: int, seed: int, epoch: int) -> Tensor:
    """The shapes of each step of an epoch, ``(steps, batch)``: a shuffle, none twice.

    What does not fill a last batch is left out of this epoch; fewer shapes than a batch make one
    batch of them all.
    """
    batch_size = min(batch_size, num)
    order = torch.randperm(num, generator=named_generator(seed, "order", epoch))
    return order[: num // batch_size * batch_size].view(-1, batch_size)


def _optimizer(
    module: nn.Module, optim: Optim, device: torch.device | str = "cpu"
) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    fused = torch.device(device).type in ("cuda", "cpu")  # one pass over the weights, not a dozen
    return torch.optim.AdamW(trained, lr=optim.lr, weight_decay=optim.weight_decay, fused=fused)


class _Loop:
    """What both loops share: one optimiser step, the checkpoint, the progress bar.

    Many processes share each batch evenly and average their gradients, which is the step that one
    process would make. But for dropout, which each draws on its own, and BatchNorm: its statistics
    are those of the whole batch on GPUs, of a process's share on CPUs.
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
        if processes > 1 and self.accelerator.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        self.bare = module
        optimizer = _optimizer(module, optim, self.accelerator.device)
        self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.epoch, self.history, self.best, self.unchecked = 0, [], None, (0, 0.0)
        saved = checkpoint.load(folder) if folder else None
        if saved is not None:
            weights, state = saved
            self.bare.load_state_dict(weights["model"])
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

    def epochs(self):
        """Epochs still to run; a checkpoint is written after each."""
        while self.epoch < self.optim.epochs:
            yield self.epoch
            self.epoch += 1
            self.save()
        self.bar.close()

    def batches(self):
        """``(step, all its shapes, generator)`` for each step of the current epoch."""
        order = epoch_batches(self.num_shapes, self.optim.batch_size, self.seed, self.epoch)
        rank = self.accelerator.process_index
        for i, indices in enumerate(order):
            step = self.epoch * self.steps_per_epoch + i
            torch.manual_seed(named_seed(self.seed, "dropout", step, rank))
            device = self.accelerator.device
            yield step, indices, named_generator(self.seed, "perturb", step, 0, device=device)
        self.check()

    def check(self) -> None:
        """Stop if the last loss was not finite."""
        step, loss = self.unchecked
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {float(loss)} at step {step}: lower optim.lr, set clip_norm, or "
                "check the data (`serp data check`)"
            )

    def descend(self, loss: Tensor, step: int) -> None:
        """One step of the optimiser against ``loss``."""
        self.check()
        # Of all processes: where one stops alone, the others would wait for it for ever.
        self.unchecked = step, self.accelerator.gather(loss.detach()[None]).sum()
        # On a CPU at once, before it reaches a weight. To ask a GPU is to wait for it: a step later
        # or at the end of the epoch is soon enough, since nothing is saved in between.
        if self.accelerator.device.type == "cpu":
            self.check()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.steps_per_epoch, self.optim)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.optim.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.optim.clip_norm)
        self.optimizer.step()
        self.bar.update()

    def mean(self, value: Tensor) -> float:
        """The mean over processes of what was summed over the steps of an epoch, a step."""
        return float(self.accelerator.reduce(value, "mean")) / self.steps_per_epoch

    def tell(self, entry: dict[str, float]) -> None:
        """Keep what an epoch came to, and pass it to the accelerator's trackers, if it has any."""
        self.history.append(entry)
        self.accelerator.log(entry, step=entry["epoch"])

    def save(self) -> None:
        if self.folder is None or not self.accelerator.is_main_process:
            return
        weights = {"model": self.bare.state_dict()}
        if self.best is not None:
            weights["best"] = self.best
        checkpoint.save(
            self.folder,
            self.epoch,
            weights,
            {
                "optimizer": self.optimizer.state_dict(),
                "epoch": self.epoch,
                "history": self.history,
            },
        )


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
        train, valid: ``(S, M, 3)`` float32 clean clouds; ``valid`` is perturbed the same way at
            every epoch, so that its loss is comparable.
        seed: decides order, perturbation and dropout.
        folder: where checkpoints go; a run found there is resumed. None keeps nothing.

    Returns:
        One entry an epoch: ``epoch``, ``lr``, the mean ``train_*`` and ``valid_*`` losses.
    """
    loop = _Loop(task, len(train), optim, seed, folder, accelerator, "pre-training")
    for epoch in loop.epochs():
        loop.module.train()
        sums: dict[str, float] = {}
        for step, indices, generator in loop.batches():
            points = train[indices.to(train.device)].to(loop.accelerator.device)  # (B, M, 3)
            with loop.accelerator.autocast():
                losses = loop.module(points, generator, loop.share)
            loop.descend(losses["total"], step)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float()
        entry = {"epoch": epoch + 1, "lr": learning_rate(step, loop.steps_per_epoch, optim)}
        entry |= {f"train_{k}": loop.mean(v) for k, v in sums.items()}
        entry |= validate_pretext(task, valid, optim.batch_size, seed, loop.accelerator.device)
        loop.tell(entry)
        loop.bar.set_postfix_str(f"valid {entry['valid_total']:.5f}")
    return loop.history


@torch.no_grad()
def validate_pretext(
    task: Pretext, valid: Tensor, batch_size: int, seed: int, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Mean losses on ``valid (S, M, 3)``, as ``valid_*``, with a perturbation fixed by the seed."""
    task.eval()
    sums: dict[str, float] = {}
    for i, points in enumerate(valid.split(batch_size)):
        generator = named_generator(seed, "valid", i, device=device)
        for name, value in task(points.to(device), generator).items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(points)
    return {f"valid_{name}": value / len(valid) for name, value in sums.items()}


def finetune(
    classifier: nn.Module,
    train: Clouds,
    valid: Clouds | None,
    load_test: Callable[[], Clouds],
    optim: Optim,
    seed: int,
    augment: str = "none",
    folder: Path | None = None,
    accelerator: Accelerator | None = None,
) -> tuple[list[dict[str, float]], dict]:
    """Train a classifier; choose the epoch on ``valid``; look at the test set once (section 4.2).

    Args:
        classifier: maps ``(B, N, 3)`` to logits; trained in place, ends with the chosen weights.
        train: labelled clouds. valid: picks the epoch (the first of the best); None keeps the last.
        load_test: called once, after training, so that nothing before can depend on the test set.
        augment: ``"none"`` or ``"scale_shift"``.

    Returns:
        One entry an epoch (``epoch``, ``lr``, ``train_loss``, ``train_accuracy`` and, with
        ``valid``, ``valid_accuracy``), and the result of `classifier.score`.
    """
    if train.labels is None:
        raise ValueError(f"{train.name}/{train.split} has no labels to fine-tune on")
    if augment not in ("none", "scale_shift"):
        raise ValueError(f"augment is {augment!r}, wanted 'none' or 'scale_shift'")
    loop = _Loop(classifier, len(train), optim, seed, folder, accelerator, "fine-tuning")
    device = loop.accelerator.device
    best = max((e.get("valid_accuracy", -1.0) for e in loop.history), default=-1.0)
    for epoch in loop.epochs():
        loop.module.train()
        loss_sum = hits = torch.zeros((), device=device)
        for step, indices, generator in loop.batches():
            points = train.points[indices].to(device)  # (B, N, 3)
            labels = train.labels[indices][loop.share].to(device)  # (B/processes,)
            if augment == "scale_shift":
                points = scale_and_shift(points, generator)
            with loop.accelerator.autocast():
                logits = loop.module(points[loop.share])  # (B/processes, classes)
            loss = F.cross_entropy(logits.float(), labels)
            loop.descend(loss, step)
            loss_sum = loss_sum + loss.detach()
            hits = hits + (logits.argmax(1) == labels).sum()
        entry = {
            "epoch": epoch + 1,
            "lr": learning_rate(step, loop.steps_per_epoch, optim),
            "train_loss": loop.mean(loss_sum),
            "train_accuracy": loop.mean(hits.float()) / len(labels),
        }
        if valid is not None:
            entry["valid_accuracy"] = score(classifier, valid, optim.batch_size)["accuracy"]
            if entry["valid_accuracy"] > best:
                best = entry["valid_accuracy"]
                loop.best = {
                    k: v.detach().cpu().clone() for k, v in classifier.state_dict().items()
                }
            loop.bar.set_postfix_str(f"valid {best:.3f}")
        loop.tell(entry)
    if loop.best is not None:
        classifier.load_state_dict(loop.best)
    return loop.history, score(classifier, load_test(), optim.batch_size)
