"""The maximum over points (paper, 3.2, 3.3.2) and its gradient, in compiled loops.

How the loops are compiled, and what ``first`` and ``last`` are, says `accel.numba_ops`.
"""

from __future__ import annotations

import numpy as np

from serplib.accel.openmp import compiled, share_out


@compiled
def _maximum(features, sign, highest, where, first, last):  # (B, N, C), (C,), (B, C), (B, C)
    """The maximum over N of sign * features, and the first point that has it; NaN is above all."""
    best, place = np.empty(len(sign), np.float32), np.empty(len(sign), np.int32)
    for b in range(first, last):
        best[:] = sign * features[b, 0]
        place[:] = 0
        for j in range(1, features.shape[1]):
            values = features[b, j]
            for c in range(best.shape[0]):
                value, before = sign[c] * values[c], best[c]
                above = (value > before) | ((value != value) & (before == before))
                best[c] = value if above else before
                place[c] = np.int32(j) if above else place[c]
        highest[b], where[b] = best, place


@compiled
def maximum(features, sign, highest, where, team):
    share_out(_maximum, (features, sign, highest, where), len(features), team)


@compiled
def _to_inputs(weight, where, pull, on_inputs, add, first, last):
    """The gradient of max_n (inputs @ weight.T) on the inputs: set, or added to what is there.

    Weight ``(C, W)``, places and gradients of the maxima ``(B, C)``, on the inputs ``(B, N, W)``.
    """
    for b in range(first, last):
        if not add:
            on_inputs[b] = 0
        for c in range(where.shape[1]):
            gradient, row, much = on_inputs[b, np.uint32(where[b, c])], weight[c], pull[b, c]
            for i in range(row.shape[0]):
                gradient[i] += much * row[i]


@compiled
def to_inputs(weight, where, pull, on_inputs, add, team):
    share_out(_to_inputs, (weight, where, pull, on_inputs, add), len(where), team)


@compiled
def _to_weight(inputs, where, pull, on_weight, first, last):  # (B, N, W), (B, C), (B, C), (C, W)
    """The same on the weights, of features first to last."""
    on_weight[first:last] = 0
    at = where.view(np.uint64)  # an index that is never counted from the end
    fours = len(where) // 4 * 4
    for b in range(0, fours, 4):  # four clouds at once: a gradient is read and written once
        for c in range(first, last):
            gradient = on_weight[c]
            w, x, y, z = pull[b, c], pull[b + 1, c], pull[b + 2, c], pull[b + 3, c]
            of_w, of_x = inputs[b, at[b, c]], inputs[b + 1, at[b + 1, c]]
            of_y, of_z = inputs[b + 2, at[b + 2, c]], inputs[b + 3, at[b + 3, c]]
            for i in range(gradient.shape[0]):
                gradient[i] += w * of_w[i] + x * of_x[i] + y * of_y[i] + z * of_z[i]
    for b in range(fours, len(where)):
        for c in range(first, last):
            gradient, row, much = on_weight[c], inputs[b, at[b, c]], pull[b, c]
            for i in range(gradient.shape[0]):
                gradient[i] += much * row[i]


@compiled
def to_weight(inputs, where, pull, on_weight, team):
    share_out(_to_weight, (inputs, where, pull, on_weight), len(on_weight), team)
