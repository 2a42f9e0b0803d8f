"""The figures of the course: one palette, one camera, and alternative text.

Matplotlib alone, without pyplot and without any Jupyter package. Every function returns a
`CourseFigure`, which a notebook shows as a small PNG together with its alternative text.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

# Okabe-Ito: distinct with every common kind of colour blindness, and in greyscale by lightness.
PALETTE = {
    "clean": "#0072B2",
    "perturbed": "#E69F00",
    "restored": "#009E73",
    "touched": "#D55E00",
    "neutral": "#9A9A9A",
    "ink": "#222222",
}
MARKERS = {"clean": "o", "perturbed": "^", "restored": "s", "touched": "D", "neutral": "o"}
ORDER = ("clean", "touched", "restored", "perturbed", "neutral")  # of lines without a role
DPI = 100
CAMERA = (22.0, -58.0)  # elevation and azimuth in degrees; the z axis of the data is up

Points = Tensor | np.ndarray | Sequence[float]
Layers = Tensor | Mapping[str, Tensor]


class CourseFigure(Figure):
    """A figure with alternative text, shown by a notebook as a PNG of few colours."""

    def __init__(self, alt: str, **options: Any) -> None:
        if not alt.strip():
            raise ValueError("alt is empty, wanted a sentence that says what the figure shows")
        super().__init__(dpi=DPI, facecolor="white", **options)
        self.alt, self._agg = alt, FigureCanvasAgg(self)

    def png(self) -> bytes:
        """Render a PNG of 256 colours: a third of the usual size."""
        from PIL import Image  # matplotlib brings it

        self._agg.draw()
        image = Image.fromarray(np.asarray(self._agg.buffer_rgba())).convert("RGB")
        small = io.BytesIO()
        method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
        image.quantize(256, method, dither=dither).save(small, format="png", optimize=True)
        return small.getvalue()

    def show(self, warn: bool = True) -> None:
        """Show the figure in a notebook now, from the middle of a cell."""
        self._ipython_display_()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        bundle = {"image/png": self.png(), "text/plain": f"Picture: {self.alt}"}
        display(bundle, raw=True, metadata={"image/png": {"alt": self.alt}})


def color(role: str) -> str:
    """Return the colour of a role, such as ``"clean"``.

    Raises:
        ValueError: a role that the palette does not have.
    """
    if role not in PALETTE:
        raise ValueError(f"no colour for {role!r}, the palette has {', '.join(PALETTE)}")
    return PALETTE[role]


def plain(axes: Axes) -> None:
    """Draw axes in light grey, without the upper and the right spine."""
    axes.grid(color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, length=0, colors="#555555")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#BBBBBB")


def _chart(alt: str, height: float, xlabel: str, ylabel: str) -> tuple[CourseFigure, Axes]:
    """Make a figure of 6.4 inches with one pair of axes."""
    figure = CourseFigure(alt, figsize=(6.4, height), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    return figure, axes


def _title(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, color=PALETTE["ink"], pad=4)


def _numpy(points: Points) -> np.ndarray:
    if isinstance(points, Tensor):
        points = points.detach().cpu().float().numpy()
    return np.asarray(points)


def _layers(title: str, panel: Layers) -> dict[str, np.ndarray]:
    if isinstance(panel, Mapping):
        return {role: _numpy(points) for role, points in panel.items()}
    return {title if title in PALETTE else "clean": _numpy(panel)}


def _grid(count: int, columns: int | None) -> tuple[int, int]:
    columns = min(count, columns or 4)
    return math.ceil(count / columns), columns


def project(points: np.ndarray, camera: tuple[float, float]) -> np.ndarray:
    """Project in parallel: to the right, up, and towards the viewer, ``(N, 3)`` to ``(N, 3)``."""
    up, turn = math.radians(camera[0]), math.radians(camera[1])
    right = (-math.sin(turn), math.cos(turn), 0.0)
    above = (-math.sin(up) * math.cos(turn), -math.sin(up) * math.sin(turn), math.cos(up))
    viewer = (math.cos(up) * math.cos(turn), math.cos(up) * math.sin(turn), math.sin(up))
    return points @ np.array([right, above, viewer]).T


def show_clouds(
    panels: Mapping[str, Layers],
    *,
    alt: str,
    values: Mapping[str, Tensor] | None = None,
    bars: Mapping[str, str] | None = None,
    columns: int | None = None,
    size: float = 2.8,
    point_size: float = 6.0,
    emphasis: float = 1.0,
    camera: tuple[float, float] = CAMERA,
    legend: bool = False,
    frames: bool = False,
) -> CourseFigure:
    """Draw clouds side by side, all at one scale and from one camera; far points are paler.

    Args:
        panels: title to ``(N, 3)`` points, or to a mapping of role (see `PALETTE`) to points, drawn
            in that order.
        alt: what the figure shows, in a sentence or two.
        values: title to ``(N,)`` numbers that colour the first layer of that panel, dark is low.
        bars: title to the name of its ``values``: a colour bar below the panel, and no fading.
        columns: panels in a row, 4 unless given.
        size: width of a panel in inches.
        point_size: area of a point, in square points.
        emphasis: factor on that area for the later layers of a panel.
        camera: elevation and azimuth in degrees.
        legend: name the roles below the panels.
        frames: draw a line around each panel.

    Raises:
        ValueError: no panel, a role without colour, or points that are not ``(N, 3)``.
    """
    if not panels:
        raise ValueError("no panels: wanted a title and its points at least")
    values, bars = values or {}, bars or {}
    drawn = {title: _layers(title, panel) for title, panel in panels.items()}
    for title, layers in drawn.items():
        for role, points in layers.items():
            color(role)
            if points.ndim != 2 or points.shape[1] != 3:
                raise ValueError(f"{title}: points of shape {points.shape}, wanted (N, 3)")
            layers[role] = project(points, camera)
    every = np.concatenate([points for layers in drawn.values() for points in layers.values()])
    every = every if len(every) else np.zeros((1, 3))
    low, high = every.min(0) - 0.06, every.max(0) + 0.06  # the same frame for all panels
    rows, columns = _grid(len(drawn), columns)
    below = 0.55 if bars else 0.0  # inches of a colour bar with its numbers
    above = 0.3  # inches of a title
    inside = size * min(1.25, (high[1] - low[1]) / (high[0] - low[0]))
    panel = above + inside + below
    height = rows * panel + (0.35 if legend else 0.0)
    figure = CourseFigure(alt, figsize=(columns * size, height))
    for place, (title, layers) in enumerate(drawn.items()):
        left, bottom = (place % columns) / columns, 1 - (place // columns + 1) * panel / height
        axes = figure.add_axes((left, bottom + below / height, 1 / columns, inside / height))
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        axes.set(xticks=[], yticks=[], frame_on=frames)
        axes.spines[:].set(color="#BBBBBB")
        _title(axes, title)
        for layer, (role, points) in enumerate(layers.items()):
            paint = np.tile(to_rgb(color(role)), (len(points), 1))  # (N, 3)
            if title in values and layer == 0:
                paint = _cividis(_numpy(values[title]))
            order = points[:, 2].argsort(kind="stable")  # far points first
            if title not in bars or layer:
                depth = (points[:, 2:] - low[2]) / (high[2] - low[2])  # (N, 1), 1 is near
                paint = 1 - (1 - paint) * (0.5 + 0.5 * depth)  # far points fade to white
            x, y, _ = points[order].T
            area = point_size * (emphasis if layer else 1)
            axes.scatter(x, y, s=area, c=paint[order], linewidths=0)
        if title in bars and title in values:
            width = 1 / columns
            box = (left + 0.2 * width, bottom + 0.42 / height, 0.6 * width, 0.1 / height)
            _bar(figure.add_axes(box), _numpy(values[title]), bars[title])
    if legend:
        _legend(figure, dict.fromkeys(role for layers in drawn.values() for role in layers))
    return figure


def _bar(axes: Axes, numbers: np.ndarray, name: str) -> None:
    """Draw a colour bar from the lowest to the highest of some numbers."""
    low, high = float(numbers.min()), float(numbers.max())
    ramp = np.linspace(0, 1, 256)[None]  # (1, 256)
    axes.imshow(ramp, cmap="cividis", aspect="auto", extent=(low, high, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([low, (low + high) / 2, high])
    axes.xaxis.set_major_formatter(
        lambda value, _: f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    )
    axes.tick_params(labelsize=8, length=0, colors="#555555")
    axes.set_xlabel(name, fontsize=8, labelpad=1)
    axes.set_frame_on(False)


def _legend(figure: Figure, roles: Mapping[str, None]) -> None:
    names = {"neutral": "untouched"}
    handles = [
        Line2D([], [], marker="o", linestyle="", color=color(role), label=names.get(role, role))
        for role in roles
    ]
    count = len(handles)
    figure.legend(handles=handles, loc="lower center", ncols=count, frameon=False, fontsize=9)


def _cividis(numbers: np.ndarray) -> np.ndarray:
    low, high = numbers.min(), numbers.max()
    return colormaps["cividis"]((numbers - low) / ((high - low) or 1))[:, :3]


def show_plane(
    panels: Mapping[str, Mapping[str, Tensor]],
    *,
    alt: str,
    links: Mapping[str, Sequence[tuple]] | None = None,
    circles: Mapping[str, Sequence[tuple]] | None = None,
    numbers: Mapping[str, Tensor] | None = None,
    size: float = 3.2,
) -> CourseFigure:
    """Draw toys of a few points in the plane (x and y), large enough to read every point.

    Args:
        panels: title to a mapping of role to ``(N, 2)`` or ``(N, 3)`` points.
        alt: what the figure shows.
        links: title to pairs of points ``(from, to)``, drawn as arrows.
        circles: title to ``(centre, radius)`` pairs.
        numbers: title to ``(N, 2)`` or ``(N, 3)`` points whose index is written beside them.
        size: width of a panel in inches.
    """
    links, circles, numbers = links or {}, circles or {}, numbers or {}
    drawn = {title: _layers(title, panel) for title, panel in panels.items()}
    shown = [points[:, :2] for layers in drawn.values() for points in layers.values()]
    for center, radius in (circle for panel in circles.values() for circle in panel):
        shown += [_numpy(center)[None, :2] - radius, _numpy(center)[None, :2] + radius]
    every = np.concatenate(shown)
    low, high = every.min(0) - 0.3, every.max(0) + 0.3
    rows, columns = _grid(len(drawn), None)
    height = rows * (size * (high[1] - low[1]) / (high[0] - low[0]) + 0.45)
    figure = CourseFigure(alt, figsize=(columns * size, height), layout="constrained")
    for place, (title, layers) in enumerate(drawn.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        _title(axes, title)
        plain(axes)
        for center, radius in circles.get(title, ()):
            style = {"facecolor": "#F3F3F3", "edgecolor": PALETTE["neutral"], "linestyle": "--"}
            axes.add_patch(Circle(_pair(center), float(radius), zorder=0, **style))
        for start, end in links.get(title, ()):
            arrow = {"arrowstyle": "->", "color": PALETTE["ink"], "shrinkA": 3, "shrinkB": 3}
            axes.annotate("", _pair(end), _pair(start), arrowprops=arrow)
        for role, points in layers.items():
            x, y = points[:, :2].T
            axes.scatter(x, y, s=48, color=color(role), marker=MARKERS[role], zorder=3)
        for index, point in enumerate(numbers.get(title, ())):
            text = axes.annotate(str(index), _pair(point), (5, 5), textcoords="offset points")
            text.set(fontsize=9, zorder=4)
    return figure


def _pair(point: Points) -> tuple[float, float]:
    x, y = _numpy(point)[:2].tolist()
    return x, y


def show_lines(
    x: Sequence[float] | Tensor,
    lines: Mapping[str, Sequence[float] | Tensor],
    *,
    alt: str,
    xlabel: str,
    ylabel: str,
    roles: Mapping[str, str] | None = None,
    log: str = "",
    mark: Mapping[str, tuple[float, float]] | None = None,
) -> CourseFigure:
    """Draw a line chart; each line has its own colour, marker and dash, and its name.

    Args:
        x: ``(N,)``.
        lines: label to ``(N,)`` heights.
        alt: what the figure shows.
        roles: label to a role of the palette; the others take the palette in order.
        log: ``"x"``, ``"y"`` or ``"xy"`` for logarithmic axes.
        mark: text to a point ``(x, y)`` where it is written with a dot.
    """
    figure, axes = _chart(alt, 3.3, xlabel, ylabel)
    for number, (label, heights) in enumerate(lines.items()):
        role = (roles or {}).get(label, ORDER[number % len(ORDER)])
        dash = ("-", "--", "-.", ":")[number % 4]
        (line,) = axes.plot(_numpy(x), _numpy(heights), dash, label=label, color=color(role))
        line.set(marker=MARKERS[role], markersize=4, linewidth=1.8)
    if "x" in log:
        axes.set_xscale("log")
        axes.set_xticks(_numpy(x), [f"{value:g}" for value in _numpy(x)])
        axes.minorticks_off()
    if "y" in log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        if high < 100 * low:  # under two decades: powers of ten alone would label next to nothing
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_locator(NullLocator())
    for text, point in (mark or {}).items():
        axes.plot(*point, "o", color=PALETTE["ink"], markersize=6, zorder=5)
        across, up = axes.transAxes.inverted().transform(axes.transData.transform(point))
        offset = (8 if across < 0.85 else -8, -12 if up > 0.1 else 6)  # inside the axes
        note = axes.annotate(text, point, offset, textcoords="offset points", zorder=5)
        note.set(fontsize=9, ha="left" if across < 0.85 else "right")
        note.set_path_effects([withStroke(linewidth=3, foreground="white")])  # across a line
    if len(lines) > 1:
        columns = min(len(lines), 85 // (max(map(len, lines)) + 9) or 1)  # 85 letters in a row
        figure.legend(loc="outside upper center", ncols=columns, frameon=False, fontsize=9)
    return figure


def show_histogram(
    samples: Mapping[str, Sequence[float] | Tensor],
    *,
    alt: str,
    xlabel: str,
    roles: Mapping[str, str] | None = None,
    lines: Mapping[str, float] | None = None,
) -> CourseFigure:
    """Draw histograms over one another, with named vertical lines.

    Args:
        samples: label to ``(N,)`` numbers.
        alt: what the figure shows.
        roles: label to a role of the palette.
        lines: text to its position on the x axis.
    """
    figure, axes = _chart(alt, 3.1, xlabel, "clouds")
    arrays = {label: _numpy(numbers) for label, numbers in samples.items()}
    ends = [end for array in arrays.values() for end in (array.min(), array.max())]
    edges = np.linspace(min(ends) - 0.5, max(ends) + 0.5, 31).tolist()
    order = ("clean", "perturbed", "restored", "touched")
    for number, (label, array) in enumerate(arrays.items()):
        role = (roles or {}).get(label, order[number % len(order)])
        axes.hist(array, edges, color=color(role), alpha=0.75, label=label, edgecolor="white")
    top = axes.get_ylim()[1] * 1.18
    axes.set_ylim(0, top)
    for text, position in (lines or {}).items():
        axes.axvline(position, color=PALETTE["ink"], linestyle="--", linewidth=1.2)
        axes.annotate(text, (position, top), (4, -11), textcoords="offset points", fontsize=9)
    if len(arrays) > 1:
        axes.legend(frameon=False, fontsize=9, loc="center left")
    return figure


def show_intervals(
    rows: Mapping[str, tuple[float, float, float]],
    *,
    alt: str,
    xlabel: str,
    dots: Mapping[str, Sequence[float]] | None = None,
    zero: float | None = None,
    roles: Mapping[str, str] | None = None,
) -> CourseFigure:
    """Draw a horizontal interval for each row, with a mark at its middle and its single values.

    Args:
        rows: label to ``(low, middle, high)``; without a bar if low or high is not finite.
        alt: what the figure shows.
        dots: label to single values, such as one a seed.
        zero: position of a vertical line, such as "no difference".
        roles: label to a role of the palette; clean unless given.
    """
    figure, axes = _chart(alt, 0.9 + 0.34 * len(rows), "", "")
    for place, (label, (low, middle, high)) in enumerate(rows.items()):
        shade = color((roles or {}).get(label, "clean"))
        if math.isfinite(low) and math.isfinite(high):
            (bar,) = axes.plot([low, high], [place, place], color=shade, linewidth=2.2)
            bar.set_solid_capstyle("butt")
        axes.plot([middle], [place], "o", color=shade, markersize=6)
        for value in (dots or {}).get(label, ()):
            axes.plot([value], [place + 0.22], "|", color=PALETTE["neutral"], markersize=7)
    if zero is not None:
        axes.axvline(zero, color=PALETTE["ink"], linestyle="--", linewidth=1.0)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8.5)
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.set_xlabel(xlabel, fontsize=9, loc="right")
    return figure
