"""One run over several processes, which Accelerate's launcher starts (`processes` of a suite).

A Jupyter kernel has threads and must not be forked, so the processes are new ones. Each calls the
pipeline with the arguments of the notebook; the main one writes the record and the weights. Their
standard input is a pipe from the kernel: it closes when the kernel is interrupted or dies, and they
end.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from serplib.experiments import records


def launched() -> bool:
    """Tell whether a launcher, such as that of Accelerate, has started this process."""
    return "RANK" in os.environ


def count() -> int:
    """Return the number of processes of this run."""
    return int(os.environ.get("WORLD_SIZE", "1")) if launched() else 1


def call(pipeline: str, given: dict[str, Any], processes: int) -> tuple[dict[str, Any], Any]:
    """Call a pipeline in several processes, each with its share of the threads or its own GPU.

    Args:
        pipeline: name of a function of `pipelines`.
        given: its arguments.
        processes: how many, at least 1.

    Returns:
        Record and tensors to show, as from the function.

    Raises:
        ValueError: fewer GPUs than processes.
        RuntimeError: a process failed; the message begins with its error.
    """
    gpus = torch.cuda.device_count()
    if processes < 1 or 0 < gpus < processes:
        most = f"1 to {gpus}, the number of GPUs" if gpus else "at least 1"
        raise ValueError(f"processes is {processes}, wanted {most}")
    threads = max(1, torch.get_num_threads() // processes)
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment |= {"PYTHONIOENCODING": "utf-8"} | ({} if gpus else {"ACCELERATE_USE_CPU": "true"})
    with tempfile.TemporaryDirectory(prefix="serp-") as name:
        folder = Path(name)
        (folder / "call.json").write_text(json.dumps([pipeline, given]), encoding="utf-8")
        # --multi_gpu starts processes on a CPU, too; the others override Accelerate's own settings.
        options = {"num_processes": processes, "num_machines": 1, "gpu_ids": "all",
                   "main_process_port": 0, "mixed_precision": "no", "dynamo_backend": "no",
                   "num_cpu_threads_per_process": threads}  # fmt: skip
        command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
        command += [f"--{key}={value}" for key, value in options.items()]
        code, said = _run([*command, "--module", __name__, name], environment)
        if errors := sorted(folder.glob("error-*.json")):  # the first; others may follow from it
            first = records.read_json(errors[0])
            print(first["trace"], file=sys.stderr)
            raise RuntimeError(f"process {first['rank']} of {processes}: {first['message']}")
        if code:
            found = re.search(r"exitcode *: *(-?\d+)", said)
            reason = f"exit code {found[1]}" if found else said.strip().rpartition("\n")[2]
            memory = " (killed, often for lack of memory)" if reason == "exit code -9" else ""
            raise RuntimeError(f"one of {processes} processes ended: {reason}{memory}")
        print(said, end="", file=sys.stderr)  # warnings
        shown = torch.load(folder / "shown.pt", map_location="cpu", weights_only=True)
    return records.read_json(Path(given["folder"]) / "record.json"), shown


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command behind the progress bar of its main process; return exit code and output."""
    process = subprocess.Popen(
        command, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    said = deque[str](maxlen=200)
    bar = tqdm(bar_format="{desc}", mininterval=1.0)
    try:
        for line in process.stdout:  # a bar ends its states with \r, a line for Python
            if "%|" in line:
                bar.set_description_str(line.strip())
            elif line.strip():
                said.append(line)
        return process.wait(), "".join(said)
    finally:
        bar.close()
        process.stdin.close()
        process.terminate()
        process.wait()
        process.stdout.close()


def _end_with_parent() -> None:
    """Wait until nobody holds the other end of standard input, then end this process."""
    os.read(0, 1)
    os._exit(1)


def _work(folder: Path) -> None:
    """Call the pipeline that a folder names; leave there what it shows, or its error."""
    rank = int(os.environ["RANK"])
    try:
        from serplib.experiments import pipelines

        pipeline, given = records.read_json(folder / "call.json")
        shown = getattr(pipelines, pipeline)(**given).shown
        if rank == 0:
            torch.save(shown, folder / "shown.pt")
    except Exception as error:
        content = {"rank": rank, "message": f"{type(error).__name__}: {error}"}
        content |= {"trace": traceback.format_exc()}
        records.write_json(folder / f"error-{time.time_ns()}-{rank}.json", content)
        os._exit(1)  # the others may wait for this process, and an orderly end would wait for them
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work(Path(sys.argv[1]))
