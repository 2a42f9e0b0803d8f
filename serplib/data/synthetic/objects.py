"""Families of labelled objects: vehicles, instruments, machines, tents and what a lathe makes."""

from __future__ import annotations

import math
from itertools import pairwise

from serplib.data.synthetic.surfaces import Parts, family


@family(0.86, 0.07, 0.0, 0.07)
def airplane(p: Parts) -> None:
    body, span, sweep = p.u(0.055, 0.12), p.u(0.7, 1.15), p.u(0.0, 0.5)
    nose, tail, tip = p.u(0.12, 0.3), p.u(0.25, 0.5), p.u(0.1, 0.4) * body
    hull = [(0, -1), (body * 0.6, -1 + nose * 0.3), (body, -1 + nose), (body, 1 - tail), (tip, 1)]
    p.lathe(hull, axis=1)
    at, chord, thin = p.u(-0.25, 0.1), p.u(0.14, 0.3), p.u(0.008, 0.02)
    level, rise = body * p.u(-0.7, 0.5), p.u(-0.02, 0.15)
    fin, reach, back = p.u(0.22, 0.45), p.u(0.25, 0.45), p.u(0.08, 0.14)
    ends, slim = sweep * p.u(0.7, 1.2), p.u(0.25, 0.8)
    high = fin if p.chance(0.2) else body * 0.3  # a T tail
    engines, hang, size = p.pick(0.35, 0.4, 0.25), p.u(0.3, 0.45), p.u(0.03, 0.06)
    for sign in (-1, 1):
        root, end = (sign * body * 0.5, at, level), (sign * span, at + sweep, level + rise)
        p.beam(root, end, (0, chord, 0), (0, 0, thin), (slim, slim))
        root, end = (0.0, 0.9, high), (sign * reach, 0.9 + ends * 0.35, high + 0.02)
        p.beam(root, end, (0, back, 0), (0, 0, thin), (0.6, 0.6))
        engine = [(size * 0.6, -chord * 0.7), (size, -chord * 0.4), (size * 0.7, chord * 0.5)]
        for k in range(engines):
            x = hang * span * (1 + 0.8 * k)
            p.lathe(engine, (sign * x, at + sweep * x / span - chord * 0.6, level - size), axis=1)
    p.beam((0, 0.82, 0), (0, 0.95 + ends * 0.2, fin), (0, back * 1.3, 0), (thin, 0, 0), (0.5, 0.5))
    biplane = p.maybe(0.08)
    biplane.beam((-span, at, 0.2), (span, at, 0.2), (0, chord, 0), (0, 0, thin))


@family(0.6, 0.2, 0.0, 0.2)
def car(p: Parts) -> None:
    wide, tall, floor = p.u(0.38, 0.48), p.u(0.52, 0.78), p.u(0.08, 0.14)
    belt = floor + (tall - floor) * p.u(0.48, 0.6)
    kind, front = p.pick(0.6, 0.28, 0.12), p.u(-0.6, -0.3)
    back = (p.u(0.45, 0.8), p.u(0.85, 0.98), p.u(0.1, 0.3))[kind]  # saloon, estate, pickup
    top_front, top_back, roof = front + p.u(0.15, 0.4), back - p.u(0.03, 0.3), p.u(0.7, 0.92)
    nose, tail = belt - p.u(0.03, 0.15), belt - p.u(0.0, 0.06)
    side, cabin = wide * 0.92, wide * 0.95
    outline = [  # sheets along the car: (y, z) of both ends, half the width, its ratio at the end
        (-0.97, floor, -1, nose, side, 1),
        (-1, nose, front, belt, side, 1),  # the bonnet
        (front, belt, top_front, tall, cabin, roof),
        (top_front, tall, top_back, tall, cabin * roof, 1),
        (top_back, tall, back, belt, cabin * roof, 1 / roof),
        (back, belt, 1, tail, side, 1),
        (1, tail, 0.97, floor, side, 1),
        (-0.97, floor, 0.97, floor, cabin, 1),
    ]
    for y0, z0, y1, z1, half, taper in outline:
        p.beam((0, y0, z0), (0, y1, z1), (half, 0, 0), (0, 0.004, 0.004), (taper, 1))
    low, high = (nose + tail) / 2, (back - front) / 2
    short = max((top_back - top_front) / (2 * high), 0.2)
    size, axle = p.u(0.13, 0.18), p.u(0.55, 0.68)
    for sign in (-1, 1):
        x = sign * wide
        p.beam((x * 0.97, 0, floor), (x * 0.97, 0, low), (0, 0.97, 0), (0.004, 0, 0))
        start = (x * 0.95, (front + back) / 2, belt)
        end = (x * 0.95 * roof, (top_front + top_back) / 2, tall)
        p.beam(start, end, (0, high, 0), (0.004, 0, 0), (short, 1))
        for y in (-axle, axle):
            p.tube((x * 0.75, y, size), (x, y, size), size)
            p.tube((x, y, size), (x * 1.001, y, size), size, 0.0)
    p.maybe(0.5).pair((0.45 * wide, 0.1, belt * 0.8), (wide * 0.3, 0.15, 0.12))  # seats
    p.maybe(0.25).box((0, 0.93, tail + 0.08), (wide * 0.9, 0.06, 0.01))


