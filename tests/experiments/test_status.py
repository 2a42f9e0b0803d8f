"""The status page of a suite: states, epochs, time left, and the error of a failed cell."""

import re
import shutil
import time
from pathlib import Path

import pytest
import torch

from serplib import checkpoint
from serplib.experiments import records, status, suites

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "notebooks" / "experiments", tmp_path / "notebooks" / "experiments")
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    return suites.plan("quick", "quick", 1)[:5]


def start(run: suites.Run, *losses: float) -> None:
    """Leave what a run leaves that papermill has started and that has ended some epochs."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "notebook.ipynb").write_text("{}")
    if losses:
        history = [{"epoch": i + 1, "valid_total": loss} for i, loss in enumerate(losses)]
        weights = {"model": {"w": torch.ones(1)}}
        checkpoint.save(run.folder / "checkpoint", len(losses), weights, {"history": history})


def outcome(run: suites.Run, state: str, message: str = "") -> dict:
    return {"name": run.name, "seed": run.seed, "state": state, "seconds": 9.0,
            "message": message, "notebook": str(run.folder / "notebook.ipynb")}  # fmt: skip


def finish(run: suites.Run) -> dict:
    record = {"run": {"hash": run.hash}, "history": [{"train_loss": 0.25}], "seconds": 60.0}
    records.write_json(run.folder / "record.json", record)
    return outcome(run, "done")


def shown(runs: list[suites.Run]) -> str:
    return (runs[0].folder.parent / "status.html").read_text(encoding="utf-8")


def cells(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(<td>.*?)</tr>", page)
    return [[re.sub("<.*?>", "", c) for c in re.findall("<td>(.*?)</td>", row)] for row in rows]


def test_states_epochs_and_losses_are_shown(runs):
    start(runs[1], 0.9)  # interrupted yesterday: not running until papermill writes again
    board = status.Board(runs)
    start(runs[0], 0.5, 0.25)
    board.ended(finish(runs[2]))
    board.write()
    page = shown(runs)
    assert [row[1] for row in cells(page)] == ["running", "waiting", "done", "waiting", "waiting"]
    assert cells(page)[0][2:4] == ["2 of 3", "0.25 "] and "<polyline" in page
    assert cells(page)[2][3:5] == ["0.25 ", "1 min"]
    assert "1 of 5 runs ended, 1 running; time left unknown" in page
    assert 'http-equiv="refresh"' in page and 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page and not re.search("src=|https?://", page)


def test_time_left_follows_the_epochs_and_the_runs_alike(runs):
    board = status.Board(runs[:2])
    start(runs[0], 0.5)
    board.rows()
    board.first[runs[0].hash] = (time.monotonic() - 60, 0)  # an epoch a minute, two to come
    first, second = board.rows()
    assert first["left"] == pytest.approx(120, abs=2) and second["left"] == pytest.approx(
        180, abs=2
    )
    assert "about 5 min left" in board.to_html(True)
    board.ended(finish(runs[0]))
    assert [row["left"] for row in board.rows()] == [0.0, 60.0]


def test_a_line_says_what_runs_now_and_what_is_left(runs):
    board = status.Board(runs[:2])
    assert board.progress() == ""
    start(runs[0], 0.5, 0.25)
    assert board.progress() == f"{runs[0].name} seed 0 epoch 2/3 loss 0.25, time left unknown"
    board.first[runs[0].hash] = (time.monotonic() - 60, 1)  # an epoch a minute, one to come
    assert re.fullmatch(r".* epoch 2/3 loss 0.25, 3 min left", board.progress())
    lines = []
    with status.watching(runs[:2], print, lines.append, seconds=0.02):
        start(runs[1], 0.5)
        deadline = time.monotonic() + 20
        while not any("epoch 1/3" in line for line in lines) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert any(line.startswith(f"{runs[1].name} seed 0 epoch 1/3 loss 0.5") for line in lines)
    assert max(map(len, lines)) < 70  # with the count and the time in a line of 80


@pytest.mark.parametrize(("restored", "better"), [(0.05, True), (0.15, False)])
def test_the_first_good_restoration_is_shown(runs, restored, better):
    board = status.Board(runs)
    made = finish(runs[0])
    assert status.restored_line(made) == "" and status.restored_line({"notebook": ""}) == ""
    record = records.read_json(runs[0].folder / "record.json")
    record["metrics"] = {"restoration": {"restored": restored, "copy_input": 0.1}}
    records.write_json(runs[0].folder / "record.json", record)
    (runs[0].folder / "figure.png").write_bytes(b"picture")
    board.ended(made)
    assert ('src="data:image/png;base64,cGljdHVyZQ=="' in board.to_html(True)) == better
    assert status.restored_line(made) == (
        f"{runs[0].name} seed 0 restores to {1e4 * restored:.1f}, copies are 1000.0 "
        "(Chamfer x 10,000)"
    )


def test_the_error_of_a_failed_cell_is_shown_as_text(runs):
    board = status.Board(runs)
    start(runs[0], 0.5)
    failed = outcome(runs[0], "failed", "DataError: <b> no labels")
    board.ended(failed | {"trace": "line 1\nDataError: <b> no labels"})
    board.ended(outcome(runs[1], "not run", "its parent pre failed"))
    died = outcome(runs[2], "failed", "the worker died")
    board.ended(died | {"name": f"{runs[2].name}-{runs[2].hash}", "seed": None, "notebook": ""})
    board.write(running=False)
    page = shown(runs)
    assert "line 1\nDataError: &lt;b&gt; no labels" in page and "<b>" not in page
    assert "its parent pre failed" in page and "the worker died" in page
    assert "3 of 5 runs ended, 2 failed; the command has ended" in page
    assert 'http-equiv="refresh"' not in page


def test_the_page_follows_a_suite_and_ends_with_it(runs):
    told = []
    with status.watching(runs, told.append, seconds=0.05) as ended:
        assert "0 of 5 runs ended" in shown(runs)
        start(runs[0], 0.5)
        ended(finish(runs[2]))
        deadline = time.monotonic() + 20
        while "1 of 5 runs ended, 1 running" not in shown(runs) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "1 of 5 runs ended, 1 running" in shown(runs)
    assert [one["name"] for one in told] == [runs[2].name]
    assert cells(shown(runs))[0][1] == "stopped"


def test_a_page_that_cannot_be_written_does_not_stop_the_suite(runs, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(status.os, "replace", full)
    with status.watching(runs, print, seconds=0.05):
        pass


@pytest.mark.parametrize(("seconds", "text"), [(9.6, "10 s"), (90, "2 min"), (12000, "3 h 20 min")])
def test_durations_are_short(seconds, text):
    assert status.duration(seconds) == text
