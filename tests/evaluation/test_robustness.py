"""`evaluation.robustness`: accuracy over the true number of shapes, against the right labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from serplib.data import DataError, common, load
from serplib.data.common import Clouds
from serplib.data.modelnet import CLASSES
from serplib.evaluation import robustness
from serplib.evaluation.corruptions import CORRUPTIONS, fit_box, swap_up
from serplib.experiments import pipelines, summaries
from serplib.geometry import squared_distances
from serplib.seeding import named_generator

CLOUDS = load("objects", "test", 8).points  # (8, 1024, 3), z up
CHANGED_SIZES = ("background", "upsampling", "cutout", "density", "lidar")


# ---- rotations ---------------------------------------------------------------------------------


def test_rotations_keep_distances_and_their_axis():
    for about in ("x", "y", "z", "so3"):
        out = robustness.rotated(CLOUDS, about, named_generator(2))
        torch.testing.assert_close(squared_distances(out, out), squared_distances(CLOUDS, CLOUDS),
                                   rtol=0, atol=1e-5)  # fmt: skip
        kept = [bool(torch.allclose(out[..., i], CLOUDS[..., i], atol=1e-6)) for i in range(3)]
        assert kept == [about == axis for axis in "xyz"]
    with pytest.raises(ValueError, match="about is 'up', wanted 'x', 'y', 'z' or 'so3'"):
        robustness.rotated(CLOUDS, "up", named_generator(0))


def test_so3_is_uniform():
    """Images of one vector are uniform on the sphere: mean 0, covariance a third of identity."""
    one = torch.tensor([[[1.0, 0, 0]]]).expand(4000, 1, 3)
    out = robustness.rotated(one, "so3", named_generator(0))[:, 0]
    assert out.mean(0).abs().max() < 0.04
    torch.testing.assert_close(out.T @ out / 4000, torch.eye(3) / 3, rtol=0, atol=0.03)


# ---- our own corruptions -----------------------------------------------------------------------


def by_size(points):
    """A classifier that counts: 0 where a cloud has 1,024 points, else 1."""
    return torch.full((len(points),), int(points.shape[1] != 1024))


def labelled(points, name="objects", classes=("a", "b")):
    return Clouds(name, "test", points, torch.zeros(len(points), dtype=torch.long), classes, "0")


def test_robustness_is_accuracy_over_all_shapes():
    found = robustness.robustness(by_size, labelled(CLOUDS), 0, (1,))
    assert found["clean"] == 1 and found["points_64"] == 0 and found["rotated_so3"] == 1
    for name in CORRUPTIONS:
        assert found[f"{name}_1"] == float(name not in CHANGED_SIZES)
    assert len(found) == 2 + 15 + 4 + 2
    assert sum(robustness.GROUPS.values()) == len(CORRUPTIONS)
    means = robustness.summary(found)
    assert means == pytest.approx(
        {"density": 2 / 5, "noise": 3 / 5, "transformation": 1, "corrupted": (0.4 + 0.6 + 1) / 3}
    )
    with pytest.raises(ValueError, match="objects has no labels"):
        robustness.robustness(by_size, replace(labelled(CLOUDS), labels=None), 0)


def test_the_frame_has_a_figure_of_its_own():
    """A classifier that looks at nothing but the frame: the clean clouds, moved into the box."""

    def in_box(points):
        return torch.isclose((points.amax(1) - points.amin(1)).amax(1), torch.tensor(2.0)).long()

    found = robustness.robustness(in_box, labelled(CLOUDS), 0, (1,))
    assert found["clean"] == found["gaussian_1"] == 1
    assert found["clean_in_box"] == found["uniform_1"] == found["rotation_1"] == 0


def test_rotations_are_about_the_axis_that_points_up():
    """A classifier that knows each shape by its heights is right if these are kept."""

    for up in ("y", "z"):
        axis = "xyz".index(up)
        clouds = CLOUDS if up == "z" else swap_up(CLOUDS)
        known = clouds[..., axis].sort(1).values

        def same(points, axis=axis, known=known):
            if points.shape != CLOUDS.shape:
                return torch.ones(len(points), dtype=torch.long)
            return ((points[..., axis].sort(1).values - known).abs().amax(1) > 1e-5).long()

        found = robustness.robustness(same, labelled(clouds, "somewhere"), 0, (1,), up=up)
        assert found["rotated_z"] == 1 and found["rotated_so3"] == 0


def planes(up, count=10, name="modelnet40"):
    """Clouds whose class 0 is an airplane, flat along the axis that points up."""
    points = torch.randn(count, 256, 3, generator=named_generator("planes"))
    points[..., "xyz".index(up)] *= 0.2
    labels = torch.arange(count) % 2
    return Clouds(name, "test", points, labels, ("airplane", "bed"), "0")


def test_the_axis_that_points_up_is_measured_and_compared():
    for up in ("y", "z"):
        assert robustness.check_up(planes(up)) == up == robustness.check_up(planes(up), up)
    with pytest.raises(ValueError, match="up is 'z', but in modelnet40 the axis y points up"):
        robustness.robustness(by_size, planes("y"), 0, (1,), up="z")
    assert robustness.check_up(labelled(CLOUDS)) == "z"
    assert robustness.check_up(labelled(CLOUDS, "scanobjectnn_obj_bg")) == "y"
    with pytest.raises(ValueError, match="cannot tell which axis of chairs points up: pass up="):
        robustness.check_up(labelled(CLOUDS, "chairs"))
    assert robustness.check_up(labelled(CLOUDS, "chairs"), "y") == "y"


def test_built_in_shapes_have_the_axis_that_is_assumed():
    clouds = load("objects", "test", 90, 256)
    assert robustness.up_axis(clouds) == robustness.check_up(clouds) == "z"


# ---- the published files -----------------------------------------------------------------------


def shape_of(label, generator):
    """A box whose three sides tell its class; class 0 is low, so that it can be an airplane."""
    sides = torch.rand(3, generator=named_generator("sides", label))
    if label == 0:
        sides = torch.tensor([0.9, 0.15, 0.7])
    points = (torch.rand(256, 3, generator=generator) * 2 - 1) * (0.2 + 0.8 * sides)
    return common.normalize(points)


LABELS = torch.arange(80) % 40


def made_clouds(labels, seed):
    generator = named_generator("shapes", seed)
    return torch.stack([shape_of(int(label), generator) for label in labels])


def classify(points):
    """A nearest-mean classifier on the extents of clouds, whatever their scale."""

    def extents(clouds):
        sides = torch.quantile(clouds, 0.98, dim=1) - torch.quantile(clouds, 0.02, dim=1)
        return sides / sides.norm(dim=1, keepdim=True)

    means = extents(made_clouds(torch.arange(40), "means"))
    return torch.cdist(extents(points), means).argmin(1)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A complete ModelNet40-C of 80 shapes in an order of its own; y up; clouds of noise."""
    monkeypatch.setenv("SERP_DATA", str(tmp_path))
    monkeypatch.setattr(common, "DATASETS", tmp_path / "datasets")
    folder = tmp_path / "modelnet40_c"
    folder.mkdir()
    order = torch.randperm(80, generator=named_generator("order"))
    labels = LABELS[order]
    np.save(folder / "label.npy", labels.numpy()[:, None])
    for number, name in enumerate(CORRUPTIONS):
        clouds = made_clouds(labels, f"file {number}")
        if name == "lidar":
            clouds = fit_box(clouds)[:, :192]
        np.save(folder / f"data_{name}_1.npy", clouds.numpy())
    return folder


