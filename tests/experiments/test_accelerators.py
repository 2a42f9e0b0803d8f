"""What a training does depends on its arguments, not on accelerators made or used before."""

import dataclasses

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DataLoaderConfiguration
from torch import nn

from serplib import checkpoint, training
from serplib.classifier import Classifier
from serplib.data.common import Clouds
from serplib.experiments.accelerators import fresh_accelerator, supported
from serplib.perturbation import Perturbation
from serplib.pointnet import PointNetConfig, SerpPointNet
from serplib.presets import Optim
from serplib.pretext import Corruption, Pretext
from serplib.seeding import named_generator

POINTNET = PointNetConfig((6, 8, 10), (9, 8, 7, 6), (5, 6, 7, 6, 5), False, False)
OPTIM = Optim(epochs=2, batch_size=4, lr=1e-2)
TRAIN = torch.randn(12, 24, 3, generator=named_generator("accelerators"))


@pytest.fixture(autouse=True)
def no_state():
    """Accelerate's state as in a new process, before and after."""
    states = (PartialState, AcceleratorState, GradientState)
    kept = [dict(state._shared_state) for state in states]
    for state in states:
        state._reset_state()
    yield
    for state, values in zip(states, kept, strict=True):
        state._shared_state.clear()
        state._shared_state.update(values)


def fresh_task():
    torch.manual_seed(0)
    return Pretext(SerpPointNet(POINTNET), Corruption(Perturbation(3, 4, 0.1), num_points=24))


def pretrain(accelerator=None, task=None, optim=OPTIM, folder=None):
    task = task or fresh_task()
    history = training.pretrain(task, TRAIN, TRAIN[:4], optim, 0, folder, accelerator)
    return history, {name: tensor.clone() for name, tensor in task.state_dict().items()}


def same(one, two):
    return one[0] == two[0] and all(torch.equal(one[1][n], two[1][n]) for n in one[1])


def test_bf16_before_does_not_make_a_later_run_bf16():
    plain = pretrain()
    half = Accelerator(cpu=True, mixed_precision="bf16")
    assert same(pretrain(), plain)
    bf16 = pretrain(half)
    assert not same(bf16, plain)  # the accelerator handed in is honoured
    assert same(pretrain(), plain)
    assert same(pretrain(half), bf16)  # and still is, after runs without it
    assert half.mixed_precision == "bf16" and half.state.mixed_precision == "bf16"


def test_a_model_trained_in_bf16_is_in_full_precision_afterwards():
    """Accelerate replaces the forward method of what it prepares."""
    task, fresh = fresh_task(), fresh_task()
    pretrain(Accelerator(cpu=True, mixed_precision="bf16"), task)
    fresh.load_state_dict(task.state_dict())
    for draw in ("a", "b"):
        losses = [net.eval()(TRAIN, named_generator(draw)) for net in (task, fresh)]
        assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[1])
    assert same(pretrain(None, task), pretrain(None, fresh))


def test_a_classifier_tuned_in_bf16_is_in_full_precision_afterwards():
    clouds = Clouds("toy", "train", TRAIN, torch.arange(12) % 3, tuple("abc"), "0")
    one, two = (Classifier(fresh_task().model.encoder, 3, (8,)) for _ in range(2))
    half = Accelerator(cpu=True, mixed_precision="bf16")
    training.finetune(one, clouds, None, lambda: clouds, OPTIM, 0, accelerator=half)
    two.load_state_dict(one.state_dict())
    assert one.eval()(TRAIN).equal(two.eval()(TRAIN))


def test_validation_is_in_the_precision_of_the_run():
    history, weights = pretrain(Accelerator(cpu=True, mixed_precision="bf16"))
    task = fresh_task()
    task.load_state_dict(weights)
    full = training.validate_pretext(task, TRAIN[:4], 4, 0)["valid_total"]
    with torch.autocast("cpu", torch.bfloat16):
        half = training.validate_pretext(task, TRAIN[:4], 4, 0)["valid_total"]
    assert history[-1]["valid_total"] == half != full


def test_an_accelerator_keeps_nothing_of_a_run():
    accelerator = Accelerator(cpu=True)
    mine = accelerator.prepare(nn.Linear(2, 2))
    pretrain(accelerator)
    assert accelerator._models == [mine] and accelerator._optimizers == []
    with pytest.raises(ValueError, match="needs two"):
        pretrain(accelerator, Pretext(SerpPointNet(dataclasses.replace(
            POINTNET, input_transform=True)), fresh_task().corruption),
            dataclasses.replace(OPTIM, batch_size=1))  # fmt: skip
    assert accelerator._models == [mine] and accelerator._optimizers == []


