"""`accel.triton_ops` against the plain code: on a GPU, or in Triton's interpreter.

The interpreter runs a program at a time in Python: the clouds are few and small.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from serplib import accel, geometry
from serplib.seeding import named_generator

try:
    from serplib.accel import triton_ops
except ImportError:
    triton_ops = None

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(
    triton_ops is None, reason="needs Triton: pip install triton (Linux)"
)
SIZES = [(1, 1), (2, 2), (3, 33), (2, 64), (1, 100)]


@pytest.fixture
def kernels_alone(monkeypatch):
    """The kernels search on any device; clouds that they refuse go to the plain code."""

    def searches(*clouds):
        return triton_ops if accel._enabled and triton_ops.accepts(*clouds) else None

    monkeypatch.setattr(accel, "searches", searches)


def plain(function, *arguments):
    with accel.disabled():
        return function(*arguments)


def clouds(kind, batch, num_points, name=0):
    """Random clouds, or whole coordinates from -1 to 1: 27 places, hence ties and duplicates."""
    generator = named_generator("kernels", kind, batch, num_points, name)
    if kind == "grid":
        points = torch.randint(-1, 2, (batch, num_points, 3), generator=generator).float()
    else:
        points = torch.randn(batch, num_points, 3, generator=generator)
    return points.to(DEVICE)


@needs_triton
@pytest.mark.parametrize(("batch", "num_points"), SIZES)
@pytest.mark.parametrize("kind", ["random", "grid"])
def test_farthest_points_are_those_of_the_plain_code(kernels_alone, kind, batch, num_points):
    points = clouds(kind, batch, num_points)
    assert triton_ops.accepts(points)
    for start in {0, num_points // 2, num_points - 1}:
        asked = points, min(num_points, 12), start
        found = geometry.farthest_point_sample(*asked)
        assert torch.equal(found, plain(geometry.farthest_point_sample, *asked))


@needs_triton
@pytest.mark.parametrize(("batch", "num_points"), SIZES)
@pytest.mark.parametrize("kind", ["random", "grid"])
def test_neighbours_are_those_of_the_plain_code(kernels_alone, kind, batch, num_points):
    points, queries = clouds(kind, batch, num_points), clouds(kind, batch, 3, "queries")
    assert triton_ops.accepts(queries, points)
    for k in {1, min(num_points, 5), min(num_points, 33)}:
        found = geometry.knn(queries, points, k)
        assert torch.equal(found, plain(geometry.knn, queries, points, k))


@needs_triton
def test_no_index_is_picked_twice(kernels_alone):
    points = clouds("random", 2, 5)[:, torch.arange(20) % 5]
    found = geometry.farthest_point_sample(points, 20, 3)
    assert torch.equal(found, plain(geometry.farthest_point_sample, points, 20, 3))
    assert found.sort(1).values.tolist() == [list(range(20))] * 2


@needs_triton
@pytest.mark.parametrize("sizes", [(1, 1), (1, 70), (70, 1), (32, 32), (33, 65)])
@pytest.mark.parametrize("kind", ["random", "grid"])
def test_nearest_pairs_are_those_of_the_plain_code(kernels_alone, kind, sizes):
    a, b = (clouds(kind, 2, size, name) for name, size in zip("ab", sizes))
    found = geometry.nearest_pairs(a, b)
    for ours, exact in zip(found, plain(geometry.nearest_pairs, a, b)):
        assert ours.dtype == torch.int64 and torch.equal(ours, exact)


@needs_triton
def test_chamfer_and_its_gradient_are_those_of_the_plain_code(kernels_alone):
    a, b = clouds("random", 3, 32, "a").requires_grad_(), clouds("random", 3, 40, "b")
    ends = []
    for way in (lambda f, *x: f(*x), plain):
        loss = way(geometry.chamfer_l2, a, b)
        (gradient,) = torch.autograd.grad(loss, a)
        ends.append((loss.detach(), gradient))
    assert torch.equal(ends[0][0], ends[1][0]) and torch.equal(ends[0][1], ends[1][1])
    assert ends[0][1].abs().sum() > 0


@needs_triton
def test_distances_are_summed_as_the_plain_code_sums_them(kernels_alone):
    """Points whose order hangs on the last bit: any other rounding of the sums would swap some."""
    generator = named_generator("last bit")
    on_sphere = torch.nn.functional.normalize(torch.randn(1, 512, 3, generator=generator), dim=-1)
    points = on_sphere.to(DEVICE)
    centre = torch.zeros(1, 1, 3, device=DEVICE)  # all at distance 1, up to rounding
    found = geometry.knn(centre, points, 64)
    assert torch.equal(found, plain(geometry.knn, centre, points, 64))
    rounded_otherwise = geometry.knn(centre.double(), points.double(), 64)
    assert not torch.equal(found, rounded_otherwise)
    from_centre = torch.cat([centre.expand(8, -1, -1), points.view(8, 64, 3)], 1)  # (8, 65, 3)
    farthest = geometry.farthest_point_sample(from_centre, 2)
    assert torch.equal(farthest, plain(geometry.farthest_point_sample, from_centre, 2))
    assert not torch.equal(farthest, geometry.farthest_point_sample(from_centre.double(), 2))


# A launch compiles the kernel for an H100, with the options of the launch, and runs nothing.
COMPILED = r"""
import json, re, torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from serplib.accel import triton_ops as kernels

