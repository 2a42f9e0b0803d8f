"""The patch explorer: touch section 3.3.1 of the paper."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from serplib.course.widgets.common import (
    Explorer,
    camera,
    choice,
    columns,
    jupyter,
    scenes,
    slider,
    status,
)
from serplib.data import Clouds
from serplib.geometry import knn
from serplib.patches import make_patches
from serplib.perturbation import Perturbation
from serplib.seeding import named_generator

FRAMES = ("center", "mean_std")


class PatchExploration(NamedTuple):
    """What the patch explorer shows of one cloud."""

    points: Tensor  # (N, 3) the perturbed cloud
    index: Tensor  # (c, n) int64, which points each patch holds
    centers: Tensor  # (c, 3)
    inputs: Tensor  # (c, n, 3) the patches in their own frames
    visits: Tensor  # (N,) int64, in how many patches each point lies
    coverage: float  # share of the points that lie in a patch
    shared: float  # share of the points that lie in two patches or more
    mean_radius: float  # from a centre to the farthest point of its patch, mean over patches


def explore_patches(
    points: Tensor,
    num_centers: int,
    patch_size: int,
    sigma: float = 0.0,
    normalize: str = "center",
    seed: int = 0,
) -> PatchExploration:
    """Perturb one cloud, cut it into patches and count what they cover.

    Args:
        points: ``(N, 3)`` on the unit sphere.
        num_centers: c. patch_size: n.
        sigma: of the noise of section 3.1; 0 leaves the cloud clean.
        normalize: ``"center"`` or ``"mean_std"``, see `patches.make_patches`.
        seed: of the perturbation.
    """
    batch = points[None]  # (1, N, 3)
    if sigma > 0:
        batch = Perturbation(sigma=sigma)(batch, named_generator("explorer", seed)).points
    patches = make_patches(batch, num_centers, patch_size, normalize=normalize)
    index = patches.index[0]  # (c, n)
    visits = index.flatten().bincount(minlength=len(points))  # (N,)
    reach = batch[0, index] - patches.centers[0, :, None]  # (c, n, 3)
    return PatchExploration(
        points=batch[0],
        index=index,
        centers=patches.centers[0],
        inputs=patches.inputs[0],
        visits=visits,
        coverage=float((visits > 0).float().mean()),
        shared=float((visits > 1).float().mean()),
        mean_radius=float(reach.norm(dim=-1).amax(1).mean()),
    )


def nearest_patch(centers: Tensor, point: Tensor) -> int:
    """The patch whose centre is nearest to a point that was clicked: ``(c, 3), (3,) -> int``."""
    return int(knn(point[None, None], centers[None], 1))


def patch_readout(exploration: PatchExploration, patch: int) -> str:
    """The numbers below the picture, as one line of text."""
    (num_centers, size), num_points = exploration.index.shape, len(exploration.points)
    bare = int((exploration.visits == 0).sum())
    lonely = int((exploration.visits[exploration.index[patch]] == 1).sum())
    return (
        f"{exploration.coverage:.1%} of {num_points} points in a patch, {bare} in none "
        f"({num_centers} x {size} = {num_centers * size} picks). "
        f"{exploration.shared:.0%} in two patches or more. "
        f"Mean radius of a patch: {exploration.mean_radius:.2f}. "
        f"Patch {patch}: {size - lonely} of its {size} points shared"
    )


def patch_explorer(clouds: Clouds, category: str | None = None) -> Explorer:
    """Cut a shape into patches with sliders; click a point, or move a slider, to open a patch.

    Args:
        clouds: labelled shapes to choose from, ``(S, N, 3)`` on the unit sphere.
        category: the one shown first; unless told, the first class that has a shape.

    Raises:
        ImportError: ipywidgets, plotly or anywidget is missing.
        ValueError: ``clouds`` have no labels, or no shape of ``category``.
    """
    if clouds.labels is None:
        raise ValueError(f"{clouds.name} has no labels, wanted labelled clouds to choose from")
    names = [clouds.classes[label] for label in sorted(set(clouds.labels.tolist()))]
    category = names[0] if category is None else category
    if category not in names:
        raise ValueError(f"no shape of {category!r} here, there is: {', '.join(names)}")
    ipywidgets = jupyter()[0]
    whole, most = ipywidgets.IntSlider, min(128, clouds.points.shape[1])
    paper = min(64, most), min(32, most)  # c and n of section 4
    controls = SimpleNamespace(
        num_centers=slider(whole, "num_centers", paper[0], 1, most, 1),
        patch_size=slider(whole, "patch_size", paper[1], 1, most, 1),
        sigma=slider(ipywidgets.FloatSlider, "sigma", 0.03, 0.0, 0.2, 0.005),
        frame=choice("frame", FRAMES, "center"),
        patch=slider(whole, "patch", 0, 0, paper[0] - 1, 1),
        category=choice("category", tuple(names), category),
        shape=slider(whole, "shape", 0, 0, _last(clouds, category), 1),
        turn=slider(whole, "turn (degrees)", 0, -180, 180, 5),
    )
    controls.sigma.readout_format = ".3f"
    figure = scenes(
        ("the cloud: click a point to open its patch", "the patch in its own frame"),
        (
            (
                ("neutral", "covered", 2.4),
                ("ink", "in no patch", 2.8),
                ("touched", "centres", 3.5),
                ("perturbed", "the open patch", 4.5),
            ),
            (("perturbed", "its points", 4.5), ("touched", "origin of the frame", 4.0)),
        ),
    )
    figure.data[1].marker.symbol = "diamond"  # "x" and "cross" are glyphs that not every font has
    figure.data[2].marker.symbol = figure.data[5].marker.symbol = "circle-open"
    line = ipywidgets.HTML()
    now: SimpleNamespace = SimpleNamespace(shown=None)  # what the figure holds

    def cut(_=None) -> None:
        label = clouds.classes.index(controls.category.value)
        found = (clouds.labels == label).nonzero()[:, 0]  # (shapes of this category,)
        points = clouds.points[found[min(controls.shape.value, len(found) - 1)]]
        with torch.inference_mode():
            now.shown = explore_patches(
                points,
                controls.num_centers.value,
                controls.patch_size.value,
                controls.sigma.value,
                controls.frame.value,
            )
        draw()

    def draw(_=None) -> None:
        shown, patch = now.shown, min(controls.patch.value, len(now.shown.index) - 1)
        bare = shown.visits == 0  # (N,)
        opened = torch.zeros_like(bare).index_fill(0, shown.index[patch], True)  # (N,)
        layers = [
            shown.points[~bare & ~opened],
            shown.points[bare],
            shown.centers,
            shown.points[opened],
            shown.inputs[patch],
            torch.zeros(1, 3),
        ]
        with figure.batch_update():
            for trace, layer in zip(figure.data, layers):
                trace.x, trace.y, trace.z = layer.T.contiguous().numpy()
            # One box for all patches of a cloud: that a patch is small stays visible.
            reach = max(float(shown.inputs.abs().max()), 1e-3)
            for axis in ("xaxis", "yaxis", "zaxis"):
                figure.layout.scene2[axis].range = [-reach, reach]
        line.value = status(patch_readout(shown, patch))

    def count(change) -> None:
        controls.patch.max = change["new"] - 1  # draws where that moves the patch slider
        cut()

    def choose(_=None) -> None:
        controls.shape.max = _last(clouds, controls.category.value)
        cut()

    def click(trace, clicked, _) -> None:
        if clicked.point_inds:
            place = clicked.point_inds[0]
            point = torch.tensor([float(axis[place]) for axis in (trace.x, trace.y, trace.z)])
            controls.patch.value = nearest_patch(now.shown.centers, point)

    def turn(change) -> None:
        figure.update_scenes(camera=camera(change["new"]))

    controls.num_centers.observe(count, "value")
    controls.category.observe(choose, "value")
    controls.patch.observe(draw, "value")
    controls.turn.observe(turn, "value")
    for name in ("patch_size", "sigma", "frame", "shape"):
        getattr(controls, name).observe(cut, "value")
    for trace in figure.data[:4]:
        trace.hoverinfo = "none"  # plotly sends no clicks for what it skips
        trace.on_click(click)
    cut()
    left = ("num_centers", "patch_size", "patch", "frame")
    right = ("category", "shape", "sigma", "turn")
    sides = ([getattr(controls, name) for name in side] for side in (left, right))
    box = ipywidgets.VBox([columns(*sides), line, figure])
    return Explorer(box, figure, controls, line)


def _last(clouds: Clouds, category: str) -> int:
    return int((clouds.labels == clouds.classes.index(category)).sum()) - 1
