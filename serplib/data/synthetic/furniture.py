"""Labelled families of objects: seats, tables and bathrooms (see ``surfaces`` for ``Parts``)."""

from __future__ import annotations

import math

from serplib.data.synthetic.surfaces import Parts


def bathtub(p: Parts) -> None:
    wide, deep, tall = p.u(0.38, 0.6), 1.0, p.u(0.25, 0.42)
    taper, wall = p.u(0.7, 1.0), p.u(0.03, 0.12)
    round_ = p.chance(0.45)
    if round_:
        outer = [(taper * 0.9, 0), (taper, tall * 0.3), (1, tall * 2)]
        p.lathe(outer, scale=(wide, deep))
        p.lathe([(0, 0.02), (taper * 0.85, 0.02), (1 - wall, tall * 2)], scale=(wide, deep))
        p.lathe([(1 - wall, tall * 2), (1 + wall, tall * 2)], scale=(wide, deep))
    else:
        for sx, sy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            x, y = (wall / 2, deep) if sx else (wide, wall / 2)
            lean = (1 - taper) * (wide if sx else deep * 0.6)
            p.beam(
                (sx * (wide - lean), sy * (deep - lean), 0),
                (sx * wide, sy * deep, tall * 2),
                (x, 0, 0),
                (0, y, 0),
            )
        p.box((0, 0, 0.02), (wide * taper, deep * taper, 0.02))
        if p.chance(0.5):
            p.box((0, 0, tall), (wide + wall, deep + wall, tall))
    if p.chance(0.15):
        p.legs(wide * 0.7, deep * 0.7, 0.05, 0.05, 0.02, 1)
    p.turn = p.pick(0.93, 0.07)


def bed(p: Parts) -> None:
    wide, deep, lift, thick = p.u(0.5, 0.95), 1.0, p.u(0.05, 0.3), p.u(0.08, 0.2)
    p.box((0, 0, lift + thick), (wide, deep, thick))
    if p.chance(0.7):
        p.box((0, 0, lift * 0.6), (wide * 1.02, deep * 1.02, max(lift * 0.35, 0.03)))
    head, top = p.u(0.25, 0.7), lift + 2 * thick
    panel = p.u(0.02, 0.06)
    if p.chance(0.9):
        p.box(
            (0, deep + panel, head * 0.6 + lift * 0.3),
            (wide * p.u(1, 1.1), panel, head * 0.6 + 0.1),
        )
    if p.chance(0.4):
        foot = p.u(0.3, 0.7) * head
        p.box((0, -deep - panel, foot), (wide * 1.03, panel, foot))
    pillows = p.count(0, 2)
    for k in range(pillows):
        x = 0.0 if pillows == 1 else (k - 0.5) * wide
        p.ball((x, deep * 0.78, top + 0.04), (wide * 0.38, 0.17, 0.08))
    if p.chance(0.6):
        p.legs(wide * 0.93, deep * 0.93, lift + thick, 0.04, 0, p.count(0, 1))
    if p.chance(0.12):  # a bunk or canopy
        p.legs(wide, deep, 1.2, 0.03, 0, 0)
        p.box((0, 0, 1.2), (wide, deep, 0.02 if p.chance(0.5) else 0.1))
    p.turn = p.pick(0.9, 0.05, 0.0, 0.05)


