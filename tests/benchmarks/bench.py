"""Time each operation beside its peers, check it first, and write results/bench-<device>.json.

Run it alone on the machine: `make bench`. Medians of repeated calls on fresh random clouds; ratios
are of one process and one run, and travel better between machines than the milliseconds do.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable

import fpsample
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.spatial import cKDTree
from torch import Tensor

from serplib import fast, geometry, records
from serplib.classify import autoencoder
from serplib.data import load
from serplib.perturb import named_generator
from serplib.presets import PRESETS
from serplib.training import Pretext

REPEATS = 7


def clouds(batch: int, num_points: int, seed: int) -> Tensor:
    """Random points on the unit sphere's surface, ``(B, N, 3)`` float32."""
    points = torch.randn(batch, num_points, 3, generator=named_generator(seed, "bench"))
    return torch.nn.functional.normalize(points, dim=-1)


def median_ms(call: Callable[[int], object]) -> float:
    """Median time of ``call(seed)``, each time with another seed, after two calls to warm up."""
    times = []
    for seed in range(REPEATS + 2):
        started = time.perf_counter()
        call(seed)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times[2:])


def plain(function: Callable) -> Callable:
    """The same call with the compiled code switched off."""

    def call(*arguments):
        kept, fast.AVAILABLE = fast.AVAILABLE, False
        try:
            return function(*arguments)
        finally:
            fast.AVAILABLE = kept

    return call


def fps_of(points: Tensor, num_samples: int, sampler: Callable) -> Tensor:
    return torch.stack([
        torch.from_numpy(sampler(cloud.numpy(), num_samples, start_idx=0).astype(np.int64))
        for cloud in points
    ])  # fmt: skip


def bucket(points, num_samples, start_idx):
    return fpsample.bucket_fps_kdline_sampling(points, num_samples, h=5, start_idx=start_idx)


def farthest_points(batch: int, num_points: int, num_samples: int) -> dict[str, Callable]:
    pool = [clouds(batch, num_points, seed) for seed in range(REPEATS + 2)]
    reference = plain(geometry.farthest_point_sample)(pool[0].double(), num_samples)
    ours = geometry.farthest_point_sample(pool[0], num_samples)
    assert (ours == reference).double().mean() > 0.99, "near-equal distances may swap, no more"
    return {
        "serplib": lambda s: geometry.farthest_point_sample(pool[s], num_samples),
        "serplib plain": lambda s: plain(geometry.farthest_point_sample)(pool[s], num_samples),
        "fpsample": lambda s: fps_of(pool[s], num_samples, fpsample.fps_sampling),
        "fpsample bucket": lambda s: fps_of(pool[s], num_samples, bucket),
    }


def neighbours(batch: int, num_queries: int, num_points: int, k: int) -> dict[str, Callable]:
    pool = [clouds(batch, num_points, seed) for seed in range(REPEATS + 2)]

    def cdist_topk(seed: int) -> Tensor:
        points = pool[seed]
        return torch.cdist(points[:, :num_queries], points).topk(k, largest=False).indices

    def kdtree(seed: int) -> None:
        for cloud in pool[seed].numpy():
            cKDTree(cloud).query(cloud[:num_queries], k)

    def ours(seed: int) -> Tensor:
        return geometry.knn(pool[seed][:, :num_queries], pool[seed], k)

    exact = plain(geometry.knn)(pool[0][:, :num_queries].double(), pool[0].double(), k)
    assert (ours(0) == exact).double().mean() > 0.99
    return {
        "serplib": ours,
        "serplib plain": plain(ours),
        "cdist + topk": cdist_topk,
        "cKDTree": kdtree,
    }


def chamfer(batch: int, num_points: int) -> dict[str, Callable]:
    pool = [
        (clouds(batch, num_points, seed).requires_grad_(), clouds(batch, num_points, 100 + seed))
        for seed in range(REPEATS + 2)
    ]

    def ours(seed: int) -> Tensor:
        a, b = pool[seed]
        loss = geometry.chamfer_l2(a, b)
        loss.backward()
        return loss.detach()

    def cdist_min(seed: int) -> Tensor:
        a, b = pool[seed]
        squared = torch.cdist(a, b).square()
        loss = squared.amin(2).mean() + squared.amin(1).mean()
        loss.backward()
        return loss.detach()

    def kdtree(seed: int) -> None:  # the search alone, without gradients
        for a, b in zip(*(t.detach().numpy() for t in pool[seed])):
            cKDTree(a).query(b)
            cKDTree(b).query(a)

    a, b = pool[0]
    exact = plain(geometry.chamfer_l2)(a.detach().double(), b.double())
    assert abs(ours(0).double() - exact) < 1e-6 * exact
    peers = {"serplib": ours, "cdist + min": cdist_min}
    return peers | ({"cKDTree, no gradient": kdtree} if num_points > 100 else {})


def step(model: str, preset: str, batch: int) -> dict[str, Callable]:
    settings = PRESETS[preset]
    task = Pretext(autoencoder(settings, model), settings.corruption)
    optimizer = torch.optim.AdamW(task.parameters())
    points = clouds(batch, 1024, 0)

    def ours(seed: int) -> None:
        optimizer.zero_grad()
        task(points, named_generator(seed, "step"))["total"].backward()
        optimizer.step()

    return {"serplib": ours, "serplib plain": plain(ours)}


def shapes(name: str, count: int) -> dict[str, Callable]:
    return {"serplib": lambda seed: load(name, "train", num_shapes=count, seed=seed)}


WORK = {
    "FPS, 32 x 1024 -> 64": (32, lambda: farthest_points(32, 1024, 64)),
    "FPS, 1 x 10,000 -> 1024": (1, lambda: farthest_points(1, 10_000, 1024)),
    "kNN, 32 x 64 queries in 1024, k = 32": (32, lambda: neighbours(32, 64, 1024, 32)),
    "Chamfer, 2048 patches of 32, with gradient": (2048, lambda: chamfer(2048, 32)),
    "Chamfer, 32 clouds of 1024, with gradient": (32, lambda: chamfer(32, 1024)),
    "pre-training step, quick SeRP-PointNet": (32, lambda: step("pointnet", "quick", 32)),
    "pre-training step, quick SeRP-Transformer": (32, lambda: step("transformer", "quick", 32)),
    "made: objects": (1024, lambda: shapes("objects", 1024)),
    "made: procedural": (1024, lambda: shapes("procedural", 1024)),
}


def main() -> None:
    """Time all of `WORK`, print the table, write the JSON."""
    console, rows = Console(), []
    table = Table("work", "who", "ms", "items/s", "times serplib")
    for work, (items, prepare) in WORK.items():
        times = {who: median_ms(call) for who, call in prepare().items()}
        for who, ms in times.items():
            ratio = ms / times["serplib"]
            rows.append({"work": work, "who": who, "ms": ms, "items": items, "ratio": ratio})
            table.add_row(work, who, f"{ms:.2f}", f"{1000 * items / ms:,.0f}", f"{ratio:.1f}")
    console.print(table)
    about = records.environment()
    place = re.sub(r"\W+", "-", about["device"]).strip("-").lower()
    path = records.project_root() / "results" / f"bench-{place}.json"
    records.write_json(path, {"environment": about, "repeats": REPEATS, "rows": rows})
    console.print(f"written: {path}", soft_wrap=True)


if __name__ == "__main__":
    main()
