"""Checkers of the exercises in 06_serp_transformer."""

from torch import Tensor, nn

from serplib.course.exercises.grading import exercise, normal


class _Mixing(nn.Linear):
    """Stands in for attention: each token and the mean of all, projected."""

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D)
        return super().forward(x + x.mean(1, keepdim=True))  # (B, T, D)


def _block_parts() -> list[tuple[Tensor, nn.Module, nn.Module, nn.Module, nn.Module]]:
    def filled(module: nn.Module, name: str) -> nn.Module:
        for parameter in module.parameters():  # no initial 0 or 1 hides a mistake
            parameter.data = normal(name, *parameter.shape)
        return module.requires_grad_(False)

    attention = filled(_Mixing(6, 6), "attention")
    mlp = filled(nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6)), "mlp")
    norm1, norm2 = (filled(nn.LayerNorm(6), name) for name in ("norm1", "norm2"))
    return [(normal("x", 2, 5, 6), attention, mlp, norm1, norm2)]


@exercise(_block_parts, shape="(B, T, D)", trains=("x",))
def post_norm_block(x: Tensor, attention, mlp, norm1, norm2):
    """Apply the block of 2017: ``x (B, T, D), attention, mlp, norm1, norm2 -> (B, T, D)``."""
    total = x + attention(x)  # (B, T, D)
    y, exchanged, bare, first = norm1(total), norm2(total), norm1(attention(x)), norm1(x + mlp(x))
    pre, branch = x + attention(norm1(x)), x + bare  # (B, T, D)
    cut = norm1(x + attention(x.detach())), norm1(x.detach() + attention(x))
    return norm2(y + mlp(y)), {
        "That is the pre-norm block of this section. In the block of 2017 the branch reads x "
        "itself, and the SUM is normalised.": pre + mlp(norm2(pre)),
        "You normalised the branch before adding. Normalise the sum.": branch + norm2(mlp(branch)),
        "The residuals are missing: each branch is ADDED to its input.": norm2(mlp(bare)),
        "The first residual is missing: attention's branch is ADDED to x.": norm2(bare + mlp(bare)),
        "The second residual is missing: the MLP's branch is ADDED to its input.": norm2(mlp(y)),
        "You used norm1 twice. The second sum has its own norm: norm2.": norm1(y + mlp(y)),
        "The norms changed places: norm1 is attention's.": norm1(exchanged + mlp(exchanged)),
        "Your MLP reads the block's input, not attention's result.": norm2(y + mlp(x)),
        "Your second residual adds the block's input again. Add the input of the MLP.":
            norm2(x + mlp(y)),
        "The first norm is missing: the sum with attention's branch is normalised, too.":
            norm2(total + mlp(total)),
        "The second norm is missing: the sum with the MLP's branch is normalised, too.": y + mlp(y),
        "That is half a block: the MLP's branch is missing.": y,
        "You took the MLP before attention.": norm2(first + attention(first)),
        "Attention and MLP both read x, in parallel. The MLP reads the result of the first line.":
            [norm2(norm1(total + mlp(x))), norm2(total + mlp(x))],
        "A stop gradient (.detach() or torch.no_grad()) cuts a path into one of the sums.": [
            *(norm2(part + mlp(other)) for part, other in ((y, y.detach()), (y.detach(), y))),
            *(norm2(part + mlp(part)) for part in cut),
        ],
    }  # fmt: skip


