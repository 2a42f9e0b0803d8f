"""The perturbation explorer: touch section 3.1 of the paper."""

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
from serplib.geometry import chamfer_l2
from serplib.perturbation import Perturbation
from serplib.seeding import named_generator


class Exploration(NamedTuple):
    """What the perturbation explorer shows of one cloud."""

    clean: Tensor  # (N, 3)
    perturbed: Tensor  # (N, 3), in the order of the clean points
    touched: Tensor  # (N,) bool
    centers: Tensor  # (num_patches,) int64
    num_touched: int
    copy_chamfer: float  # Chamfer l2 of perturbed to clean: what copying the input costs


def explore_perturbation(points: Tensor, perturbation: Perturbation, seed: int) -> Exploration:
    """Perturb one cloud and measure what happened to it.

    Args:
        points: ``(N, 3)`` on the unit sphere.
        perturbation: the settings of section 3.1.
        seed: of the centres and of the noise; the same seed gives the same picture.
    """
    batch = points[None]  # (1, N, 3)
    out = perturbation(batch, named_generator("explorer", seed))
    return Exploration(
        clean=points,
        perturbed=out.points[0],
        touched=out.touched[0],
        centers=out.centers[0],
        num_touched=int(out.touched.sum()),
        copy_chamfer=float(chamfer_l2(out.points, batch)),
    )


def readout(exploration: Exploration, perturbation: Perturbation) -> str:
    """The two numbers below the picture, as one line of text."""
    num_points = len(exploration.clean)
    picks = perturbation.num_patches * perturbation.patch_size
    return (
        f"{exploration.num_touched} of {num_points} points touched "
        f"({perturbation.num_patches} x {perturbation.patch_size} = {picks} picks). "
        f"Chamfer perturbed to clean, the copy baseline: {1e4 * exploration.copy_chamfer:.1f}e-4"
    )


def perturbation_explorer(clouds: Clouds, category: str | None = None) -> Explorer:
    """Perturb a shape with sliders: on the left the points touched, on the right the result.

    Args:
        clouds: labelled shapes to choose from, ``(S, N, 3)`` on the unit sphere.
        category: the one shown first; unless told, the first class that has a shape.

    Raises:
        ImportError: ipywidgets, plotly or anywidget is missing.
        ValueError: ``clouds`` have no labels, or no shape of ``category``.
    """
    if clouds.labels is None:
        raise ValueError(f"{clouds.name} has no labels, wanted labelled clouds to choose from")
    present = sorted(set(clouds.labels.tolist()))
    names = [clouds.classes[label] for label in present]
    category = names[0] if category is None else category
    if category not in names:
        raise ValueError(f"no shape of {category!r} here, there is: {', '.join(names)}")
    ipywidgets = jupyter()[0]
    paper = Perturbation()
    most = min(64, clouds.points.shape[1])
    whole, real = ipywidgets.IntSlider, ipywidgets.FloatSlider
    controls = SimpleNamespace(
        category=choice("category", tuple(names), category),
        shape=slider(whole, "shape", 0, 0, _last(clouds, category), 1),
        num_patches=slider(whole, "num_patches", paper.num_patches, 1, most, 1),
        patch_size=slider(whole, "patch_size", paper.patch_size, 1, most, 1),
        sigma=slider(real, "sigma", paper.sigma, 0.0, 0.2, 0.005),
        centers=choice("centers", ("random", "fps"), paper.centers),
        noise=choice("noise", ("iid", "rigid"), paper.noise),
        seed=slider(whole, "seed", 0, 0, 99, 1),
        turn=slider(whole, "turn (degrees)", 0, -180, 180, 5),
    )
    controls.sigma.readout_format = ".3f"
    figure = scenes(
        ("clean, touched points marked", "perturbed"),
        (
            (("clean", "clean", 2.2), ("touched", "touched", 3.2)),
            (("neutral", "untouched", 2.2), ("perturbed", "perturbed", 3.2)),
        ),
    )
    line = ipywidgets.HTML()

    def draw(_=None) -> None:
        label = clouds.classes.index(controls.category.value)
        found = (clouds.labels == label).nonzero()[:, 0]  # (shapes of this category,)
        perturbation = Perturbation(
            controls.num_patches.value,
            controls.patch_size.value,
            controls.sigma.value,
            controls.centers.value,
            controls.noise.value,
        )
        points = clouds.points[found[min(controls.shape.value, len(found) - 1)]]
        with torch.inference_mode():
            shown = explore_perturbation(points, perturbation, controls.seed.value)
        layers = [
            cloud[mask] for cloud in (shown.clean, shown.perturbed) for mask in _both(shown.touched)
        ]
        with figure.batch_update():
            for trace, layer in zip(figure.data, layers):
                trace.x, trace.y, trace.z = layer.T.contiguous().numpy()
        line.value = status(readout(shown, perturbation))

    def choose(_=None) -> None:
        controls.shape.max = _last(clouds, controls.category.value)
        draw()

    def turn(change) -> None:
        figure.update_scenes(camera=camera(change["new"]))

    controls.category.observe(choose, "value")
    controls.turn.observe(turn, "value")
    for name in ("shape", "num_patches", "patch_size", "sigma", "centers", "noise", "seed"):
        getattr(controls, name).observe(draw, "value")
    draw()
    left = ("num_patches", "patch_size", "sigma", "centers", "noise")
    right = ("category", "shape", "seed", "turn")
    sides = ([getattr(controls, name) for name in side] for side in (left, right))
    box = ipywidgets.VBox([columns(*sides), line, figure])
    return Explorer(box, figure, controls, line)


def _last(clouds: Clouds, category: str) -> int:
    return int((clouds.labels == clouds.classes.index(category)).sum()) - 1


def _both(touched: Tensor) -> tuple[Tensor, Tensor]:
    return ~touched, touched
