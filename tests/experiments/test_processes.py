"""One run over two processes (gloo): the steps of one process at the same batch size."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from serplib import checkpoint, training
from serplib.classifier import Classifier
from serplib.data.common import Clouds
from serplib.experiments.loop import Loop
from serplib.perturbation import Perturbation
from serplib.pointnet import PointNetConfig, SerpPointNet
from serplib.presets import Optim
from serplib.pretext import Corruption, Pretext
from serplib.seeding import named_generator

OPTIM = Optim(epochs=3, batch_size=6, lr=1e-3, warmup_epochs=0.5)
KINDS = ("pretrain", "finetune")


def train(kind, folder, epochs=OPTIM.epochs, spoil=False, extend=False):
    """A small run without BatchNorm and dropout, which each process has for itself on CPUs.

    Leaves the gradient of its first step and its weights; in ``folder/checkpoint`` its checkpoint.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = SerpPointNet(PointNetConfig((6, 8, 10), (9, 8, 7, 6), (5, 6, 7, 6, 5)))
    points = torch.randn(20, 40, 3, generator=named_generator(0, "points"))
    corruption = Corruption(Perturbation(3, 4, 0.1), "scale_shift", "random", 24)
    net = task = Pretext(model, corruption)
    if kind == "finetune":
        net = Classifier(model.encoder, 3, widths=(8,), dropout=0.0)
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d):
                setattr(module, name, nn.Identity())
    first, seen = {}, []
    optimizer_step, steps = Loop.optimizer_step, Loop.steps

    def watched(self, loss, step, lr):
        if spoil and step == 4 and self.accelerator.process_index == 1:
            loss = loss * float("nan")
        optimizer_step(self, loss, step, lr)
        if not first:
            first.update({n: p.grad.clone() for n, p in net.named_parameters()
                          if p.grad is not None})  # fmt: skip

    def shown(self, order):
        for step, indices, generator in steps(self, order):
            seen.append((self.epoch, indices[self.share]))
            yield step, indices, generator

    Loop.optimizer_step, Loop.steps = watched, shown
    optim = dataclasses.replace(OPTIM, epochs=epochs)
    accelerator = Accelerator(cpu=True)
    try:
        if kind == "pretrain":
            history = training.pretrain(
                task, points[:14], points[14:], optim, 5, folder / "checkpoint", accelerator,
                extend=extend,
            )  # fmt: skip
        else:
            labels = torch.arange(20) % 3
            clouds = Clouds("toy", "train", points, labels, tuple("abc"), "0")
            history, _ = training.finetune(
                net, clouds, clouds, lambda: clouds, optim, 5, "scale_shift",
                folder / "checkpoint", accelerator, extend=extend,
            )  # fmt: skip
    finally:
        Loop.optimizer_step, Loop.steps = optimizer_step, steps
    rank = accelerator.process_index
    torch.save(
        {"first": first, "weights": net.state_dict(), "history": history, "seen": seen},
        folder / f"end-{rank}.pt",
    )


def launch(kind, folder, processes=2, **options):
    """`train` in processes that find one another as torchrun's do; their exit codes and words."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    code += "from pathlib import Path; import test_processes; "
    code += f"test_processes.train({kind!r}, Path({str(folder)!r}), **{options!r})"
    started = []
    for rank in range(processes):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        place |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
        place = {name: str(value) for name, value in place.items()}
        started.append(
            subprocess.Popen([sys.executable, "-c", code], env=os.environ | place,
                             stderr=subprocess.PIPE, text=True)
        )  # fmt: skip
    words = [process.communicate(timeout=120)[1] for process in started]
    return [process.returncode for process in started], words


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """What each kind of run ends with on two processes and on one."""
    found = {}
    for kind in KINDS:
        many, one = tmp_path_factory.mktemp("many"), tmp_path_factory.mktemp("one")
        codes, words = launch(kind, many)
        assert codes == [0, 0], words
        train(kind, one)
        found[kind] = [torch.load(many / f"end-{rank}.pt") for rank in range(2)]
        found[kind] += [torch.load(one / "end-0.pt"), many]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_make_the_steps_of_one(kind, ends):
    """The same averaged gradient in the first step, the same weights after all."""
    left, right, one, _ = ends[kind]
    assert one["first"].keys() == left["first"].keys() and len(one["first"]) > 4
    for name, gradient in one["first"].items():
        assert torch.equal(left["first"][name], right["first"][name])
        torch.testing.assert_close(left["first"][name], gradient, rtol=1e-4, atol=1e-7)
    for name, weight in one["weights"].items():
        assert torch.equal(left["weights"][name], right["weights"][name])
        torch.testing.assert_close(left["weights"][name], weight, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(left["history"], one["history"], strict=True):
        for key, value in theirs.items():
            assert ours[key] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_no_shape_is_shown_twice_in_an_epoch(kind, ends):
    left, right, one, _ = ends[kind]
    for epoch in range(OPTIM.epochs):
        shown = [i for part in (left, right) for e, own in part["seen"] if e == epoch for i in own]
        shown = torch.stack(shown).tolist()
        assert len(set(shown)) == len(shown)
        alone = torch.cat([own for e, own in one["seen"] if e == epoch]).tolist()
        assert sorted(shown) == sorted(alone)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_two_processes_goes_on_on_one(kind, ends, tmp_path):
    """Three epochs on two, then two more on one: as five on one from the start."""
    import shutil

    shutil.copytree(ends[kind][3] / "checkpoint", tmp_path / "checkpoint")
    assert checkpoint.load(tmp_path / "checkpoint")[1]["epoch"] == 3
    train(kind, tmp_path, epochs=5, extend=True)
    ours = torch.load(tmp_path / "end-0.pt")
    assert [entry["epoch"] for entry in ours["history"]] == [1, 2, 3, 4, 5]
    assert {epoch for epoch, _ in ours["seen"]} == {3, 4}


def test_a_loss_that_is_not_finite_in_one_process_stops_both(tmp_path):
    codes, words = launch("pretrain", tmp_path / "spoiled", spoil=True)
    assert codes == [1, 1]
    for told in words:
        assert "the loss is nan at step 4: lower optim.lr" in told
