"""The perturbation explorer: its pure function, its controls, and its speed."""

import re
import time

import pytest
import torch

from serplib.course import widgets
from serplib.data import load
from serplib.geometry import chamfer_l2
from serplib.perturbation import Perturbation
from serplib.seeding import named_generator


@pytest.fixture(scope="module")
def clouds():
    return load("objects", "train", 90)


def test_exploration_is_the_perturbation_measured(clouds):
    points, perturbation = clouds.points[0], Perturbation(sigma=0.05, noise="rigid")
    shown = widgets.explore_perturbation(points, perturbation, seed=3)
    out = perturbation(points[None], named_generator("explorer", 3))
    assert torch.equal(shown.perturbed, out.points[0])
    assert torch.equal(shown.touched, out.touched[0])
    assert torch.equal(shown.centers, out.centers[0])
    assert shown.num_touched == out.touched.sum()
    assert shown.copy_chamfer == pytest.approx(chamfer_l2(out.points, points[None]).item())
    assert torch.equal(shown.clean, points)


def test_exploration_depends_on_the_seed_alone(clouds):
    points, paper = clouds.points[1], Perturbation()
    first, again, other = (widgets.explore_perturbation(points, paper, s) for s in (1, 1, 2))
    assert torch.equal(first.perturbed, again.perturbed)
    assert not torch.equal(first.perturbed, other.perturbed)


def test_no_noise_costs_nothing(clouds):
    shown = widgets.explore_perturbation(clouds.points[2], Perturbation(sigma=0.0), 0)
    assert shown.copy_chamfer == 0 and shown.num_touched > 300
    assert "Chamfer perturbed to clean, the copy baseline: 0.0e-4" in widgets.readout(
        shown, Perturbation(sigma=0.0)
    )


def test_families_mark_the_clean_points_that_are_gone(clouds):
    points = clouds.points[0]
    shown = {
        name: widgets.explore_perturbation(points, steps, 3)
        for name, steps in widgets.FAMILIES.items()
    }
    for name, one in shown.items():
        assert one.clean.equal(points) and one.perturbed.shape == points.shape, name
        here = (points[:, None] == one.perturbed).all(-1).any(1)  # (N,) still in its place
        assert one.changed.equal(~here), name
        assert one.copy_chamfer > 0 and one.num_touched == one.touched.sum(), name
    lost = {name: int(one.changed.sum()) for name, one in shown.items()}
    assert lost["random drops"] == 512 and lost["outliers"] == 102
    assert 200 < lost["local drops"] <= 512 and lost["affine maps"] == 1024
    assert shown["local drops"].num_touched == 0 and shown["outliers"].num_touched == 102
    text = widgets.readout(shown["random drops"], widgets.FAMILIES["random drops"])
    assert text.startswith("512 of 1024 clean points moved, dropped or replaced. Chamfer")


@pytest.fixture
def explorer(clouds):
    pytest.importorskip("ipywidgets")
    pytest.importorskip("anywidget")
    return widgets.perturbation_explorer(clouds, "chair")


def touched(explorer):
    return int(re.search(r"(\d+) of 1024 points touched", explorer.readout.value)[1])


def test_controls_change_the_readout_and_the_one_figure(explorer, clouds):
    figure, before = explorer.figure, touched(explorer)
    explorer.controls.num_patches.value = 40
    assert touched(explorer) > before
    assert "(40 x 20 = 800 picks)" in explorer.readout.value
    explorer.controls.centers.value = "fps"
    random_then_fps = touched(explorer)
    explorer.controls.noise.value = "rigid"
    assert touched(explorer) == random_then_fps  # the same points, other noise
    explorer.controls.category.value = "airplane"
    label = clouds.classes.index("airplane")
    points = clouds.points[clouds.labels == label][0]
    shown = widgets.explore_perturbation(points, Perturbation(40, 20, 0.03, "fps", "rigid"), 0)
    assert touched(explorer) == shown.num_touched
    assert explorer.figure is figure and len(figure.data) == 4
    sizes = [len(trace.x) for trace in figure.data]
    rest = 1024 - shown.num_touched
    assert sizes == [rest, shown.num_touched, rest, shown.num_touched]
    assert torch.equal(torch.tensor(figure.data[3].z), shown.perturbed[shown.touched][:, 2])


