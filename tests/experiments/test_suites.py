"""Suites: planning, hashing, running with papermill, skipping, failing, resuming."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from typer.testing import CliRunner

from serplib import presets
from serplib.experiments import cli, records, report, runner, suites, workload

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
PROBE = {"notebook": "probe", "preset": "quick"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own, with the real experiment notebooks and a tiny suite."""
    root = tmp_path / "a {x} # 100% ü"  # papermill takes braces for templates
    shutil.copytree(ROOT / "notebooks" / "experiments", root / "notebooks" / "experiments")
    monkeypatch.setenv("SERP_ROOT", str(root))
    write_suite(root, TINY)
    return root


def write_suite(project: Path, content: object, name: str = "tiny") -> None:
    path = project / "notebooks" / "experiments" / "suites" / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def changed(**runs) -> dict:
    """TINY with some runs' entries replaced or extended."""
    content = json.loads(json.dumps(TINY))
    for name, more in runs.items():
        content["runs"].setdefault(name, {}).update(more)
    return content


SIGMA = "corruption.perturbation.sigma"


def swept(values: object, **runs) -> dict:
    """TINY with a grid of sigma on the pre-training."""
    return changed(pre={"grid": {SIGMA: values}}, **runs)


def test_plan_puts_seeds_outermost_and_parents_first(project):
    runs = suites.plan("tiny")
    assert [(r.seed, r.name) for r in runs] == [
        (s, n) for s in (0, 1) for n in ("pre", "scratch", "tuned")
    ]
    tuned = runs[2]
    assert tuned.parent is runs[0]
    assert runs[1].parent is None
    assert len({r.hash for r in runs}) == len({r.folder for r in runs}) == 6


def test_hash_follows_parameters_and_parents_but_not_labels(project):
    before = {r.name: r.hash for r in suites.plan("tiny", seeds=1)}
    write_suite(project, changed(tuned={"label": "another", "versus": ["scratch"], "margin": 2.0}))
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


def test_a_grid_makes_a_run_a_value_and_of_each_child_one_a_parent(project):
    plain = {r.name: r for r in suites.plan("tiny", seeds=1)}
    write_suite(project, swept([0.03, 0.1]))
    runs = {r.name: r for r in suites.plan("tiny", seeds=1)}
    assert list(runs) == [
        "pre-sigma-0_03", "pre-sigma-0_1", "scratch", "tuned-sigma-0_03", "tuned-sigma-0_1",
    ]  # fmt: skip
    for value in (0.03, 0.1):
        name = f"sigma-{value}".replace(".", "_")
        pre, tuned = runs[f"pre-{name}"], runs[f"tuned-{name}"]
        assert pre.parameters["changes"] == plain["pre"].parameters["changes"] | {SIGMA: value}
        assert tuned.parent is pre and tuned.parameters == plain["tuned"].parameters
        assert pre.about["label"] == f"SeRP <b>, sigma {value}"
        assert tuned.about["grid"] == {"of": "tuned", "values": {SIGMA: value}}
        assert tuned.about["scratch"] == "scratch"
    assert runs["scratch"].hash == plain["scratch"].hash
    assert len({r.hash for r in runs.values()}) == 5
    write_suite(project, changed(pre={"changes": {SIGMA: 0.03}}))
    alone = suites.plan("tiny", seeds=1)[0]
    assert alone.hash == runs["pre-sigma-0_03"].hash, "a finished run of the same value is taken"