@family(0.55, 0.17, 0.11, 0.17)
def guitar(p: Parts) -> None:
    thick, lower, upper = p.u(0.03, 0.11), p.u(0.28, 0.5), p.u(0.2, 0.38)
    electric, body = p.chance(0.5), p.u(0.4, 0.5)
    if electric:
        thick *= 0.6
    p.drum(-thick, thick, scale=(lower, body * 0.55), at=(0, -1 + body * 0.55, 0))
    p.drum(-thick, thick, scale=(upper, body * 0.5), at=(0, -1 + body * 1.35, 0))
    if electric and p.chance(0.6):  # horns
        for x in (-upper, upper):
            tip = (x * 1.1, -1 + body * p.u(1.8, 2.2), 0)
            p.beam((x * 0.6, -1 + body * 1.3, 0), tip, (0.09, 0, 0), (0, 0, thick), (0.4, 1))
    neck, end, start = p.u(0.03, 0.055), p.u(0.7, 0.85), -1 + body * 1.5
    p.beam((0, start, thick), (0, end, thick), (neck, 0, 0), (0, 0, 0.02))
    p.beam((0, start - 0.1, thick + 0.02), (0, end, thick + 0.02), (neck, 0, 0), (0, 0, 0.01))
    drop, flare = p.u(0, 0.06), p.u(0.6, 1.2)
    p.beam((0, end, thick), (0, 1, thick - drop), (neck * 1.7, 0, 0), (0, 0, 0.015), (flare, 1))
    if p.chance(0.7):  # strings and pegs
        for k in range(-2, 3):
            x = k * neck * 0.4
            p.tube((x, -1 + body * 0.5, thick + 0.04), (x, end, thick + 0.04), 0.006)
            p.box((0, end + 0.04 * (k + 3), thick - 0.02), (neck * 2.3, 0.012, 0.012))
    p.box((0, -1 + body * 0.5, thick), (0.12, 0.03, 0.02))


@family(0.8, 0.2)
def keyboard(p: Parts) -> None:
    deep, thick, tilt = p.u(0.28, 0.5), p.u(0.015, 0.05), p.u(0, 0.1)
    p.box((0, 0, 0), (1, deep, thick), (p.u(0.96, 1), p.u(0.9, 1)), tilt=tilt)
    rows, gap = p.count(4, 6), p.u(0.75, 0.95)
    if p.chance(0.75):
        for k in range(rows):
            y = (2 * (k + 0.5) / rows - 1) * deep * 0.85
            z = y * math.sin(tilt) + thick * 1.5
            for x, half in ((-0.3, 0.62), (0.53, 0.15), (0.82, 0.14)):
                p.box((x, y, z), (half, gap * deep / rows * 0.85, thick * 0.6), tilt=tilt)


@family(0.85, 0.15)
def laptop(p: Parts) -> None:
    deep, thick, tilt = p.u(0.62, 0.85), p.u(0.015, 0.05), p.u(-0.6, 0.05)
    tall = deep * p.u(0.9, 1.05)
    p.box((0, 0, 0), (1, deep, thick))
    z, y = tall * math.cos(tilt), -tall * math.sin(tilt)
    p.box((0, deep + y, thick + z), (1, thick * p.u(0.5, 1), tall), tilt=tilt)
    if p.chance(0.6):
        p.box((0, deep * p.u(0.1, 0.3), thick), (0.85, deep * 0.4, thick * 0.5))
        p.box((0, -deep * 0.6, thick), (0.2, deep * 0.2, 0.005))


