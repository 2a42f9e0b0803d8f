"""The perturbation explorer: section 3.1 of the paper with sliders."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from serplib.course.widgets.common import (
    Explorer,
    ShapeChooser,
    camera,
    choice,
    jupyter,
    scenes,
    slider,
    turn_slider,
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
    """Perturb one cloud and measure the change.

    Args:
        points: ``(N, 3)`` on the unit sphere.
        perturbation: the settings of section 3.1.
        seed: of the centres and of the noise; the same seed gives the same perturbation.
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
    """Write the two numbers above the figure as one line of text."""
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
        category: the one shown first; unless given, the first class that has a shape.

    Raises:
        ImportError: ipywidgets, plotly or anywidget is missing.
        ValueError: ``clouds`` have no labels, or no shape of ``category``.
    """
    jupyter()
    chooser, paper = ShapeChooser(clouds, category), Perturbation()
    most = min(64, clouds.points.shape[1])
    controls = SimpleNamespace(
        category=chooser.category,
        shape=chooser.shape,
        num_patches=slider("num_patches", paper.num_patches, 1, most),
        patch_size=slider("patch_size", paper.patch_size, 1, most),
        sigma=slider("sigma", paper.sigma, 0.0, 0.2, 0.005),
        centers=choice("centers", ("random", "fps"), paper.centers),
        noise=choice("noise", ("iid", "rigid"), paper.noise),
        seed=slider("seed", 0, 0, 99),
        turn=turn_slider(),
    )
    controls.sigma.readout_format = ".3f"
    figure = scenes(
        ("clean, touched points marked", "perturbed"),
        (
            (("clean", "clean", 2.2), ("touched", "touched", 3.2)),
            (("neutral", "untouched", 2.2), ("perturbed", "perturbed", 3.2)),
        ),
    )
    left = ("num_patches", "patch_size", "sigma", "centers", "noise")
    explorer = Explorer(figure, controls, left, ("category", "shape", "seed", "turn"))

    def draw(_=None) -> None:
        perturbation = Perturbation(*(getattr(controls, name).value for name in left))
        with torch.inference_mode():
            shown = explore_perturbation(chooser.points(), perturbation, controls.seed.value)
        masks = (~shown.touched, shown.touched)
        layers = [cloud[mask] for cloud in (shown.clean, shown.perturbed) for mask in masks]
        explorer.show(layers, readout(shown, perturbation))

    explorer.observe(draw, *left, "category", "shape", "seed")
    controls.turn.observe(lambda change: figure.update_scenes(camera=camera(change.new)), "value")
    draw()
    return explorer
