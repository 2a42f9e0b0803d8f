"""From a cloud to a sequence of tokens (paper, sections 3.3.1 and 3.3.2)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from serplib.geometry import farthest_point_sample, gather, knn
from serplib.validation import expect


class Patches(NamedTuple):
    """Patches of a corrupted cloud, with their clean partners.

    The network reads ``inputs`` and ``centers``, and must produce ``targets``. Reconstructed
    patches return to the cloud's own coordinates as ``patch * scale + origin`` (see `stitch`).
    """

    inputs: Tensor  # (B, c, n, 3) corrupted points, normalised patch by patch
    targets: Tensor  # (B, c, n, 3) the same points before the corruption, in the target's frame
    centers: Tensor  # (B, c, 3) corrupted centres, the input of the position embedding
    clean_centers: Tensor  # (B, c, 3) the same points before the corruption
    origin: Tensor  # (B, c, 1, 3) where the frame of the targets has its origin
    scale: Tensor  # (B, c, 1, 1) length of its unit, in unit-sphere radii
    index: Tensor  # type: ignore[assignment]  # (B, c, n) int64, points of the cloud


def make_patches(
    points: Tensor,
    num_centers: int,
    patch_size: int,
    clean: Tensor | None = None,
    normalize: str = "center",
    target_frame: str = "own",
) -> Patches:
    """Cut clouds into patches: FPS centres and their nearest neighbours (Eq. 2, 3).

    Centres and neighbours are found on ``points`` as given, that is, on the corrupted cloud. The
    defaults are the authors' code; `transformer.TransformerConfig` has the paper's choices.

    Args:
        points: ``(B, N, 3)`` corrupted clouds.
        num_centers: c. patch_size: n.
        clean: ``(B, N, 3)`` the clouds before corruption, in the same order; None where there is
            no corruption (fine-tuning): the targets are then the inputs.
        normalize: ``"center"`` subtracts the FPS centre (the authors' code); ``"mean_std"``
            subtracts the mean of the patch and divides by its standard deviation, one number a
            patch, taken over points and coordinates (paper, section 3.3.1).
        target_frame: origin and scale of the targets. ``"own"``: those of the clean patch (the
            authors' code). ``"input"``: those of the corrupted patch, known at test time.
            ``"origin"``: the origin of the corrupted patch, and scale 1. ``"cloud"``: origin 0
            and scale 1, for corruptions that move the whole cloud.

    Raises:
        ValueError: an unknown option, or sizes that do not fit (see `geometry`).
    """
    if normalize not in ("center", "mean_std"):
        raise ValueError(f"normalize is {normalize!r}, wanted 'center' or 'mean_std'")
    if target_frame not in (frames := ("own", "input", "origin", "cloud")):
        raise ValueError(f"target_frame is {target_frame!r}, wanted one of {frames}")
    expect(points, "B N 3")
    clean = points if clean is None else clean
    expect(clean, "B N 3", "clean", device=points.device)
    if clean.shape != points.shape:
        raise ValueError(
            f"clean is {tuple(clean.shape)}, points {tuple(points.shape)}: "
            "wanted the same shape, point i with point i"
        )

    chosen = farthest_point_sample(points, num_centers)  # (B, c)
    centers = gather(points, chosen)  # (B, c, 3)
    clean_centers = gather(clean, chosen)  # (B, c, 3)
    index = knn(centers, points, patch_size)  # (B, c, n)
    patches = gather(points, index)  # (B, c, n, 3)
    clean_patches = gather(clean, index)  # (B, c, n, 3)

    origin, scale = _frame(patches, centers, normalize)
    inputs = (patches - origin) / scale  # (B, c, n, 3)
    if target_frame == "own":
        origin, scale = _frame(clean_patches, clean_centers, normalize)
    elif target_frame == "origin":
        scale = torch.ones_like(scale)
    elif target_frame == "cloud":
        origin, scale = torch.zeros_like(centers)[:, :, None], torch.ones_like(scale)
    targets = (clean_patches - origin) / scale  # (B, c, n, 3)
    return Patches(inputs, targets, centers, clean_centers, origin, scale, index)


def _frame(patches: Tensor, centers: Tensor, normalize: str) -> tuple[Tensor, Tensor]:
    """Origin ``(B, c, 1, 3)`` and unit ``(B, c, 1, 1)`` of each patch's frame."""
    if normalize == "center":
        return centers[:, :, None], patches.new_ones(*centers.shape[:2], 1, 1)
    mean = patches.mean(2, keepdim=True)  # (B, c, 1, 3)
    variance = (patches - mean).square().mean((2, 3), keepdim=True)  # (B, c, 1, 1)
    # A patch whose points coincide has no scale: its unit is then tiny, not zero.
    return mean, variance.sqrt().clamp_min(1e-6)


def stitch(patches: Tensor, origin: Tensor, scale: Tensor) -> Tensor:
    """Put patches back where they belong: ``(B, c, n, 3)`` to one cloud ``(B, c*n, 3)``."""
    return (patches * scale + origin).flatten(1, 2)


class TokenPointNet(nn.Module):
    """A lightweight PointNet: one patch in, one token out (Eq. 4).

    Two layers on each point; the maximum over the patch is concatenated to each point's feature;
    two more layers, and the maximum again. The order of the points does not matter.
    """

    def __init__(self, dim: int, widths: tuple[int, int, int] = (128, 256, 512)) -> None:
        super().__init__()
        first, local, wide = widths
        self.first, self.first_norm = nn.Linear(3, first), nn.BatchNorm1d(first)
        self.local = nn.Linear(first, local)
        self.wide, self.wide_norm = nn.Linear(2 * local, wide), nn.BatchNorm1d(wide)
        self.last = nn.Linear(wide, dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches ``(B, c, n, 3)`` to tokens ``(B, c, d)``."""
        expect(patches, "B c n 3", "patches", device=self.first.weight.device)
        x = _over_rows(self.first_norm, self.first(patches)).relu()  # (B, c, n, 128)
        local = self.local(x)  # (B, c, n, 256)
        whole = local.amax(2, keepdim=True).expand_as(local)  # (B, c, n, 256), at every point
        x = self.wide(torch.cat([whole, local], -1))  # (B, c, n, 512)
        x = _over_rows(self.wide_norm, x).relu()  # (B, c, n, 512)
        return self.last(x).amax(2)  # (B, c, d)


def _over_rows(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply BatchNorm to ``(..., F)`` with all rows as one batch."""
    return norm(x.flatten(0, -2)).view(x.shape)


class PositionMLP(nn.Sequential):
    """Position embedding of the centres: ``(B, c, 3)`` to ``(B, c, d)`` (Eq. 5)."""

    def __init__(self, dim: int, hidden: int = 128) -> None:
        super().__init__(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, dim))


class Embedding(nn.Module):
    """Tokens, positions and [CLS] become the encoder's input (Eq. 4 to 7).

    Args:
        dim: d, the width of a token and of a position.
        fusion: ``"concat"`` joins token and position to width 2d (Eq. 6). With ``"add"`` (the
            authors' code) the encoder adds the position before every block, not here.
        cls_std, cls_position_std: standard deviation of the initial [CLS] and its position.
        token_widths: hidden widths of the token PointNet.
    """

    def __init__(
        self,
        dim: int,
        fusion: Literal["concat", "add"] = "concat",
        cls_std: float = 0.02,
        cls_position_std: float = 0.02,
        token_widths: tuple[int, int, int] = (128, 256, 512),
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.width = 2 * dim if fusion == "concat" else dim
        self.token = TokenPointNet(dim, token_widths)
        self.position = PositionMLP(dim)
        self.cls = nn.Parameter(torch.randn(1, 1, dim) * cls_std)
        self.cls_position = nn.Parameter(torch.randn(1, 1, dim) * cls_position_std)

    def forward(self, patches: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Embed patches ``(B, c, n, 3)`` around centres ``(B, c, 3)``.

        Returns:
            The input I of the encoder, ``(B, c+1, 2d)`` for ``concat`` and ``(B, c+1, d)`` for
            ``add`` (positions not yet in it), and the positions ``(B, c+1, d)``; [CLS] comes first.
        """
        batch = len(patches)
        tokens = torch.cat([self.cls.expand(batch, -1, -1), self.token(patches)], 1)  # (B, c+1, d)
        positions = torch.cat(
            [self.cls_position.expand(batch, -1, -1), self.position(centers)], 1
        )  # (B, c+1, d)
        if self.fusion == "concat":
            tokens = torch.cat([tokens, positions], -1)  # (B, c+1, 2d)
        return tokens, positions
