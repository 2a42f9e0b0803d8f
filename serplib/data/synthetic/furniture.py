"""Families of labelled objects: seats, tables, beds, cabinets and what stands at a wall."""

from __future__ import annotations

import math

from serplib.data.synthetic.surfaces import Parts, family


@family(0.93, 0.07)
def bathtub(p: Parts) -> None:
    wide, tall, taper, wall = p.u(0.38, 0.6), p.u(0.25, 0.42), p.u(0.7, 1.0), p.u(0.03, 0.12)
    if p.chance(0.45):  # round
        scale = (wide, 1)
        p.lathe([(taper * 0.9, 0), (taper, tall * 0.3), (1, tall * 2)], scale=scale)
        p.lathe([(0, 0.02), (taper * 0.85, 0.02), (1 - wall, tall * 2)], scale=scale)
        p.lathe([(1 - wall, tall * 2), (1 + wall, tall * 2)], scale=scale)
    else:
        for sx, sy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            x, y = (wall / 2, 1.0) if sx else (wide, wall / 2)
            lean = (1 - taper) * (wide if sx else 0.6)
            start, end = (sx * (wide - lean), sy * (1 - lean), 0), (sx * wide, sy, tall * 2)
            p.beam(start, end, (x, 0, 0), (0, y, 0))
        p.box((0, 0, 0.02), (wide * taper, taper, 0.02))
        p.maybe(0.5).box((0, 0, tall), (wide + wall, 1 + wall, tall))
    p.maybe(0.15).legs(wide * 0.7, 0.7, 0.05, 0.05, 0.02, 1)


@family(0.9, 0.05, 0.0, 0.05)
def bed(p: Parts) -> None:
    wide, lift, thick = p.u(0.5, 0.95), p.u(0.05, 0.3), p.u(0.08, 0.2)
    p.box((0, 0, lift + thick), (wide, 1, thick))
    p.maybe(0.7).box((0, 0, lift * 0.6), (wide * 1.02, 1.02, max(lift * 0.35, 0.03)))
    head, top, panel = p.u(0.25, 0.7), lift + 2 * thick, p.u(0.02, 0.06)
    if p.chance(0.9):
        half = (wide * p.u(1, 1.1), panel, head * 0.6 + 0.1)
        p.box((0, 1 + panel, head * 0.6 + lift * 0.3), half)
    if p.chance(0.4):
        foot = p.u(0.3, 0.7) * head
        p.box((0, -1 - panel, foot), (wide * 1.03, panel, foot))
    pillows = p.count(0, 2)
    for k in range(pillows):
        x = 0.0 if pillows == 1 else (k - 0.5) * wide
        p.ball((x, 0.78, top + 0.04), (wide * 0.38, 0.17, 0.08))
    if p.chance(0.6):
        p.legs(wide * 0.93, 0.93, lift + thick, 0.04, 0, p.count(0, 1))
    if p.chance(0.12):  # a bunk or canopy
        p.legs(wide, 1, 1.2, 0.03, 0, 0)
        p.box((0, 0, 1.2), (wide, 1, 0.02 if p.chance(0.5) else 0.1))


@family(0.65, 0.15, 0.05, 0.15)
def bench(p: Parts) -> None:
    deep, high, thick = p.u(0.2, 0.38), p.u(0.3, 0.5), p.u(0.015, 0.06)
    slats, back = p.count(3, 6), p.chance(0.6)
    if p.chance(0.4):
        for k in range(slats):
            p.box((0, (2 * (k + 0.5) / slats - 1) * deep, high), (1, deep / slats * 0.75, thick))
    else:
        p.box((0, 0, high), (1, deep, thick))
    top, lean = p.u(0.25, 0.5), p.u(0.0, 0.25)
    if back:
        rows = p.count(1, 4)
        for k in range(rows):
            z = top * (k + 0.6) / rows
            p.box((0, deep + lean * z, high + z), (1, thick, top / rows * 0.42), tilt=-lean)
    if p.chance(0.5):
        p.legs(p.u(0.75, 0.95), deep * 0.9, high, p.u(0.02, 0.05), 0, p.count(0, 1))
    else:
        for x in (-0.85, 0.85):
            p.box((x, 0, high / 2), (p.u(0.02, 0.08), deep * 0.9, high / 2))
    if back and p.chance(0.5):  # armrests
        arm = high + top * 0.5
        for x in (-1, 1):
            p.box((x, 0, arm), (0.03, deep, 0.02))
            p.box((x, -deep * 0.9, (high + arm) / 2), (0.02, 0.02, (arm - high) / 2))


