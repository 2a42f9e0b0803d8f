"""Answers to the exercises of 02: wrong ones with a piece of their hint, and right ones."""

import numpy as np
import torch

from serplib.geometry import chamfer_l2, gather, knn, squared_distances

NAMES = {
    "torch": torch,
    "chamfer_l2": chamfer_l2,
    "gather": gather,
    "knn": knn,
    "squared_distances": squared_distances,
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


def aliased(points, centers, size, shifts):
    out = points  # no copy
    for patch, members in enumerate(patches(points, centers, size).unbind(1)):
        out[rows(points), members] = points[rows(points), members] + shifts[:, patch, None]
    return out.clone()


def crossed(points, centers, size, shifts):
    out = points.clone()
    for patch, members in enumerate(patches(points, centers, size).unbind(1)):
        out[:, members] = points[:, members] + shifts[:, patch, None, None]
    return out


def one_shift(points, centers, size, shifts):
    return rigid(points, patches(points, centers, size), shifts[:, :1].expand_as(shifts))


def nearest_center(points, centers, size, shifts):
    """Right but for ties: the nearest patch wins, not the last."""
    members = patches(points, centers, size)
    inside = torch.zeros(len(points), centers.shape[1], points.shape[1], dtype=torch.bool)
    inside.scatter_(2, members, True)
    distance = squared_distances(gather(points, centers), points)
    best = distance.masked_fill(~inside, torch.inf).argmin(1)
    moved = points + gather(shifts, best)
    return torch.where(inside.any(1)[..., None], moved, points)


def by_owner(points, centers, size, shifts):
    owner = torch.full(points.shape[:2], -1)
    for patch, members in enumerate(patches(points, centers, size).unbind(1)):
        owner.scatter_(1, members, patch)
    moved = points + gather(shifts, owner.clamp_min(0))
    return torch.where((owner >= 0)[..., None], moved, points)


def by_cloud(points, centers, size, shifts):
    out = points.double().numpy().copy()
    for b in range(len(points)):
        for p, center in enumerate(centers[b].tolist()):
            near = (points[b] - points[b, center]).norm(dim=-1).argsort()[:size].numpy()
            out[b, near] = points[b].double().numpy()[near] + shifts[b, p].double().numpy()
    return out


def backwards_once(points, centers, size, shifts):
    out, free = points.clone(), torch.ones(points.shape[:2], dtype=torch.bool)
    members = patches(points, centers, size)
    for b in range(len(points)):
        for p in reversed(range(members.shape[1])):
            index = members[b, p][free[b, members[b, p]]]
            out[b, index] += shifts[b, p]
            free[b, index] = False
    return out


def none_of(N, P, n):
    return (1 - n / N) ** P


def once(N, P, n):
    return P * n / N * (1 - n / N) ** (P - 1)


def two(N, P, n):
    return N * P * (P - 1) / 2 * (n / N) ** 2 * (1 - n / N) ** (P - 2)


def shared_points(N, P, n):
    return N * (1 - none_of(N, P, n) - once(N, P, n))


def summed(N, P, n):
    distribution = torch.distributions.Binomial(P, torch.tensor(n / N, dtype=torch.float64))
    return N * distribution.log_prob(torch.arange(2, P + 1).double()).exp().sum()


def sides(clean, perturbed):
    table = squared_distances(perturbed, clean)
    return table.amin(2), table.amin(1)


def nested(clean, perturbed):
    """Eq. 11 point by point, a list of Python floats."""
    found = []
    for c, p in zip(clean.double(), perturbed.double()):
        there = sum(min(float((x - y).square().sum()) for y in c) for x in p) / len(p)
        back = sum(min(float((x - y).square().sum()) for x in p) for y in c) / len(c)
        found.append(there + back)
    return found


WRONG = {
    "perturb_rigid": [
        (lambda p, c, n, s: rigid(p, c[:, :, None], s), "centres only, not their neighbours"),
        (lambda p, c, n, s: rigid(p, patches(p, c, n)[:, :, 1:], s), "one point too few"),
        (lambda p, c, n, s: rigid(p, patches(p, c, n + 1), s), "one point too many"),
        (lambda p, c, n, s: rigid(p, patches(p, c, n), s, add=True), "added up the shifts"),
        (sequential, "in the cloud already moved"),
        (lambda p, c, n, s: p + s[:, :1], "whole cloud with one shift"),
        (lambda p, c, n, s: p.clone(), "Nothing has moved"),
        (lambda p, c, n, s: None, "returned None"),
    ],
    "expected_shared": [
        (lambda N, P, n: N * (1 - none_of(N, P, n)), "touched at all"),
        (lambda N, P, n: N * once(N, P, n), "exactly one patch"),
        (lambda N, P, n: 1 - none_of(N, P, n) - once(N, P, n), "That is a share"),
        (lambda N, P, n: P * n - N * (1 - none_of(N, P, n)), "counts twice"),
        (lambda N, P, n: N * (1 - none_of(N, P, n) - once(N, P, n) / P), "forgot the factor P"),
        (lambda N, P, n: P * n / 2, "Start from the chance"),
    ],
    "copy_baseline": [
        ([lambda c, p: sides(c, p)[0].mean(1), lambda c, p: sides(c, p)[1].mean(1)], "one side"),
        (lambda c, p: sum(side.sqrt().mean(1) for side in sides(c, p)), "SQUARED"),
        (lambda c, p: (c - p).square().mean((1, 2)), "coordinate by coordinate"),
        (lambda c, p: (c - p).square().sum(-1).mean(1), "point i with point i"),
        (lambda c, p: chamfer_l2(c, p), "one number for the whole batch"),
        (lambda c, p: chamfer_l2(c, p, reduction="none") / 2, "halved the sum"),
        (lambda c, p: sum(side.sum(1) for side in sides(c, p)), "summed over the points"),
        (lambda c, p: chamfer_l2(p, p, reduction="none"), "with itself"),
    ],
}


SUBTLE = {
    "perturb_rigid": [
        (in_place, "argument points in place"),
        (aliased, "argument points in place"),
        (
            lambda p, c, n, s: rigid(p, patches(p, c, n), s, order=range(c.shape[1] - 1, -1, -1)),
            "first patch wins",
        ),
        (lambda p, c, n, s: rigid(p, patches(p, c, n + 1)[:, :, 1:], s), "kNN without self"),
        (crossed, "every cloud with the members"),
        (
            lambda p, c, n, s: rigid(p, patches(p, c, n)[:1].expand(len(p), -1, -1), s),
            "of the first",
        ),
        (nearest_center, "values are not"),
        (one_shift, "values are not"),
    ],
    "expected_shared": [
        (lambda N, P, n: round(shared_points(N, P, n)), "You rounded"),
        (lambda N, P, n: int(shared_points(N, P, n)), "You rounded"),
        (two, "exactly two patches"),
        (lambda N, P, n: N * (1 - none_of(N, P, n) - once(N, P, n) * (1 - n / N)), "is P - 1"),
        (lambda N, P, n: shared_points(1024, P, n), "num_points = 100"),  # N of the first case
    ],
    "copy_baseline": [
        (lambda c, p: 32 * chamfer_l2(c, p, reduction="none"), "wanted"),
        (lambda c, p: torch.maximum(*(side.mean(1) for side in sides(c, p))), "larger of the two"),
        (lambda c, p: 2 * sides(c, p)[0].mean(1), "run from the same cloud"),
        (lambda c, p: sum(side.mean(0) for side in sides(c, p)), "wanted (2,)"),
        (lambda c, p: chamfer_l2(c, p, reduction="none").bfloat16(), "bfloat16"),
        (lambda c, p: chamfer_l2(c, p.sub_(1e-3), reduction="none"), "perturbed in place"),
    ],
}


RIGHT = {
    "perturb_rigid": [
        by_owner,
        by_cloud,
        backwards_once,
        lambda p, c, n, s: p + rigid(0 * p, patches(p, c, n), s),
        lambda p, c, n, s: by_owner(p.double(), c, n, s.double()),
    ],
    "expected_shared": [
        summed,
        lambda N, P, n: float(summed(N, P, n)),
        lambda N, P, n: np.float64(shared_points(N, P, n)),
        lambda N, P, n: torch.tensor([shared_points(N, P, n)]),
        lambda N, P, n: N - N * none_of(N, P, n) - N * once(N, P, n),
    ],
    "copy_baseline": [
        nested,
        lambda c, p: sum(side.mean(1) for side in sides(c, p)),
        lambda c, p: sum(torch.cdist(c, p).amin(d).square().mean(1) for d in (1, 2)),
        lambda c, p: chamfer_l2(c.double(), p.double(), reduction="none").numpy(),
        lambda c, p: torch.stack([chamfer_l2(x[None], y[None]) for x, y in zip(c, p)]),
    ],
}
