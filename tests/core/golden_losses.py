"""Losses of the first 20 training steps of each model, to see a change of learning.

After a change of code that is meant to change learning, write them again from the project's folder:
``python -m tests.core.golden_losses --renew``. After a change that is not, vouch for the new code:
``python -m tests.core.golden_losses --vouch`` compares the losses and adds the code's digest to
``notebooks/experiments/results/code.json``, so that records of the old code stay valid.
"""

import hashlib
import json
import platform
import re
import sys
from pathlib import Path

import torch

from serplib import accel, presets, training
from serplib.classifier import autoencoder
from serplib.data import load
from serplib.experiments import records
from serplib.pretext import Pretext

FILE = Path(__file__).with_suffix(".json")
TOLERANCE = 0.06  # relative; measured: 0.021 without Numba and without vector instructions
STEPS, BATCH, VALID = 20, 8, 4
TINY = {
    "corruption.num_points": 128,
    "corruption.perturbation.num_patches": 4,
    "corruption.perturbation.patch_size": 8,
    "transformer.num_centers": 8,
    "transformer.patch_size": 16,
    "transformer.encoder_depth": 2,
}
TINY |= {f"pretrain_{kind}.epochs": STEPS for kind in ("pointnet", "transformer")}
TINY |= {f"pretrain_{kind}.batch_size": BATCH for kind in ("pointnet", "transformer")}
CASES = {  # model, and further changes of the preset "quick"
    "pointnet, delta": ("pointnet", {"pointnet.task": "delta"}),
    "pointnet, cd-l2": ("pointnet", {"pointnet.task": "cdl2"}),
    "transformer": ("transformer", {}),
    "vasp": ("vasp", {}),
    "masked": ("masked", {}),
}


def losses(case: str, **changes: object) -> dict[str, list[float]]:
    """Pre-train for 20 epochs of one batch: total loss of each step, and of validation after it.

    Args:
        case: a key of `CASES`.
        changes: further changes of the preset, a double underscore for a dot.
    """
    model, own = CASES[case]
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    settings = presets.build("quick", TINY | own | dotted)
    optim = settings.pretrain_pointnet if model == "pointnet" else settings.pretrain_transformer
    clouds = load("objects", "train", num_shapes=BATCH + VALID, num_points=256).points
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums are split by thread
    torch.manual_seed(0)
    try:
        task = Pretext(autoencoder(settings, model, total_steps=STEPS), settings.corruption)
        history = training.pretrain(task, clouds[:BATCH], clouds[BATCH:], optim, seed=0)
    finally:
        torch.set_num_threads(threads)
    return {key: [entry[f"{key}_total"] for entry in history] for key in ("train", "valid")}


def machine() -> dict[str, str]:
    """Describe what rounding depends on: processor family, instructions, torch, compiled parts."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    family = re.findall(r"^(?:vendor_id|cpu family)\s*: (.*)$", text, re.MULTILINE)[:2]
    return {
        "processor": " ".join(family) or platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numba": accel.status().detail,
    }


def main() -> None:
    """Print the largest relative difference of each case; renew or vouch as asked."""
    found = {case: losses(case) for case in CASES}
    if sys.argv[1:] == ["--renew"]:
        content = {"machine": machine(), "losses": found}
        FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    kept = json.loads(FILE.read_text(encoding="utf-8"))["losses"]
    differences = {case: difference(found[case], kept[case]) for case in kept}
    for case, relative in differences.items():
        print(f"{case}: {relative:.2e}")
    if sys.argv[1:] and max(differences.values()) < TOLERANCE:
        path = records.results_folder() / "code.json"
        known = records.read_json(path) if path.exists() else {}
        records.write_json(path, known | {records.code_digest(): losses_digest()})


def losses_digest() -> str:
    """Return the start of the sha256 of the losses in the file."""
    kept = json.loads(FILE.read_text(encoding="utf-8"))["losses"]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16]


def difference(found: dict[str, list[float]], kept: dict[str, list[float]]) -> float:
    """Return the largest relative difference between two results of `losses`."""
    return max(abs(a / b - 1) for key in kept for a, b in zip(found[key], kept[key], strict=True))


if __name__ == "__main__":
    main()