def bench(p: Parts) -> None:
    wide, deep, high, thick = 1.0, p.u(0.2, 0.38), p.u(0.3, 0.5), p.u(0.015, 0.06)
    slats, back = p.count(3, 6), p.chance(0.6)
    if p.chance(0.4):
        for k in range(slats):
            p.box((0, (2 * (k + 0.5) / slats - 1) * deep, high), (wide, deep / slats * 0.75, thick))
    else:
        p.box((0, 0, high), (wide, deep, thick))
    top, lean = p.u(0.25, 0.5), p.u(0.0, 0.25)
    if back:
        rows = p.count(1, 4)
        for k in range(rows):
            z = top * (k + 0.6) / rows
            p.box((0, deep + lean * z, high + z), (wide, thick, top / rows * 0.42), tilt=-lean)
    if p.chance(0.5):
        p.legs(wide * p.u(0.75, 0.95), deep * 0.9, high, p.u(0.02, 0.05), 0, p.count(0, 1))
    else:
        for sign in (-1, 1):
            p.box((sign * wide * 0.85, 0, high / 2), (p.u(0.02, 0.08), deep * 0.9, high / 2))
    if back and p.chance(0.5):
        arm = high + top * 0.5
        for sign in (-1, 1):
            p.box((sign * wide, 0, arm), (0.03, deep, 0.02))
            p.box((sign * wide, -deep * 0.9, (high + arm) / 2), (0.02, 0.02, (arm - high) / 2))
    p.turn = p.pick(0.65, 0.15, 0.05, 0.15)


def chair(p: Parts) -> None:
    wide, deep, high, thick = p.u(0.38, 0.52), p.u(0.38, 0.52), p.u(0.7, 0.95), p.u(0.02, 0.09)
    if p.chance(0.2):
        p.lathe(
            [(0, high - thick), (1, high - thick), (1, high + thick), (0, high + thick)],
            scale=(wide, deep),
        )
    else:
        p.box((0, 0, high), (wide, deep, thick), (1, 1))
    top, lean, panel = p.u(0.7, 1.1), p.u(0.0, 0.3), p.u(0.015, 0.05)
    kind = p.pick(0.6, 0.2, 0.2)
    z = high + top / 2
    if kind == 0:
        start = p.u(0, 0.3) * top
        z, half = high + (top + start) / 2, (top - start) / 2
        p.box(
            (0, deep + lean * (z - high), z),
            (wide * p.u(0.85, 1), panel, half),
            (p.u(0.8, 1), 1),
            tilt=-lean,
        )
    else:
        count = p.count(3, 6)
        for sign in (-1, 1):
            p.beam(
                (sign * wide * 0.95, deep, high),
                (sign * wide * 0.95, deep + lean * top, high + top),
                (panel, 0, 0),
                (0, panel, 0),
            )
        for k in range(count):
            if kind == 1:
                x = wide * 0.95 * (2 * (k + 0.5) / count - 1)
                p.tube((x, deep, high), (x, deep + lean * top, high + top), panel * 0.7)
            else:
                h = top * (k + 0.7) / count
                p.box(
                    (0, deep + lean * h, high + h),
                    (wide * 0.95, panel * 0.7, top / count * 0.3),
                    tilt=-lean,
                )
        p.box((0, deep + lean * top, high + top), (wide, panel, top * 0.08), tilt=-lean)
    base = p.pick(0.72, 0.16, 0.06, 0.06)
    _chair_base(p, base, wide, deep, high)
    if p.chance(0.45):
        arm, reach = high + p.u(0.3, 0.5), p.u(0.6, 1.0)
        for sign in (-1, 1):
            x = sign * (wide + 0.03)
            p.box((x, deep * (1 - reach), arm), (0.04, deep * reach, 0.025))
            p.box((x, deep * (1 - 1.9 * reach), (arm + high) / 2), (0.03, 0.03, (arm - high) / 2))
            if p.chance(0.2):
                p.box((x, 0, (arm + high) / 2), (0.04, deep, (arm - high) / 2))
    p.turn = p.pick(0.96, 0.02, 0.0, 0.02)


