"""Answers to the exercises of 00 and 01: wrong ones with a piece of their hint, and right ones."""

from collections import Counter

import numpy as np
import torch

from serplib.data import normalize

NAMES = {"torch": torch, "normalize": normalize}


def triangle(corners, weights):
    return corners[0] + weights @ (corners[1:] - corners[0])


def folded(corners, number, generator, dtype=torch.float32):
    uv = torch.rand(number, 2, generator=generator, dtype=dtype)
    return triangle(corners.to(dtype), torch.where(uv.sum(1, keepdim=True) > 1, 1 - uv, uv))


def rooted(corners, number, generator):
    u, v = torch.rand(2, number, 1, generator=generator)
    root = u.sqrt()
    return (1 - root) * corners[0] + root * (1 - v) * corners[1] + root * v * corners[2]


def exponential(corners, number, generator):
    weights = -torch.rand(number, 3, generator=generator).clamp_min(1e-20).log()
    return weights / weights.sum(1, keepdim=True) @ corners


def rejected(corners, number, generator):
    kept = torch.empty(0, 2)
    while len(kept) < number:
        uv = torch.rand(number, 2, generator=generator)
        kept = torch.cat([kept, uv[uv.sum(1) <= 1]])
    return triangle(corners, kept[:number])


def in_numpy(corners, number, generator):
    uv = np.random.default_rng(generator.initial_seed()).random((number, 2))
    uv[uv.sum(1) > 1] = 1 - uv[uv.sum(1) > 1]
    return corners[0].numpy() + uv @ (corners[1:] - corners[0]).numpy()


def sorted_pair(corners, number, generator):
    uv = torch.rand(number, 2, generator=generator).sort(1).values
    weights = torch.stack([uv[:, 0], uv[:, 1] - uv[:, 0], 1 - uv[:, 1]], 1)
    return weights @ corners


def shared(corners, weights):
    return weights / weights.sum(1, keepdim=True) @ corners


def unfolded(corners, number, generator):
    return triangle(corners, torch.rand(number, 2, generator=generator))


def squeezed(corners, number, generator):
    u, v = torch.rand(2, number, 1, generator=generator)
    edges = corners[1:] - corners[0]
    return corners[0] + u * edges[0] + v * (1 - u) * edges[1]


def one_edge(corners, number, generator):
    u = torch.rand(number, 1, generator=generator)
    return corners[0] + u * (corners[1] - corners[0])


def kept_only(corners, number, generator):
    uv = torch.rand(number, 2, generator=generator)
    return triangle(corners, uv[uv.sum(1) <= 1])


def clamped(corners, number, generator):
    u, v = torch.rand(2, number, 1, generator=generator)
    return triangle(corners, torch.cat([u, torch.minimum(v, 1 - u)], 1))


def seeded(corners, number, generator):
    return folded(corners, number, torch.Generator().manual_seed(0))


def gridded(corners, number, generator):
    uv = (torch.rand(number, 2, generator=generator) * 16).floor() / 16 + 0.03
    return triangle(corners, torch.where(uv.sum(1, keepdim=True) > 1, 1 - uv, uv))


def from_one_number(second, root=False):
    """Folded, or by the root of the first number: the second number follows from the first."""

    def draw(corners, number, generator):
        u = torch.rand(number, generator=generator, dtype=torch.float64)
        uv = torch.stack([u, second(u) % 1], 1)
        if root:
            uv = uv[:, :1].sqrt() * torch.stack([1 - uv[:, 1], uv[:, 1]], 1)
        return triangle(corners.double(), torch.where(uv.sum(1, keepdim=True) > 1, 1 - uv, uv))

    return draw