@family(0.96, 0.02, 0.0, 0.02)
def chair(p: Parts) -> None:
    wide, deep, high, thick = p.u(0.38, 0.52), p.u(0.38, 0.52), p.u(0.7, 0.95), p.u(0.02, 0.09)
    p.slab(0.2, high, thick, wide, deep)
    top, lean, panel = p.u(0.7, 1.1), p.u(0.0, 0.3), p.u(0.015, 0.05)
    kind = p.pick(0.6, 0.2, 0.2)  # of the back: a panel, spindles, slats
    if kind == 0:
        start = p.u(0, 0.3) * top
        z = high + (top + start) / 2
        half = (wide * p.u(0.85, 1), panel, (top - start) / 2)
        p.box((0, deep + lean * (z - high), z), half, (p.u(0.8, 1), 1), tilt=-lean)
    else:
        count, y, z = p.count(3, 6), deep + lean * top, high + top
        for x in (-wide * 0.95, wide * 0.95):
            p.beam((x, deep, high), (x, y, z), (panel, 0, 0), (0, panel, 0))
        for k in range(count):
            if kind == 1:
                x = wide * 0.95 * (2 * (k + 0.5) / count - 1)
                p.tube((x, deep, high), (x, y, z), panel * 0.7)
            else:
                h, half = top * (k + 0.7) / count, (wide * 0.95, panel * 0.7, top / count * 0.3)
                p.box((0, deep + lean * h, high + h), half, tilt=-lean)
        p.box((0, y, z), (wide, panel, top * 0.08), tilt=-lean)
    _chair_base(p, wide, deep, high)
    if p.chance(0.45):  # armrests
        arm, reach = high + p.u(0.3, 0.5), p.u(0.6, 1.0)
        for x in (-wide - 0.03, wide + 0.03):
            p.box((x, deep * (1 - reach), arm), (0.04, deep * reach, 0.025))
            p.box((x, deep * (1 - 1.9 * reach), (arm + high) / 2), (0.03, 0.03, (arm - high) / 2))
            p.maybe(0.2).box((x, 0, (arm + high) / 2), (0.04, deep, (arm - high) / 2))


def _chair_base(p: Parts, wide: float, deep: float, high: float) -> None:
    base = p.pick(0.72, 0.16, 0.06, 0.06)
    if base == 0:
        p.legs(wide * 0.9, deep * 0.9, high, p.u(0.02, 0.055), p.u(0, 0.08), p.count(0, 2))
        if p.chance(0.4):  # stretchers
            z = high * p.u(0.2, 0.5)
            p.pair((wide * 0.9, 0, z), (0.02, deep * 0.9, 0.02))
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
        p.box((0, 0, high / 2), (wide, deep, high / 2))


@family(0.08, 0.02, 0.0, 0.9)
def sofa(p: Parts) -> None:
    deep, seat, lift = p.u(0.34, 0.54), p.u(0.08, 0.17), p.u(0.0, 0.1)
    back, arm, panel, side = p.u(0.22, 0.45), p.u(0.18, 0.34), p.u(0.06, 0.13), p.u(0.05, 0.15)
    p.box((0, 0, lift + seat), (1, deep, seat))
    p.box((0, deep - panel, lift + back), (1, panel, back), tilt=p.u(-0.2, 0))
    if p.chance(0.88):
        for x in (-(1 - side), 1 - side):
            p.box((x, 0, lift + arm), (side, deep, arm))
            z = lift + 2 * arm
            p.maybe(0.3).tube((x, -deep, z), (x, deep, z), side * 1.1)
    seats = p.count(1, 3)
    room = (1 - 2 * side) / seats
    if p.chance(0.7):  # cushions
        for k in range(seats):
            x, z = (2 * k + 1 - seats) * room, lift + 2 * seat
            p.box((x, -panel, z + 0.05), (room * 0.96, deep - panel, 0.06))
            p.maybe(0.6).box((x, deep - 2.6 * panel, z + 0.2), (room * 0.93, 0.07, 0.18), tilt=-0.2)
    p.maybe(0.4).legs(0.9, deep * 0.85, lift + 0.02, 0.03, 0, 0)
    p.maybe(0.12).box((-0.65, -deep * 1.6, lift + seat), (0.35, deep * 0.8, seat))  # a corner


