"""SeRP-Transformer: restore a corrupted cloud patch by patch (paper, sections 3.3.3 to 3.3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from serplib.geometry import chamfer_l2
from serplib.patches import Embedding, Patches, make_patches, stitch
from serplib.validation import Share, check_fields, expect


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and choices of SeRP-Transformer: the paper's (section 4), or ours where it is silent.

    ``notebooks/site/reproduction.md`` says what the text leaves open.

    Attributes:
        num_centers: c, patches per cloud.
        patch_size: n, points per patch.
        dim: d, width of tokens, positions and decoder.
        latent_dim: l, width of the latent tokens.
        encoder_depth, decoder_depth: number of blocks; the paper says "standard Transformers" and
            "asymmetric", the counts of blocks are those of the authors' code.
        encoder_heads, decoder_heads: attention heads per block; 64 features a head, as in the
            authors' code (6 heads of 384; here the encoder is 768 wide).
        mlp_ratio: width of a block's hidden layer, in widths of the block.
        qkv_bias: bias of the query, key and value projections.
        drop_path: largest probability of skipping a residual branch; it rises linearly with depth.
        encoder_norm: LayerNorm after the last encoder block.
        fusion: ``"concat"`` (Eq. 6) or ``"add"`` (the authors' code).
        positions_every_block: add the positions again before every block; required by ``"add"``.
        decoder_positions: give the positions to the decoder too.
        normalize, target_frame: see `patches.make_patches`.
        cls_std, cls_position_std, token_widths: see `patches.Embedding`.
        head: ``"token"``, one fully connected layer per token (Eq. 10), or ``"pair"``, a
            convolution of kernel 2: patch i comes from tokens i-1 and i (the authors' code).
        loss: ``"patch"``, Chamfer patch by patch, or ``"union"``, one Chamfer over the union of all
            patches in their own frames (the authors' code); it does not distinguish the patches.
        pooling: features for classification: ``"cls"``, or ``"cls_max"``, [CLS; max over patches].
    """

    num_centers: PositiveInt = 64
    patch_size: PositiveInt = 32
    dim: PositiveInt = 384
    latent_dim: PositiveInt = 384
    encoder_depth: PositiveInt = 12
    decoder_depth: PositiveInt = 4
    encoder_heads: PositiveInt = 12
    decoder_heads: PositiveInt = 6
    mlp_ratio: PositiveInt = 4
    qkv_bias: bool = True
    drop_path: Share = 0.0
    encoder_norm: bool = True
    fusion: Literal["concat", "add"] = "concat"
    positions_every_block: bool = False
    decoder_positions: bool = False
    normalize: Literal["center", "mean_std"] = "mean_std"
    target_frame: Literal["own", "input", "origin", "cloud"] = "input"
    cls_std: NonNegativeFloat = 0.02
    cls_position_std: NonNegativeFloat = 0.02
    token_widths: tuple[PositiveInt, PositiveInt, PositiveInt] = (128, 256, 512)
    head: Literal["token", "pair"] = "token"
    loss: Literal["patch", "union"] = "patch"
    pooling: Literal["cls", "cls_max"] = "cls"

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.fusion == "add") != self.positions_every_block:
            raise ValueError(
                f"fusion is {self.fusion!r} and positions_every_block {self.positions_every_block}:"
                " 'add' needs positions_every_block=True, 'concat' needs False"
            )
        encoder_width = self.dim if self.fusion == "add" else 2 * self.dim
        for part, width in (("encoder", encoder_width), ("decoder", self.dim)):
            if width % (heads := getattr(self, f"{part}_heads")):
                raise ValueError(f"{part}_heads is {heads}: must divide the {part}'s width {width}")


