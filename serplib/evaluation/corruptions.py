"""The fifteen corruptions of ModelNet40-C (Sun et al., arXiv 2201.12296, section 3).

Written from the paper and from the behaviour of its public code (jiachens/ModelNet40-C,
data/generate_c.py); strengths, counts and frames are the same. Each function maps clouds
``(B, N, 3)`` on the unit sphere, with y up, to clouds ``(B, N', 3)``, at a severity from 1 to 5;
`corrupt` accepts z up. Numbers of points below are for N = 1,024 and scale with N.

The frame of the result is the original's: noise, transformations and occlusion move the bounding
box to the centre and scale its longest side to 2; gaussian, cutout, density and density_inc stay on
the unit sphere; lidar keeps the box of the whole object. A classifier that was trained on the unit
sphere loses accuracy by this frame alone (``clean_in_box`` in `evaluation.robustness`).

Three corruptions are approximations, because the original starts from the mesh (occlusion, lidar)
or from 2,048 points (density_inc). Missing points of the surface are interpolated between
neighbours, and hidden points are removed by the method of Katz, Tal and Basri (2007).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from serplib.geometry import gather, knn
from serplib.validation import expect

FLIP_RADIUS = 60  # of the reflecting sphere, in largest distances from the camera
NEAREST = 4  # the point itself and three neighbours


def fit_box(points: Tensor) -> Tensor:
    """Centre the bounding box of each cloud ``(..., N, 3)`` and scale its longest side to 2."""
    low, high = points.amin(-2, keepdim=True), points.amax(-2, keepdim=True)
    side = (high - low).amax(-1, keepdim=True)  # (..., 1, 1)
    return (points - (low + high) / 2) * (2 / side.clamp_min(torch.finfo(points.dtype).tiny))


def subset(points: Tensor, keep: int, generator: torch.Generator) -> Tensor:
    """Draw ``keep`` points of each cloud without replacement: ``(B, keep, 3)``."""
    order = torch.rand(points.shape[:2], generator=generator).argsort(1)  # (B, N)
    return gather(points, order[:, :keep])


def _uniform(generator: torch.Generator, *shape: int, low: float, high: float) -> Tensor:
    return torch.rand(*shape, generator=generator) * (high - low) + low


def _share(points: Tensor, count: int) -> int:
    """Scale a number of points that is stated for clouds of 1,024."""
    return count * points.shape[1] // 1024


# ---- noise ----


def uniform(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Add uniform noise of at most 0.01 to 0.05 to each coordinate."""
    c = (0.01, 0.02, 0.03, 0.04, 0.05)[severity - 1]
    return fit_box(points + _uniform(generator, *points.shape, low=-c, high=c))


