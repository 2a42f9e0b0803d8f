"""Optional back ends that are missing, broken or without a cache never stop the library."""

import os
import stat
import subprocess
import sys
import textwrap

import pytest
import torch

from serplib import accel

SEARCH = """
import sys
import torch
from serplib import accel, geometry
from serplib.accel import fuse
from serplib.pointnet import PointNetConfig, SerpPointNet

assert "numba" not in sys.modules and "triton" not in sys.modules, "imported before its use"
points = torch.randn(3, 30, 3, generator=torch.Generator().manual_seed(0))
found = [geometry.farthest_point_sample(points, 9), geometry.knn(points, points, 4),
         *geometry.nearest_pairs(points, points[:, :9])]
distance = geometry.chamfer_l2(points, points[:, :9].clone().requires_grad_())
distance.backward()
with accel.disabled():
    expected = [geometry.farthest_point_sample(points, 9), geometry.knn(points, points, 4),
                *geometry.nearest_pairs(points, points[:, :9])]
assert all(map(torch.equal, found, expected))
fuse(SerpPointNet(PointNetConfig((4, 4, 4), (4, 4, 4, 4), (4, 4, 4, 4, 4))))(points)
print(*accel.status("cpu"), "numba" in sys.modules, sep="|")
"""


def run(folder, script=SEARCH, **environment):
    """Run a script in a process whose `sitecustomize` and modules in ``folder`` come first."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "SERP_FAST"))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=inherited
        | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        | environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    used, detail, fix, imported = done.stdout.strip().split("|")
    return used == "True", detail, fix, imported == "True"


def broken_numba(folder, body):
    (folder / "numba").mkdir()
    (folder / "numba" / "__init__.py").write_text(textwrap.dedent(body), encoding="utf-8")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise SystemError('initialization of _internal failed')", "SystemError: initialization"),
        ("raise AttributeError('module numpy has no attribute x')", "AttributeError: module numpy"),
        ("import a_module_that_numba_needs", "ModuleNotFoundError: No module named 'a_module"),
        ("raise OSError('libgomp.so.1: cannot open')", "OSError: libgomp"),
        ("njit = None", "TypeError"),
        ("def njit(**o): return lambda f: 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_broken_numba_is_named_and_not_used(tmp_path, body, said):
    broken_numba(tmp_path, body)
    used, detail, fix, _ = run(tmp_path)
    assert not used and detail.startswith("broken: ") and said in detail
    assert "--force-reinstall numba" in fix


def test_a_missing_numba_is_named(tmp_path):
    script = "import sys\nsys.meta_path.insert(0, type('F', (), {'find_spec': staticmethod("
    script += "lambda name, *a: (_ for _ in ()).throw(ModuleNotFoundError(name, name=name)) "
    script += "if name == 'numba' else None)}))\n"
    used, detail, fix, imported = run(tmp_path, script + SEARCH)
    assert (used, detail, imported) == (False, "not installed", False)
    assert fix.startswith("pip install numba")


@pytest.mark.parametrize("value", ["0", "false", " OFF "])
def test_serp_fast_0_imports_no_numba(tmp_path, value):
    broken_numba(tmp_path, "raise SystemExit('imported')")  # no Exception: would end the process
    used, detail, fix, imported = run(tmp_path, SERP_FAST=value)
    assert (used, imported) == (False, False)
    assert (detail, fix) == ("switched off by SERP_FAST=0", "unset SERP_FAST")


needs_numba = pytest.mark.skipif(not accel.status().used, reason="needs numba")


@pytest.mark.slow
@needs_numba
def test_no_writable_folder_for_the_cache(tmp_path):
    """A read-only install without a writable home: compile in each process, and say so."""
    script = """
import os, tempfile
def refuse(*arguments, **options):
    raise PermissionError(13, "Permission denied")
import numba.core.caching as caching  # tests whether it may write with these
caching.tempfile.TemporaryFile = caching.os.makedirs = refuse
"""
    script += SEARCH.replace('assert "numba" not in sys.modules and ', "assert ")
    used, detail, fix, _ = run(tmp_path, script)
    assert used and "compiled anew in each process: no writable cache folder" in detail
    assert fix == "set NUMBA_CACHE_DIR to a writable folder"


@pytest.mark.slow
@needs_numba
def test_a_full_disk_and_damaged_cache_files(tmp_path):
    cache = tmp_path / "cache"
    script = """
import numba.core.caching as caching
def full(*arguments, **options):
    raise OSError(28, "No space left on device")
caching.IndexDataCacheFile._save_index = full
"""
    script += SEARCH.replace('assert "numba" not in sys.modules and ', "assert ")
    used, _, fix, _ = run(tmp_path, script, NUMBA_CACHE_DIR=str(cache))
    assert used and fix == ""
    used, *_ = run(tmp_path, NUMBA_CACHE_DIR=str(cache))  # now written
    files = list(cache.rglob("*.nb?"))
    assert used and len(files) > 4
    for file in files:
        file.chmod(stat.S_IRUSR | stat.S_IWUSR)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    used, *_ = run(tmp_path, NUMBA_CACHE_DIR=str(cache))
    assert used


def test_importing_changes_nothing_in_the_process(tmp_path):
    """Neither malloc's settings nor the environment: memory that is given back goes back."""
    script = """
import os, resource, sys
before = dict(os.environ), resource.getrlimit(resource.RLIMIT_DATA)
import torch
import serplib.training, serplib.experiments.pipelines
from serplib import geometry
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
cloud = torch.randn(1, 20, 3)
geometry.knn(cloud, cloud, 2)
held = resident()
blocks = [torch.ones(2**23) for _ in range(8)]  # 8 x 32 MiB
del blocks
assert resident() - held < 2**24, resident() - held
assert before[0] == dict(os.environ)
assert "torch._dynamo" not in sys.modules, "seconds of each start"
print(True, "", "", True, sep="|")
"""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("reads /proc")
    run(tmp_path, script)


def test_searches_of_other_devices_are_plain():
    assert accel.searches(torch.zeros(1, 2, 3, device="meta")) is None
