"""Render the tables and notes of a suite as text, HTML or Markdown."""

from __future__ import annotations

import base64
import html
import re
import textwrap
from collections.abc import Sequence

import pandas as pd

from serplib.experiments.summaries import Summary

RESTORED = "Held-out clouds, clean, corrupted and restored: "  # pictures that open a report


def counted(number: int, noun: str) -> str:
    """Return ``"1 run"`` or ``"2 runs"``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def to_text(summary: Summary, width: int = 80) -> str:
    """Render for a terminal: tables wider than ``width`` continue below, cells are not cut."""
    parts = []
    for title, frame in summary.tables.items():
        parts += [_one_line(title), table_to_text(frame, width), ""]
    return "\n".join([*parts, *(textwrap.fill(note, width) for note in summary.notes)])


def table_to_text(frame: pd.DataFrame, width: int = 80) -> str:
    """Render one frame of text for a terminal."""
    first = frame.columns[0]
    rows = frame.map(_one_line).set_index(first).rename_axis(index=None, columns=first)
    return re.sub(r" +\\?$", "", rows.to_string(line_width=width), flags=re.MULTILINE)


def to_narrow_text(frame: pd.DataFrame, width: int = 80) -> str:
    """Render one frame of text within a width: its first column is wrapped at words.

    Args:
        frame: its index has the heading above each group of rows.
        width: of the terminal.
    """
    rows = [list(frame.columns), *([_one_line(cell) for cell in row] for row in frame.values)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    widths[0] = min(widths[0], width - sum(widths[1:]) - 2 * len(widths[1:]))
    lines: list[str] = []
    last = ""
    for heading, row in zip(["", *frame.index], rows):
        if heading != last:
            lines += ["", *textwrap.wrap(heading, width)]
        last = heading
        first, *others = textwrap.wrap(row[0], widths[0]) or [""]
        cells = [cell.ljust(size) for cell, size in zip([first, *row[1:]], widths)]
        lines += ["  ".join(cells).rstrip(), *others]
    return "\n".join(lines)


def to_html(title: str, summary: Summary | None, sentences: list[str],
            pictures: dict[str, bytes], failed: list[str]) -> str:  # fmt: skip
    """Render one self-contained page.

    Args:
        title: of the page.
        summary: None where no run has finished.
        sentences: of `findings`.
        pictures: PNG by alternative text.
        failed: a line for each run that failed.
    """
    body = [f"<h1>{html.escape(title)}</h1>"]
    shown = {alt: figure(alt, png) for alt, png in pictures.items()}
    clouds = "".join(shown.pop(alt) for alt in pictures if alt.startswith(RESTORED))
    body += [f'<div class="clouds">{clouds}</div>'] if clouds else []
    body += _list("Findings", sentences)
    if summary is not None:
        with pd.option_context("display.max_colwidth", None):  # else long labels are cut
            for head, frame in summary.tables.items():
                table = frame.to_html(index=False, border=0)
                body += [f"<h2>{html.escape(head)}</h2>", f'<div class="wide">{table}</div>']
        body += [f"<p>{html.escape(note)}</p>" for note in summary.notes]
    body += shown.values()
    if summary is not None:
        body.append(f"<p>{html.escape(summary.environment)}.</p>")
    body += _list("Runs that failed", failed)
    return page(title, _STYLE, "\n".join(body))


def _list(head: str, lines: list[str]) -> list[str]:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return [f"<h2>{head}</h2><ul>{items}</ul>"] if lines else []


def figure(alt: str, png: bytes) -> str:
    """Render a PNG with its alternative text, and a caption if it shows restored clouds."""
    data, text = base64.b64encode(png).decode(), html.escape(alt)
    image = f'<img src="data:image/png;base64,{data}" alt="{text}">'
    caption = f"<figcaption>{text}</figcaption>" if alt.startswith(RESTORED) else ""
    return f"<figure>{image}{caption}</figure>"


_STYLE = """.wide { overflow-x: auto } .clouds { display: flex; overflow-x: auto; gap: 1rem }
.clouds figure { flex: 0 0 min(22rem, 85vw); margin: 0 }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: left }"""


def page(title: str, style: str, body: str, head: str = "") -> str:
    """Render a page in the style of reports and status pages, with some more."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{head}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SeRP: {html.escape(title)}</title><style>
:root {{ color-scheme: light dark }} table {{ border-collapse: collapse }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
padding: 0 1rem }}
figure {{ margin: 1rem 0 }} img {{ max-width: 100%; background: #fff }}
{style}
</style></head><body>
{body}
</body></html>
"""


def to_markdown(summary: Summary, sentences: Sequence[str] = ()) -> str:
    """Render findings and tables with their notes; labels cannot form HTML or links."""
    lines = [*(f"- {_plain(sentence)}" for sentence in sentences), *([""] if sentences else [])]
    for title, frame in summary.tables.items():
        lines += [f"**{_plain(title)}**", "", table_to_markdown(frame), ""]
    lines += [*map(_plain, summary.notes), "", _plain(summary.environment) + "."]
    return "\n".join(lines) + "\n"


def table_to_markdown(frame: pd.DataFrame) -> str:
    """Render one frame of text."""
    rows = [list(frame.columns), *frame.values.tolist()]
    lines = ["| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in row) + " |"
             for row in rows]  # fmt: skip
    lines.insert(1, "| --- " * len(frame.columns) + "|")
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Return one line in which no HTML and no link begins: labels come from files."""
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", _one_line(text))
    return text.replace("](", "]\\(")
