"""Parts shared by the explorers: the box, the controls, the 3-d scenes of a figure."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from serplib.course.plots import PALETTE
from serplib.data import Clouds

STYLE = {"description_width": "110px"}
WIDTH = 820  # pixels of a figure of many panels: what JupyterLab has beside its file list
TALL = 1.25  # height of a panel over its width: a narrower one would cut the shapes off
# JupyterLab takes the arrow keys and letters for its own: keys pressed in a menu must not reach it.
KEYS = """export default { render({ el }) {
    const keep = (event) => {
        const ours = el.closest(".jp-OutputArea-child")?.contains(event.target);
        if (ours && event.target.tagName === "SELECT") event.stopPropagation();
    };
    window.addEventListener("keydown", keep, true);
    return () => window.removeEventListener("keydown", keep, true);
}};"""


# anywidget gives the code of a widget two seconds to load, and draws nothing after that; plotly's
# 5 MB need more on a busy machine. So the code that it waits for is this: it loads plotly's own,
# once a page, and keeps the messages of the kernel until plotly is there to read them.
PLOTLY = """export default () => {
    let plotly;
    const load = async (model) => {
        const messages = ["addTraces", "restyle", "relayout", "update", "animate", "deleteTraces",
            "moveTraces", "removeLayoutProps", "removeTraceProps"].map((name) => "_py2js_" + name);
        const missed = [];
        const keep = messages.map((name) => () => {
            if (model.get(name)) missed.push([name, model.get(name)]);
        });
        messages.forEach((name, i) => model.on("change:" + name, keep[i]));
        globalThis.serpPlotly ??= import(URL.createObjectURL(
            new Blob([model.get("_plotly")], { type: "text/javascript" })));
        const made = (await globalThis.serpPlotly).default();
        messages.forEach((name, i) => model.off("change:" + name, keep[i]));
        made.initialize({ model });
        for (const [name, message] of missed) {
            model.set(name, message);
            model.set(name, null);
        }
        return made;
    };
    return {
        initialize({ model }) { plotly = load(model); },
        async render(context) { return (await plotly).render(context); },
    };
};"""


def jupyter() -> tuple[Any, Any, Any]:
    """Import ipywidgets, plotly.graph_objects and make_subplots.

    Raises:
        ImportError: ipywidgets, plotly or anywidget is missing.
    """
    try:
        import anywidget  # noqa: F401 (plotly's FigureWidget needs it)
        import ipywidgets
        import plotly.graph_objects as go
        import plotly.subplots
    except ImportError as error:
        raise ImportError(
            f"{error}: the widgets need ipywidgets, plotly and anywidget; "
            "run 'pip install serplib[course]', or 'make setup' in the course's folder"
        ) from error
    return ipywidgets, go, plotly.subplots.make_subplots


@functools.cache
def figure_class() -> type:
    """Return a class of live plotly figures that may take its time to load, see ``PLOTLY``."""
    import traitlets

    _, go, _ = jupyter()
    source = str(go.FigureWidget._esm)
    loaded_later = {"_esm": PLOTLY, "_plotly": traitlets.Unicode(source).tag(sync=True)}
    return type("Figure", (go.FigureWidget,), loaded_later)


class Explorer:
    """A widget box that a notebook displays, and stores as one line of text.

    Attributes:
        controls: the ipywidgets by name, with ``value`` to read and set.
        figure: the plotly FigureWidget. readout: the HTML widget above it. box: all of it.
    """

    def __init__(self, figure, controls: SimpleNamespace, *sides: Sequence[str]) -> None:
        """Put controls, named in columns of equal width, above the readout and the figure."""
        import anywidget

        ipywidgets = jupyter()[0]
        self.figure, self.controls, self.readout = figure, controls, ipywidgets.HTML()
        keys = type("Keys", (anywidget.AnyWidget,), {"_esm": KEYS})()
        layout = ipywidgets.Layout(width=f"{100 // len(sides)}%")
        columns = [[getattr(controls, name) for name in side] for side in sides]
        boxes = [ipywidgets.VBox(column, layout=layout) for column in columns]
        self.box = ipywidgets.VBox([ipywidgets.HBox(boxes), self.readout, figure, keys])

    def observe(self, function: Callable, *names: str) -> None:
        """Call a function whenever one of the named controls changes its value."""
        for name in names:
            getattr(self.controls, name).observe(function, "value")

    def show(self, layers: Iterable[Tensor], text: str) -> None:
        """Write ``(N, 3)`` points into the traces of the figure, in order, and a line of text."""
        with self.figure.batch_update():
            for trace, layer in zip(self.figure.data, layers):
                trace.x, trace.y, trace.z = layer.T.contiguous().cpu().numpy()
        self.say(text)

    def say(self, text: str) -> None:
        """Write the line above the figure; a screen reader speaks it when it changes."""
        self.readout.value = f'<div role="status" aria-live="polite">{text}</div>'

    def _ipython_display_(self) -> None:
        from IPython.display import display

        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        bundle = {
            "application/vnd.jupyter.widget-view+json": view,
            "text/plain": "Live widget: run this cell in JupyterLab to move the sliders.",
        }
        display(bundle, raw=True)


def slider(label: str, value: float, low: float, high: float, step: float = 1):
    """Make a slider as wide as its column, with a box to type into; over integers if it can be."""
    whole = isinstance(value, int) and isinstance(step, int)
    kind = "IntSlider" if whole else "FloatSlider"
    made = _control(kind, label, value=value, min=low, max=high, step=step)
    if not whole:
        made.readout_format = f".{max(2, math.ceil(-math.log10(step)))}f"
    return made


def menu(label: str, options: Sequence[str], value: str):
    """Make a drop-down list."""
    return _control("Dropdown", label, options=options, value=value)


def toggles(label: str, options: Sequence[str], value: str):
    """Make a row of buttons of which one is pressed."""
    made = _control("ToggleButtons", label, options=options, value=value)
    made.style.button_width = "auto"
    return made


def _control(kind: str, label: str, **settings: Any):
    ipywidgets = jupyter()[0]
    layout = ipywidgets.Layout(width="98%")
    settings |= {"description": label, "tooltip": label, "style": STYLE, "layout": layout}
    return getattr(ipywidgets, kind)(**settings)


class ShapeChooser:
    """A menu of the categories of labelled clouds and a slider over the shapes of a category.

    Attributes:
        category: the menu. shape: the slider.

    Raises:
        ValueError: ``clouds`` have no labels, or no shape of ``category``.
    """

    def __init__(self, clouds: Clouds, category: str | None) -> None:
        if clouds.labels is None:
            raise ValueError(f"{clouds.name} has no labels, wanted labelled clouds to choose from")
        names = [clouds.classes[label] for label in sorted(set(clouds.labels.tolist()))]
        category = names[0] if category is None else category
        if category not in names:
            raise ValueError(f"no shape of {category!r} here, there is: {', '.join(names)}")
        self._clouds = clouds
        self.category = menu("category", names, category)
        self.shape = slider("shape", 0, 0, len(self._shapes()) - 1)
        self.category.observe(self._limit, "value")

    def points(self) -> Tensor:
        """Return the shape that is chosen, ``(N, 3)``."""
        shapes = self._shapes()
        return shapes[min(self.shape.value, len(shapes) - 1)]

    def _shapes(self) -> Tensor:
        return self._clouds.points[
            self._clouds.labels == self._clouds.classes.index(self.category.value)
        ]

    def _limit(self, _) -> None:
        self.shape.max = len(self._shapes()) - 1


def turn_slider():
    """Make the slider that turns all shapes about their vertical axis."""
    return slider("turn (degrees)", 0, -180, 180, 5)


def scenes(titles: Sequence[str], layers: Iterable[Sequence[tuple[str, str, float]]], turn):
    """Make an empty FigureWidget of 3-d scenes side by side; a drag in one turns all.

    Args:
        titles: one a scene.
        layers: for each scene the (role, name, point size) of its traces; the role is a key of
            `course.plots.PALETTE`.
        turn: the slider that turns all scenes, see `turn_slider`.
    """
    _, go, make_subplots = jupyter()
    count = len(titles)
    specs = [[{"type": "scene"}] * count]
    figure = figure_class()(
        make_subplots(1, count, specs=specs, subplot_titles=titles, horizontal_spacing=0.01)
    )
    for column, traces in enumerate(layers, start=1):
        for role, name, size in traces:
            marker = {"size": size, "color": PALETTE[role]}
            cloud = go.Scatter3d(mode="markers", marker=marker, name=name, hoverinfo="skip")
            figure.add_trace(cloud, row=1, col=column)
    axis = {"visible": False, "range": [-1, 1]}
    look = {"xaxis": axis, "yaxis": axis, "zaxis": axis, "aspectmode": "manual"}
    zoom = 2.0 if count < 3 else 1.7  # 2 fills the panel; noise moves points out of a narrow one
    look["aspectratio"] = {"x": zoom, "y": zoom, "z": zoom}
    figure.update_scenes(dragmode="orbit", camera=camera(0), **look)
    frame(figure, 450)
    if count > 2:
        figure.update_layout(width=WIDTH, height=round(70 + TALL * WIDTH / count))

    seen = list(camera(0)["eye"].values())  # where the cameras of all panels stand

    def show(new: dict) -> None:
        seen[:] = new["eye"].values()
        figure.update_scenes(camera=new)

    def follow(_, moved) -> None:
        eye = moved.eye.x, moved.eye.y, moved.eye.z
        # The browser reports each camera back, rounded: only a drag is far from what it was told.
        if None not in eye and max(abs(a - b) for a, b in zip(eye, seen)) > 1e-3:
            show(camera(0) | moved.to_plotly_json())

    turn.observe(lambda change: show(camera(change.new)), "value")
    for place in range(count):
        figure.layout.on_change(follow, f"scene{place + 1 if place else ''}.camera")
    return figure


def frame(figure, height: int) -> None:
    """Set height in pixels, margins, background and legend of a plotly figure."""
    figure.update_layout(
        height=height,
        margin={"l": 0, "r": 0, "t": 28, "b": 0},
        paper_bgcolor="white",
        plot_bgcolor="white",
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "itemsizing": "constant"},
    )


def camera(degrees: float) -> dict:
    """Return plotly's camera, turned about the vertical axis."""
    angle = math.radians(degrees - 58)
    eye = {"x": 1.5 * math.cos(angle), "y": 1.5 * math.sin(angle), "z": 0.65}
    return {"eye": eye, "projection": {"type": "orthographic"}}
