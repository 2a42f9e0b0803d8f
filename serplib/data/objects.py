"""Labelled families of objects: vessels, vehicles and instruments (see ``surfaces`` for ``Parts``).

A family is a function of a ``Parts``: it draws proportions and emits parts, z up, front towards -y.
Lengths are relative, clouds are scaled to the unit sphere later. ``furniture`` holds the other half.
"""

from __future__ import annotations

import math

from serplib.data.surfaces import Parts, Point

# ---- round things ------------------------------------------------------------------------------


def bottle(p: Parts) -> None:
    body, height = p.u(0.16, 0.3), p.u(0.4, 0.75)
    neck = body * p.u(0.25, 0.55) if p.chance(0.8) else body * p.u(0.6, 0.95)
    shoulder = height + (1 - height) * p.u(0.15, 0.6)
    belly = body * (p.u(0.75, 1.0) if p.chance(0.4) else 1.0)
    profile = [(0, 0), (body * p.u(0.85, 1), 0.0), (belly, height * p.u(0.2, 0.6)), (body, height)]
    bulge = neck + (body - neck) * p.u(0.55, 0.9)
    profile += [(bulge, height + (shoulder - height) * p.u(0.3, 0.6)), (neck, shoulder)]
    cap = neck * p.u(1.0, 1.25)
    start = 1 - p.u(0.03, 0.12)
    profile += [(neck * p.u(0.85, 1), start), (cap, start), (cap, 1), (0, 1)]
    p.lathe(profile, scale=(1, p.u(0.45, 0.9) if p.chance(0.2) else 1))
    if p.chance(0.25):  # the glass has an inner side
        p.lathe([(r * 0.92, z) for r, z in profile[1:6]])
    if p.chance(0.12):  # a handle or a pump
        p.tube((body, 0, height * 0.9), (body + 0.12, 0, height * 0.8), 0.03)
        p.tube((body + 0.12, 0, height * 0.8), (body, 0, height * 0.4), 0.03)


def _cup_wall(p: Parts, low: float, high: float, height: float, bulge: float) -> list[Point]:
    steps = [(i / 4, 1 - (2 * i / 4 - 1) ** 2) for i in range(5)]
    return [(low + (high - low) * t + bulge * b, height * t) for t, b in steps]


def bowl(p: Parts) -> None:
    deep = p.u(0.25, 0.75)
    if p.pick(0.7, 0.3) == 0:
        low, half = p.u(-0.97, -0.8), (1.0, 1.0, deep / 0.9)
        high = p.u(-0.25, 0.05)
        p.ball((0, 0, 0), half, low, high)
        if p.chance(0.7):
            p.ball((0, 0, 0), tuple(h * p.u(0.9, 0.97) for h in half), low, high)
        base, rim = half[2] * low, half[2] * high
        foot = math.sqrt(1 - low * low)
        edge = math.sqrt(1 - high * high)
    else:
        base, rim, foot, edge = 0.0, deep * p.u(0.7, 1.2), p.u(0.35, 0.9), 1.0
        wall = _cup_wall(p, foot, edge, rim, p.u(0, 0.15))
        p.lathe(wall)
        if p.chance(0.7):
            p.lathe([(r * 0.94, z + 0.03) for r, z in wall])
    p.lathe([(0, base), (foot, base)])
    if p.chance(0.3):
        p.lathe([(foot * 0.9, base), (foot * p.u(0.8, 1), base - p.u(0.05, 0.15))])
    if p.chance(0.25):
        p.lathe([(edge, rim), (edge * p.u(1.05, 1.25), rim + p.u(-0.02, 0.06))])


