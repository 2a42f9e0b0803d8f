"""Killed at any point, with SIGKILL, a run goes on to the same weights; a full disk loses nothing.

The trainings are tiny and run in processes of their own, forked from a server that has torch
loaded, so that twenty deaths take seconds.
"""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from serplib import checkpoint, training
from serplib.classifier import Classifier
from serplib.data.common import Clouds
from serplib.experiments import records
from serplib.perturbation import Perturbation
from serplib.pointnet import PointNetConfig, SerpPointNet
from serplib.presets import Optim
from serplib.pretext import Corruption
from serplib.seeding import named_generator

POINTNET = PointNetConfig((6, 8, 10), (9, 8, 7, 6), (5, 6, 7, 6, 5))
OPTIM = Optim(epochs=8, batch_size=4, lr=1e-2, warmup_epochs=0.5)
KINDS = ("pretrain", "finetune")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["serplib.training", "torch._dynamo", "test_crash"])


def train(kind, folder, out, die_at=None):
    """A whole tiny run: checkpoints in ``folder``, weights and record in ``out`` at the end.

    Args:
        die_at: kill this process when it asks the disk for the n-th time.
    """
    torch.set_num_threads(1)
    if die_at is not None:
        _mortal(die_at)
    torch.manual_seed(0)
    points = torch.randn(12, 24, 3, generator=named_generator(0, "points"))
    task = training.Pretext(
        SerpPointNet(POINTNET), Corruption(Perturbation(3, 4, 0.1), num_points=24)
    )
    if kind == "pretrain":
        net = task
        history = training.pretrain(task, points[:9], points[9:], OPTIM, 3, folder)
    else:
        labels = torch.arange(12) % 3
        stretch = torch.ones(12, 1, 3) + 2 * F.one_hot(labels, 3)[:, None]
        clouds = Clouds("toy", "train", stretch * points / 4, labels, tuple("abc"), "0")
        net = Classifier(task.model.encoder, 3, widths=(8,), dropout=0.4)
        history, _ = training.finetune(net, clouds, clouds, lambda: clouds, OPTIM, 3, folder=folder)
    checkpoint.save_weights(net.state_dict(), out / "weights.safetensors")
    records.write_json(out / "record.json", {"history": history})


