"""Variational bottlenecks, to hold VASP's codebook against: noise, a relaxed choice (section 3.4).

Not in the paper. They are interchangeable with those of `bottlenecks`, and keep its rules: losses
and diagnostics by name, what changes with the steps in buffers, torch's global generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serplib.bottlenecks import Passed, code_use
from serplib.expect import at_least, expect
from serplib.geometry import at_least_float32


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
        at_least(1, dim=dim)
        at_least(0, beta=beta, warmup_steps=warmup_steps, free_bits=free_bits)
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
        at_least(1, codebook_size=codebook_size, dim=dim)
        at_least(0, beta=beta, anneal_steps=anneal_steps, warmup_steps=warmup_steps)
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
