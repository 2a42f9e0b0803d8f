"""Each operation and each loop with its peers: what is timed, checked first in double precision.

Every function returns the calls by name, ours first, and (bytes, operations) that any of them must
move and do: inputs read once, outputs written once, distances of brute force at 8 operations each
where a step over all pairs is the definition. A search tree may do with fewer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

import numpy as np
import textbook
import torch
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors
from timing import Calls, clouds, plain
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from vector_quantize_pytorch import VectorQuantize

from serplib import accel, geometry
from serplib.accel import layers
from serplib.bottlenecks import VectorQuantizer
from serplib.classifier import autoencoder
from serplib.data import load
from serplib.experiments.loop import _optimizer
from serplib.experiments.runner import process_environment
from serplib.presets import PRESETS, Optim
from serplib.pretext import Pretext
from serplib.seeding import named_generator

try:  # not in the lock: no wheel for every system
    import fpsample
except ImportError:
    fpsample = None
try:
    import point_cloud_utils
except ImportError:
    point_cloud_utils = None
ABSENT = [name for name, peer in (("fpsample", fpsample), ("point-cloud-utils", point_cloud_utils))
          if peer is None]  # fmt: skip

Work = tuple[Calls, tuple[float, float]]


def _fps_of(points: Tensor, num_samples: int, sampler) -> Tensor:
    return torch.stack([
        torch.from_numpy(sampler(cloud.numpy(), num_samples, start_idx=0).astype(np.int64))
        for cloud in points
    ])  # fmt: skip


def _bucket(points, num_samples, start_idx):
    height = 3 if len(points) < 4096 else 5  # the best of 3, 5, 7 and 9 at 1,024 and at 10,000
    return fpsample.bucket_fps_kdline_sampling(points, num_samples, h=height, start_idx=start_idx)


def farthest_points(pool: list[Tensor], num_samples: int) -> Work:
    """FPS of clouds ``(B, N, 3)``, one batch a round."""
    fps = geometry.farthest_point_sample
    exact = plain(fps)(pool[0].double(), num_samples)
    assert (fps(pool[0], num_samples) == exact).double().mean() > 0.99, "near-equal ones may swap"
    batch, num_points, _ = pool[0].shape
    calls: Calls = {
        "serplib": lambda i: fps(pool[i], num_samples),
        "serplib plain": lambda i: plain(fps)(pool[i], num_samples),
        "textbook": lambda i: textbook.farthest_points(pool[i], num_samples),
    }
    if fpsample:
        calls |= {
            "fpsample": lambda i: _fps_of(pool[i], num_samples, fpsample.fps_sampling),
            "fpsample bucket": lambda i: _fps_of(pool[i], num_samples, _bucket),
        }
    moved = 12 * batch * num_points + 8 * batch * num_samples
    return calls, (moved, 8 * batch * num_points * (num_samples - 1))


def neighbours(pool: list[Tensor], num_queries: int, k: int) -> Work:
    """The first points of each cloud as queries among all of it."""

    def ours(i: int) -> Tensor:
        return geometry.knn(pool[i][:, :num_queries], pool[i], k)

    def cdist_topk(i: int) -> Tensor:
        return torch.cdist(pool[i][:, :num_queries], pool[i]).topk(k, largest=False).indices

    def kdtree(i: int) -> None:
        for cloud in pool[i].numpy():
            cKDTree(cloud).query(cloud[:num_queries], k)

    def scikit(i: int) -> None:
        for cloud in pool[i].numpy():
            NearestNeighbors(n_neighbors=k).fit(cloud).kneighbors(cloud[:num_queries])

    def utils(i: int) -> None:
        for cloud in pool[i].numpy():
            point_cloud_utils.k_nearest_neighbors(cloud[:num_queries], cloud, k)

    exact = plain(geometry.knn)(pool[0][:, :num_queries].double(), pool[0].double(), k)
    assert (ours(0) == exact).double().mean() > 0.99
    calls = {"serplib": ours, "serplib plain": plain(ours), "cdist + topk": cdist_topk}
    calls |= {"cKDTree": kdtree, "scikit-learn": scikit}
    calls |= {"point-cloud-utils": utils} if point_cloud_utils else {}
    batch, num_points, _ = pool[0].shape
    moved = 12 * batch * (num_points + num_queries) + 8 * batch * num_queries * k
    return calls, (moved, 8 * batch * num_queries * num_points)


def chamfer(pool: list[Tensor]) -> Work:
    """Chamfer of clouds ``(2, B, N, 3)`` and its gradient with respect to the first half."""
    pairs = [(a.clone().requires_grad_(), b) for a, b in pool]

    def with_gradient(function):
        def call(i: int) -> Tensor:
            loss = function(*pairs[i])
            loss.backward()
            return loss.detach()

        return call

    def cdist_min(a: Tensor, b: Tensor) -> Tensor:
        squared = torch.cdist(a, b).square()
        return squared.amin(2).mean() + squared.amin(1).mean()

    def kdtree(a: Tensor, b: Tensor) -> Tensor:  # the pairs by trees, their distances by torch
        found = [
            (cKDTree(y).query(x)[1], cKDTree(x).query(y)[1])
            for x, y in zip(a.detach().numpy(), b.numpy())
        ]
        to_b, to_a = (torch.from_numpy(np.stack(index)) for index in zip(*found))
        there = (a - geometry.gather(b, to_b)).square().sum(-1).mean()
        return there + (b - geometry.gather(a, to_a)).square().sum(-1).mean()

    def utils(i: int) -> None:
        for x, y in zip(pairs[i][0].detach().numpy(), pairs[i][1].numpy()):
            point_cloud_utils.chamfer_distance(x, y)

    batch, num_points, _ = pairs[0][1].shape
    functions = {"serplib": geometry.chamfer_l2, "cdist + min": cdist_min, "cKDTree": kdtree}
    functions |= {"textbook": textbook.chamfer} if num_points < 100 else {}  # else gigabytes
    calls = {who: with_gradient(function) for who, function in functions.items()}
    calls["serplib plain"] = plain(calls["serplib"])
    exact = plain(geometry.chamfer_l2)(pool[0][0].double(), pool[0][1].double())
    for who, call in calls.items():
        assert abs(call(0).double() - exact) < 1e-4 * exact, who
    if point_cloud_utils and num_points > 100:  # two thousand calls of patches say nothing
        calls["point-cloud-utils, no gradient"] = utils
    return calls, (12 * batch * num_points * 3, 8 * batch * num_points**2)


def quantizer(pool: list[Tensor], codebook_size: int) -> Work:
    """A codebook's step, tokens ``(B, c, d)``: nearest code, losses, gradients of both."""
    torch.manual_seed(0)
    dim = pool[0].shape[-1]
    ours = VectorQuantizer(codebook_size, dim, init="uniform")
    peer = VectorQuantize(dim, codebook_size, learnable_codebook=True, ema_update=False)
    averaged = VectorQuantizer(codebook_size, dim, init="uniform", ema=0.8)
    peer_averaged = VectorQuantize(dim, codebook_size, decay=0.8)
    tokens = pool[0].flatten(0, 1)[:256].double()  # (256, d)
    codes = ours.codebook.detach().double()  # (K, d)
    exact = torch.cdist(tokens, codes).argmin(1)  # (256,)
    assert (ours.encode(pool[0]).flatten()[:256] == exact).double().mean() > 0.99

    def step(module):
        def call(i: int) -> None:
            passed = module(pool[i].clone().requires_grad_())
            loss = passed[-1] if module in (peer, peer_averaged) else sum(passed.losses.values())
            (passed[0].sum() + loss.sum()).backward()

        return call

    named = {"serplib": ours, "vector-quantize-pytorch": peer}
    named |= {"serplib, moving averages": averaged}
    named |= {"vector-quantize-pytorch, moving averages": peer_averaged}
    count = pool[0][..., 0].numel()
    moved = 4 * dim * (4 * count + 2 * codebook_size)  # tokens and codes, and both gradients
    return {who: step(module) for who, module in named.items()}, (
        moved, 2 * count * codebook_size * dim)  # fmt: skip


