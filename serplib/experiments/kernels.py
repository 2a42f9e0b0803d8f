"""Kernels that start warm: forks of a server that has imported torch, the library and IPython.

Starting a kernel and importing takes longer than a small run. So each process that executes
notebooks starts one server, which imports what experiments need and then waits; each notebook gets
a fork of it, a process of its own in which nothing has run. A server serves kernels with the same
interpreter, environment variables, folder and library code; for others a new one is started.

A kernel is started as usual outside Linux, where a fork may not use system libraries, on machines
with CUDA, where forks have not been tried, for kernels of another Python, and if SERP_WARM=0.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
import weakref
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

_LAUNCHER = ["-m", "ipykernel_launcher"]  # of a kernel's command, between interpreter and options
_IMPORTED = (  # by kernels, experiment notebooks and what they call; they must start no thread
    "ipykernel.kernelapp", "ipykernel.ipkernel", "serplib.experiments.pipelines",
    "serplib.course.plots", "serplib.accel.layers", "serplib.data.synthetic.objects",
    "torch._dynamo", "sklearn.svm", "sklearn.neighbors", "sklearn.pipeline", "sklearn.manifold",
)  # fmt: skip
_BACKEND = "module://matplotlib_inline.backend_inline"


class WarmKernelManager(AsyncKernelManager):
    """Start kernels as forks of a server where that is possible, for `papermill` and `nbclient`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.kernel_id = str(uuid.uuid4())
        self.provisioner = _Provisioner(
            kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self
        )


class _Provisioner(LocalProvisioner):
    async def launch_kernel(self, cmd: list[str], **options: Any) -> dict[str, Any]:
        if not _can_fork(cmd):
            return await super().launch_kernel(cmd, **options)
        start, options_of_kernel = cmd[: cmd.index("-m")], cmd[cmd.index("-m") + 2 :]
        self.cwd = options.get("cwd") or os.getcwd()
        key = tuple(start), tuple(sorted(options["env"].items())), self.cwd, _code()
        server = _server(*key)
        if not server.alive():  # killed since the last run
            _server.cache_clear()
            server = _server(*key)
        self.process = Fork(server, options_of_kernel)
        self.pid = self.pgid = self.process.pid  # it leads a session of its own
        return self.connection_info


def _can_fork(command: list[str]) -> bool:
    import torch

    linux = sys.platform == "linux" and os.environ.get("SERP_WARM") != "0"
    ours = command[0] == sys.executable and " ".join(_LAUNCHER) in " ".join(command)
    return linux and ours and not torch.cuda.is_available()


def _code() -> tuple[tuple[str, int], ...]:
    """Return path and time of the library's files: a server must not run code of yesterday."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return tuple((str(path), path.stat().st_mtime_ns) for path in files)


@functools.lru_cache(maxsize=1)
def _server(start: tuple[str, ...], env: tuple[tuple[str, str], ...], cwd: str, code: Any) -> Server:
    return Server(list(start), dict(env), cwd)


class Server:
    """A process that forks kernels; it and its kernels end when this process ends.

    Args:
        start: the interpreter and its options.
        env: environment variables of the server and its kernels.
        cwd: their folder.
    """

    def __init__(self, start: list[str], env: dict[str, str], cwd: str) -> None:
        ours, theirs = socket.socketpair()
        call = f"from serplib.experiments.kernels import serve; serve({theirs.fileno()})"
        with theirs:
            self.process = subprocess.Popen(
                [*start, "-c", call], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        self._lock = threading.Lock()
        with ours:
            self._channel = ours.makefile("rw")
        weakref.finalize(self, _end, self._channel, self.process)

    def alive(self) -> bool:
        """Tell whether the process runs."""
        return self.process.poll() is None

    def ask(self, request: list[str] | int) -> int | None:
        """Start a kernel with these options, or ask for the exit code of the one with this id.

        Returns:
            The id of the new process; or the exit code, None while it runs.

        Raises:
            OSError: the server has ended.
        """
        with self._lock:
            print(json.dumps(request), file=self._channel, flush=True)
            if line := self._channel.readline():
                return json.loads(line)
        raise BrokenPipeError(f"the server of kernels has ended ({self.process.wait()})")


def _end(channel: Any, process: subprocess.Popen) -> None:
    with contextlib.suppress(OSError):
        channel.close()
    process.wait()


class Fork:
    """A kernel, with the part of `subprocess.Popen` that provisioners use."""

    stdin = stdout = stderr = None

    def __init__(self, server: Server, options: list[str]) -> None:
        self._server = server
        self.pid = server.ask(options) or 0
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, None while it runs; a kernel does not outlive its server."""
        if self.returncode is None:
            try:
                self.returncode = self._server.ask(self.pid)
            except OSError:
                self.returncode = -signal.SIGKILL
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
        return self.returncode

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        while (code := self.poll()) is None:
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        if self.poll() is None:
            os.kill(self.pid, number)


def serve(descriptor: int) -> None:
    """Import, then fork kernels for the other end of a socket; this is the server's program.

    The function returns in each kernel when that ends; in the server it never does.
    """
    atexit.register(_leave)  # the first that is registered runs last
    os.environ.setdefault("MPLBACKEND", _BACKEND)  # as kernels do, before Matplotlib is imported
    for module in _IMPORTED:
        with contextlib.suppress(Exception):  # the notebook will import it again and show why
            importlib.import_module(module)
    with contextlib.suppress(Exception):
        _fill_caches()
    for finalizer in weakref.finalize._registry:  # type: ignore[attr-defined]
        finalizer.atexit = False  # torch's alone take half a second, to free memory
    gc.freeze()  # forks share what is never collected
    with socket.socket(fileno=descriptor) as end:
        channel = end.makefile("rw")
    kernels: set[int] = set()
    for line in channel:
        request = json.loads(line)
        if isinstance(request, int):
            pid, status = os.waitpid(request, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
            kernels -= {pid}
        elif not (answer := os.fork()):
            channel.close()
            return _become_kernel(request)
        else:
            kernels.add(answer)
        print(json.dumps(answer), file=channel, flush=True)
    for pid in kernels:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    os._exit(0)


def _fill_caches() -> None:
    """Call what takes long and keeps its result, as long as the library's code is the same."""
    from serplib import accel
    from serplib.experiments import records

    accel.status()  # loads the compiled searches
    records.code_digest()


def _become_kernel(options: list[str]) -> None:
    import numpy

    os.setsid()
    numpy.random.seed()  # each fork has the server's state
    parent = str(os.getppid())
    os.environ["JPY_PARENT_PID"] = parent
    sys.argv = ["", *options, f"--IPKernelApp.parent_handle={parent}"]  # it ends with its parent
    runpy.run_module(_LAUNCHER[1], run_name="__main__", alter_sys=True)
    global _status
    _status = 0


_status = 1  # of this kernel, unless it ends well


def _leave() -> None:
    """End without the teardown of modules, which would copy the server's memory."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_status)
