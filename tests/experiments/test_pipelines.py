"""Pipelines: each record holds the numbers of the library calls that it stands for."""

import dataclasses
import inspect
import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from serplib import checkpoint, presets, training
from serplib.classifier import Classifier, autoencoder
from serplib.data import load
from serplib.data.splits import hold_out
from serplib.evaluation import leakage, probes, reconstruction
from serplib.evaluation.accuracy import predict
from serplib.evaluation.robustness import robustness
from serplib.experiments import pipelines, records, suites, weights
from serplib.pretext import Pretext
from serplib.seeding import named_generator, named_seed

CHANGES = {
    "pretrain_pointnet.epochs": 2, "pretrain_pointnet.batch_size": 8,
    "pretrain_transformer.epochs": 2, "pretrain_transformer.batch_size": 8,
    "finetune.optim.epochs": 2, "finetune.optim.batch_size": 16,
}  # fmt: skip
SETTINGS = presets.build("quick", CHANGES)


def untrained(model, seed):
    torch.manual_seed(named_seed(seed, "weights"))
    return autoencoder(SETTINGS, model, total_steps=10)


def split():
    clouds = load("objects", "train", num_shapes=46)
    order = torch.randperm(46, generator=named_generator(0, "pretraining split"))
    return clouds.points[order[:40]], clouds.points[order[40:]]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A pre-trained PointNet: its folder, and what the pipeline returned."""
    folder = tmp_path_factory.mktemp("pretrain")
    return folder, pipelines.pretrain(
        model="pointnet", changes=CHANGES, train_shapes=40, valid_shapes=6, seed=1,
        folder=str(folder),
    )  # fmt: skip


@pytest.mark.parametrize("model", ["pointnet", "transformer"])
def test_a_learning_rate_of_0_calibrates_batch_norm_and_trains_nothing(model, tmp_path):
    """The rows "untrained encoder, batch norm calibrated" of the suites."""
    changes = {f"pretrain_{model}.lr": 0.0, f"pretrain_{model}.epochs": 1}
    changes |= {f"pretrain_{model}.batch_size": 8, f"pretrain_{model}.weight_decay": 0.05}
    pipelines.pretrain(
        model=model, changes=changes, train_shapes=40, valid_shapes=6, folder=str(tmp_path)
    )
    encoder, first = untrained(model, 0).encoder, untrained(model, 0).encoder.state_dict()
    weights.load_module(encoder, tmp_path / "encoder.safetensors")
    statistics = {name for name in first if "running" in name or "num_batches" in name}
    found = encoder.state_dict()
    for name, value in first.items():
        assert torch.equal(value, found[name]) == (name not in statistics), name
    assert len(statistics) >= 6


def test_pretraining_is_its_library_calls(pretrained):
    folder, (record, panels) = pretrained
    train, valid = split()
    task = Pretext(untrained("pointnet", 1), SETTINGS.corruption)
    history = training.pretrain(task, train, valid, SETTINGS.pretrain_pointnet, 1)
    assert record["history"] == history and len(history) == 2
    doubled = load("objects", "train", num_shapes=64, num_points=2048).points
    wanted = reconstruction.restoration(task, valid, 1)
    wanted |= reconstruction.resample_baseline(doubled, 1)
    assert record["metrics"] == {"restoration": wanted}
    for name, module in (("autoencoder", task.model), ("encoder", task.model.encoder)):
        saved = checkpoint.load_weights(folder / f"{name}.safetensors")
        assert all(torch.equal(saved[key], value) for key, value in module.state_dict().items())
    assert records.read_json(folder / "record.json") == record
    assert record["parameters"]["changes"] == CHANGES and "folder" not in record["parameters"]
    assert record["data"]["train"]["num_shapes"] == 40
    assert torch.equal(panels["shape 0"]["clean"], valid[0])


def test_a_record_keeps_all_settings_of_its_preset(pretrained, monkeypatch):
    """A preset may change later: what a record was made with is in the record."""
    folder, _ = pretrained
    before = json.loads(json.dumps(dataclasses.asdict(SETTINGS)))
    monkeypatch.setitem(presets.PRESETS, "quick", presets.PRESETS["laptop"])
    stored = records.read_json(folder / "record.json")["settings"]
    assert stored == before and stored["pretrain_pointnet"]["batch_size"] == 8
    assert stored["pointnet"]["widths"] == [32, 64, 128]


def test_finetuning_is_its_library_calls(pretrained, tmp_path):
    encoder = pretrained[0] / "encoder.safetensors"
    record, _ = pipelines.finetune(
        model="pointnet", changes=CHANGES, train_shapes=60, test_shapes=20, robustness=1,
        protocols=True, encoder=str(encoder), seed=3, folder=str(tmp_path),
    )  # fmt: skip
    train, valid = hold_out(load("objects", "train", num_shapes=60), 0.1, 3)
    test = load("objects", "test", num_shapes=20)
    body = untrained("pointnet", 3).encoder
    body.load_state_dict(checkpoint.load_weights(encoder))
    tuning = SETTINGS.finetune
    classifier = Classifier(body, len(train.classes), tuning.head_widths, tuning.dropout)
    history, result = training.finetune(
        classifier, train, valid, lambda: test, tuning.optim, 3, tuning.augment
    )
    watched = [entry.pop("monitor_accuracy") for entry in record["history"]]  # decides nothing
    assert record["history"] == history and record["metrics"]["test"] == result
    ways = record["metrics"]["protocol"]
    assert (ways["reference"], ways["last_epoch"]) == (result["accuracy"], watched[-1])
    corrupted = robustness(partial(predict, classifier), test, 0, (1,))
    assert record["metrics"]["robustness"] == corrupted
    assert record["parameters"]["pretrained"] and record["parameters"]["test_dataset"] == "objects"
    saved = checkpoint.load_weights(tmp_path / "classifier.safetensors")
    assert all(torch.equal(saved[k], value) for k, value in classifier.state_dict().items())


def test_the_test_split_is_loaded_after_training(monkeypatch, tmp_path):
    order, loaded, score = [], pipelines.load, training.score

    def watched(name, split, *arguments, **options):
        order.append(split)
        return loaded(name, split, *arguments, **options)

    monkeypatch.setattr(pipelines, "load", watched)
    monkeypatch.setattr(training, "score", lambda *a: order.append("score") or score(*a))
    pipelines.finetune(model="pointnet", changes=CHANGES, train_shapes=60, test_shapes=20,
                       folder=str(tmp_path))  # fmt: skip
    assert order == ["train", "score", "score", "test", "score"]


@pytest.mark.parametrize("pretrained_encoder", [False, True])
def test_probing_is_its_library_calls(pretrained, tmp_path, pretrained_encoder):
    encoder = pretrained[0] / "encoder.safetensors" if pretrained_encoder else ""
    record, shown = pipelines.probe(
        model="pointnet", changes=CHANGES, train_shapes=90, test_shapes=60, seed=2,
        encoder=str(encoder), folder=str(tmp_path),
    )  # fmt: skip
    train = load("objects", "train", num_shapes=90)
    test = load("objects", "test", num_shapes=60)
    body, start = untrained("pointnet", 2).encoder, untrained("pointnet", 2).encoder
    if encoder:
        body.load_state_dict(checkpoint.load_weights(encoder))
    embed = partial(probes.features, body)
    wanted = probes.probe(embed, train, lambda: test, 2)
    if encoder:
        before = probes.features(start, test.points)
        wanted["cka_untrained"] = probes.linear_cka(embed(test.points), before)
    assert record["metrics"] == {"probes": wanted}
    assert torch.equal(shown["features"], embed(test.points))


@pytest.mark.parametrize("model", ["handmade", "point_nn", "np_net"])
def test_features_without_weights_take_no_encoder(model, monkeypatch):
    monkeypatch.delattr(pipelines, "load")  # nothing is loaded before
    with pytest.raises(ValueError, match=f"model '{model}' has no weights: encoder is 'x', wanted"):
        pipelines.probe(model=model, encoder="x")
    with pytest.raises(ValueError, match=f"model '{model}' has no layers: readout is 'layers'"):
        pipelines.probe(model=model, readout="layers")


def test_a_probe_reads_all_layers_if_asked(tmp_path):
    """Both splits, and the similarity to the untrained encoder, are of all layers."""
    given = {"train_shapes": 60, "test_shapes": 24, "heads": ["svm"], "svm": "pairs"}
    _, last = pipelines.probe(**given, folder=str(tmp_path / "last"))
    record, shown = pipelines.probe(**given, readout="layers", folder=str(tmp_path / "layers"))
    assert record["parameters"]["readout"] == "layers" and record["parameters"]["svm"] == "pairs"
    assert record["metrics"]["probes"]["dim"] == shown["features"].shape[1] == 1152
    assert last["features"].shape == (24, 192) and record["metrics"]["probes"]["num_shapes"] == 24


@pytest.mark.parametrize("pipeline", [pipelines.pretrain, pipelines.finetune])
def test_a_longer_schedule_goes_on_knowingly_and_is_recorded(pipeline, tmp_path):
    small = {"valid_shapes": 4} if pipeline is pipelines.pretrain else {"test_shapes": 8}
    given = {"model": "pointnet", "train_shapes": 60, "folder": str(tmp_path), **small}
    kind = "pretrain_pointnet" if pipeline is pipelines.pretrain else "finetune.optim"
    changes = [CHANGES | {f"{kind}.epochs": epochs} for epochs in (1, 2)]
    first, _ = pipeline(changes=changes[0], **given)
    with pytest.raises(ValueError, match="extend=True"):
        pipeline(changes=changes[1], **given)
    second, _ = pipeline(changes=changes[1], extend=True, **given)
    assert second["history"][:1] == first["history"] and len(second["history"]) == 2
    assert second["parameters"]["extend"] and "extend" not in first["parameters"]


def test_figure4_and_leakage_are_their_library_calls(pretrained, tmp_path):
    encoder = pretrained[0] / "encoder.safetensors"
    record, panels = pipelines.figure4(
        model="pointnet", changes=CHANGES, test_shapes=40, encoder=str(encoder), seed=4,
        folder=str(tmp_path / "figure4"),
    )  # fmt: skip
    network = untrained("pointnet", 4)
    network.load_state_dict(checkpoint.load_weights(encoder.with_name("autoencoder.safetensors")))
    task, test = Pretext(network, SETTINGS.corruption), load("objects", "test", num_shapes=40)
    wanted = reconstruction.restoration(task, test.points, 4)
    wanted |= reconstruction.resample_baseline(test.points, 4)
    assert record["metrics"] == {"restoration": wanted}
    assert list(panels)[:3] == ["chair", "chair: corrupted", "chair: restored"]

    record, _ = pipelines.leakage(
        model="masked", changes=CHANGES, train_shapes=40, valid_shapes=6, seed=1,
        folder=str(tmp_path / "leakage"),
    )  # fmt: skip
    assert record["metrics"] == {"leakage": leakage.leakage(SETTINGS, "masked", *split(), seed=1)}


def test_validation_shapes_must_leave_shapes_to_train_on():
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=rf"valid_shapes is {wrong}, wanted 1 to"):
            pipelines.pretrain(train_shapes=20, valid_shapes=wrong)


@pytest.mark.parametrize("name", ["pretrain", "finetune", "probe", "figure4", "leakage"])
def test_the_notebook_takes_the_parameters_of_its_function(name):
    """The same names with the same defaults, all passed on in one call."""
    cells = json.loads((suites.experiments_folder() / f"{name}.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    given: dict = {}
    exec(sources[0], given)
    signature = inspect.signature(getattr(pipelines, name)).parameters
    assert set(signature) == set(given) - {"__builtins__", "__annotations__"}
    for key, parameter in signature.items():
        if parameter.default is not None:
            assert tuple(given[key]) == parameter.default if key == "heads" else (
                given[key] == parameter.default
            )  # fmt: skip
        assert f"    {key}={key},\n" in sources[1]


def test_of_two_processes_only_the_main_one_writes(tmp_path):
    """As started by accelerate launch; both return the record of the training that they share."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import json, sys, torch; torch.set_num_threads(1)\n"
        "from serplib.experiments import pipelines, records\n"
        "from serplib import checkpoint\n"
        "wrote = []\n"
        "for module, name in ((records, 'write_json'), (checkpoint, 'save_weights')):\n"
        "    original = getattr(module, name)\n"
        "    def spy(*a, original=original, **k): wrote.append(1); return original(*a, **k)\n"
        "    setattr(module, name, spy)\n"
        "folder, changes = sys.argv[1], json.loads(sys.argv[2])\n"
        "record, _ = pipelines.pretrain(model='pointnet', changes=changes, train_shapes=40,\n"
        "                               valid_shapes=6, folder=folder)\n"
        "print(json.dumps([len(wrote), [e['train_total'] for e in record['history']]]))\n"
    )
    started = []
    for rank in range(2):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port,
                 "MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}  # fmt: skip
        started.append(subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), json.dumps(CHANGES)],
            env=os.environ | {key: str(value) for key, value in place.items()},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ))  # fmt: skip
    ended = [process.communicate(timeout=180) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    (main, losses), (other, same) = (json.loads(out.splitlines()[-1]) for out, _ in ended)
    assert main >= 5 and other == 0 and losses == same
    assert records.read_json(Path(tmp_path) / "record.json")["metrics"]["restoration"]