def gaussian(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of standard deviation 0.01 to 0.03 and clip to the cube [-1, 1]^3."""
    c = (0.01, 0.015, 0.02, 0.025, 0.03)[severity - 1]
    return (points + c * torch.randn(points.shape, generator=generator)).clamp(-1, 1)


def background(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Add N/45 to N/20 points, uniform in the cube [-1, 1]^3."""
    batch, size, _ = points.shape
    count = size // (45, 40, 35, 30, 20)[severity - 1]
    return fit_box(torch.cat([points, _uniform(generator, batch, count, 3, low=-1, high=1)], 1))


def impulse(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Move N/30 to N/10 points by +0.1 or -0.1 along each axis."""
    batch, size, _ = points.shape
    count = size // (30, 25, 20, 15, 10)[severity - 1]
    rank = torch.rand(batch, size, generator=generator).argsort(1).argsort(1)  # (B, N)
    sign = torch.randint(0, 2, points.shape, generator=generator) * 2.0 - 1  # (B, N, 3)
    return fit_box(points + 0.1 * sign * (rank < count)[..., None])


def upsampling(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Add copies of N/5 to N points, each coordinate moved by at most 0.05."""
    count = points.shape[1] // (5, 4, 3, 2, 1)[severity - 1]
    copies = subset(points, count, generator)  # (B, count, 3)
    copies = copies + _uniform(generator, *copies.shape, low=-0.05, high=0.05)
    return fit_box(torch.cat([points, copies], 1))


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
    return fit_box(points @ rotation_matrix(angle * sign).mT)


def shear(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Shear x and z by coefficients of at most 0.1 to 0.3."""
    c = (0.05, 0.1, 0.15, 0.2, 0.25)[severity - 1]
    b, d, e, f = _uniform(generator, 4, len(points), low=c - 0.05, high=c + 0.05) * (
        torch.randint(0, 2, (4, len(points)), generator=generator) * 2 - 1
    )
    one, zero = torch.ones_like(b), torch.zeros_like(b)
    matrix = torch.stack([one, zero, b, d, one, e, f, zero, one], 1).view(-1, 3, 3)  # (B, 3, 3)
    return fit_box(points @ matrix)


def distortion(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Deform a Bezier volume: 5 x 5 x 5 control points move by at most 0.2 to 1 on each axis."""
    c = 0.1 * severity
    moved = 2 * _uniform(generator, len(points), 5, 5, 5, 3, low=-c, high=c)  # box of side 2
    t = ((points + 1) / 2).clamp(0, 1)[..., None]  # (B, N, 3, 1) coordinates within the box
    k = torch.arange(5)
    binomial = torch.tensor([math.comb(4, i) for i in range(5)])
    x, y, z = (binomial * t**k * (1 - t) ** (4 - k)).unbind(2)  # each (B, N, 5), Bernstein
    return fit_box(points + torch.einsum("bni,bnj,bnk,bijkd->bnd", x, y, z, moved))


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
    return fit_box((points + basis(points.double()) @ weights).to(points.dtype))


def distortion_rbf(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Move control points and interpolate with multiquadric splines."""
    return _splines(points, severity, generator, 0.5)


def distortion_rbf_inv(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Move control points and interpolate with inverse multiquadric splines."""
    return _splines(points, severity, generator, -0.5)


# ---- density ----


def _draw_patch(points: Tensor, alive: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw a remaining point of each cloud and find the remaining points nearest to it.

    Args:
        points: ``(B, N, 3)``.
        alive: ``(B, N)`` bool, the remaining points.
        size: of the patch.

    Returns:
        ``(B, size)`` int64 indices of the patch, in random order.
    """
    center = gather(points, torch.multinomial(alive.float(), 1, generator=generator))  # (B, 1, 3)
    distance = (points - center).square().sum(-1).masked_fill(~alive, math.inf)  # (B, N)
    patch = distance.topk(size, largest=False).indices  # (B, size)
    return patch.gather(1, torch.rand(patch.shape, generator=generator).argsort(1))


def _remove(
    points: Tensor, patches: int, size: int, removed: int, generator: torch.Generator
) -> Tensor:
    """Remove ``removed`` points of one patch after another, each cut from what is left."""
    alive = torch.ones(points.shape[:2], dtype=torch.bool)  # (B, N)
    for _ in range(patches):
        patch = _draw_patch(points, alive, size, generator)  # (B, size)
        alive.scatter_(1, patch[:, :removed], False)
    return points[alive].view(len(points), -1, 3)


def cutout(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Remove 2 to 10 patches of 30 points."""
    size = _share(points, 30)
    return _remove(points, (2, 3, 5, 7, 10)[severity - 1], size, size, generator)


def density(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Remove 75 of the 100 points of 1 to 5 patches."""
    return _remove(points, severity, _share(points, 100), _share(points, 75), generator)


def density_inc(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Keep 1 to 5 patches of 100 out of 2,048 points, and thin the rest to 1,024 in all.

    The 2,048 points are the cloud and as many points interpolated between neighbours.
    """
    batch, size, _ = points.shape
    everyone = torch.ones(batch, size, dtype=torch.bool)
    index = torch.arange(size).expand(batch, -1)
    dense = torch.cat([points, _interpolate(points, everyone, index, generator)], 1)  # (B, 2N, 3)
    alive = torch.ones(batch, 2 * size, dtype=torch.bool)
    patches = []
    for _ in range(severity):
        patches.append(_draw_patch(dense, alive, _share(points, 100), generator))
        alive.scatter_(1, patches[-1], False)
    count = size - sum(patch.shape[1] for patch in patches)
    rest = torch.multinomial(alive.float(), count, True, generator=generator)  # (B, count)
    return gather(dense, torch.cat([*patches, rest], 1))


# ---- views ----


def _neighbors(points: Tensor, allowed: Tensor) -> Tensor:
    """Find the nearest allowed points of each allowed point, itself first: ``(B, N, 4)``."""
    far = 1e3 + torch.arange(points.shape[1])[:, None]  # (N, 1) far away, and far apart
    points = torch.where(allowed[..., None], points, far.to(points.dtype))
    return knn(points, points, NEAREST)


def _interpolate(
    points: Tensor, allowed: Tensor, index: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw points between points of the cloud and one of their three nearest neighbours.

    Args:
        points: ``(B, N, 3)``.
        allowed: ``(B, N)`` bool, the points that may be a neighbour.
        index: ``(B, M)`` int64, the points to start from; allowed ones.

    Returns:
        ``(B, M, 3)``, each up to half-way to a neighbour.
    """
    rank = torch.randint(1, NEAREST, index.shape, generator=generator)  # (B, M)
    near = _neighbors(points, allowed).gather(1, index[..., None].expand(-1, -1, NEAREST))
    near = near.gather(2, rank[..., None])[..., 0]  # (B, M)
    near = torch.where(allowed.gather(1, near), near, index)  # fewer than four are allowed
    start = gather(points, index)  # (B, M, 3)
    step = torch.rand(index.shape, generator=generator)[..., None] / 2
    return start + step * (gather(points, near) - start)


def place_camera(
    count: int, severity: int, low: float, high: float, distance: float, generator: torch.Generator
) -> Tensor:
    """Draw camera positions ``(count, 3)``, y up: severity selects one of five sectors.

    Args:
        low: least elevation above the horizon, in radians.
        high: greatest elevation.
        distance: from the origin.
    """
    sector = 2 * math.pi / 5
    azimuth = _uniform(generator, count, low=-sector / 2, high=sector / 2) + sector * severity
    elevation = _uniform(generator, count, low=low, high=high)
    across = elevation.cos()
    direction = torch.stack([azimuth.sin() * across, elevation.sin(), azimuth.cos() * across], 1)
    return distance * direction


def visible(points: Tensor, camera: Tensor) -> Tensor:
    """Find the points that a camera sees by hidden point removal (Katz, Tal and Basri, 2007).

    Every point is reflected at a large sphere around the camera. The visible points are those whose
    reflections lie on the convex hull of all reflections and the camera.

    Args:
        points: ``(B, N, 3)``.
        camera: ``(B, 3)``, outside of the cloud.

    Returns:
        ``(B, N)`` bool.
    """
    from scipy.spatial import ConvexHull, QhullError  # slow to import, not needed elsewhere

    ray = (points - camera[:, None]).double()  # (B, N, 3)
    length = ray.norm(dim=-1, keepdim=True)  # (B, N, 1)
    radius = FLIP_RADIUS * length.amax(1, keepdim=True)  # (B, 1, 1)
    reflected = ray * (2 * radius / length - 1)  # (B, N, 3)
    seen = torch.zeros(points.shape[:2], dtype=torch.bool)
    for cloud, mask in zip(torch.nn.functional.pad(reflected, (0, 0, 0, 1)), seen):  # camera last
        try:
            vertices = torch.from_numpy(ConvexHull(cloud.numpy()).vertices).long()
        except QhullError:  # no volume: fewer than four distinct points hide nothing
            vertices = torch.arange(len(mask))
        mask[vertices[vertices < len(mask)]] = True
    return seen


def _scan(points: Tensor, camera: Tensor, generator: torch.Generator) -> Tensor:
    """Draw N points of the visible surface, evenly over the camera's image, as a depth camera does.

    A visible point stands for the part of the image around it, whose area is estimated by the
    squared distance to its third neighbour there.
    """
    seen = visible(points, camera)  # (B, N)
    forward = -torch.nn.functional.normalize(camera, dim=-1)[:, None]  # (B, 1, 3)
    ray = points - camera[:, None]  # (B, N, 3)
    image = ray / (ray * forward).sum(-1, keepdim=True) - forward  # (B, N, 3) in the image plane
    third = gather(image, _neighbors(image, seen)[..., -1])  # (B, N, 3)
    area = (third - image).square().sum(-1).clamp_min(1e-12) * seen  # (B, N)
    index = torch.multinomial(area, points.shape[1], True, generator=generator)  # (B, N)
    return _interpolate(points, seen, index, generator)


def occlusion(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Keep what a camera sees from 30 to 60 degrees above; severity selects its side."""
    points = fit_box(points)
    camera = place_camera(len(points), severity, math.pi / 6, math.pi / 3, 3, generator)
    return fit_box(_scan(points, camera, generator))


def lidar(points: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Keep what a lidar sees from 22.5 degrees above: rings about its vertical, 768 points.

    Rings are one degree of the polar angle apart. Points in the middle half of a degree move to
    the ring in its centre; the others are lost. Severity selects the side.
    """
    points = fit_box(points)
    camera = place_camera(len(points), severity, math.pi / 8, math.pi / 8, 5, generator)[:, None]
    ray = _scan(points, camera[:, 0], generator) - camera  # (B, N, 3)
    radius = ray.norm(dim=-1)  # (B, N)
    polar = torch.rad2deg((ray[..., 1] / radius).acos())  # (B, N)
    first = polar.amin(1, keepdim=True)
    ring = (polar - first).floor()
    on_ring = (polar - first - ring - 0.5).abs() <= 0.25  # (B, N)
    polar = torch.deg2rad(first + ring + 0.5)
    scale = radius * polar.sin() / ray[..., [0, 2]].norm(dim=-1)  # (B, N)
    height = radius * polar.cos()
    points = torch.stack([ray[..., 0] * scale, height, ray[..., 2] * scale], -1) + camera
    on_ring |= ~on_ring.any(1, keepdim=True)  # a cloud between two rings keeps its points
    count = points.shape[1] * 3 // 4
    return gather(points, torch.multinomial(on_ring.float(), count, True, generator=generator))


CORRUPTIONS = {
    **{f.__name__: f for f in (occlusion, lidar, density_inc, density, cutout)},
    **{f.__name__: f for f in (uniform, gaussian, impulse, upsampling, background)},
    **{f.__name__: f for f in (rotation, shear, distortion, distortion_rbf, distortion_rbf_inv)},
}


def corrupt(
    points: Tensor, name: str, severity: int, generator: torch.Generator, up: str = "z"
) -> Tensor:
    """Corrupt clouds.

    Args:
        points: ``(B, N, 3)`` float32 on the unit sphere, on the CPU, N >= 64.
        name: one of `CORRUPTIONS`.
        severity: 1 to 5.
        generator: source of all randomness.
        up: the axis of ``points`` that points up, ``"y"`` or ``"z"``. Shear, occlusion and lidar
            depend on it.

    Returns:
        ``(B, N', 3)`` float32 with the same axis up.

    Raises:
        ValueError: an unknown name, another severity or axis, or clouds that are too small.
    """
    expect(points, "B N 3")
    if name not in CORRUPTIONS:
        raise ValueError(f"corruption is {name!r}, wanted one of {', '.join(CORRUPTIONS)}")
    if severity not in (1, 2, 3, 4, 5):
        raise ValueError(f"severity is {severity!r}, wanted 1 to 5")
    if up not in ("y", "z"):
        raise ValueError(f"up is {up!r}, wanted 'y' or 'z'")
    if points.shape[1] < 64:
        raise ValueError(f"clouds of {points.shape[1]} points, wanted 64 or more to cut from")
    if up == "y":
        return CORRUPTIONS[name](points, severity, generator)
    return swap_up(CORRUPTIONS[name](swap_up(points), severity, generator))


def swap_up(points: Tensor) -> Tensor:
    """Rotate clouds from z up to y up, as ModelNet40-C rotates its meshes, or back."""
    x, y, z = points.unbind(-1)
    return torch.stack([-x, z, y], -1)
