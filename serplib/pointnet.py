"""SeRP-PointNet: find the perturbed points and put them back (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serplib.accel.pooling import max_over_points
from serplib.accel.shared_mlp import at_points, linear_norm
from serplib.geometry import chamfer_l2
from serplib.validation import expect


@dataclass(frozen=True)
class PointNetConfig:
    """Sizes and choices of SeRP-PointNet; the defaults are the paper's text.

    Attributes:
        widths: the shared layers on each point; the first is the local, the last the global
            feature (PointNet's 64, 128, 1024).
        decoder_widths: "4 fully-connected layers to give per-point 128-dimensional features".
        transform_widths: layers of the T-Nets, on points and then on the cloud.
        input_transform: PointNet's T-Net on the coordinates.
        feature_transform: PointNet's T-Net on the local features (the authors' code has none).
        task: what the reconstruction head predicts: ``"delta"``, the shift back to the clean point,
            or ``"cdl2"``, the clean coordinates.
        alpha_cls, alpha_rec: weights of Eq. 1.
        class_weights: cross-entropy weights of untouched and touched points (the authors' code:
            0.25 and 0.75).
    """

    widths: tuple[int, int, int] = (64, 128, 1024)
    decoder_widths: tuple[int, int, int, int] = (512, 256, 128, 128)
    transform_widths: tuple[int, int, int, int, int] = (64, 128, 1024, 512, 256)
    input_transform: bool = True
    feature_transform: bool = True
    task: str = "delta"
    alpha_cls: float = 0.001
    alpha_rec: float = 1.5
    class_weights: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if self.task not in ("delta", "cdl2"):
            raise ValueError(f"task is {self.task!r}, wanted 'delta' or 'cdl2'")


class Shared(nn.Module):
    """One fully connected layer shared by all rows, then BatchNorm and, if wanted, ReLU."""

    def __init__(self, inputs: int, outputs: int, relu: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:  # (..., inputs) -> (..., outputs)
        return linear_norm(x, self.linear, self.norm, self.relu)

    def pooled(self, x: Tensor) -> Tensor:  # (B, N, inputs) -> (B, outputs)
        """The maximum over the points of what `forward` gives."""
        x = max_over_points(x, self.linear, self.norm)  # (B, outputs)
        return x.relu() if self.relu else x  # ReLU never falls: it may come after the maximum


class TNet(nn.Module):
    """PointNet's transformer network: a k x k matrix for each cloud, the identity at first."""

    def __init__(self, k: int, widths: tuple[int, int, int, int, int]) -> None:
        super().__init__()
        self.k = k
        a, b, c, d, e = widths
        self.on_points = nn.Sequential(Shared(k, a), Shared(a, b), Shared(b, c))
        self.on_cloud = nn.Sequential(Shared(c, d), Shared(d, e))
        self.matrix = nn.Linear(e, k * k)
        nn.init.zeros_(self.matrix.weight)
        nn.init.zeros_(self.matrix.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, k) -> (B, k, k)
        cloud = self.on_points[2].pooled(self.on_points[:2](x))  # (B, c)
        matrix = self.matrix(self.on_cloud(cloud)).unflatten(-1, (self.k, self.k))  # (B, k, k)
        return matrix + torch.eye(self.k, device=x.device, dtype=matrix.dtype)


