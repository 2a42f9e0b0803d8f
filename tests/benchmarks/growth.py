"""How cost grows: time and memory against N, c, n, batch and workers; results/growth-<device>.json.

    make growth                                # some two minutes
    python tests/benchmarks/growth.py --smoke  # does this script run? small; writes nothing
    python tests/benchmarks/growth.py --page   # results/growth.md again, from the record

Each series changes one size and holds the others. Time and peak memory are fitted by a straight
line in log-log coordinates over the larger half of the sizes, where fixed costs count less; beside
the slope stands the order that theory expects in the limit.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import torch
from growth_page import page
from timing import clouds, device_name, machine_rates, peak_bytes, plain
from torch.utils.flop_counter import FlopCounterMode

from serplib import geometry
from serplib.classifier import autoencoder
from serplib.data import load
from serplib.experiments import records
from serplib.experiments.loop import _optimizer
from serplib.presets import PRESETS, Optim
from serplib.pretext import Pretext
from serplib.seeding import named_generator

SMOKE = "--smoke" in sys.argv
SIZES = [64, 128, 256] if SMOKE else [256, 512, 1024, 2048, 4096, 8192, 16384]
FEW = SIZES if SMOKE else SIZES[:-2]  # for N x N matrices: 16,384 would take gigabytes
BATCHES = [2, 4] if SMOKE else [4, 8, 16, 32, 64]
MADE = 16 if SMOKE else 512  # shapes that each worker makes
CENTERS, PATCH = (8, 8) if SMOKE else (64, 32)
Call = Callable[[], object]


def fps(num_points: int, num_samples: int) -> Call:
    points = clouds(4, num_points, 0)
    return lambda: geometry.farthest_point_sample(points, num_samples)


def knn(num_points: int, num_queries: int, k: int) -> Call:
    points = clouds(4, num_points, 0)
    return lambda: geometry.knn(points[:, :num_queries], points, k)


def chamfer(batch: int, num_points: int) -> Call:
    a, b = clouds(batch, num_points, 0).requires_grad_(), clouds(batch, num_points, 1)
    return lambda: geometry.chamfer_l2(a, b).backward()


def transformer(centers: int = 24, patch_size: int = 16, batch: int = 8) -> Call:
    settings = PRESETS["quick"]
    sizes = replace(settings.transformer, num_centers=centers, patch_size=patch_size)
    return step("transformer", replace(settings, transformer=sizes), batch, 1024)


def step(model: str, settings, batch: int, num_points: int) -> Call:
    corruption = replace(settings.corruption, num_points=num_points)
    task = Pretext(autoencoder(settings, model), corruption)
    optimizer, points = _optimizer(task, Optim()), clouds(batch, num_points, 0)

    def call() -> None:
        optimizer.zero_grad()
        task(points, named_generator(0, "step"))["total"].backward()
        optimizer.step()

    return call


def quick(model: str, batch: int = 8, num_points: int = 1024) -> Call:
    return step(model, PRESETS["quick"], batch, num_points)


# Work, the size that changes, its values, what is timed at a value, order of time, of memory.
SERIES: list[tuple[str, str, list[int], Callable[[int], Call], float, float]] = [
    (f"FPS to {CENTERS}", "N", SIZES, lambda n: fps(n, CENTERS), 1, 0),
    ("FPS to N/4", "N", SIZES, lambda n: fps(n, n // 4), 2, 1),
    (f"FPS of {SIZES[-3]}", "c", SIZES[:-2], lambda c: fps(SIZES[-3], c), 1, 1),
    ("kNN", "N", SIZES, lambda n: knn(n, CENTERS, PATCH), 1, 0),
    ("kNN", "c", SIZES[:-2], lambda c: knn(SIZES[-3], c, PATCH), 1, 1),
    ("Chamfer with gradient", "N", SIZES, lambda n: chamfer(2, n), 2, 1),
    ("Chamfer, plain", "N", FEW, lambda n: plain(chamfer(2, n)), 2, 2),
    ("Chamfer of patches", "n", [8, 16, 32, 64, 128], lambda n: chamfer(256, n), 2, 1),
    ("Chamfer of patches", "batch", [64 * b for b in BATCHES], lambda b: chamfer(b, PATCH), 1, 1),
    ("SeRP-PointNet step", "N", FEW, lambda n: quick("pointnet", 8, n), 1, 1),
    ("SeRP-PointNet step", "batch", BATCHES, lambda b: quick("pointnet", b), 1, 1),
    ("SeRP-Transformer step", "N", FEW, lambda n: quick("transformer", 8, n), 1, 1),
    ("SeRP-Transformer step", "c", [8, 16, 32, 64, 128], transformer, 2, 1),
    ("SeRP-Transformer step", "n", [8, 16, 32, 64], lambda n: transformer(24, n), 1, 1),
    ("SeRP-Transformer step", "batch", BATCHES, lambda b: quick("transformer", b), 1, 1),
]


def milliseconds(call: Call, seconds: float) -> float:
    """The least of as many calls as fit into the seconds, three at least, after one to warm up.

    The least and not the median: on a shared machine the load only adds.
    """
    call()
    times, began = [], time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - began < seconds and len(times) < 50):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return min(times)


def memory(call: Call) -> int:
    """Peak memory of a second call: the first makes what stays, such as an optimizer's means."""
    call()
    return peak_bytes(call)


