"""`serplib.checkpoint`: whole or absent, and nothing in it can run."""

import os
import pickle
import shutil

import pytest
import torch

from serplib import checkpoint
from serplib.classifier import autoencoder
from serplib.experiments.weights import load_module, save_module
from serplib.presets import build


def weights(value=1.0):
    return {"a.weight": torch.full((3, 4), value), "a.count": torch.tensor(7)}


def same(one, two):
    return one.keys() == two.keys() and all(
        one[k].dtype == two[k].dtype and torch.equal(one[k], two[k]) for k in one
    )


def test_what_is_saved_is_loaded(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "history": [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 1 / 3}],
    }
    given = {"model": network.state_dict(), "best": weights()}
    place = checkpoint.save(tmp_path / "new" / "run", 12, given, state)
    assert place == tmp_path / "new" / "run" / "step-00000012"
    assert sorted(p.name for p in place.iterdir()) == [
        "best.safetensors",
        "model.safetensors",
        "state.pt",
    ]
    loaded, back = checkpoint.load(tmp_path / "new" / "run")
    assert loaded.keys() == given.keys()
    assert all(same(loaded[name], given[name]) for name in given)
    assert back["step"] == 12 and back["epoch"] == 3 and back["history"] == state["history"]
    for key, moments in state["optimizer"]["state"].items():
        assert same(back["optimizer"]["state"][key], moments)
    assert "step" not in state  # the dict given is left alone


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).view(3, 4).T,  # not contiguous
        torch.arange(12.0)[::3],
        torch.ones(2, requires_grad=True),
        torch.tensor(5),
        torch.ones(2, dtype=torch.bfloat16),
        torch.zeros(0, 3),
    ],
)
def test_tensors_of_any_layout_survive(tmp_path, tensor):
    checkpoint.save_weights({"x": tensor}, tmp_path / "w.safetensors")
    back = checkpoint.load_weights(tmp_path / "w.safetensors")["x"]
    assert back.dtype == tensor.dtype and torch.equal(back, tensor.detach())
    assert not back.requires_grad


def test_only_the_newest_is_kept(tmp_path):
    for step in (1, 2, 10, 9):
        checkpoint.save(tmp_path, step, {"model": weights(step)}, {})
        assert [p.name for p in tmp_path.iterdir()] == [f"step-{step:08d}"]
    assert checkpoint.load(tmp_path)[0]["model"]["a.weight"][0, 0] == 9


def test_the_same_step_again_replaces(tmp_path):
    checkpoint.save(tmp_path, 4, {"model": weights(1), "best": weights(1)}, {"epoch": 1})
    checkpoint.save(tmp_path, 4, {"model": weights(2)}, {"epoch": 2})
    loaded, state = checkpoint.load(tmp_path)
    assert set(loaded) == {"model"} and loaded["model"]["a.weight"][0, 0] == 2
    assert state["epoch"] == 2


def test_nothing_there_is_none(tmp_path):
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.load(tmp_path / "never") is None
    (tmp_path / "step-00000003").write_text("a file, not a folder")
    assert checkpoint.load(tmp_path) is None


def crash(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("module", "name"), [(torch, "save"), (checkpoint, "save_file"), (checkpoint.os, "replace")]
)
def test_a_crash_while_saving_leaves_the_old_one(tmp_path, monkeypatch, module, name):
    """In the middle of the state, of the weights, and just before the rename."""
    checkpoint.save(tmp_path, 1, {"model": weights(1)}, {"epoch": 1})
    with monkeypatch.context() as broken:
        broken.setattr(module, name, crash)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 2, {"model": weights(2)}, {"epoch": 2})
    assert (tmp_path / "step-00000002.part").is_dir()  # the crash did leave something
    loaded, state = checkpoint.load(tmp_path)
    assert loaded["model"]["a.weight"][0, 0] == 1 and state["epoch"] == 1
    checkpoint.save(tmp_path, 2, {"model": weights(2)}, {"epoch": 2})  # and is no hindrance
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]
    assert checkpoint.load(tmp_path)[1]["epoch"] == 2


def test_a_crash_before_the_older_are_removed_keeps_the_newer(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"model": weights(1)}, {"epoch": 1})
    real = shutil.rmtree
    with monkeypatch.context() as broken:
        broken.setattr(
            checkpoint.shutil,
            "rmtree",
            lambda path, **k: crash() if path.name == "step-00000001" else real(path, **k),
        )
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 2, {"model": weights(2)}, {"epoch": 2})
    assert len(list(tmp_path.iterdir())) == 2
    assert checkpoint.load(tmp_path)[1]["epoch"] == 2


def test_a_folder_left_by_a_crash_alone_is_no_checkpoint(tmp_path):
    part = tmp_path / "step-00000005.part"
    part.mkdir()
    (part / "model.safetensors").write_bytes(b"half")
    assert checkpoint.load(tmp_path) is None


