"""Wrong answers to the exercises of 00 to 02, each with a piece of the hint meant for it."""

import torch

from serplib.data import normalize
from serplib.geometry import chamfer_l2, gather, knn, squared_distances

NAMES = {
    "torch": torch,
    "chamfer_l2": chamfer_l2,
    "gather": gather,
    "knn": knn,
    "squared_distances": squared_distances,
    "normalize": normalize,
}


def rows(points):
    return torch.arange(len(points))[:, None]


def rigid(points, members, shifts, add=False, order=None):
    out = points.clone()
    for patch in order or range(members.shape[1]):
        index = members[:, patch]
        base = out if add else points
        out[rows(points), index] = base[rows(points), index] + shifts[:, patch, None]
    return out


def patches(points, centers, size):
    return knn(gather(points, centers), points, size)


def sequential(points, centers, size, shifts):
    out = points.clone()
    for patch in range(centers.shape[1]):
        index = knn(gather(out, centers[:, patch : patch + 1]), out, size)[:, 0]
        out[rows(points), index] = out[rows(points), index] + shifts[:, patch, None]
    return out


def in_place(points, centers, size, shifts):
    for patch, members in enumerate(patches(points, centers, size).unbind(1)):
        points[rows(points), members] += shifts[:, patch, None]
    return points


def barycentric(corners, number, generator):
    weights = torch.rand(number, 3, generator=generator)
    return weights / weights.sum(1, keepdim=True) @ corners


def unfolded(corners, number, generator):
    return corners[0] + torch.rand(number, 2, generator=generator) @ (corners[1:] - corners[0])


def squeezed(corners, number, generator):
    u, v = torch.rand(2, number, 1, generator=generator)
    edges = corners[1:] - corners[0]
    return corners[0] + u * edges[0] + v * (1 - u) * edges[1]


def one_edge(corners, number, generator):
    u = torch.rand(number, 1, generator=generator)
    return corners[0] + u * (corners[1] - corners[0])


def ungenerated(corners, number, generator):
    uv = torch.rand(number, 2)
    uv = torch.where(uv.sum(1, keepdim=True) > 1, 1 - uv, uv)
    return corners[0] + uv @ (corners[1:] - corners[0])


def off_plane(corners, number, generator):
    return torch.rand(number, 3, generator=generator)


def spread(reference):
    center = reference.mean(1, keepdim=True)
    return center, (reference - center).norm(dim=-1)


def miss(N, P, n):
    return (1 - n / N) ** P


def once(N, P, n):
    return P * n / N * (1 - n / N) ** (P - 1)


def two(N, P, n):
    return N * P * (P - 1) / 2 * (n / N) ** 2 * (1 - n / N) ** (P - 2)


