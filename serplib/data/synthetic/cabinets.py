"""Labelled families of objects: cabinets, desks, pianos and what stands at a wall."""

from __future__ import annotations

from serplib.data.synthetic.surfaces import Parts


def _carcass(p: Parts, wide: float, deep: float, low: float, high: float, shelves: int) -> None:
    """An open box: two sides, perhaps a back, and shelves from ``low`` to ``high``."""
    wall = p.u(0.015, 0.05)
    for sign in (-1, 1):
        p.box((sign * wide, 0, (low + high) / 2), (wall, deep, (high - low) / 2))
    for k in range(shelves):
        p.box((0, 0, low + (high - low) * k / (shelves - 1)), (wide, deep, wall))
    if p.chance(0.6):
        p.box((0, deep, (low + high) / 2), (wide, wall / 2, (high - low) / 2))


def _drawers(p: Parts, wide: float, deep: float, low: float, high: float) -> None:
    """A closed box, with fronts and knobs in rows and columns."""
    p.box((0, 0, (low + high) / 2), (wide, deep, (high - low) / 2))
    rows, columns = p.count(1, 5), p.count(1, 2)
    step, room = (high - low) / rows, wide / columns
    fronts, knobs, boxes = p.chance(0.6), p.chance(0.5), p.chance(0.35)
    for row in range(rows):
        for column in range(columns):
            x, z = (2 * column + 1 - columns) * room, low + step * (row + 0.5)
            if fronts:
                p.box((x, -deep - 0.01, z), (room * 0.92, 0.02, step * 0.44))
            if boxes:  # drawers have an inside
                p.box((x, 0, z), (room * 0.9, deep * 0.9, step * 0.4))
            if knobs:
                p.box((x, -deep - 0.04, z), (room * 0.15, 0.03, 0.02))


def dresser(p: Parts) -> None:
    wide, deep, high = p.u(0.55, 1.05), p.u(0.3, 0.48), p.u(1.0, 2.2)
    lift = p.u(0.0, 0.25)
    _drawers(p, wide, deep, lift, high)
    if lift > 0.08:
        p.legs(wide * 0.93, deep * 0.9, lift, 0.04, 0, 0)
    if p.chance(0.5):
        p.box((0, 0, high), (wide * 1.05, deep * 1.08, 0.02))
    if p.chance(0.15):  # a mirror
        p.box((0, deep * 0.9, high + 0.45), (wide * p.u(0.5, 0.9), 0.02, 0.45))
    p.turn = p.pick(0.12, 0.08, 0.0, 0.8)


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
    p.turn = p.pick(0.2, 0.1, 0.0, 0.7)


def tv_stand(p: Parts) -> None:
    wide, deep, high, kind = 1.0, p.u(0.25, 0.6), p.u(0.4, 1.6), p.pick(0.45, 0.35, 0.2)
    lift = p.u(0.0, 0.15)
    if kind == 0:
        _carcass(p, wide, deep, lift, high, p.count(2, 4))
        for _ in range(p.count(0, 2)):
            p.box((wide * p.u(-0.6, 0.6), 0, (lift + high) / 2), (0.02, deep, (high - lift) / 2))
    elif kind == 1:
        _drawers(p, wide, deep, lift, high)
    else:  # shelves between posts
        p.legs(wide * 0.93, deep * 0.9, high, p.u(0.02, 0.05), 0, p.count(0, 1))
        for k in range(p.count(2, 3)):
            p.box((0, 0, high * (1 - 0.42 * k)), (wide, deep, 0.025))
    if p.chance(0.4):
        p.box((0, 0, high), (wide * p.u(1, 1.1), deep * p.u(1, 1.1), 0.025))
    if p.chance(0.1):
        p.box((0, deep * 0.8, high + 0.5), (wide * 0.7, 0.05, 0.4))
    p.turn = p.pick(0.75, 0.1, 0.0, 0.15)


