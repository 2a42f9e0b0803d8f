"""VASP: SeRP-Transformer with a bottleneck on its latent tokens (paper, section 3.4).

The paper's bottleneck is a codebook. The variational ones separate the effect of discrete tokens
from the effect of how the codebook is learned (the paper's future work).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, cast

import torch
from annotated_types import Ge, MinLen
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from serplib.bottlenecks import (
    BottleneckOutput,
    FiniteScalarQuantizer,
    GaussianBottleneck,
    GumbelBottleneck,
    Identity,
    ResidualQuantizer,
    VectorQuantizer,
)
from serplib.patches import Patches
from serplib.transformer import SerpTransformer, TransformerConfig, patch_chamfer
from serplib.validation import PositiveShare, check_fields


@dataclass(frozen=True)
class VaspConfig:
    """Choice and settings of the bottleneck.

    The paper gives no K, alpha, beta or initialisation and refers to van den Oord et al. (2017):
    alpha = 1, beta = 0.25, means instead of sums and K = 512 are theirs (K = 512 is also the
    authors' code's). Codes start from U(-1/K, 1/K), as in common PyTorch ports of VQ-VAE. All
    tokens are quantised, [CLS] too: E of Eq. 8 has c + 1 rows.

    Attributes:
        bottleneck: ``"none"`` (SeRP), ``"vq"`` (VASP), ``"fsq"``, ``"vae"`` or ``"dvae"``.
        quantize_cls: whether [CLS] passes the bottleneck; False leaves it unchanged.
        codebook_size: K, of ``"vq"`` and ``"dvae"``.
        alpha, beta, init, ema, restart, cosine, rotation: see `bottlenecks.VectorQuantizer`.
        kl_weight, warmup_steps: beta and warm-up of ``"vae"`` and ``"dvae"``.
        free_bits, rate: see `bottlenecks.GaussianBottleneck`.
        temperature, final_temperature, anneal_steps, kl: see `bottlenecks.GumbelBottleneck`.
        stages: codebooks of ``"vq"``, see `bottlenecks.ResidualQuantizer`; 1 for the paper's.
        levels: of ``"fsq"``, see `bottlenecks.FiniteScalarQuantizer`.
    """

    bottleneck: Literal["none", "vq", "fsq", "vae", "dvae"] = "vq"
    quantize_cls: bool = True
    codebook_size: PositiveInt = 512
    alpha: NonNegativeFloat = 1.0
    beta: NonNegativeFloat = 0.25
    init: Literal["uniform", "small", "sonnet", "kmeans"] = "small"
    ema: PositiveShare | None = None
    restart: PositiveShare | None = None
    cosine: bool = False
    rotation: bool = False
    kl_weight: NonNegativeFloat = 1e-3
    warmup_steps: NonNegativeInt = 0
    free_bits: NonNegativeFloat = 0.0
    temperature: PositiveFloat = 1.0
    final_temperature: PositiveFloat = 0.0625
    anneal_steps: NonNegativeInt = 0
    kl: Literal["token", "mean"] = "token"
    rate: PositiveFloat | None = None
    stages: PositiveInt = 1
    levels: Annotated[tuple[Annotated[int, Ge(2)], ...], MinLen(1)] = (8, 8, 8)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.stages > 1 and (self.cosine or self.rotation):
            raise ValueError(f"stages is {self.stages}: must be 1 with cosine or rotation")
        # Building it checks the combination of fields (on "meta" it would import torch._dynamo).
        with torch.random.fork_rng(devices=[]):
            self.build(1)

    def codebook_sizes(self) -> tuple[int, ...]:
        """Return the number of codes of each codebook; none for a bottleneck without codes."""
        if self.bottleneck == "fsq":
            return (math.prod(self.levels),)
        count = {"vq": self.stages, "dvae": 1}.get(self.bottleneck, 0)
        return (self.codebook_size,) * count

    def build(self, dim: int, total_steps: int | None = None) -> nn.Module:
        """Make the bottleneck.

        Args:
            dim: l, width of the latent tokens.
            total_steps: steps of the whole training, if known.

        Raises:
            ValueError: a schedule longer than ``total_steps``.
        """
        if self.bottleneck == "none":
            return Identity()
        if self.bottleneck == "vq":
            make = VectorQuantizer if self.stages == 1 else partial(ResidualQuantizer, self.stages)
            return make(
                self.codebook_size, dim, self.alpha, self.beta, self.init, self.ema,
                restart=self.restart, cosine=self.cosine, rotation=self.rotation,
            )  # fmt: skip
        if self.bottleneck == "fsq":
            return FiniteScalarQuantizer(dim, self.levels)
        if self.bottleneck == "vae":
            return GaussianBottleneck(
                dim, self.kl_weight, self.warmup_steps, self.free_bits, total_steps, self.rate
            )
        return GumbelBottleneck(
            self.codebook_size, dim, self.temperature, self.final_temperature, self.anneal_steps,
            self.kl_weight, self.warmup_steps, self.kl, total_steps,
        )  # fmt: skip


class Vasp(SerpTransformer):
    """SeRP-Transformer with a bottleneck between encoder and decoder.

    Encoder and decoder have the initial weights of a `SerpTransformer` of the same seed, whatever
    the bottleneck. Fine-tuning uses the encoder without the bottleneck (so does the authors' code).
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
        """Return what `forward` returns, and the output of the bottleneck."""
        patches = self.encoder.patches(perturbed, clean)
        latent, positions = self.encoder.encode(patches)  # (B, c+1, l)
        kept = 0 if self.vasp.quantize_cls else 1
        output = self.bottleneck(latent[:, kept:])
        latent = torch.cat([latent[:, :kept], output.latent], 1)  # (B, c+1, l)
        return self.decoder(latent, positions), patches, output

    def forward(self, perturbed: Tensor, clean: Tensor | None = None) -> tuple[Tensor, Patches]:
        """See `SerpTransformer.forward`."""
        predicted, patches, _ = self.reconstruct(perturbed, clean)
        return predicted, patches

    def losses(self, perturbed: Tensor, clean: Tensor, touched: Tensor) -> dict[str, Tensor]:
        """Return Eq. 13 as ``total``, its terms, and the bottleneck's diagnostics.

        Eq. 13 prints + log p, which grows as the reconstruction improves; a minimised loss needs
        - log p, here the Chamfer distance (``reconstruction``). Arguments as in `SerpTransformer`.
        """
        predicted, patches, output = self.reconstruct(perturbed, clean)
        reconstruction = patch_chamfer(predicted, patches.targets, self.config.loss)
        total = reconstruction + sum(output.losses.values())
        parts = {"total": total, "reconstruction": reconstruction}
        return parts | output.losses | output.diagnostics

    @torch.no_grad()
    def codes(self, points: Tensor) -> Tensor:
        """Return the code of each token of clouds ``(B, N, 3)``: ``(B, T)`` int64.

        T is c + 1, [CLS] first, or c if [CLS] does not pass the bottleneck. With several stages
        the result is ``(B, T, stages)``.

        Raises:
            ValueError: the bottleneck has no codes.
        """
        if not self.vasp.codebook_sizes():
            raise ValueError(
                f"bottleneck {self.vasp.bottleneck!r} has no codes: set 'vq', 'fsq' or 'dvae'"
            )
        latent, _ = self.encoder.encode(self.encoder.patches(points))  # (B, c+1, l)
        return cast(Any, self.bottleneck).encode(latent[:, 0 if self.vasp.quantize_cls else 1 :])
