"""Answers to the exercises of 06: wrong ones with a piece of their hint, and right ones."""

import copy

import numpy as np
import torch
from torch.nn import functional as F

NAMES = {"torch": torch}


def pre_norm(x, attention, mlp, norm1, norm2):
    x = x + attention(norm1(x))
    return x + mlp(norm2(x))


def normed_branches(x, attention, mlp, norm1, norm2):
    x = x + norm1(attention(x))
    return x + norm2(mlp(x))


def one_norm(x, attention, mlp, norm1, norm2):
    x = norm1(x + attention(x))
    return norm1(x + mlp(x))


def exchanged_norms(x, attention, mlp, norm1, norm2):
    x = norm2(x + attention(x))
    return norm1(x + mlp(x))


def mlp_first(x, attention, mlp, norm1, norm2):
    x = norm1(x + mlp(x))
    return norm2(x + attention(x))


def late_norm(x, attention, mlp, norm1, norm2):
    x = x + attention(x)
    return norm2(x + mlp(x))


def no_last_norm(x, attention, mlp, norm1, norm2):
    x = norm1(x + attention(x))
    return x + mlp(x)


def changes_its_input(x, attention, mlp, norm1, norm2):
    x += attention(x)
    return norm2(norm1(x) + mlp(norm1(x)))


def frozen_attention(x, attention, mlp, norm1, norm2):
    with torch.no_grad():
        branch = attention(x)
    y = norm1(x + branch)
    return norm2(y + mlp(y))


def post_norm(x, attention, mlp, norm1, norm2):
    for branch, norm in ((attention, norm1), (mlp, norm2)):
        x = norm(x + branch(x))
    return x


def own_sums_in_place(x, attention, mlp, norm1, norm2):
    y = attention(x)
    y += x
    y = norm1(y)
    z = mlp(y)
    z += y
    return norm2(z)


def by_function(x, attention, mlp, norm1, norm2):
    def normed(norm, y):
        return F.layer_norm(y, y.shape[-1:], norm.weight, norm.bias, norm.eps)

    y = normed(norm1, torch.add(x, attention(x)))
    return normed(norm2, torch.add(y, mlp(y)))


def in_double(x, *modules):
    return post_norm(x.double(), *(copy.deepcopy(module).double() for module in modules))


def token_by_token(x, attention, mlp, norm1, norm2):
    y = norm1(x + attention(x))
    return torch.stack([norm2(t + mlp(t)) for t in y.unbind(1)], 1)


def pairs(tokens, weight, first, second):
    return first @ weight[:, :, 0].T + second @ weight[:, :, 1].T


def split(flat):
    return flat.unflatten(-1, (-1, 3))


def right_pairs(tokens, weight, bias):
    return pairs(tokens, weight, tokens[:, :-1], tokens[:, 1:]) + bias


def by_windows(tokens, weight, bias):
    windows = tokens.unfold(1, 2, 1)  # (B, c, d, 2)
    return split(torch.einsum("bcdk,odk->bco", windows, weight) + bias)


def by_one_product(tokens, weight, bias):
    both = torch.cat([tokens[:, :-1], tokens[:, 1:]], -1)
    out = both @ torch.cat([weight[..., 0], weight[..., 1]], 1).T + bias
    return out.reshape(*out.shape[:2], -1, 3)


def by_pairs(tokens, weight, bias):
    rows = [
        F.linear(tokens[:, i - 1], weight[:, :, 0]) + F.linear(tokens[:, i], weight[:, :, 1], bias)
        for i in range(1, tokens.shape[1])
    ]
    return split(torch.stack(rows, 1))