def cup(p: Parts) -> None:
    height, kind = p.u(0.8, 1.3), p.pick(0.5, 0.28, 0.22)
    top = p.u(0.38, 0.5)
    if kind < 2:
        foot = top * (p.u(0.65, 1.0) if kind == 0 else p.u(0.8, 1.05))
        wall = _cup_wall(p, foot, top, height * (1 if kind == 0 else 0.85), p.u(-0.02, 0.08))
        base = 0.0
    else:  # a wine glass: foot, stem, bell
        base, stem, foot = height * p.u(0.35, 0.55), p.u(0.02, 0.05), p.u(0.25, 0.42)
        p.lathe([(0, 0), (foot, 0), (foot * 0.9, 0.03), (stem, 0.08), (stem, base)])
        wall = [(r, z + base) for r, z in _cup_wall(p, stem, top, height - base, p.u(0, 0.25))]
    p.lathe(wall)
    if p.chance(0.6):
        p.lathe([(max(r - 0.03, 0.01), z + 0.03 * (1 - i / 4)) for i, (r, z) in enumerate(wall)])
    p.lathe([(0, base), (wall[0][0], base)])
    if p.chance(0.15):
        p.lathe([(0, height * 0.7), (top * 0.9, height * 0.7)])
    if kind == 1 or (kind == 0 and p.chance(0.1)):
        sign = 1 if p.chance(0.6) else -1
        reach, low, high = p.u(0.2, 0.35), height * p.u(0.12, 0.3), height * p.u(0.55, 0.75)
        path = [
            (top * 0.95, high),
            (top + reach, high - 0.05),
            (top + reach, low + 0.1),
            (foot, low),
        ]
        for (x0, z0), (x1, z1) in zip(path, path[1:]):
            p.tube((sign * x0, 0, z0), (sign * x1, 0, z1), p.u(0.03, 0.06))
        p.turn = p.pick(0.7, 0.3)


def vase(p: Parts) -> None:
    kind = p.pick(0.4, 0.3, 0.2, 0.1)
    height, wide = 1.0, p.u(0.18, 0.5)
    if kind == 0:  # a belly below a neck
        at, neck = p.u(0.25, 0.6), wide * p.u(0.2, 0.65)
        foot, lip = wide * p.u(0.35, 0.8), neck * p.u(1.0, 1.8)
        profile = [(foot, 0), (wide * 0.87, at * 0.45), (wide, at), (wide * 0.85, at + 0.15)]
        profile += [(neck * 1.1, at + 0.15 + (0.8 - at) * 0.5), (neck, 0.88), (lip, 1.0)]
    elif kind == 1:  # a flaring or straight tube
        foot, lip = wide * p.u(0.45, 1.1), wide * p.u(0.8, 1.2)
        profile = _cup_wall(p, foot, lip, height, p.u(-0.12, 0.12) * wide)
    elif kind == 2:  # shouldered: widest high up
        profile = [(wide * p.u(0.4, 0.7), 0), (wide * 0.8, 0.35), (wide, p.u(0.6, 0.75))]
        profile += [(wide * 0.85, 0.85), (wide * p.u(0.4, 0.7), 0.94), (wide * p.u(0.4, 0.8), 1.0)]
    else:  # two bulges
        waist = wide * p.u(0.3, 0.6)
        profile = [(wide * 0.6, 0), (wide, 0.2), (waist, p.u(0.4, 0.6)), (wide * p.u(0.5, 1), 0.8)]
        profile += [(waist, 1.0)]
    square = p.chance(0.1)
    scale = (1, p.u(0.35, 0.9) if p.chance(0.15) else 1)
    if square:
        foot, lip = profile[0][0], profile[-1][0]
        p.box((0, 0, 0.5), (foot, foot * scale[1], 0.5), (lip / foot, lip / foot))
        return
    p.lathe([(0, 0), *profile], scale=scale)
    if p.chance(0.4):
        p.lathe([(max(r - 0.03, 0.01), max(z, 0.04)) for r, z in profile], scale=scale)
    if p.chance(0.1):
        for sign in (-1, 1):
            p.tube((sign * wide * 0.9, 0, 0.5), (sign * wide * 1.3, 0, 0.75), 0.03)
            p.tube((sign * wide * 1.3, 0, 0.75), (sign * wide * 0.4, 0, 0.92), 0.03)


def cone(p: Parts) -> None:
    height, wide = 1.0, p.u(0.22, 0.7)
    top = wide * (p.u(0.05, 0.35) if p.chance(0.5) else p.u(0, 0.05))
    p.lathe([(wide, 0), (top, height), (0, height)])
    if p.chance(0.4):
        p.lathe([(0, 0), (wide, 0)])
    kind = p.pick(0.45, 0.3, 0.25)
    reach, thick = wide * p.u(1.2, 2.0), p.u(0.015, 0.06)
    if kind == 1:
        p.lathe([(wide, 0), (reach, 0), (reach, -thick), (0, -thick)])
    elif kind == 2:
        p.box((0, 0, -thick), (reach, reach, thick))