@exercise(
    lambda: [
        tuple(normal("pair", *s) for s in ((batch, count, dim), (3 * size, dim, 2), (3 * size,)))
        for batch, count, dim, size in ((2, 6, 5, 4), (3, 4, 3, 3))
    ],
    shape="(B, c, n, 3)",
    trains=("tokens", "weight", "bias"),
    forbids={"convolution": "The text says: without conv1d. Write the two products by hand."},
)
def pair_head(tokens: Tensor, weight: Tensor, bias: Tensor):
    """Apply the authors' head: ``(B, c+1, d), (3n, d, 2), (3n,) -> (B, c, n, 3)``."""
    before, own = (tokens @ weight[:, :, tap].T for tap in (0, 1))  # each (B, c+1, 3n)

    def points(flat: Tensor) -> Tensor:
        return flat.unflatten(-1, (-1, 3))

    flat, same = before[:, :-1] + own[:, 1:] + bias, before + own + bias  # (B, c, 3n)
    after = before + own.roll(-1, 1) + bias  # (B, c+1, 3n): the last token and [CLS]
    return points(flat), {
        "That is one layer a token, with W_1 alone. Add W_0 D_{i-1}.": points(own[:, 1:] + bias),
        "W_1 D_i is missing: you used the token before only.": points(before[:, :-1] + bias),
        "The two taps changed places: weight[:, :, 0] belongs to token i - 1, the one before.":
            points(own[:, :-1] + before[:, 1:] + bias),
        "Both taps read the same token. W_0 reads the one before.":
            [points(same[:, 1:]), points(same[:, :-1])],
        "One patch is missing. [CLS] is token 0: the D_0 of patch 1.": points(flat[:, 1:]),
        "You paired tokens i and i + 1, and the last one with [CLS]. Patch i is made from tokens i"
        " - 1 and i.": points(after[:, 1:]),
        "One patch too many: the last and the first are no pair.": points(after),
        "One patch too many: token 0 has no token before it.":
            points(before.roll(1, 1) + own + bias),
        "The bias is missing.": points(flat - bias),
        "The bias is added twice: once for the two products together.": points(flat + bias),
        "You cut the 3n numbers into all x, all y, all z. Here x, y, z of a point stand side by "
        "side: unflatten(-1, (-1, 3)).": flat.unflatten(-1, (3, -1)).transpose(-1, -2),
        "The axes of the points are (3, n), wanted (n, 3): unflatten(-1, (-1, 3)).":
            [flat.unflatten(-1, (3, -1)), points(flat).transpose(-1, -2)],
        "These are rows of 3n numbers. Make n points of each: unflatten(-1, (-1, 3)).": flat,
    }  # fmt: skip


@exercise(
    [(96, 6, True), (384, 4, False), (768, 4, True)],
    advice="Count the four parts separately: norms, qkv, output, MLP.",
)
def block_parameters(width: int, mlp_ratio: int, qkv_bias: bool):
    """Count the parameters of a pre-norm block: ``(width, mlp_ratio, qkv_bias) -> int``."""
    square, norms, hidden = width * width, 4 * width, mlp_ratio * width
    matrices, biases = 4 * square + 2 * width * hidden, 2 * width + hidden
    right = matrices + biases + norms + 3 * width * qkv_bias
    return right, {
        "Those are the matrices. The biases and the two LayerNorms are missing.": matrices,
        "The two LayerNorms are missing: each has a weight and a bias.": right - norms,
        "You counted half of the LayerNorms: two, of 2 D each.": right - norms // 2,
        "The output layer of attention is missing: it mixes the heads.": right - square - width,
        "A bias of D is missing: attention's output and the MLP's both have one.": right - width,
        "qkv has a bias only where qkv_bias is true.": right + 3 * width * (not qkv_bias),
        "Where qkv_bias is true, qkv has a bias of 3 D: D for queries, keys and values each.":
            [right - 3 * width * qkv_bias, right - 2 * width * qkv_bias],
        "qkv_bias is inverted: you add the bias where it is false.":
            right + 3 * width * (1 - 2 * qkv_bias),
        "The MLP has two layers: D to r D, and back from r D to D.":
            [right - width * hidden - width, right - width * hidden - hidden],
        "The MLP's biases: r D for the first layer, D for the second.":
            [right - hidden - width, right - hidden, right - hidden + width],
        "qkv makes queries, keys AND values: three D x D matrices.": right - 2 * square,
        "That is in millions. Wanted: the number itself.": right / 1e6,
    }  # fmt: skip