def _chair_base(p: Parts, base: int, wide: float, deep: float, high: float) -> None:
    if base == 0:
        p.legs(wide * 0.9, deep * 0.9, high, p.u(0.02, 0.055), p.u(0, 0.08), p.count(0, 2))
        if p.chance(0.4):
            z = high * p.u(0.2, 0.5)
            for sign in (-1, 1):
                p.box((sign * wide * 0.9, 0, z), (0.02, deep * 0.9, 0.02))
            p.box((0, 0, z), (wide * 0.9, 0.02, 0.02))
    elif base == 1:  # a pole with a star
        arms, reach = p.count(4, 5), p.u(0.4, 0.55)
        p.tube((0, 0, 0.12), (0, 0, high), p.u(0.03, 0.06))
        for k in range(arms):
            angle = 2 * math.pi * k / arms
            p.tube((0, 0, 0.15), (reach * math.cos(angle), reach * math.sin(angle), 0.06), 0.035)
    elif base == 2:  # a pole with a disc
        p.tube((0, 0, 0), (0, 0, high), p.u(0.03, 0.06))
        p.lathe([(0, 0), (p.u(0.3, 0.5), 0), (0.05, 0.05)])
    else:  # a solid body
        p.box((0, 0, high / 2), (wide, deep, high / 2), (1, 1))


def sofa(p: Parts) -> None:
    wide, deep, seat = 1.0, p.u(0.34, 0.54), p.u(0.08, 0.17)
    lift, back, arm = p.u(0.0, 0.1), p.u(0.22, 0.45), p.u(0.18, 0.34)
    panel, side = p.u(0.06, 0.13), p.u(0.05, 0.15)
    p.box((0, 0, lift + seat), (wide, deep, seat))
    p.box((0, deep - panel, lift + back), (wide, panel, back), tilt=p.u(-0.2, 0))
    if p.chance(0.88):
        for sign in (-1, 1):
            p.box((sign * (wide - side), 0, lift + arm), (side, deep, arm))
            if p.chance(0.3):
                x, z = sign * (wide - side), lift + 2 * arm
                p.tube((x, -deep, z), (x, deep, z), side * 1.1)
    seats = p.count(1, 3)
    room = (wide - 2 * side) / seats
    if p.chance(0.7):
        for k in range(seats):
            x = (2 * k + 1 - seats) * room
            p.box((x, -panel, lift + 2 * seat + 0.05), (room * 0.96, deep - panel, 0.06))
            if p.chance(0.6):
                p.box(
                    (x, deep - 2.6 * panel, lift + 2 * seat + 0.2),
                    (room * 0.93, 0.07, 0.18),
                    tilt=-0.2,
                )
    if p.chance(0.4):
        p.legs(wide * 0.9, deep * 0.85, lift + 0.02, 0.03, 0, 0)
    if p.chance(0.12):  # a corner
        p.box((-wide * 0.65, -deep * 1.6, lift + seat), (wide * 0.35, deep * 0.8, seat))
    p.turn = p.pick(0.08, 0.02, 0.0, 0.9)


def stool(p: Parts) -> None:
    wide, high, thick = p.u(0.2, 0.36), 1.0, p.u(0.015, 0.07)
    if p.chance(0.65):
        p.lathe([(0, high - thick), (wide, high - thick), (wide, high + thick), (0, high + thick)])
    else:
        p.box((0, 0, high), (wide, wide * p.u(0.7, 1.1), thick))
    base = p.pick(0.6, 0.28, 0.12)
    splay, rod = p.u(0, 0.15), p.u(0.015, 0.045)
    if base == 0:
        x = wide * 0.75
        p.legs(x, x, high, rod, splay, p.count(0, 2))
        if p.chance(0.8):
            for z in (0.3, 0.55)[: p.count(1, 2)]:
                s = x + splay * (1 - z)
                for sign in (-1, 1):
                    p.tube((sign * s, -s, z), (sign * s, s, z), rod * 0.7)
                    p.tube((-s, sign * s, z), (s, sign * s, z), rod * 0.7)
    elif base == 1:
        p.tube((0, 0, 0), (0, 0, high), rod)
        if p.chance(0.6):
            p.lathe([(0, 0), (wide * p.u(0.8, 1.2), 0), (rod * 1.5, 0.06)])
        else:
            for k in range(5):
                angle = 2 * math.pi * k / 5
                p.tube((0, 0, 0.15), (wide * math.cos(angle), wide * math.sin(angle), 0.02), rod)
        if p.chance(0.5):
            p.lathe([(wide * 0.8, 0.35), (wide * 0.8, 0.38)])
    else:
        waist = wide * p.u(0.4, 1)
        p.lathe([(wide * 0.9, 0), (waist, 0.5), (wide * 0.9, high)])
    if p.chance(0.2):  # a low back
        p.box((0, wide, high + 0.22), (wide * 0.8, 0.02, 0.1), tilt=-0.15)


