"""Hours and memory of a plan before it runs (``serp estimate``).

Operations are counted on one real step of two clouds. Memory is computed from the parameters and
from what a forward pass keeps for its gradient, scaled to the batch.
"""

from __future__ import annotations

import os
import textwrap
import time
from contextlib import suppress
from dataclasses import replace
from functools import cache
from statistics import median
from typing import Any, NamedTuple

import pandas as pd
import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from serplib import accel, presets
from serplib.classifier import Classifier, autoencoder
from serplib.experiments import records, render, suites, workload
from serplib.experiments.suites import Run
from serplib.experiments.summaries import format_rows
from serplib.pretext import Corruption, Pretext

GIB = 2**30
# Dense peak in TFLOP/s without sparsity by mixed precision ("no" is float32 on CUDA cores; a T4 has
# no unit for bfloat16), and GB of memory, as in the maker's data sheets:
# https://www.nvidia.com/en-us/data-center/h100/, .../h200/, .../a100/, .../tesla-t4/ and
# https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf
GPUS: dict[str, dict[str, float]] = {
    "H100": {"no": 66.9, "bf16": 989.4, "fp16": 989.4, "memory": 80},
    "H200": {"no": 66.9, "bf16": 989.4, "fp16": 989.4, "memory": 141},
    "A100": {"no": 19.5, "bf16": 312.0, "fp16": 312.0, "memory": 80},
    "RTX 4090": {"no": 82.6, "bf16": 165.2, "fp16": 165.2, "memory": 24},
    "T4": {"no": 8.1, "bf16": 8.1, "fp16": 65.0, "memory": 16},
}
# Share of the peak that a training reaches. On a GPU it is assumed, until `make bench-gpu` has
# written a record. On a CPU it is of the rate of a matrix product: 0.18 to 0.61 in the records.
UTILISATION = {"gpu": 0.2, "cpu": 0.35}
PROCESS = 0.5 * GIB  # libraries, and the context of a GPU
TOLERANCE = 1.5  # measured memory is within this factor; what exceeds it does not start
_SHOWN = {
    "each run": "{kind}", "runs": "{runs:.0f}", "steps": "{steps:,.0f}",
    "operations": "{operations:.2g}", "hours": "{hours:.3g}", "GiB": "{gib:.1f}",
    "hours are": "{source}",
}  # fmt: skip
WITHOUT_TRAINING = {"handmade": 0.0, "point_nn": 3e8, "np_net": 4e8}  # operations a cloud


class Memory(NamedTuple):
    """Bytes: of all weights, of the trained ones; kept for the gradient and largest, per cloud."""

    weights: int
    trained: int
    fixed: float
    kept: float
    largest: float


class Estimate(NamedTuple):
    """What a run takes: optimiser steps, floating-point operations and bytes at its peak."""

    kind: str
    steps: int
    operations: float
    memory: float
    precision: str
    option: str  # the setting of its batch size
    searches: float  # operations of FPS, kNN and Chamfer, which are not counted in the others


def _step(settings: presets.Preset, model: str, head: bool, cuda: bool) -> tuple[Any, Any]:
    """Build what a run trains, and the function from clouds ``(B, N, 3)`` to its loss."""
    network, tuning = autoencoder(settings, model), settings.finetune
    generator = torch.Generator().manual_seed(0)
    module: Any = Pretext(network, settings.corruption)
    if head:
        module = Classifier(network.encoder, 40, tuning.head_widths, tuning.dropout, tuning.freeze)
    if not cuda:
        accel.fuse(module)

    def loss(points: Tensor) -> Tensor:
        return module(points).sum() if head else module(points, generator)["total"]

    return module, loss