def test_the_scale_of_fp16_is_stored_and_does_not_pass_to_the_next_run(tmp_path, monkeypatch):
    """fp16 needs a GPU; its gradient scaler works anywhere."""
    monkeypatch.setattr("serplib.experiments.loop.supported", lambda given: given_scaler(given))
    rate, seen = training.learning_rate, []

    def scaled():
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = torch.amp.GradScaler("cpu", 1024.0, growth_interval=2)
        return accelerator

    def given_scaler(accelerator):
        monkeypatch.setattr(type(accelerator), "mixed_precision", "fp16")
        return supported(accelerator)

    def stopping(step, *rest):
        if step == 4 and not seen:
            seen.append(step)
            raise KeyboardInterrupt
        return rate(step, *rest)

    accelerator = scaled()
    whole = pretrain(accelerator, folder=tmp_path / "whole")
    assert accelerator.scaler.get_scale() == 1024
    monkeypatch.setattr(training, "learning_rate", stopping)
    with pytest.raises(KeyboardInterrupt):
        pretrain(accelerator, folder=tmp_path / "parts")
    assert same(pretrain(scaled(), folder=tmp_path / "parts"), whole)
    ends = [checkpoint.load(tmp_path / name)[1]["scaler"] for name in ("whole", "parts")]
    assert ends[0] == ends[1] and ends[0]["scale"] > 1024


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps=4, wanted 1: each batch"),
        ({"step_scheduler_with_optimizer": False}, "scheduler_with_optimizer=False, wanted True"),
        ({"device_placement": False}, "device_placement=False, wanted True"),
        ({"mixed_precision": "fp16"}, "is 'fp16', but it applies 'no': fp16 needs a GPU"),
    ],
)  # fmt: skip
def test_what_is_not_honoured_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pretrain(Accelerator(cpu=True, **options))


@pytest.mark.parametrize(
    ("field", "value"),
    [("dispatch_batches", True), ("even_batches", False), ("use_seedable_sampler", True)],
)
def test_options_of_data_loaders_are_refused(field, value):
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**{field: value}))
    with pytest.raises(ValueError, match=f"{field}={value}, wanted"):
        pretrain(accelerator)


def test_split_batches_is_what_the_loop_does():
    config = DataLoaderConfiguration(split_batches=True)
    assert same(pretrain(Accelerator(cpu=True, dataloader_config=config)), pretrain())


def test_accumulation_asked_of_the_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    with pytest.raises(ValueError, match="gradient_accumulation_steps=2, wanted 1"):
        pretrain()


def test_precision_asked_of_the_launcher_is_honoured(monkeypatch):
    wanted = pretrain(Accelerator(cpu=True, mixed_precision="bf16"))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert same(pretrain(), wanted)


def test_an_accelerator_whose_precision_was_changed_behind_it_is_refused():
    half = Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state()
    Accelerator(cpu=True, mixed_precision="no")
    with pytest.raises(ValueError, match=r"is 'no', but it applies 'bf16': .*create it again"):
        pretrain(half)


def test_a_fresh_accelerator_puts_the_former_state_back():
    outer = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=3)
    with pytest.raises(KeyError), fresh_accelerator(cpu=True) as inner:
        assert (inner.mixed_precision, inner.gradient_accumulation_steps) == ("no", 1)
        raise KeyError
    assert (outer.mixed_precision, outer.gradient_accumulation_steps) == ("bf16", 3)
    with fresh_accelerator(cpu=True, mixed_precision="no") as other, supported(other):
        assert other.mixed_precision == "no"


def test_one_cloud_for_batchnorm_is_refused_with_the_setting():
    config = dataclasses.replace(POINTNET, input_transform=True)
    for optim, clouds in ((dataclasses.replace(OPTIM, batch_size=1), TRAIN), (OPTIM, TRAIN[:1])):
        task = Pretext(SerpPointNet(config), fresh_task().corruption)
        with pytest.raises(ValueError, match=r"^1 clouds per batch on 1 processes .*batch_size"):
            training.pretrain(task, clouds, TRAIN, optim, 0)
    labelled = Clouds("toy", "train", TRAIN, torch.arange(12) % 3, tuple("abc"), "0")
    network = Classifier(fresh_task().model.encoder, 3, (8,))
    with pytest.raises(ValueError, match=r"leave one cloud for BatchNorm, which needs two"):
        training.finetune(network, labelled, None, lambda: labelled,
                          dataclasses.replace(OPTIM, batch_size=1), 0)  # fmt: skip


def test_one_cloud_is_enough_where_batchnorm_sees_its_points():
    assert len(pretrain(optim=dataclasses.replace(OPTIM, batch_size=1))[0]) == 2