def _mortal(die_at):
    """Count the calls that touch the disk; at one of them, die as by a power cut."""
    asked = [0]

    def mortal(original):
        def call(*arguments, **options):
            asked[0] += 1
            if asked[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return call

    for module, name in ((os, "fsync"), (os, "replace"), (checkpoint, "save_file")):
        setattr(module, name, mortal(getattr(module, name)))
    torch.save = mortal(torch.save)


def begin(*arguments):
    process = SERVER.Process(target=train, args=arguments)
    process.start()
    return process


def epochs_saved(folder):
    """The epoch of the newest checkpoint; 0 without one."""
    saved = [int(p.name[5:]) for p in folder.glob("step-*") if p.suffix != ".part"]
    return max(saved, default=0)


def wait_for_epoch(process, folder, epoch):
    """Return as soon as ``epoch`` epochs have been saved, or the process has ended."""
    while process.is_alive() and epochs_saved(folder) < epoch:
        time.sleep(0.001)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What each kind of run ends with when nothing happens to it, and the seconds of an epoch."""
    begin(KINDS[0], *[tmp_path_factory.mktemp("warm")] * 2).join(120)  # the server imports torch
    ends = {}
    for kind in KINDS:
        out = tmp_path_factory.mktemp(kind)
        process = begin(kind, out / "checkpoint", out)
        wait_for_epoch(process, out / "checkpoint", 1)
        began = time.monotonic()
        process.join(120)
        assert process.exitcode == 0
        ends[kind] = out, (time.monotonic() - began) / (OPTIM.epochs - 1)
    return ends


def same_end(out, wanted):
    one, two = (checkpoint.load_weights(p / "weights.safetensors") for p in (out, wanted))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert records.read_json(out / "record.json") == records.read_json(wanted / "record.json")


def kill_at_random(kind, wanted, tmp_path, number, seed):
    """Kill runs at random moments until ``number`` have died; each ends as if nothing had been.

    A moment is drawn as an epoch not yet saved and a part of the next epoch's time. So the moments
    are spread over the run, on a fast machine and on a slow one. A run dies at most three times.
    """
    wanted, seconds = wanted
    draw, runs = random.Random(seed), 0
    reached = []  # the epoch that each death left
    while len(reached) < number:
        out = tmp_path / str(runs)
        out.mkdir()
        runs += 1
        assert runs < 10 * number, "the runs end before they can be killed"
        for may_live in (False, False, False, True):
            process = begin(kind, out / "checkpoint", out)
            if may_live or len(reached) == number:
                process.join(120)
            else:
                epoch = draw.randint(epochs_saved(out / "checkpoint"), OPTIM.epochs)
                wait_for_epoch(process, out / "checkpoint", epoch)
                time.sleep(draw.uniform(0, seconds))
            process.kill()  # nothing happens to one that has ended
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
            if process.exitcode == 0:
                break
            saved = checkpoint.load(out / "checkpoint")  # never half a one: it would raise
            reached.append(saved[1]["epoch"] if saved else 0)
        same_end(out, wanted)
    return reached


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments_ends_in_the_same_weights(kind, whole, tmp_path):
    kill_at_random(kind, whole[kind], tmp_path, number=3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_twenty_times(kind, whole, tmp_path):
    reached = kill_at_random(kind, whole[kind], tmp_path, number=20, seed=1)
    assert len(reached) >= 20 and len(set(reached)) > 2, reached  # not always the same epoch


def kill_at_calls(kind, wanted, tmp_path, calls):
    """Kill a run at each of these calls and let it go on; how many there were to die at."""
    deaths = 0
    for die_at in calls:
        out = tmp_path / str(die_at)
        out.mkdir()
        process = begin(kind, out / "checkpoint", out, die_at)
        process.join(120)
        if process.exitcode == 0:
            break  # fewer calls than that in a whole run
        assert process.exitcode == -signal.SIGKILL
        deaths += 1
        for path in (out / "weights.safetensors", out / "record.json"):
            assert not path.exists() or path.stat().st_size > 0
        process = begin(kind, out / "checkpoint", out)
        process.join(120)
        assert process.exitcode == 0
        same_end(out, wanted)
    return deaths


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_while_writing(kind, whole, tmp_path):
    """In the middle of the weights and of the state, and before the rename."""
    assert kill_at_calls(kind, whole[kind][0], tmp_path, (2, 4, 6)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_each_call_that_touches_the_disk(kind, whole, tmp_path):
    """At all of them, up to the record at the end."""
    assert kill_at_calls(kind, whole[kind][0], tmp_path, range(1, 200)) >= 40


# ---- disks -------------------------------------------------------------------------------------


def fill(folder):
    """Write until nothing more goes in."""
    with contextlib.suppress(OSError), open(folder / "ballast", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 512 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root: the full disk was not tried")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_the_last_checkpoint_and_says_what_to_do(small_disk):
    weights = {"model": {"a": torch.arange(4096.0)}}  # 16 KB
    checkpoint.save(small_disk, 1, weights, {"epoch": 1})
    fill(small_disk)
    with pytest.raises(OSError, match=r"step-00000002.*free disk space.*whole checkpoint is kept"):
        checkpoint.save(small_disk, 2, weights, {"epoch": 2})
    kept, state = checkpoint.load(small_disk)
    assert state["epoch"] == 1 and torch.equal(kept["model"]["a"], weights["model"]["a"])
    assert not list(small_disk.glob("*.part"))
    with pytest.raises(OSError):
        records.write_json(small_disk / "record.json", {"x": ["y" * 100] * 1000})
    assert not (small_disk / "record.json").exists()
    (small_disk / "ballast").unlink()
    checkpoint.save(small_disk, 2, weights, {"epoch": 2})
    assert checkpoint.load(small_disk)[1]["epoch"] == 2


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    """A file stands where the folder should: read-only folders do not stop root."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"could not be written.*choose another folder"):
        checkpoint.save(tmp_path / "file", 1, {"model": {"a": torch.ones(2)}}, {})


# ---- the experiment runner ---------------------------------------------------------------------

RUN = "import sys; sys.path.insert(0, {tests!r}); import test_crash; test_crash.run_suite()"


def run_suite():
    """Execute the tiny suite of ``$SERP_ROOT``, on the scheduler named on the command line."""
    from serplib.experiments import runner, suites

    scheduler = sys.argv[1] if len(sys.argv) > 1 else None
    outcomes = runner.execute(suites.plan("tiny"), workers=2, scheduler=scheduler)
    print(json.dumps([outcome["state"] for outcome in outcomes]))


@pytest.fixture
def tiny(tmp_path):
    """A project of its own with the tiny suite: its folder, and the environment that finds it."""
    import shutil

    import test_suites

    root = Path(__file__).parents[2]
    shutil.copytree(root / "notebooks" / "experiments", tmp_path / "notebooks" / "experiments")
    test_suites.write_suite(tmp_path, test_suites.TINY)
    return tmp_path, os.environ | {"SERP_ROOT": str(tmp_path)}


def command(*arguments):
    return [sys.executable, "-c", RUN.format(tests=str(Path(__file__).parent)), *arguments]


def done(project):
    """Finished runs, by folder, with the time of their record."""
    return {p.parent.name: p.stat().st_mtime_ns for p in project.glob("runs/*/*/record.json")}


def processes_of(project):
    """The processes that have inherited the project's folder in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            found += [path.parent] if f"SERP_ROOT={project}\0" in path.read_text() else []
    return found


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param([signal.SIGINT], 130, id="Ctrl-C"),
        pytest.param([signal.SIGTERM], 143, id="SIGTERM", marks=pytest.mark.slow),
        pytest.param([signal.SIGINT] * 3, 130, id="Ctrl-C three times", marks=pytest.mark.slow),
    ],
)
def test_serp_run_stops_with_one_line_and_leaves_no_process(tiny, sent, status):
    """A terminal sends Ctrl-C to the whole group; a system that shuts down tells one process."""
    import test_suites

    project, environment = tiny
    content = test_suites.changed(pre={"changes": {"pretrain_pointnet.epochs": 10**6}})
    content["profiles"]["quick"]["pretrain"]["changes"].pop("pretrain_pointnet.epochs")
    test_suites.write_suite(project, content)
    call = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    call += "from serplib.experiments.cli import app; app()"
    serp = subprocess.Popen(
        [sys.executable, "-c", call, "run", "tiny", "--seeds", "1", "--workers", "1"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while not list(project.glob("runs/*/pre-*/checkpoint/step-*")):
            assert time.monotonic() < until and serp.poll() is None
            time.sleep(0.2)
        for number in sent:
            os.kill(serp.pid, number) if number == signal.SIGTERM else os.killpg(serp.pid, number)
            time.sleep(0.3)
        _, error = serp.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(serp.pid, signal.SIGKILL)
    assert serp.returncode == status, error
    lines = [line for line in error.splitlines() if line.strip() and "run/s" not in line]
    assert lines == ["serp: stopping; the same command continues the suite"], error
    until = time.monotonic() + 20
    while left := processes_of(project):
        assert time.monotonic() < until, left
        time.sleep(0.2)


@pytest.mark.slow
def test_serp_run_killed_at_any_point_loses_nothing_and_runs_nothing_twice(tiny):
    """The whole group of processes dies three times; finished records stay as they are."""
    project, environment = tiny
    draw, finished = random.Random(0), {}
    for _ in range(3):
        process = subprocess.Popen(
            command(), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + draw.uniform(12, 25)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = done(project)
        assert all(now[name] == finished[name] for name in finished)  # none was run again
        for path in project.glob("runs/*/*/record.json"):
            assert records.read_json(path)["metrics"]  # whole
        finished = now
    ended = subprocess.run(command(), env=environment, capture_output=True, text=True, timeout=300)
    states = json.loads(ended.stdout.splitlines()[-1])
    assert set(states) <= {"done", "kept"}, ended.stderr[-2000:]
    assert len(states) == 6 and states.count("kept") == len(finished)
    now = done(project)
    assert len(now) == 6 and all(now[name] == finished[name] for name in finished)


@pytest.mark.slow
def test_the_runs_of_a_killed_worker_are_given_to_another(tiny, tmp_path):
    """A real scheduler and two workers as processes on loopback; one dies in mid-run."""
    project, environment = tiny
    address = tmp_path / "scheduler.json"
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    where = ["--scheduler-file", str(address), "--no-dashboard"]
    started = [
        subprocess.Popen(
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *where],
            start_new_session=True, **quiet,
        )
    ]  # fmt: skip
    try:
        for _ in range(2):
            started.append(
                subprocess.Popen(
                    [*dask, "worker", "--nthreads", "1", "--no-nanny", *where],
                    start_new_session=True, **quiet,
                )
            )  # fmt: skip
        until = time.monotonic() + 60
        while not (address.exists() and address.read_text()):
            assert time.monotonic() < until
            time.sleep(0.2)
        running = subprocess.Popen(
            command(json.loads(address.read_text())["address"]), env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until = time.monotonic() + 240
        while len(done(project)) < 2 or len(list(project.glob("runs/*/*"))) < 3:
            assert time.monotonic() < until and running.poll() is None
            time.sleep(0.2)
        finished = done(project)
        os.killpg(started[1].pid, signal.SIGKILL)  # the worker, and the kernel that it has
        out, error = running.communicate(timeout=400)
        states = json.loads(out.splitlines()[-1])
        assert len(states) == 6 and set(states) <= {"done", "kept"}, error[-2000:]
        now = done(project)
        assert len(now) == 6 and all(now[name] == finished[name] for name in finished)
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
