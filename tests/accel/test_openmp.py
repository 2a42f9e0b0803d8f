"""A compiled loop shared out to torch's threads: each item once, whoever comes, no error lost."""

import contextlib
import ctypes
import sys

import numpy as np
import pytest
import torch

from serplib.accel import cpu, openmp

pytestmark = pytest.mark.skipif(openmp.njit is None, reason="needs numba")

CALLED = ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # what a thread of the team runs
OPENMP = ctypes.CFUNCTYPE(None, CALLED, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)

if openmp.njit is not None:
    compiled = openmp.njit(nogil=True)

    @compiled
    def _count(seen, firsts, first, last):
        if first < last:
            firsts[first] = 1
        for i in range(first, last):
            seen[i] += 1

    @compiled
    def count(seen, firsts, team):
        openmp.share_out(_count, (seen, firsts), len(seen), team)

    @compiled
    def _fail(bad, first, last):
        if first <= bad < last:
            raise ValueError("in one piece")

    @compiled
    def fail(bad, size, team):
        openmp.share_out(_fail, (bad,), size, team)


@contextlib.contextmanager
def torch_threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def stand_in(arrive):
    """A team of which so many threads arrive, one after the other; what was asked of it."""
    asked = []

    def parallel(run, job, threads, flags):
        asked.append((threads, flags))
        for _ in range(arrive):
            run(job)

    return OPENMP(parallel), asked


def address(function):
    return ctypes.cast(function, ctypes.c_void_p).value


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("size", [0, 1, 3, 8, 1001])
def test_every_item_is_done_once(size, threads):
    seen, firsts = np.zeros((2, size), np.int64)
    with torch_threads(threads):
        count(seen, firsts, openmp.team())
    assert (seen == 1).all()
    if openmp.team() != openmp.ALONE:
        assert firsts.sum() == (min(size, 1) if threads == 1 else min(size, 4 * threads))


@pytest.mark.parametrize("arrive", [1, 2, 3])
def test_who_comes_late_finds_the_work_done(arrive):
    team, asked = stand_in(arrive)
    seen, firsts = np.zeros((2, 100), np.int64)
    count(seen, firsts, (3, address(team)))
    assert asked == [(3, 0)]
    assert (seen == 1).all() and firsts.sum() == 12


def test_alone_nobody_is_asked():
    team, asked = stand_in(1)
    seen, firsts = np.zeros((2, 100), np.int64)
    count(seen, firsts, (1, address(team)))
    assert asked == [] and (seen == 1).all() and firsts.sum() == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_piece_that_fails_is_not_lost(threads):
    with torch_threads(threads):
        fail(100, 100, openmp.team())  # none is the bad one
        for bad in (0, 57, 99):
            with pytest.raises(MemoryError, match="in a compiled loop"):
                fail(bad, 100, openmp.team())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch may have another OpenMP")
def test_torch_has_a_team():
    with torch_threads(2):
        threads, where = openmp.team()
    libraries = [line.split() for line in open("/proc/self/maps") if "omp" in line.split("/")[-1]]
    ranges = [[int(end, 16) for end in line[0].split("-")] for line in libraries]
    assert threads == 2 and any(low <= where < high for low, high in ranges)


def test_a_team_is_called_where_it_pays(monkeypatch):
    monkeypatch.setattr(openmp, "team", lambda: (3, 1234))
    assert cpu._team(9e4) == openmp.ALONE
    assert cpu._team(2e5) == (3, 1234)


def test_one_thread_and_no_openmp_are_alone(monkeypatch):
    with torch_threads(1):
        assert openmp.team() == openmp.ALONE
    monkeypatch.setattr(openmp, "_openmp", [0])
    with torch_threads(2):
        assert openmp.team() == openmp.ALONE