def mantel(p: Parts) -> None:
    wide, deep, above = 1.0, p.u(0.1, 0.5), p.chance(0.65)
    high = p.u(0.45, 0.95) if above else p.u(1.0, 1.8)
    post, lintel, shelf = p.u(0.1, 0.3), p.u(0.06, 0.2), p.u(0.02, 0.08)
    p.box((0, 0, high), (wide * p.u(1.0, 1.15), deep * p.u(1.0, 1.25), shelf))
    opening = high - 2 * lintel
    p.box((0, 0, high - lintel), (wide, deep, lintel))
    plinths = p.chance(0.4)
    for sign in (-1, 1):
        x = sign * (wide - post)
        p.box((x, 0, opening / 2), (post, deep, opening / 2))
        if plinths:
            p.box((x, -deep * 0.2, 0.1), (post * 1.15, deep, 0.1))
            p.box((x, -deep, opening / 2), (post * 0.6, 0.03, opening * 0.35))
    if p.chance(0.45):  # a hearth
        p.box((0, -deep * 0.3, 0.04), (wide * 1.03, deep + p.u(0.05, 0.3), 0.05))
    if p.chance(0.65):  # a firebox, which reaches into the wall
        inner, depth = wide - 2 * post, p.u(0.05, 0.25)
        y, narrow = deep + depth - 0.05, inner * p.u(0.6, 0.95)
        p.box((0, y + depth, opening / 2), (narrow, 0.01, opening / 2))
        p.box((0, y, 0.02), (inner, depth, 0.01))
        p.box((0, y, opening * 0.98), (inner, depth, 0.01))
        for sign in (-1, 1):
            start, end = (
                (sign * inner, y - depth, opening / 2),
                (sign * narrow, y + depth, opening / 2),
            )
            p.beam(start, end, (0.01, 0, 0), (0, 0, opening / 2))
    if above:  # the chimney, with a panel or a mirror
        rise, breast, thin = p.u(0.25, 0.6), wide * p.u(0.75, 1.0), deep * p.u(0.15, 0.6)
        p.box((0, deep - thin, high + rise), (breast, thin, rise))
        if p.chance(0.5):
            p.box((0, deep - 2 * thin, high + rise), (breast * 0.7, 0.03, rise * 0.7))
        if p.chance(0.4):
            p.box((0, deep - thin, high + 2 * rise), (breast * 1.06, thin * 1.2, 0.04))
    p.turn = p.pick(0.94, 0.03, 0.0, 0.03)


def range_hood(p: Parts) -> None:
    wide, deep, rim = 1.0, p.u(0.4, 0.6), p.u(0.03, 0.15)
    kind, tall, neck = p.pick(0.55, 0.3, 0.15), p.u(0.6, 1.2), p.u(0.18, 0.4)
    slope, back = p.u(0.1, 0.5), p.u(0.2, 0.4)
    p.box((0, 0, 0), (wide, deep, rim))
    if kind == 0:  # a pyramid below a chimney at the back
        end = deep - back
        p.beam((0, 0, rim), (0, end, rim + slope), (wide, 0, 0), (0, deep, 0), (neck, back / deep))
        p.box((0, end, rim + slope + tall / 2), (neck, back, tall / 2))
    elif kind == 1:  # a wide slope
        p.beam(
            (0, 0, rim),
            (0, deep * p.u(0, 0.6), rim + tall),
            (wide, 0, 0),
            (0, deep, 0),
            (p.u(0.5, 1), p.u(0.3, 0.6)),
        )
    else:
        p.box((0, deep * 0.4, tall / 2), (wide * p.u(0.6, 1), deep * 0.6, tall / 2))
    p.turn = p.pick(0.95, 0.05)


def piano(p: Parts) -> None:
    if p.chance(0.5):  # upright
        wide, deep, high, key = 1.0, p.u(0.22, 0.35), p.u(1.3, 1.8), p.u(0.6, 0.8)
        p.box((0, deep, high / 2), (wide, deep, high / 2))
        reach = p.u(0.2, 0.35)
        p.box((0, -reach, high * 0.5), (wide, reach, p.u(0.06, 0.12)))
        p.box((0, -reach, high * 0.5 + 0.1), (wide * 0.9, reach * 0.6, 0.02))
        for sign in (-1, 1):
            p.box((sign * wide * 0.95, -reach * 1.6, high * 0.25), (0.05, 0.05, high * 0.25))
        if p.chance(0.4):
            p.box((0, deep, high), (wide * 1.03, deep * 1.1, 0.03))
        if p.chance(0.3):
            p.box((0, -reach * 2 - 0.4, key * 0.6), (0.35, 0.15, 0.04))
            p.legs(0.3, 0.1, key * 0.1, 0.03, 0, 0)
    else:  # grand
        wide, deep, high = 0.85, p.u(0.7, 1.05), p.u(0.75, 1.0)
        body, narrow = p.u(0.08, 0.16), p.u(0.3, 0.6)
        p.beam(
            (0, -deep, high),
            (-wide * (1 - narrow), deep, high),
            (wide, 0, 0),
            (0, 0, body),
            (narrow, 1),
        )
        p.ball((-wide * (1 - narrow), deep, high), (wide * narrow, 0.25, body))
        p.box((0, -deep - 0.12, high - body * 0.4), (wide, 0.15, body * 0.6))
        for x, y in ((-0.7, -0.9), (0.7, -0.9), (-0.5, 0.8)):
            p.tube((x * wide, y * deep, 0), (x * wide, y * deep, high), p.u(0.03, 0.07))
        if p.chance(0.6):  # the lid is up, hinged at the straight side
            rise = p.u(0.5, 1.0)
            p.beam(
                (-wide * 0.95, 0, high + body),
                (wide * 0.6, 0, high + body + rise),
                (0, deep * 0.95, 0),
                (0, 0, 0.01),
                (p.u(0.5, 0.9), 1),
            )
        if p.chance(0.3):
            p.box((0, -deep - 0.6, high * 0.5), (0.35, 0.15, 0.04))
    p.turn = p.pick(0.5, 0.1, 0.0, 0.4)


