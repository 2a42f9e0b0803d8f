"""A checkpoint is resumed by the run that wrote it, and by no other."""

import dataclasses
import re
import shutil

import pytest
import torch

from serplib import checkpoint, training
from serplib.classifier import Classifier
from serplib.data.common import Clouds, digest
from serplib.experiments import identity, records
from serplib.perturbation import Perturbation
from serplib.pointnet import PointNetConfig, SerpPointNet
from serplib.presets import Optim
from serplib.pretext import Corruption, Pretext
from serplib.seeding import named_generator
from serplib.transformer import SerpTransformer, TransformerConfig

POINTNET = PointNetConfig((6, 8, 10), (9, 8, 7, 6), (5, 6, 7, 6, 5))
CORRUPTION = Corruption(Perturbation(3, 4, 0.1), num_points=24)
OPTIM = Optim(epochs=2, batch_size=4, lr=1e-2)
TRAIN = torch.randn(12, 24, 3, generator=named_generator("identity", "train"))
VALID = torch.randn(4, 24, 3, generator=named_generator("identity", "valid"))


def clouds(points, labels=None):
    labels = torch.arange(len(points)) % 3 if labels is None else labels
    return Clouds("toy", "train", points, labels, tuple("abc"), "0")


def pretrain(folder, *, seed=0, init=0, train=TRAIN, valid=VALID, model=None, corruption=None,
             optim=None, **more):  # fmt: skip
    """Train anew with some settings changed; return weights and history."""
    torch.manual_seed(init)
    network = SerpPointNet(dataclasses.replace(POINTNET, **model or {}))
    task = Pretext(network, dataclasses.replace(CORRUPTION, **corruption or {}))
    optim = dataclasses.replace(OPTIM, **optim or {})
    history = training.pretrain(task, train, valid, optim, seed, folder, **more)
    return task.state_dict(), history


def finetune(folder, *, seed=0, init=0, train=None, valid=None, optim=None, head=None, **more):
    torch.manual_seed(init)
    network = Classifier(SerpPointNet(POINTNET).encoder, 3, **{"widths": (8,)} | (head or {}))
    optim = dataclasses.replace(OPTIM, **optim or {})
    train, valid = train or clouds(TRAIN), valid or clouds(VALID)
    history, _ = training.finetune(
        network, train, valid, lambda: clouds(VALID), optim, seed, folder=folder, **more
    )
    return network.state_dict(), history