@family(0.05, 0.0, 0.05, 0.9)
def monitor(p: Parts) -> None:
    tall, thick, foot, lift = p.u(0.55, 0.8), p.u(0.03, 0.12), p.u(0.25, 0.6), p.u(0.1, 0.4)
    z = lift + tall
    p.box((0, 0, z), (1, thick, tall))
    p.maybe(0.6).box((0, -thick, z), (0.92, 0.01, tall * 0.9))
    if p.chance(0.3):  # a tube behind the screen
        p.beam((0, 0, z), (0, p.u(0.4, 0.9), z), (0.85, 0, 0), (0, 0, tall * 0.85), (0.6, 0.6))
    elif p.chance(0.5):
        p.box((0, thick * 1.5, z), (p.u(0.4, 0.8), thick, tall * p.u(0.4, 0.8)))
    stand = p.u(0.05, 0.2)
    if p.chance(0.9):
        p.box((0, thick, lift), (stand, p.u(0.03, 0.08), lift + 0.05))
        if p.chance(0.5):
            p.drum(0, 0.05, scale=(foot, foot * p.u(0.5, 1)))
        else:
            p.box((0, 0, 0.02), (foot, foot * p.u(0.4, 0.9), 0.02))


@family(0.5, 0.5)
def tent(p: Parts) -> None:
    wide, deep, tall = p.u(0.45, 1.0), p.u(0.7, 1.2), p.u(0.45, 1.2)
    kind = p.pick(0.35, 0.2, 0.25, 0.2)
    if kind == 0:  # a ridge
        ridge = p.u(0.5, 1.0)
        for x in (-wide, wide):
            p.beam((x, 0, 0), (0, 0, tall), (0, deep, 0), (0.01, 0, 0), (ridge, 1))
        p.maybe(0.6).box((0, 0, tall / 2), (wide, deep, tall / 2), (0.0, ridge))
    elif kind == 1:  # a dome
        p.ball((0, 0, 0), (wide, deep, tall), 0.0, p.u(0.9, 1.0))
        if p.chance(0.4):
            front, porch = p.u(1.2, 1.5) * deep, tall * 0.25
            p.beam((0, -deep * 0.7, porch), (0, -front, porch), (wide * 0.4, 0, 0), (0, 0, porch))
    elif kind == 2:  # walls and a roof
        wall, roof = tall * p.u(0.3, 0.7), tall * p.u(0.15, 0.4)
        if p.chance(0.7):
            p.box((0, 0, wall / 2), (wide, deep, wall / 2), (p.u(0.8, 1), p.u(0.8, 1)))
        else:
            p.legs(wide * 0.97, deep * 0.97, wall, 0.02, 0, 1)
        eaves = p.u(0.9, 1.05)
        p.box((0, 0, wall + roof), (wide * eaves, deep * eaves, roof), (p.u(0, 0.3), p.u(0, 1)))
    elif p.chance(0.5):  # a pyramid
        p.box((0, 0, tall / 2), (wide, deep, tall / 2), (p.u(0, 0.1), p.u(0, 0.5)))
    else:  # a tipi
        p.lathe([(1, 0), (p.u(0.6, 1), tall * 0.4), (0, tall)], scale=(wide, deep))
    p.maybe(0.4).box((0, 0, 0), (wide, deep, 0.005))
    p.maybe(0.15).tube((0, -deep * 1.3, 0), (0, -deep, tall), 0.01)  # a pole


