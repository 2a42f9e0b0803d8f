"""Checkers of the exercises in 06_serp_transformer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from serplib.course.exercises.grading import Hint, call, compare, exercise
from serplib.seeding import named_generator


class _Mixing(nn.Linear):
    """Stands in for attention: each token and the mean of all, projected."""

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D)
        return super().forward(x + x.mean(1, keepdim=True))  # (B, T, D)


def _filled(module: nn.Module, name: str) -> nn.Module:
    """The module with every parameter random: no initial 0 or 1 hides a mistake."""
    generator = named_generator("check", "transformer", name)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return module.requires_grad_(False)


@exercise
def post_norm_block(function: Callable[..., Tensor]) -> None:
    """The block of 2017: ``x (B, T, D), attention, mlp, norm1, norm2 -> (B, T, D)``."""
    width = 6
    attention = _filled(_Mixing(width, width), "attention")
    mlp = _filled(nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Linear(8, width)), "mlp")
    norm1, norm2 = (_filled(nn.LayerNorm(width), name) for name in ("norm1", "norm2"))
    x = torch.randn(2, 5, width, generator=named_generator("check", "transformer", "x"))

    y = norm1(x + attention(x))  # (B, T, D)
    plain = x + attention(norm1(x))  # (B, T, D)
    branch = x + norm1(attention(x))  # (B, T, D)
    twice = norm2(x + attention(x))  # (B, T, D)
    first = norm1(x + mlp(x))  # (B, T, D)
    mistakes = [
        (
            plain + mlp(norm2(plain)),
            "That is the pre-norm block of this section. In the block of 2017 the branch reads x "
            "as it is, and the SUM is normalised.",
        ),
        (
            branch + norm2(mlp(branch)),
            "You normalised the branch before adding it. Add first, then normalise the sum.",
        ),
        (
            norm2(mlp(norm1(attention(x)))),
            "The residuals are missing: each branch is ADDED to what it read.",
        ),
        (
            norm1(y + mlp(y)),
            "You used norm1 twice. Each sum has a norm of its own: the second is norm2.",
        ),
        (
            norm1(twice + mlp(twice)),
            "The norms changed places: the sum with attention goes through norm1.",
        ),
        (
            norm2(y + mlp(x)),
            "Your MLP reads the block's input. It comes after attention: give it the result of the "
            "first line.",
        ),
        (
            norm2(x + mlp(y)),
            "Your second residual adds the block's input again. Add to what the MLP read.",
        ),
        (
            norm2(x + attention(x) + mlp(x + attention(x))),
            "The first norm is missing: the sum with attention's branch is normalised, too.",
        ),
        (
            y + mlp(y),
            "The second norm is missing: the sum with the MLP's branch is normalised, too.",
        ),
        (y, "That is half a block: the MLP's branch is missing."),
        (
            norm2(first + attention(first)),
            "You took the MLP before attention. First the tokens talk, then each thinks alone.",
        ),
    ]
    answer = call(function, x, attention, mlp, norm1, norm2)
    compare(answer, norm2(y + mlp(y)), mistakes, "(B, T, D)")


@exercise
def pair_head(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """The authors' head: ``(B, c+1, d), (3n, d, 2), (3n,) -> (B, c, n, 3)``."""
    generator = named_generator("check", "transformer", "pair")
    tokens = torch.randn(2, 6, 5, generator=generator)  # (B, c+1, d)
    weight = torch.randn(12, 5, 2, generator=generator)  # (3n, d, 2)
    bias = torch.randn(12, generator=generator)  # (3n,)
    role = [tokens @ weight[:, :, k].T for k in (0, 1)]  # each (B, c+1, 3n)

    def points(flat: Tensor) -> Tensor:
        return flat.unflatten(-1, (-1, 3))

    flat = role[0][:, :-1] + role[1][:, 1:] + bias  # (B, c, 3n)
    after = role[0] + role[1].roll(-1, 1) + bias  # (B, c+1, 3n): the last token and [CLS]
    before = role[0].roll(1, 1) + role[1] + bias  # (B, c+1, 3n): the last token, for [CLS]
    mistakes = [
        (
            points(role[1][:, 1:] + bias),
            "That is one layer a token, with W_1 alone: Eq. 10. W_0 D_{i-1} is missing.",
        ),
        (
            points(role[1][:, :-1] + role[0][:, 1:] + bias),
            "The two taps changed places: weight[:, :, 0] belongs to token i - 1, the one before.",
        ),
        (
            points((role[0] + role[1])[:, 1:] + bias),
            "Both taps read the same token. W_0 reads the one before.",
        ),
        (
            points(flat[:, 1:]),
            "One patch is missing. [CLS] is token 0 and takes part: it is the D_0 of patch 1.",
        ),
        (
            points(after[:, 1:]),
            "You paired tokens i and i + 1, and the last one with [CLS]. Patch i is made from "
            "tokens i - 1 and i.",
        ),
        (points(after), "One patch too many: 65 tokens have 64 pairs of neighbours, no circle."),
        (points(before), "One patch too many: token 0 has no token before it."),
        (points(flat - bias), "The bias is missing."),
        (points(flat + bias), "The bias is added twice: once for the two products together."),
        (
            flat.unflatten(-1, (3, -1)).transpose(-1, -2),
            "You cut the 3n numbers into all x, all y, all z. Here x, y, z of a point stand side "
            "by side: unflatten(-1, (-1, 3)).",
        ),
        (
            flat.unflatten(-1, (3, -1)),
            "The axes of the points are (3, n), wanted (n, 3): unflatten(-1, (-1, 3)).",
        ),
        (flat, "These are rows of 3n numbers. Make n points of each: unflatten(-1, (-1, 3))."),
    ]
    compare(call(function, tokens, weight, bias), points(flat), mistakes, "(B, c, n, 3)")