@family()
def stool(p: Parts) -> None:
    wide, thick = p.u(0.2, 0.36), p.u(0.015, 0.07)
    if p.chance(0.65):
        p.drum(1 - thick, 1 + thick, wide)
    else:
        p.box((0, 0, 1), (wide, wide * p.u(0.7, 1.1), thick))
    base = p.pick(0.6, 0.28, 0.12)
    splay, rod = p.u(0, 0.15), p.u(0.015, 0.045)
    if base == 0:
        x = wide * 0.75
        p.legs(x, x, 1, rod, splay, p.count(0, 2))
        if p.chance(0.8):  # stretchers
            for z in (0.3, 0.55)[: p.count(1, 2)]:
                s = x + splay * (1 - z)
                for sign in (-1, 1):
                    p.tube((sign * s, -s, z), (sign * s, s, z), rod * 0.7)
                    p.tube((-s, sign * s, z), (s, sign * s, z), rod * 0.7)
    elif base == 1:
        p.tube((0, 0, 0), (0, 0, 1), rod)
        if p.chance(0.6):
            p.lathe([(0, 0), (wide * p.u(0.8, 1.2), 0), (rod * 1.5, 0.06)])
        else:
            for k in range(5):
                angle = 2 * math.pi * k / 5
                p.tube((0, 0, 0.15), (wide * math.cos(angle), wide * math.sin(angle), 0.02), rod)
        p.maybe(0.5).lathe([(wide * 0.8, 0.35), (wide * 0.8, 0.38)])
    else:
        p.lathe([(wide * 0.9, 0), (wide * p.u(0.4, 1), 0.5), (wide * 0.9, 1)])
    p.maybe(0.2).box((0, wide, 1.22), (wide * 0.8, 0.02, 0.1), tilt=-0.15)  # a low back


@family(0.2, 0.8)
def table(p: Parts) -> None:
    deep, thick = p.u(0.35, 0.75), p.u(0.015, 0.06)
    deep = deep if p.chance(0.75) else p.u(0.8, 1.0)
    high = p.u(0.35, 0.95) if p.chance(0.8) else p.u(0.9, 1.4)
    base = p.pick(0.72, 0.14, 0.14)
    x = 0.6 if p.slab(0.22, high, thick, 1, deep) else p.u(0.8, 0.97)  # how far out the legs stand
    y = deep * x
    if base == 0:
        p.legs(x, y, high, p.u(0.02, 0.06), p.u(-0.05, 0.05), p.count(0, 2))
        if p.chance(0.4):
            drop = p.u(0.04, 0.1)
            for sign in (-1, 1):
                p.box((0, sign * y, high - drop), (x, 0.01, drop))
                p.box((sign * x, 0, high - drop), (0.01, y, drop))
        if p.chance(0.2):
            p.box((0, 0, high * p.u(0.2, 0.5)), (x, y, 0.02))
    elif base == 1:
        p.tube((0, 0, 0), (0, 0, high), p.u(0.04, 0.15))
        p.lathe([(0, 0), (p.u(0.3, 0.5), 0), (0.05, 0.08)])
    else:
        for sign in (-1, 1):
            p.box((sign * x * 0.85, 0, high / 2), (p.u(0.02, 0.08), y, high / 2))