def test_grids_of_several_settings_are_their_product(project):
    rates = {"finetune.optim.lr": [0.001, 0.01]}
    both = {SIGMA: [0.03, 0.1], "corruption.steps": [["noise"], ["affine", "drop"]]}
    write_suite(
        project, changed(pre={"grid": both}, scratch={"grid": rates}, tuned={"grid": rates})
    )
    runs = {r.name: r for r in suites.plan("tiny", seeds=1)}
    assert len(runs) == 4 + 2 + 8
    tuned = runs["tuned-sigma-0_1-steps-_affine_drop_-lr-0_01"]
    assert tuned.parent.name == "pre-sigma-0_1-steps-_affine_drop_"
    assert tuned.about["scratch"] == "scratch-lr-0_01", "the baseline with its own values"
    assert tuned.parameters["changes"]["finetune.optim.lr"] == 0.01
    assert SIGMA not in tuned.parameters["changes"]
    assert tuned.about["label"] == "tuned, sigma 0.1, steps ['affine', 'drop'], lr 0.01"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            changed(scratch={"labels_per_class": 99}),
            ["'scratch': labels_per_class is 99, but a class of objects has ", "train_shapes"],
        ),
        (
            changed(scratch={"valid_fraction": 0.5}),
            ["'scratch': valid_fraction is 0.5, but a class of objects has one labelled shape"],
        ),
        (
            changed(figure={"notebook": "figure4", "preset": "quick", "kinds": "unicorn ship"}),
            ["'figure': no test shape of objects is one of kinds 'unicorn ship'", "airplane, "],
        ),
        (
            changed(pre={"mixed_precision": "fp16"}),
            ["'pre': mixed_precision is 'fp16', which needs a GPU", "'bf16' or 'no'"],
        ),
    ],
)
def test_what_runs_need_is_checked_before_the_first(project, monkeypatch, content, words):
    monkeypatch.setattr(workload.torch.cuda, "is_available", lambda: False)
    write_suite(project, content)
    done = CliRunner().invoke(cli.app, ["run", "tiny", "--seeds", "1"])
    assert done.exit_code == 2 and len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr, done.stderr
    assert not list((project / "runs").rglob("notebook.ipynb"))