@exercise
def block_parameters(function: Callable[[int, int, bool], int]) -> None:
    """Parameters of a pre-norm block: ``(width, mlp_ratio, qkv_bias) -> int``."""
    for width, ratio, biased in ((96, 6, True), (384, 4, False), (768, 4, True)):
        square, norms, out = width * width, 4 * width, width * width + width
        qkv = 3 * square + 3 * width * biased
        mlp = 2 * ratio * square + ratio * width + width
        right = norms + qkv + out + mlp
        mistakes = [
            (
                right - norms - 3 * width * biased - width - ratio * width - width,
                "Those are the matrices. The biases and the two LayerNorms are missing.",
            ),
            (right - norms, "The two LayerNorms are missing: each has a weight and a bias."),
            (right - norms // 2, "You counted half of the LayerNorms: two, of 2 D each."),
            (
                right - out,
                "The output layer of attention is missing: it mixes the heads, D to D.",
            ),
            (right - width, "A bias of D is missing: attention's output and the MLP's both have."),
            (right + 3 * width * (not biased), "qkv has a bias only where qkv_bias is true."),
            (right - 3 * width * biased, "Where qkv_bias is true, qkv has a bias of 3 D."),
            (
                right - ratio * square - width,
                "The MLP has two layers: D to r D, and back from r D to D.",
            ),
            (
                right - ratio * width + width,
                "The first layer of the MLP has r D outputs, and as many biases.",
            ),
            (
                right - 2 * square,
                "qkv makes queries, keys AND values: three D x D matrices, not one.",
            ),
            (right / 1e6, "That is in millions. Wanted: the number itself."),
        ]
        answer = float(call(function, width, ratio, biased))
        if answer == right:
            continue
        for wrong, hint in mistakes:
            if wrong != right and abs(answer - wrong) < 1e-6:
                raise Hint(hint)
        raise Hint(
            f"For D = {width}, r = {ratio}, qkv_bias = {biased} you say {answer:,.0f}. Write the "
            "four parts apart: norms, qkv, output, MLP, and count each."
        )
