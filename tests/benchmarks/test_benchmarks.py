"""The benchmarks run, small; what they compute from their measurements is right."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent
sys.path.insert(0, str(BENCHMARKS))

import growth_page  # noqa: E402
import timing  # noqa: E402

RECORD = {
    "single_device": {"parameters": 10**9, "flops_per_cloud": 1e12},
    "workers": {"workers": [1, 2], "shapes_per_second": [1000.0, 1900.0]},
}


def run_small(script):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, "--smoke"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_bench_runs_and_writes_nothing():
    before = sorted((BENCHMARKS.parents[1] / "notebooks" / "experiments" / "results").iterdir())
    said = run_small("bench.py")
    assert said.count("textbook") >= 6 and "missed" in said and "flops_per_second" in said
    assert (
        sorted((BENCHMARKS.parents[1] / "notebooks" / "experiments" / "results").iterdir())
        == before
    )


@pytest.mark.slow
def test_growth_runs_and_prints_its_page():
    said = run_small("growth.py")
    assert said.count("| FPS") >= 1 and "## A plan on paper: 1,000,000 shapes, 64 GPUs" in said


def test_the_plan_is_arithmetic():
    assumed = growth_page.Assumed(
        shapes=8000, points=100, devices=2, batch=4, epochs=9, peak_flops=1e13,
        bytes_per_second=1e9,
    )  # fmt: skip
    found = growth_page.plan(RECORD, 0.4, assumed)
    # 4 clouds of 1e12 at 4e12 a second: 1 s; 2 (1/2) 4e9 bytes at 1e9: 4 s, 2/3 s of them hidden.
    assert found["computing_ms"] == pytest.approx(1000)
    assert found["sent_bytes"] == 4e9 and found["travelling_ms"] == pytest.approx(4000)
    assert found["efficiency"] == pytest.approx(1 / (1 + 4 - 2 / 3))
    assert found["efficiency_no_overlap"] == pytest.approx(1 / 5)
    assert found["clouds_per_second"] == pytest.approx(8 / (5 - 2 / 3))
    assert found["epoch_bytes"] == 12 * 100 * 8000
    assert found["hours"] == pytest.approx(9 * 8000 / found["clouds_per_second"] / 3600)
    assert found["cores_to_make"] == pytest.approx(found["clouds_per_second"] / 1000)


def test_the_floor_is_the_slower_of_moving_and_computing():
    rates = {"bytes_per_second": 1e9, "flops_per_second": 1e10}
    assert timing.floor_ms((1e6, 0), rates) == 1 and timing.floor_ms((1e6, 3e7), rates) == 3


def test_a_ratio_is_of_rounds_and_not_of_medians():
    assert timing.ratio([1, 2, 10], [3, 8, 20]) == 3


def test_peak_memory_is_that_of_the_tensors_held_at_once():
    import torch

    def call():
        first = torch.empty(1000)  # 4,000 bytes, held
        for _ in range(3):
            torch.empty(500)  # 2,000 more, one after the other
        return first

    assert timing.peak_bytes(call) == 6000
