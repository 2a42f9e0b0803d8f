"""The pictures of the course: one palette, one camera, and a text for who cannot see them.

Matplotlib alone, without pyplot and without any Jupyter package. Every function returns a
`Picture`, a figure that a notebook shows as a small PNG together with its alternative text.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

# Okabe-Ito: told apart with every common kind of colour blindness, and in greyscale by lightness.
PALETTE = {
    "clean": "#0072B2",
    "perturbed": "#E69F00",
    "restored": "#009E73",
    "touched": "#D55E00",
    "neutral": "#9A9A9A",
    "ink": "#222222",
}
MARKERS = {"clean": "o", "perturbed": "^", "restored": "s", "touched": "D", "neutral": "o"}
DPI = 100


class Picture(Figure):
    """A figure with alternative text, shown by a notebook as a PNG of few colours."""

    def __init__(self, alt: str, **options) -> None:
        if not alt.strip():
            raise ValueError("alt is empty, wanted a sentence that says what the picture shows")
        super().__init__(dpi=DPI, facecolor="white", **options)
        FigureCanvasAgg(self)
        self.alt = alt

    def png(self) -> bytes:
        """The picture as a PNG of 256 colours, tints of the palette: a third of the usual size."""
        from PIL import Image  # matplotlib brings it

        self.canvas.draw()
        pixels = np.asarray(self.canvas.buffer_rgba())[..., :3]  # (H, W, 3)
        packed = pixels.astype(np.int64) @ [1 << 16, 1 << 8, 1]  # (H, W), one number a colour
        seen, place = np.unique(packed, return_inverse=True)  # (C,), (H, W)
        seen = np.stack([seen >> 16, seen >> 8 & 255, seen & 255], -1)  # (C, 3)
        nearest = np.square(seen[:, None] - _tints()).sum(-1).argmin(1)  # (C,) of the 256 tints
        image = Image.fromarray(nearest[place].reshape(packed.shape).astype(np.uint8))
        image.putpalette(_tints().flatten().tolist())
        small = io.BytesIO()
        image.save(small, format="png", optimize=True)
        return small.getvalue()

    def show(self) -> None:
        """Show the picture in a notebook now, from the middle of a cell."""
        self._ipython_display_()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        bundle = {"image/png": self.png(), "text/plain": f"Picture: {self.alt}"}
        display(bundle, raw=True, metadata={"image/png": {"alt": self.alt}})


@cache
def _tints() -> np.ndarray:
    """All that a picture can show: 20 tints of each role, 8 of 17 steps of cividis; 256 colours."""
    roles = np.array([to_rgb(value) for value in PALETTE.values()])  # (6, 3)
    steps = colormaps["cividis"](np.linspace(0, 1, 17))[:, :3]  # (17, 3)
    blends = [
        1 - strength * (1 - colors)  # from white to the full colour
        for colors, count in ((roles, 20), (steps, 8))
        for strength in np.linspace(0 if count == 20 else 0.3, 1, count)
    ]
    return (np.concatenate(blends) * 255).round().astype(np.int64)  # (256, 3)


def color(role: str) -> str:
    """The colour of a role, such as ``"clean"``.

    Raises:
        ValueError: a role that the palette does not have.
    """
    if role not in PALETTE:
        raise ValueError(f"no colour for {role!r}, the palette has {', '.join(PALETTE)}")
    return PALETTE[role]


def plain(axes) -> None:
    """Axes that step back behind what they carry."""
    axes.grid(color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, length=0, colors="#555555")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#BBBBBB")


CAMERA = (22.0, -58.0)  # elevation and azimuth in degrees; the z axis of the data is up

Layers = Tensor | Mapping[str, Tensor]


def _numpy(points: Tensor | np.ndarray | Sequence) -> np.ndarray:
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
    """Parallel projection: to the right, up, and towards the viewer, ``(N, 3)`` to ``(N, 3)``."""
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
) -> Picture:
    """Clouds side by side, all at one scale and from one camera; far points are paler.

    Args:
        panels: title to ``(N, 3)`` points, or to a mapping of role (see `PALETTE`) to points, drawn
            in that order.
        alt: what the picture shows, in a sentence or two.
        values: title to ``(N,)`` numbers that colour the first layer of that panel, dark is low.
        bars: title to the name of its ``values``: a colour bar below the panel, and no fading.
        columns: panels in a row, 4 unless told.
        size: width of a panel in inches. point_size: area of a point, in square points.
        emphasis: how many times that area a point of the later layers of a panel has.
        camera: elevation and azimuth in degrees.
        legend: name the roles below the picture.

    Raises:
        ValueError: no panel, a role without colour, or points that are not ``(N, 3)``.
    """
    if not panels:
        raise ValueError("no panels: wanted a title and its points at least")
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
    panel_height = size * min(1.25, (high[1] - low[1]) / (high[0] - low[0])) + 0.3  # with its title
    panel_height += 0.55 if bars else 0.0  # a colour bar with its numbers
    room = 0.35 if legend else 0.0  # inches below the panels
    height = rows * panel_height + room
    figure = Picture(alt, figsize=(columns * size, height))
    for place, (title, layers) in enumerate(drawn.items()):
        left, bottom = (
            (place % columns) / columns,
            1 - (place // columns + 1) * panel_height / height,
        )
        below = 0.55 if bars else 0.0
        box = (left, bottom + below / height, 1 / columns, (panel_height - 0.3 - below) / height)
        axes = figure.add_axes(box)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        axes.set_axis_off()
        axes.set_title(title, fontsize=10, color=PALETTE["ink"], pad=4)
        for layer, (role, points) in enumerate(layers.items()):
            paint = np.tile(to_rgb(color(role)), (len(points), 1))  # (N, 3)
            if values and title in values and layer == 0:
                paint = _cividis(_numpy(values[title]))
            barred = bool(bars and title in bars and layer == 0)
            order = points[:, 2].argsort(kind="stable")  # far points first
            depth = (points[:, 2:] - low[2]) / (high[2] - low[2])  # (N, 1), 1 is near
            if not barred:
                paint = 1 - (1 - paint) * (0.5 + 0.5 * depth)  # far points fade to white
            area = point_size * (emphasis if layer else 1)
            axes.scatter(*points[order, :2].T, s=area, c=paint[order], linewidths=0)
        if bars and title in bars and values:
            place_of_bar = (
                left + 0.2 / columns,
                bottom + 0.42 / height,
                0.6 / columns,
                0.1 / height,
            )
            _bar(figure.add_axes(place_of_bar), _numpy(values[title]), bars[title])
    if legend:
        _legend(figure, dict.fromkeys(role for layers in drawn.values() for role in layers))
    return figure


def _bar(axes, numbers: np.ndarray, name: str) -> None:
    """Draw a colour bar from the lowest to the highest of some numbers."""
    low, high = float(numbers.min()), float(numbers.max())
    axes.imshow(
        np.linspace(0, 1, 256)[None], cmap="cividis", aspect="auto", extent=(low, high, 0, 1)
    )
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
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=9
    )


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
) -> Picture:
    """Toys of a few points in the plane (x and y), large enough to be read point by point.

    Args:
        panels: title to a mapping of role to ``(N, 2)`` or ``(N, 3)`` points.
        links: title to pairs of points ``(from, to)``, drawn as arrows.
        circles: title to ``(centre, radius)`` pairs.
        numbers: title to ``(N, 2)`` or ``(N, 3)`` points that get their index written beside them.
        size: width of a panel in inches.
    """
    drawn = {title: _layers(title, panel) for title, panel in panels.items()}
    every = [p[:, :2] for layers in drawn.values() for p in layers.values()]
    for center, radius in (circle for panel in (circles or {}).values() for circle in panel):
        every += [_numpy(center)[None, :2] - radius, _numpy(center)[None, :2] + radius]
    every = np.concatenate(every)
    low, high = every.min(0) - 0.3, every.max(0) + 0.3
    rows, columns = _grid(len(drawn), None)
    aspect = (high[1] - low[1]) / (high[0] - low[0])
    figure = Picture(
        alt, figsize=(columns * size, rows * (size * aspect + 0.45)), layout="constrained"
    )
    for place, (title, layers) in enumerate(drawn.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        axes.set_title(title, fontsize=10, color=PALETTE["ink"])
        plain(axes)
        for center, radius in (circles or {}).get(title, ()):
            style = {"facecolor": "#F3F3F3", "edgecolor": PALETTE["neutral"], "linestyle": "--"}
            axes.add_patch(Circle(_numpy(center)[:2], float(radius), zorder=0, **style))
        for start, end in (links or {}).get(title, ()):
            arrow = {"arrowstyle": "->", "color": PALETTE["ink"], "shrinkA": 3, "shrinkB": 3}
            axes.annotate("", _numpy(end)[:2], _numpy(start)[:2], arrowprops=arrow)
        for role, points in layers.items():
            axes.scatter(*points[:, :2].T, s=48, color=color(role), marker=MARKERS[role], zorder=3)
        for index, point in enumerate(_numpy((numbers or {}).get(title, np.empty((0, 2))))):
            axes.annotate(
                str(index), point[:2], (5, 5), textcoords="offset points", fontsize=9, zorder=4
            )
    return figure


def show_lines(
    x: Sequence[float] | Tensor,
    lines: Mapping[str, Sequence[float] | Tensor],
    *,
    alt: str,
    xlabel: str,
    ylabel: str,
    roles: Mapping[str, str] | None = None,
    title: str = "",
    log: str = "",
    mark: Mapping[str, tuple[float, float]] | None = None,
) -> Picture:
    """Line chart; each line has its own colour, marker and dash, and its name at its end.

    Args:
        x: ``(N,)``. lines: label to ``(N,)`` heights.
        roles: label to a role of the palette; the others take the palette in order.
        log: ``"x"``, ``"y"`` or ``"xy"`` for logarithmic axes.
        mark: text to a point ``(x, y)`` where it is written with a dot.
    """
    figure = Picture(alt, figsize=(6.4, 3.3), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    order = ["clean", "touched", "restored", "perturbed", "neutral"]
    for number, (label, heights) in enumerate(lines.items()):
        role = (roles or {}).get(label, order[number % len(order)])
        dash = ("-", "--", "-.", ":")[number % 4]
        style = {"marker": MARKERS[role], "markersize": 4, "linewidth": 1.8, "linestyle": dash}
        axes.plot(_numpy(x), _numpy(heights), label=label, color=color(role), **style)
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
        height = axes.transAxes.inverted().transform(axes.transData.transform(point))[1]
        below = -12 if height > 0.1 else 6  # not across the axis
        axes.annotate(text, point, (8, below), textcoords="offset points", fontsize=9)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.set_title(title, fontsize=10, color=PALETTE["ink"])
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=9)
    return figure


def show_histogram(
    samples: Mapping[str, Sequence[float] | Tensor],
    *,
    alt: str,
    xlabel: str,
    roles: Mapping[str, str] | None = None,
    lines: Mapping[str, float] | None = None,
    title: str = "",
    bins: int = 30,
) -> Picture:
    """Histograms over one another, with named vertical lines.

    Args:
        samples: label to ``(N,)`` numbers.
        roles: label to a role of the palette. lines: text to where it stands on the x axis.
    """
    figure = Picture(alt, figsize=(6.4, 3.1), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    arrays = {label: _numpy(numbers) for label, numbers in samples.items()}
    ends = [*(a.min() for a in arrays.values()), *(a.max() for a in arrays.values())]
    edges = np.linspace(min(ends) - 0.5, max(ends) + 0.5, bins + 1)
    order = ["clean", "perturbed", "restored", "touched"]
    for number, (label, numbers) in enumerate(arrays.items()):
        role = (roles or {}).get(label, order[number % len(order)])
        axes.hist(numbers, edges, color=color(role), alpha=0.75, label=label, edgecolor="white")
    top = axes.get_ylim()[1] * 1.18
    axes.set_ylim(0, top)
    for text, where in (lines or {}).items():
        axes.axvline(where, color=PALETTE["ink"], linestyle="--", linewidth=1.2)
        axes.annotate(text, (where, top), (4, -11), textcoords="offset points", fontsize=9)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel("clouds", fontsize=9)
    axes.set_title(title, fontsize=10, color=PALETTE["ink"])
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
    title: str = "",
    roles: Mapping[str, str] | None = None,
) -> Picture:
    """A horizontal interval for each row, a mark at its middle, small dots for what it is made of.

    Args:
        rows: label to ``(low, middle, high)``; low and high may be infinite or nan: no bar then.
        dots: label to single values, such as one a seed.
        zero: where a vertical line stands, such as "no difference".
        roles: label to a role of the palette; clean unless told.
    """
    figure = Picture(alt, figsize=(6.4, 0.9 + 0.34 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    for place, (label, (low, middle, high)) in enumerate(rows.items()):
        shade = color((roles or {}).get(label, "clean"))
        if low - low == 0 == high - high:  # finite
            axes.plot(
                [low, high], [place, place], color=shade, linewidth=2.2, solid_capstyle="butt"
            )
        axes.plot([middle], [place], "o", color=shade, markersize=6)
        for value in (dots or {}).get(label, ()):
            axes.plot([value], [place + 0.22], "|", color=PALETTE["neutral"], markersize=7)
    if zero is not None:
        axes.axvline(zero, color=PALETTE["ink"], linestyle="--", linewidth=1.0)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8.5)
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.set_xlabel(xlabel, fontsize=9, loc="right")
    axes.set_title(title, fontsize=10, color=PALETTE["ink"])
    return figure
