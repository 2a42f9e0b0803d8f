"""`serp run --smoke`: every run of a plan, small, apart from real records."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from serplib import presets
from serplib.data import BUILT_IN
from serplib.experiments import cli, pipelines, records, runner, smoke, suites

ROOT = Path(__file__).parents[2]
PLANS = [(name, profile) for name in suites.known_suites()
         for profile in suites.load(name)["profiles"]]  # fmt: skip


def copy_project(folder: Path) -> Path:
    shutil.copytree(ROOT / "notebooks" / "experiments", folder / "notebooks" / "experiments")
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("SERP_ROOT", str(copy_project(tmp_path / "project")))
    monkeypatch.setenv("SERP_DATA", str(tmp_path))  # no published set
    return tmp_path / "project"


@pytest.fixture(scope="module")
def shared_project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("shared"))


def by_name(suite: str, profile: str, **options) -> dict[str, suites.Run]:
    return {run.name: run for run in suites.plan(suite, profile, 1, **options)}


@pytest.mark.parametrize(("suite", "profile"), PLANS)
def test_every_run_is_small_and_apart_from_the_real_ones(project, suite, profile):
    real, small = by_name(suite, profile), by_name(suite, profile, smoke=True)
    assert list(small) == list(real)
    assert not {r.hash for r in real.values()} & {r.hash for r in small.values()}
    for name, run in small.items():
        settings = presets.build(run.parameters["preset"], run.parameters["changes"])
        assert settings.finetune.optim.epochs == settings.pretrain_transformer.epochs == 2
        assert asdict(settings.transformer) == asdict(
            presets.build(real[name].parameters["preset"], real[name].parameters["changes"])
            .transformer
        ), "the model keeps its size"  # fmt: skip
        assert run.folder.parent.name == f"{suite}-{profile}-smoke"
        given = real[name].parameters
        built_in = given["dataset"] if given["dataset"] in BUILT_IN else "objects"
        assert run.parameters.get("dataset", "objects") == built_in
        absent = given.get("test_dataset") or given["dataset"]
        assert run.about["absent"] == ([] if absent in BUILT_IN else ["modelnet40"])


def test_a_small_real_run_does_not_take_the_record_of_a_smoke_run(project, monkeypatch):
    """Even if its parameters are the same."""
    small = by_name("quick", "quick", smoke=True)["few-pointnet-scratch"]
    entry = {"notebook": small.notebook, **small.parameters}
    content = {"title": "x", "seeds": [0], "profiles": {"quick": {}}, "runs": {"same": entry}}
    del content["runs"]["same"]["seed"]
    path = project / "notebooks" / "experiments" / "suites" / "same.yaml"
    path.write_text(yaml.safe_dump(content))
    real = by_name("same", "quick")["same"]
    assert real.parameters == small.parameters and real.hash != small.hash
    records.write_json(small.folder / "record.json", {"run": {"hash": small.hash}})
    monkeypatch.setattr(runner, "execute_notebook", lambda *a, **k: None)
    assert small.finished() and not real.finished()
    assert runner.run_one(real, 1)["state"] == "failed", "nothing was written, nothing taken"


def test_a_published_set_that_is_here_is_used(project, monkeypatch):
    monkeypatch.setattr(smoke, "_is_here", lambda name: True)
    runs = by_name("fewshot", "full", smoke=True)
    keys = ("dataset", "train_shapes", "labels_per_class")
    shapes = {name: tuple(map(run.parameters.get, keys)) for name, run in runs.items()}
    assert shapes["pretrain-serp"] == ("modelnet40", 8, None)
    assert shapes["probe-serp"] == shapes["thirty-serp"] == ("modelnet40", 0, 2)
    assert shapes["one-serp"] == ("modelnet40", 0, 1)


def test_an_own_set_with_few_shapes_gives_all_it_has():
    accepted = dict.fromkeys(("train_shapes", "valid_shapes", "test_shapes"), "int")
    given = {"dataset": "mine", "changes": {}, "train_shapes": 0, "valid_shapes": 1}
    own = {"train": 6, "test": 3, "labels_per_class": 1}
    small, absent = smoke.shrink(given, accepted, own)
    assert not absent and small["dataset"] == "mine"
    assert [small[f"{kind}_shapes"] for kind in ("train", "valid", "test")] == [0, 1, 0]
    labelled = {"train_shapes": "int", "labels_per_class": "int"}
    assert smoke.shrink(given, labelled, own)[0]["labels_per_class"] == 1


@pytest.mark.parametrize("state", ["done", "failed"])
def test_the_command_counts_what_works(project, monkeypatch, state):
    def execute(runs, workers, scheduler, on_outcome, fresh, retries):
        assert fresh and len({run.seed for run in runs}) == 1
        outcome = {"seed": 0, "seconds": 1.0, "message": "why", "notebook": "x.ipynb"}
        outcomes = [outcome | {"name": run.name, "state": "done"} for run in runs]
        outcomes[-1]["state"] = state
        return outcomes

    monkeypatch.setattr(runner, "execute", execute)
    done = CliRunner().invoke(cli.app, ["run", "sim-to-real", "--smoke", "--seeds", "3"])
    assert "modelnet40 is not on this machine: built-in shapes in its place" in done.stdout
    lines = done.stdout.strip().splitlines()
    assert lines[-1] == f"{int(state == 'done')} of 1 runs work"
    assert done.exit_code == int(state == "failed")
    assert ("failed: objects-to-modelnet40 seed 0: why" in lines) == (state == "failed")


def test_a_smoke_run_goes_through_papermill_to_its_report(project):
    (suite := project / "notebooks/experiments/suites/quick.yaml").write_text(
        yaml.safe_dump(_pair(yaml.safe_load(suite.read_text())), sort_keys=False)
    )
    done = CliRunner().invoke(cli.app, ["run", "quick", "--smoke"])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().splitlines()[-1] == "2 of 2 runs work"
    folder = project / "runs" / "quick-quick-smoke"
    assert (folder / "report.html").is_file() and len(list(folder.glob("*/notebook.ipynb"))) == 2
    assert not suites.gather_records(suites.plan("quick")), "no real run counts as finished"


def _pair(content: dict) -> dict:
    wanted = ("pretrain-delta", "few-pointnet-delta")
    content["runs"] = {name: content["runs"][name] for name in wanted}
    del content["runs"]["few-pointnet-delta"]["scratch"]
    return content


def _narrow() -> presets.Preset:
    """Return the authors' preset with every choice of theirs and the widths of the laptop."""
    wide, small = presets.AUTHORS_CODE, presets.LAPTOP
    sizes = ("num_centers", "patch_size", "dim", "latent_dim", "encoder_depth", "decoder_depth",
             "encoder_heads", "decoder_heads", "token_widths")  # fmt: skip
    widths = ("widths", "decoder_widths")
    return replace(
        wide,
        transformer=replace(
            wide.transformer, **{name: getattr(small.transformer, name) for name in sizes}
        ),
        pointnet=replace(wide.pointnet, **{name: getattr(small.pointnet, name) for name in widths}),
    )


def in_this_process(notebook, executed, parameters, **variables):
    """Execute what a notebook calls, without the seconds of a kernel."""
    getattr(pipelines, notebook)(**parameters)


@pytest.mark.parametrize(
    ("suite", "profile"),
    [pytest.param(*plan, marks=[] if plan == ("course", "quick") else pytest.mark.slow)
     for plan in PLANS],
)  # fmt: skip
def test_every_run_of_every_suite_works(shared_project, tmp_path, monkeypatch, suite, profile):
    """In this process, the large models narrower; a run that two suites share is executed once."""
    monkeypatch.setenv("SERP_ROOT", str(shared_project))
    monkeypatch.setenv("SERP_DATA", str(tmp_path))
    monkeypatch.setattr(runner, "execute_notebook", in_this_process)
    monkeypatch.setitem(presets.PRESETS, "authors_code", _narrow())
    outcomes = {
        run.name: runner.run_one(run, 1) for run in suites.plan(suite, profile, 1, smoke=True)
    }
    wrong = {name: one for name, one in outcomes.items() if one["state"] not in ("done", "kept")}
    assert not wrong and outcomes
    assert (shared_project / "runs" / f"{suite}-{profile}-smoke").is_dir()
