"""The codebook explorer: its pure functions, its controls, and its speed."""

import dataclasses
import re
import time

import numpy as np
import pytest
import torch

from serplib.course import widgets
from serplib.course.plots import CAMERA, project
from serplib.data import load
from serplib.transformer import TransformerConfig
from serplib.vasp import Vasp, VaspConfig

SMALL = TransformerConfig(
    num_centers=6,
    patch_size=8,
    dim=16,
    latent_dim=16,
    encoder_depth=1,
    decoder_depth=1,
    encoder_heads=2,
    decoder_heads=2,
    token_widths=(8, 8, 16),
)
K = 10


@pytest.fixture(scope="module")
def clouds():
    return load("objects", "train", 60, 128)


@pytest.fixture(scope="module")
def model(clouds):
    """Not trained, but its codes are clusters of the tokens of these shapes."""
    torch.manual_seed(0)
    model = Vasp(SMALL, VaspConfig(codebook_size=K, init="kmeans"))
    model.eval().bottleneck.train()
    model(clouds.points)
    return model.eval()


@pytest.fixture(scope="module")
def atlas(model, clouds):
    return widgets.code_atlas(model, clouds)


@pytest.fixture
def by_hand():
    """Five shapes of two categories, two patches of one point each, three codes on a line."""
    return widgets.CodeAtlas(
        points=torch.arange(5 * 3 * 3).view(5, 3, 3) / 45,
        index=torch.tensor([[[0], [1]]] * 5),
        forms=torch.ones(5, 2, 1, 3),
        codes=torch.tensor([[0, 1], [1, 1], [0, 0], [0, 1], [0, 1]]),
        codebook=torch.tensor([[0.0], [1.0], [5.0]]),
        names=["bed", "bed", "bed", "cup", "cup"],
    )


def test_atlas_is_the_models(atlas, model, clouds):
    patches = model.encoder.patches(clouds.points)
    assert torch.equal(atlas.index, patches.index) and torch.equal(atlas.forms, patches.inputs)
    assert torch.equal(atlas.codes, model.codes(clouds.points)[:, 1:])  # [CLS] has no patch
    assert torch.equal(atlas.codebook, model.bottleneck.codebook)
    assert atlas.names[7] == clouds.classes[clouds.labels[7]]
    assert len(atlas.codes.unique()) > 3


def test_atlas_of_a_model_whose_cls_passes_by(clouds):
    torch.manual_seed(0)
    bare = Vasp(SMALL, VaspConfig(codebook_size=K, quantize_cls=False))
    atlas = widgets.code_atlas(bare, clouds)
    assert torch.equal(atlas.codes, bare.codes(clouds.points))
    assert atlas.codes.shape == (60, 6)


def test_view_by_hand(by_hand):
    view = widgets.explore_code(by_hand, 0)
    assert (view.uses, view.patches, view.shapes_with, view.categories_with) == (5, 10, 4, 2)
    assert view.shapes.tolist() == [0, 3, 2, 4]  # bed, cup, bed, cup
    assert view.taken.tolist() == [[True, False], [True, False], [True, True], [True, False]]
    assert (view.rank, view.live) == (1, 2) and view.nearest == [1, 2]
    cup = widgets.explore_code(by_hand, 1, "cup")
    assert (cup.uses, cup.patches, cup.shapes_with, cup.categories_with) == (2, 4, 2, 1)
    assert cup.shapes.tolist() == [3, 4] and cup.taken.tolist() == [[False, True]] * 2
    dead = widgets.explore_code(by_hand, 2)
    assert (dead.uses, dead.shapes_with, dead.rank) == (0, 0, 3) and dead.shapes.shape == (0,)
    assert dead.nearest == [1, 0]


def test_uses_add_up_over_codes_and_categories(atlas):
    views = [widgets.explore_code(atlas, code) for code in range(K)]
    assert sum(view.uses for view in views) == atlas.codes.numel()
    most = max(views, key=lambda view: view.uses)
    assert most.rank == 1
    parts = [widgets.explore_code(atlas, most.code, name).uses for name in set(atlas.names)]
    assert sum(parts) == most.uses and len(most.shapes) == 8
    assert len({atlas.names[shape] for shape in most.shapes}) == min(8, most.categories_with)
    for shape, taken in zip(most.shapes, most.taken):
        assert torch.equal(taken, atlas.codes[shape] == most.code) and taken.any()


def test_readout(by_hand):
    assert widgets.code_readout(widgets.explore_code(by_hand, 0)) == (
        "Code 0: 5 of 10 patches (50.0 %), on 4 shapes of 2 categories. "
        "Rank by use over all shapes: 1, of 2 codes in use. Nearest codes: 1, 2"
    )
    dead = widgets.code_readout(widgets.explore_code(by_hand, 2))
    assert "no patch here takes it. Dead, of 2 codes in use" in dead
    cup = widgets.code_readout(widgets.explore_code(by_hand, 0, "cup"))
    assert "Code 0: 2 of 4 patches (50.0 %), on 2 shapes of 1 category. Rank" in cup