def lamp(p: Parts) -> None:
    tall = p.chance(0.4)
    height, foot = 1.0, p.u(0.1, 0.2) if tall else p.u(0.14, 0.3)
    pole, shade = (
        p.u(0.01, 0.025) if tall else p.u(0.015, 0.06),
        p.u(0.13, 0.3) * (1 if tall else 1.5),
    )
    deep = p.u(0.12, 0.3) * (1 if tall else 1.5)
    base = p.u(0.02, 0.06)
    if p.chance(0.2):
        p.box((0, 0, base / 2), (foot, foot, base / 2))
    else:
        p.lathe(
            [(0, 0), (foot, 0), (foot, base), (foot * p.u(0.2, 0.8), base * 1.5), (0, base * 2)]
        )
    if p.chance(0.14):  # a desk lamp: two arms and a tilted shade
        elbow, tip = (0.0, p.u(-0.1, 0.35), p.u(0.4, 0.6)), (0.0, p.u(-0.6, -0.2), p.u(0.5, 0.9))
        p.tube((0, 0, base), elbow, pole)
        p.tube(elbow, tip, pole)
        p.tube(tip, (tip[0], tip[1] - 0.15, tip[2] - 0.1), 0.04, 3.0)
        p.turn = p.count(0, 3)
        return
    if not tall and p.chance(0.5):  # a vase-like body
        belly = p.u(0.08, 0.22)
        p.lathe([(foot * 0.6, base), (belly, 0.2), (belly * p.u(0.5, 1), 0.35), (pole, 0.5)])
    p.lathe([(pole, base), (pole, height - deep * 0.6)])
    upper, style = shade * p.u(0.3, 1.0), p.pick(0.75, 0.15, 0.1)
    if style == 0:
        p.lathe([(shade, height - deep), (upper, height)])
        if p.chance(0.3):
            p.lathe([(upper, height), (0, height)])
    elif style == 1:
        p.ball((0, 0, height - deep), (shade, shade, deep), 0.0, 1.0)
    else:
        p.ball((0, 0, height - deep / 2), (shade * 0.8, shade * 0.8, deep / 2 + 0.05))


# ---- vehicles, instruments, machines -----------------------------------------------------------


def airplane(p: Parts) -> None:
    body, span, sweep = p.u(0.055, 0.11), p.u(0.6, 1.1), p.u(0.0, 0.5)
    nose, tail = p.u(0.12, 0.3), p.u(0.25, 0.5)
    tip = p.u(0.1, 0.4) * body
    p.lathe(
        [(0, -1), (body * 0.6, -1 + nose * 0.3), (body, -1 + nose), (body, 1 - tail), (tip, 1)],
        axis=1,
    )
    at, chord, thin = p.u(-0.25, 0.1), p.u(0.14, 0.3), p.u(0.008, 0.02)
    level, rise = body * p.u(-0.7, 0.5), p.u(-0.02, 0.15)
    fin, reach, back = p.u(0.18, 0.35), p.u(0.25, 0.45), p.u(0.08, 0.14)
    ends, slim = sweep * p.u(0.7, 1.2), p.u(0.25, 0.8)
    high = fin if p.chance(0.2) else body * 0.3  # a T tail
    engines = p.pick(0.35, 0.4, 0.25)
    hang, size = p.u(0.3, 0.45), p.u(0.03, 0.06)
    for sign in (-1, 1):
        root, end = (sign * body * 0.5, at, level), (sign * span, at + sweep, level + rise)
        p.beam(root, end, (0, chord, 0), (0, 0, thin), (slim, slim))
        root, end = (0.0, 0.9, high), (sign * reach, 0.9 + ends * 0.35, high + 0.02)
        p.beam(root, end, (0, back, 0), (0, 0, thin), (0.6, 0.6))
        for k in range(engines):
            x = hang * span * (1 + 0.8 * k)
            y, z = at + sweep * x / span - chord * 0.6, level - size
            p.lathe(
                [(size * 0.6, -chord * 0.7), (size, -chord * 0.4), (size * 0.7, chord * 0.5)],
                (sign * x, y, z),
                axis=1,
            )
    p.beam((0, 0.82, 0), (0, 0.95 + ends * 0.2, fin), (0, back * 1.3, 0), (thin, 0, 0), (0.5, 0.5))
    if p.chance(0.08):  # a biplane
        p.beam((-span, at, 0.2), (span, at, 0.2), (0, chord, 0), (0, 0, thin))
    p.turn = p.pick(0.86, 0.07, 0.0, 0.07)


