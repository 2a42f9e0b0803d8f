"""What the benchmarks share: clouds, clocks, peak memory, and what this machine can do at most."""

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

from serplib.accel import cpu, triton_ops
from serplib.experiments import records
from serplib.seeding import named_generator

Calls = dict[str, Callable[[int], object]]  # who: what is timed, given the number of the round
Times = dict[str, list[float]]  # who: milliseconds by round


def clouds(batch: int, num_points: int, seed: int) -> Tensor:
    """Random points on the unit sphere's surface, ``(B, N, 3)`` float32."""
    points = torch.randn(batch, num_points, 3, generator=named_generator(seed, "bench"))
    return torch.nn.functional.normalize(points, dim=-1)


def plain(function: Callable) -> Callable:
    """The same call with the compiled code switched off."""

    def call(*arguments):
        kept, triton_ops.AVAILABLE, cpu.AVAILABLE = (
            (triton_ops.AVAILABLE, cpu.AVAILABLE),
            False,
            False,
        )
        try:
            return function(*arguments)
        finally:
            triton_ops.AVAILABLE, cpu.AVAILABLE = kept

    return call


def turn(call: Callable[[int], object], seed: int) -> float:
    """Milliseconds of a call on the inputs of a round.

    One on the inputs of the round before comes first, untimed: what a call needs is in use again,
    as it is in a loop, and it does not pay for the memory that another gave back.
    """
    call(max(seed - 1, 0))
    began = time.perf_counter()
    call(seed)
    return 1000 * (time.perf_counter() - began)


def _in_turn(takes: Calls, repeats: int, first: int) -> Times:
    """What each call returns, round by round."""
    times: Times = {who: [] for who in takes}
    for seed in range(first, first + repeats + 1):
        for who, take in takes.items():
            times[who].append(take(seed))
    return {who: found[1:] for who, found in times.items()}


def rounds(calls: Calls, repeats: int, first: int = 0) -> Times:
    """Milliseconds of each call in each round; all take turns, so that all meet the same load.

    Every round has fresh inputs; the first one warms up and does not count. ``first`` is its
    number: a later sitting goes on from where the one before ended.
    """
    return _in_turn({who: partial(turn, call) for who, call in calls.items()}, repeats, first)


_here: dict[str, Callable[[int], object]] = {}  # in a process of `apart`: what it times


def _prepare(make: Callable[[], Callable[[int], object]]) -> None:
    _here["call"] = make()


def _turn(seed: int) -> float:
    return turn(_here["call"], seed)


def _ask(home: ProcessPoolExecutor, seed: int) -> float:
    return home.submit(_turn, seed).result()


def apart(
    makers: dict[str, tuple[Callable[[], Callable[[int], object]], dict[str, str]]],
    repeats: int,
    first: int = 0,
) -> Times:
    """`rounds`, each call in a fresh process of its own, as a run of training is.

    What malloc gives back to the system and must be given again depends on all that a process did
    before, and on luck: a textbook's step has between none and thirty thousand page faults.

    Args:
        makers: what makes the call, picklable, and what its process finds in the environment.
    """
    with contextlib.ExitStack() as stack:
        homes = {}
        for who, (make, environment) in makers.items():
            home = ProcessPoolExecutor(1, get_context("spawn"), _prepare, (make,))
            homes[who] = stack.enter_context(home)
            with mock.patch.dict(os.environ, environment):
                home.submit(_turn, first)  # this starts it
        takes = {who: partial(_ask, home) for who, home in homes.items()}
        return _in_turn(takes, repeats, first)


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """How many times as long they take as we do, round by round."""
    return [b / a for a, b in zip(ours, theirs, strict=True)]


def ratio(ours: list[float], theirs: list[float]) -> float:
    """How many times as long they take as we do: the median of the ratios of the rounds."""
    return statistics.median(ratios(ours, theirs))


def middle(found: list[float]) -> tuple[float, float, float]:
    """The median, and the two values between which the middle half lies."""
    low, median, high = statistics.quantiles(found, n=4, method="inclusive")
    return median, low, high


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that torch's CPU tensors held at once above what they held before, in bytes.

    What NumPy and Numba allocate does not count: a few rows in the compiled searches.
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
    """The best of five: bytes a second of a copy (read and written), operations of a product."""
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
    """Milliseconds that (bytes, operations) take at least at these rates: the slower of the two."""
    moved, done = work
    return 1000 * max(moved / rates["bytes_per_second"], done / rates["flops_per_second"])


def device_name() -> str:
    """This device as a part of a file's name."""
    return re.sub(r"\W+", "-", records.environment()["device"]).strip("-").lower()