def test_layers_draw_every_point_once_and_in_its_place(atlas):
    view = widgets.explore_code(atlas, int(atlas.codes.flatten().mode()[0]))
    layers = widgets.code_layers(atlas, view, degrees=40)
    assert len(layers["shape"][0]) + len(layers["patch"][0]) == 128 * len(view.shapes)
    assert len(layers["form"][0]) == 8 * int(view.taken.sum())
    marked = atlas.index[view.shapes[0]][view.taken[0]].flatten().unique()
    expected = project(atlas.points[view.shapes[0]][marked].numpy(), (CAMERA[0], CAMERA[1] + 40))
    np.testing.assert_allclose(layers["patch"][0][: len(marked)], expected[:, 0], atol=1e-6)
    column = ((layers["shape"][0] + 1.1) // 2.2).astype(int)
    assert set(column) == {0, 1, 2, 3}


def test_what_is_not_there_is_refused(atlas, model):
    with pytest.raises(ValueError, match=r"code is 10, wanted 0\.\.9"):
        widgets.explore_code(atlas, K)
    with pytest.raises(ValueError, match="no shape of 'elephant'"):
        widgets.explore_code(atlas, 0, "elephant")
    with pytest.raises(ValueError, match="no labels"):
        widgets.code_atlas(model, load("procedural", "train", 2, 64))
    with pytest.raises(ValueError, match="no atlas"):
        widgets.codebook_explorer({})
    with pytest.raises(ValueError, match="has no codes"):
        widgets.code_atlas(Vasp(SMALL, VaspConfig("none")), load("objects", "train", 2, 64))


@pytest.fixture
def explorer(atlas):
    pytest.importorskip("ipywidgets")
    pytest.importorskip("anywidget")
    collapsed = dataclasses.replace(atlas, codes=torch.full_like(atlas.codes, 4))
    return widgets.codebook_explorer({"cured": atlas, "collapsed": collapsed})


def uses(explorer):
    found = re.search(r"Code (\d+): (\d+) of", explorer.readout.value)
    return found and tuple(map(int, found.groups()))


def drawn_names(figure):
    return [note.text for note in figure.layout.annotations[2:] if note.text]


def test_opens_at_the_code_most_used(explorer, atlas):
    counts = atlas.codes.flatten().bincount(minlength=K)
    assert uses(explorer) == (int(counts.argmax()), int(counts.max()))


def test_controls_change_the_readout_and_the_one_figure(explorer, atlas):
    figure = explorer.figure
    counts = atlas.codes.flatten().bincount(minlength=K)
    second = int(counts.argsort(descending=True)[1])
    explorer.controls.code.value = second
    assert uses(explorer) == (second, int(counts[second]))
    view = widgets.explore_code(atlas, second)
    layers = widgets.code_layers(atlas, view)
    for trace, name in zip(figure.data, ("shape", "patch", "form")):
        np.testing.assert_array_equal(trace.x, layers[name][0])
        np.testing.assert_array_equal(trace.y, layers[name][1])
    labels = [atlas.names[shape] for shape in view.shapes.tolist()]
    assert drawn_names(figure) == labels
    explorer.controls.turn.value = 90
    turned = widgets.code_layers(atlas, view, 90)
    np.testing.assert_array_equal(figure.data[0].x, turned["shape"][0])
    explorer.controls.category.value = labels[0]
    assert uses(explorer)[1] == widgets.explore_code(atlas, second, labels[0]).uses
    assert set(drawn_names(figure)) == {labels[0]}
    explorer.controls.category.value = "any"
    explorer.controls.training.value = "collapsed"  # goes to that one's most used code
    assert uses(explorer) == (4, atlas.codes.numel()) and "(100.0 %)" in explorer.readout.value
    explorer.controls.code.value = 5
    assert "no patch here takes it" in explorer.readout.value and len(figure.data[0].x) == 0
    assert drawn_names(figure) == []
    assert explorer.figure is figure and len(figure.data) == 3


def test_every_control_has_a_label(explorer):
    for name, control in vars(explorer.controls).items():
        assert control.description, name
    assert 'role="status"' in explorer.readout.value  # read out by a screen reader


def test_a_slider_is_answered_in_150_ms():
    pytest.importorskip("anywidget")
    generator = torch.Generator().manual_seed(0)
    shapes = 150  # as many, and as large, as a whole set of shapes is
    atlas = widgets.CodeAtlas(
        points=torch.rand(shapes, 1024, 3, generator=generator),
        index=torch.randint(1024, (shapes, 64, 32), generator=generator),
        forms=torch.randn(shapes, 64, 32, 3, generator=generator),
        codes=torch.randint(32, (shapes, 64), generator=generator),
        codebook=torch.randn(512, 384, generator=generator),
        names=[f"kind {i % 30}" for i in range(shapes)],
    )
    explorer = widgets.codebook_explorer({"large": atlas})
    seconds = []
    for step in range(1, 10):
        for name, value in (("code", 3 * step), ("turn", 15 * step)):
            started = time.perf_counter()
            getattr(explorer.controls, name).value = value
            seconds.append(time.perf_counter() - started)
    assert sorted(seconds)[len(seconds) // 2] < 0.15, seconds