@family(0.5, 0.1, 0.0, 0.4)
def piano(p: Parts) -> None:
    if p.chance(0.5):  # upright
        deep, high, key, reach = p.u(0.22, 0.35), p.u(1.3, 1.8), p.u(0.6, 0.8), p.u(0.2, 0.35)
        p.box((0, deep, high / 2), (1, deep, high / 2))
        p.box((0, -reach, high * 0.5), (1, reach, p.u(0.06, 0.12)))
        p.box((0, -reach, high * 0.5 + 0.1), (0.9, reach * 0.6, 0.02))
        p.pair((0.95, -reach * 1.6, high * 0.25), (0.05, 0.05, high * 0.25))
        p.maybe(0.4).box((0, deep, high), (1.03, deep * 1.1, 0.03))
        if p.chance(0.3):
            p.box((0, -reach * 2 - 0.4, key * 0.6), (0.35, 0.15, 0.04))
            p.legs(0.3, 0.1, key * 0.1, 0.03, 0, 0)
    else:  # grand
        wide, deep, high = 0.85, p.u(0.7, 1.05), p.u(0.75, 1.0)
        body, narrow = p.u(0.08, 0.16), p.u(0.3, 0.6)
        back = (-wide * (1 - narrow), deep, high)
        p.beam((0, -deep, high), back, (wide, 0, 0), (0, 0, body), (narrow, 1))
        p.ball(back, (wide * narrow, 0.25, body))
        p.box((0, -deep - 0.12, high - body * 0.4), (wide, 0.15, body * 0.6))
        for x, y in ((-0.7, -0.9), (0.7, -0.9), (-0.5, 0.8)):
            p.tube((x * wide, y * deep, 0), (x * wide, y * deep, high), p.u(0.03, 0.07))
        if p.chance(0.6):  # the lid is up, hinged at the straight side
            top = high + body
            start, end = (-wide * 0.95, 0, top), (wide * 0.6, 0, top + p.u(0.5, 1.0))
            p.beam(start, end, (0, deep * 0.95, 0), (0, 0, 0.01), (p.u(0.5, 0.9), 1))
        p.maybe(0.3).box((0, -deep - 0.6, high * 0.5), (0.35, 0.15, 0.04))


# ---- turned on a lathe: profiles are lists of (radius, height) ----------------------------------


@family()
def bottle(p: Parts) -> None:
    body, height = p.u(0.11, 0.22), p.u(0.35, 0.75)
    neck = body * p.u(0.25, 0.55) if p.chance(0.8) else body * p.u(0.6, 0.95)
    shoulder = height + (1 - height) * p.u(0.15, 0.6)
    belly = body * (p.u(0.75, 1.0) if p.chance(0.4) else 1.0)
    profile = [(0, 0), (body * p.u(0.85, 1), 0.0), (belly, height * p.u(0.2, 0.6)), (body, height)]
    bulge = neck + (body - neck) * p.u(0.55, 0.9)
    profile += [(bulge, height + (shoulder - height) * p.u(0.3, 0.6)), (neck, shoulder)]
    cap, start = neck * p.u(1.0, 1.25), 1 - p.u(0.03, 0.12)
    profile += [(neck * p.u(0.85, 1), start), (cap, start), (cap, 1), (0, 1)]
    p.lathe(profile, scale=(1, p.u(0.45, 0.9) if p.chance(0.2) else 1))
    p.maybe(0.25).lathe([(r * 0.92, z) for r, z in profile[1:6]])  # the inner side of the glass
    if p.chance(0.12):  # a handle or a pump
        p.tube((body, 0, height * 0.9), (body + 0.12, 0, height * 0.8), 0.03)
        p.tube((body + 0.12, 0, height * 0.8), (body, 0, height * 0.4), 0.03)


def _wall(low: float, high: float, height: float, bulge: float) -> list[tuple[float, float]]:
    """The profile of a cup: from radius ``low`` to ``high``, bulging between."""
    steps = [(i / 4, 1 - (2 * i / 4 - 1) ** 2) for i in range(5)]
    return [(low + (high - low) * t + bulge * b, height * t) for t, b in steps]


@family()
def bowl(p: Parts) -> None:
    deep = p.u(0.3, 0.75) if p.chance(0.7) else p.u(0.75, 1.4)
    if p.chance(0.7):
        low, half = p.u(-0.97, -0.8), (1.0, 1.0, deep / 0.9)
        high = p.u(-0.25, 0.05)
        p.ball((0, 0, 0), half, low, high)
        if p.chance(0.7):
            p.ball((0, 0, 0), [h * p.u(0.9, 0.97) for h in half], low, high)
        base, rim = half[2] * low, half[2] * high
        foot, edge = math.sqrt(1 - low * low), math.sqrt(1 - high * high)
    else:
        base, rim, foot, edge = 0.0, deep * p.u(0.7, 1.2), p.u(0.35, 0.9), 1.0
        wall = _wall(foot, edge, rim, p.u(0, 0.15))
        p.lathe(wall)
        p.maybe(0.7).lathe([(r * 0.94, z + 0.03) for r, z in wall])
    p.lathe([(0, base), (foot, base)])
    if p.chance(0.3):
        p.lathe([(foot * 0.9, base), (foot * p.u(0.8, 1), base - p.u(0.05, 0.15))])
    if p.chance(0.25):
        p.lathe([(edge, rim), (edge * p.u(1.05, 1.25), rim + p.u(-0.02, 0.06))])