class Attention(nn.Module):
    """Multi-head self-attention without a mask."""

    def __init__(self, width: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.out = nn.Linear(width, width)

    def _qkv(self, x: Tensor) -> list[Tensor]:
        """Map ``(B, T, D)`` to queries, keys, values, ``(B, heads, T, D/heads)`` each."""
        thirds = self.qkv(x).chunk(3, -1)  # (B, T, D) each
        return [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in thirds]

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(B, T, D)`` to tokens of the same shape."""
        q, k, v = self._qkv(x)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, heads, T, D/heads)
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, D)

    def weights(self, x: Tensor) -> Tensor:
        """Return the attention weights ``(B, heads, T, T)`` for figures; rows sum to 1."""
        q, k, _ = self._qkv(x)
        return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)


class DropPath(nn.Module):
    """Skip a residual branch for a whole sample with probability p, in training only."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x (B, ...)`` with some samples set to 0 and the others divided by 1 - p."""
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.p
        return x * keep / (1 - self.p)


class Block(nn.Module):
    """A pre-norm Transformer block."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, qkv_bias: bool, p: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, qkv_bias)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width)
        )
        self.drop_path = DropPath(p)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(B, T, D)`` to tokens of the same shape."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def _projection(inputs: int, outputs: int) -> nn.Module:
    """Make a linear layer, or the identity where the width does not change."""
    return nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)


def _blocks(width: int, depth: int, heads: int, config: TransformerConfig) -> nn.ModuleList:
    drop = torch.linspace(0, config.drop_path, depth, device="cpu").tolist()  # meta: no values
    return nn.ModuleList(Block(width, heads, config.mlp_ratio, config.qkv_bias, p) for p in drop)


class TransformerEncoder(nn.Module):
    """Map patches to latent tokens E (Eq. 4 to 8): the part that the downstream tasks keep."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(
            config.dim, config.fusion, config.cls_std, config.cls_position_std, config.token_widths
        )
        width = self.embedding.width
        self.blocks = _blocks(width, config.encoder_depth, config.encoder_heads, config)
        self.norm = nn.LayerNorm(width) if config.encoder_norm else nn.Identity()
        self.to_latent = _projection(width, config.latent_dim)
        self.feature_dim = config.latent_dim * (2 if config.pooling == "cls_max" else 1)

    def patches(self, points: Tensor, clean: Tensor | None = None) -> Patches:
        """Cut clouds ``(B, N, 3)`` into patches; ``clean`` are their clean partners."""
        c = self.config
        return make_patches(points, c.num_centers, c.patch_size, clean, c.normalize, c.target_frame)

    def encode(self, patches: Patches) -> tuple[Tensor, Tensor]:
        """Return latent tokens ``(B, c+1, l)``, [CLS] first, and positions ``(B, c+1, d)``."""
        x, positions = self.embedding(patches.inputs, patches.centers)  # (B, c+1, D)
        for block in self.blocks:
            x = block(x + positions if self.config.positions_every_block else x)
        return self.to_latent(self.norm(x)), positions

    def forward(self, points: Tensor) -> Tensor:
        """Map clouds ``(B, N, 3)`` to features for classification, ``(B, feature_dim)``."""
        latent, _ = self.encode(self.patches(points))  # (B, c+1, l)
        cls = latent[:, 0]  # (B, l)
        if self.config.pooling == "cls":
            return cls
        return torch.cat([cls, latent[:, 1:].amax(1)], -1)  # (B, 2l)