def bookshelf(p: Parts) -> None:
    wide, deep, tall, wall = p.u(0.4, 1.0), p.u(0.12, 0.28), 1.0, p.u(0.01, 0.03)
    shelves, columns = p.count(3, 7), p.count(1, 3)
    for k in range(shelves):
        z = tall * (2 * k / (shelves - 1) - 1)
        p.box((0, 0, z), (wide, deep, wall))
    for k in range(columns + 1):
        x = wide * (2 * k / columns - 1)
        if 0 < k < columns or not p.chance(0.08):
            p.box((x, 0, 0), (wall, deep, tall))
    if p.chance(0.6):
        p.box((0, deep, 0), (wide, wall * 0.5, tall))
    if p.chance(0.3):  # books
        for _ in range(p.count(2, 6)):
            k, half = p.count(0, shelves - 2), tall / (shelves - 1) * p.u(0.5, 0.8)
            z = tall * (2 * k / (shelves - 1) - 1) + half
            p.box((wide * p.u(-0.7, 0.7), 0, z), (wide * p.u(0.05, 0.25), deep * 0.8, half))
    if p.chance(0.2):  # a cupboard below
        p.box((0, 0, -tall * 0.75), (wide, deep * p.u(1, 1.5), tall * 0.25))
    p.turn = p.pick(0.95, 0.05)


def desk(p: Parts) -> None:
    wide, deep, high, thick = 1.0, p.u(0.42, 0.65), p.u(0.75, 1.05), p.u(0.02, 0.05)
    p.box((0, 0, high), (wide, deep, thick))
    left, right = p.pick(0.3, 0.55, 0.15), p.pick(0.3, 0.55, 0.15)
    for sign, kind in ((-1, left), (1, right)):
        if kind == 0:
            p.box((sign * wide * 0.95, 0, high / 2), (0.03, deep * 0.95, high / 2))
        elif kind == 1:  # drawers
            half = p.u(0.18, 0.3)
            start = 0.0 if p.chance(0.8) else high * 0.4
            p.box(
                (sign * (wide - half), 0, (high + start) / 2),
                (half, deep * 0.95, (high - start) / 2),
            )
        else:
            for sy in (-1, 1):
                p.box((sign * wide * 0.93, sy * deep * 0.9, high / 2), (0.035, 0.035, high / 2))
    if p.chance(0.75):
        drop = p.u(0.2, 1.0)
        p.box((0, deep * 0.9, high * (1 - drop / 2)), (wide * 0.95, 0.02, high * drop / 2))
    if p.chance(0.3):
        p.box((0, -deep * 0.2, high * 0.88), (wide * 0.5, deep * 0.7, high * 0.08))
    if p.chance(0.15):  # a hutch
        p.box((0, deep * 0.8, high * 1.25), (wide * 0.95, deep * 0.2, high * 0.25))
    elif p.chance(0.12):  # an L
        p.box((wide * 0.7, -deep * 1.6, high), (wide * 0.3, deep * 0.7, thick))
        p.box((wide * 0.7, -deep * 2.2, high / 2), (wide * 0.3, 0.03, high / 2))
    p.turn = p.pick(0.1, 0.1, 0.0, 0.8)


def door(p: Parts) -> None:
    wide, tall, thick = p.u(0.32, 0.6), 1.0, p.u(0.01, 0.06)
    kind = p.pick(0.6, 0.25, 0.15)
    if kind < 2:
        p.box((0, 0, 0), (wide, thick, tall))
        if p.chance(0.4):
            p.box((0, 0, p.u(-0.2, 0.4)), (wide * 0.6, thick * 1.2, tall * p.u(0.15, 0.4)))
    if kind > 0:
        jamb = p.u(0.03, 0.08)
        for sign in (-1, 1):
            p.box((sign * (wide + jamb), 0, 0), (jamb, thick * 1.5, tall))
        p.box((0, 0, tall + jamb), (wide + 2 * jamb, thick * 1.5, jamb))
    if p.chance(0.5):
        for sign in (-1, 1):
            p.ball((wide * 0.85, sign * (thick + 0.04), -0.05), (0.04, 0.04, 0.04))
    p.turn = p.pick(0.85, 0.15)


CABINETS = {
    "bookshelf": bookshelf,
    "desk": desk,
    "door": door,
    "dresser": dresser,
    "mantel": mantel,
    "night_stand": night_stand,
    "piano": piano,
    "range_hood": range_hood,
    "tv_stand": tv_stand,
}