def car(p: Parts) -> None:
    length, wide, high = 1.0, p.u(0.36, 0.46), p.u(0.24, 0.34)
    floor, waist = p.u(0.08, 0.13), p.u(0.5, 0.62)
    belt = floor + (high * 2 - floor) * waist
    p.box(
        (0, 0, (floor + belt) / 2), (wide, length, (belt - floor) / 2), (p.u(0.92, 1), p.u(0.94, 1))
    )
    roof, kind = high * 2, p.pick(0.6, 0.25, 0.15)
    if kind == 0:  # saloon
        front, back = p.u(-0.5, -0.3), p.u(0.45, 0.8)
    elif kind == 1:  # estate, van
        front, back = p.u(-0.65, -0.4), p.u(0.85, 0.98)
    else:  # pickup
        front, back = p.u(-0.5, -0.3), p.u(0.1, 0.3)
    top_front, top_back = front + p.u(0.15, 0.35), back - p.u(0.03, 0.3)
    mid, half = (front + back) / 2, (back - front) / 2
    top_mid, top_half = (top_front + top_back) / 2, (top_back - top_front) / 2
    p.beam(
        (0, mid, belt),
        (0, top_mid, roof),
        (wide * 0.95, 0, 0),
        (0, half, 0),
        (p.u(0.7, 0.9), max(top_half / half, 0.2)),
    )
    size, axle = p.u(0.13, 0.18), p.u(0.55, 0.68)
    for sx in (-1, 1):
        for y in (-axle, axle):
            x = sx * wide * 0.88
            p.tube((x - 0.07, y, size), (x + 0.07, y, size), size)
            p.tube((x + sx * 0.07, y, size), (x + sx * 0.0701, y, size), size, 0.0)
    if p.chance(0.4):  # seats inside
        for sx in (-1, 1):
            p.box((sx * wide * 0.45, 0.1, belt * 0.8), (wide * 0.3, 0.15, 0.12))
    if p.chance(0.2):
        p.box((0, 0.93, belt + 0.08), (wide * 0.9, 0.06, 0.01))
    p.turn = p.pick(0.6, 0.2, 0.0, 0.2)


def guitar(p: Parts) -> None:
    thick, lower, upper = p.u(0.03, 0.1), p.u(0.28, 0.4), p.u(0.2, 0.32)
    electric, body = p.chance(0.5), p.u(0.4, 0.5)
    if electric:
        thick *= 0.6
    for x, y, a, b in (
        (0.0, -1 + body * 0.55, lower, body * 0.55),
        (0.0, -1 + body * 1.35, upper, body * 0.5),
    ):
        for z0, z1 in ((-thick, thick),):
            p.lathe([(0, z0), (1, z0), (1, z1), (0, z1)], (x, y, 0), (a, b))
    if electric and p.chance(0.6):  # horns
        for sign in (-1, 1):
            p.beam(
                (sign * upper * 0.6, -1 + body * 1.3, 0),
                (sign * upper * 1.1, -1 + body * p.u(1.8, 2.2), 0),
                (0.09, 0, 0),
                (0, 0, thick),
                (0.4, 1),
            )
    neck, tip = p.u(0.03, 0.055), p.u(0.75, 0.85)
    start = -1 + body * 1.5
    p.beam((0, start, thick), (0, tip, thick), (neck, 0, 0), (0, 0, 0.02))
    p.beam(
        (0, tip, thick),
        (0, 1.0, thick - p.u(0, 0.06)),
        (neck * 1.7, 0, 0),
        (0, 0, 0.015),
        (p.u(0.6, 1.2), 1),
    )
    p.box((0, -1 + body * 0.5, thick), (0.12, 0.03, 0.02))
    p.turn = p.pick(0.7, 0.15, 0.0, 0.15)


def keyboard(p: Parts) -> None:
    wide, deep, thick = 1.0, p.u(0.28, 0.5), p.u(0.015, 0.05)
    tilt = p.u(0, 0.1)
    p.box((0, 0, 0), (wide, deep, thick), (p.u(0.96, 1), p.u(0.9, 1)), tilt=tilt)
    rows, gap = p.count(4, 6), p.u(0.75, 0.95)
    if p.chance(0.75):
        for k in range(rows):
            y = (2 * (k + 0.5) / rows - 1) * deep * 0.85
            z = y * math.sin(tilt) + thick * 1.5
            for x, half in ((-0.3, 0.62), (0.53, 0.15), (0.82, 0.14)):
                p.box((x * wide, y, z), (half, gap * deep / rows * 0.85, thick * 0.6), tilt=tilt)
    p.turn = p.pick(0.8, 0.2)


