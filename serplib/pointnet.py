"""SeRP-PointNet: detect the perturbed points and restore them (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from serplib.geometry import at_least_float32, chamfer_l2
from serplib.validation import check_fields, expect


@dataclass(frozen=True)
class PointNetConfig:
    """Sizes and choices of SeRP-PointNet: the paper's (section 3.2), or ours where it is silent.

    Attributes:
        widths: the shared layers on each point; the first gives the local feature, the last the
            global one (PointNet's 64, 128, 1024).
        decoder_widths: "4 fully-connected layers to give per-point 128-dimensional features".
        transform_widths: layers of a T-Net: three on the points, two on the cloud.
        input_transform: PointNet's T-Net on the coordinates.
        feature_transform: PointNet's T-Net on the local features (the authors' code has none),
            without PointNet's orthogonality loss, which section 3.2 does not name.
        task: what the reconstruction head predicts: ``"delta"``, the shift back to the clean point,
            or ``"cdl2"``, the clean coordinates.
        alpha_cls, alpha_rec: weights of Eq. 1.
        class_weights: cross-entropy weights of untouched and touched points (the authors' code:
            0.25 and 0.75).
    """

    widths: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 128, 1024)
    decoder_widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (512, 256, 128, 128)
    transform_widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (
        64, 128, 1024, 512, 256,
    )  # fmt: skip
    input_transform: bool = True
    feature_transform: bool = True
    task: Literal["delta", "cdl2"] = "delta"
    alpha_cls: NonNegativeFloat = 0.001
    alpha_rec: NonNegativeFloat = 1.5
    class_weights: tuple[NonNegativeFloat, NonNegativeFloat] = (1.0, 1.0)

    def __post_init__(self) -> None:
        check_fields(self)


class SharedLayer(nn.Module):
    """A fully connected layer applied to each point alike, with BatchNorm and optionally ReLU."""

    def __init__(self, inputs: int, outputs: int, relu: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs)``; BatchNorm takes all rows as one batch."""
        x = self.linear(x)  # (..., outputs)
        x = self.norm(x.flatten(0, -2)).view(x.shape)  # (..., outputs)
        return x.relu() if self.relu else x


class TNet(nn.Module):
    """PointNet's transformation network: a k x k matrix for each cloud, initially the identity."""

    def __init__(self, k: int, widths: tuple[int, int, int, int, int]) -> None:
        super().__init__()
        self.k = k
        a, b, c, d, e = widths
        self.on_points = nn.Sequential(SharedLayer(k, a), SharedLayer(a, b), SharedLayer(b, c))
        self.on_cloud = nn.Sequential(SharedLayer(c, d), SharedLayer(d, e))
        self.matrix = nn.Linear(e, k * k)
        nn.init.zeros_(self.matrix.weight)
        nn.init.zeros_(self.matrix.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, N, k)`` to matrices ``(B, k, k)``."""
        cloud = self.on_points(x).amax(1)  # (B, 1024)
        matrix = self.matrix(self.on_cloud(cloud)).unflatten(-1, (self.k, self.k))  # (B, k, k)
        return matrix + torch.eye(self.k, device=x.device, dtype=matrix.dtype)


class PointNetEncoder(nn.Module):
    """Map a cloud to its global feature: the part that the downstream tasks keep."""

    def __init__(self, config: PointNetConfig) -> None:
        super().__init__()
        local, middle, last = config.widths
        t = config.transform_widths
        self.input_transform = TNet(3, t) if config.input_transform else None
        self.feature_transform = TNet(local, t) if config.feature_transform else None
        self.local = SharedLayer(3, local)
        self.middle = SharedLayer(local, middle)
        self.last = SharedLayer(middle, last, relu=False)
        self.feature_dim = last

    def encode(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(B, N, 3)`` to global features ``(B, 1024)`` and local ones ``(B, N, 64)``."""
        expect(points, "B N 3", device=self.local.linear.weight.device)
        if self.input_transform is not None:
            points = points @ self.input_transform(points)  # (B, N, 3)
        local = self.local(points)  # (B, N, 64)
        if self.feature_transform is not None:
            local = local @ self.feature_transform(local)  # (B, N, 64)
        return self.global_feature(local), local

    def global_feature(self, local: Tensor) -> Tensor:
        """Map local features ``(B, N, 64)`` to global ones ``(B, 1024)``."""
        return self.last(self.middle(local)).amax(1)

    def forward(self, points: Tensor) -> Tensor:
        """Map clouds ``(B, N, 3)`` to features for classification, ``(B, feature_dim)``."""
        return self.encode(points)[0]


class SerpPointNet(nn.Module):
    """The autoencoder of section 3.2: encoder, four layers on each point, two heads."""

    def __init__(self, config: PointNetConfig = PointNetConfig()) -> None:
        super().__init__()
        self.config = config
        self.encoder = PointNetEncoder(config)
        widths = config.widths[-1] + config.widths[0], *config.decoder_widths  # 1088, 512, ...
        self.decoder = nn.Sequential(*(SharedLayer(i, o) for i, o in pairwise(widths)))
        self.classification = nn.Linear(widths[-1], 2)
        self.reconstruction = nn.Linear(widths[-1], 3)

    def forward(self, perturbed: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (untouched, touched) ``(B, N, 2)`` and the task's output ``(B, N, 3)``."""
        whole, local = self.encoder.encode(perturbed)  # (B, 1024), (B, N, 64)
        x = self.point_features(whole, local)  # (B, N, 128)
        return self.classification(x), self.reconstruction(x)

    def point_features(self, whole: Tensor, local: Tensor) -> Tensor:
        """Decode global ``(B, 1024)`` and local features ``(B, N, 64)`` to ``(B, N, 128)``."""
        whole = whole[:, None].expand(-1, local.shape[1], -1)  # (B, N, 1024), at every point
        return self.decoder(torch.cat([whole, local], -1))  # of (B, N, 1088)

    def losses(self, perturbed: Tensor, clean: Tensor, touched: Tensor) -> dict[str, Tensor]:
        """Return Eq. 1 as ``total``, and its two parts unweighted.

        Args:
            perturbed: ``(B, N, 3)`` perturbed clouds.
            clean: ``(B, N, 3)`` the same points before the perturbation.
            touched: ``(B, N)`` bool, which points were perturbed.
        """
        logits, predicted = self(perturbed)
        batch, num_points, _ = perturbed.shape
        expect(clean, f"{batch} {num_points} 3", "clean")
        expect(touched, f"{batch} {num_points}", "touched", floats=False)
        logits, predicted = at_least_float32(logits), at_least_float32(predicted)
        weights = logits.new_tensor(self.config.class_weights)  # (2,)
        classification = F.cross_entropy(logits.mT, touched.long(), weights)  # of (B, 2, N)
        if self.config.task == "delta":
            reconstruction = F.mse_loss(predicted, clean - perturbed)
        else:
            reconstruction = chamfer_l2(predicted, clean)
        total = self.config.alpha_cls * classification + self.config.alpha_rec * reconstruction
        return {"total": total, "classification": classification, "reconstruction": reconstruction}

    @torch.no_grad()
    def restore(self, perturbed: Tensor) -> Tensor:
        """Restore clouds ``(B, N, 3)``."""
        _, predicted = self(perturbed)
        return perturbed + predicted if self.config.task == "delta" else predicted
