"""The data of the explorers on the page "Try it" (explore.md).

`make site` writes them as scripts: the shapes, the clouds that a stored model restores, and the
weights of two stored models (1.4 MB each), with which restore.js restores other clouds.
Training codebooks takes too long for that: `python notebooks/site/states.py` writes their states to
codebook.json, which is committed. tests/course/test_site.py trains again and says whether it is
stale.
"""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from serplib.course.pretrained import FOLDER, pretrained
from serplib.course.widgets import explore_denoising
from serplib.data import load
from serplib.geometry import farthest_point_sample, gather
from serplib.perturbation import Perturbation
from serplib.seeding import named_generator, named_seed
from serplib.transformer import TransformerConfig
from serplib.vasp import Vasp, VaspConfig

CODEBOOK = Path(__file__).with_name("codebook.json")
SHAPES = ("airplane", "chair", "guitar", "lamp", "table", "toilet")
RESTORED = ("airplane", "chair", "lamp", "toilet")
MODELS = ("transformer-restore", "transformer-affine")
SIGMAS = (0.03, 0.05, 0.1, 0.15, 0.2)
UNIT = 2e-4  # of the 16-bit coordinates, in unit-sphere radii

# The small networks of notebook 07, section 9.
K, POINTS, STEPS, EVERY = 64, 512, 150, 10
SMALL = TransformerConfig(
    num_centers=16, patch_size=16, dim=32, latent_dim=32, encoder_depth=2, decoder_depth=1,
    encoder_heads=4, decoder_heads=4, mlp_ratio=2, token_widths=(32, 32, 64),
)  # fmt: skip
TRAININGS = {
    "cured": VaspConfig(codebook_size=K, init="kmeans", ema=0.95, restart=0.1),
    "authors": VaspConfig(codebook_size=K, alpha=0.25, beta=0.25, init="uniform"),
    "paper": VaspConfig(codebook_size=K),
}


def shapes() -> dict[str, list[list[float]]]:
    """Return one built-in test shape of each name: 1,024 points, rounded to 0.001 radii."""
    found = load("objects", "test", num_shapes=len(SHAPES) * 30)
    assert found.labels is not None
    clouds = {}
    for name in SHAPES:
        cloud = found.points[found.labels == found.classes.index(name)][0]  # (N, 3)
        clouds[name] = [[round(value, 3) for value in point] for point in cloud.tolist()]
    return clouds


def _pack(points: Tensor) -> str:
    """Write points ``(N, 3)`` as base64 of 16-bit integers."""
    whole = (points / UNIT).round().clamp(-(2**15), 2**15 - 1)
    return base64.b64encode(whole.numpy().astype("<i2").tobytes()).decode()


@torch.no_grad()
def denoising() -> dict[str, Any]:
    """Perturb and restore shapes, with the noise that ``transformer-restore`` was trained on.

    The noise of a shape is the same at each sigma but for its size: ``shift`` is that of sigma 1.
    """
    task, _ = pretrained("transformer-restore")
    noise, clouds = task.corruption.perturbation, shapes()
    states = {}
    for name in RESTORED:
        cloud = torch.tensor(clouds[name])  # (N, 3)
        restored = {}
        for sigma in (1.0, *SIGMAS):
            setting = replace(noise, sigma=sigma)
            shown = explore_denoising(cloud, setting, {"model": task.model}, seed=0)
            if sigma == 1:
                shift = _pack(shown.perturbed - cloud)
            else:
                restored[str(sigma)] = _pack(shown.restored["model"])
        states[name] = {"shift": shift, "restored": restored}
    return {"unit": UNIT, "sigmas": SIGMAS, "shapes": states}


def codebook() -> dict[str, Any]:
    """Train three codebooks on 120 built-in shapes, and look up codes on the way.

    ``trainings`` has a state every ``EVERY`` steps: ``counts`` of the codes over the patches of 60
    held-out shapes, and ``codes`` of the patches of each shape of the page. ``losses`` are those of
    the first ten steps.
    """
    train, held_out = load("objects", "train", 120, POINTS), load("objects", "test", 60, POINTS)
    whole = torch.tensor(list(shapes().values()))  # (6, 1024, 3)
    points = gather(whole, farthest_point_sample(whole, POINTS))  # (6, N, 3)
    perturb = Perturbation(num_patches=8, patch_size=16, sigma=0.1)
    trainings, losses = {}, {}
    for name, vasp in TRAININGS.items():
        torch.manual_seed(named_seed(0, "weights"))
        model, generator = Vasp(SMALL, vasp), named_generator(0, "training")
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        trainings[name], losses[name] = [], []
        for step in range(STEPS + 1):
            if step % EVERY == 0:
                model.eval()
                held, shown = (
                    model.codes(of)[:, 1:] for of in (held_out.points, points)
                )  # no [CLS]
                counts = held.flatten().bincount(minlength=K).tolist()
                trainings[name].append({"counts": counts, "codes": shown.tolist()})
                model.train()
            which = torch.randint(len(train), (16,), generator=generator)  # (B,)
            clean = train.points[which]  # (B, N, 3)
            bent = perturb(clean, generator)
            loss = model.losses(bent.points, clean, bent.touched)["total"]
            optimizer.zero_grad()
            cast(Any, loss).backward()
            optimizer.step()
            if step < 10:
                losses[name].append(round(loss.item(), 5))
    sizes = {"points": POINTS, "patches": SMALL.num_centers, "size": SMALL.patch_size}
    steps = list(range(0, STEPS + 1, EVERY))
    return {"codes": K, **sizes, "steps": steps, "losses": losses, "trainings": trainings}


def write_scripts(folder: Path) -> None:
    """Write shapes.js, states.js and models.js."""
    folder.mkdir(exist_ok=True, parents=True)
    states = {"denoising": denoising(), "codebook": json.loads(CODEBOOK.read_text("utf-8"))}
    files = {name: FOLDER / f"{name}.safetensors" for name in MODELS}
    models = {name: base64.b64encode(file.read_bytes()).decode() for name, file in files.items()}
    for name, value in (("Shapes", shapes()), ("States", states), ("Models", models)):
        text = json.dumps(value, separators=(",", ":"))
        path = folder / f"{name.lower()}.js"
        path.write_text(f"const serp{name} = {text};\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    CODEBOOK.write_text(json.dumps(codebook(), separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{CODEBOOK}: {CODEBOOK.stat().st_size / 1e3:.0f} KB")