def bits_of_one(corners, number, generator):
    bits = torch.randint(2**24, (number,), generator=generator)
    uv = torch.stack([bits // 4096, bits % 4096], 1) / 4096
    return triangle(corners, torch.where(uv.sum(1, keepdim=True) > 1, 1 - uv, uv))


def center_of(reference):
    return reference.mean(1, keepdim=True)


def spread(reference):
    center = center_of(reference)
    return center, (reference - center).norm(dim=-1)


def radius_of(reference):
    return spread(reference)[1].amax(1)[:, None, None]


def frame_in_numpy(points, reference):
    points, reference = points.numpy().astype(float), reference.numpy().astype(float)
    center = reference.mean(1, keepdims=True)
    return (points - center) / np.linalg.norm(reference - center, axis=-1).max(1)[:, None, None]


def frame_in_place(points, reference):
    out = points - center_of(reference)
    out /= radius_of(reference)
    return out


def frame_of_argument(points, reference):
    points -= center_of(reference)
    return points / radius_of(reference)


def unique_counts(a, b):
    (p, n), (q, m) = (x.unique(dim=0, return_counts=True) for x in (a, b))
    return torch.equal(p, q) and torch.equal(n, m)


def lexicographic(a, b):
    a, b = (x.numpy()[np.lexsort(x.numpy().T)] for x in (a, b))
    return np.array_equal(a, b)


def match_counts(a, b):
    def times(x, y):
        return (x[:, None] == y).all(-1).sum(1)

    return (times(a, a) == times(a, b)).all()


def removed(a, b):
    rest = b.tolist()
    for point in a.tolist():
        if point not in rest:
            return False
        rest.remove(point)
    return True


def by_key(key):
    return lambda a, b: torch.equal(a[key(a).argsort()], b[key(b).argsort()])


def twins(a, b):
    return bool(((a[:, None] - b).abs().sum(-1).amin(1) == 0).all())


def close_sets(a, b):
    distance = torch.cdist(a, b)
    return bool(distance.amin(1).max() < 1e-3 and distance.amin(0).max() < 1e-3)


WRONG = {
    "touched_share": [
        (lambda c, p: (c != p).float().mean((1, 2)), "averaged over coordinates"),
        (lambda c, p: (c != p).all(-1).float().mean(1), "all three coordinates"),
        (lambda c, p: (c != p).any(-1).sum(1), "number of points that moved"),
        (lambda c, p: (c == p).all(-1).float().mean(1), "complement"),
        (lambda c, p: (c != p).any(-1).float().mean(), "one number for the whole batch"),
    ],
    "same_set": [
        (lambda a, b: torch.equal(a, b), "point i with point i"),
        (
            [
                lambda a, b: torch.allclose(a.sum(0), b.sum(0), atol=1e-4),
                lambda a, b: torch.allclose(a.mean(0), b.mean(0), atol=1e-5),
            ],
            "compared a summary",
        ),
        (lambda a, b: torch.equal(a.sort(0).values, b.sort(0).values), "x, y and z separately"),
        (lambda a, b: set(map(tuple, a.tolist())) == set(map(tuple, b.tolist())), "did not count"),
        ([twins, lambda a, b: twins(b, a)], "one direction only"),
        (lambda a, b: True, "moved by 0.3"),
        (lambda a, b: False, "same set as itself"),
        (lambda a, b: (a == b).all(-1), "one bool"),
    ],
    "normalize_like": [
        (lambda p, r: normalize(p), "of the cloud itself"),
        (
            lambda p, r: (p - center_of(r)) / (r - center_of(r)).abs().amax(1, keepdim=True),
            "range of each axis",
        ),
        (
            lambda p, r: (p - center_of(r)) / r.norm(dim=-1).amax(1)[:, None, None],
            "radius before centring",
        ),
        (lambda p, r: (p - spread(r)[0]) / spread(r)[1].mean(1)[:, None, None], "mean distance"),
        (lambda p, r: p - spread(r)[0], "did not scale"),
        (lambda p, r: p / radius_of(r), "did not centre"),
    ],
    "sample_triangle": [
        (unfolded, "fill a parallelogram"),
        (squeezed, "at a corner"),
        (lambda c, n, g: shared(c, torch.rand(n, 3, generator=g)), "middle quarter"),
        (one_edge, "edges only"),
        (lambda c, n, g: folded(c, n, None), "generator=generator"),
        (lambda c, n, g: torch.rand(n, 3, generator=g), "off the triangle's plane"),
        (
            [
                kept_only,
                lambda c, n, g: folded(c, n // 2, g),
                lambda c, n, g: folded(c, 16000, g),
            ],
            "Wanted num_points points",
        ),
    ],
}


SUBTLE = {
    "touched_share": [
        (
            [
                lambda c, p: ((p - c).norm(dim=-1) > 0.05).float().mean(1),
                lambda c, p: ((p - c).norm(dim=-1) > 1e-7).float().mean(1),
            ],
            "allow a tolerance",
        ),
        (lambda c, p: (~torch.isclose(c, p)).any(-1).float().mean(1), "however small"),
        (lambda c, p: ((p - c).sum(-1) != 0).float().mean(1), "signed differences"),
        (lambda c, p: (c.norm(dim=-1) != p.norm(dim=-1)).float().mean(1), "distances from"),
        (lambda c, p: (c != p).any(1).float().mean(1), "reduced over the points"),
        (lambda c, p: (c != p).any(-1).float().mean(0), "mean over the batch"),
        (lambda c, p: (c != p).any(-1).sum(1) / 8, "wanted"),  # the N of the first case
        (lambda c, p: (c != p).any(-1).half().mean(1), "float16"),
    ],
    "same_set": [
        (
            [
                by_key(lambda x: x[:, 0]),
                by_key(lambda x: x[:, 2]),
                by_key(lambda x: x.norm(dim=-1)),
                by_key(lambda x: x.sum(-1)),
            ],
            "points that tie in it",
        ),
        (
            lambda a, b: torch.equal(a.norm(dim=-1).sort().values, b.norm(dim=-1).sort().values),
            "rotated",
        ),
        (
            lambda a, b: sorted(map(sorted, a.tolist())) == sorted(map(sorted, b.tolist())),
            "ignored",
        ),
        (
            [close_sets, lambda a, b: np.allclose(*map(sorted, (a.tolist(), b.tolist())))],
            "last bit",
        ),
        (lambda a, b: a.sort(0).values.equal(b.sort(0).values) and twins(a, b), "one direction"),
        (
            lambda a, b: a.sort(0).values.equal(b.sort(0).values) and twins(a, b) and twins(b, a),
            "did not count",
        ),
    ],
    "normalize_like": [
        (lambda p, r: (p - spread(r)[0]) / spread(r)[1].max(), "for the whole batch"),
        (lambda p, r: (p - center_of(r)) / radius_of(p), "radius is that of `points`"),
        (lambda p, r: (p - center_of(p)) / radius_of(r), "centre is that of `points`"),
        (lambda p, r: (p - r.mean((0, 1))) / radius_of(r), "mean over the whole batch"),
        (
            lambda p, r: (
                (p - (r.amax(1, keepdim=True) + r.amin(1, keepdim=True)) / 2)
                / (r - (r.amax(1, keepdim=True) + r.amin(1, keepdim=True)) / 2)
                .norm(dim=-1)
                .amax(1)[:, None, None]
            ),
            "middle of the bounding box",
        ),
        (frame_of_argument, "argument points in place"),
    ],
    "sample_triangle": [
        (lambda c, n, g: shared(c, torch.randn(n, 3, generator=g).exp()), "middle quarter"),
        (lambda c, n, g: shared(c, torch.rand(n, 3, generator=g).square()), "unequal shares"),
        (lambda c, n, g: triangle(c, torch.rand(n, 2, generator=g) / 2), "u / 2 and v / 2"),
        (clamped, "at a corner"),
        (seeded, "Two different seeds"),
        (gridded, "points coincide"),
        (
            [
                from_one_number(lambda u: 10 * u),
                from_one_number(lambda u: 1000 * u),
                from_one_number(lambda u: 12345.6 * u),
                from_one_number(lambda u: 1000 * u, root=True),
                from_one_number(lambda u: u.flip(0)),
                from_one_number(lambda u: u.roll(1)),
                from_one_number(lambda u: u.roll(1), root=True),
                bits_of_one,
            ],
            "independent",
        ),
        (lambda c, n, g: folded(c.mul_(1.1), n, g), "in place"),
    ],
}


RIGHT = {
    "touched_share": [
        lambda c, p: ((c - p).abs().amax(-1) > 0).double().mean(1),
        lambda c, p: 1 - (c == p).all(-1).float().mean(-1),
        lambda c, p: (c.numpy() != p.numpy()).any(-1).mean(1),
        lambda c, p: [
            sum(map(lambda x, y: x != y, *pair)) / len(pair[0])
            for pair in zip(c.tolist(), p.tolist())
        ],
        lambda c, p: ((c != p).sum(-1) > 0).sum(1) / c.shape[1],
    ],
    "same_set": [
        unique_counts,
        lexicographic,
        match_counts,
        removed,
        lambda a, b: Counter(map(tuple, a.tolist())) == Counter(map(tuple, b.tolist())),
        lambda a, b: np.bool_(sorted(a.tolist()) == sorted(b.tolist())),
        lambda a, b: int(sorted(map(tuple, a.numpy())) == sorted(map(tuple, b.numpy()))),
    ],
    "normalize_like": [
        frame_in_numpy,
        frame_in_place,
        lambda p, r: frame_in_place(p.double(), r.double()),
        lambda p, r: (p - center_of(r)) / torch.cdist(r, center_of(r)).amax(1, keepdim=True),
        lambda p, r: torch.stack(
            [(x - y.mean(0)) / (y - y.mean(0)).square().sum(1).max().sqrt() for x, y in zip(p, r)]
        ),
    ],
    "sample_triangle": [
        rooted,
        exponential,
        rejected,
        in_numpy,
        sorted_pair,
        lambda c, n, g: folded(c, n, g, torch.float64),
        lambda c, n, g: folded(c, n, g).tolist(),
    ],
}
