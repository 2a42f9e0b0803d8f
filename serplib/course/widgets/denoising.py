"""The denoising explorer: perturb a shape and let trained models restore it (paper, figure 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from serplib.course.widgets.common import (
    Explorer,
    camera,
    jupyter,
    scenes,
    slider,
    turn_slider,
)
from serplib.data import Clouds
from serplib.geometry import chamfer_l2
from serplib.perturbation import Perturbation
from serplib.seeding import named_generator

MOST_SIGMA = 0.4  # where the slider ends, in unit-sphere radii
WIDTH = 820  # pixels of the figure: what JupyterLab has beside its file list
TALL = 1.25  # height of a panel over its width: a narrower one would cut the shapes off
ZOOM = 1.7  # 2 fills the panel: leave room for points that noise moved out


class Repair(NamedTuple):
    """What the denoising explorer shows of one cloud."""

    clean: Tensor  # (N, 3)
    perturbed: Tensor  # (N, 3), in the order of the clean points
    touched: Tensor  # (N,) bool
    restored: dict[str, Tensor]  # name of a model to its points (N', 3), in no promised order
    copy_chamfer: float  # Chamfer l2 of perturbed to clean: what copying the input costs
    chamfer: dict[str, float]  # name of a model to the Chamfer l2 of its restored cloud to clean


@torch.no_grad()
def explore_denoising(
    points: Tensor, perturbation: Perturbation, models: Mapping[str, nn.Module], seed: int
) -> Repair:
    """Perturb one cloud, restore it with every model, and measure each result (Eq. 11).

    Args:
        points: ``(N, 3)`` on the unit sphere, on the device of the models.
        perturbation: the settings of section 3.1.
        models: autoencoders with ``restore((B, N, 3)) -> (B, N', 3)``, by name. They run in
            evaluation mode and return to the mode that they were in.
        seed: of the centres and of the noise; the same seed gives the same result.
    """
    batch = points[None]  # (1, N, 3)
    out = perturbation(batch, named_generator("denoising", seed, device=points.device))
    restored, chamfer = {}, {}
    for name, model in models.items():
        training = model.training
        cloud = cast(Any, model.eval()).restore(out.points)  # (1, N', 3)
        model.train(training)
        restored[name], chamfer[name] = cloud[0], float(chamfer_l2(cloud, batch))
    copy = float(chamfer_l2(out.points, batch))
    return Repair(points, out.points[0], out.touched[0], restored, copy, chamfer)


def denoising_readout(repair: Repair, category: str = "") -> str:
    """Write the numbers above the figure as one line: each model beside copying the input."""
    models = [
        f"{name} {_squared(value)} ({'better' if value < repair.copy_chamfer else 'worse'})"
        for name, value in repair.chamfer.items()
    ]
    return (
        f"{category + ': ' if category else ''}{int(repair.touched.sum())} of {len(repair.clean)} "
        "points touched. Chamfer to clean: copying the input "
        f"{_squared(repair.copy_chamfer)}; {', '.join(models)}."
    )


def _squared(value: float) -> str:
    return f"{1e4 * value:.1f}e-4"


def denoising_explorer(
    clouds: Clouds,
    models: Mapping[str, nn.Module],
    perturbation: Perturbation = Perturbation(),
) -> Explorer:
    """Perturb a shape with sliders: clean, perturbed, and restored by each model.

    Args:
        clouds: the shapes to choose from, ``(S, N, 3)`` on the unit sphere.
        models: see `explore_denoising`; each gets a panel, in this order.
        perturbation: the settings to open with, as the models were trained; ``centers``, ``noise``
            and ``overlap`` stay, the rest has sliders.

    Raises:
        ImportError: ipywidgets, plotly or anywidget is missing.
        ValueError: no model, or one that cannot ``restore``.
    """
    if not models:
        raise ValueError("no models: wanted a name and an autoencoder at least")
    for name, model in models.items():
        if not hasattr(model, "restore"):
            raise ValueError(f"{name} is a {type(model).__name__}, wanted one with restore()")
    jupyter()
    most, widest = min(64, clouds.points.shape[1]), max(MOST_SIGMA, perturbation.sigma)
    controls = SimpleNamespace(
        sigma=slider("sigma", perturbation.sigma, 0.0, widest, 0.01),
        num_patches=slider("num_patches", min(perturbation.num_patches, most), 1, most),
        patch_size=slider("patch_size", min(perturbation.patch_size, most), 1, most),
        shape=slider("shape", 0, 0, len(clouds) - 1),
        seed=slider("seed", 0, 0, 99),
        turn=turn_slider(),
    )
    figure = scenes(
        ("clean", "perturbed", *models),
        (
            (("clean", "clean", 2.2),),
            (("neutral", "untouched", 2.2), ("perturbed", "perturbed", 3.2)),
            *((("restored", f"restored: {name}", 2.2),) for name in models),
        ),
    )
    figure.update_layout(width=WIDTH, height=round(70 + TALL * WIDTH / (2 + len(models))))
    figure.update_scenes(aspectratio={"x": ZOOM, "y": ZOOM, "z": ZOOM})
    for trace in figure.data:
        trace.showlegend = trace.name in ("untouched", "perturbed")  # the others have a panel
    left = ("sigma", "num_patches", "patch_size")
    explorer = Explorer(figure, controls, left, ("shape", "seed", "turn"))

    def draw(_=None) -> None:
        settings = {name: getattr(controls, name).value for name in left}
        shape, now = controls.shape.value, dataclasses.replace(perturbation, **settings)
        shown = explore_denoising(clouds.points[shape], now, models, controls.seed.value)
        masks = (~shown.touched, shown.touched)
        layers = [shown.clean, *(shown.perturbed[mask] for mask in masks), *shown.restored.values()]
        category = "" if clouds.labels is None else clouds.classes[clouds.labels[shape]]
        explorer.show(layers, denoising_readout(shown, category))

    explorer.observe(draw, *left, "shape", "seed")
    controls.turn.observe(lambda change: figure.update_scenes(camera=camera(change.new)), "value")
    draw()
    return explorer
