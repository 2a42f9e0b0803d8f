"""Features, predictions and accuracy of a network on labelled clouds (paper, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serplib.data.common import Clouds
from serplib.validation import expect


@torch.no_grad()
def features(module: nn.Module, points: Tensor, batch_size: int = 128) -> Tensor:
    """Encode clouds ``(S, N, 3)`` in evaluation mode: ``(S, D)`` float32 on the CPU."""
    expect(points, "S N 3")
    module.eval()
    device = next(module.parameters()).device
    return torch.cat([module(part.to(device)).float().cpu() for part in points.split(batch_size)])


def predict(classifier: nn.Module, points: Tensor, batch_size: int = 128) -> Tensor:
    """Predict the classes of clouds ``(S, N, 3)``: ``(S,)`` int64, on the CPU."""
    return features(classifier, points, batch_size).argmax(1)


def score(classifier: nn.Module, clouds: Clouds, batch_size: int = 128) -> dict:
    """Measure the accuracy of a classifier with `accuracy_of`, over the true number of shapes.

    Raises:
        ValueError: clouds without labels.
    """
    if clouds.labels is None:
        raise ValueError(f"{clouds.name}/{clouds.split} has no labels to measure accuracy with")
    correct = predict(classifier, clouds.points, batch_size) == clouds.labels  # (S,)
    return accuracy_of(correct, clouds.labels)


def accuracy_of(correct: Tensor, labels: Tensor) -> dict:
    """Compute accuracies.

    Args:
        correct: ``(S,)`` bool, which shapes were classified correctly.
        labels: ``(S,)`` int64.

    Returns:
        ``accuracy`` and ``mean_class_accuracy`` (0 to 1), ``num_shapes``, and ``correct``: one bit
        per shape, in hexadecimal, for paired tests between models (see
        `experiments.records.unpack_bits`).
    """
    per_class = [correct[labels == c].double().mean() for c in labels.unique()]
    bits = "".join("1" if c else "0" for c in correct.tolist())
    return {
        "accuracy": correct.double().mean().item(),
        "mean_class_accuracy": torch.stack(per_class).mean().item(),
        "num_shapes": len(correct),
        "correct": f"{int('1' + bits, 2):x}",
    }
