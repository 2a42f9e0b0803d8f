"""Checkers of the exercises in 01_point_clouds."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from serplib.course.exercises.grading import (
    Hint,
    call,
    clouds,
    examination,
    exercise,
    to_tensor,
)
from serplib.data.common import normalize
from serplib.seeding import named_generator


@examination
def same_set(function: Callable[[Tensor, Tensor], bool]) -> None:
    """Tell whether two clouds hold the same points in any order: ``(N, 3), (N, 3) -> bool``."""
    for a, b, right, hint in _pairs():
        answer = to_tensor(call(function, a.clone(), b.clone(), names=("a", "b")), "a bool")
        if answer.numel() != 1:
            raise Hint(
                f"Your answer has shape {tuple(answer.shape)}, wanted one bool for the whole cloud."
            )
        if bool(answer) != right:
            raise Hint(hint)


def _pairs() -> list[tuple[Tensor, Tensor, bool, str]]:
    """Pairs of clouds, whether they are the same set, and the hint for the other answer."""
    cloud = clouds("set", 1, 16)[0]
    moved, nearly = cloud.clone(), cloud.clone()
    moved[5, 1] += 0.3
    nearly[5, 1] = torch.nextafter(nearly[5, 1], torch.tensor(9.0))
    corners = torch.cartesian_prod(*3 * [torch.tensor([0.0, 1.0])])  # (8, 3) of a cube
    other_order = corners[[6, 1, 3, 0, 7, 5, 2, 4]]
    square, diagonal = torch.eye(3)[:2], torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    rotated = cloud * torch.tensor([-1.0, -1.0, 1.0])  # exactly, by 180 degrees
    one_way = "You looked in one direction only: one cloud has a point that the other has not."
    return [
        (cloud, cloud.clone(), True, "A cloud is the same set as itself, and you return False."),
        (cloud, cloud.flip(0).roll(3, 0), True, "You compared point i with point i. The same "
         "points in another order are the same set."),
        (cloud, moved, False, "One point of 16 was moved by 0.3, and you return True."),
        (cloud, 2 * cloud.mean(0) - cloud, False, "You compared a summary, such as the sum or the "
         "mean. The second cloud is the first one reflected through its centroid."),
        (cloud, rotated, False, "You compared distances from the origin. The second cloud is the "
         "first one rotated: same distances, other points."),
        (square, diagonal, False, "You sorted x, y and z separately, which mixes the coordinates "
         "of different points: (0,1),(1,0) is not (0,0),(1,1). Sort whole points."),
        (cloud, cloud[:, [1, 0, 2]], False, "You ignored which coordinate is which: in the second "
         "cloud x and y are exchanged."),
        (corners, other_order, True, "You sorted by one number a point, such as x or the norm, and "
         "points that tie in it keep their order. Where x ties compare y, then z."),
        (cloud, nearly, False, "You allow a tolerance. One coordinate differs in its last bit: the "
         "sets are not the same."),
        (corners[[0, 0, 3, 3]], corners[:4], False, one_way),
        (corners[:4], corners[[0, 0, 3, 3]], False, one_way),
        (corners[[0, 0, 3, 3, 1, 2]], corners[[0, 3, 1, 1, 2, 2]], False, "You asked whether every "
         "point occurs in the other cloud, but did not count: {p, p, q} is not {p, q, q}."),
    ]  # fmt: skip


@exercise(
    lambda: [
        (clouds("like, perturbed", 2, 48) + 0.3, clouds("like")),
        (clouds("like, small", 3, 3) - 0.2, clouds("like, other", 3, 3)),
    ],
    shape="(B, N, 3)",
)
def normalize_like(points: Tensor, reference: Tensor):
    """Put a cloud in the frame of another: ``(B, N, 3), (B, M, 3) -> (B, N, 3)``."""

    def largest(cloud: Tensor) -> Tensor:
        return cloud.norm(dim=-1).amax(1)[:, None, None]  # (B, 1, 1)

    center, own = reference.mean(1, keepdim=True), points.mean(1, keepdim=True)  # (B, 1, 3)
    centered, relative = points - center, reference - center  # (B, N, 3), (B, M, 3)
    low, high = reference.amin(1, keepdim=True), reference.amax(1, keepdim=True)  # (B, 1, 3)
    middle, together = (low + high) / 2, reference.mean((0, 1))
    radius = largest(relative)  # (B, 1, 1)
    mean_radius = relative.norm(dim=-1).mean(1)[:, None, None]  # (B, 1, 1)
    return centered / radius, {
        "You used the centre and radius of the cloud itself. Both come from the reference.":
            normalize(points),
        "Your radius is that of `points`. It comes from the reference, like the centre.":
            [centered / largest(centered), centered / largest(points - own)],
        "Your centre is that of `points`. It comes from the reference, like the radius.":
            (points - own) / radius,
        "You normalised by the range of each axis, which stretches every shape into a cube. One "
        "radius for all axes.":
            [centered / relative.abs().amax(1, keepdim=True), centered / (high - low)],
        "You took the radius before centring, as the authors' code does: a cloud off the origin "
        "comes out too small.": centered / largest(reference),
        "You divided by one radius for the whole batch. Each cloud has its own, (B, 1, 1).":
            centered / radius.amax(),
        "You divided by the mean distance. The farthest point of the reference belongs on the unit"
        " sphere.": centered / mean_radius,
        "You centred on the middle of the bounding box. Take the mean of the points.":
            (points - middle) / largest(reference - middle),
        "Your centre is the mean over the whole batch. Each cloud has its own: mean(1).":
            [(points - together) / largest(reference - together), (points - together) / radius],
        "You centred but did not scale.": centered,
        "You scaled but did not centre.": points / radius,
    }  # fmt: skip


@examination
def sample_triangle(function: Callable[[Tensor, int, torch.Generator], Tensor]) -> None:
    """Draw points evenly by area: ``corners (3, 3), num_points, generator -> (num_points, 3)``."""
    corners = torch.tensor([[0.2, 0.0, 1.0], [2.0, 0.5, 0.0], [0.0, 3.0, 0.5]])
    number = 16000

    def draw(seed: str, count: int = number) -> Tensor:
        generator = named_generator("check", seed)
        answer = call(function, corners.clone(), count, generator, names=("corners", "", ""))
        points = to_tensor(answer, "points (num_points, 3)").detach().double()
        if points.shape != (count, 3):
            raise Hint(f"Wanted num_points points, ({count}, 3), got {tuple(points.shape)}.")
        return points

    points = draw("triangle")  # (n, 3)
    if not torch.equal(points, draw("triangle")):
        raise Hint(
            "Two calls with equally seeded generators gave different points: pass "
            "generator=generator to torch.rand."
        )
    if torch.equal(points, draw("another triangle")):
        raise Hint("Two different seeds gave the same points: draw with the generator passed.")
    draw("triangle", 7)
    if len(points.unique(dim=0)) < 0.99 * number:
        raise Hint("Many points coincide: draw real numbers, not a grid.")
    edges = (corners[1:] - corners[0]).T.double()  # (3, 2)
    offset = points - corners[0]  # (n, 3)
    weights = torch.linalg.lstsq(edges, offset.T).solution.T  # (n, 2)
    if not (offset - weights @ edges.T).norm(dim=-1).max() < 1e-4:
        raise Hint("Points lie off the triangle's plane: use corner + u * edge + v * edge.")
    weights = torch.cat([1 - weights.sum(1, keepdim=True), weights], 1)  # (n, 3) barycentric
    outside = (weights < -1e-5).any(1).double().mean().item()
    if outside > 0:
        raise Hint(
            f"{100 * outside:.0f} % of the points lie outside: u and v in the unit square fill a "
            "parallelogram. Where u + v > 1, replace u, v by 1 - u, 1 - v."
        )
    if (weights.amin(1) < 1e-5).double().mean() > 0.5:
        raise Hint("The points lie on the edges only: mix all three corners, with two numbers.")
    if weights[:, 1:].max() < 0.501:
        raise Hint(
            "The half of the triangle far from the first corner is empty: u / 2 and v / 2 fill a "
            "smaller parallelogram. Fold instead."
        )
    if _dependent(weights):
        raise Hint(
            "Your two numbers a point depend on each other: digits of one number, or one column in "
            "two orders. Draw two independent ones for each point."
        )
    quarter = [(weights[:, corner] > 0.5).double().mean().item() for corner in range(3)]
    if 1 - sum(quarter) > 0.27:
        raise Hint(
            "Too many points in the middle quarter: three random numbers divided by their sum "
            "(or a softmax) are not even by area. Use two uniform numbers, and fold."
        )
    if max(quarter) > 0.27:
        raise Hint(
            "Too many points at a corner: v * (1 - u), for instance, squeezes as many points into "
            "the narrow end as into the wide one. Fold the square, or take the root of u."
        )
    # 64 parts of equal area: 8 x 8 cells of u and v, each cut into a lower and an upper triangle.
    u, v = (8 * weights[:, 1:].clamp(0, 0.99999)).T
    parts = 2 * (8 * u.floor() + v.floor()) + (u % 1 + v % 1 > 1)  # (n,)
    counts = parts.unique(return_counts=True)[1].double()
    expected, empty = number / 64, 64 - len(counts)
    if float((counts - expected).square().sum() / expected) + empty * expected > 160:
        raise Hint("Parts of equal area hold unequal shares of the points: draw u, v uniformly.")


def _dependent(weights: Tensor) -> bool:
    """Whether the two numbers behind barycentric ``weights (n, 3)`` depend on each other."""
    weights = weights[weights.amin(1) > 1e-4]
    for i in range(3):
        one, two, three = weights.roll(i, 1).T
        # The share of the area beyond a point, and the direction to it from a corner.
        beyond, turn = (1 - one).square(), two / (two + three)
        if _related(one, two) or _related(beyond, turn) or _related(turn, beyond):
            return True
    return False


def _related(x: Tensor, y: Tensor) -> bool:
    """Whether ``y (n,)`` holds the numbers of ``x (n,)`` again, or digits of them.

    Digits are found by the Fourier transform: where y = k x modulo 1, the mean of
    exp(2 pi i (k x - y)) is 1, and where x or y has a grid of k lines, that of exp(2 pi i k x).
    """
    known = torch.minimum(x, 1 - x).sort().values  # a fold turns u into 1 - u
    other = torch.minimum(y, 1 - y)
    after = torch.searchsorted(known, other).clamp(1, len(x) - 1)
    gap = torch.minimum((known[after] - other).abs(), (known[after - 1] - other).abs())
    if (gap < 1e-6).double().mean() > 0.5:
        return True
    bins = 2**19
    place = (bins * x).long().clamp(0, bins - 1)
    for turns in (0, 1):
        wave = torch.polar(torch.ones_like(y), -2 * math.pi * turns * y)  # (n,)
        table = torch.zeros(bins, dtype=wave.dtype).index_add_(0, place, wave)
        means = torch.fft.fft(table).abs() / len(x)  # (bins,) by k
        if means[8:-7].max() > 0.2:  # smaller k: the density itself
            return True
    return False
