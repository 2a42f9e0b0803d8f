"""Bottlenecks between encoder and decoder: none, codebooks, a grid, variational (section 3.4).

Each maps latent tokens to the decoder's input, with loss terms (already weighted: the objective
adds them) and diagnostics by name, so that they are interchangeable in `vasp`. State that changes
during training lies in buffers: a checkpoint contains it. Randomness comes from torch's global
generator, which the training loop seeds at each step. Values out of range raise a ValueError;
`vasp.VaspConfig` checks types and names.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from serplib.geometry import at_least_float32
from serplib.validation import expect, require_at_least


class BottleneckOutput(NamedTuple):
    """The result of a bottleneck."""

    latent: Tensor  # (B, T, l) the decoder's input
    losses: dict[str, Tensor]  # scalars to add to the objective
    diagnostics: dict[str, Tensor]  # scalars to log, without gradient


class Identity(nn.Module):
    """No bottleneck: SeRP."""

    def forward(self, latent: Tensor) -> BottleneckOutput:
        """Pass latent tokens ``(B, T, l)`` on unchanged."""
        return BottleneckOutput(latent, {}, {})


def code_use(*counts: Tensor) -> dict[str, Tensor]:
    """Measure how evenly codes are used, from the number of tokens of each, ``(K,)`` a codebook.

    Returns:
        ``perplexity``, the effective number of codes, exp of the entropy, 1 to K; ``bits``, the
        entropy in bits a token; ``live_codes``, the fraction of codes in use. With several
        codebooks: the product of their perplexities, the sum of their bits, the mean of their live
        shares. M tokens use at most M codes: compare at equal M.
    """
    shares = [n.float() / n.sum().clamp_min(1) for n in counts]  # (K,) each
    entropy = torch.stack([torch.special.entr(share).sum() for share in shares]).sum()
    live = torch.stack([(share > 0).float().mean() for share in shares]).mean()
    return {"perplexity": entropy.exp(), "bits": entropy / math.log(2), "live_codes": live}


def nearest_codes(tokens: Tensor, codes: Tensor) -> Tensor:
    """Find the nearest of codes ``(K, l)`` to tokens ``(M, l)``: ``(M,)`` int64 (Eq. 12).

    |z - e|^2 = |z|^2 - 2 z.e + |e|^2, and |z|^2 is the same for all codes: this needs a (M, K)
    matrix instead of (M, K, l). Autocast is off, since half precision confuses near codes.
    """
    expect(codes, "K l", "codes")
    expect(tokens, f"M {codes.shape[1]}", "tokens", device=codes.device)
    with torch.autocast(tokens.device.type, enabled=False):
        return torch.addmm(codes.square().sum(1), tokens, codes.t(), alpha=-2).argmin(1)


class VectorQuantizer(nn.Module):
    """The codebook of VASP (Eq. 12, 13; van den Oord et al., 2017).

    Each token is replaced by its nearest code; the gradient of the decoder is copied straight
    through to the encoder. ``alpha * |sg[z] - e|^2`` moves the codes, ``beta * |z - sg[e]|^2`` the
    encoder. Both squares are MEANS over tokens and dimensions, as in the authors' code and in van
    den Oord's; the norm printed in Eq. 13 sums over the dimensions, which is l times as large.

    Args:
        codebook_size: K.
        dim: l, width of tokens and codes.
        alpha: weight of the codebook term; at 0 no gradient moves the codes (k-means, ``ema`` and
            restarts still do).
        beta: weight of the commitment term.
        init: ``"uniform"`` is U[0, 1) (the authors' code), ``"small"`` U(-1/K, 1/K) (common PyTorch
            ports of VQ-VAE), ``"sonnet"`` U(-sqrt(3 / l), sqrt(3 / l)) (van den Oord's own code),
            ``"kmeans"`` clusters the tokens of the first training batch.
        ema: decay of moving averages that replace the alpha term; None keeps the alpha term.
        epsilon: Laplace smoothing of the code usage, with ``ema`` only.
        restart: reset a code to a token of the batch when its usage, as a moving average (decay
            ``ema`` or 0.95), falls below this fraction of M / K tokens; None for never.
        cosine: normalise tokens and codes to length 1, for comparison and as output.
        rotation: rotate the gradient from code to token instead of copying it (rotation trick;
            Fifty et al., 2024, arXiv 2410.06424).
    """

    ready: Tensor  # bool, False until the k-means of the first batch
    usage: Tensor  # (K,) moving average of the tokens of each code, over M / K
    token_sum: Tensor  # (K, l) moving average of the sum of those tokens; with ``ema`` only

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        alpha: float = 1.0,
        beta: float = 0.25,
        init: Literal["uniform", "small", "sonnet", "kmeans"] = "small",
        ema: float | None = None,
        epsilon: float = 1e-5,
        restart: float | None = None,
        cosine: bool = False,
        rotation: bool = False,
    ) -> None:
        super().__init__()
        require_at_least(1, codebook_size=codebook_size, dim=dim)
        require_at_least(0, alpha=alpha, beta=beta, epsilon=epsilon)
        for name, value in (("ema", ema), ("restart", restart)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} is {value}: wanted a number between 0 and 1, or None")
        if init not in ("uniform", "small", "sonnet", "kmeans"):
            raise ValueError(f"init is {init!r}, wanted 'uniform', 'small', 'sonnet' or 'kmeans'")
        self.alpha, self.beta, self.ema, self.epsilon = alpha, beta, ema, epsilon
        self.restart, self.cosine, self.rotation = restart, cosine, rotation
        codes = torch.rand(codebook_size, dim)  # (K, l)
        if init in ("small", "sonnet"):
            codes = (2 * codes - 1) / (codebook_size if init == "small" else math.sqrt(dim / 3))
        if cosine:
            codes = F.normalize(codes, dim=-1)
        self.codebook = nn.Parameter(codes, requires_grad=ema is None and alpha > 0)  # (K, l)
        self.register_buffer("ready", torch.tensor(init != "kmeans"))
        self.register_buffer("usage", torch.ones(codebook_size))
        self.register_buffer("token_sum", codes.clone() if ema is not None else None)

    def codes(self) -> Tensor:
        """Return the codes ``(K, l)``, normalised for ``cosine``."""
        # A clone: _update_codes may change the codebook before the backward pass has read it.
        return F.normalize(self.codebook.clone(), dim=-1) if self.cosine else self.codebook

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """Return the index of the nearest code of each token ``(..., l)`` (Eq. 12)."""
        tokens = latent.to(self.codebook.dtype).flatten(0, -2)  # (M, l)
        if self.cosine:
            tokens = F.normalize(tokens, dim=-1)
        return nearest_codes(tokens, self.codes()).view(latent.shape[:-1])

    def forward(self, latent: Tensor) -> BottleneckOutput:
        """Quantise latent tokens ``(B, T, l)``."""
        expect(latent, f"B T {self.codebook.shape[1]}", "latent", device=self.codebook.device)
        z = latent.to(self.codebook.dtype)  # (B, T, l)
        if self.cosine:
            z = F.normalize(z, dim=-1)
        tokens = z.detach().flatten(0, -2)  # (M, l)
        if self.training and not self.ready:
            self._kmeans(tokens)
        index = self.encode(z)  # (B, T)
        counts = torch.bincount(index.flatten(), minlength=len(self.codebook)).to(z.dtype)  # (K,)
        e = self.codes()[index]  # (B, T, l)
        losses = {"commitment": self.beta * (z - e.detach()).square().mean()}
        if self.ema is None:
            losses["codebook"] = self.alpha * (z.detach() - e).square().mean()
        diagnostics = code_use(counts) | {"quantization_error": (z - e).detach().square().mean()}
        if self.training:
            self._update_codes(tokens, index.flatten(), counts)
        through = _rotated(z, e.detach()) if self.rotation else z  # (B, T, l) path of the gradient
        quantized = through + (e - through).detach()  # (B, T, l), equal to e
        return BottleneckOutput(quantized.to(latent.dtype), losses, diagnostics)

    @torch.no_grad()
    def _update_codes(self, tokens: Tensor, index: Tensor, counts: Tensor) -> None:
        """Update usage, codes (EMA) and dead codes from tokens ``(M, l)`` at ``index (M,)``."""
        decay = 0.95 if self.ema is None else self.ema
        counts = _sum_over_processes(counts)  # (K,)
        codes_per_token = len(counts) / counts.sum()  # K / M
        self.usage.lerp_(counts * codes_per_token, 1 - decay)
        if self.ema is not None:
            sums = torch.zeros_like(self.token_sum).index_add_(0, index, tokens)  # (K, l)
            self.token_sum.lerp_(_sum_over_processes(sums) * codes_per_token, 1 - decay)
            total = self.usage.sum()
            smooth = (self.usage + self.epsilon) / (total + len(counts) * self.epsilon) * total
            codes = self.token_sum / smooth[:, None]  # (K, l)
            self.codebook.copy_(F.normalize(codes, dim=-1) if self.cosine else codes)
        if self.restart is not None:
            order = torch.randperm(len(tokens), device=tokens.device)  # (M,)
            dead = (self.usage < self.restart).nonzero()[: len(tokens), 0]  # one token each
            self._reset_codes(dead, tokens[order[: len(dead)]])

    @torch.no_grad()
    def _kmeans(self, tokens: Tensor, iterations: int = 10) -> None:
        """Initialise the codes by k-means (Lloyd) of the first batch's tokens ``(M, l)``."""
        size = len(self.codebook)
        order = torch.randperm(len(tokens), device=tokens.device)  # (M,)
        # With fewer tokens than codes, some codes start as copies that no token is assigned to.
        codes = tokens[order[torch.arange(size, device=order.device) % len(order)]]  # (K, l)
        for _ in range(iterations):
            index = nearest_codes(tokens, codes)  # (M,)
            counts = torch.bincount(index, minlength=size)[:, None]  # (K, 1)
            means = torch.zeros_like(codes).index_add_(0, index, tokens) / counts.clamp_min(1)
            if self.cosine:
                means = F.normalize(means, dim=-1)
            codes = torch.where(counts > 0, means, codes)  # (K, l)
        self._reset_codes(torch.arange(size, device=codes.device), codes)
        self.ready.fill_(True)

    def _reset_codes(self, index: Tensor, codes: Tensor) -> None:
        """Set the codes at ``index (D,)`` to ``codes (D, l)`` and their usage to the mean, 1."""
        self.codebook[index], self.usage[index] = codes, 1.0
        if self.ema is not None:
            self.token_sum[index] = codes
        if _is_distributed():  # each process drew from its own tokens: use those of the first
            for tensor in (self.codebook.data, self.usage, self.token_sum):
                if tensor is not None:
                    distributed.broadcast(tensor, 0)


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place: each process sees a share of the batch."""
    if _is_distributed():
        distributed.all_reduce(tensor)
    return tensor


def _rotated(z: Tensor, e: Tensor) -> Tensor:
    """Return R z with a constant R: dL/dz = R^T dL/de (the rotation trick).

    R z equals e unless z is 0. With unit vectors z^, e^ and r along z^ + e^,
    R = |e|/|z| (I - 2 r r^T + 2 e^ z^^T), for tokens z ``(..., l)`` with gradient and codes e
    ``(..., l)`` without.
    """
    with torch.no_grad():
        z_hat, e_hat = F.normalize(z, dim=-1), F.normalize(e, dim=-1)  # (..., l)
        r = F.normalize(z_hat + e_hat, dim=-1)  # (..., l)
        scale = e.norm(dim=-1, keepdim=True) / z.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    along_r, along_z = (z * r).sum(-1, keepdim=True), (z * z_hat).sum(-1, keepdim=True)
    return scale * (z - 2 * along_r * r + 2 * along_z * e_hat)


class ResidualQuantizer(nn.Module):
    """Codebooks in stages, each for the residual of the former (SoundStream; arXiv 2107.03312).

    The output is the sum of one code a stage, ``stages * log2 K`` bits. The straight-through
    gradient is that of the sum. Each stage is a `VectorQuantizer` with the terms of Eq. 13 on its
    residual.
    """

    stages: Any  # nn.ModuleList of VectorQuantizer

    def __init__(self, stages: int, codebook_size: int, dim: int, *args: Any, **options: Any):
        super().__init__()
        codebooks = (VectorQuantizer(codebook_size, dim, *args, **options) for _ in range(stages))
        self.stages = nn.ModuleList(codebooks)

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """Return the indices of the codes of each token ``(..., l)``: ``(..., stages)``."""
        index = []
        for stage in self.stages:
            index.append(stage.encode(latent))  # (...)
            latent = latent - stage.codebook[index[-1]]  # (..., l)
        return torch.stack(index, -1)  # (..., stages)

    def forward(self, latent: Tensor) -> BottleneckOutput:
        """Quantise latent tokens ``(B, T, l)``."""
        residual, found = latent, list[BottleneckOutput]()
        for stage in self.stages:
            found.append(stage(residual))  # latent (B, T, l)
            residual = residual - found[-1].latent.detach()  # (B, T, l)
        losses = {name: torch.stack([one.losses[name] for one in found]).sum()
                  for name in found[0].losses}  # fmt: skip
        bits = torch.stack([one.diagnostics["bits"] for one in found]).sum()
        live = torch.stack([one.diagnostics["live_codes"] for one in found]).mean()
        use = {"perplexity": bits.exp2(), "bits": bits, "live_codes": live}
        return BottleneckOutput(latent - residual.detach(), losses, found[-1].diagnostics | use)


class FiniteScalarQuantizer(nn.Module):
    """A fixed grid in place of learned codes: FSQ (Mentzer et al., 2024, arXiv 2309.15505).

    A linear layer maps a token to d numbers. tanh bounds number i to the range of ``levels[i]``
    integers around 0. It is rounded, with a straight-through gradient. Another linear layer maps
    back to l. There are as many codes as the product of the levels, and no loss.
    """

    def __init__(self, dim: int, levels: tuple[int, ...] = (8, 8, 8)) -> None:
        super().__init__()
        require_at_least(1, dim=dim)
        if min(levels, default=0) < 2:
            raise ValueError(f"levels is {levels}: wanted at least one number, each >= 2")
        self.levels = tuple(levels)
        self.to_grid, self.from_grid = nn.Linear(dim, len(levels)), nn.Linear(len(levels), dim)

    def bound(self, latent: Tensor) -> Tensor:
        """Map tokens ``(..., l)`` to ``(..., d)`` within the L levels -(L // 2) to (L - 1) // 2."""
        x = at_least_float32(self.to_grid(latent))  # (..., d)
        levels = x.new_tensor(self.levels)  # (d,)
        half, offset = (levels - 1) / 2 * 1.001, (1 - levels % 2) / 2  # (d,) each
        return (x + (offset / half).atanh()).tanh() * half - offset

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """Return the index of the grid point of each token ``(..., l)``."""
        digits = self.bound(latent).round().long()  # (..., d)
        index = torch.zeros_like(digits[..., 0])  # (...)
        for i, size in enumerate(self.levels):
            index = index * size + digits[..., i] + size // 2  # (...)
        return index

    def forward(self, latent: Tensor) -> BottleneckOutput:
        """Round latent tokens ``(B, T, l)`` to the grid."""
        layer = self.to_grid
        expect(latent, f"B T {layer.in_features}", "latent", device=layer.weight.device)
        bounded = self.bound(latent)  # (B, T, d)
        rounded = bounded + (bounded.round() - bounded).detach()  # (B, T, d)
        passed = self.from_grid(rounded / (rounded.new_tensor(self.levels) // 2))  # (B, T, l)
        counts = self.encode(latent).flatten().bincount(minlength=math.prod(self.levels))
        return BottleneckOutput(passed.to(latent.dtype), {}, code_use(counts))


class GaussianBottleneck(nn.Module):
    """The bottleneck of a variational autoencoder: a Gaussian per token (Kingma & Welling, 2014).

    The output is a sample in training and the mean in evaluation.

    Args:
        dim: l.
        beta: weight of the KL divergence to N(0, 1), summed over the l dimensions, mean over the
            tokens.
        warmup_steps: training steps over which beta rises linearly to its value. Evaluation uses
            the full beta, so that validation losses are comparable.
        free_bits: nats per dimension (mean over the batch) below which the KL has no gradient.
        total_steps: steps of the whole training, where known: a longer warm-up is refused.
        rate: bits a token to hold the KL at, by ``beta |KL - rate|`` (arXiv 1804.03599). beta
            should be slightly larger than the decrease of the other losses per additional nat.
            None is ``beta KL``.
    """

    step: Tensor  # int64, training steps done

    def __init__(
        self,
        dim: int,
        beta: float = 1e-3,
        warmup_steps: int = 0,
        free_bits: float = 0.0,
        total_steps: int | None = None,
        rate: float | None = None,
    ) -> None:
        super().__init__()
        require_at_least(1, dim=dim)
        require_at_least(0, beta=beta, warmup_steps=warmup_steps, free_bits=free_bits)
        _check_schedule("warmup_steps", warmup_steps, total_steps)
        if rate is not None and not (0 < rate < math.inf and free_bits == 0):
            raise ValueError(f"rate is {rate}: wanted a number > 0 with free_bits 0, or None")
        self.beta, self.warmup_steps, self.free_bits = beta, warmup_steps, free_bits
        self.rate = rate
        self.to_moments = nn.Linear(dim, 2 * dim)
        self.register_buffer("step", torch.tensor(0))

    def forward(self, latent: Tensor) -> BottleneckOutput:
        """Sample from the Gaussians of latent tokens ``(B, T, l)``."""
        expect(latent, f"B T {self.to_moments.in_features}", "latent", device=self.step.device)
        moments = at_least_float32(self.to_moments(latent))  # (B, T, 2l)
        mean, log_variance = moments.chunk(2, -1)  # (B, T, l) each
        log_variance = log_variance.clamp(-20, 10)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance) / 2  # (B, T, l)
        kl_per_dim = kl.mean((0, 1))  # (l,)
        beta, sample = self.beta, mean
        if self.training:
            beta *= _warmup_factor(self.step, self.warmup_steps)
            self.step += 1
            sample = mean + (log_variance / 2).exp() * torch.randn_like(mean)  # (B, T, l)
        excess = kl_per_dim.clamp_min(self.free_bits).sum()
        if self.rate is not None:
            excess = (excess - self.rate * math.log(2)).abs()
        losses = {"kl": beta * excess}
        diagnostics = {"nats": kl_per_dim.sum().detach()}
        return BottleneckOutput(sample.to(latent.dtype), losses, diagnostics)


class GumbelBottleneck(nn.Module):
    """The bottleneck of a discrete variational autoencoder (Rolfe, 2017), relaxed as Point-BERT's.

    Each token has a distribution over K codes. The output is a mixture of codes (a Gumbel-softmax
    sample) in training and the most likely code in evaluation.

    Args:
        codebook_size: K.
        dim: l.
        temperature: of the first training step.
        final_temperature: after ``anneal_steps``, reached by a half cosine (Point-BERT: 1 to 1/16).
        anneal_steps: training steps of that decrease; 0 keeps the first temperature.
        beta: weight of the KL divergence.
        warmup_steps, total_steps: as in `GaussianBottleneck`.
        kl: ``"token"`` is KL(q || uniform) of each token's distribution q, mean over tokens: the
            variational bound. ``"mean"`` is Point-BERT's code: the reverse KL(uniform || q), with q
            the mean over a cloud's tokens; it favours an even use of the codes and does not
            penalise certain tokens.
    """

    step: Tensor  # int64, training steps done

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        temperature: float = 1.0,
        final_temperature: float = 0.0625,
        anneal_steps: int = 0,
        beta: float = 1e-3,
        warmup_steps: int = 0,
        kl: Literal["token", "mean"] = "token",
        total_steps: int | None = None,
    ) -> None:
        super().__init__()
        require_at_least(1, codebook_size=codebook_size, dim=dim)
        require_at_least(0, beta=beta, anneal_steps=anneal_steps, warmup_steps=warmup_steps)
        if not 0 < final_temperature <= temperature:
            raise ValueError(f"temperature is {temperature}, final_temperature {final_temperature}:"
                             " wanted both > 0, the final one not above the first")  # fmt: skip
        _check_schedule("anneal_steps", anneal_steps, total_steps)
        _check_schedule("warmup_steps", warmup_steps, total_steps)
        self.temperature, self.final_temperature = temperature, final_temperature
        self.anneal_steps, self.beta, self.warmup_steps = anneal_steps, beta, warmup_steps
        self.kl = kl
        self.to_logits = nn.Linear(dim, codebook_size)
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim) / math.sqrt(dim))  # (K, l)
        self.register_buffer("step", torch.tensor(0))

    def current_temperature(self) -> float:
        """Return the temperature of the next training step."""
        progress = min(1.0, int(self.step) / self.anneal_steps) if self.anneal_steps else 0.0
        fall = self.temperature - self.final_temperature
        return self.final_temperature + fall * (1 + math.cos(math.pi * progress)) / 2

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """Return the index of the most likely code of each token ``(..., l)``."""
        return self.to_logits(latent).argmax(-1)

    def forward(self, latent: Tensor) -> BottleneckOutput:
        """Replace latent tokens ``(B, T, l)`` by mixtures of codes."""
        expect(latent, f"B T {self.codebook.shape[1]}", "latent", device=self.codebook.device)
        logits = at_least_float32(self.to_logits(latent))  # (B, T, K)
        log_q, size = logits.log_softmax(-1), logits.shape[-1]  # (B, T, K)
        if self.kl == "token":
            kl = (log_q.exp() * (log_q + math.log(size))).sum(-1).mean()
        else:
            log_mean = log_q.logsumexp(1) - math.log(log_q.shape[1])  # (B, K)
            kl = -(log_mean.mean(-1) + math.log(size)).mean()
        index = logits.argmax(-1)  # (B, T)
        beta = self.beta
        if self.training:
            mixture = F.gumbel_softmax(logits, self.current_temperature())  # (B, T, K)
            codes = mixture @ self.codebook  # (B, T, l)
            beta *= _warmup_factor(self.step, self.warmup_steps)
            self.step += 1
        else:
            codes = self.codebook[index]  # (B, T, l)
        usage = code_use(torch.bincount(index.flatten(), minlength=size))
        diagnostics = usage | {"nats": kl.detach()}
        return BottleneckOutput(codes.to(latent.dtype), {"kl": beta * kl}, diagnostics)


def _warmup_factor(step: Tensor, steps: int) -> float:
    """Return the factor of a linear warm-up after ``step`` steps, above 0 and at most 1."""
    return min(1.0, (int(step) + 1) / steps) if steps else 1.0


def _check_schedule(name: str, steps: int, total: int | None) -> None:
    if total is not None and steps > total:
        raise ValueError(f"{name} is {steps}, but the training has only {total} steps: "
                         f"lower {name}, or train for more epochs")  # fmt: skip
