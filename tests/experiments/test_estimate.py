"""`serp estimate`, and the comparison with the memory that is free before a suite starts."""

import gc
import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from typer.testing import CliRunner

from serplib import presets
from serplib.experiments import cli, estimate, records, runner, suites, workload

WIDE = ("bottlenecks-full", "rates-full")  # many networks at full size: a minute each
PLANS = [
    pytest.param(name, profile, id=plan, marks=pytest.mark.slow if plan in WIDE else ())
    for name in suites.known_suites()
    for profile in suites.load(name)["profiles"]
    for plan in [f"{name}-{profile}"]
]
CASES = list(product(("quick", "laptop"), ("pointnet", "transformer"), ("pretrain", "finetune")))
MODELS = {"SeRP-PointNet": "pointnet", "SeRP-Transformer": "transformer"}


def a_run(notebook: str, preset: str, model: str) -> suites.Run:
    parameters = {"preset": preset, "model": model, "changes": {}, "dataset": "objects"}
    return suites.Run("s", "p", "n", 0, notebook, parameters, None, {}, "hash", Path("absent"))


def test_counted_operations_equal_a_hand_count():
    """A small PointNet without T-Nets and its head: a product forward, two backward."""
    counted, forward = estimate.count(presets.QUICK, "pointnet", head=True, cuda=True)
    first = 1024 * 3 * 32
    by_hand = 2 * (first + 1024 * (32 * 64 + 64 * 128) + 128 * 64 + 64 * 40)
    assert forward == by_hand
    assert counted == 3 * by_hand - 2 * first, "the points need no gradient"


def test_operations_of_a_run_are_steps_times_batch_and_what_is_looked_at():
    one = estimate.estimate(a_run("pretrain", "quick", "pointnet"), cuda=True)
    trained, passed = estimate.count(presets.QUICK, "pointnet", head=False, cuda=True)
    assert one.steps == 3 * 512 // 32
    assert one.operations == pytest.approx(one.steps * 32 * trained + 3 * 64 * passed)
    assert 0 < one.searches < 0.02 * one.operations


MEASURE = """
import gc, json, sys, threading, time, torch
from serplib import accel, presets
from serplib.experiments import estimate
torch.set_num_threads(1)
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def train(preset, model, notebook, batch, steps):
    head = notebook == "finetune"
    module, loss = estimate._step(presets.PRESETS[preset], model, head, cuda=False)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(estimate._clouds(batch, 1024)).backward()
        optimizer.step()
def watch():
    global peak
    while not done:
        peak = max(peak, rss())
        time.sleep(0.001)
for *case, batch in json.loads(sys.argv[1]):
    train(*case, 2, 1)  # libraries
    gc.collect()
    base, peak, done = rss(), 0, False
    thread = threading.Thread(target=watch)
    thread.start()
    train(*case, batch, 3)
    done = True
    thread.join()
    print(peak - base)
"""


def batch_of(case: tuple[str, str, str]) -> int:
    preset, model, notebook = case
    settings = presets.PRESETS[preset]
    group = getattr(settings, f"pretrain_{model}")
    return (settings.finetune.optim if notebook == "finetune" else group).batch_size


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, str, str], int]:
    """Measure the peak memory of a few steps of each case, all in one new process.

    Its tensors are mapped one by one: what glibc keeps for reuse varies from run to run.
    """
    given = json.dumps([(*case, batch_of(case)) for case in CASES])
    mapped = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
    words = [sys.executable, "-c", MEASURE, given]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=mapped)
    return dict(zip(CASES, map(int, done.stdout.split()), strict=True))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_memory_is_within_the_stated_factor_of_what_is_measured(case, measured):
    preset, model, notebook = case
    about = estimate.estimate(a_run(notebook, preset, model), cuda=False, operations=False)
    group = "finetune.optim" if notebook == "finetune" else f"pretrain_{model}"
    assert about.option == f"{group}.batch_size"
    shapes = 512 + (64 if notebook == "pretrain" else workload.BUILT_IN_SHAPES)  # with the test set
    expected = about.memory - estimate.PROCESS - 2 * 12 * 1024 * shapes
    print(f"{expected / measured[case]:.2f}")
    assert 0.8 < expected / measured[case] < 1.3 < estimate.TOLERANCE


def test_measuring_leaves_no_tensor_behind():
    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    before = alive()
    assert estimate.measure.__wrapped__(presets.QUICK, "transformer", False, "no", True).kept > 0
    assert alive() == before


