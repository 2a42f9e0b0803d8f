"""Means with their intervals and the single seeds behind them, one row an arm (section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serplib.picture import PALETTE, Picture, color, plain


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