class Compiled:
    def __init__(self, name):
        self.name, self.kernel = name, getattr(kernels, name)

    def __getitem__(self, grid):
        return self.launch

    def launch(self, *given, **options):
        names = self.kernel.arg_names
        values = dict(zip(names, given)) | {n: options.pop(n) for n in names if n in options}
        types = {torch.float32: "*fp32", torch.int64: "*i64"}
        signature = {
            name: "constexpr" if name.isupper() else
            types[value.dtype] if torch.is_tensor(value) else "i32"
            for name, value in values.items()
        }
        constants = {name: value for name, value in values.items() if name.isupper()}
        source = ASTSource(self.kernel, signature, constants)
        code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm
        count = lambda pattern: len(re.findall(pattern, code["sass"]))
        print(json.dumps({
            "kernel": self.name, "products": count(r"\bFMUL\b"), "fused": count(r"\bFFMA"),
            "flushed": count(r"\b(FADD|FMUL|FMNMX|FSETP)\S*\.FTZ"),
            "spilled": count(r"\b(LDL|STL)\b"),
            "ties": code["ttir"].count("arith.cmpf oeq"),
        }))

for name in ("_fps", "_knn", "_nearest"):
    setattr(kernels, name, Compiled(name))
points = torch.zeros(2, 1024, 3)
kernels.farthest_point_sample(points, 64, 0)
kernels.knn(points[:, :64], points, 32)
kernels.nearest_pairs(points, points)
"""


@needs_triton
@pytest.mark.skipif(
    triton_ops is not None and not triton_ops.triton.__version__.startswith("3.9"),
    reason="reads what the compiler of Triton 3.9 writes; other versions may write it otherwise",
)
def test_the_machine_code_fuses_and_flushes_nothing_and_stays_in_registers(tmp_path):
    """What the interpreter cannot show, at the paper's sizes; it needs no GPU."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True,
                          env=environment | {"TRITON_CACHE_DIR": str(tmp_path)})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [code["kernel"] for code in found] == ["_fps", "_knn", "_nearest", "_nearest"]
    for code in found:
        assert code["products"] >= 3, "these are the distances"
        assert code["fused"] == code["flushed"] == code["spilled"] == 0, code
    assert found[0]["ties"] > 0, "of equal maxima the one with the lower index"


@needs_triton
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_clouds_on_a_gpu_that_is_not_the_current_one(kernels_alone):
    points = clouds("random", 2, 64).to("cuda:1")
    found = geometry.farthest_point_sample(points, 8)
    assert found.device == points.device
    assert torch.equal(found, plain(geometry.farthest_point_sample, points, 8))
    assert torch.equal(geometry.knn(points, points, 4), plain(geometry.knn, points, points, 4))
    for ours, exact in zip(
        geometry.nearest_pairs(points, points), plain(geometry.nearest_pairs, points, points)
    ):
        assert torch.equal(ours, exact)


@needs_triton
@pytest.mark.parametrize("layout", ["transposed", "strided", "sliced", "expanded"])
def test_layout_in_memory_does_not_matter(kernels_alone, layout):
    points = clouds("random", 2, 24)
    views = {
        "transposed": points.transpose(1, 2).contiguous().transpose(1, 2),
        "strided": points.repeat_interleave(2, 1)[:, ::2],
        "sliced": torch.cat([points, points], 2)[..., 3:],
        "expanded": points[:1].expand(2, -1, -1),
    }
    given = views[layout]
    same = given.contiguous()
    assert torch.equal(
        geometry.farthest_point_sample(given, 6), plain(geometry.farthest_point_sample, same, 6)
    )
    assert torch.equal(geometry.knn(given, given, 4), plain(geometry.knn, same, same, 4))


@needs_triton
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_within_range(kernels_alone, bad):
    points = clouds("random", 2, 20)
    points[0, 3] = bad
    for found in (
        geometry.farthest_point_sample(points, 8),
        geometry.knn(points[:, :4], points, 20),
        *geometry.nearest_pairs(points, points),
    ):
        assert found.min() >= 0 and found.max() < 20
    other = plain(geometry.farthest_point_sample, points[1:], 8)  # the other cloud is not touched
    assert torch.equal(geometry.farthest_point_sample(points, 8)[1:], other)


@needs_triton
def test_the_kernels_take_float32_of_their_size_alone():
    assert triton_ops.accepts(torch.zeros(2, triton_ops.LARGEST, 3))
    assert not triton_ops.accepts(torch.zeros(2, triton_ops.LARGEST + 1, 3))
    assert not triton_ops.accepts(torch.zeros(2, 5, 3), torch.zeros(2, 5, 3).double())


GPU_SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def test_the_script_for_a_gpu_runs():
    done = subprocess.run([sys.executable, GPU_SCRIPT, "--smoke"], capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("checked: ")
    rows = [line for line in done.stdout.splitlines() if line.startswith("{'work': ")]
    assert sum("'kernels_ms': " in row for row in rows) == 5
    assert sum("'clouds_per_second': " in row for row in rows) == 2
    assert sum("'compiled_ms': " in row and "None" not in row for row in rows) == 4
    assert len(rows) == 11


def test_the_script_for_a_gpu_ends_where_a_kernel_is_wrong(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--smoke"])
    spec = importlib.util.spec_from_file_location("gpu", GPU_SCRIPT)
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    gpu.check("right", lambda points: points, (torch.zeros(3),))
    for wrong in (
        lambda points: points + accel._enabled,
        lambda points: (points, points + accel._enabled),
    ):
        with pytest.raises(SystemExit, match=r"wrong: .* nothing is timed"):
            gpu.check("wrong", wrong, (torch.zeros(3),))