def clean(up="y"):
    points = made_clouds(LABELS, "clean")
    return Clouds("modelnet40", "test", points if up == "y" else swap_up(points), LABELS, CLASSES,
                  "0")  # fmt: skip


def test_published_files_are_scored_against_their_own_labels(files):
    """The labels of another copy, in another order, would give chance."""
    test = clean()
    right = classify(test.points).eq(test.labels).double().mean().item()
    assert right > 0.5
    found = robustness.modelnet40_c(classify, test, (1,))
    assert set(found) == {f"{name}_1" for name in CORRUPTIONS}
    for name in CORRUPTIONS:
        points = torch.from_numpy(np.load(files / f"data_{name}_1.npy"))
        labels = torch.from_numpy(np.load(files / "label.npy"))[:, 0]
        expected = classify(points).eq(labels).double().mean().item()
        assert found[f"{name}_1"] == expected > 0.5 * right
        assert classify(points).eq(test.labels).double().mean() < 0.2  # joined by position
    assert robustness.summary(found)["corrupted"] > 0.5 * right


def test_our_corruptions_do_not_read_the_files(files):
    """Figures of the files stand apart from those of our own corruptions."""
    test = replace(clean(), points=clean().points[:6], labels=LABELS[:6])
    before = robustness.robustness(classify, test, 0, (1,))
    for file in files.glob("*.npy"):
        file.unlink()
    assert robustness.robustness(classify, test, 0, (1,)) == before


def test_a_missing_label_file_is_refused(files):
    (files / "label.npy").unlink()
    with pytest.raises(DataError, match=r"label\.npy: file not found"):
        robustness.modelnet40_c(classify, clean(), (1,))


def test_labels_of_another_length_are_refused(files):
    np.save(files / "label.npy", LABELS.numpy()[:79])
    with pytest.raises(DataError, match=r"80 clouds, but label\.npy has 79"):
        robustness.modelnet40_c(classify, clean(), (1,))


def test_a_missing_file_is_refused(files):
    (files / "data_lidar_1.npy").unlink()
    with pytest.raises(DataError, match=r"1 files are missing, the first is data_lidar_1\.npy"):
        robustness.modelnet40_c(classify, clean(), (1,))
    (files / "data_shear_1.npy").rename(files / "data_shear_2.npy")
    with pytest.raises(DataError, match="2 files are missing"):
        robustness.modelnet40_c(classify, clean(), (1,))