def shifted_sum(tokens, weight, bias):
    before, own = (F.linear(tokens, tap) for tap in weight.unbind(-1))
    out = own[:, 1:].clone()
    out += before[:, :-1]
    out += bias
    return out.view(*out.shape[:2], out.shape[2] // 3, 3)


def by_conv(tokens, weight, bias):
    return split(F.conv1d(tokens.mT, weight, bias).mT)


def by_layer(tokens, weight, bias):
    layer = torch.nn.Conv1d(weight.shape[1], len(weight), 2)
    layer.weight.data, layer.bias.data = weight, bias
    return split(layer(tokens.mT).mT)


def total(width, ratio, biased):
    matrices = (4 + 2 * ratio) * width * width
    return matrices + 4 * width + 3 * width * biased + width + ratio * width + width


def counted(width, ratio, biased):
    nn = torch.nn
    layers = (
        nn.LayerNorm(width),
        nn.LayerNorm(width),
        nn.Linear(width, 3 * width, bias=biased),
        nn.Linear(width, width),
        nn.Linear(width, ratio * width),
        nn.Linear(ratio * width, width),
    )
    return sum(p.numel() for layer in layers for p in layer.parameters())


WRONG = {
    "post_norm_block": [
        (pre_norm, "pre-norm block of this section"),
        (normed_branches, "normalised the branch before adding"),
        (lambda x, a, m, n1, n2: n2(m(n1(a(x)))), "residuals are missing"),
        (one_norm, "norm1 twice"),
        (exchanged_norms, "norms changed places"),
        (late_norm, "first norm is missing"),
        (no_last_norm, "second norm is missing"),
        (lambda x, a, m, n1, n2: n1(x + a(x)), "half a block"),
        (mlp_first, "MLP before attention"),
        (lambda x, a, m, n1, n2: None, "returned None"),
    ],
    "pair_head": [
        (lambda t, w, b: split(t[:, 1:] @ w[:, :, 1].T + b), "one layer a token"),
        (lambda t, w, b: split(t[:, :-1] @ w[:, :, 0].T + b), "token before only"),
        (lambda t, w, b: split(pairs(t, w, t[:, 1:], t[:, 1:]) + b), "read the same token"),
        (lambda t, w, b: split(pairs(t, w, t, t.roll(-1, 1)) + b), "are no pair"),
        (lambda t, w, b: split(pairs(t, w, t.roll(1, 1), t) + b), "no token before it"),
        (lambda t, w, b: split(right_pairs(t, w, 0)), "bias is missing"),
        (right_pairs, "rows of 3n numbers"),
    ],
    "block_parameters": [
        (lambda D, r, q: (4 + 2 * r) * D * D, "Those are the matrices"),
        (lambda D, r, q: total(D, r, q) - 4 * D, "LayerNorms are missing"),
        (lambda D, r, q: total(D, r, q) - D * D - D, "mixes the heads"),
        (lambda D, r, q: total(D, r, q) - r * D * D - D, "two layers"),
        (lambda D, r, q: total(D, r, q) - 2 * D * D, "AND values"),
        (lambda D, r, q: total(D, r, q) / 1e6, "in millions"),
        (lambda D, r, q: 12 * total(D, r, q), "Count the four parts"),
    ],
}

SUBTLE = {
    "post_norm_block": [
        (lambda x, a, m, n1, n2: n2(n1(a(x)) + m(n1(a(x)))), "first residual is missing"),
        (lambda x, a, m, n1, n2: n2(m(n1(x + a(x)))), "second residual is missing"),
        (lambda x, a, m, n1, n2: n2(n1(x + a(x)) + m(x)), "MLP reads the block's input"),
        (lambda x, a, m, n1, n2: n2(x + m(n1(x + a(x)))), "adds the block's input again"),
        (lambda x, a, m, n1, n2: n2(n1(x + a(x) + m(x))), "in parallel"),
        (changes_its_input, "argument x in place"),
        (
            [
                frozen_attention,
                lambda x, a, m, n1, n2: post_norm(x, lambda y: a(y.detach()), m, n1, n2),
                lambda x, a, m, n1, n2: post_norm(x, a, lambda y: m(y.detach()), n1, n2),
            ],
            "A stop gradient",
        ),
        (lambda x, *parts: post_norm(x.detach(), *parts), "no gradient reaches x"),
        (lambda *a: post_norm(*a).detach().numpy(), "no gradient reaches x"),
        (lambda x, *parts: post_norm(x.mT.contiguous(), *parts), "stopped with RuntimeError"),
        (lambda x, a, m, n1, n2: post_norm(x, a, m, n1, n2)[:, :1].expand_as(x), "values are not"),
    ],
    "pair_head": [
        ([by_conv, by_layer], "without conv1d"),
        (lambda t, w, b: split(right_pairs(t, w.flip(2), b)), "taps changed places"),
        (lambda t, w, b: split(right_pairs(t[:, 1:], w, b)), "One patch is missing"),
        (
            lambda t, w, b: split(pairs(t, w, t[:, 1:], t.roll(-1, 1)[:, 1:]) + b),
            "tokens i and i + 1",
        ),
        (lambda t, w, b: split(right_pairs(t, w, 2 * b)), "added twice"),
        (
            lambda t, w, b: right_pairs(t, w, b).unflatten(-1, (3, -1)).transpose(-1, -2),
            "all x, all y, all z",
        ),
        (lambda t, w, b: right_pairs(t, w, b).unflatten(-1, (3, -1)), "wanted (n, 3)"),
        (lambda t, w, b: split(right_pairs(t, w.detach(), b)), "gradient of weight is 0"),
        (lambda t, w, b: split(right_pairs(t.detach(), w, b)), "gradient of tokens is 0"),
        (
            lambda t, w, b: split(pairs(t, w, t[:, :-1].detach(), t[:, 1:]) + b),
            "gradient of tokens is wrong",
        ),
        (lambda t, w, b: split(right_pairs(t, w, b)).detach().numpy(), "no gradient reaches"),
    ],
    "block_parameters": [
        (lambda D, r, q: total(D, r, q) - 2 * D, "half of the LayerNorms"),
        (lambda D, r, q: total(D, r, q) - D, "A bias of D is missing"),
        (lambda D, r, q: total(D, r, True), "only where qkv_bias"),
        (
            [lambda D, r, q: total(D, r, False), lambda D, r, q: total(D, r, q) - 2 * D * q],
            "Where qkv_bias is true",
        ),
        (lambda D, r, q: total(D, r, not q), "qkv_bias is inverted"),
        (lambda D, r, q: total(D, r, q) - r * D + D, "The MLP's biases"),
        (lambda D, r, q: total(D, r, q) + 1, "One too many"),
        (lambda D, r, q: total(D, r, q) + 0.5, "Count the four parts"),
        (lambda D, r, q: torch.tensor(total(D, r, q)).half(), "float16"),
    ],
}

RIGHT = {
    "post_norm_block": [post_norm, own_sums_in_place, by_function, in_double, token_by_token],
    "pair_head": [
        by_windows,
        by_one_product,
        by_pairs,
        shifted_sum,
        lambda t, w, b: split(right_pairs(t.double(), w.double(), b.double())),
    ],
    "block_parameters": [
        counted,
        lambda D, r, q: float(total(D, r, q)),
        lambda D, r, q: np.int32(total(D, r, q)),
        lambda D, r, q: torch.tensor([total(D, r, q)]),
        lambda D, r, q: (D + 1) * D + 4 * D + 3 * D * (D + q) + r * D * (2 * D + 1) + D,
    ],
}
