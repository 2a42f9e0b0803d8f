"""Execute the runs of a suite: papermill executes a notebook, Dask distributes the runs.

Parents run before children, finished runs are skipped, and a failed run only stops its children.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from serplib.data.common import data_folder
from serplib.experiments import records
from serplib.experiments.suites import Run, experiments_folder
from serplib.experiments.workers import WorkerError, check

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster, Scheduler


CONNECT_SECONDS = 10  # how long a scheduler may take to answer


class SchedulerError(Exception):
    """The Dask scheduler cannot be reached; the message is one line."""


def process_environment() -> dict[str, str]:
    """Return settings of glibc's malloc under which a training process runs faster.

    By default glibc returns large blocks to the system, which clears them page by page when the
    next step needs them again. The peak memory of training and of probes stays within 10 %.
    """
    wanted = {"MALLOC_MMAP_THRESHOLD_": 2**25, "MALLOC_TRIM_THRESHOLD_": 2**28}  # bytes
    glibc = platform.libc_ver()[0] == "glibc"
    return {k: os.environ.get(k, str(v)) for k, v in wanted.items()} if glibc else {}


@contextmanager
def _absent(module: str) -> Iterator[None]:
    """Let imports of an optional module fail, as where it is not installed."""
    added = sys.modules.setdefault(module, None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        if added:
            del sys.modules[module]


def execute_notebook(
    notebook: str, executed: Path, parameters: dict[str, Any], warm: bool = False, **variables: str
) -> None:
    """Execute an experiment notebook with papermill.

    Args:
        notebook: file stem.
        executed: path of the copy with outputs.
        parameters: injected after its parameters cell.
        warm: fork its kernel from a server, faster from the second notebook on (see `kernels`).
        variables: environment variables of its kernel.
    """
    with _absent("rfc3987_syntax"):  # its grammar takes 2.2 s, and papermill does without it
        import papermill

    from serplib.experiments.kernels import WarmKernelManager

    def literal(path: Path) -> str:  # papermill takes paths for templates
        return str(path).replace("{", "{{").replace("}", "}}")

    data_folder()  # makes SERP_DATA absolute: the kernel starts in another folder
    variables["SERP_ROOT"] = str(records.project_root())
    with patch.dict(os.environ, variables):  # kernels inherit them
        papermill.execute_notebook(
            literal(experiments_folder() / f"{notebook}.ipynb"),
            literal(executed),
            parameters=parameters,
            cwd=str(records.project_root()),
            kernel_name="python3",
            progress_bar=False,
            log_output=False,
            extra_arguments=["--log-level=ERROR"],  # the kernel shares the terminal's stderr
            **({"kernel_manager_class": WarmKernelManager} if warm else {}),
        )


def _take_from_another_suite(run: Run, about: dict) -> bool:
    """Copy a finished run with the same hash, which another suite has executed."""
    for path in run.folder.parent.parent.glob(f"*/*-{run.folder.name[-8:]}/record.json"):
        try:
            record = records.read_json(path)
            same = record["run"]["hash"] == run.hash
        except (OSError, ValueError, KeyError, TypeError):  # damaged: the run is executed again
            continue
        if same:
            shutil.copytree(path.parent, run.folder, dirs_exist_ok=True)
            records.write_json(run.folder / "record.json", record | {"run": about})
            return True
    return False


def run_one(
    run: Run, threads: int, parent: dict | None = None, share: bool = True,
    gpus: list[str] | None = None,
) -> dict:  # fmt: skip
    """Execute one run with papermill, unless it is finished; a failed notebook raises nothing.

    Args:
        run: the run.
        threads: CPU threads of its kernel.
        parent: the outcome of its parent.
        share: take the run from another suite that has finished it.
        gpus: for each worker those of its kernels (``CUDA_VISIBLE_DEVICES``); None for all.

    Returns:
        ``name``, ``seed``, ``state`` (``"done"``, ``"kept"``, ``"failed"`` or ``"not run"``),
        ``seconds``, ``message``, the path of the executed ``notebook``, and of a failed one the end
        of the ``trace``.
    """
    started = time.perf_counter()
    executed = run.folder / "notebook.ipynb"
    outcome = {"name": run.name, "seed": run.seed, "notebook": str(executed), "message": ""}

    def ended(state: str, message: str = "", trace: str = "") -> dict:
        seconds = round(time.perf_counter() - started, 1)
        return outcome | {"state": state, "message": message, "trace": trace, "seconds": seconds}

    if run.parent and parent and parent["state"] in ("failed", "not run"):
        return ended("not run", f"its parent {run.parent.name} failed")
    if run.finished():
        return ended("kept")
    about = {key: getattr(run, key) for key in ("suite", "profile", "name", "hash")} | run.about
    about["parent"] = run.parent.hash if run.parent else None
    if share and _take_from_another_suite(run, about):
        return ended("kept")
    run.folder.mkdir(parents=True, exist_ok=True)
    variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    # Waiting OpenMP threads that spin for long take the core of the thread they wait for; threads
    # that never spin double the time of a small Transformer's step. So they spin briefly.
    variables["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT", "20000")
    variables |= process_environment()
    if gpus:
        from distributed import get_worker

        variables["CUDA_VISIBLE_DEVICES"] = gpus[int(get_worker().name) % len(gpus)]
    parameters = {**run.parameters, "run": about, "folder": str(run.folder)}
    if run.parent:
        parameters["encoder"] = str(run.parent.folder / "encoder.safetensors")
    try:
        execute_notebook(run.notebook, executed, parameters, warm=True, **variables)
    except Exception as error:  # a dead kernel or a full disk must not stop the other runs
        kind = getattr(error, "ename", type(error).__name__)  # papermill's: that of the notebook
        reason = getattr(error, "evalue", error)
        line = " ".join(f"{kind}: {reason}".split())  # its end often names the remedy
        if kind == "DeadKernelError":  # the system ends a process that takes too much memory
            line += " (killed, often for lack of memory); the same command continues this run"
        short = line if len(line) <= 300 else f"{line[:180]} ... {line[-115:]}"
        return ended("failed", short, trace="\n".join(str(error).splitlines()[-12:]))
    if not run.finished():
        return ended("failed", "the notebook ended without writing its record")
    return ended("done")


def execute(
    runs: Iterable[Run],
    workers: int | None = None,
    scheduler: str | None = None,
    on_outcome: Callable[[dict], None] = lambda outcome: None,
    fresh: bool = False,
    retries: int | None = None,
) -> list[dict]:
    """Execute runs on a Dask cluster, parents before children.

    Args:
        runs: of `suites.plan`.
        workers: processes that execute notebooks at the same time and share cores and GPUs evenly;
            None for as many as there are cores, or GPUs, for the ``processes`` of a run.
        scheduler: address of a running Dask scheduler; None starts workers on this machine.
        on_outcome: called with each outcome.
        fresh: delete the folders of the runs first, and take nothing from other suites.
        retries: how many lost workers a run survives; None for the scheduler's setting. A failed
            notebook is not repeated.

    Returns:
        The outcomes (see `run_one`) in the order of completion.

    Raises:
        SchedulerError: no scheduler answers at the address.
        WorkerError: one of its workers has another revision, other data or another runs/; or this
            machine has fewer GPUs than a run has processes.
    """
    import dask
    from distributed import LocalCluster, as_completed

    runs = list(runs)
    workers, threads, gpus = _shares(runs, workers, local=scheduler is None)
    memory = ("target", "spill", "pause", "terminate")
    settings: dict[str, Any] = {f"distributed.worker.memory.{limit}": False for limit in memory}
    settings["distributed.worker.daemon"] = False  # a worker starts kernels: it must have children
    settings["distributed.worker.preload"] = [__name__]  # calls `dask_setup`
    if retries is not None:
        settings["distributed.scheduler.allowed-failures"] = retries
    outcomes = []
    with dask.config.set({**settings, "distributed.scheduler.worker-saturation": 1.0}):
        cluster = nullcontext(scheduler) if scheduler is not None else LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        )  # fmt: skip
        with cluster as address, _connect(address) as client:
            if scheduler is not None:
                check(client, runs)
            if scheduler is not None and retries is not None:
                client.run_on_scheduler(_allow_failures, retries)
            if fresh:
                for run in runs:
                    shutil.rmtree(run.folder, ignore_errors=True)
            futures: dict[Path, Future] = {}  # two small runs may have the same hash
            for order, run in enumerate(runs):
                up = futures.get(run.parent.folder) if run.parent else None
                futures[run.folder] = client.submit(
                    run_one, run, threads, up, not fresh, gpus,
                    key=f"{run.name}-{run.hash}", priority=-order,
                )  # fmt: skip
            for future in as_completed(futures.values()):
                try:
                    outcome = future.result()
                except Exception as error:  # the worker itself died, more often than allowed
                    outcome = {"name": future.key, "seed": None, "state": "failed"}
                    outcome |= {"seconds": 0.0, "message": str(error), "notebook": ""}
                outcomes.append(outcome)
                on_outcome(outcome)
    return outcomes


def _shares(runs: list[Run], workers: int | None, local: bool) -> tuple[int, int, list[str] | None]:
    """Share the cores and the GPUs of this machine.

    Returns:
        The number of workers, the threads of each, and for ``local`` ones on a machine with GPUs
        those of each (see `run_one`).
    """
    import torch
    from dask.system import CPU_COUNT

    processes = max(run.parameters.get("processes", 1) for run in runs)
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if local and 0 < count < processes:
        raise WorkerError(f"processes is {processes}, but the number of GPUs is {count}")
    visible = (named.split(",") if named else [str(i) for i in range(count)])[:count]
    groups = [
        ",".join(visible[i : i + processes]) for i in range(0, count - processes + 1, processes)
    ]
    if workers is None:
        workers = len(groups) or max(1, CPU_COUNT // processes)
    workers = max(1, min(workers, len(runs)))
    return workers, max(1, CPU_COUNT // workers), (groups or None) if local else None


def dask_setup(_: object) -> None:
    """Leave Ctrl-C, which a terminal also sends to workers, to the command; Dask calls this."""
    signal.signal(signal.SIGINT, lambda *_: None)


def _allow_failures(retries: int, dask_scheduler: Scheduler) -> None:
    """Set how many lost workers a task of a running scheduler survives."""
    dask_scheduler.allowed_failures = retries


def _connect(address: LocalCluster | str | None) -> Client:
    """Connect to a cluster or to the address of a scheduler."""
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise SchedulerError(
            f"no Dask scheduler answers at {address!r} ({reason}): wanted the address that "
            "'dask scheduler' prints, such as tcp://HOST:8786"
        ) from None