@family()
def cup(p: Parts) -> None:
    height, kind, top = p.u(0.8, 1.3), p.pick(0.5, 0.28, 0.22), p.u(0.38, 0.5)
    if kind < 2:
        foot, base = top * (p.u(0.65, 1.0) if kind == 0 else p.u(0.8, 1.05)), 0.0
        wall = _wall(foot, top, height * (1 if kind == 0 else 0.85), p.u(-0.02, 0.08))
    else:  # a wine glass: foot, stem, bell
        base, stem, foot = height * p.u(0.35, 0.55), p.u(0.02, 0.05), p.u(0.25, 0.42)
        p.lathe([(0, 0), (foot, 0), (foot * 0.9, 0.03), (stem, 0.08), (stem, base)])
        wall = [(r, z + base) for r, z in _wall(stem, top, height - base, p.u(0, 0.25))]
    p.lathe(wall)
    inner = p.maybe(0.6)
    inner.lathe([(max(r - 0.03, 0.01), z + 0.03 * (1 - i / 4)) for i, (r, z) in enumerate(wall)])
    p.lathe([(0, base), (wall[0][0], base)])
    p.maybe(0.15).lathe([(0, height * 0.7), (top * 0.9, height * 0.7)])
    if kind == 1 or (kind == 0 and p.chance(0.1)):  # a handle
        sign = 1 if p.chance(0.6) else -1
        reach, low, high = top + p.u(0.2, 0.35), height * p.u(0.12, 0.3), height * p.u(0.55, 0.75)
        path = [(top * 0.95, high), (reach, high - 0.05), (reach, low + 0.1), (foot, low)]
        for (x0, z0), (x1, z1) in pairwise(path):
            p.tube((sign * x0, 0, z0), (sign * x1, 0, z1), p.u(0.03, 0.06))
        p.turn = p.pick(0.7, 0.3)


@family()
def vase(p: Parts) -> None:
    kind = p.pick(0.36, 0.24, 0.18, 0.1, 0.12)
    wide = p.u(0.13, 0.42) if p.chance(0.8) else p.u(0.42, 0.75)
    if kind == 0:  # a belly below a neck
        at, neck = p.u(0.2, 0.6), wide * p.u(0.15, 0.65)
        foot, lip = wide * p.u(0.35, 0.8), neck * p.u(1.0, 1.8)
        profile = [(foot, 0), (wide * 0.87, at * 0.45), (wide, at), (wide * 0.85, at + 0.15)]
        profile += [(neck * 1.1, at + 0.15 + (0.8 - at) * 0.5), (neck, 0.88), (lip, 1.0)]
    elif kind == 1:  # a flaring or straight tube
        foot, lip = wide * p.u(0.45, 1.1), wide * p.u(0.8, 1.2)
        profile = _wall(foot, lip, 1, p.u(-0.12, 0.12) * wide)
    elif kind == 2:  # shouldered: widest high up
        profile = [(wide * p.u(0.4, 0.7), 0), (wide * 0.8, 0.35), (wide, p.u(0.6, 0.75))]
        profile += [(wide * 0.85, 0.85), (wide * p.u(0.4, 0.7), 0.94), (wide * p.u(0.4, 0.8), 1.0)]
    elif kind == 4:  # a foot, a stem and a bell or a globe
        stem, bell = wide * p.u(0.15, 0.4), p.u(0.3, 0.6)
        profile = [(wide * p.u(0.5, 0.9), 0), (stem, 0.12), (stem, bell)]
        profile += [(wide, p.u(0.7, 0.8)), (wide * p.u(0.5, 1.3), 1.0)]
    else:  # two bulges
        waist = wide * p.u(0.3, 0.6)
        profile = [(wide * 0.6, 0), (wide, 0.2), (waist, p.u(0.4, 0.6)), (wide * p.u(0.5, 1), 0.8)]
        profile += [(waist, 1.0)]
    square, scale = p.chance(0.1), (1, p.u(0.35, 0.9) if p.chance(0.15) else 1)
    if square:
        foot, lip = profile[0][0], profile[-1][0]
        p.box((0, 0, 0.5), (foot, foot * scale[1], 0.5), (lip / foot, lip / foot))
        return
    p.lathe([(0, 0), *profile], scale=scale)
    p.maybe(0.4).lathe([(max(r - 0.03, 0.01), max(z, 0.04)) for r, z in profile], scale=scale)
    if p.chance(0.1):  # handles
        for x in (-wide, wide):
            p.tube((x * 0.9, 0, 0.5), (x * 1.3, 0, 0.75), 0.03)
            p.tube((x * 1.3, 0, 0.75), (x * 0.4, 0, 0.92), 0.03)