def slope(sizes: list[int], values: list[float]) -> float | None:
    """The exponent over the larger half of the sizes; None where a value is not above zero."""
    half = min(len(sizes) // 2, len(sizes) - 2)  # two points at least
    if min(values[half:]) <= 0:
        return None
    x, y = np.log(sizes[half:]), np.log(values[half:])
    return round(float(np.polyfit(x, y, 1)[0]), 6) + 0.0  # no -0.0


def series() -> list[dict]:
    """All of `SERIES`, measured and fitted.

    The times are the least of three sittings: a machine's slow moment then bends no curve.
    """
    chosen = SERIES[:: 4 if SMOKE else 1]
    least = [[math.inf] * len(sizes) for _, _, sizes, *_ in chosen]
    peaks = [[memory(make(size)) for size in sizes] for _, _, sizes, make, *_ in chosen]
    for sitting in range(3):
        for (work, against, sizes, make, *_), ms in zip(chosen, least):
            print(f"sitting {sitting + 1} of 3: {work}, {against}", flush=True)
            for i, size in enumerate(sizes):
                ms[i] = min(ms[i], milliseconds(make(size), 0.02 if SMOKE else 0.3))
    found = []
    for (work, against, sizes, _, *orders), ms, peak in zip(chosen, least, peaks):
        row = {"work": work, "against": against, "sizes": sizes, "ms": ms, "peak_bytes": peak}
        row |= {"time_slope": slope(sizes, ms), "memory_slope": slope(sizes, peak)}
        found.append(row | dict(zip(("time_order", "memory_order"), orders, strict=True)))
    return found


def made(seed: int) -> None:
    """What a worker does: shapes from its own seed."""
    torch.set_num_threads(1)
    load("procedural", "train", num_shapes=MADE, seed=seed)


def workers() -> dict:
    """Seconds in which 1, 2 and 4 worker processes each make as many procedural shapes."""
    counts, seconds = [1, 2, 4][: 2 if SMOKE else 3], []
    for count in counts:
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            list(pool.map(made, range(count)))  # imports and compiles
            times = []
            for again in range(1, 4):
                began = time.perf_counter()
                list(pool.map(made, range(again * count, (again + 1) * count)))
                times.append(time.perf_counter() - began)
            seconds.append(statistics.median(times))
    rates = [count * MADE / took for count, took in zip(counts, seconds)]
    return {"workers": counts, "shapes_each": MADE, "shapes_per_second": rates}


def single_device() -> dict:
    """What the plan starts from: the paper's Transformer, its operations, and how fast we are."""
    settings = PRESETS["quick" if SMOKE else "paper"]
    task = Pretext(autoencoder(settings, "transformer"), settings.corruption)
    points = clouds(2, 1024, 0)

    def forward_and_backward() -> None:
        task.zero_grad()
        task(points, named_generator(0, "step"))["total"].backward()

    with FlopCounterMode(display=False) as counter:
        plain(forward_and_backward)()  # what compiled loops do is not counted
    ms = milliseconds(forward_and_backward, 0.1)
    flops = counter.get_total_flops() / len(points)
    return {
        "parameters": sum(p.numel() for p in task.parameters()),
        "flops_per_cloud": flops,
        "clouds_per_second": 1000 * len(points) / ms,
        "flops_per_second": 1000 * counter.get_total_flops() / ms,
    }


def main() -> None:
    """Measure, fit, write the record and its page."""
    path = records.results_folder() / f"growth-{device_name()}.json"
    if "--page" not in sys.argv:
        began = time.perf_counter()
        record = {
            "environment": records.environment(),
            "rates": machine_rates(2**20, 256) if SMOKE else machine_rates(),
            "series": series(),
            "workers": workers(),
            "single_device": single_device(),
        }
        assert all(math.isfinite(v) for row in record["series"] for v in row["ms"])
        record["seconds"] = round(time.perf_counter() - began)
        if SMOKE:
            print(page(record))
            return
        records.write_json(path, record)
    path.with_name("growth.md").write_text(page(records.read_json(path)), encoding="utf-8")
    print(f"written: {path} and growth.md")


if __name__ == "__main__":
    main()
