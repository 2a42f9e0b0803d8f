"""An encoder, a head that classifies its features, and how often it is right (section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serplib.data.common import Clouds
from serplib.point_mae import Masked
from serplib.pointnet import SerpPointNet
from serplib.presets import Preset
from serplib.transformer import SerpTransformer
from serplib.validation import expect
from serplib.vasp import Vasp

AUTOENCODERS = ("pointnet", "transformer")  # of SeRP
BESIDE = ("vasp", "masked")  # what stands beside it


def autoencoder(
    preset: Preset, model: str, total_steps: int | None = None
) -> SerpPointNet | SerpTransformer | Vasp | Masked:
    """A fresh autoencoder.

    Args:
        model: ``"pointnet"``, ``"transformer"``, ``"vasp"`` or ``"masked"``.
        total_steps: of the training to come, where known: VASP's schedules must fit into it.
    """
    if model == "pointnet":
        return SerpPointNet(preset.pointnet)
    if model == "transformer":
        return SerpTransformer(preset.transformer)
    if model == "vasp":
        return Vasp(preset.transformer, preset.vasp, total_steps)
    if model == "masked":
        return Masked(preset.transformer, preset.masked)
    raise ValueError(f"model is {model!r}, wanted one of {AUTOENCODERS + BESIDE}")


class Classifier(nn.Module):
    """Features of an encoder through fully connected layers to classes.

    Each hidden layer is Linear, BatchNorm, ReLU, dropout: the head of the authors' code, which for
    SeRP-Transformer reads [CLS; maximum over patches].

    Args:
        encoder: maps ``(B, N, 3)`` to ``(B, encoder.feature_dim)``.
        freeze: keep the encoder as it is: no gradient, no change of its BatchNorm statistics.
    """

    def __init__(
        self,
        encoder: nn.Module,
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

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if self.freeze:
            self.encoder.eval()
        return self

    def forward(self, points: Tensor) -> Tensor:
        """Clouds ``(B, N, 3)`` to logits ``(B, num_classes)``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            features = self.encoder(points)  # (B, feature_dim)
        return self.head(features)


def parameters_in_millions(module: nn.Module) -> float:
    """Number of parameters, in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


@torch.no_grad()
def predict(classifier: nn.Module, points: Tensor, batch_size: int = 128) -> Tensor:
    """Classes predicted for clouds ``(S, N, 3)``: ``(S,)`` int64, on the CPU."""
    expect(points, "S N 3")
    classifier.eval()
    device = next(classifier.parameters()).device
    parts = [classifier(part.to(device)).argmax(1).cpu() for part in points.split(batch_size)]
    return torch.cat(parts)


def score(classifier: nn.Module, clouds: Clouds, batch_size: int = 128) -> dict:
    """`accuracy_of` a classifier, over the true number of shapes, whatever the batch size."""
    right = predict(classifier, clouds.points, batch_size) == clouds.labels  # (S,)
    return accuracy_of(right, clouds.labels)


def accuracy_of(right: Tensor, labels: Tensor) -> dict:
    """Accuracy from which shapes were right, ``(S,)`` bool, and their labels ``(S,)``.

    Returns:
        ``accuracy`` and ``mean_class_accuracy`` (0 to 1), ``num_shapes``, and ``correct``: one bit
        a shape, in hexadecimal, for paired tests between models (see
        `experiments.records.unpack_bits`).
    """
    per_class = [right[labels == c].double().mean() for c in labels.unique()]
    bits = "".join("1" if r else "0" for r in right.tolist())
    return {
        "accuracy": right.double().mean().item(),
        "mean_class_accuracy": torch.stack(per_class).mean().item(),
        "num_shapes": len(right),
        "correct": f"{int('1' + bits, 2):x}",
    }