@family()
def cone(p: Parts) -> None:
    wide = p.u(0.22, 0.7)
    top = wide * (p.u(0.05, 0.35) if p.chance(0.5) else p.u(0, 0.05))
    p.lathe([(wide, 0), (top, 1), (0, 1)])
    p.maybe(0.4).lathe([(0, 0), (wide, 0)])
    kind, reach, thick = p.pick(0.45, 0.3, 0.25), wide * p.u(1.2, 2.0), p.u(0.015, 0.06)
    if kind == 1:
        p.lathe([(wide, 0), (reach, 0), (reach, -thick), (0, -thick)])
    elif kind == 2:
        p.box((0, 0, -thick), (reach, reach, thick))


@family()
def lamp(p: Parts) -> None:
    kind = p.pick(0.3, 0.48, 0.22)  # tall, on a table, with an arm
    if kind == 2:
        _desk_lamp(p)
        return
    big = 1.0 if kind == 0 else 1.5
    foot, base = p.u(0.08, 0.2) * (1.0 if kind == 0 else 1.3), p.u(0.01, 0.05)
    pole, shade, deep = p.u(0.008, 0.025) * big, p.u(0.12, 0.26) * big, p.u(0.15, 0.32) * big
    if p.chance(0.2):
        p.box((0, 0, base / 2), (foot, foot, base / 2))
    else:
        profile = [(0, 0), (foot, 0), (foot, base), (foot * p.u(0.2, 0.8), base * 1.5)]
        p.lathe([*profile, (pole, base * 2)])
    p.lathe([(pole, base), (pole, 1 - deep * 0.6)])
    if kind == 1 and p.chance(0.6):  # a vase-like body
        belly, top = p.u(0.06, 0.2), 0.95 - deep
        profile = [(foot * 0.6, base), (belly, top * 0.4), (belly * p.u(0.4, 1), top * 0.75)]
        p.lathe([*profile, (pole, top)])
    upper = shade * (p.u(0.3, 0.8) if p.chance(0.6) else p.u(0.8, 1.0))
    style, low = p.pick(0.8, 0.12, 0.08), 1 - deep
    if style == 0:
        p.lathe([(shade, low), (upper, 1)])
        p.maybe(0.3).lathe([(upper, 1), (0, 1)])
        p.maybe(0.6).lathe([(shade * 0.96, low), (upper * 0.96, 1)])
    elif style == 1:
        p.ball((0, 0, low), (shade, shade, deep), 0.0, 1.0)
    else:
        p.ball((0, 0, 1 - deep / 2), (shade * 0.8, shade * 0.8, deep / 2 + 0.05))


def _desk_lamp(p: Parts) -> None:
    foot, pole = p.u(0.12, 0.25), p.u(0.01, 0.035)
    p.lathe([(0, 0), (foot, 0), (foot, 0.04), (0, 0.06)])
    knee, tip = (0, p.u(-0.1, 0.35), p.u(0.4, 0.75)), (0, p.u(-0.6, -0.15), p.u(0.5, 1.0))
    p.tube((0, 0, 0.04), knee, pole)
    p.tube(knee, tip, pole)
    if p.chance(0.75):
        drop = p.u(0.05, 0.2)
        p.tube(tip, (0, tip[1] - p.u(0.02, 0.2), tip[2] - drop), 0.05, p.u(2, 3.5))
    else:
        p.box((0, tip[1], tip[2]), (p.u(0.05, 0.3), 0.12, 0.04))
    p.turn = p.count(0, 3)
