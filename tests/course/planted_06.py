"""Wrong answers to the exercises of 06, each with a piece of the hint meant for it."""

import torch

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


def pairs(tokens, weight, first, second):
    return first @ weight[:, :, 0].T + second @ weight[:, :, 1].T


def split(flat):
    return flat.unflatten(-1, (-1, 3))


def right_pairs(tokens, weight, bias):
    return pairs(tokens, weight, tokens[:, :-1], tokens[:, 1:]) + bias


def total(width, ratio, biased):
    matrices = (4 + 2 * ratio) * width * width
    return matrices + 4 * width + 3 * width * biased + width + ratio * width + width


MUTANTS = {
    "post_norm_block": [
        (pre_norm, "pre-norm block of this section"),
        (normed_branches, "normalised the branch before adding"),
        (lambda x, a, m, n1, n2: n2(m(n1(a(x)))), "residuals are missing"),
        (one_norm, "norm1 twice"),
        (exchanged_norms, "norms changed places"),
        (lambda x, a, m, n1, n2: n2(n1(x + a(x)) + m(x)), "MLP reads the block's input"),
        (lambda x, a, m, n1, n2: n2(x + m(n1(x + a(x)))), "adds the block's input again"),
        (late_norm, "first norm is missing"),
        (no_last_norm, "second norm is missing"),
        (lambda x, a, m, n1, n2: n1(x + a(x)), "half a block"),
        (mlp_first, "MLP before attention"),
        (changes_its_input, "in place"),
        (lambda x, a, m, n1, n2: None, "returned None"),
    ],
    "pair_head": [
        (lambda t, w, b: split(t[:, 1:] @ w[:, :, 1].T + b), "one layer a token"),
        (lambda t, w, b: split(right_pairs(t, w.flip(2), b)), "taps changed places"),
        (lambda t, w, b: split(pairs(t, w, t[:, 1:], t[:, 1:]) + b), "read the same token"),
        (lambda t, w, b: split(right_pairs(t[:, 1:], w, b)), "One patch is missing"),
        (
            lambda t, w, b: split(pairs(t, w, t[:, 1:], t.roll(-1, 1)[:, 1:]) + b),
            "tokens i and i + 1",
        ),
        (lambda t, w, b: split(pairs(t, w, t, t.roll(-1, 1)) + b), "no circle"),
        (lambda t, w, b: split(pairs(t, w, t.roll(1, 1), t) + b), "no token before it"),
        (lambda t, w, b: split(right_pairs(t, w, 0)), "bias is missing"),
        (lambda t, w, b: split(right_pairs(t, w, 2 * b)), "added twice"),
        (
            lambda t, w, b: right_pairs(t, w, b).unflatten(-1, (3, -1)).transpose(-1, -2),
            "all x, all y, all z",
        ),
        (lambda t, w, b: right_pairs(t, w, b).unflatten(-1, (3, -1)), "wanted (n, 3)"),
        (right_pairs, "rows of 3n numbers"),
    ],
    "block_parameters": [
        (lambda D, r, q: (4 + 2 * r) * D * D, "Those are the matrices"),
        (lambda D, r, q: total(D, r, q) - 4 * D, "LayerNorms are missing"),
        (lambda D, r, q: total(D, r, q) - 2 * D, "half of the LayerNorms"),
        (lambda D, r, q: total(D, r, q) - D * D - D, "mixes the heads"),
        (lambda D, r, q: total(D, r, q) - D, "A bias of D is missing"),
        (lambda D, r, q: total(D, r, True), "only where qkv_bias"),
        (lambda D, r, q: total(D, r, False), "Where qkv_bias is true"),
        (lambda D, r, q: total(D, r, q) - r * D * D - D, "two layers"),
        (lambda D, r, q: total(D, r, q) - r * D + D, "as many biases"),
        (lambda D, r, q: total(D, r, q) - 2 * D * D, "AND values"),
        (lambda D, r, q: total(D, r, q) / 1e6, "in millions"),
        (lambda D, r, q: 12 * total(D, r, q), "Write the four parts apart"),
    ],
}
