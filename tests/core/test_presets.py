"""`serplib.presets`: the paper's numbers, the authors', and how single settings are changed."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from serplib.classifier import MODELS, Classifier, autoencoder
from serplib.perturbation import Perturbation
from serplib.pointnet import PointNetConfig
from serplib.presets import AUTHORS_CODE, PAPER, PRESETS, QUICK, Finetune, Optim, build
from serplib.pretext import Corruption
from serplib.transformer import TransformerConfig

# preset, model: parameters of the autoencoder, of its encoder, of encoder and head for 40 classes
PARAMETERS = {
    ("paper", "pointnet"): (3_544_526, 2_803_529, 3_143_025),
    ("paper", "transformer"): (93_032_160, 85_896_576, 86_072_232),
    ("authors_code", "pointnet"): (1_687_182, 946_185, 1_285_681),
    ("authors_code", "transformer"): (28_992_864, 21_825_024, 22_098_984),
    ("quick", "pointnet"): (29_157, 11_008, 21_992),
    ("quick", "transformer"): (386_544, 351_168, 366_248),
    ("laptop", "pointnet"): (98_821, 42_496, 147_112),
    ("laptop", "transformer"): (529_008, 463_008, 551_240),
}


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("name", "model"), PARAMETERS)
def test_number_of_parameters(name, model):
    preset = PRESETS[name]
    network = autoencoder(preset, model)
    head = preset.finetune
    classifier = Classifier(network.encoder, 40, head.head_widths, head.dropout)
    got = count(network), count(network.encoder), count(classifier)
    assert got == PARAMETERS[name, model]


def test_parameters_of_a_paper_block_by_hand():
    """Attention 4 D^2 + 4 D, MLP 8 D^2 + 5 D, two norms 4 D, for the width D = 2d = 768."""
    width = 2 * 384
    block = 12 * width**2 + 13 * width
    encoder = PARAMETERS["paper", "transformer"][1]
    token = 3 * 128 + 128 + 2 * 128 + 128 * 256 + 256 + 2 * 256 * 512 + 512 + 2 * 512
    token += 512 * 384 + 384
    position = 3 * 128 + 128 + 128 * 384 + 384
    rest = 2 * 384 + 2 * width + width * 384 + 384  # [CLS] and its position, norm, down to l
    assert encoder == 12 * block + token + position + rest


def test_there_are_a_preset_for_each_model_and_no_more():
    assert set(PRESETS) == {"paper", "authors_code", "quick", "laptop"}
    assert {name for name, _ in PARAMETERS} == set(PRESETS)
    assert set(MODELS) == {"pointnet", "transformer", "vasp", "masked"}
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert build(name) == preset


# ---------------------------------------------------------------- the paper's numbers


def test_the_papers_numbers():
    p = PAPER
    assert p.corruption == Corruption(
        Perturbation(20, 20, 0.03, "random", "iid"), "none", "fps", 1024, False
    )
    t = p.transformer
    assert (t.num_centers, t.patch_size, t.dim, t.latent_dim) == (64, 32, 384, 384)
    assert (t.fusion, t.normalize, t.head, t.loss) == ("concat", "mean_std", "token", "patch")
    assert (t.decoder_positions, t.positions_every_block, t.pooling) == (False, False, "cls")
    assert (p.pretrain_pointnet.epochs, p.pretrain_transformer.epochs) == (100, 300)
    for optim in (p.pretrain_pointnet, p.pretrain_transformer):
        assert (optim.lr, optim.batch_size, optim.schedule) == (0.001, 128, "cosine")
        assert (optim.final_lr, optim.warmup_epochs, optim.clip_norm) == (0.0, 0.0, None)
    assert (p.pointnet.alpha_cls, p.pointnet.alpha_rec) == (0.001, 1.5)


def test_defaults_are_the_papers():
    assert PAPER.pointnet == PointNetConfig()
    assert PAPER.transformer == TransformerConfig()
    assert PAPER.corruption == Corruption()


def flat(config, before=""):
    """All settings by dotted name."""
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= flat(value, f"{before}{field.name}.")
        else:
            found[before + field.name] = value
    return found


def test_where_the_authors_code_differs_from_the_paper():
    """The whole list: a difference that is added or lost must be added or lost here."""
    paper, authors = flat(PAPER), flat(AUTHORS_CODE)
    different = {n: (paper[n], authors[n]) for n in paper if paper[n] != authors[n]}
    assert different == {
        "name": ("paper", "authors_code"),
        "corruption.perturbation.noise": ("iid", "rigid"),
        "corruption.augment": ("none", "scale_shift"),
        "corruption.subsample": ("fps", "random"),
        "corruption.normalize_after": (False, True),
        "pointnet.feature_transform": (True, False),
        "pointnet.class_weights": ((1.0, 1.0), (0.25, 0.75)),
        "transformer.encoder_heads": (12, 6),
        "transformer.qkv_bias": (True, False),
        "transformer.drop_path": (0.0, 0.1),
        "transformer.encoder_norm": (True, False),
        "transformer.fusion": ("concat", "add"),
        "transformer.positions_every_block": (False, True),
        "transformer.decoder_positions": (False, True),
        "transformer.normalize": ("mean_std", "center"),
        "transformer.target_frame": ("input", "own"),
        "transformer.cls_std": (0.02, 0.0),
        "transformer.cls_position_std": (0.02, 1.0),
        "transformer.head": ("token", "pair"),
        "transformer.loss": ("patch", "union"),
        "transformer.pooling": ("cls", "cls_max"),
        "vasp.alpha": (1.0, 0.25),
        "vasp.init": ("small", "uniform"),
        "pretrain_pointnet.weight_decay": (0.01, 0.05),
        "pretrain_pointnet.schedule": ("cosine", "step"),
        "pretrain_transformer.weight_decay": (0.01, 0.05),
        "pretrain_transformer.final_lr": (0.0, 1e-6),
    }


def test_the_authors_schedules():
    assert (AUTHORS_CODE.pretrain_pointnet.step_epochs, AUTHORS_CODE.pretrain_pointnet.step_gamma)\
        == (20, 0.5)  # fmt: skip
    tuned = AUTHORS_CODE.finetune
    assert (tuned.optim.lr, tuned.optim.weight_decay, tuned.optim.epochs) == (1e-4, 1e-3, 300)
    assert (tuned.head_widths, tuned.dropout, tuned.augment) == ((256, 256), 0.5, "none")


@torch.no_grad()
@pytest.mark.parametrize("model", MODELS)
def test_quick_models_run(model):
    network = autoencoder(QUICK, model).eval()
    clouds = torch.randn(2, 1024, 3, generator=torch.Generator().manual_seed(0))
    assert network.encoder(clouds).shape == (2, network.encoder.feature_dim)
    assert QUICK.finetune.freeze is False


# ---------------------------------------------------------------- frozen


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_presets_cannot_be_changed(preset):
    def check(config):
        for field in dataclasses.fields(config):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(config, field.name, None)
            value = getattr(config, field.name)
            if dataclasses.is_dataclass(value):
                check(value)
            else:  # nothing inside it can be changed either
                assert isinstance(value, (int, float, str, tuple, type(None))), field.name

    check(preset)
    assert hash(preset) is not None


# ---------------------------------------------------------------- build


def test_build_changes_what_is_named_and_nothing_else():
    before = flat(PAPER)
    changed = build("paper", {"corruption.perturbation.sigma": 0.1, "transformer.dim": 96})
    after = flat(changed)
    assert {n: after[n] for n in after if after[n] != before[n]} == {
        "corruption.perturbation.sigma": 0.1,
        "transformer.dim": 96,
    }
    assert flat(PAPER) == before  # the preset itself is as it was
    assert build("paper", {}) == build("paper", None) == PAPER


@pytest.mark.parametrize("order", [1, -1])
def test_build_changes_what_is_only_valid_together(order):
    """fusion='add' without positions_every_block is refused, and so is the reverse."""
    changes = {"transformer.fusion": "add", "transformer.positions_every_block": True}
    built = build("paper", dict(list(changes.items())[::order]))
    assert built.transformer.fusion == "add" and built.transformer.positions_every_block
    back = {"transformer.positions_every_block": False, "transformer.fusion": "concat"}
    assert build("authors_code", back).transformer.fusion == "concat"
    with pytest.raises(ValueError, match="positions_every_block=True"):
        build("paper", {"transformer.fusion": "add"})


def test_every_single_setting_can_be_set_to_what_it_is():
    for name, preset in PRESETS.items():
        for dotted, value in flat(preset).items():
            assert build(name, {dotted: value}) == preset
        assert build(name, flat(preset)) == preset


def test_every_difference_of_the_authors_can_be_built_from_the_paper():
    assert build("paper", flat(AUTHORS_CODE)) == AUTHORS_CODE


def test_build_takes_what_yaml_and_json_give():
    built = build(
        "quick",
        {
            "pointnet.widths": [8, 16, 32],  # a list for a tuple
            "pretrain_pointnet.lr": 1,  # a whole number for a float
            "pretrain_pointnet.clip_norm": 1,  # ... also where None is the default
            "finetune.head_widths": [],
        },
    )
    assert built.pointnet.widths == (8, 16, 32)
    for value in (built.pretrain_pointnet.lr, built.pretrain_pointnet.clip_norm):
        assert value == 1.0 and type(value) is float
    assert built.finetune.head_widths == ()
    assert build("quick", {"pretrain_pointnet.clip_norm": None}) == QUICK
    assert hash(built) is not None
    swept = build("quick", {"corruption.perturbation.sigma": np.float32(0.5),
                            "transformer.dim": np.int64(96)})  # fmt: skip
    json.dumps(dataclasses.asdict(swept))  # NumPy scalars became Python numbers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": 0.1}, r"no setting 'sigma': Preset has \['name', 'corruption'"),
        ({"corruption.sigma": 0.1}, r"no setting 'corruption\.sigma': Corruption has"),
        (
            {"corruption.perturbation.sigmas": 0.1},
            r"no setting 'corruption\.perturbation\.sigmas': Perturbation has \['num_patches'",
        ),
        ({"corruption": None}, "'corruption' is a group of settings"),
        ({"corruption.perturbation": 3}, r"'corruption\.perturbation' is a group of settings"),
        ({"transformer.dim.x": 3}, r"no setting 'transformer\.dim\.x': 'dim' has no fields"),
        ({"": 3}, "no setting ''"),
        ({"transformer.": 3}, "'transformer.'"),
        ({"transformer.dim": "wide"}, r"transformer\.dim is 'wide': must be a valid integer"),
        ({"transformer.dim": 96.0}, r"transformer\.dim is 96\.0: must be a valid integer"),
        ({"transformer.dim": True}, r"transformer\.dim is True: must be a valid integer"),
        ({"transformer.dim": None}, r"transformer\.dim is None: must be a valid integer"),
        ({"transformer.qkv_bias": 1}, r"transformer\.qkv_bias is 1: must be a valid boolean"),
        ({"transformer.fusion": 1}, r"transformer\.fusion is 1: must be "),
        (
            {"corruption.perturbation.sigma": "x"},
            r"\.sigma is 'x': must be a valid number$",
        ),
        ({"corruption.perturbation.sigma": True}, r"sigma is True: must be a valid number$"),
        ({"corruption.perturbation.sigma": None}, r"sigma is None: must be a valid number$"),
        ({"pretrain_pointnet.lr": None}, r"pretrain_pointnet\.lr is None: must be a valid number$"),
        ({"pretrain_pointnet.clip_norm": "1"}, r"clip_norm is '1': must be a valid number or None"),
        ({"pointnet.widths": 3}, r"pointnet\.widths is 3: must be a valid tuple"),
        ({"pointnet.widths": [8, 16]}, r"pointnet\.widths is \[8, 16\]: item 2: Field required"),
        ({"pointnet.widths": [8, 16, 3.5]}, r"widths is .*: item 2: must be a valid integer"),
        ({"pretrain_pointnet.lr": float("nan")}, "lr is nan: must be a finite number"),
        ({"transformer.pooling": "mean"}, "pooling is 'mean'"),
        ({"transformer.normalize": "mean"}, "normalize is 'mean'"),
        ({"corruption.augment": "flip"}, "augment is 'flip': must be 'none' or 'scale_shift'"),
        ({"corruption.subsample": "first"}, "subsample is 'first'"),
        ({"finetune.augment": "flip"}, "augment is 'flip'"),
        (
            {"pretrain_pointnet.schedule": "linear"},
            "schedule is 'linear': must be 'cosine' or 'step'",
        ),
        ({"pretrain_pointnet.epochs": 0}, "epochs is 0: must be greater than 0"),
        ({"pretrain_pointnet.batch_size": 0}, "batch_size is 0"),
        ({"pretrain_pointnet.step_epochs": 0}, "step_epochs is 0"),
        ({"pretrain_pointnet.warmup_epochs": 101}, r"warmup_epochs is 101\.0: must be at most epo"),
        ({"corruption.perturbation.sigma": -1.0}, r"sigma is -1\.0"),
        # else torch, or a later run of the suite, would refuse these after a training
        ({"finetune.dropout": 1.5}, r"dropout is 1\.5: must be less than 1"),
        ({"finetune.label_smoothing": 2.0}, r"label_smoothing is 2\.0: must be less than 1"),
        ({"vasp.ema": 1.5}, r"ema is 1\.5: must be less than 1 or None"),
        ({"vasp.restart": 3.0}, r"restart is 3\.0: must be less than 1 or None"),
        ({"vasp.levels": [1, 8]}, "levels is .*: item 0: must be greater than or equal to 2"),
        ({"vasp.levels": []}, "levels is .*at least 1 item"),
        ({"vasp.bottleneck": "dvae", "vasp.temperature": 0.01}, "final one not above the first"),
        ({"vasp.bottleneck": "vae", "vasp.rate": 3.0, "vasp.free_bits": 0.1}, r"rate is 3\.0"),
        ({"transformer.drop_path": 1.0}, r"drop_path is 1\.0: must be less than 1"),
        ({"transformer.encoder_heads": 7}, "encoder_heads is 7: must divide .* width 768"),
        ({"transformer.decoder_heads": 5}, "decoder_heads is 5: must divide .* width 384"),
        ({"pointnet.class_weights": [-1, 1]}, "class_weights is .*: item 0: must be greater"),
        ({"pointnet.widths": [8, 0, 5]}, "widths is .*: item 1: must be greater than 0"),
        ({"pointnet.decoder_widths": [8, 8, 8, -1]}, "item 3: must be greater than 0"),
        ({"pointnet.transform_widths": [0, 8, 8, 8, 8]}, "item 0: must be greater than 0"),
    ],
)
def test_build_names_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        build("paper", changes)
    assert "\n" not in str(error.value)


def test_an_unknown_preset_and_model_are_named():
    with pytest.raises(ValueError, match=r"preset is 'fast', wanted one of \['authors_code'"):
        build("fast")
    with pytest.raises(ValueError, match="model is 'vit', wanted one of"):
        autoencoder(PAPER, "vit")


def test_groups_check_themselves():
    for call, message in (
        (lambda: Optim(schedule="poly"), "schedule is 'poly'"),
        (lambda: Corruption(augment="mirror"), "augment is 'mirror'"),
        (lambda: Finetune(head_widths=(64, 0)), r"head_widths is \(64, 0\): item 1: must be gr"),
        (lambda: Finetune(Optim(lr=True)), "lr is True: must be a valid number"),
        (lambda: Corruption(Corruption()), "perturbation is Corruption.* must be an instance of"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
