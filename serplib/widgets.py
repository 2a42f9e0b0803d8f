"""Live figures of the course, each thin over a pure function (paper, section 3.1).

This module imports without any Jupyter package; a widget asks for ipywidgets and plotly when it is
made. One figure a widget, updated in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from serplib.data import Clouds
from serplib.geometry import chamfer_l2
from serplib.perturb import Perturbation, named_generator
from serplib.plots import PALETTE


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


class Explorer:
    """A widget box that a notebook displays, and stores as one line of text.

    Attributes:
        controls: the ipywidgets by name, with ``value`` to read and set.
        figure: the plotly FigureWidget. readout: the HTML widget under it. box: all of it.
    """

    def __init__(self, box, figure, controls: SimpleNamespace, readout) -> None:
        self.box, self.figure, self.controls, self.readout = box, figure, controls, readout

    def _ipython_display_(self) -> None:
        from IPython.display import display

        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        bundle = {
            "application/vnd.jupyter.widget-view+json": view,
            "text/plain": "Live widget: run this cell in JupyterLab to move the sliders.",
        }
        display(bundle, raw=True)


def _jupyter():
    try:
        import ipywidgets
        import plotly.graph_objects as go
        import plotly.subplots
        from plotly.graph_objects import FigureWidget

        FigureWidget()  # needs anywidget
    except ImportError as error:
        raise ImportError(
            f"{error}: the widgets need ipywidgets, plotly and anywidget; "
            "run 'pip install serplib[course]', or 'make setup' in the course's folder"
        ) from error
    return ipywidgets, go, plotly.subplots.make_subplots


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
    ipywidgets, go, make_subplots = _jupyter()
    paper = Perturbation()
    most = min(64, clouds.points.shape[1])
    wide = ipywidgets.Layout(width="98%")
    style = {"description_width": "110px"}

    def slider(kind: Callable, label: str, value: float, low: float, high: float, step: float):
        options = {"value": value, "min": low, "max": high, "step": step}
        return kind(description=label, tooltip=label, style=style, layout=wide, **options)

    def choice(label: str, options: tuple[str, ...], value: str):
        # A slider over names: JupyterLab takes the keys of a drop-down list for its own.
        return ipywidgets.SelectionSlider(
            description=label, tooltip=label, options=options, value=value, style=style, layout=wide
        )

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
    figure = go.FigureWidget(make_subplots(1, 2, specs=[[{"type": "scene"}] * 2]))
    titles = ("clean, touched points marked", "perturbed")
    for scene, (rest, marked) in enumerate((("clean", "touched"), ("neutral", "perturbed"))):
        for role, size in ((rest, 2.2), (marked, 3.2)):
            marker = {"size": size, "color": PALETTE[role]}
            name = "untouched" if role == "neutral" else role
            cloud = go.Scatter3d(mode="markers", marker=marker, name=name, hoverinfo="skip")
            figure.add_trace(cloud, row=1, col=scene + 1)
    axis = {"visible": False, "range": [-1, 1]}
    look = {"xaxis": axis, "yaxis": axis, "zaxis": axis, "aspectmode": "manual"}
    look["aspectratio"] = {"x": 2.0, "y": 2.0, "z": 2.0}
    figure.update_scenes(dragmode="orbit", camera=_camera(0), **look)
    notes = [
        {"text": title, "x": 0.22 + 0.56 * side, "y": 1.0, "showarrow": False}
        | {"xref": "paper", "yref": "paper", "yanchor": "bottom"}
        for side, title in enumerate(titles)
    ]
    figure.update_layout(
        height=450,
        margin={"l": 0, "r": 0, "t": 28, "b": 0},
        annotations=notes,
        paper_bgcolor="white",
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "itemsizing": "constant"},
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
        line.value = f'<div role="status" aria-live="polite">{readout(shown, perturbation)}</div>'

    def choose(_=None) -> None:
        controls.shape.max = _last(clouds, controls.category.value)
        draw()

    def turn(change) -> None:
        figure.update_scenes(camera=_camera(change["new"]))

    controls.category.observe(choose, "value")
    controls.turn.observe(turn, "value")
    for name in ("shape", "num_patches", "patch_size", "sigma", "centers", "noise", "seed"):
        getattr(controls, name).observe(draw, "value")
    draw()
    half = ipywidgets.Layout(width="50%")
    columns = [
        ipywidgets.VBox([getattr(controls, name) for name in side], layout=half)
        for side in (
            ("num_patches", "patch_size", "sigma", "centers", "noise"),
            ("category", "shape", "seed", "turn"),
        )
    ]
    box = ipywidgets.VBox([ipywidgets.HBox(columns), line, figure])
    return Explorer(box, figure, controls, line)


def _last(clouds: Clouds, category: str) -> int:
    return int((clouds.labels == clouds.classes.index(category)).sum()) - 1


def _both(touched: Tensor) -> tuple[Tensor, Tensor]:
    return ~touched, touched


def _camera(degrees: float) -> dict:
    angle = math.radians(degrees - 58)
    eye = {"x": 1.5 * math.cos(angle), "y": 1.5 * math.sin(angle), "z": 0.65}
    return {"eye": eye, "projection": {"type": "orthographic"}}
