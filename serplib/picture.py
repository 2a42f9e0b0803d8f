"""A picture of the course: its palette, its alternative text, the small PNG that is shown."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

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
