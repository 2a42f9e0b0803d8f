"""Classification with a pre-trained encoder, and its accuracy (paper, section 4.2)."""

from __future__ import annotations

from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from serplib.data.common import Clouds
from serplib.point_mae import PointMAE
from serplib.pointnet import PointNetEncoder, SerpPointNet
from serplib.presets import Preset
from serplib.transformer import SerpTransformer, TransformerEncoder
from serplib.validation import expect
from serplib.vasp import Vasp

Model = Literal["pointnet", "transformer", "vasp", "masked"]
MODELS = get_args(Model)


def autoencoder(
    preset: Preset, model: str, total_steps: int | None = None
) -> SerpPointNet | SerpTransformer | Vasp | PointMAE:
    """Build an untrained autoencoder.

    Args:
        model: ``"pointnet"``, ``"transformer"``, ``"vasp"`` or ``"masked"``.
        total_steps: steps of the training, where known: longer schedules of VASP are refused.
    """
    if model == "pointnet":
        return SerpPointNet(preset.pointnet)
    if model == "transformer":
        return SerpTransformer(preset.transformer)
    if model == "vasp":
        return Vasp(preset.transformer, preset.vasp, total_steps)
    if model == "masked":
        return PointMAE(preset.transformer, preset.masked)
    raise ValueError(f"model is {model!r}, wanted one of {MODELS}")


class Classifier(nn.Module):
    """An encoder and a head of fully connected layers.

    Each hidden layer is Linear, BatchNorm, ReLU, dropout: the head of the authors' code, which for
    SeRP-Transformer reads [CLS; maximum over patches].

    Args:
        encoder: maps clouds ``(B, N, 3)`` to features ``(B, feature_dim)``.
        num_classes: width of the last layer.
        widths: widths of the hidden layers.
        dropout: probability of a zero in the hidden layers.
        freeze: keep the encoder's weights and BatchNorm statistics.
    """

    def __init__(
        self,
        encoder: PointNetEncoder | TransformerEncoder,
        num_classes: int,
        widths: tuple[int, ...] = (256, 256),
        dropout: float = 0.5,
        freeze: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.freeze = freeze
        if freeze:
            encoder.requires_grad_(False)
        layers: list[nn.Module] = []
        width = encoder.feature_dim
        for hidden in widths:
            layers += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
            layers += [nn.Dropout(dropout)]
            width = hidden
        self.head = nn.Sequential(*layers, nn.Linear(width, num_classes))

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze:
            self.encoder.eval()
        return self

    def forward(self, points: Tensor) -> Tensor:
        """Map clouds ``(B, N, 3)`` to logits ``(B, num_classes)``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            features = self.encoder(points)  # (B, feature_dim)
        return self.head(features)


def parameters_in_millions(module: nn.Module) -> float:
    """Return the number of parameters, in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


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