def _clouds(batch: int, num_points: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(batch, num_points, 3, generator=generator)
    return torch.nn.functional.normalize(points, dim=-1)


def _autocast(precision: str) -> torch.autocast:
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast("cpu", kind, enabled=kind is not None)


@cache
def count(settings: presets.Preset, model: str, head: bool, cuda: bool) -> tuple[float, float]:
    """Count the operations per cloud of a training step, and of its forward pass alone."""
    with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
        _, loss = _step(settings, model, head, cuda)
        with accel.disabled():
            total = loss(_clouds(2, settings.corruption.num_points))
            forward = counter.get_total_flops()
            total.backward()
    return counter.get_total_flops() / 2, forward / 2


@cache
def measure(settings: presets.Preset, model: str, head: bool, precision: str, cuda: bool) -> Memory:
    """Measure the memory of a training: storages that forward passes of 2 and 3 clouds keep."""
    sums, largest = [], 0
    with torch.random.fork_rng(devices=[]):
        module, loss = _step(settings, model, head, cuda)
        weights = {p.untyped_storage()._cdata for p in module.parameters()}
        for batch in (2, 3):
            kept: dict[int, Any] = {}

            def keep(tensor: Tensor, kept: dict[int, Any] = kept) -> None:
                """Keep the storage alone: a node that keeps its own output is never freed."""
                storage = tensor.untyped_storage()
                if storage._cdata not in weights:
                    kept[storage._cdata] = storage  # alive: no later one has its address

            hooks = saved_tensors_hooks(keep, lambda tensor: tensor)
            with accel.disabled(), _autocast(precision), hooks:
                total = loss(_clouds(batch, settings.corruption.num_points))
            sizes = [storage.nbytes() for storage in kept.values()]
            sums.append(sum(sizes))
            del total
        shared = {p.numel() * 2 for p in module.parameters()}  # 16-bit copies of weights
        largest = max((size for size in sizes if size not in shared), default=0)
    per_cloud = float(sums[1] - sums[0])
    counted = [(p.nbytes, p.requires_grad) for p in module.parameters()]
    return Memory(
        sum(size for size, _ in counted), sum(size for size, trained in counted if trained),
        max(sums[0] - 2 * per_cloud, 0.0), per_cloud, largest / 3,
    )  # fmt: skip


def estimate(run: Run, cuda: bool, operations: bool = True) -> Estimate:
    """Estimate one run.

    Args:
        run: of a plan.
        cuda: on a GPU; else on the CPU, with its fused layers and the data in the same memory.
        operations: also count, which takes longer than the memory.
    """
    p, work, option = workload.parameters(run), workload.of(run), workload.schedule(run)[0]
    settings, model = presets.build(p["preset"], p["changes"]), p["model"]
    head, precision = run.notebook in ("finetune", "probe"), p.get("mixed_precision", "no")
    kind, option = f"{run.notebook} {model}", f"{option}.batch_size"
    if model in WITHOUT_TRAINING:
        done = WITHOUT_TRAINING[model] * work.passes
        return Estimate(kind, 0, done, PROCESS, precision, option, 0.0)
    plain = replace(  # what decides neither operations nor memory is measured once
        settings, name="", corruption=Corruption(num_points=settings.corruption.num_points),
        transformer=replace(settings.transformer, target_frame="input", loss="patch"),
        pretrain_pointnet=presets.Optim(), pretrain_transformer=presets.Optim(),
        finetune=replace(settings.finetune, optim=presets.Optim()),
    )  # fmt: skip
    memory = measure(plain, model, head, precision, cuda)
    peak = PROCESS + memory.weights
    peak += 2 * work.batch * memory.largest  # gradients into and out of a layer
    if work.steps:  # gradients and AdamW's two moments
        peak += 3 * memory.trained + memory.fixed + work.batch * memory.kept
    if not cuda:  # twice: splits are copies
        clouds = work.train + work.valid + work.test
        peak += 2 * 12 * settings.corruption.num_points * clouds
    trained, passed = count(plain, model, head, cuda) if operations else (0.0, 0.0)
    clouds = work.steps * work.batch
    done = clouds * trained + work.passes * passed
    searched = (clouds + work.passes) * searches(settings, model)
    return Estimate(kind, work.steps, done, peak, precision, option, searched)


def searches(settings: presets.Preset, model: str) -> float:
    """Return the operations per cloud of FPS, kNN and Chamfer: eight for each pair of points."""
    num_points, t = settings.corruption.num_points, settings.transformer
    if model == "pointnet":
        return 8.0 * num_points * (num_points if settings.pointnet.task == "cdl2" else 20)
    patches = t.num_centers * t.patch_size
    pairs = 2 * t.num_centers * num_points + patches * (
        patches if t.loss == "union" else t.patch_size
    )
    return 8.0 * (pairs + 20 * num_points)


def this_device() -> str:
    """Return the name of this machine's GPU in ``GPUS``, or ``"CPU"``."""
    name = records.environment()["device"]
    return next((gpu for gpu in GPUS if gpu in name.split(" (")[0]), "CPU")


def utilisation(device: str) -> tuple[float, str]:
    """Return the share of a device's peak, and whether it is ``"a recorded"`` one."""
    for path in sorted(records.results_folder().glob("bench-*.json")) if device in GPUS else ():
        record = records.read_json(path)
        shares = [row["share_of_peak"] for row in record["rows"] if row.get("share_of_peak")]
        if shares and device in record["environment"]["device"]:
            return median(shares), "a recorded"
    return UTILISATION["gpu" if device in GPUS else "cpu"], "an assumed"


@cache
def _rate(device: str, precision: str) -> float:
    """Return the operations per second that a training is taken to reach."""
    if device in GPUS:
        return GPUS[device][precision] * 1e12 * utilisation(device)[0]
    side, seconds = torch.randn(1024, 1024), []
    for _ in range(5):
        began = time.perf_counter()
        side @ side
        seconds.append(time.perf_counter() - began)
    return 2 * 1024**3 / min(seconds) * UTILISATION["cpu"]


def measured(runs: list[Run], device: str) -> dict[str, float]:
    """Return the mean seconds of a run by name, of records of exactly this plan on the device."""
    found = suites.gather_records(runs)
    path = records.results_folder() / f"{runs[0].suite}-{runs[0].profile}.json"
    found += records.read_json(path)["records"] if path.exists() else []
    planned = {run.hash for run in runs}
    rows = [(record["run"]["name"], record["seconds"]) for record in found
            if record["run"]["hash"] in planned
            and device in record["environment"]["device"]]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["name", "seconds"])
    return dict(frame.groupby("name")["seconds"].mean())


