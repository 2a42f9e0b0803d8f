"""The leaderboard: minutes of chains of runs, who belongs there, and pages that follow records."""

import pandas as pd
import pytest
from PIL import Image

from serplib.experiments import cost, records, report

ROOT = records.project_root()
PAGE, PICTURE = (
    ROOT / "notebooks/site/leaderboard.md",
    ROOT / "notebooks/figures/cost.png",
)


def record(name, seed=0, minutes=1.0, accuracy=0.9, parent=None, **more):
    about = {"suite": "a", "profile": "p", "name": name, "hash": f"{name}{seed}", "parent": parent}
    found = {
        "run": about,
        "parameters": {"seed": seed, "model": "transformer", "pretrained": bool(parent)},
        "metrics": {"test": {"accuracy": accuracy}},
        "data": {"test": {"name": "modelnet40", "num_shapes": 2468}},
        "seconds": 60 * minutes,
        "finished": f"2026-11-0{seed + 1}T12:00:00+00:00",
        "environment": {"device": "CPU (x)", "threads": 1, "git": {"revision": "f" * 40}},
    }
    return found | more


@pytest.fixture
def committed(monkeypatch, tmp_path):
    """Write suites of records where the committed ones are read."""
    monkeypatch.setattr(records, "results_folder", lambda: tmp_path)

    def write(**suites):
        for name, found in suites.items():
            records.write_json(tmp_path / f"{name}.json", {"suite": name, "records": found})
        return cost.entries().set_index("label")

    return write


def test_a_chain_counts_its_pretraining_and_its_threads(committed):
    parent = record("pre", minutes=10, data={}, metrics={})
    two = record("two", minutes=3)
    two["environment"] |= {"threads": 2}
    found = committed(a=[parent, record("tuned", minutes=2, parent="pre0"), two])
    assert found["minutes"].to_dict() == {"two": 6.0, "tuned": 12.0}
    assert found["kind"].to_dict() == {"two": "from scratch", "tuned": cost.KINDS[3]}
    assert found.loc["two", "sd"] != found.loc["two", "sd"] and found.date["two"] == "2026-11-01"


def test_seeds_are_averaged_and_runs_of_two_suites_are_listed_once(committed):
    seeds = [record("x", s, minutes=1 + 4 * s * s, accuracy=0.8 + s / 20) for s in (0, 1, 2)]
    found = committed(a=seeds, b=seeds[:1])
    assert len(found) == 1 and found.file["x"] == "a.json" and found.seeds["x"] == 3
    assert found["minutes"]["x"] == 5.0, "the median: other programs may slow a run"
    assert found["mean"]["x"] == pytest.approx(85)


def test_fine_tunings_of_one_size_count_the_same_minutes(committed):
    """Scratch on a busy machine is not slower than the same training of a pre-trained network."""
    size = {"history": [{"epoch": 1}], "millions_of_parameters": 0.5}
    pre = record("pre", minutes=10, data={}, metrics={})
    rows = [record("scratch", minutes=9, **size), record("tuned", minutes=3, parent="pre0", **size),
            record("longer", minutes=1, **size | {"history": 2 * size["history"]})]  # fmt: skip
    found = committed(a=[pre, *rows], b=rows[:1])
    assert found["minutes"].to_dict() == {"longer": 1, "scratch": 6, "tuned": 16}
    assert found["slowest"].max() == 1


def test_what_is_not_comparable_is_left_out(committed):
    other, part, gpu, robust, orphan = (record(n) for n in ("other", "part", "gpu", "r", "orphan"))
    other["data"] = {"test": {"name": "objects", "num_shapes": 2468}}
    part["data"] = {"test": {"name": "modelnet40", "num_shapes": 600}}
    gpu["environment"] |= {"device": "NVIDIA H200"}
    robust["metrics"] |= {"robustness": {}}
    orphan["run"] |= {"parent": "nowhere"}
    again = {"a-repeat": [record("y", minutes=0.1)]}
    kept = committed(a=[record("x"), other, part, gpu, robust, orphan], **again)
    assert list(kept.index) == ["x"]


def test_probes_count_by_their_svm_or_else_their_memory_bank(committed):
    both = {"svm_accuracy": 0.8, "memory_accuracy": 0.7}
    found = committed(a=[record("svm", metrics={"probes": both}),
                         record("bank", metrics={"probes": {"memory_accuracy": 0.7}}),
                         record("knn", metrics={"probes": {"knn_accuracy": 0.7}})])  # fmt: skip
    assert found["mean"].to_dict() == pytest.approx({"svm": 80, "bank": 70})
    assert set(found["kind"]) == {"no training"}


def test_each_goal_lists_the_fastest_first(committed):
    names = {"slow": (9, 0.9), "weak": (1, 0.81), "fast": (2, 0.89)}
    committed(a=[record(name, minutes=m, accuracy=a) for name, (m, a) in names.items()])
    tables = cost.leaderboard().split("**")
    rows = {goal: [line.split(" | ")[0][2:] for line in table.splitlines()
                   if line.startswith("| ") and "---" not in line][1:]
            for goal, table in zip(tables[1::2], tables[2::2])}  # fmt: skip
    assert rows == {"80 %": ["weak", "fast", "slow"], "85 %": ["fast", "slow"],
                    "88 %": ["fast", "slow"], "89 %": ["fast", "slow"],
                    "90 %": ["slow"]}  # fmt: skip
    assert "To 80 %: Transformer from scratch: weak, 1.0 minutes. To 85 %: " in tables[0]
    committed(a=[record("weak", minutes=1, accuracy=0.81)])
    assert cost.leaderboard().split("**")[1::2] == ["80 %"]  # goals that none reaches are left out


def test_the_page_says_how_much_equal_runs_differ(committed):
    """Two seeds of 2 and 7 minutes; one that took no time has no ratio."""
    found = committed(a=[record("x", 0, minutes=2), record("x", 1, minutes=7),
                         record("y", minutes=0), record("z", 0, minutes=6),
                         record("z", 1, minutes=9)])  # fmt: skip
    assert found["slowest"]["x"] == 3.5 and found["slowest"]["y"] != found["slowest"]["y"]
    assert "differ by up to a factor of 3.5, and by 1.5 where" in cost.leaderboard()


def test_the_page_and_its_figure_are_those_of_the_records():
    page = PAGE.read_text(encoding="utf-8")
    assert report.renew(page) == page, "the leaderboard is stale: make results"
    with Image.open(PICTURE) as picture:
        assert picture.text["Description"] == cost.digest(cost.entries()), "stale: make results"
        assert min(picture.size) > 400
    assert f"]({PICTURE.relative_to(PAGE.parents[1])}".replace("](", "](../") in page


def test_the_figure_draws_every_variant(tmp_path):
    found = cost.entries()
    cost.draw(tmp_path / "cost.png")
    assert len(found) > 40 and isinstance(found, pd.DataFrame)
    with Image.open(tmp_path / "cost.png") as picture:
        assert picture.text["Description"] == cost.digest(found)
    changed = found.assign(minutes=found["minutes"] + 1)
    assert cost.digest(changed) != cost.digest(found)