@pytest.mark.parametrize("path", sorted(records.results_folder().glob("bench-cpu-*.json")), ids=str)
def test_the_share_of_a_cpu_gives_the_recorded_step_times_within_a_factor_of_two(path):
    record = records.read_json(path)
    rate = record["rates"]["flops_per_second"] * estimate.UTILISATION["cpu"]
    found = 0
    for row in record["rows"]:
        named = re.fullmatch(r"step, (\w+) (SeRP-\w+)", row["work"])
        if named and row["who"] == "serplib":
            settings, model = presets.PRESETS[named[1]], MODELS[named[2]]
            trained, _ = estimate.count(settings, model, head=False, cuda=False)
            ratio = row["items"] * trained / rate / (row["ms"] / 1000)
            print(f"{row['work']}: estimate / measured {ratio:.2f}")
            assert 0.5 < ratio < 2, row["work"]
            found += 1
    assert found == 4


@pytest.mark.parametrize(("suite", "profile"), PLANS)
def test_every_plan_is_estimated_within_eighty_columns(suite, profile):
    device = "H200" if profile == "full" else "CPU"
    runs = suites.plan(suite, profile, seeds=1)
    text = estimate.to_text(runs, device)
    assert max(map(len, text.splitlines())) <= 80
    assert "An estimate until a record exists" in text and f"on {device}" in text
    lines = text.splitlines()
    total = next(line for line in lines if line.startswith("total")).split()
    assert int(total[1]) == len(runs) and float(total[4]) > 0
    rows = [
        line.split() for line in lines if line.endswith(("estimate", "measured"))
    ]  # kind, model, runs, ...
    assert sum(int(row[2]) for row in rows) == len(runs)
    same = [(*row[:2], *row[3:5], *row[6:]) for row in rows]
    assert len(set(same)) == len(same), "no two rows are alike"


def test_a_record_of_exactly_this_run_on_this_device_replaces_the_estimate(monkeypatch):
    run = suites.plan("course")[0]
    about = {"name": run.name, "hash": run.hash}
    record = {"run": about, "seconds": 7200.0, "environment": {"device": "NVIDIA H200"}}
    monkeypatch.setattr(suites, "gather_records", lambda runs: [record])
    assert estimate.measured([run], "H200") == {run.name: 7200.0}
    assert not estimate.measured([run], "T4")
    lines = estimate.to_text([run], "H200").splitlines()
    assert lines[2].endswith("measured") and lines[2].split()[5] == "2"
    about["hash"] = "of other settings"
    assert not estimate.measured([run], "H200")


def test_the_share_of_a_gpu_is_that_of_its_record(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "results_folder", lambda: tmp_path)
    assert estimate.utilisation("H200") == (0.2, "an assumed")
    rows = [{"work": "FPS"}, *({"share_of_peak": share} for share in (0.1, 0.3, 0.4))]
    content = {"environment": {"device": "NVIDIA H200"}, "rows": rows}
    records.write_json(tmp_path / "bench-nvidia-h200.json", content)
    assert estimate.utilisation("H200") == (0.3, "a recorded")
    assert estimate.utilisation("T4") == (0.2, "an assumed")


def test_an_unknown_device_exits_with_2_and_one_line():
    done = CliRunner().invoke(cli.app, ["estimate", "course", "--device", "Z80"])
    assert done.exit_code == 2 and "wanted one of H100, H200" in done.stderr


@pytest.mark.parametrize(("share", "starts"), [(0.5, False), (0.8, True), (2.0, True)])
def test_a_run_that_cannot_fit_says_so_before_anything_starts(monkeypatch, share, starts):
    """Less than two thirds of what is needed refuses, less than all warns."""
    runs = suites.plan("quick", seeds=1)
    free = share * max(estimate.estimate(run, False, operations=False).memory for run in runs)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    started = []
    monkeypatch.setattr(runner, "execute", lambda *a, **k: started.append(1) or [])
    monkeypatch.setattr(suites.Run, "finished", lambda self: False)
    done = CliRunner().invoke(cli.app, ["run", "quick", "--seeds", "1", "--workers", "1"])
    assert bool(started) == starts
    said = [line for line in done.stderr.splitlines() if "GiB are free" in line]
    assert len(said) == (share < 1) and (starts or done.exit_code == 2)
    assert all(re.search(r"lower (finetune\.optim|pretrain_\w+)\.batch_size", x) for x in said)


def test_the_memory_of_a_gpu_is_what_cuda_says_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 2**34))
    with pytest.raises(ValueError, match=r"pretrain-vasp needs about .* 1\.0 GiB are free"):
        estimate.require_memory(suites.plan("table1", "full", seeds=1))


def test_a_run_that_cannot_be_estimated_stops_nothing():
    run = a_run("finetune", "quick", "no model")
    assert estimate.require_memory([run]) == ""
