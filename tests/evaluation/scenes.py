"""Solids whose visibility is known exactly."""

import torch

from serplib.seeding import named_generator


def ball(batch, size):
    """Points on the unit sphere: ``(B, N, 3)``."""
    points = torch.randn(batch, size, 3, generator=named_generator("ball"))
    return points / points.norm(dim=-1, keepdim=True)


def box_scenes(count):
    """Tables, chairs, shelves and blocks of axis-aligned boxes, y up, in the cube [-1, 1]^3.

    Yields:
        ``(K, 2, 3)``: centre and half sides of each box.
    """
    draw = torch.rand(count, 3, generator=named_generator("scenes")).tolist()
    for number, (a, b, c) in enumerate(draw):
        wide, deep, thick = 0.4 + 0.4 * a, 0.4 + 0.3 * b, 0.03 + 0.04 * c
        corners = [(i, j) for i in (-1, 1) for j in (-1, 1)]
        legs = [(i * (wide - thick), -0.5, j * (deep - thick), thick, 0.5, thick)
                for i, j in corners]  # fmt: skip
        rows = [
            [(0, 0, 0, wide, thick, deep), *legs],  # table
            [
                (0, 0, 0, wide, thick, deep),
                *legs,
                (0, 0.5, thick - deep, wide, 0.5, thick),
            ],  # chair
            [(0, 0, deep - thick, wide, 1, thick), (wide - thick, 0, 0, thick, 1, deep)]
            + [(0, height, 0, wide, thick, deep) for height in (-1, -0.3, 0.4, 1)],  # shelf
            [(0, 0, 0, wide, a + 0.2, deep), (0, a + 0.4, 0, 0.2, 0.3, 0.2)],  # block
        ][number % 4]
        boxes = torch.tensor(rows).view(-1, 2, 3)
        low = (boxes[:, 0] - boxes[:, 1]).amin(0)
        high = (boxes[:, 0] + boxes[:, 1]).amax(0)
        boxes[:, 0] -= (low + high) / 2
        yield boxes * (2 / (high - low).max())


def sample_boxes(boxes, size, seed):
    """Draw points evenly by area from the surfaces of boxes: ``(size, 3)``."""
    generator = named_generator("boxes", seed)
    center, half = boxes[:, 0], boxes[:, 1]
    area = half.prod(1, keepdim=True) / half  # (K, 3), a quarter of each pair of faces
    face = torch.multinomial(area.flatten(), size, True, generator=generator)
    box, axis = face // 3, face % 3
    place = torch.rand(size, 3, generator=generator) * 2 - 1
    place[torch.arange(size), axis] = place[torch.arange(size), axis].sign()
    return center[box] + place * half[box]


def sees(camera, points, boxes):
    """Whether the segment from the camera to each point meets no box before it: ``(N,)`` bool."""
    step = points - camera  # (N, 3)
    near = ((boxes[:, 0] - boxes[:, 1]) - camera) / step[:, None]  # (N, K, 3)
    far = ((boxes[:, 0] + boxes[:, 1]) - camera) / step[:, None]
    enter, leave = torch.minimum(near, far).amax(-1), torch.maximum(near, far).amin(-1)  # (N, K)
    return ~((enter < leave - 1e-6) & (enter < 1 - 1e-4) & (enter > 0)).any(1)
