"""Check the kernels on a GPU, time them and whole steps, write results/bench-<device>.json.

    make bench-gpu                           # one CUDA device, under 8 minutes
    python tests/benchmarks/gpu.py --smoke   # does this script run? small, anywhere; writes nothing

Correctness comes first: a kernel that differs from the plain code ends the script. What has been
measured is on disk after every row. The peers made by torch.compile come last: they take longest to
prepare, and those not begun in time are left out.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from serplib import accel, geometry
from serplib.classifier import autoencoder
from serplib.experiments import records
from serplib.presets import PRESETS
from serplib.pretext import Pretext
from serplib.seeding import named_generator
from serplib.transformer import patch_chamfer

BEGAN = time.perf_counter()
LAST_START = 330.0  # seconds after which no further peer is compiled
SMOKE = "--smoke" in sys.argv
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
REPEATS = 2 if SMOKE else 30
BATCH = 2 if SMOKE else 128
# (work, batch, points, samples or k): the sizes of the paper's Transformer, and a dense cloud.
FPS = [("FPS", BATCH, 1024, 64), ("FPS", 1, 2048 if SMOKE else 10_000, 16 if SMOKE else 1024)]
KNN = [("kNN, 64 queries", BATCH, 1024, 32)]
CHAMFER = [("Chamfer, patches", BATCH * 64, 32), ("Chamfer, clouds", BATCH, 1024)]
# TFLOP/s with bfloat16, dense, as NVIDIA's data sheets give them; other devices have no share.
PEAKS = {"NVIDIA H100 80GB HBM3": 989.4, "NVIDIA H200": 989.4, "NVIDIA A100-SXM4-80GB": 312.0}
STEPS = [("pointnet", "quick"), ("transformer", "quick")] if SMOKE else [
    ("pointnet", "authors_code"), ("pointnet", "paper"),
    ("transformer", "authors_code"), ("transformer", "paper"),
]  # fmt: skip


def clouds(batch: int, num_points: int, seed: int, ties: bool = False) -> Tensor:
    """Random points on the unit sphere's surface, ``(B, N, 3)`` float32.

    With ``ties`` they are rounded to halves: few places, hence duplicates and equal distances.
    """
    points = torch.randn(batch, num_points, 3, generator=named_generator(seed, "bench"))
    points = torch.nn.functional.normalize(points, dim=-1).to(DEVICE)  # (B, N, 3)
    return (2 * points).round() / 2 if ties else points


def milliseconds(call: Callable[[], object]) -> float:
    """Median over `REPEATS` calls, after three to warm up; on a GPU between CUDA events.

    The host does not wait between calls: a launch that is ready before the device is costs nothing.
    """
    for _ in range(3):
        call()
    if DEVICE.type != "cuda":
        times = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - began))
        return statistics.median(times)
    marks = []
    for _ in range(REPEATS):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        call()
        ended.record()
        marks.append((began, ended))
    torch.cuda.synchronize()
    return statistics.median(began.elapsed_time(ended) for began, ended in marks)


def plain(function: Callable, *arguments: object) -> object:
    """Call a function with the kernels and the code for the CPU switched off."""
    with accel.disabled():
        return function(*arguments)


def operations(ties: bool = False):
    """``(name, function, arguments)``: each search, and Chamfer with its gradient."""
    for name, batch, num_points, m in FPS:
        about = f"{name}, {batch} x {num_points} -> {m}"
        yield about, geometry.farthest_point_sample, (clouds(batch, num_points, 0, ties), m)
    for name, batch, num_points, k in KNN:
        points = clouds(batch, num_points, 1, ties)
        yield (
            f"{name} in {batch} x {num_points}, k = {k}",
            geometry.knn,
            (points[:, :64], points, k),
        )
    for name, batch, num_points in CHAMFER:
        a, b = (clouds(batch, num_points, seed, ties) for seed in (2, 3))
        yield f"{name}, {batch} x {num_points}", chamfer, (a.requires_grad_(), b)


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """The gradient of the Chamfer distance."""
    return torch.autograd.grad(geometry.chamfer_l2(a, b), a)[0]


def check(name: str, function: Callable, arguments: tuple) -> None:
    """The kernels' answer is the plain code's, bit for bit, or the script ends."""
    if function is chamfer:  # past the pairs both run the same code
        function = geometry.nearest_pairs
    ours, exact = function(*arguments), plain(function, *arguments)
    ours, exact = (x if isinstance(x, tuple) else (x,) for x in (ours, exact))
    if not all(map(torch.equal, ours, exact)):
        sys.exit(f"{name}: the kernel's answer is not the plain code's; nothing is timed")


def compiled(function: Callable, arguments: tuple) -> float | None:
    """Milliseconds of torch.compile of the plain code; None where it does not compile."""
    try:
        torch.compiler.reset()
        peer = torch.compile(function, backend="eager" if SMOKE else "inductor")
        return milliseconds(lambda: plain(peer, *arguments))
    except Exception as error:  # a peer that fails is a row without a number
        print(f"torch.compile: {type(error).__name__}")
        return None


def step(model: str, preset: str) -> dict[str, float | None]:
    """One pre-training step: ms, clouds a second, operations, and the share of the geometry.

    That share is of everything but the network: the perturbation, patches, and the Chamfer loss.
    """
    settings = PRESETS[preset]
    task = Pretext(autoencoder(settings, model), settings.corruption).to(DEVICE)
    optimizer = torch.optim.AdamW(task.parameters(), fused=DEVICE.type == "cuda")
    points = clouds(BATCH, settings.corruption.num_points, 4)
    generator = torch.Generator(DEVICE).manual_seed(0)

    def whole() -> None:
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
            loss = task(points, generator)["total"]
        loss.backward()
        optimizer.step()

    def searches() -> None:
        perturbed, clean, _ = task.corrupt(points, generator)
        config = task.model.config
        if model == "transformer":
            patches = task.model.encoder.patches(perturbed, clean)
            predicted = patches.inputs.detach().requires_grad_()  # (B, c, n, 3), as good as any
            patch_chamfer(predicted, patches.targets, config.loss).backward()
        elif config.task != "delta":  # else there is no Chamfer distance
            geometry.chamfer_l2(perturbed.detach().requires_grad_(), clean).backward()

    with FlopCounterMode(display=False) as counter:
        whole()
    found = {"ms": milliseconds(whole), "geometry_ms": milliseconds(searches)}
    found["clouds_per_second"] = 1000 * BATCH / found["ms"]
    found["flops_per_step"] = float(counter.get_total_flops())
    found["tflops_per_second"] = found["flops_per_step"] / found["ms"] / 1e9
    peak = PEAKS.get(torch.cuda.get_device_name()) if DEVICE.type == "cuda" else None
    found["share_of_peak"] = found["tflops_per_second"] / peak if peak else None
    found["geometry_share"] = found["geometry_ms"] / found["ms"]
    return found


def main() -> None:
    """Check, then time, row by row."""
    if DEVICE.type != "cuda" and not SMOKE:
        sys.exit("no CUDA device: --smoke shows that the script runs")
    rows, about = [], records.environment()
    about |= {"cuda": torch.version.cuda, "triton": accel.status("triton_ops").detail}
    place = re.sub(r"\W+", "-", about["device"]).strip("-").lower()
    path = records.results_folder() / f"bench-{place}.json"

    def tell(row: dict) -> None:
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        rows.append(row)
        if not SMOKE:
            records.write_json(path, {"environment": about, "repeats": REPEATS, "rows": rows})

    work = list(operations())
    for one in [*work, *operations(ties=True)]:
        check(*one)
    print("checked:", "kernels and plain code agree" if accel.searches(work[0][2][0]) else
          "no kernels here, the plain code agrees with itself")  # fmt: skip
    for name, function, arguments in work:
        row = {"work": name, "kernels_ms": milliseconds(partial(function, *arguments))}
        tell(row | {"plain_ms": milliseconds(partial(plain, function, *arguments))})
    for model, preset in STEPS:
        tell({"work": f"step, {preset} {model}, batch {BATCH}"} | step(model, preset))
    for name, function, arguments in work:
        if name.startswith(FPS[1][0]) and arguments[1] == FPS[1][3]:
            continue  # its loop would be unrolled into tens of thousands of operations
        if not SMOKE and time.perf_counter() - BEGAN > LAST_START:
            print(f"{name}: no time left to compile this peer")
        else:
            tell({"work": name, "compiled_ms": compiled(function, arguments)})


if __name__ == "__main__":
    main()
