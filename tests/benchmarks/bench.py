"""Time each operation beside its peers, check it first, and write results/bench-<device>.json.

    make bench                                # alone on the machine; some seven minutes
    python tests/benchmarks/bench.py --smoke  # does this script run? small; writes nothing

All peers take turns in one process on fresh random inputs, whole steps each in a process of its own
(see `timing.apart`). A machine is not equally fast at all times, and not equally so at arithmetic
and at memory: all is timed in three sittings, minutes apart. Ratios are medians over all rounds,
and travel better between machines than milliseconds do; "middle half" is where half of the rounds
lie. The floor is what the bytes and operations of the work take at the rates measured here: no
program on this machine is faster by brute force.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import peers
import torch
from rich.console import Console
from rich.table import Table
from timing import (
    Times,
    apart,
    clouds,
    device_name,
    floor_ms,
    machine_rates,
    middle,
    peak_bytes,
    ratio,
    ratios,
    rounds,
)

from serplib.experiments import records

SMOKE = "--smoke" in sys.argv
SITTINGS, REPEATS, OF_STEPS = (2, 1, 1) if SMOKE else (3, 4, 9)  # rounds a sitting, and of steps
INPUTS = SITTINGS * REPEATS + 1  # one a round, and one to warm up


def pool(*shape: int) -> list[torch.Tensor]:
    """One batch of fresh clouds ``(*shape, 3)`` a round, the one that warms up included."""
    *batch, num_points = shape
    count = 1 if not batch else int(torch.tensor(batch).prod())
    return [clouds(count, num_points, i).view(*shape, 3) for i in range(INPUTS)]


def tokens(batch: int, num_tokens: int, dim: int) -> list[torch.Tensor]:
    """Latent tokens ``(B, c, d)``, one batch a round."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, num_tokens, dim, generator=generator) for _ in range(INPUTS)]


B, N, DENSE, PATCHES, MADE = (2, 128, 2100, 8, 64) if SMOKE else (32, 1024, 10_000, 2048, 1024)
C, K, D = (8, 16, 24) if SMOKE else (64, 512, 384)  # centres, codes, width
WORK: dict[str, tuple[int, Callable[[], peers.Work]]] = {
    f"FPS, {B} x {N} -> {C}": (B, lambda: peers.farthest_points(pool(B, N), C)),
    f"FPS, 1 x {DENSE} -> {N}": (1, lambda: peers.farthest_points(pool(1, DENSE), N)),
    f"kNN, {B} x {C} queries in {N}, k = 32": (B, lambda: peers.neighbours(pool(B, N), C, 32)),
    f"Chamfer, {PATCHES} patches of 32": (PATCHES, lambda: peers.chamfer(pool(2, PATCHES, 32))),
    f"Chamfer, {B} clouds of {N}": (B, lambda: peers.chamfer(pool(2, B, N))),
    f"quantizer, {2 * B} x {C}, K = {K}, d = {D}": (
        2 * B, lambda: peers.quantizer(tokens(2 * B, C, D), K)),
    "step, quick SeRP-PointNet": (B, lambda: peers.pretraining("pointnet", "quick", B)),
    "step, quick SeRP-Transformer": (B, lambda: peers.pretraining("transformer", "quick", B)),
    "step, laptop SeRP-PointNet": (B, lambda: peers.pretraining("pointnet", "laptop", B)),
    "step, laptop SeRP-Transformer": (B, lambda: peers.pretraining("transformer", "laptop", B)),
    "made: objects": (MADE, lambda: peers.shapes("objects", MADE)),
    "made: procedural": (MADE, lambda: peers.shapes("procedural", MADE)),
}  # fmt: skip
if SMOKE:
    WORK = {name: work for name, work in WORK.items() if "laptop" not in name}


def over(times: Times, *whom: str) -> list[float]:
    """How many times as long the fastest of these peers takes; all peers, where none is named."""
    named = whom or [who for who in times if not who.startswith("serplib,") and who != "serplib"]
    fastest = [min(found) for found in zip(*(times[who] for who in named))]  # by round
    return ratios(times["serplib"], fastest)


def a_second(times: Times) -> list[float]:
    """Shapes a second and core: they are made on one."""
    return [1000 * MADE / ms for ms in times["serplib"]]


