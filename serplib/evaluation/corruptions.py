"""The fifteen corruptions of ModelNet40-C, from their description (Sun et al., 2022, section 3).

Each maps clouds ``(B, N, 3)`` on the unit sphere to clouds ``(B, N', 3)``, at a severity from 1 to
5. The paper applies occlusion and lidar to meshes and density_inc to 2,048 points; here all three
are approximated from the cloud. `evaluation.robustness` prefers the published files if present.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from serplib.data.common import normalize
from serplib.geometry import gather, knn
from serplib.validation import expect

PATCH = 100  # points of a patch whose density changes
PIXELS = 32  # width and height of the depth image that decides visibility


def _uniform(generator: torch.Generator, *shape: int, low: float, high: float) -> Tensor:
    return torch.rand(*shape, generator=generator) * (high - low) + low


def _subset(points: Tensor, keep: int, generator: torch.Generator) -> Tensor:
    """Draw ``keep`` points of each cloud without replacement: ``(B, keep, 3)``."""
    order = torch.rand(points.shape[:2], generator=generator).argsort(1)  # (B, N)
    return gather(points, order[:, :keep])


# ---- noise ----


def uniform(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Add uniform noise of at most 0.01 to 0.05 to each coordinate."""
    c = (0.01, 0.02, 0.03, 0.04, 0.05)[severity - 1]
    return normalize(points + _uniform(generator, *points.shape, low=-c, high=c))


def gaussian(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of standard deviation 0.01 to 0.03 and clip to the cube [-1, 1]^3."""
    c = (0.01, 0.015, 0.02, 0.025, 0.03)[severity - 1]
    return (points + c * torch.randn(points.shape, generator=generator)).clamp(-1, 1)


def background(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Add N/45 to N/20 points, uniform in the cube [-1, 1]^3."""
    batch, size, _ = points.shape
    count = size // (45, 40, 35, 30, 20)[severity - 1]
    return normalize(torch.cat([points, _uniform(generator, batch, count, 3, low=-1, high=1)], 1))


def impulse(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Move N/30 to N/10 points by +0.1 or -0.1 along each axis."""
    batch, size, _ = points.shape
    count = size // (30, 25, 20, 15, 10)[severity - 1]
    rank = torch.rand(batch, size, generator=generator).argsort(1).argsort(1)  # (B, N)
    sign = torch.randint(0, 2, points.shape, generator=generator) * 2.0 - 1  # (B, N, 3)
    return normalize(points + 0.1 * sign * (rank < count)[..., None])


def upsampling(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Add copies of N/5 to N points, each coordinate moved by at most 0.05."""
    count = points.shape[1] // (5, 4, 3, 2, 1)[severity - 1]
    copies = _subset(points, count, generator)  # (B, count, 3)
    copies = copies + _uniform(generator, *copies.shape, low=-0.05, high=0.05)
    return normalize(torch.cat([points, copies], 1))


# ---- transformations ----


def rotation_matrix(angles: Tensor) -> Tensor:
    """Build rotations about x, then y, then z from angles ``(B, 3)`` in radians: ``(B, 3, 3)``."""
    (sx, sy, sz), (cx, cy, cz) = angles.sin().unbind(1), angles.cos().unbind(1)  # each (B,)
    zero, one = torch.zeros_like(sx), torch.ones_like(sx)
    x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], 1).view(-1, 3, 3)
    y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], 1).view(-1, 3, 3)
    z = torch.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one], 1).view(-1, 3, 3)
    return z @ y @ x