@family(0.97, 0.03)
def toilet(p: Parts) -> None:
    wide, deep, high = p.u(0.32, 0.42), p.u(0.42, 0.55), p.u(0.6, 0.8)
    foot, pinch, at, size = p.u(0.5, 0.85), p.u(0.45, 0.9), (0, -0.25, 0), (wide, deep)
    p.lathe([(foot, 0), (foot * pinch, high * 0.4), (1, high)], at, size)
    rim = high + 0.06
    p.lathe([(0, high), (1.05, high), (1.05, rim), (p.u(0.0, 0.7), rim)], at, size)
    p.maybe(0.4).lathe([(0.7, high), (0.3, high * 0.5), (0, high * 0.45)], at, size)
    if p.chance(0.6):
        p.box((0, 0.1, high * 0.45), (wide * p.u(0.4, 0.7), 0.35, high * 0.45))
    tank = p.u(0.3, 0.5)
    if p.chance(0.85):
        p.box((0, 0.4, high + tank * 0.9), (wide * p.u(1.0, 1.35), p.u(0.12, 0.2), tank))
        p.box((0, 0.4, high + tank * 1.9), (wide * 1.3, 0.2, 0.03))
    lid = (0, 0.27, high + deep * 1.6)
    p.maybe(0.4).beam((0, 0.2, high), lid, (wide, 0, 0), (0, 0.02, 0), (0.8, 1))


# ---- cabinets: z runs from `low` to `high` ------------------------------------------------------


def _carcass(p: Parts, wide: float, deep: float, low: float, high: float, shelves: int) -> None:
    """An open box: two sides, perhaps a back, and shelves from ``low`` to ``high``."""
    wall, middle, half = p.u(0.015, 0.05), (low + high) / 2, (high - low) / 2
    p.pair((wide, 0, middle), (wall, deep, half))
    for k in range(shelves):
        p.box((0, 0, low + (high - low) * k / (shelves - 1)), (wide, deep, wall))
    p.maybe(0.6).box((0, deep, middle), (wide, wall / 2, half))


def _drawers(p: Parts, wide: float, deep: float, low: float, high: float) -> None:
    """A closed box, with fronts and knobs in rows and columns."""
    p.box((0, 0, (low + high) / 2), (wide, deep, (high - low) / 2))
    rows, columns = p.count(1, 5), p.count(1, 2)
    step, room = (high - low) / rows, wide / columns
    fronts, knobs, insides = p.chance(0.6), p.chance(0.5), p.chance(0.35)
    for row in range(rows):
        for column in range(columns):
            x, z = (2 * column + 1 - columns) * room, low + step * (row + 0.5)
            if fronts:
                p.box((x, -deep - 0.01, z), (room * 0.92, 0.02, step * 0.44))
            if insides:
                p.box((x, 0, z), (room * 0.9, deep * 0.9, step * 0.4))
            if knobs:
                p.box((x, -deep - 0.04, z), (room * 0.15, 0.03, 0.02))


@family(0.12, 0.08, 0.0, 0.8)
def dresser(p: Parts) -> None:
    wide, deep, high, lift = p.u(0.55, 1.05), p.u(0.3, 0.48), p.u(1.0, 2.2), p.u(0.0, 0.25)
    _drawers(p, wide, deep, lift, high)
    if lift > 0.08:
        p.legs(wide * 0.93, deep * 0.9, lift, 0.04, 0, 0)
    p.maybe(0.5).box((0, 0, high), (wide * 1.05, deep * 1.08, 0.02))
    if p.chance(0.15):  # a mirror
        p.box((0, deep * 0.9, high + 0.45), (wide * p.u(0.5, 0.9), 0.02, 0.45))


@family(0.2, 0.1, 0.0, 0.7)
def night_stand(p: Parts) -> None:
    wide, deep, high = p.u(0.42, 0.63), p.u(0.32, 0.52), p.u(1.0, 1.5)
    kind = p.pick(0.5, 0.35, 0.15)
    lift = p.u(0.0, 0.2) if kind == 0 else high * p.u(0.4, 0.75)
    if kind < 2:
        _drawers(p, wide, deep, lift, high)
    else:
        _carcass(p, wide, deep, p.u(0.0, 0.2), high, p.count(2, 3))
    if kind == 1 or lift > 0.08:
        p.legs(wide * 0.93, deep * 0.93, lift, p.u(0.025, 0.05), 0, p.count(0, 2))
    if kind == 1 and p.chance(0.5):
        p.box((0, 0, lift * p.u(0.15, 0.5)), (wide * 0.95, deep * 0.95, 0.02))
    if p.chance(0.7):
        p.box((0, 0, high), (wide * p.u(1, 1.15), deep * p.u(1, 1.15), 0.025))