def stepper(who: str, model: str, preset: str, batch: int) -> Callable[[int], None]:
    """Make one step of pre-training.

    Args:
        who: ``"serplib"``, ``"serplib plain"`` (no compiled search, no fused layer),
            ``"serplib, not fused"``, ``"serplib, fused <layer>"`` (that layer alone), or
            ``"textbook..."``: the same weights, torch's AdamW.
    """
    settings, points = PRESETS[preset], clouds(batch, 1024, 0)
    torch.manual_seed(0)
    task = Pretext(autoencoder(settings, model), settings.corruption)
    by_the_book = who.startswith("textbook")
    if who.startswith("serplib, fused "):
        for plain_type in list(layers.FUSED):
            if not who.endswith(plain_type.__name__):
                del layers.FUSED[plain_type]
    if who == "serplib" or "fused " in who:
        accel.fuse(task)
    optimizer = torch.optim.AdamW(task.parameters()) if by_the_book else _optimizer(task, Optim())

    def call(i: int) -> None:
        with textbook.swapped() if by_the_book else contextlib.nullcontext():
            optimizer.zero_grad()
            task(points, named_generator(i, "step"))["total"].backward()
            optimizer.step()

    return plain(call) if who == "serplib plain" else call


def pretraining(model: str, preset: str, batch: int) -> tuple[dict, tuple[float, float]]:
    """Return makers of steps for `timing.apart`, and what a step must move and do.

    All processes but the textbook's have the environment of the runner's training processes.
    """
    settings, points = PRESETS[preset], clouds(batch, 1024, 0)

    def made() -> Pretext:
        torch.manual_seed(0)
        return Pretext(autoencoder(settings, model), settings.corruption)

    def losses(task: Pretext, points: Tensor) -> float:
        return task(points, named_generator(0, "step"))["total"].item()

    exact = plain(losses)(made().double(), points.double())
    with textbook.swapped():
        theirs = losses(made(), points)
    for found in (losses(made(), points), losses(accel.fuse(made()), points), theirs):
        assert abs(found - exact) < 0.01 * exact, f"{model}: {found} against {exact}"

    with FlopCounterMode(display=False) as counter:
        stepper("serplib", model, preset, batch)(0)
    weights = sum(p.nbytes for p in made().parameters())
    kept = process_environment()
    who = ["serplib", "serplib plain", "textbook", "textbook, memory kept"]
    if model == "pointnet":
        who += ["serplib, not fused", *(f"serplib, fused {t.__name__}" for t in layers.FUSED)]
    return {
        name: (partial(stepper, name, model, preset, batch), {} if name == "textbook" else kept)
        for name in who
    }, (
        7 * weights + points.nbytes,  # AdamW reads weight, gradient and two means, writes three
        counter.get_total_flops(),
    )


def shapes(name: str, count: int) -> Work:
    """Built-in shapes from nothing, on one core."""

    def call(i: int) -> None:
        load(name, "train", num_shapes=count, seed=i)

    return {"serplib": call, "serplib plain": plain(call)}, (12 * 1024 * count, 0)