def test_the_family_menu_changes_the_figure_and_rests_the_sliders_of_the_noise(explorer, clouds):
    figure, controls = explorer.figure, explorer.controls
    before = explorer.readout.value
    assert figure.layout.scene.xaxis.range == (-1, 1)
    points = clouds.points[clouds.labels == clouds.classes.index("chair")][0]
    for name, steps in widgets.FAMILIES.items():
        controls.family.value = name
        shown = widgets.explore_perturbation(points, steps, 0)
        assert widgets.readout(shown, steps) in explorer.readout.value
        assert controls.sigma.disabled and controls.centers.disabled
        sizes = [len(trace.x) for trace in figure.data]
        lost, touched = int(shown.changed.sum()), shown.num_touched
        assert sizes == [1024 - lost, lost, 1024 - touched, touched]
        widest = figure.layout.scene2.zaxis.range[1]
        assert shown.perturbed.abs().max() <= widest + 0.25 and widest % 0.5 == 0
        assert figure.layout.scene.xaxis.range[1] == widest  # one scale for all panels
    controls.family.value = "noise (the paper)"
    assert explorer.readout.value == before and not controls.sigma.disabled
    assert figure.layout.scene.xaxis.range == (-1, 1)


def test_shape_slider_stays_inside_its_category(explorer, clouds):
    for name in ("table", "bottle"):
        explorer.controls.category.value = name
        last = int((clouds.labels == clouds.classes.index(name)).sum()) - 1
        assert explorer.controls.shape.max == last
        explorer.controls.shape.value = last
        assert touched(explorer) > 0


def test_turning_moves_both_cameras(explorer):
    before = explorer.figure.layout.scene.camera.eye.x
    explorer.controls.turn.value = 90
    eyes = explorer.figure.layout.scene.camera.eye, explorer.figure.layout.scene2.camera.eye
    assert eyes[0].x != before and eyes[0] == eyes[1]


def test_a_drag_in_one_panel_turns_both(explorer):
    layout, turned = explorer.figure.layout, {"eye": {"x": 0.1, "y": 2.0, "z": 0.3}}
    for name in ("scene2.camera", "scene.camera"):
        turned["eye"]["x"] += 1
        message = {"relayout_data": {name: turned}, "source_view_id": "browser"}
        explorer.figure._js2py_relayout = message  # as plotly sends it after a drag
        assert layout.scene.camera == layout.scene2.camera
        assert layout.scene.camera.eye.x == turned["eye"]["x"]


def test_names_are_a_menu_and_buttons_and_numbers_are_sliders_with_a_box(explorer):
    kinds = {name: type(control).__name__ for name, control in vars(explorer.controls).items()}
    assert {kinds.pop("category"), kinds.pop("family")} == {"Dropdown"}
    assert {kinds.pop("centers"), kinds.pop("noise")} == {"ToggleButtons"}
    assert set(kinds.values()) == {"IntSlider", "FloatSlider"}
    assert all(getattr(explorer.controls, name).readout for name in kinds)


def test_a_restore_function_gets_a_third_panel(clouds):
    pytest.importorskip("ipywidgets")
    explorer = widgets.perturbation_explorer(clouds, "chair", restore=lambda x: x[:, ::2] / 2)
    figure, points = explorer.figure, clouds.points[clouds.labels == clouds.classes.index("chair")]
    shown = widgets.explore_perturbation(points[0], Perturbation(), 0)
    assert [note.text for note in figure.layout.annotations] == ["clean", "perturbed", "restored"]
    torch.testing.assert_close(torch.tensor(figure.data[4].x), shown.perturbed[::2, 0] / 2)
    restored = chamfer_l2(shown.perturbed[None, ::2] / 2, points[:1]).item()
    assert f"; restored {1e4 * restored:.1f}e-4 (worse)" in explorer.readout.value
    explorer.controls.turn.value = 90
    assert figure.layout.scene3.camera == figure.layout.scene.camera


def test_every_control_has_a_label(explorer):
    for name, control in vars(explorer.controls).items():
        assert control.description, name
    assert 'role="status"' in explorer.readout.value  # read out by a screen reader


def test_a_slider_is_answered_in_150_ms(explorer):
    seconds = []
    for step in range(9):
        started = time.perf_counter()
        explorer.controls.sigma.value = 0.01 + 0.02 * step
        seconds.append(time.perf_counter() - started)
    explorer.controls.centers.value = "fps"
    for step in range(9):
        started = time.perf_counter()
        explorer.controls.num_patches.value = 10 + step
        seconds.append(time.perf_counter() - started)
    assert sorted(seconds)[len(seconds) // 2] < 0.15, seconds


def test_clouds_that_cannot_be_explored_are_refused(clouds):
    with pytest.raises(ValueError, match="no labels"):
        widgets.perturbation_explorer(load("procedural", "train", 2, 64))
    with pytest.raises(ValueError, match="no shape of 'elephant'"):
        widgets.perturbation_explorer(clouds, "elephant")
