"""Pre-training on the pretext task and fine-tuning on labels (paper, sections 4.1 and 4.2).

Hugging Face Accelerate provides device, mixed precision and processes: the loops are the same on a
laptop, on one GPU, and on many GPUs through ``accelerate launch``. All randomness of a step follows
from the seed and the step, so that a resumed run equals an uninterrupted one (see `checkpoint`).
The step itself is `experiments.loop.Loop.optimizer_step`: `experiments.loop` holds what is not
specific to this paper (precision, processes, resuming).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from serplib.accel import fuse
from serplib.data.common import Clouds
from serplib.evaluation.accuracy import score
from serplib.experiments.loop import start_loop
from serplib.perturbation import scale_and_shift
from serplib.presets import Optim
from serplib.pretext import Augmentation, Pretext
from serplib.seeding import named_generator
from serplib.validation import expect


def pretrain(
    task: Pretext,
    train: Tensor,
    valid: Tensor,
    optim: Optim,
    seed: int,
    folder: Path | None = None,
    accelerator: Accelerator | None = None,
    *,
    extend: bool = False,
    identity: dict[str, Any] | None = None,
) -> list[dict[str, float]]:
    """Train an autoencoder on its pretext task (section 4.1).

    Args:
        task: model and corruption; trained in place.
        train: ``(S, M, 3)`` float32 clean clouds.
        valid: as ``train``; perturbed in the same way after every epoch, so that losses compare.
        optim: epochs, batch size, learning rates.
        seed: decides order, perturbation and dropout.
        folder: of the checkpoints; the same run found there is resumed. None keeps none.
        accelerator: device, precision and processes; by default a GPU if there is one.
        extend: also resume a finished run with fewer epochs. Its past epochs keep the learning
            rates of the shorter schedule.
        identity: further settings that decide the weights: a run with others is not resumed.

    Returns:
        One entry per epoch: ``epoch``, ``lr``, the mean ``train_*`` and ``valid_*`` losses.

    Raises:
        ValueError: the folder holds another run; the message names the settings that differ.
    """
    expect(train, "S M 3", "train")
    expect(valid, "S M 3", "valid")
    data = {"train clouds": train, "valid clouds": valid}
    fuse(task)  # faster layers on a CPU, the same up to rounding
    with start_loop(
        "pre-training", task, optim, seed, folder, accelerator, extend, identity or {}, data
    ) as loop:
        for epoch in loop.epochs():
            loop.module.train()
            sums: dict[str, Tensor] = {}
            order = epoch_batches(len(train), optim.batch_size, seed, epoch)  # (steps, B)
            for step, indices, generator in loop.steps(order):
                points = train[indices].to(loop.device)  # (B, M, 3)
                losses = loop.forward(points, generator, loop.share)
                lr = learning_rate(step, len(order), optim)
                loop.optimizer_step(losses["total"], step, lr)
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value.detach().float()
            entry = {"epoch": epoch + 1, "lr": lr}
            entry |= {f"train_{name}": loop.epoch_mean(total) for name, total in sums.items()}
            with loop.accelerator.autocast():
                entry |= validate_pretext(task, valid, optim.batch_size, seed, loop.device)
            loop.log(entry, f"valid {entry['valid_total']:.5f}")
    return loop.history


@torch.no_grad()
def validate_pretext(
    task: Pretext, valid: Tensor, batch_size: int, seed: int, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Return mean losses on ``valid (S, M, 3)``, ``valid_*``; seed and batch size fix the noise."""
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
    *,
    label_smoothing: float = 0.0,
    monitor: Clouds | None = None,
    extend: bool = False,
    identity: dict[str, Any] | None = None,
) -> tuple[list[dict[str, float]], dict]:
    """Train a classifier, choose the epoch on ``valid``, and test once at the end (section 4.2).

    Args:
        classifier: maps ``(B, N, 3)`` to logits; trained in place, ends with the chosen weights.
        train: labelled clouds.
        valid: picks the epoch, the first of equal ones; None keeps the last epoch.
        load_test: called once, after training, so that training cannot use the test set.
        augment, label_smoothing: as in `presets.Finetune`.
        monitor: the accuracy on these is recorded after each epoch, and decides nothing.
        optim, seed, folder, accelerator, extend, identity: as in `pretrain`.

    Returns:
        One entry per epoch (``epoch``, ``lr``, ``train_loss``, ``train_accuracy``, with ``valid``
        also ``valid_accuracy``, with ``monitor`` also ``monitor_accuracy``), and the result of
        `accuracy.score` on the test set.

    Raises:
        ValueError: as `pretrain`; no labels; other categories in ``valid`` or the test set.
    """
    expect(train.points, "S N 3", "train")
    train_labels = _labels(train, train)
    data = {"train clouds": train.points, "train labels": train_labels}
    if valid is not None:
        data |= {"valid clouds": valid.points, "valid labels": _labels(valid, train)}
    identity = {"augment": augment, "label_smoothing": label_smoothing} | (identity or {})
    fuse(classifier)
    with start_loop(
        "fine-tuning", classifier, optim, seed, folder, accelerator, extend, identity, data
    ) as loop:
        best = max((entry.get("valid_accuracy", -1.0) for entry in loop.history), default=-1.0)
        for epoch in loop.epochs():
            loop.module.train()
            loss_sum = hits = torch.zeros((), device=loop.device)
            order = epoch_batches(len(train), optim.batch_size, seed, epoch)  # (steps, B)
            for step, indices, generator in loop.steps(order):
                points = train.points[indices].to(loop.device)  # (B, N, 3)
                labels = train_labels[indices][loop.share].to(loop.device)  # (B / processes,)
                if augment == "scale_shift":
                    points = scale_and_shift(points, generator)
                logits = loop.forward(points[loop.share])  # (B / processes, classes)
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
                lr = learning_rate(step, len(order), optim)
                loop.optimizer_step(loss, step, lr)
                loss_sum = loss_sum + loss.detach()
                hits = hits + (logits.argmax(1) == labels).sum()
            entry = {"epoch": epoch + 1, "lr": lr, "train_loss": loop.epoch_mean(loss_sum)}
            entry["train_accuracy"] = loop.epoch_mean(hits.float()) / len(labels)
            with loop.accelerator.autocast():
                for name, clouds in (("valid", valid), ("monitor", monitor)):
                    if clouds is not None:
                        accuracy = score(classifier, clouds, optim.batch_size)["accuracy"]
                        entry[f"{name}_accuracy"] = accuracy
            if entry.get("valid_accuracy", -1.0) > best:
                best = entry["valid_accuracy"]
                loop.keep_best()
            loop.log(entry, f"valid {best:.3f}" if valid is not None else "")
        if loop.best is not None:
            classifier.load_state_dict(loop.best)
        test = load_test()
        _labels(test, train)
        with loop.accelerator.autocast():
            result = score(classifier, test, optim.batch_size)
    return loop.history, result


def _labels(clouds: Clouds, train: Clouds) -> Tensor:
    """Return the labels of clouds; they must exist and mean the same as those of training."""
    if clouds.labels is None:
        raise ValueError(f"{clouds.name}/{clouds.split} has no labels to fine-tune on")
    if clouds.classes != train.classes:
        raise ValueError(
            f"{clouds.name}/{clouds.split} has the categories {clouds.classes} and "
            f"{train.name}/{train.split} {train.classes}: labels would mean different categories "
            "(see `data.splits.same_classes`)"
        )
    return clouds.labels


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
