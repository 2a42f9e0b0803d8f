"""Shared parts of the benchmarks: clouds, clocks, peak memory, and peak rates of the machine."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from unittest import mock

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from serplib import accel
from serplib.experiments import records
from serplib.seeding import named_generator

Calls = dict[str, Callable[[int], object]]  # who: what is timed, given the number of the round
Times = dict[str, list[float]]  # who: milliseconds by round


def clouds(batch: int, num_points: int, seed: int) -> Tensor:
    """Random points on the unit sphere's surface, ``(B, N, 3)`` float32."""
    points = torch.randn(batch, num_points, 3, generator=named_generator(seed, "bench"))
    return torch.nn.functional.normalize(points, dim=-1)


def plain(function: Callable) -> Callable:
    """Return the function with compiled code switched off."""

    def call(*arguments):
        with accel.disabled():
            return function(*arguments)

    return call


def turn(call: Callable[[int], object], seed: int) -> float:
    """Return the milliseconds of a call on the inputs of a round.

    An untimed call on the inputs of the round before comes first, so that caches and memory are in
    the state of a loop.
    """
    call(max(seed - 1, 0))
    began = time.perf_counter()
    call(seed)
    return 1000 * (time.perf_counter() - began)


def _in_turn(takes: Calls, repeats: int, first: int) -> Times:
    """Collect what each call returns, round by round."""
    times: Times = {who: [] for who in takes}
    for seed in range(first, first + repeats + 1):
        for who, take in takes.items():
            times[who].append(take(seed))
    return {who: found[1:] for who, found in times.items()}


def rounds(calls: Calls, repeats: int, first: int = 0) -> Times:
    """Return the milliseconds of each call in each round; calls take turns under the same load.

    Every round has new inputs. The first round warms up and is left out; ``first`` is its number,
    so that a later sitting continues with new inputs.
    """
    return _in_turn({who: partial(turn, call) for who, call in calls.items()}, repeats, first)


_timed: dict[str, Callable[[int], object]] = {}  # the call of a process of `apart`


def _prepare(make: Callable[[], Callable[[int], object]]) -> None:
    _timed["call"] = make()


def _turn(seed: int) -> float:
    return turn(_timed["call"], seed)


def _ask(home: ProcessPoolExecutor, seed: int) -> float:
    return home.submit(_turn, seed).result()


def apart(
    makers: dict[str, tuple[Callable[[], Callable[[int], object]], dict[str, str]]],
    repeats: int,
    first: int = 0,
) -> Times:
    """Do as `rounds`, with each call in its own process, like a training run.

    The page faults of a step depend on everything that its process allocated before: a textbook's
    step has between none and thirty thousand.

    Args:
        makers: a picklable function that makes the call, and its process's environment variables.
    """
    with contextlib.ExitStack() as stack:
        homes = {}
        for who, (make, environment) in makers.items():
            home = ProcessPoolExecutor(1, get_context("spawn"), _prepare, (make,))
            homes[who] = stack.enter_context(home)
            with mock.patch.dict(os.environ, environment):
                home.submit(_turn, first)  # starts the process
        takes = {who: partial(_ask, home) for who, home in homes.items()}
        return _in_turn(takes, repeats, first)


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Return their time over ours, round by round."""
    return [b / a for a, b in zip(ours, theirs, strict=True)]


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median over rounds of their time over ours."""
    return statistics.median(ratios(ours, theirs))


def middle(found: list[float]) -> tuple[float, float, float]:
    """Return the median and both quartiles."""
    low, median, high = statistics.quantiles(found, n=4, method="inclusive")
    return median, low, high


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the peak memory of torch's CPU tensors during a call, in bytes.

    NumPy's and Numba's memory is not counted: a few rows in the compiled searches.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would announce itself each time
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    held = most = 0
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def machine_rates(size: int = 2**25, side: int = 2048) -> dict[str, float]:
    """Return the best of five: bytes per second of a copy, operations per second of a product."""
    source = torch.zeros(size)
    target, square = torch.empty_like(source), torch.rand(side, side)
    copy, product = [], []
    for _ in range(5):
        began = time.perf_counter()
        target.copy_(source)
        copied = time.perf_counter()
        square @ square
        copy.append(copied - began)
        product.append(time.perf_counter() - copied)
    return {
        "bytes_per_second": 2 * source.nbytes / min(copy),
        "flops_per_second": 2 * side**3 / min(product),
    }


def floor_ms(work: tuple[float, float], rates: dict[str, float]) -> float:
    """Return the least milliseconds of (bytes, operations) at these rates: the slower of both."""
    moved, done = work
    return 1000 * max(moved / rates["bytes_per_second"], done / rates["flops_per_second"])


def device_name() -> str:
    """Return the device, and one thread, as a part of a file name."""
    name = re.sub(r"\W+", "-", records.environment()["device"]).strip("-").lower()
    return name if torch.get_num_threads() > 1 else f"{name}-1-thread"