def test_weights_are_written_beside_and_renamed(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    checkpoint.save_weights(weights(1), path)
    with monkeypatch.context() as broken:
        broken.setattr(checkpoint.os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save_weights(weights(2), path)
    assert checkpoint.load_weights(path)["a.weight"][0, 0] == 1
    checkpoint.save_weights(weights(3), path)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_truncated_weights_are_named(tmp_path, keep):
    place = checkpoint.save(tmp_path, 1, {"model": weights()}, {})
    path = place / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors: not a whole safetensors file"):
        checkpoint.load_weights(path)
    with pytest.raises(ValueError, match=r"step-00000001/model\.safetensors.*delete it"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_damaged_state_is_named(tmp_path, damage):
    place = checkpoint.save(tmp_path, 1, {"model": weights()}, {"epoch": 1})
    path = place / "state.pt"
    path.write_bytes(path.read_bytes()[:200] if damage is None else damage)
    with pytest.raises(ValueError, match=r"step-00000001/state\.pt"):
        checkpoint.load(tmp_path)


def test_missing_weights_are_named_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"none\.safetensors: no such file.*pre-training first"):
        checkpoint.load_weights(tmp_path / "none.safetensors")


class Exploit:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_state_does_not_run(tmp_path, how):
    place = checkpoint.save(tmp_path, 1, {"model": weights()}, {})
    trap = tmp_path / "trap"
    if how == "torch":
        torch.save({"history": Exploit(trap)}, place / "state.pt")
    else:
        (place / "state.pt").write_bytes(pickle.dumps(Exploit(trap)))
    with pytest.raises(ValueError, match=r"state\.pt: not a whole state"):
        checkpoint.load(tmp_path)
    assert not trap.exists()
    torch.load(place / "state.pt", weights_only=False) if how == "torch" else pickle.loads(
        (place / "state.pt").read_bytes()
    )
    assert trap.exists()  # it would have run


# ---------------------------------------------------------------- weights of another model


def network(model="transformer", preset="quick", **changes):
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    torch.manual_seed(1)
    return autoencoder(build(preset, changes), model)


OTHER_MODELS = {  # saved, loaded, message; names of settings with __ for dots
    "another preset": (network().encoder, lambda: network(preset="laptop").encoder,
                       r"blocks\.3\.norm1\.weight is absent in the file and \(96,\) in the model"),
    "another width": (network().encoder, lambda: network(transformer__dim=96).encoder,
                      r"embedding\.cls is \(1, 1, 48\) in the file and \(1, 1, 96\) in .*dim=48"),
    "another model": (network().encoder, lambda: network("pointnet").encoder,
                      r"not weights of this PointNetEncoder: .*: TransformerEncoder"),
    "fewer parts": (network("vasp"), lambda: network(),
                    r"bottleneck\.\w+ is \(.*\) in the file and absent in the model"),
    "another codebook": (network("vasp"), lambda: network("vasp", vasp__codebook_size=64),
                         r"codebook is \(512, 96\) in the file .* vasp\.codebook_size=512"),
    # the shapes of all weights agree
    "other heads": (network().encoder, lambda: network(transformer__encoder_heads=8).encoder,
                    r"encoder_heads is 4 in the file and 8 in the model"),
    "another frame": (network().encoder, lambda: network(transformer__normalize="center").encoder,
                      r"normalize is 'mean_std' in the file and 'center' in the model"),
    "another target": (network("pointnet"), lambda: network("pointnet", pointnet__task="cdl2"),
                       r"task is 'delta' in the file and 'cdl2' in the model"),
    "decoder heads": (network(), lambda: network(transformer__decoder_heads=8),
                      r"decoder_heads is 4 in the file and 8 in the model"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_weights_of_another_model_are_refused_with_the_difference(name, tmp_path):
    saved, make, message = OTHER_MODELS[name]
    save_module(saved, tmp_path / "weights.safetensors")
    loaded = make()
    before = {key: tensor.clone() for key, tensor in loaded.state_dict().items()}
    with pytest.raises(ValueError, match=message) as error:
        load_module(loaded, tmp_path / "weights.safetensors")
    assert "\n" not in str(error.value) and "build the model with the preset" in str(error.value)
    assert same(before, loaded.state_dict())


@pytest.mark.parametrize(
    "changes", [{}, {"transformer__pooling": "cls"}, {"transformer__drop_path": 0.2},
                {"transformer__decoder_heads": 8}, {"transformer__num_centers": 12}]
)  # fmt: skip
def test_an_encoder_is_loaded_where_only_its_use_differs(changes, tmp_path):
    saved = network("vasp").encoder
    save_module(saved, tmp_path / "new" / "encoder.safetensors")
    loaded = network(**changes).encoder
    load_module(loaded, tmp_path / "new" / "encoder.safetensors")
    assert same(saved.state_dict(), loaded.state_dict())


def test_weights_without_settings_are_compared_by_shape(tmp_path):
    saved = network().encoder
    checkpoint.save_weights(saved.state_dict(), tmp_path / "plain.safetensors")
    loaded = network(transformer__normalize="center").encoder
    load_module(loaded, tmp_path / "plain.safetensors")
    assert same(saved.state_dict(), loaded.state_dict())
    with pytest.raises(ValueError, match=r"norm1\.weight is absent.*: not recorded"):
        load_module(network(preset="laptop").encoder, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="no such file of weights"):
        load_module(loaded, tmp_path / "missing.safetensors")