MUTANTS = {
    "touched_share": [
        (lambda c, p: (c != p).float().mean((1, 2)), "averaged over coordinates"),
        (lambda c, p: (c != p).all(-1).float().mean(1), "all three coordinates"),
        (lambda c, p: (c != p).any(-1).sum(1), "how many points"),
        (lambda c, p: (c == p).all(-1).float().mean(1), "that stayed"),
        (lambda c, p: (c != p).any(-1).float().mean(), "one number for the whole batch"),
    ],
    "same_set": [
        (lambda a, b: torch.equal(a, b), "point i with point i"),
        (lambda a, b: torch.allclose(a.sum(0), b.sum(0), atol=1e-4), "compared a summary"),
        (lambda a, b: torch.equal(a.sort(0).values, b.sort(0).values), "x, y and z apart"),
        (lambda a, b: set(map(tuple, a.tolist())) == set(map(tuple, b.tolist())), "did not count"),
        (
            lambda a, b: bool(((a[:, None] - b).abs().sum(-1).amin(1) == 0).all()),
            "one direction only",
        ),
        (lambda a, b: True, "moved by 0.3"),
        (lambda a, b: (a == b).all(-1), "one yes or no"),
    ],
    "normalize_like": [
        (lambda p, r: normalize(p), "of the cloud itself"),
        (
            lambda p, r: (
                (p - r.mean(1, keepdim=True))
                / (r - r.mean(1, keepdim=True)).abs().amax(1, keepdim=True)
            ),
            "normalised by the per-axis range",
        ),
        (
            lambda p, r: (p - r.mean(1, keepdim=True)) / r.norm(dim=-1).amax(1)[:, None, None],
            "radius before centring",
        ),
        (lambda p, r: (p - spread(r)[0]) / spread(r)[1].max(), "for the whole batch"),
        (lambda p, r: (p - spread(r)[0]) / spread(r)[1].mean(1)[:, None, None], "mean distance"),
        (lambda p, r: p - spread(r)[0], "did not scale"),
        (lambda p, r: p / spread(r)[1].amax(1)[:, None, None], "did not centre"),
    ],
    "sample_triangle": [
        (unfolded, "fill a parallelogram"),
        (squeezed, "one corner"),
        (barycentric, "middle quarter"),
        (one_edge, "edges only"),
        (ungenerated, "generator=generator"),
        (off_plane, "off the triangle's plane"),
        (lambda c, n, g: barycentric(c, n // 2, g), "Wanted num_points points"),
    ],
    "perturb_rigid": [
        (lambda p, c, n, s: rigid(p, c[:, :, None], s), "centres only, not their neighbours"),
        (lambda p, c, n, s: rigid(p, patches(p, c, n + 1)[:, :, 1:], s), "kNN without self"),
        (lambda p, c, n, s: rigid(p, patches(p, c, n)[:, :, 1:], s), "one point too few"),
        (lambda p, c, n, s: rigid(p, patches(p, c, n + 1), s), "one point too many"),
        (lambda p, c, n, s: rigid(p, patches(p, c, n), s, add=True), "added up the shifts"),
        (
            lambda p, c, n, s: rigid(p, patches(p, c, n), s, order=range(c.shape[1] - 1, -1, -1)),
            "first patch wins",
        ),
        (sequential, "in the cloud already moved"),
        (lambda p, c, n, s: p + s[:, :1], "whole cloud with one shift"),
        (in_place, "in place"),
        (lambda p, c, n, s: p.clone(), "Nothing has moved"),
        (lambda p, c, n, s: None, "returned None"),
    ],
    "expected_shared": [
        (lambda N, P, n: N * (1 - miss(N, P, n)), "touched at all"),
        (lambda N, P, n: N * once(N, P, n), "exactly one patch"),
        (lambda N, P, n: 1 - miss(N, P, n) - once(N, P, n), "That is a share"),
        (lambda N, P, n: P * n - N * (1 - miss(N, P, n)), "spare visits"),
        (lambda N, P, n: N * (1 - miss(N, P, n) - once(N, P, n) / P), "forgot the factor P"),
        (two, "exactly two patches"),
        (lambda N, P, n: P * n / 2, "Start from the chance"),
    ],
    "copy_baseline": [
        (lambda c, p: squared_distances(p, c).amin(2).mean(1), "one side of Eq. 11"),
        (lambda c, p: squared_distances(p, c).amin(1).mean(1), "one side of Eq. 11"),
        (
            lambda c, p: sum(squared_distances(p, c).amin(d).sqrt().mean(1) for d in (1, 2)),
            "SQUARED",
        ),
        (lambda c, p: (c - p).square().mean((1, 2)), "coordinate by coordinate"),
        (lambda c, p: (c - p).square().sum(-1).mean(1), "point i with point i"),
        (lambda c, p: chamfer_l2(c, p), "one number for the batch"),
        (lambda c, p: chamfer_l2(c, p, reduction="none") / 2, "halved the sum"),
        (lambda c, p: 32 * chamfer_l2(c, p, reduction="none"), "summed over the points"),
        (lambda c, p: chamfer_l2(p, p, reduction="none"), "with itself"),
    ],
}
