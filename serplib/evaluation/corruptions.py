"""The fifteen corruptions of ModelNet40-C, from their description (Sun et al., 2022, section 3).

Each takes clouds ``(B, N, 3)`` on the unit sphere and gives clouds ``(B, N', 3)``, all of one size.
Severity runs from 1 to 5. Where the paper works on meshes (occlusion, lidar) or on 2,048 points
(density_inc), the functions here make do with the cloud, and say how; where the files of
ModelNet40-C are present, they are read instead (see `evaluation.robustness`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from serplib.data.common import normalize
from serplib.geometry import gather, knn
from serplib.validation import expect

PATCH = 100  # points of a patch whose density changes
PIXELS = 32  # of the image, each way, in which nearer points hide farther ones


def _uniform(generator: torch.Generator, *shape: int, low: float, high: float) -> Tensor:
    return torch.rand(*shape, generator=generator) * (high - low) + low


def _subset(points: Tensor, keep: int, generator: torch.Generator) -> Tensor:
    """``keep`` of the points of each cloud, at random, without repetition: ``(B, keep, 3)``."""
    order = torch.rand(points.shape[:2], generator=generator).argsort(1)  # (B, N)
    return gather(points, order[:, :keep])


# ---- noise ----


def uniform(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Each coordinate moved evenly within 0.01 to 0.05."""
    c = (0.01, 0.02, 0.03, 0.04, 0.05)[severity - 1]
    return normalize(points + _uniform(generator, *points.shape, low=-c, high=c))


def gaussian(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Gaussian noise of deviation 0.01 to 0.03, clipped to the cube: SeRP's own kind."""
    c = (0.01, 0.015, 0.02, 0.025, 0.03)[severity - 1]
    return (points + c * torch.randn(points.shape, generator=generator)).clamp(-1, 1)


def background(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """N/45 to N/20 points anywhere in the cube are added."""
    batch, size, _ = points.shape
    more = size // (45, 40, 35, 30, 20)[severity - 1]
    return normalize(torch.cat([points, _uniform(generator, batch, more, 3, low=-1, high=1)], 1))


def impulse(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """N/30 to N/10 points jump by 0.1 along each axis, up or down."""
    batch, size, _ = points.shape
    hit = size // (30, 25, 20, 15, 10)[severity - 1]
    order = torch.rand(batch, size, generator=generator).argsort(1).argsort(1)  # (B, N) ranks
    sign = torch.randint(0, 2, points.shape, generator=generator) * 2.0 - 1  # (B, N, 3)
    return normalize(points + 0.1 * sign * (order < hit)[..., None])


def upsampling(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """N/5 to N points are doubled, the copies moved by up to 0.05."""
    more = points.shape[1] // (5, 4, 3, 2, 1)[severity - 1]
    copies = _subset(points, more, generator)  # (B, more, 3)
    copies = copies + _uniform(generator, *copies.shape, low=-0.05, high=0.05)
    return normalize(torch.cat([points, copies], 1))


# ---- transformations ----


def rotation_matrix(angles: Tensor) -> Tensor:
    """Rotations about x, then y, then z by angles ``(B, 3)`` in radians: ``(B, 3, 3)``."""
    (sx, sy, sz), (cx, cy, cz) = angles.sin().unbind(1), angles.cos().unbind(1)  # each (B,)
    zero, one = torch.zeros_like(sx), torch.ones_like(sx)
    x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], 1).view(-1, 3, 3)
    y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], 1).view(-1, 3, 3)
    z = torch.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one], 1).view(-1, 3, 3)
    return z @ y @ x