def laptop(p: Parts) -> None:
    wide, deep, thick = 1.0, p.u(0.62, 0.85), p.u(0.015, 0.05)
    tilt, tall = p.u(-0.6, 0.05), deep * p.u(0.9, 1.05)
    p.box((0, 0, 0), (wide, deep, thick))
    z, y = tall * math.cos(tilt), -tall * math.sin(tilt)
    p.box((0, deep + y, thick + z), (wide, thick * p.u(0.5, 1), tall), tilt=tilt)
    if p.chance(0.6):
        p.box((0, deep * p.u(0.1, 0.3), thick), (wide * 0.85, deep * 0.4, thick * 0.5))
        p.box((0, -deep * 0.6, thick), (wide * 0.2, deep * 0.2, 0.005))
    p.turn = p.pick(0.85, 0.15)


def monitor(p: Parts) -> None:
    wide, tall, thick = 1.0, p.u(0.55, 0.8), p.u(0.03, 0.12)
    foot, lift = p.u(0.25, 0.6), p.u(0.1, 0.4)
    z = lift + tall
    p.box((0, 0, z), (wide, thick, tall))
    if p.chance(0.6):
        p.box((0, -thick, z), (wide * 0.92, 0.01, tall * 0.9))
    if p.chance(0.3):  # a tube behind the screen
        p.beam(
            (0, 0, z), (0, p.u(0.4, 0.9), z), (wide * 0.85, 0, 0), (0, 0, tall * 0.85), (0.6, 0.6)
        )
    elif p.chance(0.5):
        p.box((0, thick * 1.5, z), (wide * p.u(0.4, 0.8), thick, tall * p.u(0.4, 0.8)))
    stand = p.u(0.05, 0.2)
    if p.chance(0.9):
        p.box((0, thick, lift), (stand, p.u(0.03, 0.08), lift + 0.05))
        if p.chance(0.5):
            p.lathe([(0, 0), (1, 0), (1, 0.05), (0, 0.05)], scale=(foot, foot * p.u(0.5, 1)))
        else:
            p.box((0, 0, 0.02), (foot, foot * p.u(0.4, 0.9), 0.02))
    p.turn = p.pick(0.05, 0.0, 0.05, 0.9)


def tent(p: Parts) -> None:
    wide, deep, tall = p.u(0.6, 1.1), p.u(0.7, 1.1), p.u(0.4, 0.9)
    kind = p.pick(0.4, 0.3, 0.3)
    if kind == 0:  # a ridge
        for sign in (-1, 1):
            start, end = (sign * wide, 0, 0), (0, 0, tall)
            p.beam(start, end, (0, deep, 0), (0.01, 0, 0), (p.u(0.6, 1), 1))
        if p.chance(0.6):
            p.box((0, 0, tall / 2), (wide, deep, tall / 2), (0.0, 0.9))
    elif kind == 1:  # a dome
        half = (wide, deep, tall)
        p.ball((0, 0, 0), half, 0.0, 1.0)
        if p.chance(0.4):
            p.beam(
                (0, -deep * 0.7, tall * 0.25),
                (0, -deep * 1.4, tall * 0.2),
                (wide * 0.4, 0, 0),
                (0, 0, tall * 0.25),
            )
    else:  # a house: walls and a roof
        wall = tall * p.u(0.3, 0.7)
        if p.chance(0.7):
            p.box((0, 0, wall / 2), (wide, deep, wall / 2))
        else:
            p.legs(wide * 0.97, deep * 0.97, wall, 0.02, 0, 1)
        p.box(
            (0, 0, wall + tall * 0.25),
            (wide * 1.03, deep * 1.03, tall * 0.25),
            (p.u(0, 0.3), p.u(0, 1)),
        )
    if p.chance(0.4):
        p.box((0, 0, 0), (wide, deep, 0.005))
    p.turn = p.count(0, 1)


OBJECTS = {
    "airplane": airplane,
    "bottle": bottle,
    "bowl": bowl,
    "car": car,
    "cone": cone,
    "cup": cup,
    "guitar": guitar,
    "keyboard": keyboard,
    "lamp": lamp,
    "laptop": laptop,
    "monitor": monitor,
    "tent": tent,
    "vase": vase,
}
