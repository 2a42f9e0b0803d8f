"""What may stand between encoder and decoder: nothing, or VASP's codebook (section 3.4).

Each bottleneck takes latent tokens and returns what passes on, its loss terms by name (weighted:
the objective adds them) and diagnostics by name; they are interchangeable in `vasp`, and with those
of `variational`. What changes with the steps of training lies in buffers, so that a checkpoint
holds it; randomness comes from torch's global generator, which the training loop seeds at each
step. A setting that cannot be is a ValueError.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from serplib.expect import at_least, expect


class Passed(NamedTuple):
    """What a bottleneck returns."""

    latent: Tensor  # (B, T, l) what the decoder gets
    losses: dict[str, Tensor]  # scalars to add to the objective
    diagnostics: dict[str, Tensor]  # scalars to look at, without gradient


class Identity(nn.Module):
    """No bottleneck: SeRP."""

    def forward(self, latent: Tensor) -> Passed:  # (B, T, l)
        return Passed(latent, {}, {})


def code_use(counts: Tensor) -> dict[str, Tensor]:
    """How evenly codes are used, from how often each was, ``counts (K,)``.

    Returns:
        ``perplexity``, the effective number of codes, exp of the entropy: 1 to K; ``live_codes``,
        the share used at all. Of M tokens no more than M codes can be: compare at equal M.
    """
    counts = counts.float()
    entropy = torch.special.entr(counts / counts.sum().clamp_min(1)).sum()
    return {"perplexity": entropy.exp(), "live_codes": (counts > 0).float().mean()}


def nearest_codes(tokens: Tensor, codes: Tensor) -> Tensor:
    """Eq. 12 for tokens ``(M, l)`` and codes ``(K, l)``: ``(M,)`` int64 indices.

    |z - e|^2 = |z|^2 - 2 z.e + |e|^2, and |z|^2 is the same for all codes: what is kept is one
    (M, K) matrix, never (M, K, l). Half precision would mix up near codes: autocast is off here.
    """
    expect(codes, "K l", "codes")
    expect(tokens, f"M {codes.shape[1]}", "tokens", device=codes.device)
    with torch.autocast(tokens.device.type, enabled=False):
        return torch.addmm(codes.square().sum(1), tokens, codes.t(), alpha=-2).argmin(1)


class VectorQuantizer(nn.Module):
    """The codebook of VASP (Eq. 12, 13; van den Oord et al., 2017).

    Each token is replaced by its nearest code, and the gradient of the decoder passes straight
    through to the encoder. ``alpha * |sg[z] - e|^2`` moves the codes, ``beta * |z - sg[e]|^2`` the
    encoder. Both squares are MEANS over tokens and dimensions, as in the authors' code and in van
    den Oord's; the norm that Eq. 13 prints sums over the dimensions, and is l times as large.

    Args:
        codebook_size: K. dim: l, of tokens and codes.
        alpha, beta: weights of the codebook and of the commitment term.
        init: ``"uniform"`` is U[0, 1) (the authors' code), ``"small"`` U(-1/K, 1/K) (van den
            Oord's code), ``"kmeans"`` waits for the first training batch and clusters its tokens.
        ema: decay of the moving averages that move the codes in place of the alpha term, with
            Laplace smoothing ``epsilon`` of the use; None for no such averages.
        restart: a code whose use, as a moving average (decay ``ema`` or 0.95), falls below this
            fraction of a fair share is set to a token of the batch; None for never.
        cosine: tokens and codes are compared, and passed on, as directions of length 1.
        rotation: the gradient is turned from code to token on its way (rotation trick; Fifty et
            al., 2024, arXiv 2410.06424), instead of copied.
    """

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        alpha: float = 1.0,
        beta: float = 0.25,
        init: str = "small",
        ema: float | None = None,
        epsilon: float = 1e-5,
        restart: float | None = None,
        cosine: bool = False,
        rotation: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, codebook_size=codebook_size, dim=dim)
        at_least(0, alpha=alpha, beta=beta, epsilon=epsilon)
        for name, value in (("ema", ema), ("restart", restart)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} is {value}: wanted a number between 0 and 1, or None")
        if init not in ("uniform", "small", "kmeans"):
            raise ValueError(f"init is {init!r}, wanted 'uniform', 'small' or 'kmeans'")
        self.alpha, self.beta, self.ema, self.epsilon = alpha, beta, ema, epsilon
        self.restart, self.cosine, self.rotation = restart, cosine, rotation
        codes = torch.rand(codebook_size, dim)  # (K, l)
        if init == "small":
            codes = (2 * codes - 1) / codebook_size
        if cosine:
            codes = F.normalize(codes, dim=-1)
        self.codebook = nn.Parameter(codes, requires_grad=ema is None)  # (K, l)
        self.register_buffer("ready", torch.tensor(init != "kmeans"))
        # Moving averages of the tokens that each code gets, in fair shares (K / M of a token each),
        # so that 1 is the mean whatever the batch; and of the sum of those tokens, for the EMA.
        self.register_buffer("usage", torch.ones(codebook_size))  # (K,)
        self.register_buffer("token_sum", codes.clone() if ema is not None else None)  # (K, l)

    def codes(self) -> Tensor:
        """The codes as tokens meet them, ``(K, l)``."""
        # A clone, because _follow may change the codebook before the backward pass has read it.
        return F.normalize(self.codebook.clone(), dim=-1) if self.cosine else self.codebook

    @torch.no_grad()
    def choose(self, latent: Tensor) -> Tensor:
        """Eq. 12: the index of the nearest code of each token ``(..., l)``."""
        tokens = latent.to(self.codebook.dtype).flatten(0, -2)  # (M, l)
        if self.cosine:
            tokens = F.normalize(tokens, dim=-1)
        return nearest_codes(tokens, self.codes()).view(latent.shape[:-1])

    def forward(self, latent: Tensor) -> Passed:  # (B, T, l)
        expect(latent, f"B T {self.codebook.shape[1]}", "latent", device=self.codebook.device)
        z = latent.to(self.codebook.dtype)  # (B, T, l)
        if self.cosine:
            z = F.normalize(z, dim=-1)
        tokens = z.detach().flatten(0, -2)  # (M, l)
        if self.training and not self.ready:
            self._kmeans(tokens)
        index = self.choose(z)  # (B, T)
        counts = torch.bincount(index.flatten(), minlength=len(self.codebook)).to(z.dtype)  # (K,)
        e = self.codes()[index]  # (B, T, l)
        losses = {"commitment": self.beta * (z - e.detach()).square().mean()}
        if self.ema is None:
            losses["codebook"] = self.alpha * (z.detach() - e).square().mean()
        carrier = _turned(z, e.detach()) if self.rotation else z  # (B, T, l), brings the gradient
        diagnostics = code_use(counts) | {"quantization_error": (z - e).detach().square().mean()}
        if self.training:
            self._follow(tokens, index.flatten(), counts)
        passed = carrier + (e - carrier).detach()  # (B, T, l), e in value
        return Passed(passed.to(latent.dtype), losses, diagnostics)

    @torch.no_grad()
    def _follow(self, tokens: Tensor, index: Tensor, counts: Tensor) -> None:
        """Moving averages of use, EMA of the codes, restart of dead ones; tokens ``(M, l)``."""
        decay = 0.95 if self.ema is None else self.ema
        counts = _over_processes(counts)  # (K,)
        fair = len(counts) / counts.sum()  # K / M
        self.usage.lerp_(counts * fair, 1 - decay)
        if self.ema is not None:
            sums = torch.zeros_like(self.token_sum).index_add_(0, index, tokens)  # (K, l)
            self.token_sum.lerp_(_over_processes(sums) * fair, 1 - decay)
            total = self.usage.sum()
            smooth = (self.usage + self.epsilon) / (total + len(counts) * self.epsilon) * total
            codes = self.token_sum / smooth[:, None]  # (K, l)
            self.codebook.copy_(F.normalize(codes, dim=-1) if self.cosine else codes)
        if self.restart is not None:
            order = torch.randperm(len(tokens), device=tokens.device)  # (M,), no token twice:
            dead = (self.usage < self.restart).nonzero()[: len(tokens), 0]  # some codes may wait
            self._place(dead, tokens[order[: len(dead)]])

    @torch.no_grad()
    def _kmeans(self, tokens: Tensor, iterations: int = 10) -> None:
        """Start the codes at the clusters of the first batch's tokens ``(M, l)`` (Lloyd)."""
        size = len(self.codebook)
        order = torch.randperm(len(tokens), device=tokens.device)  # (M,)
        # Fewer tokens than codes: some codes start as copies, which no token will choose.
        codes = tokens[order[torch.arange(size, device=order.device) % len(order)]]  # (K, l)
        for _ in range(iterations):
            index = nearest_codes(tokens, codes)  # (M,)
            counts = torch.bincount(index, minlength=size)[:, None]  # (K, 1)
            means = torch.zeros_like(codes).index_add_(0, index, tokens) / counts.clamp_min(1)
            if self.cosine:
                means = F.normalize(means, dim=-1)
            codes = torch.where(counts > 0, means, codes)  # (K, l)
        self._place(torch.arange(size, device=codes.device), codes)
        self.ready.fill_(True)

    def _place(self, which: Tensor, codes: Tensor) -> None:
        """Set the codes ``which`` to ``codes (which, l)``, as if each had had its fair share."""
        self.codebook[which], self.usage[which] = codes, 1.0
        if self.ema is not None:
            self.token_sum[which] = codes
        if _many_processes():  # each drew from its own tokens: all take what the first one drew
            for tensor in (self.codebook.data, self.usage, self.token_sum):
                if tensor is not None:
                    distributed.broadcast(tensor, 0)


def _many_processes() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _over_processes(tensor: Tensor) -> Tensor:
    """The sum over all processes, each of which sees its share of the batch; in place."""
    if _many_processes():
        distributed.all_reduce(tensor)
    return tensor


def _turned(z: Tensor, e: Tensor) -> Tensor:
    """R z, which is e in value, with R held constant: dL/dz = R^T dL/de (the rotation trick).

    With unit vectors z^, e^ and r along z^ + e^, R = |e|/|z| (I - 2 r r^T + 2 e^ z^^T).

    Args:
        z: ``(..., l)`` tokens, with gradient. e: ``(..., l)`` their codes, without.
    """
    with torch.no_grad():
        z_hat, e_hat = F.normalize(z, dim=-1), F.normalize(e, dim=-1)  # (..., l)
        r = F.normalize(z_hat + e_hat, dim=-1)  # (..., l)
        scale = e.norm(dim=-1, keepdim=True) / z.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    along_r, along_z = (z * r).sum(-1, keepdim=True), (z * z_hat).sum(-1, keepdim=True)
    return scale * (z - 2 * along_r * r + 2 * along_z * e_hat)
