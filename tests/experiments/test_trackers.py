"""Trackers of Accelerate: told of every epoch, refused if missing, without effect on results."""

import shutil

import pytest
from accelerate import tracking
from accelerate.utils import LoggerType
from test_suites import ROOT, TINY, write_suite
from typer.testing import CliRunner

from serplib.experiments import cli, pipelines, records, suites, trackers

SMALL = {"model": "pointnet", "train_shapes": 16, "valid_shapes": 4, "preset": "quick",
         "changes": {"pretrain_pointnet.epochs": 2, "pretrain_pointnet.batch_size": 8}}  # fmt: skip
RUN = {"suite": "tiny", "profile": "quick", "name": "pre", "hash": "ab"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "notebooks" / "experiments", tmp_path / "notebooks" / "experiments")
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    write_suite(tmp_path, TINY)
    return tmp_path


@pytest.mark.parametrize("name", trackers.NAMES)
def test_a_missing_package_is_refused_before_anything_starts(project, monkeypatch, name):
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    done = CliRunner().invoke(cli.app, ["run", "tiny", "--tracker", name])
    assert done.exit_code == 2
    wanted = f"serp: {name} is not installed: pip install -U {name} accelerate"
    assert done.stderr.splitlines() == [wanted] and not (project / "runs").exists()
    with pytest.raises(ValueError, match=f"{name} is not installed"):  # as on another machine
        pipelines.pretrain(**SMALL, tracker=name, folder=str(project / "run"))


def test_an_unknown_tracker_is_refused_with_those_there_are(project):
    done = CliRunner().invoke(cli.app, ["run", "tiny", "--tracker", "notebook"])
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
    assert "tracker is 'notebook', wanted one of tensorboard, mlflow, trackio" in done.stderr


def test_a_tracker_belongs_to_trainings_and_changes_no_hash(project):
    plain, tracked = suites.plan("course"), suites.plan("course", tracker="mlflow")
    assert [run.hash for run in tracked] == [run.hash for run in plain]
    given = {run.notebook: run.parameters.get("tracker") for run in tracked}
    assert given["pretrain"] == given["finetune"] == "mlflow"
    assert set(given.values()) == {"mlflow", None}
    assert not any("tracker" in run.parameters for run in plain)


@pytest.mark.parametrize(
    ("name", "project_name", "options"),
    [
        ("tensorboard", "tensorboard", {}),
        ("mlflow", "tiny-quick", {"run_name": "run"}),
        ("trackio", "tiny-quick", {"name": "run"}),
    ],
)
def test_a_tracker_is_told_of_every_epoch_and_leaves_the_record(
    tmp_path, monkeypatch, name, project_name, options
):
    told = []

    class Tracker(tracking.GeneralTracker):
        requires_logging_directory = False

        def __init__(self, project, **options):
            super().__init__()
            told.append((project, options))

        @property
        def tracker(self):
            return told

        def log(self, values, step=None, **more):
            told.append((step, values))

        def finish(self):
            told.append("end")

    Tracker.name = name
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, Tracker)
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType(name)])
    monkeypatch.setattr(trackers, "find_spec", lambda package: package)
    tracked = pipelines.pretrain(**SMALL, tracker=name, run=RUN, folder=str(tmp_path / "run"))
    plain = pipelines.pretrain(**SMALL, run=RUN, folder=str(tmp_path / "plain"))
    history = plain.record["history"]
    assert told == [(project_name, options), *((e["epoch"], e) for e in history), "end"]
    for record in (tracked.record, plain.record):
        del record["seconds"], record["finished"]
    assert tracked.record == plain.record


def test_tensorboard_reads_the_curves_of_a_run(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    record, _ = pipelines.pretrain(**SMALL, tracker="tensorboard", folder=str(tmp_path))
    events = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    curve = [event.value for event in events.Scalars("valid_total")]
    assert curve == pytest.approx([entry["valid_total"] for entry in record["history"]])
    assert records.read_json(tmp_path / "record.json")["history"] == record["history"]
