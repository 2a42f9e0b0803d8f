"""Classification with a pre-trained encoder (paper, section 4.2)."""

from __future__ import annotations

from typing import Literal, Self, get_args

from torch import Tensor, nn

from serplib.point_mae import PointMAE
from serplib.pointnet import PointNetEncoder, SerpPointNet
from serplib.presets import Preset
from serplib.transformer import SerpTransformer, TransformerEncoder
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

    Raises:
        ValueError: an unknown model.
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
        self.encoder, self.freeze = encoder, freeze
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
        return self.head(self.encoder(points))
