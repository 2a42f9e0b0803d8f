"""Masking instead of perturbing: Point-MAE (Pang et al., 2022) on SeRP's tokens (section 3.3).

The paper sets perturbation against masking, whose decoder must be told where the masked patches
were. `evaluation.leakage` measures how much that gives away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from serplib.patches import Patches, PositionMLP, stitch
from serplib.seeding import named_generator
from serplib.transformer import (
    TransformerConfig,
    TransformerDecoder,
    TransformerEncoder,
    patch_chamfer,
)


@dataclass(frozen=True)
class MaskedConfig:
    """What is masked, and in which autoencoder.

    Attributes:
        ratio: share of the patches that are masked (Point-MAE: 0.6).
        point_mae: tokens, norms and positions as Point-MAE has them: patches minus their centre,
            positions added before every block. False keeps the encoder as the transformer's
            configuration says, so that two pretext tasks share one encoder.
    """

    ratio: float = 0.6
    point_mae: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ValueError(f"mask ratio is {self.ratio}, wanted a number between 0 and 1")

    def num_masked(self, num_centers: int) -> int:
        """Patches masked of c, rounded down; at least one is, and at least one is not.

        Raises:
            ValueError: the ratio leaves no patch to see or none to predict.
        """
        masked = int(self.ratio * num_centers)
        if not 1 <= masked < num_centers:
            raise ValueError(
                f"mask ratio {self.ratio} of {num_centers} patches masks {masked}: at least one "
                "must be masked and one seen; change ratio, or raise num_centers"
            )
        return masked

    def transformer(self, config: TransformerConfig) -> TransformerConfig:
        """The autoencoder's configuration: without positions, all mask tokens would be the same."""
        if self.point_mae:
            config = replace(
                config,
                fusion="add",
                positions_every_block=True,
                encoder_norm=True,
                normalize="center",
                target_frame="own",
            )
        return replace(config, decoder_positions=True, head="token", loss="patch")


class Masked(nn.Module):
    """Hide patches of a clean cloud, and predict them from the others and from where they are.

    Two departures from Point-MAE's code. [CLS] is among the visible tokens, as in MAE (He et al.,
    2022), so that what fine-tuning reads has been trained. And the token PointNet embeds visible
    patches only; there it embeds all, and its BatchNorm sees the masked ones. Neighbouring patches
    share points in both: a masked patch is never hidden entirely.
    """

    def __init__(
        self,
        config: TransformerConfig = TransformerConfig(),
        masked: MaskedConfig = MaskedConfig(),
    ) -> None:
        super().__init__()
        self.config = config = masked.transformer(config)
        self.num_masked = masked.num_masked(config.num_centers)
        self.encoder = TransformerEncoder(config)
        self.decoder = TransformerDecoder(config)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, config.latent_dim))
        self.position = PositionMLP(config.dim)  # the decoder has its own
        self.cls_position = nn.Parameter(0.02 * torch.randn(1, 1, config.dim))

    def draw(self, patches: Patches) -> tuple[Patches, Patches]:
        """Visible patches, ``c - num_masked`` a cloud, and masked ones: a new choice each time.

        In evaluation the choice is always the same, so that losses compare.
        """
        batch, num_centers = patches.centers.shape[:2]
        device = patches.centers.device
        if self.training:
            order = torch.rand(batch, num_centers, device=device)  # (B, c)
        else:
            order = torch.rand(batch, num_centers, generator=named_generator("mask")).to(device)
        order = order.argsort(1)  # (B, c)
        row = torch.arange(batch, device=device)[:, None]  # (B, 1)
        hidden, visible = order.split([self.num_masked, num_centers - self.num_masked], 1)
        return Patches(*(x[row, visible] for x in patches)), Patches(
            *(x[row, hidden] for x in patches)
        )

    def predict(self, visible: Patches, centers: Tensor) -> Tensor:
        """The patches around ``centers (B, m, 3)``, from those seen: ``(B, m, n, 3)``."""
        latent, _ = self.encoder.encode(visible)  # (B, v+1, l)
        batch, hidden, _ = centers.shape
        latent = torch.cat([latent, self.mask_token.expand(batch, hidden, -1)], 1)  # (B, c+1, l)
        positions = self.position(torch.cat([visible.centers, centers], 1))  # (B, c, d)
        positions = torch.cat([self.cls_position.expand(batch, -1, -1), positions], 1)
        return self.decoder(latent, positions)[:, -hidden:]  # (B, m, n, 3)

    def forward(self, perturbed: Tensor, clean: Tensor | None = None) -> tuple[Tensor, Patches]:
        """Predictions of the masked patches ``(B, m, n, 3)`` of clouds ``(B, N, 3)``, and those.

        Args:
            perturbed: looked at only where there is no ``clean``: nothing is perturbed here.
        """
        patches = self.encoder.patches(perturbed if clean is None else clean)
        visible, masked = self.draw(patches)
        return self.predict(visible, masked.centers), masked

    def losses(self, perturbed: Tensor, clean: Tensor, touched: Tensor) -> dict[str, Tensor]:
        """The Chamfer distance of each masked patch and its prediction, mean over patches.

        Args:
            clean: ``(B, N, 3)``. perturbed, touched: not used here.
        """
        predicted, masked = self(perturbed, clean)
        return {"total": patch_chamfer(predicted, masked.targets)}

    @torch.no_grad()
    def restore(self, points: Tensor) -> Tensor:
        """Clouds ``(B, N, 3)`` from their patches, seen ones as they are: ``(B, c*n, 3)``.

        Predictions are put back in the true frame of the masked patch: its centre is known to the
        decoder; its mean and scale (``normalize="mean_std"``) are not, and are handed over.
        """
        visible, masked = self.draw(self.encoder.patches(points))
        predicted = self.predict(visible, masked.centers)  # (B, m, n, 3)
        seen = stitch(visible.inputs, visible.origin, visible.scale)  # (B, v*n, 3)
        return torch.cat([seen, stitch(predicted, masked.origin, masked.scale)], 1)
