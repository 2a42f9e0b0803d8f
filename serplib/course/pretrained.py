"""The trained models in ``notebooks/weights``, made by the suite ``weights``.

After ``serp run weights``, ``python -m serplib.course.pretrained`` writes one float16 safetensors
file per model, and ``cards.json``: where it comes from, what it was trained on, and what it scores.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from serplib import presets
from serplib.classifier import autoencoder
from serplib.data import load
from serplib.evaluation.reconstruction import restoration
from serplib.experiments import records, suites
from serplib.experiments.weights import load_module, save_module
from serplib.pretext import Pretext

FOLDER = records.project_root() / "notebooks" / "weights"


def pretrained(name: str, folder: Path = FOLDER) -> tuple[Pretext, dict[str, Any]]:
    """Load a trained autoencoder and its pretext task.

    Args:
        name: of a card, such as ``"pointnet-restore"``.
        folder: of the weights and ``cards.json``.

    Returns:
        The task (in evaluation mode; ``task.model`` is the autoencoder, ``task.model.encoder`` its
        encoder), and the card.

    Raises:
        ValueError: no such model, or a file that is not the one of its card.
    """
    cards = records.read_json(folder / "cards.json")
    if name not in cards:
        raise ValueError(f"no trained model {name!r}, wanted one of {sorted(cards)}")
    card, path = cards[name], folder / f"{name}.safetensors"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != card["sha256"]:
        raise ValueError(f"{path}: sha256 is {found}, the card says {card['sha256']}")
    settings = presets.build(card["preset"], card["changes"])
    model = autoencoder(settings, card["model"])
    load_module(model, path)
    return Pretext(model, settings.corruption).eval(), card


def score_sample(task: Pretext) -> dict[str, float]:
    """Restore 64 built-in test shapes of seed 0: the figures of a card."""
    return restoration(task, load("objects", "test", 64, seed=0).points, seed=0)


def export(folder: Path = FOLDER) -> None:
    """Write the weights and cards of all finished pre-trainings of the suite ``weights``."""
    cards = {}
    for run in suites.plan("weights"):
        if run.notebook != "pretrain" or not run.finished():
            continue
        record = records.read_json(run.folder / "record.json")
        parameters = record["parameters"]
        settings = presets.build(parameters["preset"], parameters["changes"])
        model: nn.Module = autoencoder(settings, parameters["model"])
        load_module(model, run.folder / "autoencoder.safetensors")
        path = folder / f"{run.name}.safetensors"
        save_module(model, path, torch.float16)
        cards[run.name] = card = {
            "label": run.about["label"],
            **{key: parameters[key] for key in ("model", "preset", "changes", "seed")},
            "command": "serp run weights && python -m serplib.course.pretrained",
            "run": run.hash,
            "data": record["data"],
            "environment": record["environment"],
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        records.write_json(folder / "cards.json", cards)
        task, _ = pretrained(run.name, folder)
        card["restoration"] = score_sample(task)
        records.write_json(folder / "cards.json", cards)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    export()
