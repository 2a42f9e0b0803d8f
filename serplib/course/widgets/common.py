"""What every explorer of the course shares: the box, the sliders, the scene of a figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

from serplib.course.plots import PALETTE

WIDE, STYLE = "98%", {"description_width": "110px"}


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


def jupyter():
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


def slider(kind: Callable, label: str, value: float, low: float, high: float, step: float):
    """A labelled ipywidgets slider of ``kind``, as wide as its column."""
    options = {"value": value, "min": low, "max": high, "step": step}
    layout = jupyter()[0].Layout(width=WIDE)
    return kind(description=label, tooltip=label, style=STYLE, layout=layout, **options)


def choice(label: str, options: tuple[str, ...], value: str):
    """A slider over names: JupyterLab takes the keys of a drop-down list for its own."""
    ipywidgets = jupyter()[0]
    return ipywidgets.SelectionSlider(
        description=label,
        tooltip=label,
        options=options,
        value=value,
        style=STYLE,
        layout=ipywidgets.Layout(width=WIDE),
    )


def scenes(titles: tuple[str, ...], layers: tuple[tuple[tuple[str, str, float], ...], ...]):
    """A FigureWidget of 3-d scenes side by side, all seen by the same camera, still empty.

    Args:
        titles: one a scene. layers: for each scene the (role, name, point size) of its traces;
            the role is a key of `course.plots.PALETTE`.
    """
    _, go, make_subplots = jupyter()
    figure = go.FigureWidget(
        make_subplots(
            1, len(titles), specs=[[{"type": "scene"}] * len(titles)], subplot_titles=titles
        )
    )
    for column, traces in enumerate(layers, start=1):
        for role, name, size in traces:
            marker = {"size": size, "color": PALETTE[role]}
            cloud = go.Scatter3d(mode="markers", marker=marker, name=name, hoverinfo="skip")
            figure.add_trace(cloud, row=1, col=column)
    axis = {"visible": False, "range": [-1, 1]}
    look = {"xaxis": axis, "yaxis": axis, "zaxis": axis, "aspectmode": "manual"}
    look["aspectratio"] = {"x": 2.0, "y": 2.0, "z": 2.0}
    figure.update_scenes(dragmode="orbit", camera=camera(0), **look)
    figure.update_layout(
        height=450,
        margin={"l": 0, "r": 0, "t": 28, "b": 0},
        paper_bgcolor="white",
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "itemsizing": "constant"},
    )
    return figure


def columns(*sides: list):
    """Controls in columns of equal width."""
    ipywidgets = jupyter()[0]
    part = ipywidgets.Layout(width=f"{100 // len(sides)}%")
    return ipywidgets.HBox([ipywidgets.VBox(side, layout=part) for side in sides])


def status(text: str) -> str:
    """A line under the controls that a screen reader speaks when it changes."""
    return f'<div role="status" aria-live="polite">{text}</div>'


def camera(degrees: float) -> dict:
    angle = math.radians(degrees - 58)
    eye = {"x": 1.5 * math.cos(angle), "y": 1.5 * math.sin(angle), "z": 0.65}
    return {"eye": eye, "projection": {"type": "orthographic"}}
