"""The end of a run: sentences computed from the records, and one table within 80 columns."""

from pathlib import Path

import pandas as pd
import pytest
from test_tables import record

from serplib.experiments import findings, records, render, report, summaries

COMMITTED = sorted(path.stem for path in records.results_folder().glob("*-*.json")
                   if "records" in records.read_json(path))  # fmt: skip


def told(*rows: tuple[str, list[float]]) -> list[str]:
    """Return the sentences about variants with an accuracy a seed, the first from scratch."""
    base = {"scratch": rows[0][0]}
    found = [record(name, seed, accuracy, **(base if name != rows[0][0] else {}))
             for name, accuracies in rows for seed, accuracy in enumerate(accuracies)]  # fmt: skip
    return findings.sentences(summaries.summarize(found))


def test_significant_gains_and_losses_are_named_with_their_size():
    (line,) = told(("base", [0.5, 0.5, 0.5]), ("up", [0.75, 0.725, 0.75]),
                   ("down", [0.25, 0.225, 0.25]), ("same", [0.55, 0.45, 0.5]))  # fmt: skip
    assert line == (
        "Fine-tuning, 3 seeds, significantly better than the same network from scratch: up "
        "(+24.17 points); worse than the same network from scratch: down (-25.83 points); no "
        "significant difference: 1 of 3."
    )


def test_at_most_three_are_named_largest_first():
    more = [(f"up-{i}", [0.6 + i / 20] * 3) for i in range(5)]
    (line,) = told(("base", [0.5] * 3), *more)
    assert "up-4 (+30.00 points), up-3 (+25.00), up-2 (+20.00) and 2 more." in line


@pytest.mark.parametrize(
    ("ours", "end"),
    [
        ([0.55, 0.45], "2 seeds: no significant difference from the same network from scratch (1 "),
        ([0.6], "scratch is +10.00 points (ours); one seed gives no interval."),
    ],
)  # fmt: skip
def test_too_little_is_said_to_be_too_little(ours, end):
    (line,) = told(("base", [0.5] * len(ours)), ("ours", ours))
    assert end in line


def test_without_a_baseline_the_highest_is_named():
    assert told(("only", [0.5])) == ["Fine-tuning: the highest accuracy is 50.00 % (only)."]


def restored(name: str, seed: int, ours: float, copy: float) -> dict:
    distances = {"restored": ours, "copy_input": copy, "resample": 0.1, "resample_points": 8,
                 "detection_auc": 0.5}  # fmt: skip
    one = record(name, seed, 0.0) | {"metrics": {"restoration": distances}, "data": {}}
    return one


def test_restoration_is_compared_with_copying_over_seeds():
    found = [restored("good", 0, 0.002, 0.004), restored("good", 1, 0.004, 0.004)]
    found += [restored("bad", seed, 0.008, 0.004) for seed in (0, 1)]
    summary = summaries.summarize(found)
    assert findings.sentences(summary) == [
        "Restoration better than copying the input: 1 of 2 autoencoders; the best is good with "
        "30.0 against 40.0 (Chamfer x 10,000)."
    ]
    frame, (note,) = findings.table(summary)
    assert frame.to_numpy().tolist() == [
        ["good", "2", "30.0", "40.0"],
        ["bad", "2", "80.0", "40.0"],
    ]
    assert "lower is better" in note


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ((0.97, 3.0), "No model here restores better than copying its input by 5% or more."),
        ((0.94, 3.0), "Only these restore better than copying the input by 5% or more: a."),
        ((0.94, 0.5), ""),
    ],
)
def test_a_note_asks_for_a_restoration_that_is_clearly_better(ratios, said):
    found = [restored(name, s, ratio, 1.0) for name, ratio in zip("ab", ratios) for s in (0, 1)]
    notes = [note for note in summaries.summarize(found).notes if "copying" in note]
    assert [note[: len(said)] for note in notes] == [said] * bool(said)


@pytest.mark.parametrize("name", COMMITTED)
def test_the_end_of_a_run_fits_eighty_columns_and_breaks_no_word(name):
    summary = summaries.summarize(records.read_suite(name)["records"])
    text = report.Report(Path("runs/x/report.html"), summary, []).closing(80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.endswith("\nReport: runs/x/report.html")
    assert 1 <= len(findings.sentences(summary)) <= 3
    frame, _ = findings.table(summary)
    words = set(text.split())
    for cell in frame["variant"]:
        assert set(cell.split()) <= words, cell
    for cell in frame.iloc[:, 1:].to_numpy().flatten():
        assert cell in text, cell


def test_a_table_is_as_wide_as_its_text_and_wraps_labels_only():
    frame = pd.DataFrame({"variant": ["one two three", "x"], "n": ["1", "22"]}, index=["g", "h"])
    assert render.to_narrow_text(frame, 13).splitlines() == [
        "variant    n", "", "g", "one two    1", "three", "", "h", "x          22",
    ]  # fmt: skip
    assert "one two three  1" in render.to_narrow_text(frame, 80)