@family(0.75, 0.1, 0.0, 0.15)
def tv_stand(p: Parts) -> None:
    deep, high, kind, lift = p.u(0.25, 0.6), p.u(0.4, 1.6), p.pick(0.45, 0.35, 0.2), p.u(0.0, 0.15)
    if kind == 0:
        _carcass(p, 1, deep, lift, high, p.count(2, 4))
        for _ in range(p.count(0, 2)):
            p.box((p.u(-0.6, 0.6), 0, (lift + high) / 2), (0.02, deep, (high - lift) / 2))
    elif kind == 1:
        _drawers(p, 1, deep, lift, high)
    else:  # shelves between posts
        p.legs(0.93, deep * 0.9, high, p.u(0.02, 0.05), 0, p.count(0, 1))
        for k in range(p.count(2, 3)):
            p.box((0, 0, high * (1 - 0.42 * k)), (1, deep, 0.025))
    if p.chance(0.4):
        p.box((0, 0, high), (p.u(1, 1.1), deep * p.u(1, 1.1), 0.025))
    p.maybe(0.1).box((0, deep * 0.8, high + 0.5), (0.7, 0.05, 0.4))


@family(0.94, 0.03, 0.0, 0.03)
def mantel(p: Parts) -> None:
    deep, chimney = p.u(0.1, 0.5), p.chance(0.65)
    high = p.u(0.45, 0.95) if chimney else p.u(1.0, 1.8)
    post, lintel, shelf = p.u(0.1, 0.3), p.u(0.06, 0.2), p.u(0.02, 0.08)
    p.box((0, 0, high), (p.u(1.0, 1.15), deep * p.u(1.0, 1.25), shelf))
    opening = high - 2 * lintel
    p.box((0, 0, high - lintel), (1, deep, lintel))
    plinths = p.chance(0.4)
    for x in (-(1 - post), 1 - post):
        p.box((x, 0, opening / 2), (post, deep, opening / 2))
        if plinths:
            p.box((x, -deep * 0.2, 0.1), (post * 1.15, deep, 0.1))
            p.box((x, -deep, opening / 2), (post * 0.6, 0.03, opening * 0.35))
    if p.chance(0.45):  # a hearth
        p.box((0, -deep * 0.3, 0.04), (1.03, deep + p.u(0.05, 0.3), 0.05))
    if p.chance(0.65):  # a firebox, which reaches into the wall
        inner, depth = 1 - 2 * post, p.u(0.05, 0.25)
        y, narrow = deep + depth - 0.05, inner * p.u(0.6, 0.95)
        p.box((0, y + depth, opening / 2), (narrow, 0.01, opening / 2))
        p.box((0, y, 0.02), (inner, depth, 0.01))
        p.box((0, y, opening * 0.98), (inner, depth, 0.01))
        for sign in (-1, 1):
            start = (sign * inner, y - depth, opening / 2)
            end = (sign * narrow, y + depth, opening / 2)
            p.beam(start, end, (0.01, 0, 0), (0, 0, opening / 2))
    if chimney:  # with a panel or a mirror
        rise, breast, thin = p.u(0.25, 0.6), p.u(0.75, 1.0), deep * p.u(0.15, 0.6)
        p.box((0, deep - thin, high + rise), (breast, thin, rise))
        p.maybe(0.5).box((0, deep - 2 * thin, high + rise), (breast * 0.7, 0.03, rise * 0.7))
        p.maybe(0.4).box((0, deep - thin, high + 2 * rise), (breast * 1.06, thin * 1.2, 0.04))


@family(0.95, 0.05)
def range_hood(p: Parts) -> None:
    deep, rim, kind = p.u(0.4, 0.6), p.u(0.03, 0.15), p.pick(0.55, 0.3, 0.15)
    tall, neck, slope, back = p.u(0.6, 1.2), p.u(0.18, 0.4), p.u(0.1, 0.5), p.u(0.2, 0.4)
    p.box((0, 0, 0), (1, deep, rim))
    start, a, b = (0, 0, rim), (1, 0, 0), (0, deep, 0)
    if kind == 0:  # a pyramid below a chimney at the back
        end = deep - back
        p.beam(start, (0, end, rim + slope), a, b, (neck, back / deep))
        p.box((0, end, rim + slope + tall / 2), (neck, back, tall / 2))
    elif kind == 1:  # a wide slope
        p.beam(start, (0, deep * p.u(0, 0.6), rim + tall), a, b, (p.u(0.5, 1), p.u(0.3, 0.6)))
    else:
        p.box((0, deep * 0.4, tall / 2), (p.u(0.6, 1), deep * 0.6, tall / 2))


