"""Labelled families of objects: what a lathe makes (see ``surfaces`` for ``Parts``)."""

from __future__ import annotations

import math
from itertools import pairwise

from serplib.data.synthetic.surfaces import Parts, Point


def bottle(p: Parts) -> None:
    body, height = p.u(0.11, 0.22), p.u(0.35, 0.75)
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
    deep = p.u(0.3, 0.75) if p.chance(0.7) else p.u(0.75, 1.4)
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
        for (x0, z0), (x1, z1) in pairwise(path):
            p.tube((sign * x0, 0, z0), (sign * x1, 0, z1), p.u(0.03, 0.06))
        p.turn = p.pick(0.7, 0.3)


def vase(p: Parts) -> None:
    kind = p.pick(0.36, 0.24, 0.18, 0.1, 0.12)
    height, wide = 1.0, p.u(0.13, 0.42) if p.chance(0.8) else p.u(0.42, 0.75)
    if kind == 0:  # a belly below a neck
        at, neck = p.u(0.2, 0.6), wide * p.u(0.15, 0.65)
        foot, lip = wide * p.u(0.35, 0.8), neck * p.u(1.0, 1.8)
        profile = [(foot, 0), (wide * 0.87, at * 0.45), (wide, at), (wide * 0.85, at + 0.15)]
        profile += [(neck * 1.1, at + 0.15 + (0.8 - at) * 0.5), (neck, 0.88), (lip, 1.0)]
    elif kind == 1:  # a flaring or straight tube
        foot, lip = wide * p.u(0.45, 1.1), wide * p.u(0.8, 1.2)
        profile = _cup_wall(p, foot, lip, height, p.u(-0.12, 0.12) * wide)
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
    kind = p.pick(0.3, 0.48, 0.22)  # tall, on a table, with an arm
    if kind == 2:
        _desk_lamp(p)
        return
    big = 1.0 if kind == 0 else 1.5
    height, foot, base = 1.0, p.u(0.08, 0.2) * (1.0 if kind == 0 else 1.3), p.u(0.01, 0.05)
    pole = p.u(0.008, 0.025) * big
    shade, deep = p.u(0.12, 0.26) * big, p.u(0.15, 0.32) * big
    if p.chance(0.2):
        p.box((0, 0, base / 2), (foot, foot, base / 2))
    else:
        p.lathe(
            [(0, 0), (foot, 0), (foot, base), (foot * p.u(0.2, 0.8), base * 1.5), (pole, base * 2)]
        )
    p.lathe([(pole, base), (pole, height - deep * 0.6)])
    if kind == 1 and p.chance(0.6):  # a vase-like body
        belly, top = p.u(0.06, 0.2), 0.95 - deep
        p.lathe(
            [(foot * 0.6, base), (belly, top * 0.4), (belly * p.u(0.4, 1), top * 0.75), (pole, top)]
        )
    upper, style = (
        shade * (p.u(0.3, 0.8) if p.chance(0.6) else p.u(0.8, 1.0)),
        p.pick(0.8, 0.12, 0.08),
    )
    if style == 0:
        p.lathe([(shade, height - deep), (upper, height)])
        if p.chance(0.3):
            p.lathe([(upper, height), (0, height)])
        if p.chance(0.6):
            p.lathe([(shade * 0.96, height - deep), (upper * 0.96, height)])
    elif style == 1:
        p.ball((0, 0, height - deep), (shade, shade, deep), 0.0, 1.0)
    else:
        p.ball((0, 0, height - deep / 2), (shade * 0.8, shade * 0.8, deep / 2 + 0.05))


def _desk_lamp(p: Parts) -> None:
    foot, pole = p.u(0.12, 0.25), p.u(0.01, 0.035)
    p.lathe([(0, 0), (foot, 0), (foot, 0.04), (0, 0.06)])
    knee = (0.0, p.u(-0.1, 0.35), p.u(0.4, 0.75))
    tip = (0.0, p.u(-0.6, -0.15), p.u(0.5, 1.0))
    p.tube((0, 0, 0.04), knee, pole)
    p.tube(knee, tip, pole)
    if p.chance(0.75):
        drop = p.u(0.05, 0.2)
        p.tube(tip, (0, tip[1] - p.u(0.02, 0.2), tip[2] - drop), 0.05, p.u(2, 3.5))
    else:
        p.box((0, tip[1], tip[2]), (p.u(0.05, 0.3), 0.12, 0.04))
    p.turn = p.count(0, 3)


VESSELS = {
    "bottle": bottle,
    "bowl": bowl,
    "cone": cone,
    "cup": cup,
    "lamp": lamp,
    "vase": vase,
}