PRETRAIN = {
    "sigma": ({"corruption": {"perturbation": Perturbation(3, 4, 0.2)}},
              r"corruption\.perturbation\.sigma was 0\.1 and is 0\.2"),
    "augmentation": ({"corruption": {"augment": "scale_shift"}}, "augment was 'none' and is 'sc"),
    "seed": ({"seed": 1}, "seed was 0 and is 1"),
    "learning rate": ({"optim": {"lr": 2e-2}}, r"optim\.lr was 0\.01 and is 0\.02"),
    "batch size": ({"optim": {"batch_size": 6}}, r"optim\.batch_size was 4 and is 6"),
    "clipping": ({"optim": {"clip_norm": 1.0}}, r"optim\.clip_norm was None and is 1\.0"),
    "data": ({"train": TRAIN + 1e-3}, "train clouds was '[0-9a-f]{16}' and is '[0-9a-f]{16}'"),
    "less data": ({"train": TRAIN[:8]}, "train clouds was"),
    "validation data": ({"valid": VALID.flip(0)}, "valid clouds was"),
    "model": ({"model": {"alpha_cls": 0.1}}, r"model\.config\.alpha_cls was 0\.001 and is 0\.1"),
    "width": ({"model": {"decoder_widths": (9, 8, 7, 5)}}, r"decoder_widths was \(9, 8, 7, 6\)"),
    "initial weights": ({"init": 1}, "initial weights was 'sum.*or build the model with the same"),
    "the caller's": ({"identity": {"revision": "b"}}, "revision was 'a' and is 'b'"),
    "fewer epochs": ({"optim": {"epochs": 1}}, r"optim\.epochs was \[2\] and is \[1\]"),
    "more epochs": ({"optim": {"epochs": 3}}, r"optim\.epochs was \[2\].*or pass extend=True"),
}  # fmt: skip
FINETUNE = {
    "seed": ({"seed": 1}, "seed was 0 and is 1"),
    "learning rate": ({"optim": {"lr": 2e-2}}, r"optim\.lr was 0\.01 and is 0\.02"),
    "augmentation": ({"augment": "scale_shift"}, "augment was 'none' and is 'scale_shift'"),
    "frozen encoder": ({"head": {"freeze": True}}, "freeze was False and is True"),
    "dropout": ({"head": {"dropout": 0.1}}, r"head\.3\.p was 0\.5 and is 0\.1"),
    "another encoder": ({"init": 1}, "initial weights was 'sum"),
    "labels": ({"train": clouds(TRAIN, torch.arange(12) // 4)}, "train labels was"),
    "validation labels": ({"valid": clouds(VALID, torch.zeros(4).long())}, "valid labels was"),
}


def refused(run, folder, changes, message):
    """The folder names the difference, and stays as it was."""
    before = checkpoint.load(folder)
    with pytest.raises(ValueError, match=message) as error:
        run(folder, **changes)
    text = str(error.value)
    assert text.startswith(f"{folder} holds a run with other settings") and "\n" not in text
    assert "choose another folder, or delete this one" in text
    after = checkpoint.load(folder)
    assert before[1]["history"] == after[1]["history"]
    assert all(torch.equal(before[0]["model"][n], t) for n, t in after[0]["model"].items())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in ("pretrain", "finetune")}
    pretrain(folders["pretrain"], identity={"revision": "a"})
    finetune(folders["finetune"])
    return folders


@pytest.mark.parametrize("name", PRETRAIN)
def test_another_pretraining_is_refused(name, finished):
    changes, message = PRETRAIN[name]
    refused(pretrain, finished["pretrain"], {"identity": {"revision": "a"}} | changes, message)


@pytest.mark.parametrize("name", FINETUNE)
def test_another_finetuning_is_refused(name, finished):
    refused(finetune, finished["finetune"], *FINETUNE[name])


def test_an_interrupted_run_is_refused_alike(tmp_path, monkeypatch):
    rate = training.learning_rate

    def stopping(step, *rest):
        if step == 4:  # in the second epoch
            raise KeyboardInterrupt
        return rate(step, *rest)

    with monkeypatch.context() as stop:
        stop.setattr(training, "learning_rate", stopping)
        with pytest.raises(KeyboardInterrupt):
            pretrain(tmp_path)
    refused(pretrain, tmp_path, {"seed": 1}, "seed was 0 and is 1")
    assert len(pretrain(tmp_path)[1]) == 2


@pytest.mark.parametrize("run", [pretrain, finetune])
def test_the_same_run_is_read_and_another_folder_trains(run, tmp_path):
    weights, history = run(tmp_path / "one")
    again, same_history = run(tmp_path / "one")
    assert history == same_history
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    other, _ = run(tmp_path / "two", seed=1)
    assert not all(torch.equal(weights[name], other[name]) for name in weights)


def test_a_longer_schedule_goes_on_knowingly(tmp_path):
    """The learning rates of the first epochs stay those of the shorter run, and this is stored."""
    _, short = pretrain(tmp_path)
    _, longer = pretrain(tmp_path, optim={"epochs": 4}, extend=True)
    assert longer[:2] == short and [entry["epoch"] for entry in longer] == [1, 2, 3, 4]
    assert checkpoint.load(tmp_path)[1]["identity"]["optim.epochs"] == [2, 4]
    assert pretrain(tmp_path, optim={"epochs": 4}, extend=True)[1] == longer
    refused(pretrain, tmp_path, {"optim": {"epochs": 4}}, r"epochs was \[2, 4\] and is \[4\]")
    refused(
        pretrain, tmp_path, {"optim": {"epochs": 3}, "extend": True}, r"was \[2, 4\] and is \[3\]"
    )
    refused(pretrain, tmp_path, {"optim": {"epochs": 6}, "extend": True, "seed": 1}, "seed was 0")


def test_the_trained_model_itself_may_go_on(tmp_path):
    """In one notebook: train, then train the same object for longer."""
    torch.manual_seed(0)
    task = Pretext(SerpPointNet(POINTNET), CORRUPTION)
    run = (task, TRAIN, VALID)
    short = training.pretrain(*run, OPTIM, 0, tmp_path)
    assert training.pretrain(*run, OPTIM, 0, tmp_path) == short
    longer = dataclasses.replace(OPTIM, epochs=3)
    assert len(training.pretrain(*run, longer, 0, tmp_path, extend=True)) == 3
    other, _ = pretrain(tmp_path, optim={"epochs": 3}, extend=True)
    assert all(torch.equal(tensor, other[name]) for name, tensor in task.state_dict().items())


def test_extend_changes_nothing_where_nothing_was_shorter(tmp_path):
    _, history = pretrain(tmp_path / "a")
    assert pretrain(tmp_path / "b", extend=True)[1] == history
    assert checkpoint.load(tmp_path / "b")[1]["identity"]["optim.epochs"] == [2]


@pytest.mark.parametrize("name", ["torch", "serplib"])
def test_other_versions_are_refused(name, tmp_path, monkeypatch):
    pretrain(tmp_path)
    module = torch if name == "torch" else identity.serplib
    monkeypatch.setattr(module, "__version__", "99.1.2")
    refused(pretrain, tmp_path, {}, rf"{name} was '[\d.]+' and is '99\.1")


def test_a_checkpoint_without_settings_is_refused(tmp_path):
    weights, _ = pretrain(tmp_path / "run")
    checkpoint.save(tmp_path / "old", 2, {"model": weights}, {"epoch": 2, "history": []})
    with pytest.raises(ValueError, match=r"old holds a run .* settings \(seed was None and"):
        pretrain(tmp_path / "old")


def test_settings_of_a_transformer_cover_its_configuration():
    config = TransformerConfig(dim=24, latent_dim=24, encoder_depth=1, decoder_depth=1,
                               encoder_heads=2, decoder_heads=2)  # fmt: skip
    found = identity.settings_of(SerpTransformer(config))
    for field in dataclasses.fields(config):
        assert found[f"config.{field.name}"] == getattr(config, field.name)
    assert found["encoder.blocks.0.attention.heads"] == 2
    assert not any(re.search(r"(^|\.)(_|training$)", name) for name in found)


def test_digests_and_fingerprints_tell_tensors_apart():
    one = torch.arange(12.0)
    assert digest(one) == digest(one.clone())
    others = (one.view(3, 4), one.double(), one + 1e-6, one.flip(0), one[:11])
    assert len({digest(x) for x in (one, *others)}) == 6
    assert digest(torch.arange(24.0)[::2] / 2) == digest(one)  # not contiguous
    weights = {"a": torch.randn(100, generator=named_generator("weights")), "b": torch.ones(3)}
    rounded = {name: tensor * (1 + 1e-8) for name, tensor in weights.items()}
    assert identity.fingerprint(weights) == identity.fingerprint(rounded)
    assert identity.fingerprint(weights) != identity.fingerprint(weights | {"b": torch.zeros(3)})
    assert identity.fingerprint({}) == identity.fingerprint({"a": torch.zeros(2)})


def test_a_home_folder_and_text_are_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    pretrain("~/run")
    assert checkpoint.load(tmp_path / "run")[1]["epoch"] == 2


def test_other_categories_are_refused_before_and_after_training():
    """Labels of other categories would be counted as right where their numbers agree."""
    network = Classifier(SerpPointNet(POINTNET).encoder, 3, widths=(8,))
    other = dataclasses.replace(clouds(VALID), split="test", classes=("b", "a", "c"))
    run = (network, clouds(TRAIN))
    with pytest.raises(ValueError, match=r"toy/test has the categories \('b', 'a', 'c'\)"):
        training.finetune(*run, other, lambda: clouds(VALID), OPTIM, 0)
    with pytest.raises(ValueError, match=r"toy/test has the categories \('b', 'a', 'c'\)"):
        training.finetune(*run, None, lambda: other, OPTIM, 0)


@pytest.mark.parametrize("name", ["train", "valid"])
def test_no_clouds_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name} has shape \(0, 24, 3\), wanted \(S, M, 3\)"):
        pretrain(None, **{name: TRAIN[:0]})


def test_a_run_that_an_edit_of_code_cut_in_two_is_refused(tmp_path, monkeypatch):
    """Unless code.json says that the old and the new code learn the same."""
    pretrain(tmp_path, optim={"epochs": 1})
    monkeypatch.setattr(records, "code_digest", lambda: "edited")
    with pytest.raises(ValueError, match="before serplib was changed: delete it"):
        pretrain(tmp_path, optim={"epochs": 2}, extend=True)
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    shutil.rmtree(tmp_path)  # the remedy
    assert len(pretrain(tmp_path, optim={"epochs": 2})[1]) == 2
    shutil.rmtree(tmp_path)
    shutil.move(tmp_path.with_name("copy"), tmp_path)
    monkeypatch.setattr(records, "code_changed", lambda environment: False)
    assert len(pretrain(tmp_path, optim={"epochs": 2}, extend=True)[1]) == 2
