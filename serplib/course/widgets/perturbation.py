"""The perturbation explorer (paper, section 3.1) and the denoising explorer (paper, figure 4)."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from serplib.course.widgets import common
from serplib.data import Clouds
from serplib.families import Affine, Drop, Family, Outliers
from serplib.geometry import chamfer_l2
from serplib.perturbation import Perturbation
from serplib.seeding import named_generator

Restore = Callable[[Tensor], Tensor]  # (B, N, 3) perturbed to (B, N', 3) restored
SIZES = ("num_patches", "patch_size", "sigma")
NOISE = "noise (the paper)"
FAMILIES: dict[str, tuple[Family, ...]] = {  # of the explorer's menu, beside the noise
    "affine maps": (Affine(),),
    "local drops": (Drop(),),
    "random drops": (Drop("random"),),
    "outliers": (Outliers(),),
    "outliers near the surface": (Outliers("local"),),
    "affine maps, local drops": (Affine(), Drop()),
}


class Exploration(NamedTuple):
    """What the explorers show of one cloud."""

    clean: Tensor  # (N, 3)
    perturbed: Tensor  # (N, 3), in the order of the clean points
    touched: Tensor  # (N,) bool, of the perturbed points: moved, or an outlier
    changed: Tensor  # (N,) bool, of the clean points: moved, dropped or replaced
    centers: Tensor  # (num_patches,) int64; none where families perturb
    num_touched: int
    copy_chamfer: float  # Chamfer l2 of perturbed to clean: what copying the input costs
    restored: dict[str, Tensor]  # name to restored points (N', 3), in no promised order
    chamfer: dict[str, float]  # name to the Chamfer l2 of the restored cloud to clean


@torch.no_grad()
def explore_perturbation(
    points: Tensor,
    perturbation: Perturbation | Sequence[Family],
    seed: int,
    restores: Mapping[str, Restore] = {},
    stream: str = "explorer",
) -> Exploration:
    """Perturb one cloud, restore it in every way, and measure each result (Eq. 11).

    Args:
        points: ``(N, 3)`` on the unit sphere.
        perturbation: the settings of section 3.1, or families that follow one another.
        seed: of everything that is drawn; the same seed gives the same perturbation.
        restores: name to a function that restores perturbed clouds, ``(B, N, 3) -> (B, N', 3)``.
        stream: name of the random stream.
    """
    batch, generator = points[None], named_generator(stream, seed, device=points.device)
    if isinstance(perturbation, Perturbation):
        perturbed, touched, centers = perturbation(batch, generator)
        changed = touched  # each point keeps its index
    else:
        perturbed, touched, changed = _families(batch, perturbation, generator)
        centers = torch.empty(1, 0, dtype=torch.int64)
    restored = {name: restore(perturbed) for name, restore in restores.items()}  # (1, N', 3)
    return Exploration(
        clean=points,
        perturbed=perturbed[0],
        touched=touched[0],
        changed=changed[0],
        centers=centers[0],
        num_touched=int(touched.sum()),
        copy_chamfer=float(chamfer_l2(perturbed, batch)),
        restored={name: cloud[0] for name, cloud in restored.items()},
        chamfer={name: float(chamfer_l2(cloud, batch)) for name, cloud in restored.items()},
    )


def _families(
    clean: Tensor, steps: Sequence[Family], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply families in turn: clouds ``(B, N, 3)``, touched and changed points, both ``(B, N)``."""
    points, touched = clean, torch.zeros_like(clean[..., 0], dtype=torch.bool)
    source = torch.arange(clean.shape[1], device=clean.device).expand_as(touched)  # (B, N)
    for family in steps:
        points, step, now = family(points, generator)
        source, touched = source.gather(1, step), touched.gather(1, step) | now
    kept = torch.zeros_like(source).scatter_reduce(1, source, (~touched).long(), "amax")  # (B, N)
    return points, touched, kept == 0


def explore_denoising(
    points: Tensor, perturbation: Perturbation, models: Mapping[str, Any], seed: int
) -> Exploration:
    """Perturb one cloud and restore it with every model; see `explore_perturbation`.

    Args:
        models: autoencoders with ``restore((B, N, 3)) -> (B, N', 3)``, by name, on the device of
            the points. They run in evaluation mode and return to the mode that they were in.
    """
    modes = {name: model.training for name, model in models.items()}
    restores = {name: model.eval().restore for name, model in models.items()}
    try:
        return explore_perturbation(points, perturbation, seed, restores, "denoising")
    finally:
        for name, model in models.items():
            model.train(modes[name])


def readout(exploration: Exploration, perturbation: Perturbation | Sequence[Family]) -> str:
    """Write the numbers above the figure as one line of text."""
    num_points = len(exploration.clean)
    if isinstance(perturbation, Perturbation):
        picks = perturbation.num_patches * perturbation.patch_size
        what = (
            f"{exploration.num_touched} of {num_points} points touched "
            f"({perturbation.num_patches} x {perturbation.patch_size} = {picks} picks)"
        )
    else:
        lost = int(exploration.changed.sum())
        what = f"{lost} of {num_points} clean points moved, dropped or replaced"
    copied = _squared(exploration.copy_chamfer)
    return (
        f"{what}. Chamfer perturbed to clean, the copy baseline: {copied}{_compared(exploration)}"
    )


def denoising_readout(exploration: Exploration, category: str = "") -> str:
    """Write the numbers above the figure as one line: each model beside copying the input."""
    return (
        f"{category + ': ' if category else ''}{exploration.num_touched} of "
        f"{len(exploration.clean)} points touched. Chamfer to clean: copying the input "
        f"{_squared(exploration.copy_chamfer)}{_compared(exploration)}."
    )


def _compared(exploration: Exploration) -> str:
    """Each restored cloud's Chamfer distance, better or worse than copying the input."""
    models = [
        f"{name} {_squared(value)} ({'better' if value < exploration.copy_chamfer else 'worse'})"
        for name, value in exploration.chamfer.items()
    ]
    return f"; {', '.join(models)}" if models else ""


def _squared(value: float) -> str:
    return f"{1e4 * value:.1f}e-4"


def perturbation_explorer(
    clouds: Clouds, category: str | None = None, restore: Restore | None = None
) -> common.Explorer:
    """Perturb a shape: the points touched, the result, and the result restored.

    Args:
        clouds: labelled shapes to choose from, ``(S, N, 3)`` on the unit sphere.
        category: the one shown first; unless given, the first class that has a shape.
        restore: maps perturbed clouds ``(B, N, 3)`` to restored ones ``(B, N', 3)``, such as the
            method of a trained model; without it there is no third panel.

    Raises:
        ImportError: ipywidgets, plotly or anywidget is missing.
        ValueError: ``clouds`` have no labels, or no shape of ``category``.
    """
    chooser, paper = common.ShapeChooser(clouds, category), Perturbation()
    controls = _sliders(paper, clouds.points.shape[1], 0.2)
    controls.category, controls.shape = chooser.category, chooser.shape
    controls.family = common.menu("family", (NOISE, *FAMILIES), NOISE)
    controls.centers = common.toggles("centers", ("random", "fps"), paper.centers)
    controls.noise = common.toggles("noise", ("iid", "rigid"), paper.noise)
    restores = {} if restore is None else {"restored": restore}
    of_noise = (*SIZES, "centers", "noise")

    def explore() -> tuple[Exploration, str]:
        perturbation: Perturbation | tuple[Family, ...]
        perturbation = FAMILIES.get(controls.family.value, ()) or Perturbation(
            **{name: getattr(controls, name).value for name in of_noise}
        )
        for name in of_noise:
            getattr(controls, name).disabled = controls.family.value != NOISE
        shown = explore_perturbation(chooser.points(), perturbation, controls.seed.value, restores)
        return shown, readout(shown, perturbation)

    left, right = ("family", *of_noise), ("category", "shape", "seed")
    return _explorer(controls, left, right, tuple(restores), explore)


def denoising_explorer(
    clouds: Clouds,
    models: Mapping[str, nn.Module],
    perturbation: Perturbation = Perturbation(),
) -> common.Explorer:
    """Perturb a shape with sliders: clean, perturbed, and restored by each model.

    Args:
        clouds: the shapes to choose from, ``(S, N, 3)`` on the unit sphere.
        models: see `explore_denoising`; each gets a panel, in this order.
        perturbation: the settings to open with, as the models were trained; ``centers``, ``noise``
            and ``overlap`` stay, the rest has sliders.

    Raises:
        ImportError: ipywidgets, plotly or anywidget is missing.
        ValueError: no model, or one that cannot ``restore``.
    """
    if not models:
        raise ValueError("no models: wanted a name and an autoencoder at least")
    for name, model in models.items():
        if not hasattr(model, "restore"):
            raise ValueError(f"{name} is a {type(model).__name__}, wanted one with restore()")
    controls = _sliders(perturbation, clouds.points.shape[1], 0.4)
    controls.shape = common.slider("shape", 0, 0, len(clouds) - 1)

    def explore() -> tuple[Exploration, str]:
        settings = {name: getattr(controls, name).value for name in SIZES}
        shape, now = controls.shape.value, dataclasses.replace(perturbation, **settings)
        shown = explore_denoising(clouds.points[shape], now, models, controls.seed.value)
        category = "" if clouds.labels is None else clouds.classes[clouds.labels[shape]]
        return shown, denoising_readout(shown, category)

    return _explorer(controls, SIZES, ("shape", "seed"), tuple(models), explore)


def _sliders(perturbation: Perturbation, num_points: int, widest: float) -> SimpleNamespace:
    """Make the sliders that both explorers have; sigma ends at ``widest``, in unit-sphere radii."""
    most, sigma = min(64, num_points), perturbation.sigma
    return SimpleNamespace(
        num_patches=common.slider("num_patches", min(perturbation.num_patches, most), 1, most),
        patch_size=common.slider("patch_size", min(perturbation.patch_size, most), 1, most),
        sigma=common.slider("sigma", sigma, 0.0, max(widest, sigma), 0.005),
        seed=common.slider("seed", 0, 0, 99),
        turn=common.turn_slider(),
    )


def _explorer(
    controls: SimpleNamespace,
    left: Sequence[str],
    right: Sequence[str],
    restored: Sequence[str],
    explore: Callable[[], tuple[Exploration, str]],
) -> common.Explorer:
    """Make an explorer of a clean panel, a perturbed one, and one for each name in ``restored``."""
    panels = [
        (("clean", "clean", 2.2), ("touched", "touched", 3.2)),
        (("neutral", "untouched", 2.2), ("perturbed", "perturbed", 3.2)),
        *((("restored", f"restored: {name}", 2.2),) for name in restored),
    ]
    figure = common.scenes(("clean", "perturbed", *restored), panels, controls.turn)
    for trace in figure.data[4:]:
        trace.showlegend = False  # its panel has its name
    explorer = common.Explorer(figure, controls, left, (*right, "turn"))

    def draw(_=None) -> None:
        shown, text = explore()
        pairs = ((shown.clean, shown.changed), (shown.perturbed, shown.touched))
        layers = [cloud[mask] for cloud, marked in pairs for mask in (~marked, marked)]
        # Half a radius at a time, so that small moves leave the size of the panels.
        widest = max(1.0, math.ceil(2 * float(shown.perturbed.abs().max()) - 0.5) / 2)
        axis = {"range": (-widest, widest)}
        if figure.layout.scene.xaxis.range != axis["range"]:
            figure.update_scenes(xaxis=axis, yaxis=axis, zaxis=axis)
        explorer.show([*layers, *shown.restored.values()], text)

    explorer.observe(draw, *left, *right)
    draw()
    return explorer
