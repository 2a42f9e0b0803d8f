"""What may stand between encoder and decoder: nothing, or VASP's codebook (section 3.4).

Each bottleneck takes latent tokens and returns what passes on, its loss terms by name (weighted:
the objective adds them) and diagnostics by name; they are interchangeable in `vasp`, and with those
of `bottlenecks`. What changes with the steps of training lies in buffers, so that a checkpoint
holds it; randomness comes from torch's global generator, which the training loop seeds at each
step. A setting that cannot be is a ValueError.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from serplib.geometry import at_least_float32
from serplib.validation import expect, require_at_least


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
        require_at_least(1, codebook_size=codebook_size, dim=dim)
        require_at_least(0, alpha=alpha, beta=beta, epsilon=epsilon)
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


class GaussianBottleneck(nn.Module):
    """That of a variational autoencoder: a Gaussian a token, sampled (Kingma & Welling, 2014).

    In training a sample passes, in evaluation the mean.

    Args:
        dim: l.
        beta: weight of the KL to N(0, 1): summed over the l dimensions, mean over the tokens.
        warmup_steps: training steps over which beta rises linearly from 0; evaluation uses all of
            it, so that validation losses compare.
        free_bits: nats a dimension, on the mean over the batch, that cost a constant: no gradient.
        total_steps: steps of the whole training, where known: a longer warm-up is refused.
    """

    def __init__(
        self,
        dim: int,
        beta: float = 1e-3,
        warmup_steps: int = 0,
        free_bits: float = 0.0,
        total_steps: int | None = None,
    ) -> None:
        super().__init__()
        require_at_least(1, dim=dim)
        require_at_least(0, beta=beta, warmup_steps=warmup_steps, free_bits=free_bits)
        _fits("warmup_steps", warmup_steps, total_steps)
        self.beta, self.warmup_steps, self.free_bits = beta, warmup_steps, free_bits
        self.to_moments = nn.Linear(dim, 2 * dim)
        self.register_buffer("step", torch.tensor(0))  # training steps done

    def forward(self, latent: Tensor) -> Passed:  # (B, T, l)
        weight = self.to_moments.weight  # (2l, l)
        expect(latent, f"B T {weight.shape[1]}", "latent", device=weight.device)
        moments = at_least_float32(self.to_moments(latent))  # (B, T, 2l)
        mean, log_variance = moments.chunk(2, -1)  # (B, T, l) each
        log_variance = log_variance.clamp(-20, 10)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance) / 2  # (B, T, l)
        a_dim = kl.mean((0, 1))  # (l,)
        weight, passed = self.beta, mean
        if self.training:
            weight *= _risen(self.step, self.warmup_steps)
            self.step += 1
            passed = mean + (log_variance / 2).exp() * torch.randn_like(mean)  # (B, T, l)
        losses = {"kl": weight * a_dim.clamp_min(self.free_bits).sum()}
        diagnostics = {"nats": a_dim.sum().detach()}
        return Passed(passed.to(latent.dtype), losses, diagnostics)


class GumbelBottleneck(nn.Module):
    """That of a discrete variational autoencoder (Rolfe, 2017), relaxed as Point-BERT's.

    Each token has a distribution over K codes. In training a Gumbel-softmax sample mixes the codes,
    in evaluation the most likely code passes.

    Args:
        codebook_size: K. dim: l.
        temperature: of the first training step. final_temperature: after ``anneal_steps``, reached
            by a half cosine (Point-BERT: 1 to 1/16); 0 steps keep the first.
        beta: weight of the KL. warmup_steps, total_steps: as in `GaussianBottleneck`.
        kl: ``"token"`` is KL(q || uniform) of each token's distribution q, mean over tokens: the
            variational bound. ``"mean"`` is Point-BERT's code: KL(uniform || q), the other way
            round, with q the mean over a cloud's tokens; it asks for codes in even use, and lets
            each token be certain.
    """

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        temperature: float = 1.0,
        final_temperature: float = 0.0625,
        anneal_steps: int = 0,
        beta: float = 1e-3,
        warmup_steps: int = 0,
        kl: str = "token",
        total_steps: int | None = None,
    ) -> None:
        super().__init__()
        require_at_least(1, codebook_size=codebook_size, dim=dim)
        require_at_least(0, beta=beta, anneal_steps=anneal_steps, warmup_steps=warmup_steps)
        if not 0 < final_temperature <= temperature:
            raise ValueError(f"temperature is {temperature}, final_temperature {final_temperature}:"
                             " wanted both > 0, the final one not above the first")  # fmt: skip
        if kl not in ("token", "mean"):
            raise ValueError(f"kl is {kl!r}, wanted 'token' or 'mean'")
        _fits("anneal_steps", anneal_steps, total_steps)
        _fits("warmup_steps", warmup_steps, total_steps)
        self.temperature, self.final_temperature = temperature, final_temperature
        self.anneal_steps, self.beta, self.warmup_steps = anneal_steps, beta, warmup_steps
        self.kl = kl
        self.to_logits = nn.Linear(dim, codebook_size)
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim) / math.sqrt(dim))  # (K, l)
        self.register_buffer("step", torch.tensor(0))  # training steps done

    def current_temperature(self) -> float:
        """The temperature of the coming training step."""
        progress = min(1.0, int(self.step) / self.anneal_steps) if self.anneal_steps else 0.0
        fall = self.temperature - self.final_temperature
        return self.final_temperature + fall * (1 + math.cos(math.pi * progress)) / 2

    @torch.no_grad()
    def choose(self, latent: Tensor) -> Tensor:
        """The index of the most likely code of each token ``(..., l)``."""
        return self.to_logits(latent).argmax(-1)

    def forward(self, latent: Tensor) -> Passed:  # (B, T, l)
        expect(latent, f"B T {self.codebook.shape[1]}", "latent", device=self.codebook.device)
        logits = at_least_float32(self.to_logits(latent))  # (B, T, K)
        log_q, size = logits.log_softmax(-1), logits.shape[-1]  # (B, T, K)
        if self.kl == "token":
            kl = (log_q.exp() * (log_q + math.log(size))).sum(-1).mean()
        else:
            log_mean = log_q.logsumexp(1) - math.log(log_q.shape[1])  # (B, K)
            kl = -(log_mean.mean(-1) + math.log(size)).mean()
        index = logits.argmax(-1)  # (B, T)
        weight = self.beta
        if self.training:
            mix = F.gumbel_softmax(logits, self.current_temperature())  # (B, T, K)
            passed = mix @ self.codebook  # (B, T, l)
            weight *= _risen(self.step, self.warmup_steps)
            self.step += 1
        else:
            passed = self.codebook[index]  # (B, T, l)
        diagnostics = code_use(torch.bincount(index.flatten(), minlength=size)) | {
            "nats": kl.detach()
        }
        return Passed(passed.to(latent.dtype), {"kl": weight * kl}, diagnostics)


def _risen(step: Tensor, steps: int) -> float:
    """How far a linear warm-up of so many steps is, in the step after ``step`` of them: 0 to 1."""
    return min(1.0, (int(step) + 1) / steps) if steps else 1.0


def _fits(name: str, steps: int, total: int | None) -> None:
    if total is not None and steps > total:
        raise ValueError(f"{name} is {steps}, but the training has only {total} steps: "
                         f"lower {name}, or train for more epochs")  # fmt: skip