@family(0.95, 0.05)
def bookshelf(p: Parts) -> None:
    wide, deep, wall = p.u(0.4, 1.0), p.u(0.12, 0.28), p.u(0.01, 0.03)
    shelves, columns = p.count(3, 7), p.count(1, 3)
    for k in range(shelves):
        p.box((0, 0, 2 * k / (shelves - 1) - 1), (wide, deep, wall))
    for k in range(columns + 1):
        if 0 < k < columns or not p.chance(0.08):
            p.box((wide * (2 * k / columns - 1), 0, 0), (wall, deep, 1))
    p.maybe(0.6).box((0, deep, 0), (wide, wall * 0.5, 1))
    if p.chance(0.3):  # books
        for _ in range(p.count(2, 6)):
            k, half = p.count(0, shelves - 2), 1 / (shelves - 1) * p.u(0.5, 0.8)
            z = 2 * k / (shelves - 1) - 1 + half
            p.box((wide * p.u(-0.7, 0.7), 0, z), (wide * p.u(0.05, 0.25), deep * 0.8, half))
    if p.chance(0.2):  # a cupboard below
        p.box((0, 0, -0.75), (wide, deep * p.u(1, 1.5), 0.25))


@family(0.1, 0.1, 0.0, 0.8)
def desk(p: Parts) -> None:
    deep, high, thick = p.u(0.42, 0.65), p.u(0.75, 1.05), p.u(0.02, 0.05)
    p.box((0, 0, high), (1, deep, thick))
    left, right = p.pick(0.3, 0.55, 0.15), p.pick(0.3, 0.55, 0.15)
    for sign, kind in ((-1, left), (1, right)):
        if kind == 0:
            p.box((sign * 0.95, 0, high / 2), (0.03, deep * 0.95, high / 2))
        elif kind == 1:  # drawers
            half, start = p.u(0.18, 0.3), 0.0 if p.chance(0.8) else high * 0.4
            size = (half, deep * 0.95, (high - start) / 2)
            p.box((sign * (1 - half), 0, (high + start) / 2), size)
        else:
            for y in (-deep * 0.9, deep * 0.9):
                p.box((sign * 0.93, y, high / 2), (0.035, 0.035, high / 2))
    if p.chance(0.75):
        drop = p.u(0.2, 1.0)
        p.box((0, deep * 0.9, high * (1 - drop / 2)), (0.95, 0.02, high * drop / 2))
    p.maybe(0.3).box((0, -deep * 0.2, high * 0.88), (0.5, deep * 0.7, high * 0.08))
    if p.chance(0.15):  # a hutch
        p.box((0, deep * 0.8, high * 1.25), (0.95, deep * 0.2, high * 0.25))
    elif p.chance(0.12):  # an L
        p.box((0.7, -deep * 1.6, high), (0.3, deep * 0.7, thick))
        p.box((0.7, -deep * 2.2, high / 2), (0.3, 0.03, high / 2))


@family(0.85, 0.15)
def door(p: Parts) -> None:
    wide, thick, kind = p.u(0.32, 0.6), p.u(0.01, 0.06), p.pick(0.6, 0.25, 0.15)
    if kind < 2:
        p.box((0, 0, 0), (wide, thick, 1))
        if p.chance(0.4):
            p.box((0, 0, p.u(-0.2, 0.4)), (wide * 0.6, thick * 1.2, p.u(0.15, 0.4)))
    if kind > 0:  # a frame
        jamb = p.u(0.03, 0.08)
        p.pair((wide + jamb, 0, 0), (jamb, thick * 1.5, 1))
        p.box((0, 0, 1 + jamb), (wide + 2 * jamb, thick * 1.5, jamb))
    if p.chance(0.5):
        for y in (-(thick + 0.04), thick + 0.04):
            p.ball((wide * 0.85, y, -0.05), (0.04, 0.04, 0.04))
