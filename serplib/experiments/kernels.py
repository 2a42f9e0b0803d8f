"""Warm kernels: forks of a server that has imported torch, the library and IPython.

Starting a kernel and importing takes longer than a small run. So a process that executes notebooks
starts one server, which imports what experiments need and then waits. Each notebook gets a fork of
it: a process of its own, in which nothing has run. A server serves kernels with the same
interpreter, environment variables, folder and library code; for others a new one is started.

A kernel is started as usual outside Linux (system libraries need not survive a fork), on machines
with CUDA (forks were not tried there), for another Python, and with ``SERP_WARM=0``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import os
import runpy
import signal
import subprocess
import sys
import time
import uuid
import weakref
from multiprocessing import connection
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

_IMPORTED = (  # by kernels, by experiment notebooks and by what they call; none starts a thread
    "ipykernel.kernelapp", "ipykernel.ipkernel", "serplib.experiments.pipelines",
    "serplib.course.plots", "serplib.accel.layers", "serplib.data.synthetic.objects",
    "torch._dynamo", "sklearn.svm", "sklearn.neighbors", "sklearn.pipeline", "sklearn.manifold",
)  # fmt: skip


class WarmKernelManager(AsyncKernelManager):
    """Start kernels as forks of a server where that is possible, for papermill and nbclient."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.kernel_id = str(uuid.uuid4())
        self.provisioner = _Provisioner(
            kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self
        )


class _Provisioner(LocalProvisioner):
    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        if not _can_fork(cmd):
            return await super().launch_kernel(cmd, **options)
        module = cmd.index("ipykernel_launcher")
        self.cwd = options.get("cwd") or os.getcwd()
        environment = tuple(sorted(options["env"].items()))
        wanted = tuple(cmd[: module - 1]), environment, self.cwd, _code()
        kernel: Any  # stands for a Popen
        try:
            kernel = _Fork(_server(*wanted), cmd[module + 1 :])
        except (EOFError, OSError):  # the server was killed since the last run
            _server.cache_clear()
            kernel = _Fork(_server(*wanted), cmd[module + 1 :])
        self.process = kernel
        self.pid = self.pgid = kernel.pid  # it leads a session of its own
        return self.connection_info

    async def send_signal(self, signum: int) -> None:
        """Send a signal; no interrupt before a shutdown, which kernels may report as an error."""
        if signum != signal.SIGINT or not getattr(self.parent, "shutting_down", False):
            await super().send_signal(signum)


def _can_fork(command: list[str]) -> bool:
    import torch

    from serplib.accel import switched_off

    wanted = sys.platform == "linux" and not switched_off("SERP_WARM")
    ours = command[0] == sys.executable and "ipykernel_launcher" in command
    return wanted and ours and not torch.cuda.is_available()


def _code() -> tuple[tuple[Path, int], ...]:
    """Return path and time of each file of the library: a server must not run older code."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return tuple((path, path.stat().st_mtime_ns) for path in files)


class _Server:
    """The process that forks kernels; it ends with the process that started it.

    Args:
        start: the interpreter and its options.
        env: environment variables of the server and its kernels.
        cwd: their folder.
    """

    def __init__(self, start: list[str], env: dict[str, str], cwd: str) -> None:
        self.channel, theirs = connection.Pipe()
        call = f"from serplib.experiments.kernels import serve; serve({theirs.fileno()})"
        with theirs:
            self.process = subprocess.Popen(
                [*start, "-c", call], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip

    def ask(self, request: list[str] | int) -> Any:
        """Start a kernel with these options and return its id; or return the exit code of an id."""
        self.channel.send(request)
        return self.channel.recv()

    def __del__(self) -> None:
        self.channel.close()
        self.process.wait()


@functools.lru_cache(maxsize=1)
def _server(start: tuple[str, ...], env: tuple[tuple[str, str], ...], cwd: str, code: Any) -> Any:
    return _Server(list(start), dict(env), cwd)


class _Fork:
    """A kernel, with the part of `subprocess.Popen` that provisioners use."""

    stdin = stdout = stderr = returncode = None

    def __init__(self, server: _Server, options: list[str]) -> None:
        self.server, self.pid = server, server.ask(options)

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                self.returncode = self.server.ask(self.pid)
            except (EOFError, OSError):  # without its server it ends within a second
                self.returncode = -signal.SIGKILL
        return self.returncode

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


# ---- in the server -----------------------------------------------------------------------------


def serve(descriptor: int) -> None:
    """Import, then fork a kernel for each request; return in each kernel when that ends.

    Args:
        descriptor: of the socket that `_Server.ask` writes to.
    """
    channel = connection.Connection(descriptor)
    atexit.register(_leave)  # what is registered first runs last
    # As in a kernel, but before Matplotlib is imported.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for module in _IMPORTED:
        with contextlib.suppress(Exception):  # the notebook imports it again and shows the reason
            importlib.import_module(module)
    with contextlib.suppress(Exception):  # slow, and the same as long as the library's code is
        from serplib import accel
        from serplib.experiments import records

        accel.status()  # loads the compiled searches
        records.code_digest()
    for finalizer in weakref.finalize._registry:  # type: ignore[attr-defined]
        finalizer.atexit = False  # those of torch take long, to free memory
    gc.freeze()  # memory that no fork collects stays shared
    with contextlib.suppress(EOFError):
        while request := channel.recv():
            if isinstance(request, int):
                ended, status = os.waitpid(request, os.WNOHANG)
                channel.send(os.waitstatus_to_exitcode(status) if ended else None)
            elif pid := os.fork():
                channel.send(pid)
            else:
                channel.close()
                _become_kernel(request)
                break


def _become_kernel(options: list[str]) -> None:
    import numpy
    import torch

    os.setsid()
    torch.seed()  # each fork has the server's generators
    numpy.random.seed()  # noqa: NPY002
    parent = os.environ["JPY_PARENT_PID"] = str(os.getppid())  # the kernel ends with its parent
    sys.argv = ["", *options, f"--IPKernelApp.parent_handle={parent}"]
    runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)


def _leave() -> None:
    """End without tearing modules down, which would copy the server's memory."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