def test_classes_are_counted_without_reading_clouds(tmp_path, monkeypatch):
    for kind, count in {"ant": 3, "bee": 2}.items():
        (tmp_path / "mine" / kind / "train").mkdir(parents=True)
        for i in range(count):
            points = np.random.default_rng(i).normal(size=(64, 3))
            np.save(tmp_path / "mine" / kind / "train" / f"{i}.npy", points)
    monkeypatch.setenv("SERP_DATA", str(tmp_path))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("a cloud was read"))
    assert workload._class_sizes("mine", "train", None, 0) == {"ant": 3, "bee": 2}
    assert workload._class_sizes("mine", "train", 2, 0) == {"ant": 1, "bee": 1}
    assert set(workload._class_sizes("objects", "train", 60, 0).values()) == {2}
    assert sum(workload._class_sizes("objects", "test", 7, 0).values()) == 7


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
        (changed(x={"notebook": "probe"}), ["'x': no preset: give one of ['authors_code'"]),
        (changed(scratch={"notebook": "nothing"}), ["no notebook", "nothing"]),
        (changed(scratch={"notebook": "../00_welcome"}), ["no notebook"]),
        (changed(scratch={"parent": "tuned"}), ["parent", "tuned", "above"]),
        (
            changed(scratch={"train_shapes": "many"}),
            ["train_shapes is 'many': must be a valid integer"],
        ),
        (
            changed(scratch={"train_shapes": True}),
            ["train_shapes is True: must be a valid integer"],
        ),
        (
            changed(scratch={"valid_fraction": [0.1]}),
            ["valid_fraction is [0.1]: must be a valid number"],
        ),
        (
            changed(scratch={"train_shapes": -5}),
            ["'scratch'", "train_shapes is -5: must be greater"],
        ),
        (changed(scratch={"valid_fraction": 1.5}), ["valid_fraction is 1.5: must be less than 1"]),
        (changed(pre={"model": "pointnett"}), ["model is 'pointnett': must be 'pointnet', "]),
        (changed(pre={"mixed_precision": "fp8"}), ["mixed_precision is 'fp8'", "'bf16' or 'fp16'"]),
        (
            changed(q={"notebook": "probe", "heads": ["svmm"]}),
            ["heads is ['svmm']: item 0: must be"],
        ),
        (changed(tuned={"model": "transformer"}), ["'tuned'", "parent 'pre' trains another model"]),
        (
            changed(q=PROBE | {"model": "handmade", "parent": "pre"}),
            ["'q': model 'handmade' has no weights: it takes no parent"],
        ),
        (
            changed(q=PROBE | {"model": "point_nn", "readout": "layers"}),
            ["'q': model 'point_nn' has no layers: readout 'layers' needs them"],
        ),
        (changed(q=PROBE | {"svm": "all"}), ["svm is 'all': must be 'rest' or 'pairs'"]),
        (changed(tuned={"scratch": "none"}), ["'tuned'", "its scratch 'none' is not a run"]),
        (changed(scratch={"dataset": "procedural"}), ["procedural has no two classes, finetune"]),
        (changed(pre={"changes": None}), ["runs.pre.changes", "valid dictionary"]),
        (changed(pre={"changes": [1]}), ["runs.pre.changes", "valid dictionary"]),
        (changed(pre={"changes": {"pretrain_pointnet.lr": "1e-3"}}), ["1e-3", "write 1.0e-03"]),
        (changed(pre={"notebook": 3}), ["runs.pre.notebook", "valid string"]),
        (changed(pre={"label": 7}), ["runs.pre.label", "valid string"]),
        (changed(tuned={"versus": ["pre"]}), ["'tuned'", "versus needs a margin, in points"]),
        (changed(tuned={"versus": ["x"], "margin": 2.0}), ["versus names x: not in the suite"]),
        (changed(tuned={"margin": 0.0}), ["runs.tuned.margin", "greater than 0"]),
        (swept([]), ["runs.pre.grid", SIGMA, "at least 1 item"]),
        (swept(0.1), ["runs.pre.grid", SIGMA, "valid list"]),
        (swept([0.1, 0.1]), ["runs.pre.grid", "[0.1, 0.1] names a value twice"]),
        (swept(["much"]), ["'pre-sigma-much'", SIGMA, "'much'"]),
        (changed(pre={"grid": 3}), ["runs.pre.grid", "valid dictionary"]),
        (changed(pre={"grid": {}}), ["runs.pre.grid", "at least 1 item"]),
        (changed(pre={"grid": {"corruption.sigma": [1]}}), ["'pre-sigma-1'", "corruption.sigma"]),
        (swept([0.1], tuned={"grid": {SIGMA: [0.2]}}), ["'tuned'", SIGMA, "its parent's grid"]),
        (swept([0.1], **{"pre-sigma-0_1": TINY["runs"]["pre"]}), ["two runs 'pre-sigma-0_1'"]),
        (
            changed(scratch={"grid": {"finetune.optim.lr": [0.001, 0.01]}}),
            ["'tuned'", "its scratch 'scratch' has another grid"],
        ),
        ({"title": "x"}, ["seeds: Field required"]),
        (TINY | {"colour": "red"}, ["colour", "not permitted"]),
        (TINY | {"seeds": 3}, ["seeds", "valid list"]),
        (TINY | {"seeds": []}, ["seeds", "at least 1 item"]),
        (TINY | {"seeds": [0, 0]}, ["seeds", "[0, 0] names a value twice"]),
        (TINY | {"seeds": [0, "one"]}, ["seeds.1", "valid integer"]),
        (TINY | {"retries": -1}, ["retries", "greater than or equal to 0"]),
        (TINY | {"retries": "many"}, ["retries", "valid integer"]),
        (changed(pre={"processes": 0}), ["runs.pre.processes", "greater than or equal to 1"]),
        (changed(pre={"processes": "two"}), ["runs.pre.processes", "valid integer"]),
        (
            TINY | {"profiles": {"quick": {"pretrain": {"preset": "quick", "processes": -1}}}},
            ["profiles.quick.pretrain.processes", "greater than or equal to 1"],
        ),
        (TINY | {"runs": None}, ["runs", "valid dictionary"]),
        (TINY | {"runs": {}}, ["runs", "at least 1 item"]),
        (TINY | {"runs": ["pre"]}, ["runs", "valid dictionary"]),
        (TINY | {"runs": {"pre": None}}, ["runs.pre", "valid dictionary"]),
        (TINY | {"runs": {False: TINY["runs"]["pre"]}}, ["runs.", "[key]", "put text in quotes"]),
        (TINY | {"profiles": None}, ["profiles", "valid dictionary"]),
        (TINY | {"profiles": {}}, ["profiles", "at least 1 item"]),
        (TINY | {"profiles": {"quick": None}}, ["profiles.quick", "valid dictionary"]),
        ([1, 2], ["the file", "valid dictionary"]),
        (None, ["the file", "valid dictionary"]),
    ],
)
def test_a_wrong_suite_is_refused_with_its_fault(project, content, words):
    write_suite(project, content)
    with pytest.raises(suites.SuiteError) as caught:
        suites.plan("tiny")
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


