"""Suites: planning, hashing, running with papermill, skipping, failing, resuming."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from serplib import presets
from serplib.experiments import records, runner, suites

ROOT = Path(__file__).parents[2]

TINY = {
    "title": "a tiny line",
    "seeds": [0, 1],
    "profiles": {
        "quick": {
            "pretrain": {"preset": "quick", "train_shapes": 32, "valid_shapes": 4,
                         "changes": {"pretrain_pointnet.epochs": 1,
                                     "pretrain_pointnet.batch_size": 8}},
            "finetune": {"preset": "quick", "train_shapes": 48, "test_shapes": 30,
                         "changes": {"finetune.optim.epochs": 1}},
        }
    },
    "runs": {
        "pre": {"notebook": "pretrain", "model": "pointnet", "label": "SeRP <b>"},
        "scratch": {"notebook": "finetune", "model": "pointnet", "valid_fraction": 0.0,
                    "label": "scratch", "published": "table2/scratch"},
        "tuned": {"notebook": "finetune", "model": "pointnet", "valid_fraction": 0.0,
                  "parent": "pre", "scratch": "scratch", "label": "tuned",
                  "published": "table2/delta"},
    },
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own, with the real experiment notebooks and a tiny suite."""
    shutil.copytree(ROOT / "notebooks" / "experiments", tmp_path / "notebooks" / "experiments")
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    write_suite(tmp_path, TINY)
    return tmp_path


def write_suite(project: Path, content: object, name: str = "tiny") -> None:
    path = project / "notebooks" / "experiments" / "suites" / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def changed(**runs) -> dict:
    """TINY with some runs' entries replaced or extended."""
    content = json.loads(json.dumps(TINY))
    for name, more in runs.items():
        content["runs"].setdefault(name, {}).update(more)
    return content


def test_plan_puts_seeds_outermost_and_parents_first(project):
    runs = suites.plan("tiny")
    assert [(r.seed, r.name) for r in runs] == [
        (s, n) for s in (0, 1) for n in ("pre", "scratch", "tuned")
    ]
    tuned = runs[2]
    assert tuned.parent is runs[0]
    assert tuned.encoder == str(runs[0].folder / "encoder.safetensors")
    assert runs[1].encoder == ""
    assert len({r.hash for r in runs}) == len({r.folder for r in runs}) == 6


def test_hash_follows_parameters_and_parents_but_not_labels(project):
    before = {r.name: r.hash for r in suites.plan("tiny", seeds=1)}
    write_suite(project, changed(tuned={"label": "another"}))
    assert {r.name: r.hash for r in suites.plan("tiny", seeds=1)} == before
    write_suite(project, changed(pre={"changes": {"corruption.perturbation.sigma": 0.1}}))
    after = {r.name: r.hash for r in suites.plan("tiny", seeds=1)}
    assert after["scratch"] == before["scratch"]
    assert after["pre"] != before["pre"] and after["tuned"] != before["tuned"]


def test_hash_follows_what_the_preset_says(project, monkeypatch):
    before = {r.name: r.hash for r in suites.plan("tiny", seeds=1)}
    sharper = presets.build("quick", {"pointnet.alpha_cls": 0.5})
    monkeypatch.setitem(presets.PRESETS, "quick", sharper)
    after = {r.name: r.hash for r in suites.plan("tiny", seeds=1)}
    assert all(after[name] != before[name] for name in before)


def test_changes_of_a_run_join_those_of_the_profile(project):
    write_suite(project, changed(pre={"changes": {"corruption.perturbation.sigma": 0.1}}))
    assert suites.plan("tiny")[0].parameters["changes"] == {
        "pretrain_pointnet.epochs": 1,
        "pretrain_pointnet.batch_size": 8,
        "corruption.perturbation.sigma": 0.1,
    }


def test_seeds_may_be_fewer_or_more(project):
    assert {r.seed for r in suites.plan("tiny", seeds=1)} == {0}
    assert {r.seed for r in suites.plan("tiny", seeds=4)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            changed(scratch={"learning_rat": 1}),
            ["unknown parameters", "learning_rat", "labels_per"],
        ),
        (changed(pre={"changes": {"finetune.optim.epoch": 1}}), ["'pre'", "finetune.optim.epoch"]),
        (changed(pre={"preset": "large"}), ["'pre'", "large", "authors_code"]),
        (changed(scratch={"notebook": "nothing"}), ["no notebook", "nothing"]),
        (changed(scratch={"notebook": "../00_welcome"}), ["no notebook"]),
        (changed(scratch={"parent": "tuned"}), ["parent", "tuned", "above"]),
        ({"title": "x"}, ["lacks", "seeds", "profiles", "runs"]),
        ([1, 2], ["lacks"]),
    ],
)
def test_a_wrong_suite_is_refused_with_its_fault(project, content, words):
    write_suite(project, content)
    with pytest.raises(suites.SuiteError) as caught:
        suites.plan("tiny")
    for word in words:
        assert word in str(caught.value)