class TransformerDecoder(nn.Module):
    """Map latent tokens to reconstructed patches (Eq. 9, 10)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.from_latent = _projection(config.latent_dim, config.dim)
        self.blocks = _blocks(config.dim, config.decoder_depth, config.decoder_heads, config)
        self.norm = nn.LayerNorm(config.dim)
        outputs = 3 * config.patch_size
        self.head: nn.Module = nn.Linear(config.dim, outputs)
        if config.head == "pair":
            self.head = nn.Conv1d(config.dim, outputs, kernel_size=2)

    def forward(self, latent: Tensor, positions: Tensor) -> Tensor:
        """Map latents ``(B, c+1, l)`` and positions ``(B, c+1, d)`` to patches ``(B, c, n, 3)``."""
        x = self.from_latent(latent)  # (B, c+1, d)
        for block in self.blocks:
            x = block(x + positions if self.config.decoder_positions else x)
        x = self.norm(x)  # (B, c+1, d)
        if self.config.head == "token":
            flat = self.head(x[:, 1:])  # (B, c, 3n)
        else:  # patch 1 comes from tokens 0 ([CLS]) and 1, and so on
            flat = self.head(x.transpose(1, 2)).transpose(1, 2)  # (B, c, 3n)
        return flat.unflatten(-1, (-1, 3))  # (B, c, n, 3)


class SerpTransformer(nn.Module):
    """The autoencoder of section 3.3."""

    def __init__(self, config: TransformerConfig = TransformerConfig()) -> None:
        super().__init__()
        self.config = config
        self.encoder = TransformerEncoder(config)
        self.decoder = TransformerDecoder(config)

    def forward(self, perturbed: Tensor, clean: Tensor | None = None) -> tuple[Tensor, Patches]:
        """Cut clouds ``(B, N, 3)`` into patches; return reconstructions ``(B, c, n, 3)`` and them.

        Args:
            perturbed: ``(B, N, 3)`` perturbed clouds.
            clean: the same points before the perturbation, for the targets; None: ``perturbed``.
        """
        patches = self.encoder.patches(perturbed, clean)
        latent, positions = self.encoder.encode(patches)  # (B, c+1, l)
        return self.decoder(latent, positions), patches

    def losses(self, perturbed: Tensor, clean: Tensor, touched: Tensor) -> dict[str, Tensor]:
        """Return the objective (Eq. 11) as ``total``, in squared units of the target's frame.

        Args:
            perturbed: ``(B, N, 3)`` perturbed clouds.
            clean: ``(B, N, 3)`` the same points before the perturbation.
            touched: ``(B, N)`` bool, not used here.
        """
        predicted, patches = self(perturbed, clean)
        return {"total": patch_chamfer(predicted, patches.targets, self.config.loss)}

    @torch.no_grad()
    def restore(
        self, perturbed: Tensor, clean: Tensor | None = None, centers: str = "corrupted"
    ) -> Tensor:
        """Put the reconstructed patches back in place: restored clouds ``(B, c*n, 3)``.

        Args:
            perturbed: ``(B, N, 3)`` perturbed clouds.
            clean: the same points before the perturbation, for ``centers="clean"`` only.
            centers: ``"corrupted"`` uses the network's input alone. ``"clean"`` moves each patch by
                the true shift of its centre, which uses c ground-truth points, as the authors'
                Figure 4 does.

        Raises:
            ValueError: unknown ``centers``, or ``"clean"`` without the clean clouds.
        """
        if centers not in ("corrupted", "clean"):
            raise ValueError(f"centers is {centers!r}, wanted 'corrupted' or 'clean'")
        if centers == "clean" and clean is None:
            raise ValueError("centers='clean' needs the clean clouds")
        predicted, patches = self(perturbed)  # without the clean clouds: in the input's frame
        origin = patches.origin  # (B, c, 1, 3)
        if centers == "clean" and self.config.target_frame != "cloud":
            true = self.encoder.patches(perturbed, clean).clean_centers  # (B, c, 3)
            origin = origin + (true - patches.centers)[:, :, None]
        return stitch(predicted, origin, patches.scale)


def patch_chamfer(predicted: Tensor, targets: Tensor, loss: str = "patch") -> Tensor:
    """Return the Chamfer loss of patches ``(B, c, n, 3)``.

    Args:
        predicted, targets: ``(B, c, n, 3)``; n may differ.
        loss: ``"patch"``, the mean over patches, or ``"union"``, of all patches as one cloud.
    """
    if loss not in ("patch", "union"):
        raise ValueError(f"loss is {loss!r}, wanted 'patch' or 'union'")
    expect(predicted, "B c n 3", "predicted")
    expect(targets, "B c n 3", "targets")
    if loss == "union":
        return chamfer_l2(predicted.flatten(1, 2), targets.flatten(1, 2))
    return chamfer_l2(predicted.flatten(0, 1), targets.flatten(0, 1))
