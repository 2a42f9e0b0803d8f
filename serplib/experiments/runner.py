"""Execute the runs of a suite: papermill runs the notebooks, Dask the many.

Parents run before children, finished runs are skipped, a failed one stops nothing but its children,
and there are as many workers as the machine carries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from serplib.data.common import data_folder
from serplib.experiments import records
from serplib.experiments.suites import Run, experiments_folder


def execute_notebook(notebook: str, executed: Path, parameters: dict) -> None:
    """Have papermill run an experiment notebook; the copy with outputs goes to ``executed``."""
    import papermill

    data_folder()  # makes SERP_DATA absolute: the kernel starts in another folder
    papermill.execute_notebook(
        str(experiments_folder() / f"{notebook}.ipynb"),
        str(executed),
        parameters=parameters,
        cwd=str(records.project_root()),
        kernel_name="python3",
        progress_bar=False,
        log_output=False,
        extra_arguments=["--log-level=ERROR"],  # of the kernel, whose stderr is the terminal's
    )


def run_one(run: Run, threads: int, parent: dict | None = None) -> dict:
    """Execute one run with papermill, unless it is finished; never raises for a failed notebook.

    Args:
        threads: CPU threads of its kernel. parent: the outcome of its parent.

    Returns:
        ``name``, ``seed``, ``state`` (``"done"``, ``"kept"``, ``"failed"`` or ``"not run"``),
        ``seconds``, ``message``, and the path of the executed ``notebook``.
    """
    import papermill

    started = time.perf_counter()
    executed = run.folder / "notebook.ipynb"
    outcome = {"name": run.name, "seed": run.seed, "notebook": str(executed), "message": ""}

    def ended(state: str, message: str = "") -> dict:
        seconds = time.perf_counter() - started
        return outcome | {"state": state, "message": message, "seconds": round(seconds, 1)}

    if parent is not None and parent["state"] in ("failed", "not run"):
        return ended("not run", f"its parent {run.parent.name} failed")
    if run.finished():
        return ended("kept")
    run.folder.mkdir(parents=True, exist_ok=True)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    # Threads that spin for long while they wait take the core from the one they wait for, once
    # anything else runs: two runs of two threads on two cores then hardly move. Threads that never
    # spin double the time of a small Transformer's step on a quiet machine. So they spin briefly.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    about = {
        "suite": run.suite,
        "profile": run.profile,
        "name": run.name,
        "hash": run.hash,
        "parent": run.parent.hash if run.parent else None,
        **run.about,
    }
    parameters = {**run.parameters, "run": about, "folder": str(run.folder)}
    if run.parent:
        parameters["encoder"] = run.encoder
    try:
        execute_notebook(run.notebook, executed, parameters)
    except papermill.PapermillExecutionError as error:
        return ended("failed", f"{error.ename}: {error.evalue}".splitlines()[0][:300])
    except Exception as error:  # a kernel that dies, a disk that is full: the others go on
        return ended("failed", f"{type(error).__name__}: {error}".splitlines()[0][:300])
    if not run.finished():
        return ended("failed", "the notebook ended without writing its record")
    return ended("done")


def execute(
    runs: Iterable[Run],
    workers: int | None = None,
    scheduler: str | None = None,
    tell: Callable[[dict], None] = lambda outcome: None,
) -> list[dict]:
    """Execute runs on a Dask cluster, parents before children.

    Args:
        workers: processes that run notebooks side by side; None for one a core, or one where there
            is a GPU. They share the cores evenly.
        scheduler: address of a running Dask scheduler, in place of workers of our own.
        tell: called with each outcome as it comes.

    Returns:
        The outcomes (see `run_one`), as they came.
    """
    import dask
    from distributed import Client, LocalCluster, as_completed

    runs = list(runs)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if workers is None:
        workers = 1 if records.environment()["device"][:3] != "CPU" else cores
    workers = max(1, min(workers, len(runs)))
    threads = max(1, cores // workers)
    settings = {
        "distributed.worker.daemon": False,  # a worker starts kernels: it must have children
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        "distributed.scheduler.worker-saturation": 1.0,
    }
    with dask.config.set(settings):
        cluster = None
        if scheduler is None:
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50
            )
        outcomes = []
        try:
            with Client(scheduler or cluster) as client:
                futures = {}
                for order, run in enumerate(runs):
                    up = futures.get(run.parent.hash) if run.parent else None
                    futures[run.hash] = client.submit(
                        run_one, run, threads, up, key=f"{run.name}-{run.hash}", priority=-order
                    )
                for future in as_completed(futures.values()):
                    try:
                        outcome = future.result()
                    except Exception as error:  # the worker itself died, more often than allowed
                        outcome = {"name": future.key, "seed": None, "state": "failed"}
                        outcome |= {"seconds": 0.0, "message": str(error), "notebook": ""}
                    outcomes.append(outcome)
                    tell(outcome)
        finally:
            if cluster is not None:
                cluster.close()
    return outcomes
