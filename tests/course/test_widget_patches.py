"""The patch explorer: its pure function, its controls, the click, and its speed."""

import time

import pytest
import torch

from serplib.course import widgets
from serplib.data import load
from serplib.geometry import farthest_point_sample, gather, knn
from serplib.patches import make_patches
from serplib.perturbation import Perturbation
from serplib.seeding import named_generator


@pytest.fixture(scope="module")
def clouds():
    return load("objects", "train", 90)


# ---- the pure function -------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", ["center", "mean_std"])
def test_exploration_is_tokenization_counted(clouds, normalize):
    shown = widgets.explore_patches(clouds.points[3], 20, 16, 0.05, normalize, seed=2)
    noise = named_generator("explorer", 2)
    points = Perturbation(sigma=0.05)(clouds.points[3:4], noise).points
    patches = make_patches(points, 20, 16, normalize=normalize)
    assert torch.equal(shown.points, points[0])
    assert torch.equal(shown.index, patches.index[0])
    assert torch.equal(shown.centers, patches.centers[0])
    assert torch.equal(shown.inputs, patches.inputs[0])
    seen = shown.index.flatten().tolist()
    assert shown.visits.tolist() == [seen.count(i) for i in range(1024)]
    assert shown.coverage == pytest.approx(len(set(seen)) / 1024)
    assert shown.shared == pytest.approx(sum(seen.count(i) > 1 for i in set(seen)) / 1024)
    radii = [
        max(float((points[0, i] - center).norm()) for i in members)
        for center, members in zip(shown.centers, shown.index.tolist())
    ]
    assert shown.mean_radius == pytest.approx(sum(radii) / 20, rel=1e-5)


def test_no_noise_leaves_the_cloud(clouds):
    shown = widgets.explore_patches(clouds.points[0], 8, 4)
    assert torch.equal(shown.points, clouds.points[0])


def test_by_hand():
    """Five points on a line, two patches of two: point 2 is in neither."""
    points = torch.zeros(5, 3)
    points[:, 0] = torch.tensor([0.0, 0.1, 0.4, 0.5, 1.0])
    shown = widgets.explore_patches(points, 2, 2)
    assert shown.index.tolist() == [[0, 1], [4, 3]]
    assert shown.visits.tolist() == [1, 1, 0, 1, 1]
    assert shown.coverage == pytest.approx(0.8) and shown.shared == 0
    assert shown.mean_radius == pytest.approx((0.1 + 0.5) / 2)
    text = widgets.patch_readout(shown, 1)
    assert "80.0% of 5 points in a patch, 1 in none (2 x 2 = 4 picks)" in text
    assert "0% in two patches or more" in text and "Mean radius of a patch: 0.30" in text
    assert "Patch 1: 0 of its 2 points shared" in text
    whole = widgets.explore_patches(points, 2, 5)
    assert whole.shared == whole.coverage == 1
    assert "Patch 0: 5 of its 5 points shared" in widgets.patch_readout(whole, 0)


# ---- the widget --------------------------------------------------------------------------------


@pytest.fixture
def explorer(clouds):
    pytest.importorskip("ipywidgets")
    pytest.importorskip("anywidget")
    return widgets.patch_explorer(clouds, "chair")


def cloud_of(clouds, category, shape=0):
    return clouds.points[clouds.labels == clouds.classes.index(category)][shape]


def drawn(trace):
    return torch.stack([torch.tensor(getattr(trace, axis)) for axis in "xyz"], 1)


def click(explorer, trace, place):
    """What plotly does when the browser reports a click on point ``place`` of a trace."""
    from plotly.callbacks import InputDeviceState, Points

    clicked = Points(point_inds=[place], trace_index=trace)
    explorer.figure.data[trace]._dispatch_on_click(clicked, InputDeviceState())


def same_points(a, b):
    return sorted(map(tuple, a.tolist())) == sorted(map(tuple, b.tolist()))


def test_it_opens_with_the_papers_sizes(explorer, clouds):
    shown = widgets.explore_patches(cloud_of(clouds, "chair"), 64, 32, 0.03)
    assert widgets.patch_readout(shown, 0) in explorer.readout.value
    opened = shown.points[shown.index[0]]
    assert same_points(drawn(explorer.figure.data[3]), opened)
    assert torch.equal(drawn(explorer.figure.data[4]), shown.inputs[0])
    assert same_points(drawn(explorer.figure.data[1]), shown.points[shown.visits == 0])
    assert torch.equal(drawn(explorer.figure.data[2]), shown.centers)
    assert sum(len(explorer.figure.data[i].x) for i in (0, 1, 3)) == 1024