def test_unknown_suite_profile_and_yaml(project):
    with pytest.raises(suites.SuiteError, match="tiny"):
        suites.plan("no-such")
    with pytest.raises(suites.SuiteError, match="quick"):
        suites.plan("tiny", "full")
    with pytest.raises(suites.SuiteError, match="seeds"):
        suites.plan("tiny", seeds=0)
    (project / "notebooks/experiments/suites/tiny.yaml").write_text("a: [")
    with pytest.raises(suites.SuiteError, match="not YAML"):
        suites.plan("tiny")


def test_every_suite_of_the_project_can_be_planned():
    names = suites.known_suites()
    assert {"quick", "modelnet40-smoke"} <= set(names)
    for name in names:
        for profile in suites.load(name)["profiles"]:
            assert suites.plan(name, profile)


def serp(project: Path, *words: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", "from serplib.experiments.cli import main; main()", *words],
        capture_output=True, text=True, cwd=project, timeout=300,
        env={**os.environ, "SERP_ROOT": str(project), **env},
    )  # fmt: skip


def test_serp_run_executes_reports_skips_and_goes_on_after_a_failure(project):
    """The whole line: a suite with one run that fails, then mended, then run again."""
    write_suite(project, changed(tuned={"labels_per_class": 1000}))
    first = serp(project, "run", "tiny", "--seeds", "1")
    assert first.returncode == 1, first.stdout + first.stderr
    runs = {r.name: r for r in suites.plan("tiny", seeds=1)}
    assert runs["pre"].finished() and runs["scratch"].finished()
    assert not runs["tuned"].finished()
    assert "failed" in first.stdout + first.stderr
    executed = json.loads((runs["tuned"].folder / "notebook.ipynb").read_text())
    errors = [
        o for c in executed["cells"] for o in c.get("outputs", []) if o["output_type"] == "error"
    ]
    assert errors and errors[0]["ename"] == "DataError" and "1000 wanted" in errors[0]["evalue"]

    kept = (runs["pre"].folder / "record.json").stat().st_mtime_ns
    write_suite(project, TINY)
    second = serp(project, "run", "tiny", "--seeds", "1")
    assert second.returncode == 0, second.stdout + second.stderr
    assert (runs["pre"].folder / "record.json").stat().st_mtime_ns == kept
    assert "2 finished before" in second.stdout
    assert "report.html" in second.stdout

    runs = suites.plan("tiny", seeds=1)
    found = suites.gather_records(runs)
    assert [r["run"]["name"] for r in found] == ["pre", "scratch", "tuned"]
    tuned = found[2]
    assert tuned["parameters"]["pretrained"] and not found[1]["parameters"]["pretrained"]
    assert tuned["metrics"]["test"]["num_shapes"] == 30
    assert len(records.unpack_bits(tuned["metrics"]["test"]["correct"])) == 30
    assert tuned["environment"]["packages"]["torch"]
    assert tuned["data"]["train"]["checksum"] != tuned["data"]["test"]["checksum"]
    assert {"restored", "copy_input", "resample"} <= set(found[0]["metrics"]["restoration"])

    page = (project / "runs" / "tiny-quick" / "report.html").read_text()
    assert "SeRP &lt;b&gt;" in page and "<b>" not in page, "labels are escaped"
    assert "84.10" in page and "87.24" in page, "the paper's figure, and corrected"
    assert "http" not in page, "the page is self-contained"

    shown = json.loads((project / "runs" / "tiny-quick" / "report.ipynb").read_text())
    kinds = {k for c in shown["cells"] for o in c.get("outputs", []) for k in o.get("data", {})}
    assert {"text/markdown", "image/png"} <= kinds

    third = serp(project, "report", "tiny", "--seeds", "1", "--keep")
    assert third.returncode == 0, third.stderr
    assert len(records.read_suite("tiny-quick")["records"]) == 3


def test_a_half_written_record_is_not_finished(project):
    run = suites.plan("tiny")[0]
    run.folder.mkdir(parents=True)
    (run.folder / "record.json").write_text('{"run": {"hash": "')
    assert not run.finished()
    (run.folder / "record.json").write_text(json.dumps({"run": {"hash": "another"}}))
    assert not run.finished()
    (run.folder / "record.json").write_text(json.dumps({"run": {"hash": run.hash}}))
    assert run.finished()


def test_children_of_a_failed_run_are_not_run(project):
    run = suites.plan("tiny")[2]
    outcome = runner.run_one(run, 1, {"state": "failed"})
    assert outcome["state"] == "not run" and "pre" in outcome["message"]
    assert not run.folder.exists()


def test_a_missing_kernel_fails_the_run_and_not_the_suite(project, monkeypatch):
    import papermill

    def refuse(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(papermill, "execute_notebook", refuse)
    run = replace(suites.plan("tiny")[0])
    outcome = runner.run_one(run, 1)
    assert outcome["state"] == "failed" and "No space left" in outcome["message"]