def table(p: Parts) -> None:
    wide, deep, thick = 1.0, p.u(0.35, 0.75), p.u(0.015, 0.06)
    deep = deep if p.chance(0.75) else p.u(0.8, 1.0)
    high = p.u(0.35, 0.95) if p.chance(0.8) else p.u(0.9, 1.4)
    base = p.pick(0.72, 0.14, 0.14)
    if p.chance(0.22):
        p.lathe(
            [(0, high - thick), (1, high - thick), (1, high + thick), (0, high + thick)],
            scale=(wide, deep),
        )
        inset = 0.6
    else:
        p.box((0, 0, high), (wide, deep, thick))
        inset = p.u(0.8, 0.97)
    if base == 0:
        p.legs(wide * inset, deep * inset, high, p.u(0.02, 0.06), p.u(-0.05, 0.05), p.count(0, 2))
        if p.chance(0.4):
            drop = p.u(0.04, 0.1)
            for sign in (-1, 1):
                p.box((0, sign * deep * inset, high - drop), (wide * inset, 0.01, drop))
                p.box((sign * wide * inset, 0, high - drop), (0.01, deep * inset, drop))
        if p.chance(0.2):
            p.box((0, 0, high * p.u(0.2, 0.5)), (wide * inset, deep * inset, 0.02))
    elif base == 1:
        p.tube((0, 0, 0), (0, 0, high), p.u(0.04, 0.15))
        p.lathe([(0, 0), (p.u(0.3, 0.5), 0), (0.05, 0.08)])
    else:
        for sign in (-1, 1):
            p.box(
                (sign * wide * inset * 0.85, 0, high / 2), (p.u(0.02, 0.08), deep * inset, high / 2)
            )
    p.turn = p.pick(0.2, 0.8)


def toilet(p: Parts) -> None:
    wide, deep, high = p.u(0.32, 0.42), p.u(0.42, 0.55), p.u(0.6, 0.8)
    foot, pinch = p.u(0.5, 0.85), p.u(0.45, 0.9)
    p.lathe([(foot, 0), (foot * pinch, high * 0.4), (1, high)], (0, -0.25, 0), (wide, deep))
    p.lathe(
        [(0, high), (1.05, high), (1.05, high + 0.06), (p.u(0.0, 0.7), high + 0.06)],
        (0, -0.25, 0),
        (wide, deep),
    )
    if p.chance(0.4):
        p.lathe([(0.7, high), (0.3, high * 0.5), (0, high * 0.45)], (0, -0.25, 0), (wide, deep))
    if p.chance(0.6):
        p.box((0, 0.1, high * 0.45), (wide * p.u(0.4, 0.7), 0.35, high * 0.45))
    tank = p.u(0.3, 0.5)
    if p.chance(0.85):
        p.box((0, 0.4, high + tank * 0.9), (wide * p.u(1.0, 1.35), p.u(0.12, 0.2), tank))
        p.box((0, 0.4, high + tank * 1.9), (wide * 1.3, 0.2, 0.03))
    if p.chance(0.4):  # the lid is up
        p.beam((0, 0.2, high), (0, 0.27, high + deep * 1.6), (wide, 0, 0), (0, 0.02, 0), (0.8, 1))
    p.turn = p.pick(0.97, 0.03)


FURNITURE = {
    "bathtub": bathtub,
    "bed": bed,
    "bench": bench,
    "chair": chair,
    "sofa": sofa,
    "stool": stool,
    "table": table,
    "toilet": toilet,
}