def test_controls_change_the_readout_and_the_one_figure(explorer, clouds):
    figure, controls = explorer.figure, explorer.controls
    controls.num_centers.value = 16
    assert controls.patch.max == 15 and "(16 x 32 = 512 picks)" in explorer.readout.value
    controls.patch_size.value = 8
    controls.sigma.value = 0.0
    controls.frame.value = "mean_std"
    controls.category.value = "airplane"
    controls.patch.value = 5
    shown = widgets.explore_patches(cloud_of(clouds, "airplane"), 16, 8, 0.0, "mean_std")
    assert widgets.patch_readout(shown, 5) in explorer.readout.value
    assert torch.equal(drawn(figure.data[4]), shown.inputs[5])
    assert explorer.figure is figure and len(figure.data) == 6


def test_fewer_centers_close_a_patch_that_is_gone(explorer):
    explorer.controls.patch.value = 60
    explorer.controls.num_centers.value = 10
    assert explorer.controls.patch.value == 9 and "Patch 9:" in explorer.readout.value
    explorer.controls.num_centers.value = 1
    assert explorer.controls.patch.value == 0 and "Patch 0:" in explorer.readout.value


def test_a_click_opens_the_patch_of_the_nearest_center(explorer, clouds):
    shown = widgets.explore_patches(cloud_of(clouds, "chair"), 64, 32, 0.03)
    click(explorer, 2, 41)  # on a centre
    assert explorer.controls.patch.value == 41 and "Patch 41:" in explorer.readout.value
    assert torch.equal(drawn(explorer.figure.data[4]), shown.inputs[41])
    point = drawn(explorer.figure.data[0])[100]  # on some point of the cloud
    click(explorer, 0, 100)
    wanted = int(knn(point[None, None], shown.centers[None], 1))
    assert wanted != 41 and explorer.controls.patch.value == wanted


def test_what_can_be_clicked_sends_clicks(explorer):
    """plotly reports no click on a trace whose hoverinfo is "skip"."""
    assert [trace.hoverinfo for trace in explorer.figure.data] == ["none"] * 4 + ["skip"] * 2


def test_a_patch_keeps_its_size_against_the_others(explorer):
    """All patches of a cloud are shown in one box, or a small one would look large."""
    before = explorer.figure.layout.scene2.xaxis.range
    explorer.controls.patch.value = 20
    assert explorer.figure.layout.scene2.xaxis.range == before
    explorer.controls.frame.value = "mean_std"
    low, high = explorer.figure.layout.scene2.xaxis.range
    assert high == -low and high > 2 * before[1]
    assert explorer.figure.layout.scene.xaxis.range == (-1, 1)


def test_shape_slider_stays_inside_its_category(explorer, clouds):
    for name in ("table", "bottle"):
        explorer.controls.category.value = name
        last = int((clouds.labels == clouds.classes.index(name)).sum()) - 1
        explorer.controls.shape.value = last
        assert explorer.controls.shape.max == last
        shown = widgets.explore_patches(cloud_of(clouds, name, last), 64, 32, 0.03)
        assert widgets.patch_readout(shown, 0) in explorer.readout.value


def test_turning_moves_both_cameras(explorer):
    before = explorer.figure.layout.scene.camera.eye.x
    explorer.controls.turn.value = 90
    eyes = explorer.figure.layout.scene.camera.eye, explorer.figure.layout.scene2.camera.eye
    assert eyes[0].x != before and eyes[0] == eyes[1]


def test_every_control_has_a_label(explorer):
    for name, control in vars(explorer.controls).items():
        assert control.description, name
    assert 'role="status"' in explorer.readout.value  # read out by a screen reader


def test_a_slider_is_answered_in_150_ms(explorer):
    seconds = []
    for name, values in (
        ("num_centers", range(40, 128, 10)),
        ("patch_size", range(10, 100, 10)),
        ("patch", range(1, 10)),
    ):
        for value in values:
            started = time.perf_counter()
            getattr(explorer.controls, name).value = value
            seconds.append(time.perf_counter() - started)
    assert sorted(seconds)[len(seconds) // 2] < 0.15, seconds


def test_small_clouds_can_be_explored(clouds):
    pytest.importorskip("anywidget")
    few = load("objects", "train", 30, 24)
    explorer = widgets.patch_explorer(few, "chair")
    assert explorer.controls.num_centers.max == explorer.controls.patch_size.max == 24
    assert "100.0% of 24 points" in explorer.readout.value


def test_clouds_that_cannot_be_explored_are_refused(clouds):
    with pytest.raises(ValueError, match="no labels"):
        widgets.patch_explorer(load("procedural", "train", 2, 64))
    with pytest.raises(ValueError, match="no shape of 'elephant'"):
        widgets.patch_explorer(clouds, "elephant")


def test_centers_are_those_of_the_library(clouds):
    shown = widgets.explore_patches(clouds.points[5], 12, 6, 0.1)
    chosen = farthest_point_sample(shown.points[None], 12)
    assert torch.equal(shown.centers, gather(shown.points[None], chosen)[0])
