"""The figures of the course."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from serplib.course import plots


def cloud(num_points=50, seed=0):
    return torch.randn(num_points, 3, generator=torch.Generator().manual_seed(seed))


def image(figure):
    return np.asarray(Image.open(io.BytesIO(figure.png())).convert("RGB"))


FIGURES = {
    "bars": lambda: plots.show_clouds(
        {"a": cloud(), "b": cloud()}, values={"a": torch.arange(50)}, bars={"a": "size"}, alt="x"
    ),
    "clouds": lambda: plots.show_clouds({"clean": cloud(), "b": {"touched": cloud()}}, alt="x"),
    "values": lambda: plots.show_clouds(
        {"a": cloud()}, values={"a": torch.arange(50)}, alt="x", legend=True
    ),
    "plane": lambda: plots.show_plane(
        {"a": {"clean": cloud(5), "perturbed": cloud(2)}},
        links={"a": [(cloud(5)[0], cloud(2)[1])]},
        circles={"a": [(cloud(5)[0], 0.5)]},
        numbers={"a": cloud(5)},
        alt="x",
    ),
    "lines": lambda: plots.show_lines(
        [1, 2, 3],
        {"a": [1, 2, 3], "b": torch.ones(3)},
        log="xy",
        mark={"here": (2, 2)},
        xlabel="x",
        ylabel="y",
        alt="x",
    ),
    "histogram": lambda: plots.show_histogram(
        {"a": torch.arange(20.0), "b": [3.0, 4.0]}, lines={"here": 3}, xlabel="x", alt="x"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_and_small(name):
    figure = FIGURES[name]()
    pixels = image(figure)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 5  # not an empty canvas
    assert len(figure.png()) < 60_000


def test_a_colour_bar_names_its_values_and_their_range():
    figure = FIGURES["bars"]()
    (bar,) = [axes for axes in figure.axes if axes.get_xlabel()]
    figure.canvas.draw()
    assert bar.get_xlabel() == "size"
    assert [text.get_text() for text in bar.get_xticklabels()] == ["0", "24", "49"]


def test_a_logarithmic_axis_of_less_than_two_decades_has_plain_labels():
    figure = plots.show_lines(
        [1, 2, 3], {"a": [0.12, 0.3, 0.7]}, log="y", xlabel="x", ylabel="y", alt="x"
    )
    figure.canvas.draw()
    low, high = figure.axes[0].get_ylim()
    ticks = [
        t.get_text() for t in figure.axes[0].get_yticklabels() if low < float(t.get_text()) < high
    ]
    assert ticks == ["0.2", "0.3", "0.5"]


def test_the_palette_is_distinct():
    """Okabe and Ito's colours, no two of them close."""
    assert plots.PALETTE["clean"] == "#0072B2" and plots.PALETTE["perturbed"] == "#E69F00"
    colors = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in plots.PALETTE.values()])
    gaps = np.abs(colors[:, None] - colors[None]).sum(-1) + 1000 * np.eye(len(colors))
    assert gaps.min() > 80
    assert set(plots.MARKERS) <= set(plots.PALETTE)


def test_a_figure_has_a_text():
    with pytest.raises(ValueError, match="alt is empty"):
        plots.show_clouds({"a": cloud()}, alt=" ")


def test_the_notebook_gets_a_png_with_its_text(monkeypatch):
    shown = {}
    display = pytest.importorskip("IPython.display")

    def keep(bundle, raw, metadata):
        shown.update(bundle=bundle, raw=raw, metadata=metadata)

    monkeypatch.setattr(display, "display", keep)
    plots.show_clouds({"a": cloud()}, alt="a heap of points").show()
    assert shown["bundle"]["image/png"].startswith(b"\x89PNG")
    assert shown["bundle"]["text/plain"] == "Picture: a heap of points"
    assert shown["metadata"] == {"image/png": {"alt": "a heap of points"}}


def test_compared_clouds_share_scale_and_camera():
    """The same cloud at half its size is drawn at half its size."""
    points = cloud(400)
    figure = plots.show_clouds({"a": points, "b": points / 2}, alt="x")
    large, small = figure.axes
    assert large.get_xlim() == small.get_xlim() and large.get_ylim() == small.get_ylim()
    drawn = [axes.collections[0].get_offsets() for axes in (large, small)]
    np.testing.assert_allclose(np.sort(drawn[0], 0) / 2, np.sort(drawn[1], 0), atol=1e-6)


def test_projection_keeps_lengths_and_has_z_up():
    points = np.eye(3)
    np.testing.assert_allclose(np.linalg.norm(plots.project(points, (22, -58)), axis=1), 1)
    right, up, _ = plots.project(np.array([[0.0, 0, 1]]), (22, -58))[0]
    assert abs(right) < 1e-9 and up > 0.9
    np.testing.assert_allclose(
        plots.project(np.array([[1.0, 0, 0]]), (0, -90))[0], [1, 0, 0], atol=1e-9
    )


def test_near_points_hide_far_ones():
    """Drawn from far to near: the last point of the scatter is the nearest to the viewer."""
    points = cloud(200)
    figure = plots.show_clouds({"a": points}, alt="x", camera=(0, -90))
    drawn = np.asarray(figure.axes[0].collections[0].get_offsets())
    nearest = points[points[:, 1].argmin()].numpy()  # the viewer looks along +y
    np.testing.assert_allclose(drawn[-1], nearest[[0, 2]], atol=1e-6)


@pytest.mark.parametrize(
    "panels, message",
    [
        ({}, "no panels"),
        ({"a": torch.zeros(3, 2)}, r"\(N, 3\)"),
        ({"a": {"purple": torch.zeros(3, 3)}}, "no colour for 'purple'"),
    ],
)
def test_wrong_panels_are_refused(panels, message):
    with pytest.raises(ValueError, match=message):
        plots.show_clouds(panels, alt="x")


def test_empty_layers_are_fine():
    plots.show_clouds({"a": {"clean": cloud(), "touched": cloud()[:0]}}, alt="x").png()
    plots.show_clouds({"a": {"touched": cloud()[:0]}}, alt="x").png()


def test_library_imports_without_jupyter():
    """plots, exercises and widgets import where no Jupyter package is; a widget says what to do."""
    code = """
import builtins
real = builtins.__import__
def guarded(name, *rest, **more):
    if name.split(".")[0] in ("IPython", "ipywidgets", "plotly", "anywidget", "ipykernel"):
        raise ImportError(f"No module named {name!r}")
    return real(name, *rest, **more)
builtins.__import__ = guarded
import serplib.course.plots, serplib.course.exercises, serplib.course.widgets
from serplib.data import load
try:
    serplib.course.widgets.perturbation_explorer(load("objects", "train", 4, 64))
except ImportError as error:
    assert "pip install" in str(error), error
    print("told")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "told", done.stderr