def rotation(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A turn about each axis, by up to 5 to 17.5 degrees."""
    c = (2.5, 5, 7.5, 10, 15)[severity - 1]
    angle = _uniform(generator, len(points), 3, low=c - 2.5, high=c + 2.5) * math.pi / 180
    sign = torch.randint(0, 2, angle.shape, generator=generator) * 2 - 1
    return normalize(points @ rotation_matrix(angle * sign).mT)


def shear(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """The axes lean towards one another by up to 0.1 to 0.3."""
    c = (0.05, 0.1, 0.15, 0.2, 0.25)[severity - 1]
    b, d, e, f = _uniform(generator, 4, len(points), low=c - 0.05, high=c + 0.05) * (
        torch.randint(0, 2, (4, len(points)), generator=generator) * 2 - 1
    )
    one, zero = torch.ones_like(b), torch.zeros_like(b)
    matrix = torch.stack([one, zero, b, d, one, e, f, zero, one], 1).view(-1, 3, 3)  # (B, 3, 3)
    return normalize(points @ matrix)


def distortion(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Free-form deformation: 5 x 5 x 5 control points move by up to 0.2 to 1, a Bezier volume."""
    c = 0.1 * severity
    moved = 2 * _uniform(generator, len(points), 5, 5, 5, 3, low=-c, high=c)  # box of side 2
    t = ((points + 1) / 2).clamp(0, 1)[..., None]  # (B, N, 3, 1) place in the box
    k = torch.arange(5)
    ways = torch.tensor([math.comb(4, i) for i in range(5)])
    x, y, z = (ways * t**k * (1 - t) ** (4 - k)).unbind(2)  # each (B, N, 5), Bernstein
    return normalize(points + torch.einsum("bni,bnj,bnk,bijkd->bnd", x, y, z, moved))


def _splines(points: Tensor, severity: int, generator: torch.Generator, power: float) -> Tensor:
    """5 x 5 x 5 control points move by 0.025 to 0.125; radial splines carry the rest along."""
    axis = torch.linspace(-1, 1, 5, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis, axis)  # (125, 3)
    alpha, gamma = _uniform(generator, 2, len(points), 125, low=-math.pi, high=math.pi).double()
    step = torch.stack([alpha.cos() * gamma.sin(), alpha.sin() * gamma.sin(), gamma.cos()], -1)
    step = 0.025 * severity * step  # (B, 125, 3)

    def basis(at: Tensor) -> Tensor:  # (..., 3) -> (..., 129): splines and an affine part
        radial = (torch.cdist(at, grid).square() + 0.5**2) ** power
        return torch.cat([radial, torch.ones_like(at[..., :1]), at], -1)

    known = basis(grid)  # (125, 129)
    system = torch.zeros(129, 129, dtype=torch.float64)
    system[:125], system[125:, :125] = known, known[:, 125:].T
    right = torch.cat([step, torch.zeros(len(points), 4, 3, dtype=torch.float64)], 1)
    weights = torch.linalg.solve(system, right)  # (B, 129, 3)
    return normalize((points + basis(points.double()) @ weights).to(points.dtype))


def distortion_rbf(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Control points moved, with multiquadric splines between them."""
    return _splines(points, severity, generator, 0.5)


def distortion_rbf_inv(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """The same with inverse multiquadric splines."""
    return _splines(points, severity, generator, -0.5)


# ---- density ----


def _in_patches(points: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:
    """How often each point lies in one of ``count`` patches around random points: ``(B, N)``."""
    centers = _subset(points, count, generator)  # (B, count, 3)
    index = knn(centers, points, size).flatten(1)  # (B, count * size)
    return torch.zeros(points.shape[:2]).scatter_(1, index, 1.0)


def _first(points: Tensor, order: Tensor, keep: int) -> Tensor:
    """The ``keep`` points of lowest ``order``, in the order of the cloud: ``(B, keep, 3)``."""
    return gather(points, order.argsort(dim=1, stable=True)[:, :keep].sort(1).values)


def cutout(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """2 to 10 patches of 30 points are cut out; where they overlap, others go at random."""
    count = (2, 3, 5, 7, 10)[severity - 1]
    inside = _in_patches(points, count, 30, generator)  # (B, N)
    return _first(points, torch.rand(inside.shape, generator=generator) + inside * 2,
                  points.shape[1] - 30 * count)  # fmt: skip


def density(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """1 to 5 patches of 100 points lose three quarters of them."""
    inside = _in_patches(points, severity, PATCH, generator)  # (B, N)
    return _first(points, torch.rand(inside.shape, generator=generator) + inside * 2,
                  points.shape[1] - severity * PATCH * 3 // 4)  # fmt: skip


def density_inc(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """1 to 5 patches of 100 points stay whole, half of all the points stay: the rest is thinned."""
    inside = _in_patches(points, severity, PATCH, generator)  # (B, N)
    return _first(points, torch.rand(inside.shape, generator=generator) - inside * 2,
                  max(points.shape[1] // 2, severity * PATCH))  # fmt: skip


def _seen(points: Tensor, severity: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """From one of five sides, above: depth-sorted image; who is not hidden, ``(B, N)`` bool."""
    fifth = 2 * math.pi / 5
    turn = _uniform(generator, len(points), 1, low=-fifth / 2, high=fifth / 2) + fifth * severity
    tilt = _uniform(generator, len(points), 1, low=math.pi / 6, high=math.pi / 3)
    turned = points @ rotation_matrix(torch.cat([torch.zeros_like(turn)] * 2 + [turn], 1)).mT
    camera = turned @ rotation_matrix(torch.cat([tilt] + [torch.zeros_like(tilt)] * 2, 1)).mT
    pixel = ((camera[..., [0, 2]] + 1) / 2 * PIXELS).long().clamp(0, PIXELS - 1)  # (B, N, 2)
    place = pixel[..., 0] * PIXELS + pixel[..., 1]  # (B, N)
    nearest = torch.full((len(points), PIXELS**2), math.inf)
    nearest = nearest.scatter_reduce(1, place, camera[..., 1], "amin").view(-1, PIXELS, PIXELS)
    nearest = -torch.nn.functional.max_pool2d(-nearest[:, None], 3, 1, 1).flatten(1)  # neighbours
    return camera, camera[..., 1] <= nearest.gather(1, place) + 0.2


def _repeat(points: Tensor, allowed: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """``size`` of the points allowed, again and again where they are too few."""
    return gather(points, torch.multinomial(allowed.float(), size, True, generator=generator))


def occlusion(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """What one camera sees: points behind nearer ones are gone. ``severity`` picks the side."""
    _, visible = _seen(points, severity, generator)
    return normalize(_repeat(points, visible, points.shape[1], generator))


def lidar(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """What a lidar sees from five radii away: rings one degree apart, 3/4 N points."""
    camera, visible = _seen(points, severity, generator)
    angle = torch.atan2(camera[..., 2], camera[..., 1] + 5) * 180 / math.pi  # (B, N) degrees
    on_ring = (angle - angle.floor() - 0.5).abs() < 0.25
    enough = (visible & on_ring).any(1, keepdim=True)
    return _repeat(points, torch.where(enough, visible & on_ring, visible),
                   points.shape[1] * 3 // 4, generator)  # fmt: skip


CORRUPTIONS = {
    **{f.__name__: f for f in (occlusion, lidar, density_inc, density, cutout)},
    **{f.__name__: f for f in (uniform, gaussian, impulse, upsampling, background)},
    **{f.__name__: f for f in (rotation, shear, distortion, distortion_rbf, distortion_rbf_inv)},
}


def corrupt(points: Tensor, name: str, severity: int, generator: torch.Generator) -> Tensor:
    """Corrupt clouds.

    Args:
        points: ``(B, N, 3)`` float32 on the unit sphere, on the CPU, N >= 520.
        name: of `CORRUPTIONS`. severity: 1 to 5. generator: source of all randomness.

    Returns:
        ``(B, N', 3)`` float32.

    Raises:
        ValueError: an unknown name, another severity, or clouds that are too small.
    """
    expect(points, "B N 3")
    if name not in CORRUPTIONS:
        raise ValueError(f"corruption is {name!r}, wanted one of {', '.join(CORRUPTIONS)}")
    if severity not in (1, 2, 3, 4, 5):
        raise ValueError(f"severity is {severity!r}, wanted 1 to 5")
    if points.shape[1] < 520:
        raise ValueError(f"clouds of {points.shape[1]} points, wanted 520 or more to cut from")
    return CORRUPTIONS[name](points, severity, generator)