def memory() -> list[float]:
    """Bytes of the broadcast form's one (M, K, d) tensor over the peak of our step, all told."""
    batch = tokens(2 * B, C, D)
    step = peers.quantizer(batch, K)[0]["serplib"]
    step(0)
    return [4 * batch[0].numel() * K / peak_bytes(lambda: step(1))] * 2  # it does not vary


def cdist(times: Times) -> list[float]:
    return over(times, "cdist + min" if "cdist + min" in times else "cdist + topk")


# Work that the name starts with; what is compared; how; what it is to reach.
TARGETS: list[tuple[str, str, Callable[[Times], list[float]], float]] = [
    ("FPS, 1 x", "the fastest peer", over, 1),
    (f"FPS, {B} x", "the fastest peer", over, 5),
    ("kNN", "cdist + topk", cdist, 4),
    (f"Chamfer, {PATCHES} patches", "cdist + min", cdist, 6),
    (f"Chamfer, {B} clouds", "cdist + min", cdist, 8),
    (f"Chamfer, {B} clouds", "cKDTree", lambda times: over(times, "cKDTree"), 2.5),
    ("quantizer", "vector-quantize-pytorch", lambda t: over(t, "vector-quantize-pytorch"), 1),
    ("quantizer", "memory of the broadcast form", lambda _: memory(), 20),
    *(  # as torch makes it, and on equal terms: the operations alone
        (f"step, quick {model}", who, lambda times, who=who: over(times, who), 2)
        for model in ("SeRP-PointNet", "SeRP-Transformer")
        for who in ("textbook", "textbook, memory kept")
    ),
    ("made: objects", "shapes a second and core", a_second, 2000),
    ("made: procedural", "shapes a second and core", a_second, 2000),
]


def measured(console: Console) -> dict[str, tuple[int, tuple[float, float], Times]]:
    """For each work its items, the bytes and operations it needs, and the times of all sittings."""
    found = {}
    for work, (items, prepare) in WORK.items():
        calls, needed = prepare()
        found[work] = items, needed, calls, {who: [] for who in calls}
    for sitting in range(SITTINGS):
        for work, (_, _, calls, times) in found.items():
            console.print(f"sitting {sitting + 1} of {SITTINGS}: {work}")
            take, repeats = (apart, OF_STEPS) if work.startswith("step") else (rounds, REPEATS)
            for who, took in take(calls, repeats, sitting * repeats).items():
                times[who] += took
    return {work: (items, needed, times) for work, (items, needed, _, times) in found.items()}


def main() -> None:
    """Time all of `WORK`, print the tables, write the JSON."""
    console, rows, targets = Console(width=110), [], []
    rates = machine_rates(2**20, 256) if SMOKE else machine_rates()
    table = Table("work", "who", "ms", "items/s", "times serplib", "times the floor")
    reached = Table("work", "against", "measured", "middle half", "target", "")
    for work, (items, needed, times) in measured(console).items():
        floor = floor_ms(needed, rates)
        for who, took in times.items():
            ms, relative = statistics.median(took), ratio(times["serplib"], took)
            row = {"work": work, "who": who, "ms": ms, "fastest_ms": min(took), "items": items}
            rows.append(row | {"ratio": relative, "floor_ms": floor, "repeats": len(took)})
            speed = f"{1000 * items / ms:,.0f}"
            table.add_row(work, who, f"{ms:.2f}", speed, f"{relative:.2f}", f"{ms / floor:,.1f}")
        for start, against, measure, wanted in TARGETS:
            if work.startswith(start):
                found, low, high = middle(measure(times))
                met = found >= wanted
                row = {"work": work, "against": against, "measured": found}
                row |= {"middle_half": [low, high], "target": wanted, "met": met}
                targets.append(row)
                said, half = "met" if met else "missed", f"{low:,.2f} to {high:,.2f}"
                reached.add_row(work, against, f"{found:,.2f}", half, f"{wanted:g}", said)
    console.print(table, reached)
    for name, rate in rates.items():
        console.print(f"{name}: {rate:.3g}")
    for name in peers.ABSENT:
        console.print(f"{name} is not installed, so not compared: pip install {name}")
    if SMOKE:
        return
    path = records.results_folder() / f"bench-{device_name()}.json"
    content = {"environment": records.environment(), "absent": peers.ABSENT, "rates": rates}
    records.write_json(path, content | {"rows": rows, "targets": targets})
    console.print(f"written: {path}", soft_wrap=True)


if __name__ == "__main__":
    main()