class PointNetEncoder(nn.Module):
    """A cloud to its global vector: what is kept for the downstream tasks."""

    def __init__(self, config: PointNetConfig) -> None:
        super().__init__()
        local, middle, whole = config.widths
        t = config.transform_widths
        self.input_transform = TNet(3, t) if config.input_transform else None
        self.feature_transform = TNet(local, t) if config.feature_transform else None
        self.local = Shared(3, local)
        self.middle = Shared(local, middle)
        self.whole = Shared(middle, whole, relu=False)
        self.feature_dim = whole

    def encode(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, N, 3)`` to the global ``(B, 1024)`` and the local features ``(B, N, 64)``."""
        expect(points, "B N 3", device=self.local.linear.weight.device)
        if self.input_transform is not None:
            points = points @ self.input_transform(points)  # (B, N, 3)
        local = self.local(points)  # (B, N, 64)
        if self.feature_transform is not None:
            local = local @ self.feature_transform(local)  # (B, N, 64)
        return self.whole.pooled(self.middle(local)), local

    def forward(self, points: Tensor) -> Tensor:
        """Features of clouds ``(B, N, 3)`` for classification: ``(B, feature_dim)``."""
        return self.encode(points)[0]


class SerpPointNet(nn.Module):
    """Global and local features, four layers, two heads (section 3.2).

    The first of the four layers reads ``[global; local]`` at every point. It is written as the sum
    of a layer on each: the one on the global vector is computed once a cloud, not once a point.
    """

    def __init__(self, config: PointNetConfig = PointNetConfig()) -> None:
        super().__init__()
        self.config = config
        self.encoder = PointNetEncoder(config)
        local, whole = config.widths[0], config.widths[-1]
        a, b, c, d = config.decoder_widths
        self.from_local = nn.Linear(local, a)
        self.from_global = nn.Linear(whole, a, bias=False)
        self.norm = nn.BatchNorm1d(a)
        self.decoder = nn.Sequential(Shared(a, b), Shared(b, c), Shared(c, d))
        self.classification = nn.Linear(d, 2)
        self.reconstruction = nn.Linear(d, 3)

    def forward(self, perturbed: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (untouched, touched) ``(B, N, 2)`` and the task's prediction ``(B, N, 3)``."""
        whole, local = self.encoder.encode(perturbed)  # (B, 1024), (B, N, 64)
        of_cloud = self.from_global(whole) + self.from_local.bias  # (B, 512)
        x = at_points(local, self.from_local.weight).add_(of_cloud[:, None])  # (B, N, 512)
        x = self.norm(x.flatten(0, 1)).relu_().view(x.shape)  # (B, N, 512)
        x = self.decoder(x)  # (B, N, 128)
        heads = self.classification, self.reconstruction  # on the same input: one product
        weight = torch.cat([head.weight for head in heads])  # (5, 128)
        both = F.linear(x, weight, torch.cat([head.bias for head in heads]))  # (B, N, 5)
        return both[..., :2], both[..., 2:]

    def losses(self, perturbed: Tensor, clean: Tensor, touched: Tensor) -> dict[str, Tensor]:
        """Eq. 1 and its two parts, unweighted.

        Args:
            perturbed, clean: ``(B, N, 3)`` twins. touched: ``(B, N)`` bool.
        """
        logits, predicted = self(perturbed)
        batch, num_points, _ = perturbed.shape
        expect(clean, f"{batch} {num_points} 3", "clean")
        expect(touched, f"{batch} {num_points}", "touched", floats=False)
        dtype = torch.promote_types(logits.dtype, torch.float32)  # half precision to float32
        logits, predicted = logits.to(dtype), predicted.to(dtype)
        weights = torch.tensor(self.config.class_weights, device=logits.device, dtype=dtype)
        classes = touched.long()  # (B, N)
        classification = F.cross_entropy(logits.mT, classes, weights)  # of (B, 2, N)
        if self.config.task == "delta":
            reconstruction = F.mse_loss(predicted, clean - perturbed)
        else:
            reconstruction = chamfer_l2(predicted, clean)
        total = self.config.alpha_cls * classification + self.config.alpha_rec * reconstruction
        return {
            "total": total,
            "classification": classification,
            "reconstruction": reconstruction,
        }

    @torch.no_grad()
    def restore(self, perturbed: Tensor) -> Tensor:
        """The restored clouds, ``(B, N, 3)``."""
        _, predicted = self(perturbed)
        return perturbed + predicted if self.config.task == "delta" else predicted
