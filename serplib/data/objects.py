"""Labelled families of objects: vehicles, instruments, machines and tents; and the list of all.

A family is a function of a ``Parts`` (see ``surfaces``): it draws proportions and emits parts,
z up, front towards -y unless it turns the whole. Lengths are relative: clouds are scaled later.
The proportions, and how often each heading occurs, follow ModelNet40's training shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from serplib.data.cabinets import CABINETS
from serplib.data.furniture import FURNITURE
from serplib.data.surfaces import Parts
from serplib.data.vessels import VESSELS


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


def car(p: Parts) -> None:
    length, wide, high = 1.0, p.u(0.38, 0.48), p.u(0.26, 0.39)
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
    wide, deep, tall = p.u(0.5, 1.1), p.u(0.7, 1.2), p.u(0.4, 1.1)
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