def to_text(runs: list[Run], device: str | None = None, width: int = 80) -> str:
    """Write the estimate of a plan: a line for each kind of run, the total, what was assumed.

    Raises:
        ValueError: an unknown device.
    """
    device = device or this_device()
    if device not in (*GPUS, "CPU"):
        raise ValueError(f"device is {device!r}, wanted one of {', '.join(GPUS)}, CPU")
    known, rows = measured(runs, device), []
    for run in runs:
        one = estimate(run, device != "CPU")
        seconds = known.get(run.name, one.operations / _rate(device, one.precision))
        source = "measured" if run.name in known else "estimate"
        more = {"hours": seconds / 3600, "gib": one.memory / GIB, "runs": 1, "source": source}
        rows.append(one._asdict() | more)
    frame = pd.DataFrame(rows)
    shown = format_rows(frame, _SHOWN)
    kinds = frame.groupby([shown[head] for head in _SHOWN if head not in ("runs", "hours")],
                          sort=False)  # fmt: skip
    total = frame.sum(numeric_only=True)
    each = kinds.first().assign(runs=kinds.size(), hours=kinds["hours"].mean())
    last = total.to_dict() | {"kind": "total", "gib": frame["gib"].max(), "source": ""}
    lines = pd.concat([each, pd.DataFrame([last])])
    table = render.table_to_text(format_rows(lines, _SHOWN), width)
    peak = "a matrix product's rate"
    if device in GPUS:
        peak = f"{GPUS[device][rows[0]['precision']]:g} TFLOP/s"
    used, source = utilisation(device)
    notes = (
        f"An estimate until a record exists: hours = operations / ({peak} x {used:.2g}, {source} "
        "share). Operations are those of matrix products, convolutions and attention, counted on "
        "a real step. FPS, kNN and Chamfer are left out: "
        f"{total.searches / max(total.operations, 1):.1%} as many. GiB is the peak of "
        f"one run, within a factor of {TOLERANCE}."
    )
    notes += f" The {device} has {GPUS[device]['memory']} GB." if device in GPUS else ""
    title = f"{runs[0].suite} ({runs[0].profile}) on {device}, one run after another"
    return "\n".join([title, table, "", textwrap.fill(notes, width)])


def require_memory(runs: list[Run], workers: int | None = None) -> str:
    """Compare the largest run with the memory that is free on this machine.

    Args:
        runs: those that will be executed.
        workers: runs side by side; None for one on a GPU and one a core elsewhere.

    Returns:
        A line of warning where the largest run may not fit, else nothing.

    Raises:
        ValueError: it needs more than 1.5 times what is free.
    """
    cuda = torch.cuda.is_available()
    free = torch.cuda.mem_get_info()[0] if cuda else psutil.virtual_memory().available
    side = min(workers or (1 if cuda else os.cpu_count() or 1), len(runs))
    found: dict[str, Estimate] = {}
    for run in {run.name: run for run in runs}.values():  # seeds need the same
        with suppress(Exception):  # a run that cannot be estimated says itself what is wrong
            found[run.name] = estimate(run, cuda, operations=False)
    name = max(found, key=lambda key: found[key].memory, default="")
    if not name or (need := side * found[name].memory) <= free:
        return ""
    times = f"{side} times " if side > 1 else ""
    line = (
        f"{name} needs about {times}{need / side / GIB:.1f} GiB and {free / GIB:.1f} GiB are free: "
        f"lower {found[name].option}{' or --workers' if side > 1 else ''}"
    )
    if need > TOLERANCE * free:
        raise ValueError(line)
    return f"{line}, if it fails"
