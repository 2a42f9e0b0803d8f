"""Presets: the paper's text, its authors' code, and two small configurations for a CPU (section 4).

A preset is a frozen dataclass of frozen dataclasses. `build` changes single fields by their dotted
name, which is how the experiments express an ablation: ``{"corruption.perturbation.sigma": 0.1}``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from serplib.perturbation import Perturbation
from serplib.point_mae import PointMAEConfig
from serplib.pointnet import PointNetConfig
from serplib.pretext import Augmentation, Corruption
from serplib.transformer import TransformerConfig
from serplib.validation import Share, change_fields, check_fields
from serplib.vasp import VaspConfig


@dataclass(frozen=True)
class Optim:
    """Optimisation with AdamW: learning rate schedule, epochs, batch size (section 4.1).

    Attributes:
        epochs: passes over the training clouds.
        batch_size: clouds per step, over all processes.
        lr: initial learning rate.
        final_lr: learning rate at the end of ``"cosine"``.
        weight_decay: AdamW's, on every parameter.
        schedule: ``"cosine"``, or ``"step"``: times ``step_gamma`` at multiples of ``step_epochs``.
        warmup_epochs: epochs over which the rate rises linearly to ``lr``; may be a fraction.
        clip_norm: largest norm of the whole gradient; None for no clipping.
    """

    epochs: PositiveInt = 300
    batch_size: PositiveInt = 128
    lr: NonNegativeFloat = 1e-3
    final_lr: NonNegativeFloat = 0.0
    weight_decay: NonNegativeFloat = 0.01
    schedule: Literal["cosine", "step"] = "cosine"
    step_epochs: PositiveInt = 20
    step_gamma: PositiveFloat = 0.5
    warmup_epochs: NonNegativeFloat = 0.0
    clip_norm: PositiveFloat | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs}: must be at most epochs, {self.epochs}"
            )


@dataclass(frozen=True)
class Finetune:
    """The classifier on top of an encoder, and its training (section 4.2).

    Attributes:
        optim: optimisation of encoder and head.
        head_widths: hidden layers, each with BatchNorm, ReLU and dropout.
        dropout: probability of a zero in the hidden layers.
        augment: as in `Corruption`.
        label_smoothing: probability spread evenly over all classes in the target.
        freeze: train the head alone on a frozen encoder.
    """

    optim: Optim = Optim(lr=1e-4, weight_decay=1e-3)
    head_widths: tuple[PositiveInt, ...] = (256, 256)
    dropout: Share = 0.5
    augment: Augmentation = "none"
    label_smoothing: Share = 0.0
    freeze: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Preset:
    """All settings of an experiment except data and seed."""

    name: str
    corruption: Corruption = Corruption()
    pointnet: PointNetConfig = PointNetConfig()
    transformer: TransformerConfig = TransformerConfig()
    vasp: VaspConfig = VaspConfig()
    masked: PointMAEConfig = PointMAEConfig()
    pretrain_pointnet: Optim = Optim(epochs=100)
    pretrain_transformer: Optim = Optim(epochs=300)
    finetune: Finetune = Finetune()


PAPER = Preset("paper")

AUTHORS_CODE = Preset(
    "authors_code",
    corruption=Corruption(
        Perturbation(noise="rigid", overlap="last"),
        augment="scale_shift",
        subsample="random",
        normalize_after=True,
    ),
    pointnet=PointNetConfig(feature_transform=False, class_weights=(0.25, 0.75)),
    transformer=TransformerConfig(
        encoder_heads=6,
        qkv_bias=False,
        drop_path=0.1,
        encoder_norm=False,
        fusion="add",
        positions_every_block=True,
        decoder_positions=True,
        normalize="center",
        target_frame="own",
        cls_std=0.0,
        cls_position_std=1.0,
        head="pair",
        loss="union",
        pooling="cls_max",
    ),
    vasp=VaspConfig(codebook_size=512, alpha=0.25, beta=0.25, init="uniform"),
    pretrain_pointnet=Optim(epochs=100, weight_decay=0.05, schedule="step"),
    pretrain_transformer=Optim(epochs=300, weight_decay=0.05, final_lr=1e-6),
)

QUICK = Preset(
    "quick",
    pointnet=PointNetConfig(
        widths=(32, 64, 128),
        decoder_widths=(64, 64, 32, 32),
        input_transform=False,
        feature_transform=False,
    ),
    transformer=TransformerConfig(
        num_centers=24,
        patch_size=16,
        dim=48,
        latent_dim=96,
        encoder_depth=3,
        decoder_depth=1,
        encoder_heads=4,
        decoder_heads=4,
        token_widths=(32, 32, 64),
        pooling="cls_max",
    ),
    pretrain_pointnet=Optim(epochs=3, batch_size=32, warmup_epochs=0.5),
    pretrain_transformer=Optim(epochs=10, batch_size=32, warmup_epochs=0.5),
    finetune=Finetune(Optim(epochs=10, batch_size=32, lr=1e-3, weight_decay=1e-2), (64,), 0.3),
)

LAPTOP = replace(
    QUICK,
    name="laptop",
    pointnet=replace(QUICK.pointnet, widths=(64, 128, 256), decoder_widths=(128, 64, 64, 32)),
    transformer=replace(
        QUICK.transformer, num_centers=32, patch_size=32, encoder_depth=4, decoder_depth=2
    ),
    pretrain_pointnet=Optim(epochs=6, batch_size=64, warmup_epochs=0.5),
    pretrain_transformer=Optim(epochs=10, batch_size=32, weight_decay=0.05, warmup_epochs=0.5),
    finetune=Finetune(
        Optim(epochs=24, batch_size=32, weight_decay=0.05, warmup_epochs=1.0),
        head_widths=(256, 128),
        augment="scale_shift",
        label_smoothing=0.2,
    ),
)

PRESETS = {preset.name: preset for preset in (PAPER, AUTHORS_CODE, QUICK, LAPTOP)}


def build(name: str, changes: dict[str, object] | None = None) -> Preset:
    """Return a preset by name, with some fields changed.

    Args:
        name: ``"paper"``, ``"authors_code"``, ``"quick"`` or ``"laptop"``.
        changes: values by dotted name, such as ``{"corruption.perturbation.sigma": 0.1}``.

    Raises:
        ValueError: an unknown preset or field, or a value that the field does not accept.
    """
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}, wanted one of {sorted(PRESETS)}")
    return change_fields(PRESETS[name], changes or {})
