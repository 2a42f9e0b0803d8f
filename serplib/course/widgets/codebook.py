"""The codebook explorer: the patches that share a code of VASP (section 3.4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from serplib.course.plots import CAMERA, PALETTE, project
from serplib.course.widgets import common
from serplib.data import Clouds
from serplib.vasp import Vasp

COLUMNS, ROWS = 4, 2  # of the grid of shapes: at most 8 are drawn
ANY = "any"  # the category menu's first place
FORM = 0.38  # how much a normalised patch shrinks to fit its place in the grid


@dataclass(frozen=True)
class CodeAtlas:
    """Every patch of a set of clouds, with the code that it takes."""

    points: Tensor  # (S, N, 3)
    index: Tensor  # (S, c, n) int64, which points a patch holds
    forms: Tensor  # (S, c, n, 3) patches, normalised as the encoder reads them
    codes: Tensor  # (S, c) int64; [CLS], which has no patch, is left out
    codebook: Tensor  # (K, l)
    names: list[str]  # S, the category of each shape


class CodeView(NamedTuple):
    """What the explorer shows of one code."""

    code: int
    shapes: Tensor  # (M,) int64, the shapes to draw, categories taking turns
    taken: Tensor  # (M, c) bool, which of their patches have this code
    uses: int  # patches with this code, of the category asked for
    patches: int  # patches of that category, whatever their code
    shapes_with: int  # shapes with a patch of this code
    categories_with: int  # categories with such a shape
    rank: int  # 1 for the code most used, over all categories
    live: int  # codes that some patch takes, over all categories
    nearest: list[int]  # the three codes nearest to it, nearest first


@torch.no_grad()
def code_atlas(model: Vasp, clouds: Clouds) -> CodeAtlas:
    """Cut labelled clouds into patches and look up the code of each.

    Args:
        model: with a codebook (``"vq"`` or ``"dvae"``); left in evaluation mode.
        clouds: ``(S, N, 3)``, with labels.

    Raises:
        ValueError: no labels, or a bottleneck without codes.
    """
    if clouds.labels is None:
        raise ValueError(f"{clouds.name} has no labels, wanted labelled clouds to choose from")
    model.eval()
    codes = model.codes(clouds.points)  # (S, T)
    patches = cast(Any, model.encoder).patches(clouds.points)
    return CodeAtlas(
        points=clouds.points,
        index=patches.index,
        forms=patches.inputs,
        codes=codes[:, -patches.index.shape[1] :],  # [CLS], if it has a code, comes first
        codebook=cast(Any, model.bottleneck).codebook.detach().clone(),
        names=[clouds.classes[label] for label in clouds.labels.tolist()],
    )


def explore_code(atlas: CodeAtlas, code: int, category: str | None = None) -> CodeView:
    """Count the patches that have one code, and choose shapes to show.

    Args:
        code: 0 to K - 1. category: count and show shapes of this one only; None for all.

    Raises:
        ValueError: a code or a category that is not there.
    """
    size = len(atlas.codebook)
    if not 0 <= code < size:
        raise ValueError(f"code is {code}, wanted 0..{size - 1} (the codebook)")
    if category is not None and category not in atlas.names:
        raise ValueError(f"no shape of {category!r} here, there is: {sorted(set(atlas.names))}")
    wanted = torch.tensor([category in (None, name) for name in atlas.names])  # (S,)
    taken = (atlas.codes == code) & wanted[:, None]  # (S, c)
    found = taken.any(1).nonzero()[:, 0].tolist()  # shapes that have it, in order
    seen: dict[str, int] = {}
    turns = []  # the first shape of each category, then the second of each, and so on
    for shape in found:
        seen[atlas.names[shape]] = seen.get(atlas.names[shape], 0) + 1
        turns.append((seen[atlas.names[shape]], shape))
    most = sorted(turns)[: COLUMNS * ROWS]
    shapes = torch.tensor([shape for _, shape in most], dtype=torch.int64)  # (M,)
    counts = atlas.codes.flatten().bincount(minlength=size)  # (K,)
    distance = (atlas.codebook - atlas.codebook[code]).square().sum(1)  # (K,)
    distance[code] = torch.inf
    return CodeView(
        code=code,
        shapes=shapes,
        taken=taken[shapes],
        uses=int(taken.sum()),
        patches=int(wanted.sum()) * atlas.codes.shape[1],
        shapes_with=len(found),
        categories_with=len(seen),
        rank=1 + int((counts > counts[code]).sum()),
        live=int((counts > 0).sum()),
        nearest=distance.argsort(stable=True)[: min(3, size - 1)].tolist(),
    )


def code_readout(view: CodeView) -> str:
    """Write the numbers above the figure as one line of text."""
    near = ", ".join(map(str, view.nearest)) or "none, it is the only one"
    if not view.uses:
        used = f"Code {view.code}: no patch here takes it"
    else:
        used = (
            f"Code {view.code}: {view.uses} of {view.patches} patches "
            f"({100 * view.uses / view.patches:.1f} %), on {view.shapes_with} "
            f"shape{'s' * (view.shapes_with != 1)} of {view.categories_with} "
            f"categor{'ies' if view.categories_with != 1 else 'y'}"
        )
    rank = f"Rank by use over all shapes: {view.rank}" if view.rank <= view.live else "Dead"
    return f"{used}. {rank}, of {view.live} codes in use. Nearest codes: {near}"


def code_layers(
    atlas: CodeAtlas, view: CodeView, degrees: float = 0.0
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Project the points that the explorer draws, each shape in its place of the grid.

    Args:
        degrees: turn of every shape about its own vertical axis.

    Returns:
        ``shape``, ``patch`` (the marked points of the shapes) and ``form`` (the same patches,
        normalised) to x ``(P,)`` and y ``(P,)``.
    """
    camera = (CAMERA[0], CAMERA[1] + degrees)
    layers: dict[str, list] = {"shape": [], "patch": [], "form": []}
    for place, (shape, taken) in enumerate(zip(view.shapes.tolist(), view.taken)):
        corner = np.array([2.2 * (place % COLUMNS), -2.5 * (place // COLUMNS)])
        points = atlas.points[shape]  # (N, 3)
        mine = torch.zeros(len(points), dtype=torch.bool)
        mine[atlas.index[shape][taken].flatten()] = True
        forms = FORM * atlas.forms[shape][taken].flatten(0, 1)  # (patches * n, 3)
        for name, cloud in (("shape", points[~mine]), ("patch", points[mine]), ("form", forms)):
            layers[name].append(project(cloud.numpy(), camera)[:, :2] + corner)
    return {
        name: tuple(np.concatenate(parts).T) if parts else (np.empty(0), np.empty(0))
        for name, parts in layers.items()
    }


def codebook_explorer(atlases: Mapping[str, CodeAtlas]) -> common.Explorer:
    """Browse codebooks: left the shapes with the patches of a code marked, right the patches.

    Args:
        atlases: name of a training to its atlas; all over the same shapes. The first is shown,
            with the code most used.

    Raises:
        ImportError: ipywidgets, plotly or anywidget is missing.
        ValueError: no atlas.
    """
    if not atlases:
        raise ValueError("no atlas: wanted the name of a training and its code_atlas at least")
    first = next(iter(atlases.values()))
    controls = SimpleNamespace(
        training=common.menu("training", tuple(atlases), next(iter(atlases))),
        code=common.slider("code", _most_used(first), 0, len(first.codebook) - 1),
        category=common.menu("category", (ANY, *sorted(set(first.names))), ANY),
        turn=common.turn_slider(),
    )
    figure = _grids(("its patches on the shapes", "the same patches, normalised"))
    explorer = common.Explorer(figure, controls, ("training", "code"), ("category", "turn"))

    def draw(_=None) -> None:
        atlas = atlases[controls.training.value]
        wanted = None if controls.category.value == ANY else controls.category.value
        view = explore_code(atlas, controls.code.value, wanted)
        layers = code_layers(atlas, view, controls.turn.value)
        labels = [atlas.names[shape] for shape in view.shapes.tolist()]
        with figure.batch_update():
            for trace, name in zip(figure.data, ("shape", "patch", "form")):
                trace.x, trace.y = layers[name]
            names = figure.layout.annotations[2:]  # the first two are the titles
            for place, note in enumerate(names):
                note.text = labels[place] if place < len(labels) else ""
        explorer.say(code_readout(view))

    def switch(_=None) -> None:
        atlas = atlases[controls.training.value]
        controls.code.max = len(atlas.codebook) - 1
        most = _most_used(atlas)
        if controls.code.value == most:
            draw()
        else:
            controls.code.value = most  # and draws

    explorer.observe(switch, "training")
    explorer.observe(draw, "code", "category", "turn")
    draw()
    return explorer


def _most_used(atlas: CodeAtlas) -> int:
    return int(atlas.codes.flatten().bincount(minlength=len(atlas.codebook)).argmax())


def _grids(titles: tuple[str, str]):
    """A FigureWidget of two empty grids: shapes and their marked points, patches, and names."""
    _, go, make_subplots = common.jupyter()
    figure = common.figure_class()(
        make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.02)
    )
    for column, role, name, size in (
        (1, "neutral", "shape", 2.5),
        (1, "touched", "patch with this code", 4.5),
        (2, "touched", "the patch alone", 4.0),
    ):
        marker = {"size": size, "color": PALETTE[role]}
        dots = go.Scattergl(mode="markers", marker=marker, name=name, hoverinfo="skip")
        figure.add_trace(dots, row=1, col=column)
    for place in range(COLUMNS * ROWS):  # the names of the shapes
        x, y = 2.2 * (place % COLUMNS), 1.2 - 2.5 * (place // COLUMNS)
        figure.add_annotation(x=x, y=y, text="", showarrow=False, font={"size": 11}, row=1, col=1)
    figure.update_xaxes(visible=False, range=[-1.15, 2.2 * COLUMNS - 1.05])
    figure.update_yaxes(visible=False, range=[-2.5 * ROWS + 1.3, 1.35])
    common.frame(figure, 380)
    return figure
