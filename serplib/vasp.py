"""VASP: SeRP-Transformer with a bottleneck on its latent tokens (paper, section 3.4).

The paper's bottleneck is a codebook. The others answer the question its future work asks: is it the
discreteness that hurts, or the way it is learned?
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serplib.bottlenecks import (
    BottleneckOutput,
    GaussianBottleneck,
    GumbelBottleneck,
    Identity,
    VectorQuantizer,
)
from serplib.patches import Patches
from serplib.transformer import SerpTransformer, TransformerConfig, patch_chamfer


@dataclass(frozen=True)
class VaspConfig:
    """The bottleneck; the defaults stand for the paper's text, which leaves most of it open.

    The paper gives no K, alpha, beta or initialisation and refers to van den Oord et al. (2017):
    alpha = 1, beta = 0.25, means instead of sums and codes from U(-1/K, 1/K) are theirs, and so is
    K = 512, with which the authors' code agrees. All tokens are quantised, [CLS] too: E of Eq. 8
    has c + 1 rows.

    Attributes:
        bottleneck: ``"none"`` (SeRP), ``"vq"`` (VASP), ``"vae"`` or ``"dvae"``.
        quantize_cls: whether [CLS] goes through the bottleneck; False hands it on as it is.
        codebook_size: K, of ``"vq"`` and ``"dvae"``.
        alpha, beta, init, ema, restart, cosine, rotation: see `bottlenecks.VectorQuantizer`.
        kl_weight, warmup_steps: beta and warm-up of ``"vae"`` and ``"dvae"``.
        free_bits: see `bottlenecks.GaussianBottleneck`.
        temperature, final_temperature, anneal_steps, kl: see `bottlenecks.GumbelBottleneck`.
    """

    bottleneck: str = "vq"
    quantize_cls: bool = True
    codebook_size: int = 512
    alpha: float = 1.0
    beta: float = 0.25
    init: str = "small"
    ema: float | None = None
    restart: float | None = None
    cosine: bool = False
    rotation: bool = False
    kl_weight: float = 1e-3
    warmup_steps: int = 0
    free_bits: float = 0.0
    temperature: float = 1.0
    final_temperature: float = 0.0625
    anneal_steps: int = 0
    kl: str = "token"

    def __post_init__(self) -> None:
        if self.bottleneck not in ("none", "vq", "vae", "dvae"):
            raise ValueError(
                f"bottleneck is {self.bottleneck!r}, wanted 'none', 'vq', 'vae' or 'dvae'"
            )
        if self.codebook_size < 1:
            raise ValueError(
                f"codebook_size is {self.codebook_size}, wanted K >= 1; for no codebook set "
                "bottleneck='none'"
            )

    def build(self, dim: int, total_steps: int | None = None) -> nn.Module:
        """The bottleneck for tokens of width ``dim`` (l).

        Args:
            total_steps: steps of the whole training, where known: longer schedules are refused.
        """
        if self.bottleneck == "none":
            return Identity()
        if self.bottleneck == "vq":
            return VectorQuantizer(
                self.codebook_size, dim, self.alpha, self.beta, self.init, self.ema,
                restart=self.restart, cosine=self.cosine, rotation=self.rotation,
            )  # fmt: skip
        if self.bottleneck == "vae":
            return GaussianBottleneck(
                dim, self.kl_weight, self.warmup_steps, self.free_bits, total_steps
            )
        return GumbelBottleneck(
            self.codebook_size, dim, self.temperature, self.final_temperature, self.anneal_steps,
            self.kl_weight, self.warmup_steps, self.kl, total_steps,
        )  # fmt: skip


class Vasp(SerpTransformer):
    """SeRP-Transformer whose latent tokens pass a bottleneck on their way to the decoder.

    Encoder and decoder start as those of a `SerpTransformer` of the same seed, whatever the
    bottleneck. Fine-tuning takes the encoder, which ends before the bottleneck: the codebook has
    then done its work (the authors' code drops it, too).
    """

    def __init__(
        self,
        config: TransformerConfig = TransformerConfig(),
        vasp: VaspConfig = VaspConfig(),
        total_steps: int | None = None,
    ) -> None:
        super().__init__(config)
        self.vasp = vasp
        self.bottleneck = vasp.build(config.latent_dim, total_steps)

    def reconstruct(
        self, perturbed: Tensor, clean: Tensor | None = None
    ) -> tuple[Tensor, Patches, BottleneckOutput]:
        """As `forward`, and what the bottleneck says of the tokens it was given."""
        patches = self.encoder.patches(perturbed, clean)
        latent, positions = self.encoder.encode(patches)  # (B, c+1, l)
        kept = 0 if self.vasp.quantize_cls else 1
        passed = self.bottleneck(latent[:, kept:])
        latent = torch.cat([latent[:, :kept], passed.latent], 1)  # (B, c+1, l)
        return self.decoder(latent, positions), patches, passed

    def forward(self, perturbed: Tensor, clean: Tensor | None = None) -> tuple[Tensor, Patches]:
        """Reconstructed patches ``(B, c, n, 3)`` of clouds ``(B, N, 3)``, and the patches cut."""
        predicted, patches, _ = self.reconstruct(perturbed, clean)
        return predicted, patches

    def losses(self, perturbed: Tensor, clean: Tensor, touched: Tensor) -> dict[str, Tensor]:
        """Eq. 13 with its parts: ``total`` is ``reconstruction`` and the bottleneck's terms.

        Eq. 13 prints + log p, which grows as the reconstruction gets better: what is minimised is
        - log p, the Chamfer distance. The bottleneck's diagnostics stand beside the terms.

        Args:
            perturbed, clean: ``(B, N, 3)`` twins. touched: ``(B, N)`` bool, not used here.
        """
        predicted, patches, passed = self.reconstruct(perturbed, clean)
        reconstruction = patch_chamfer(predicted, patches.targets, self.config.loss)
        total = reconstruction + sum(passed.losses.values())
        parts = {"total": total, "reconstruction": reconstruction}
        return parts | passed.losses | passed.diagnostics

    @torch.no_grad()
    def codes(self, points: Tensor) -> Tensor:
        """Which code each token of clouds ``(B, N, 3)`` takes: ``(B, T)`` int64.

        T is c + 1, [CLS] first, or c where [CLS] does not pass the bottleneck.
        """
        if self.vasp.bottleneck not in ("vq", "dvae"):
            raise ValueError(
                f"bottleneck {self.vasp.bottleneck!r} has no codes: set 'vq' or 'dvae'"
            )
        latent, _ = self.encoder.encode(self.encoder.patches(points))  # (B, c+1, l)
        return self.bottleneck.encode(latent[:, 0 if self.vasp.quantize_cls else 1 :])