def test_labels_in_another_order_are_refused(files):
    """Airplanes keep their label, so that the axis check alone would pass."""
    labels = np.load(files / "label.npy")[:, 0]
    mixed = labels.copy()
    mixed[labels > 0] = 1 + (labels[labels > 0] + 7) % 39
    np.save(files / "label.npy", mixed)
    with pytest.raises(DataError, match=r"on at most \d+% of gaussian.*label.npy does not belong"):
        robustness.modelnet40_c(classify, clean(), (1,))


def test_another_axis_is_refused(files):
    def with_z_up(points):
        return classify(swap_up(points))

    assert with_z_up(clean("z").points).eq(LABELS).double().mean() > 0.5
    with pytest.raises(DataError, match="lowest along y, in modelnet40 z points up"):
        robustness.modelnet40_c(with_z_up, clean("z"), (1,))


def test_a_classifier_in_another_pose_is_refused(files):
    """The axis is the same, but shapes face another way than the classifier has learnt."""

    def about_face(points):
        return classify(points[..., [2, 1, 0]])

    test = replace(clean(), points=clean().points[..., [2, 1, 0]])
    assert about_face(test.points).eq(LABELS).double().mean() > 0.5
    with pytest.raises(DataError, match="trained on shapes in another pose"):
        robustness.modelnet40_c(about_face, test, (1,))


def test_other_classes_are_refused(files):
    test = replace(clean(), classes=CLASSES[:10], labels=LABELS % 10)
    with pytest.raises(DataError, match="not the 10 classes of modelnet40"):
        robustness.modelnet40_c(classify, test, (1,))


def test_without_the_set_there_is_a_remedy(tmp_path, monkeypatch):
    monkeypatch.delenv("SERP_DATA", raising=False)
    monkeypatch.setattr(common, "DATASETS", tmp_path)
    with pytest.raises(DataError, match="ModelNet40-C not found"):
        robustness.modelnet40_c(classify, clean(), (1,))


# ---- the record and the report -----------------------------------------------------------------


def recorded(metrics):
    """A record of a fine-tuned classifier with these metrics."""
    return {
        "run": {"name": "robust", "label": "robust", "hash": "x"},
        "parameters": {"seed": 0, "preset": "quick"},
        "data": {"test": {"name": "modelnet40", "num_shapes": 2468}},
        "metrics": metrics,
        "seconds": 1.0,
        "environment": {"device": "cpu", "packages": {"torch": "2"}, "git": {"revision": "0" * 40}},
    }


def test_files_and_our_own_corruptions_stand_in_different_tables():
    ours = {f"{name}_1": 0.5 for name in CORRUPTIONS} | {"clean": 0.9, "clean_in_box": 0.7}
    ours |= {f"points_{n}": 0.4 for n in robustness.POINTS}
    ours |= {"rotated_z": 0.3, "rotated_so3": 0.1}
    files = {f"{name}_1": 0.25 for name in CORRUPTIONS}
    found = summaries.summarize([recorded({"robustness": ours, "modelnet40_c": files})])
    (title, own), (other, published) = found.tables.items()
    assert title.startswith("Robustness") and other.startswith("ModelNet40-C, its own files")
    assert own.loc[0, "corrupted"] == "50.0" and own.loc[0, "clean, in the box"] == "70.0"
    assert published.loc[0, "corrupted"] == "25.0" and "clean" not in published
    assert any("Only the table of ModelNet40-C's own files" in note for note in found.notes)


def test_a_record_of_the_uncorrected_corruptions_is_marked():
    old = {f"{name}_1": 0.5 for name in CORRUPTIONS} | {"clean": 0.9, "files": 0.0}
    found = summaries.summarize([recorded({"robustness": old})])
    assert any("Run the suite again" in note for note in found.notes)


def test_few_shot_episodes_within_the_test_split_are_marked():
    kept = {"svm_accuracy": 0.5, "svm_correct": "3", "rankme": 1.0, "feature_variance": 1.0}
    folds = {"accuracy": 0.5, "sd": 0.1, "folds": [0.4, 0.6]}
    for key, marked in (("few_shot_5_way_10_shot", True), ("few_shot_5w10s", False)):
        found = summaries.summarize([recorded({"probes": kept | {key: folds}})])
        assert any("not comparable" in note for note in found.notes) is marked
        shown = next(frame for title, frame in found.tables.items() if "Few-shot" in title)
        assert shown.columns[-1] == ("5 way 10 shot" if marked else "5w10s")


def test_files_that_do_not_fit_leave_a_warning_and_no_figure(files):
    scored = pipelines._published_corruptions(classify, clean(), (1,))
    assert set(scored) == {f"{name}_1" for name in CORRUPTIONS}
    (files / "label.npy").unlink()
    with pytest.warns(UserWarning, match=r"ModelNet40-C is not scored: .*label\.npy"):
        assert pipelines._published_corruptions(classify, clean(), (1,)) == {}
    other = replace(clean(), name="objects")
    assert pipelines._published_corruptions(classify, other, (1,)) == {}
    for file in files.iterdir():
        file.unlink()
    files.rmdir()
    assert pipelines._published_corruptions(classify, clean(), (1,)) == {}