WRONG_FILES = {
    "no UTF-8": (b"title: \xff\xfe", "not UTF-8"),
    "no YAML": (b"a: [", "not YAML"),
    "a mapping as a key": (b"? {a: 1}\n: 2\n", "not YAML"),
    "a loop": (
        b"title: x\nseeds: [0]\nprofiles: &p {quick: *p}\nruns: {a: {notebook: probe}}\n",
        "not YAML (maximum recursion",
    ),
    "two documents": (b"--- 1\n--- 2\n", "not YAML"),
    "empty": (b"", "the file"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_file_that_is_no_suite_exits_with_2_and_one_line(project, kind):
    content, message = WRONG_FILES[kind]
    (project / "notebooks/experiments/suites/tiny.yaml").write_bytes(content)
    done = CliRunner().invoke(cli.app, ["run", "tiny"])
    assert done.exit_code == 2 and message in done.stderr, done.output
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("serp: ")


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:9", "foo://x"])
def test_a_scheduler_that_does_not_answer_exits_with_2_and_deletes_nothing(
    project, address, monkeypatch
):
    kept = suites.plan("tiny")[0].folder / "checkpoint"
    kept.mkdir(parents=True)
    monkeypatch.setattr(runner, "CONNECT_SECONDS", 1)
    done = CliRunner().invoke(cli.app, ["run", "tiny", "--fresh", "--scheduler", address])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert address in line and "dask scheduler" in line and kept.exists()


def test_paths_from_outside_are_resolved_once(project, monkeypatch):
    """Kernels start in the project: what is relative here must be absolute there."""
    monkeypatch.chdir(project.parent)
    monkeypatch.setenv("SERP_ROOT", project.name)
    monkeypatch.setenv("SERP_DATA", "my data")
    seen = {}

    def execute(notebook, executed, **options):
        seen.update(os.environ, notebook=notebook, cwd=options["cwd"])

    monkeypatch.setattr("papermill.execute_notebook", execute)
    runner.execute_notebook("pretrain", project / "x.ipynb", {}, MARK="1")
    assert records.project_root() == project and seen["SERP_ROOT"] == str(project)
    assert seen["SERP_DATA"] == str(project.parent / "my data") and seen["cwd"] == str(project)
    assert seen["MARK"] == "1" and "MARK" not in os.environ
    assert seen["notebook"].format() == str(suites.experiments_folder() / "pretrain.ipynb")


def test_the_home_folder_may_be_given_as_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SERP_ROOT", "~/project")
    assert records.project_root() == tmp_path / "project"


def test_the_settings_of_kernels_leave_this_process_alone(project, monkeypatch):
    before, inside = dict(os.environ), {}

    def execute(*_, **__):
        inside.update(os.environ)
        raise OSError("stop here")

    monkeypatch.setattr("papermill.execute_notebook", execute)
    runner.run_one(suites.plan("tiny")[0], threads=3)
    assert dict(os.environ) == before
    assert inside["OMP_NUM_THREADS"] == "3" and inside["GOMP_SPINCOUNT"]
    assert runner.process_environment().items() <= inside.items()


def test_a_run_that_another_suite_has_finished_is_taken_from_it(project, monkeypatch):
    write_suite(project, changed(pre={"label": "its label"}), "other")
    ours, theirs = (suites.plan(name, seeds=1)[0] for name in ("tiny", "other"))
    assert ours.hash == theirs.hash and ours.folder != theirs.folder
    monkeypatch.setattr(runner, "execute_notebook", lambda *a, **k: pytest.fail("executed"))
    theirs.folder.mkdir(parents=True)
    (theirs.folder / "encoder.safetensors").write_bytes(b"weights")
    record = {"metrics": {"x": 1}, "run": {"suite": "other", "hash": "another"}}
    records.write_json(theirs.folder / "record.json", record)
    with pytest.raises(pytest.fail.Exception):  # another hash: not the same run
        runner.run_one(ours, 1)
    record["run"]["hash"] = theirs.hash
    records.write_json(theirs.folder / "record.json", record)
    with pytest.raises(pytest.fail.Exception):  # the user asked for a fresh run
        runner.run_one(ours, 1, share=False)
    assert runner.run_one(ours, 1)["state"] == "kept"
    taken = records.read_json(ours.folder / "record.json")
    assert taken["metrics"] == {"x": 1} and taken["run"]["suite"] == "tiny"
    assert taken["run"]["name"] == "pre" and taken["run"].get("label") != "its label"
    assert Path(ours.folder / "encoder.safetensors").read_bytes() == b"weights"


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
        [sys.executable, "-c", "from serplib.experiments.cli import app; app()", *words],
        capture_output=True, text=True, cwd=project, timeout=300,
        env={**os.environ, "SERP_ROOT": str(project), **env},
    )  # fmt: skip


def test_a_suite_that_cannot_be_used_does_not_hide_the_others(project):
    write_suite(project, {"title": "[b]", "runs": None}, "broken")
    done = serp(project, "run", "list")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "broken cannot be used: " in done.stdout and "tiny (quick)" in done.stdout


def test_serp_run_executes_reports_skips_and_goes_on_after_a_failure(project):
    """The whole line: a suite with one run that fails, then mended, then run again."""
    diverges = {"finetune.optim.lr": 1e30, "finetune.optim.batch_size": 8}
    write_suite(project, changed(tuned={"changes": diverges}))
    first = serp(project, "run", "tiny", "--seeds", "1", "--workers", "1")
    assert first.returncode == 1, first.stdout + first.stderr
    runs = {r.name: r for r in suites.plan("tiny", seeds=1)}
    assert runs["pre"].finished() and runs["scratch"].finished()
    assert not runs["tuned"].finished()
    assert "failed" in first.stdout + first.stderr
    executed = json.loads((runs["tuned"].folder / "notebook.ipynb").read_text())
    errors = [
        o for c in executed["cells"] for o in c.get("outputs", []) if o["output_type"] == "error"
    ]
    assert errors and errors[0]["ename"] == "FloatingPointError", errors

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
    assert "84.10" not in page, "the paper's figure stands beside ModelNet40 with all labels only"
    assert "http" not in page, "the page is self-contained"

    shown = json.loads((project / "runs" / "tiny-quick" / "report.ipynb").read_text())
    kinds = {k for c in shown["cells"] for o in c.get("outputs", []) for k in o.get("data", {})}
    assert {"text/markdown", "image/png"} <= kinds

    third = serp(project, "report", "tiny", "--seeds", "1", "--keep")
    assert third.returncode == 0, third.stderr
    assert len(records.read_suite("tiny-quick")["records"]) == 3


def test_what_the_terminal_cannot_show_is_replaced(project):
    write_suite(project, TINY | {"title": "Prüfung bei σ = 0,1"})
    done = serp(project, "run", "list", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "Pr?fung bei ? = 0,1" in done.stdout, done.stderr


def test_a_half_written_record_is_not_finished(project):
    run = suites.plan("tiny")[0]
    run.folder.mkdir(parents=True)
    (run.folder / "record.json").write_text('{"run": {"hash": "')
    assert not run.finished()
    (run.folder / "record.json").write_text(json.dumps({"run": {"hash": "another"}}))
    assert not run.finished()
    (run.folder / "record.json").write_text(json.dumps({"run": {"hash": run.hash}}))
    assert run.finished()


@pytest.mark.parametrize("content", ['{"run": {"hash": "', "[]", '{"run": null}', "{}"])
def test_a_run_with_a_damaged_record_is_executed_again(project, monkeypatch, content):
    run = suites.plan("tiny")[0]
    path = run.folder / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    whole = json.dumps({"run": {"hash": run.hash}})
    monkeypatch.setattr(runner, "execute_notebook", lambda *a, **v: path.write_text(whole))
    outcome = runner.run_one(run, 1)
    assert outcome["state"] == "done", outcome["message"]


def test_children_of_a_failed_run_are_not_run(project):
    run = suites.plan("tiny")[2]
    outcome = runner.run_one(run, 1, {"state": "failed"})
    assert outcome["state"] == "not run" and "pre" in outcome["message"]
    assert not run.folder.exists()


def test_a_failure_of_several_lines_is_told_with_its_remedy(project, monkeypatch):
    def refuse(*_, **__):
        raise OSError(f"1 bad shape\n{'path/' * 100}\nDelete it: 'serp data check mine --skip-bad'")

    monkeypatch.setattr(runner, "execute_notebook", refuse)
    message = runner.run_one(suites.plan("tiny")[0], 1)["message"]
    assert message.startswith("OSError: 1 bad shape path/") and "\n" not in message
    assert message.endswith("--skip-bad'") and len(message) <= 300


def test_the_trace_of_a_failed_cell_is_its_end_without_colours(project, monkeypatch):
    lines = ["\x1b[31mline 1\x1b[0m"] * 20 + ["ValueError: bad"]
    error = PapermillExecutionError(2, 1, "pipelines.probe()", "ValueError", "bad", lines)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(runner, "execute_notebook", fail)
    outcome = runner.run_one(suites.plan("tiny")[0], 1)
    assert outcome["message"] == "ValueError: bad"
    assert outcome["trace"].splitlines() == ["line 1"] * 11 + ["ValueError: bad"]


def test_a_killed_kernel_is_told_with_its_likely_cause(project, monkeypatch):
    def die(*_, **__):
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(runner, "execute_notebook", die)
    message = runner.run_one(suites.plan("tiny")[0], 1)["message"]
    assert message.startswith("DeadKernelError: Kernel died (killed, often for lack of memory)")


def test_a_runs_folder_that_cannot_be_written_is_one_line(project, monkeypatch):
    (project / "runs").write_text("a file")
    done = CliRunner().invoke(cli.app, ["run", "tiny"])
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1, done.output
    (project / "runs").unlink()
    monkeypatch.setattr("os.access", lambda *_: False)
    done = CliRunner().invoke(cli.app, ["run", "tiny"])
    assert done.exit_code == 2 and done.stderr.endswith("tiny-quick is not writable\n")


def test_a_disk_that_is_full_at_the_report_is_one_line_with_the_remedy(project, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "report.md")

    monkeypatch.setattr(runner, "execute", lambda *_, **__: [])
    monkeypatch.setattr(report, "write", full)
    done = CliRunner().invoke(cli.app, ["run", "tiny"])
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 2 and "No space left on device: 'report.md'; free some space" in line


def test_a_missing_kernel_fails_the_run_and_not_the_suite(project, monkeypatch):
    import papermill

    def refuse(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(papermill, "execute_notebook", refuse)
    run = replace(suites.plan("tiny")[0])
    outcome = runner.run_one(run, 1)
    assert outcome["state"] == "failed" and "No space left" in outcome["message"]