def rotation(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Rotate about each axis, by at most 5 to 17.5 degrees."""
    c = (2.5, 5, 7.5, 10, 15)[severity - 1]
    angle = _uniform(generator, len(points), 3, low=c - 2.5, high=c + 2.5) * math.pi / 180
    sign = torch.randint(0, 2, angle.shape, generator=generator) * 2 - 1
    return normalize(points @ rotation_matrix(angle * sign).mT)


def shear(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Shear x and z by coefficients of at most 0.1 to 0.3."""
    c = (0.05, 0.1, 0.15, 0.2, 0.25)[severity - 1]
    b, d, e, f = _uniform(generator, 4, len(points), low=c - 0.05, high=c + 0.05) * (
        torch.randint(0, 2, (4, len(points)), generator=generator) * 2 - 1
    )
    one, zero = torch.ones_like(b), torch.zeros_like(b)
    matrix = torch.stack([one, zero, b, d, one, e, f, zero, one], 1).view(-1, 3, 3)  # (B, 3, 3)
    return normalize(points @ matrix)


def distortion(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Deform a Bezier volume: 5 x 5 x 5 control points move by at most 0.2 to 1 on each axis."""
    c = 0.1 * severity
    moved = 2 * _uniform(generator, len(points), 5, 5, 5, 3, low=-c, high=c)  # box of side 2
    t = ((points + 1) / 2).clamp(0, 1)[..., None]  # (B, N, 3, 1) coordinates within the box
    k = torch.arange(5)
    binomial = torch.tensor([math.comb(4, i) for i in range(5)])
    x, y, z = (binomial * t**k * (1 - t) ** (4 - k)).unbind(2)  # each (B, N, 5), Bernstein
    return normalize(points + torch.einsum("bni,bnj,bnk,bijkd->bnd", x, y, z, moved))


def _splines(points: Tensor, severity: int, generator: torch.Generator, power: float) -> Tensor:
    """Move 5 x 5 x 5 control points by 0.025 to 0.125 and interpolate with radial splines."""
    axis = torch.linspace(-1, 1, 5, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis, axis)  # (125, 3)
    alpha, gamma = _uniform(generator, 2, len(points), 125, low=-math.pi, high=math.pi).double()
    step = torch.stack([alpha.cos() * gamma.sin(), alpha.sin() * gamma.sin(), gamma.cos()], -1)
    step = 0.025 * severity * step  # (B, 125, 3)

    def basis(x: Tensor) -> Tensor:  # (..., 3) -> (..., 129): splines and an affine part
        radial = (torch.cdist(x, grid).square() + 0.5**2) ** power
        return torch.cat([radial, torch.ones_like(x[..., :1]), x], -1)

    at_grid = basis(grid)  # (125, 129)
    system = torch.zeros(129, 129, dtype=torch.float64)
    system[:125], system[125:, :125] = at_grid, at_grid[:, 125:].T
    right = torch.cat([step, torch.zeros(len(points), 4, 3, dtype=torch.float64)], 1)
    weights = torch.linalg.solve(system, right)  # (B, 129, 3)
    return normalize((points + basis(points.double()) @ weights).to(points.dtype))


def distortion_rbf(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Move control points and interpolate with multiquadric splines."""
    return _splines(points, severity, generator, 0.5)


def distortion_rbf_inv(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Move control points and interpolate with inverse multiquadric splines."""
    return _splines(points, severity, generator, -0.5)


# ---- density ----


def _in_patches(points: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:
    """Mark the points in ``count`` patches around random points: ``(B, N)``, 0 or 1."""
    centers = _subset(points, count, generator)  # (B, count, 3)
    index = knn(centers, points, size).flatten(1)  # (B, count * size)
    return torch.zeros(points.shape[:2]).scatter_(1, index, 1.0)


def _keep_lowest(points: Tensor, order: Tensor, keep: int) -> Tensor:
    """Keep the points of lowest ``order``, in the order of the cloud: ``(B, keep, 3)``."""
    return gather(points, order.argsort(dim=1, stable=True)[:, :keep].sort(1).values)


def cutout(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Remove 2 to 10 patches of 30 points; where they overlap, remove others at random."""
    count = (2, 3, 5, 7, 10)[severity - 1]
    inside = _in_patches(points, count, 30, generator)  # (B, N)
    return _keep_lowest(points, torch.rand(inside.shape, generator=generator) + inside * 2,
                  points.shape[1] - 30 * count)  # fmt: skip


def density(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Remove three quarters of the points of 1 to 5 patches of 100."""
    inside = _in_patches(points, severity, PATCH, generator)  # (B, N)
    return _keep_lowest(points, torch.rand(inside.shape, generator=generator) + inside * 2,
                  points.shape[1] - severity * PATCH * 3 // 4)  # fmt: skip


def density_inc(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Keep 1 to 5 patches of 100 points and thin the rest, to half of the points in all."""
    inside = _in_patches(points, severity, PATCH, generator)  # (B, N)
    return _keep_lowest(points, torch.rand(inside.shape, generator=generator) - inside * 2,
                  max(points.shape[1] // 2, severity * PATCH))  # fmt: skip


def _visible(points: Tensor, severity: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Look from above at one of five sides: camera coordinates and ``(B, N)`` bool visibility."""
    fifth = 2 * math.pi / 5
    azimuth = _uniform(generator, len(points), 1, low=-fifth / 2, high=fifth / 2) + fifth * severity
    tilt = _uniform(generator, len(points), 1, low=math.pi / 6, high=math.pi / 3)
    rotated = points @ rotation_matrix(torch.cat([torch.zeros_like(azimuth)] * 2 + [azimuth], 1)).mT
    camera = rotated @ rotation_matrix(torch.cat([tilt] + [torch.zeros_like(tilt)] * 2, 1)).mT
    pixel = ((camera[..., [0, 2]] + 1) / 2 * PIXELS).long().clamp(0, PIXELS - 1)  # (B, N, 2)
    index = pixel[..., 0] * PIXELS + pixel[..., 1]  # (B, N)
    nearest = torch.full((len(points), PIXELS**2), math.inf)
    nearest = nearest.scatter_reduce(1, index, camera[..., 1], "amin").view(-1, PIXELS, PIXELS)
    nearest = -torch.nn.functional.max_pool2d(-nearest[:, None], 3, 1, 1).flatten(1)  # 3 x 3 pixels
    return camera, camera[..., 1] <= nearest.gather(1, index) + 0.2


def _draw(points: Tensor, allowed: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw ``size`` of the allowed points, with replacement: ``(B, size, 3)``."""
    return gather(points, torch.multinomial(allowed.float(), size, True, generator=generator))


def occlusion(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Keep the points that a camera sees. ``severity`` selects its side, not a strength."""
    _, visible = _visible(points, severity, generator)
    return normalize(_draw(points, visible, points.shape[1], generator))


def lidar(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Keep what a lidar at a distance of 5 sees: rings one degree apart, 3/4 N points."""
    camera, visible = _visible(points, severity, generator)
    angle = torch.atan2(camera[..., 2], camera[..., 1] + 5) * 180 / math.pi  # (B, N) degrees
    on_ring = (angle - angle.floor() - 0.5).abs() < 0.25
    enough = (visible & on_ring).any(1, keepdim=True)
    return _draw(points, torch.where(enough, visible & on_ring, visible),
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
        name: one of `CORRUPTIONS`.
        severity: 1 to 5.
        generator: source of all randomness.

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
