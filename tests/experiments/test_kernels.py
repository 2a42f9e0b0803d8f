"""Warm kernels: a process for each run, the same results, deaths, interrupts, environment."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import test_suites
import torch

from serplib.experiments import kernels, records, runner, suites

COMMAND = [sys.executable, "-m", "ipykernel_launcher", "-f", "x.json"]
pytestmark = pytest.mark.skipif(not kernels._can_fork(COMMAND), reason="kernels are not forked")

VARIABLES = {"OMP_NUM_THREADS": "3", "GOMP_SPINCOUNT": "7", "MALLOC_TRIM_THRESHOLD_": "1000000"}
SEEN = """
import builtins, importlib, json, os, signal, sys, threading
import matplotlib, numpy, torch
from serplib.experiments import kernels
for module in kernels._IMPORTED:
    importlib.import_module(module)
marked = hasattr(builtins, "mark")
builtins.mark = 1
seen = {
    "path": sys.path, "argv": len(sys.argv), "program": os.path.basename(sys.argv[0]),
    "folder": os.getcwd(), "environment": dict(os.environ), "modules": __name__,
    "signals": {s: repr(signal.getsignal(s)).split(" at ")[0] for s in (2, 15)},
    "threads": torch.get_num_threads(), "python threads": threading.active_count(),
    "backend": matplotlib.get_backend(),
}
drawn = torch.rand(1).item(), numpy.random.random()
print(json.dumps([os.getpid(), os.getppid(), marked, drawn, seen]))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project of its own with the real experiment notebooks, for one server of all tests."""
    root = tmp_path_factory.mktemp("project")
    test_suites.shutil.copytree(
        test_suites.ROOT / "notebooks" / "experiments", root / "notebooks" / "experiments"
    )
    test_suites.write_suite(root, test_suites.TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERP_ROOT", str(root))
        yield root
    kernels._server.cache_clear()


def execute(project: Path, source: str, warm: bool = True) -> str:
    """Execute a notebook with one cell and return what it printed."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)  # another environment would be another server
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, project / "notebooks" / "experiments" / "one.ipynb")
    out = project / "out.ipynb"
    runner.execute_notebook("one", out, {}, warm, **VARIABLES)
    return "".join(o.text for c in nbformat.read(out, 4).cells for o in c.get("outputs", []))


def test_each_run_is_a_new_process_and_sees_what_it_sees_in_a_fresh_kernel(project):
    one, two, fresh = (json.loads(execute(project, SEEN, warm)) for warm in (True, True, False))
    assert len({one[0], two[0], fresh[0]}) == 3, "a process for each run"
    assert one[1] == two[1] != os.getpid() == fresh[1], "of one server"
    assert not (one[2] or two[2]), "what a run leaves behind is gone in the next"
    assert len({*one[3], *two[3]}) == 4, "no two runs draw alike without a seed"
    for seen, parent in ((one, one[1]), (two, two[1]), (fresh, os.getpid())):
        assert seen[4]["environment"].pop("JPY_PARENT_PID") == str(parent)
        seen[4]["argv"] -= seen is not fresh  # the option that names the parent
    assert one[4] == two[4]
    assert one[4] == fresh[4]
    assert VARIABLES.items() <= one[4]["environment"].items()


@pytest.mark.slow
def test_records_of_warm_and_fresh_kernels_are_equal(project, monkeypatch):
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    pre, _, tuned = suites.plan("tiny", seeds=1)
    found = []
    for warm in ("1", "0"):
        monkeypatch.setenv("SERP_WARM", warm)
        for run in (pre, tuned):
            outcome = runner.run_one(run, threads=1, share=False)
            assert outcome["state"] == "done", outcome
            found.append(records.read_json(run.folder / "record.json"))
            for volatile in ("seconds", "finished"):
                del found[-1][volatile]
            (run.folder / "record.json").unlink()
            test_suites.shutil.rmtree(run.folder / "checkpoint")
    assert found[:2] == found[2:]


def test_a_kernel_that_dies_fails_the_run_as_a_fresh_one_does(project):
    deaths = []
    for warm in (True, False):
        with pytest.raises(Exception) as caught:
            execute(project, "import os; os.kill(os.getpid(), 9)", warm)
        deaths.append((type(caught.value).__name__, str(caught.value)))
    assert deaths[0] == deaths[1] == ("DeadKernelError", "Kernel died")
    assert execute(project, "print(1)") == "1\n", "the next run has a kernel"


def test_an_interrupt_reaches_the_cell(project):
    import papermill

    os.environ.pop("PYTEST_CURRENT_TEST", None)
    source = (
        "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('stopped')"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, project / "slow.ipynb")
    done = papermill.execute_notebook(
        project / "slow.ipynb", None, kernel_name="python3", progress_bar=False,
        kernel_manager_class=kernels.WarmKernelManager, execution_timeout=1,
        interrupt_on_timeout=True,
    )  # fmt: skip
    assert done.cells[0].outputs[0].text == "stopped\n"


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


WORKER = """
import sys
sys.path.insert(0, {here!r})
import test_kernels
source = "import os, time; open('pids', 'w').write(f'{{os.getppid()}} {{os.getpid()}} '); "
test_kernels.execute(test_kernels.Path({project!r}), source + "time.sleep(300)")
"""


@pytest.mark.slow
def test_the_server_and_its_kernels_end_with_a_killed_worker(project):
    call = WORKER.format(here=str(Path(__file__).parent), project=str(project))
    worker = subprocess.Popen([sys.executable, "-c", call], cwd=project)
    pids, until = project / "pids", time.monotonic() + 120
    while not (pids.exists() and pids.read_text().endswith(" ")):
        assert time.monotonic() < until and worker.poll() is None
        time.sleep(0.1)
    worker.kill()
    worker.wait()
    server, kernel = map(int, pids.read_text().split())
    until = time.monotonic() + 20
    while not (gone(server) and gone(kernel)):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
def test_a_killed_server_is_replaced(project):
    tell = "import os; print(os.getppid())"
    first = int(execute(project, tell))
    os.kill(first, signal.SIGKILL)
    assert int(execute(project, tell)) not in (first, os.getpid())


def test_changed_code_is_another_server(tmp_path, monkeypatch):
    module = tmp_path / "serplib" / "experiments" / "kernels.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(kernels, "__file__", str(module))
    before = kernels._code()
    assert kernels._code() == before
    os.utime(module, (1, 1))
    assert kernels._code() != before


@pytest.mark.parametrize("reason", ["asked", "system", "cuda", "python"])
def test_kernels_are_started_as_usual_where_they_cannot_be_forked(reason, monkeypatch):
    command = ["/another/python", *COMMAND[1:]] if reason == "python" else COMMAND
    if reason == "asked":
        monkeypatch.setenv("SERP_WARM", "0")
    if reason == "system":
        monkeypatch.setattr(sys, "platform", "darwin")
    if reason == "cuda":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not kernels._can_fork(command)
