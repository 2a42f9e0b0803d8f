"""Point-MAE (Pang et al., 2022) on SeRP's tokens: masking instead of perturbing (section 3.3).

The decoder of a masked autoencoder is given the positions of the masked patches.
`evaluation.leakage` measures how much these positions reveal.
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
from serplib.validation import PositiveShare, check_fields


@dataclass(frozen=True)
class PointMAEConfig:
    """Mask ratio and choice of the autoencoder.

    Attributes:
        ratio: fraction of the patches that are masked, between 0 and 1 (Point-MAE: 0.6).
        point_mae: use Point-MAE's tokens, norms and positions: patches minus their centre,
            positions added before every block. False keeps the encoder of the transformer's
            configuration, so that two pretext tasks share one encoder.
    """

    ratio: PositiveShare = 0.6
    point_mae: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def num_masked(self, num_centers: int) -> int:
        """Return the number of masked patches out of c, rounded down.

        Raises:
            ValueError: no patch is masked, or none is visible.
        """
        masked = int(self.ratio * num_centers)
        if not 1 <= masked < num_centers:
            raise ValueError(
                f"mask ratio {self.ratio} of {num_centers} patches masks {masked}: at least one "
                "must be masked and one seen; change ratio, or raise num_centers"
            )
        return masked

    def transformer(self, config: TransformerConfig) -> TransformerConfig:
        """Give the decoder positions, in which alone mask tokens differ; see ``point_mae``."""
        if self.point_mae:
            config = replace(
                config, fusion="add", positions_every_block=True, encoder_norm=True,
                normalize="center", target_frame="own",
            )  # fmt: skip
        return replace(config, decoder_positions=True, head="token", loss="patch")


class PointMAE(nn.Module):
    """Mask patches of a clean cloud; predict them from the visible ones and from their centres.

    There are two differences from Point-MAE's code. [CLS] is one of the visible tokens, as in MAE
    (He et al., 2022), so that the token read by fine-tuning is trained. The token PointNet embeds
    the visible patches only; Point-MAE embeds all, so that its BatchNorm sees the masked ones. In
    both, neighbouring patches share points: few masked patches are hidden entirely.
    """

    def __init__(
        self,
        config: TransformerConfig = TransformerConfig(),
        masked: PointMAEConfig = PointMAEConfig(),
    ) -> None:
        super().__init__()
        self.config = config = masked.transformer(config)
        self.num_masked = masked.num_masked(config.num_centers)
        self.encoder = TransformerEncoder(config)
        self.decoder = TransformerDecoder(config)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, config.latent_dim))
        self.position = PositionMLP(config.dim)  # of the decoder
        self.cls_position = nn.Parameter(0.02 * torch.randn(1, 1, config.dim))

    def draw(self, patches: Patches) -> tuple[Patches, Patches]:
        """Split patches at random into visible ones, ``c - num_masked`` per cloud, and masked ones.

        In evaluation mode the split is the same in each call, so that losses are comparable.
        """
        batch, num_centers = patches.centers.shape[:2]
        device = patches.centers.device
        where, generator = (device, None) if self.training else ("cpu", named_generator("mask"))
        keys = torch.rand(batch, num_centers, generator=generator, device=where).to(device)
        order = keys.argsort(1)  # (B, c)
        cloud = torch.arange(batch, device=device)[:, None]  # (B, 1)
        parts = order.split([self.num_masked, num_centers - self.num_masked], 1)  # (B, m), (B, v)
        masked, visible = (Patches(*(field[cloud, part] for field in patches)) for part in parts)
        return visible, masked

    def predict(self, visible: Patches, centers: Tensor) -> Tensor:
        """Predict the masked patches ``(B, m, n, 3)`` around ``centers (B, m, 3)``."""
        latent, _ = self.encoder.encode(visible)  # (B, v+1, l)
        batch, masked, _ = centers.shape
        latent = torch.cat([latent, self.mask_token.expand(batch, masked, -1)], 1)  # (B, c+1, l)
        positions = self.position(torch.cat([visible.centers, centers], 1))  # (B, c, d)
        positions = torch.cat([self.cls_position.expand(batch, -1, -1), positions], 1)
        return self.decoder(latent, positions)[:, -masked:]  # (B, m, n, 3)

    def forward(self, perturbed: Tensor, clean: Tensor | None = None) -> tuple[Tensor, Patches]:
        """Return predictions ``(B, m, n, 3)`` of the masked patches, and the masked patches.

        Args:
            perturbed: ``(B, N, 3)``, used only if ``clean`` is None.
            clean: ``(B, N, 3)`` clean clouds.
        """
        patches = self.encoder.patches(perturbed if clean is None else clean)
        visible, masked = self.draw(patches)
        return self.predict(visible, masked.centers), masked

    def losses(self, perturbed: Tensor, clean: Tensor, touched: Tensor) -> dict[str, Tensor]:
        """Return ``total``: the Chamfer distance of masked patches and predictions, a mean.

        Args:
            perturbed: ``(B, N, 3)``, not used here.
            clean: ``(B, N, 3)`` clean clouds.
            touched: ``(B, N)`` bool, not used here.
        """
        predicted, masked = self(perturbed, clean)
        return {"total": patch_chamfer(predicted, masked.targets)}

    @torch.no_grad()
    def restore(self, points: Tensor) -> Tensor:
        """Rebuild clouds ``(B, N, 3)`` from visible and predicted patches: ``(B, c*n, 3)``.

        Predictions are placed in the true frame of the masked patch. The decoder knows its centre,
        but not its mean and scale (``normalize="mean_std"``): these are ground truth.
        """
        visible, masked = self.draw(self.encoder.patches(points))
        predicted = self.predict(visible, masked.centers)  # (B, m, n, 3)
        known = stitch(visible.targets, visible.origin, visible.scale)  # (B, v*n, 3)
        return torch.cat([known, stitch(predicted, masked.origin, masked.scale)], 1)
