"""The patch explorer: section 3.3.1 of the paper with sliders."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from serplib.course.widgets import common
from serplib.data import Clouds
from serplib.patches import make_patches
from serplib.perturbation import Perturbation
from serplib.seeding import named_generator

FRAMES = ("center", "mean_std")


@dataclass(frozen=True)
class PatchExploration:
    """What the patch explorer shows of one cloud."""

    points: Tensor  # (N, 3) the perturbed cloud
    index: Tensor  # (c, n) int64, which points each patch holds
    centers: Tensor  # (c, 3)
    inputs: Tensor  # (c, n, 3) the patches in their own frames
    visits: Tensor  # (N,) int64, in how many patches each point lies
    coverage: float  # share of the points that lie in a patch
    shared: float  # share of the points that lie in two patches or more
    mean_radius: float  # from a centre to the farthest point of its patch, mean over patches


def explore_patches(
    points: Tensor,
    num_centers: int,
    patch_size: int,
    sigma: float = 0.0,
    normalize: str = "center",
    seed: int = 0,
) -> PatchExploration:
    """Perturb one cloud, cut it into patches and count what they cover.

    Args:
        points: ``(N, 3)`` on the unit sphere.
        num_centers: c. patch_size: n.
        sigma: of the noise of section 3.1; 0 leaves the cloud clean.
        normalize: ``"center"`` or ``"mean_std"``, see `patches.make_patches`.
        seed: of the perturbation.
    """
    batch = points[None]  # (1, N, 3)
    if sigma > 0:
        batch = Perturbation(sigma=sigma)(batch, named_generator("explorer", seed)).points
    patches = make_patches(batch, num_centers, patch_size, normalize=normalize)
    index = patches.index[0]  # (c, n)
    visits = index.flatten().bincount(minlength=len(points))  # (N,)
    reach = batch[0, index] - patches.centers[0, :, None]  # (c, n, 3)
    return PatchExploration(
        points=batch[0],
        index=index,
        centers=patches.centers[0],
        inputs=patches.inputs[0],
        visits=visits,
        coverage=float((visits > 0).float().mean()),
        shared=float((visits > 1).float().mean()),
        mean_radius=float(reach.norm(dim=-1).amax(1).mean()),
    )


def patch_readout(exploration: PatchExploration, patch: int) -> str:
    """Write the numbers above the figure as one line of text."""
    (num_centers, size), num_points = exploration.index.shape, len(exploration.points)
    uncovered = int((exploration.visits == 0).sum())
    unshared = int((exploration.visits[exploration.index[patch]] == 1).sum())
    return (
        f"{exploration.coverage:.1%} of {num_points} points in a patch, {uncovered} in none "
        f"({num_centers} x {size} = {num_centers * size} picks). "
        f"{exploration.shared:.0%} in two patches or more. "
        f"Mean radius of a patch: {exploration.mean_radius:.2f}. "
        f"Patch {patch}: {size - unshared} of its {size} points shared"
    )


def patch_explorer(clouds: Clouds, category: str | None = None) -> common.Explorer:
    """Cut a shape into patches with sliders; click a point, or move a slider, to open a patch.

    Args:
        clouds: labelled shapes to choose from, ``(S, N, 3)`` on the unit sphere.
        category: the one shown first; unless given, the first class that has a shape.

    Raises:
        ImportError: ipywidgets, plotly or anywidget is missing.
        ValueError: ``clouds`` have no labels, or no shape of ``category``.
    """
    chooser, most = common.ShapeChooser(clouds, category), min(128, clouds.points.shape[1])
    controls = SimpleNamespace(  # c and n of section 4
        num_centers=common.slider("num_centers", min(64, most), 1, most),
        patch_size=common.slider("patch_size", min(32, most), 1, most),
        sigma=common.slider("sigma", 0.03, 0.0, 0.2, 0.005),
        frame=common.toggles("frame", FRAMES, "center"),
        patch=common.slider("patch", 0, 0, min(64, most) - 1),
        category=chooser.category,
        shape=chooser.shape,
        turn=common.turn_slider(),
    )
    figure = common.scenes(
        ("the cloud: click a point to open its patch", "the patch in its own frame"),
        (
            (
                ("neutral", "covered", 2.4),
                ("ink", "in no patch", 2.8),
                ("touched", "centres", 3.5),
                ("perturbed", "the open patch", 4.5),
            ),
            (("perturbed", "its points", 4.5), ("touched", "origin of the frame", 4.0)),
        ),
        controls.turn,
    )
    figure.data[1].marker.symbol = "diamond"  # "x" and "cross" are glyphs that not every font has
    figure.data[2].marker.symbol = figure.data[5].marker.symbol = "circle-open"
    left, right = ("num_centers", "patch_size", "patch", "frame"), ("category", "shape", "sigma")
    explorer = common.Explorer(figure, controls, left, (*right, "turn"))
    state = SimpleNamespace(shown=None)  # what the figure holds

    def cut(_=None) -> None:
        settings = ("num_centers", "patch_size", "sigma", "frame")
        with torch.inference_mode():
            state.shown = explore_patches(
                chooser.points(), *(getattr(controls, name).value for name in settings)
            )
        draw()

    def draw(_=None) -> None:
        shown, patch = state.shown, min(controls.patch.value, len(state.shown.index) - 1)
        uncovered = shown.visits == 0  # (N,)
        opened = torch.zeros_like(uncovered).index_fill(0, shown.index[patch], True)  # (N,)
        rest = ~uncovered & ~opened
        cloud = [shown.points[rest], shown.points[uncovered], shown.centers, shown.points[opened]]
        # One box for all patches of a cloud, so that a small patch looks small.
        reach = max(float(shown.inputs.abs().max()), 1e-3)
        with figure.batch_update():
            for axis in ("xaxis", "yaxis", "zaxis"):
                figure.layout.scene2[axis].range = [-reach, reach]
            layers = [*cloud, shown.inputs[patch], torch.zeros(1, 3)]
            explorer.show(layers, patch_readout(shown, patch))

    def count(change) -> None:
        controls.patch.max = change["new"] - 1  # draws where that moves the patch slider
        cut()

    def click(trace, clicked, _) -> None:
        if clicked.point_inds:
            place = clicked.point_inds[0]
            point = torch.tensor([float(axis[place]) for axis in (trace.x, trace.y, trace.z)])
            controls.patch.value = int((state.shown.centers - point).norm(dim=1).argmin())

    explorer.observe(count, "num_centers")
    explorer.observe(draw, "patch")
    explorer.observe(cut, "patch_size", "frame", *right)
    for trace in figure.data[:4]:
        trace.hoverinfo = "none"  # plotly sends no clicks for what it skips
        trace.on_click(click)
    cut()
    return explorer
