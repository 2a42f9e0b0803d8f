"""Labelled families of objects: vehicles, instruments, machines and tents; and the list of all.

A family is a function of a ``Parts`` (see ``surfaces``): it draws proportions and emits parts,
z up, front towards -y unless it turns the whole. Lengths are relative: clouds are scaled later.
The proportions, and how often each heading occurs, follow ModelNet40's training shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from serplib.data.synthetic.cabinets import CABINETS
from serplib.data.synthetic.furniture import FURNITURE
from serplib.data.synthetic.surfaces import Parts, Point
from serplib.data.synthetic.vessels import VESSELS


def airplane(p: Parts) -> None:
    body, span, sweep = p.u(0.055, 0.12), p.u(0.7, 1.15), p.u(0.0, 0.5)
    nose, tail = p.u(0.12, 0.3), p.u(0.25, 0.5)
    tip = p.u(0.1, 0.4) * body
    p.lathe(
        [(0, -1), (body * 0.6, -1 + nose * 0.3), (body, -1 + nose), (body, 1 - tail), (tip, 1)],
        axis=1,
    )
    at, chord, thin = p.u(-0.25, 0.1), p.u(0.14, 0.3), p.u(0.008, 0.02)
    level, rise = body * p.u(-0.7, 0.5), p.u(-0.02, 0.15)
    fin, reach, back = p.u(0.22, 0.45), p.u(0.25, 0.45), p.u(0.08, 0.14)
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


def _plate(p: Parts, start: Point, end: Point, half: float, taper: float = 1.0) -> None:
    """A thin sheet between two points, ``half`` as wide to either side in x."""
    p.beam(start, end, (half, 0, 0), (0, 0.004, 0.004), (taper, 1))


def car(p: Parts) -> None:
    wide, tall, floor = p.u(0.38, 0.48), p.u(0.52, 0.78), p.u(0.08, 0.14)
    belt = floor + (tall - floor) * p.u(0.48, 0.6)
    kind = p.pick(0.6, 0.28, 0.12)
    front = p.u(-0.6, -0.3)
    back = (p.u(0.45, 0.8), p.u(0.85, 0.98), p.u(0.1, 0.3))[kind]  # saloon, estate, pickup
    top_front, top_back, roof = front + p.u(0.15, 0.4), back - p.u(0.03, 0.3), p.u(0.7, 0.92)
    nose, tail = belt - p.u(0.03, 0.15), belt - p.u(0.0, 0.06)
    _plate(p, (0, -0.97, floor), (0, -1, nose), wide * 0.92)
    _plate(p, (0, -1, nose), (0, front, belt), wide * 0.92)  # the bonnet
    _plate(p, (0, front, belt), (0, top_front, tall), wide * 0.95, roof)
    _plate(p, (0, top_front, tall), (0, top_back, tall), wide * 0.95 * roof)
    _plate(p, (0, top_back, tall), (0, back, belt), wide * 0.95 * roof, 1 / roof)
    _plate(p, (0, back, belt), (0, 1, tail), wide * 0.92)
    _plate(p, (0, 1, tail), (0, 0.97, floor), wide * 0.92)
    _plate(p, (0, -0.97, floor), (0, 0.97, floor), wide * 0.95)
    low, high = (nose + tail) / 2, (back - front) / 2
    short = max((top_back - top_front) / (2 * high), 0.2)
    size, axle = p.u(0.13, 0.18), p.u(0.55, 0.68)
    for sign in (-1, 1):
        x = sign * wide
        p.beam((x * 0.97, 0, floor), (x * 0.97, 0, low), (0, 0.97, 0), (0.004, 0, 0))
        start, end = (
            (x * 0.95, (front + back) / 2, belt),
            (x * 0.95 * roof, (top_front + top_back) / 2, tall),
        )
        p.beam(start, end, (0, high, 0), (0.004, 0, 0), (short, 1))
        for y in (-axle, axle):
            p.tube((x * 0.75, y, size), (x, y, size), size)
            p.tube((x, y, size), (x * 1.001, y, size), size, 0.0)
    if p.chance(0.5):  # seats inside
        for x in (-0.45, 0.45):
            p.box((x * wide, 0.1, belt * 0.8), (wide * 0.3, 0.15, 0.12))
    if p.chance(0.25):
        p.box((0, 0.93, tail + 0.08), (wide * 0.9, 0.06, 0.01))
    p.turn = p.pick(0.6, 0.2, 0.0, 0.2)


def guitar(p: Parts) -> None:
    thick, lower, upper = p.u(0.03, 0.11), p.u(0.28, 0.5), p.u(0.2, 0.38)
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
    neck, tip, start = p.u(0.03, 0.055), p.u(0.7, 0.85), -1 + body * 1.5
    p.beam((0, start, thick), (0, tip, thick), (neck, 0, 0), (0, 0, 0.02))
    p.beam((0, start - 0.1, thick + 0.02), (0, tip, thick + 0.02), (neck, 0, 0), (0, 0, 0.01))
    drop, flare = p.u(0, 0.06), p.u(0.6, 1.2)
    p.beam((0, tip, thick), (0, 1, thick - drop), (neck * 1.7, 0, 0), (0, 0, 0.015), (flare, 1))
    if p.chance(0.7):  # strings and pegs
        for k in range(-2, 3):
            x = k * neck * 0.4
            p.tube((x, -1 + body * 0.5, thick + 0.04), (x, tip, thick + 0.04), 0.006)
            p.box((0, tip + 0.04 * (k + 3), thick - 0.02), (neck * 2.3, 0.012, 0.012))
    p.box((0, -1 + body * 0.5, thick), (0.12, 0.03, 0.02))
    p.turn = p.pick(0.55, 0.17, 0.11, 0.17)


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
    wide, deep, tall = p.u(0.45, 1.0), p.u(0.7, 1.2), p.u(0.45, 1.2)
    kind = p.pick(0.35, 0.2, 0.25, 0.2)
    if kind == 0:  # a ridge
        ridge = p.u(0.5, 1.0)
        for sign in (-1, 1):
            p.beam((sign * wide, 0, 0), (0, 0, tall), (0, deep, 0), (0.01, 0, 0), (ridge, 1))
        if p.chance(0.6):
            p.box((0, 0, tall / 2), (wide, deep, tall / 2), (0.0, ridge))
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
    else:  # a pyramid, or a tipi
        if p.chance(0.5):
            p.box((0, 0, tall / 2), (wide, deep, tall / 2), (p.u(0, 0.1), p.u(0, 0.5)))
        else:
            p.lathe([(1, 0), (p.u(0.6, 1), tall * 0.4), (0, tall)], scale=(wide, deep))
    if p.chance(0.4):
        p.box((0, 0, 0), (wide, deep, 0.005))
    if p.chance(0.15):  # poles and pegs
        p.tube((0, -deep * 1.3, 0), (0, -deep, tall), 0.01)
    p.turn = p.count(0, 1)


OBJECTS = {
    "airplane": airplane,
    "car": car,
    "guitar": guitar,
    "keyboard": keyboard,
    "laptop": laptop,
    "monitor": monitor,
    "tent": tent,
}

# By name, as in ModelNet40; a category's label is its place in this order.
FAMILIES: dict[str, Callable[[Parts], None]] = dict(
    sorted({**CABINETS, **FURNITURE, **OBJECTS, **VESSELS}.items())
)
CATEGORIES: tuple[str, ...] = tuple(FAMILIES)
