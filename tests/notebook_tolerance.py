"""Compare the numbers of notebook outputs within a tolerance: a small extension of nbval.

nbval compares text outputs letter by letter. Here decimal numbers may differ by 1 % of the stored
number, or by one unit of its last printed digit, since rounding may fall to either side. A cell's
tag such as ``tolerance:5%`` states another tolerance, and applies it to whole numbers, too; without
a tag whole numbers must be equal. Words, signs, the count of numbers and the count of outputs
are compared exactly.

nbval also gives the last output of a cell five seconds to arrive; a busy machine may need more.

Load it with ``python -m pytest -p tests.notebook_tolerance --nbval ...``.
"""

from __future__ import annotations

import copy
import re

DEFAULT = 0.01
WAIT = 60  # seconds for the last output, after the end of a cell
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])", re.IGNORECASE)
TAG = re.compile(r"tolerance:(\d+(?:\.\d+)?)%")


def tolerance_of(tags: list[str]) -> float | None:
    """Return the tolerance that a cell's tags state, as a fraction; None without such a tag.

    Raises:
        ValueError: a tag that begins like a tolerance and is none.
    """
    for tag in tags:
        if tag.startswith("tolerance"):
            stated = TAG.fullmatch(tag)
            if not stated:
                raise ValueError(f"tag is {tag!r}, wanted for example 'tolerance:5%'")
            return float(stated[1]) / 100
    return None


def near(stored: str, new: str, tolerance: float | None = None) -> bool:
    """Return whether two printed numbers agree; ``tolerance`` None is the rule without a tag."""
    if stored == new:
        return True
    whole = not any(mark in stored.lower() for mark in ".e")
    if whole and tolerance is None:
        return False
    a, b = (float(text.replace(",", "")) for text in (stored, new))
    mantissa, _, exponent = stored.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    last_digit = 10.0 ** (int(exponent or 0) - decimals)
    allowed = max(
        (DEFAULT if tolerance is None else tolerance) * abs(a), 0 if whole else last_digit
    )
    return abs(a - b) <= allowed * (1 + 1e-9)


def same_text(stored: str, new: str, tolerance: float | None = None) -> bool:
    """Return whether two texts have the same words, and numbers that agree one by one.

    Runs of blanks count as one: a number of another length moves the columns of a table.
    """
    words = [re.sub(r"[ \t]+", " ", NUMBER.sub("#", text)) for text in (stored, new)]
    numbers = [NUMBER.findall(text) for text in (stored, new)]
    return words[0] == words[1] and all(near(a, b, tolerance) for a, b in zip(*numbers))


def adopt(test: list, ref: list, tolerance: float | None) -> list:
    """Return the new outputs; texts that agree with the stored ones are replaced by these."""
    test = copy.deepcopy(test)
    for new, stored in zip(test, ref):
        for holder, kept, key in (
            (new, stored, "text"),
            (new.get("data", {}), stored.get("data", {}), "text/plain"),
        ):
            a, b = kept.get(key), holder.get(key)
            if isinstance(a, str) and isinstance(b, str) and same_text(a, b, tolerance):
                holder[key] = a
    return test


def pytest_configure(config) -> None:
    """Put `adopt` before nbval's own comparison, and lengthen its wait for outputs."""
    from nbval import plugin

    exact = plugin.IPyNbCell.compare_outputs
    if getattr(exact, "within_tolerance", False):
        return

    def compare_outputs(self, test, ref, skip_compare=None):
        tolerance = tolerance_of(self.cell.metadata.get("tags", []))
        return exact(self, adopt(test, ref, tolerance), ref, skip_compare)

    compare_outputs.within_tolerance = True
    plugin.IPyNbCell.compare_outputs = compare_outputs
    plugin.IPyNbCell.output_timeout = property(lambda self: WAIT, lambda self, value: None)
