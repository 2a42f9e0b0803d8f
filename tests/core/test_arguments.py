"""Whatever takes tensors says what it got and what it wanted, in one line, when they are wrong.

A table: every public function and module that takes tensors, times everything that is no batch of
clouds. Settings that are wrong (k > N, sigma < 0, K < 1, ...) stand in the tests of their modules.
"""

import dataclasses

import pytest
import torch

from serplib import (
    bottlenecks,
    classifier,
    geometry,
    patches,
    perturbation,
    point_mae,
    pointnet,
    pretext,
    seeding,
    transformer,
    vasp,
)
from serplib.evaluation import accuracy, np_net, point_nn, probes, reconstruction
from serplib.presets import build
from serplib.validation import expect

PRESET = build("quick")
SMALL = dataclasses.replace(PRESET.transformer, num_centers=4, patch_size=6)
POINTNET = pointnet.SerpPointNet(PRESET.pointnet).eval()
TRANSFORMER = transformer.SerpTransformer(SMALL).eval()
VASP = vasp.Vasp(SMALL, PRESET.vasp).eval()
MASKED = point_mae.PointMAE(SMALL, PRESET.masked).eval()
CLASSIFIER = classifier.Classifier(POINTNET.encoder, 3).eval()
TASK = pretext.Pretext(POINTNET, PRESET.corruption)
NOISE = perturbation.Perturbation(4, 4)
GOOD = torch.randn(2, 40, 3, generator=seeding.named_generator("arguments"))
TOUCHED = torch.zeros(2, 40, dtype=torch.bool)


def draw():
    return seeding.named_generator("arguments", "draw")


# what takes clouds (B, N, 3)
CLOUDS = {
    "squared_distances": lambda x: geometry.squared_distances(x, x),
    "squared_distances, second": lambda x: geometry.squared_distances(GOOD, x),
    "farthest_point_sample": lambda x: geometry.farthest_point_sample(x, 4),
    "knn, queries": lambda x: geometry.knn(x, GOOD, 4),
    "knn, points": lambda x: geometry.knn(GOOD, x, 4),
    "nearest_pairs": lambda x: geometry.nearest_pairs(x, GOOD),
    "chamfer_l2": lambda x: geometry.chamfer_l2(x, GOOD),
    "chamfer_l2, second": lambda x: geometry.chamfer_l2(GOOD, x),
    "Perturbation": lambda x: NOISE(x, draw()),
    "Perturbation.pick_centers": lambda x: NOISE.pick_centers(x, draw()),
    "scale_and_shift": lambda x: perturbation.scale_and_shift(x, draw()),
    "authors_normalize": perturbation.authors_normalize,
    "make_patches": lambda x: patches.make_patches(x, 4, 4),
    "make_patches, clean": lambda x: patches.make_patches(GOOD, 4, 4, x),
    "PointNetEncoder": POINTNET.encoder,
    "SerpPointNet": POINTNET,
    "SerpPointNet.losses": lambda x: POINTNET.losses(x, GOOD, TOUCHED),
    "SerpPointNet.losses, clean": lambda x: POINTNET.losses(GOOD, x, TOUCHED),
    "SerpPointNet.restore": POINTNET.restore,
    "TransformerEncoder": TRANSFORMER.encoder,
    "SerpTransformer": TRANSFORMER,
    "SerpTransformer.losses": lambda x: TRANSFORMER.losses(x, GOOD, TOUCHED),
    "SerpTransformer.restore": TRANSFORMER.restore,
    "Vasp": VASP,
    "Vasp.losses": lambda x: VASP.losses(x, GOOD, TOUCHED),
    "Vasp.codes": VASP.codes,
    "Vasp.restore": VASP.restore,
    "PointMAE": MASKED,
    "PointMAE.losses": lambda x: MASKED.losses(GOOD, x, TOUCHED),  # reads the clean clouds only
    "PointMAE.restore": MASKED.restore,
    "Classifier": CLASSIFIER,
    "Pretext.corrupt": lambda x: TASK.corrupt(x, draw()),
    "Pretext": lambda x: TASK(x, draw()),
    "predict": lambda x: accuracy.predict(CLASSIFIER, x),
    "features": lambda x: probes.features(POINTNET.encoder, x),
    "handmade": probes.handmade,
    "point_nn": point_nn.features,
    "np_net": np_net.features,
    "resample_baseline": lambda x: reconstruction.resample_baseline(x, 0),
}
BAD_CLOUDS = {
    "no tensor": [[0.0, 0.0, 0.0]],
    "one cloud, no batch": GOOD[0],
    "a dimension too many": GOOD[None],
    "four coordinates": torch.zeros(2, 40, 4),
    "coordinates first": GOOD.mT,
    "no clouds": GOOD[:0],
    "no points": GOOD[:, :0],
    "whole numbers": torch.ones(2, 40, 3, dtype=torch.int64),
}


def refused(call, given):
    """One line that names what came and what was wanted."""
    with pytest.raises((TypeError, ValueError)) as error:
        call(given)
    message = str(error.value)
    assert "\n" not in message and len(message) < 200
    received = getattr(given, "shape", None)
    assert type(given).__name__ in message if received is None else True
    if received is not None and given.is_floating_point():
        assert str(tuple(received)) in message, message
    assert "wanted" in message, message


@pytest.mark.parametrize("bad", BAD_CLOUDS)
@pytest.mark.parametrize("name", CLOUDS)
def test_what_is_no_batch_of_clouds_is_refused(name, bad):
    refused(CLOUDS[name], BAD_CLOUDS[bad])


@pytest.mark.parametrize("name", CLOUDS)
def test_what_is_a_batch_of_clouds_is_taken(name):
    """So that the table above refuses what is bad, and not everything."""
    CLOUDS[name](GOOD)


# ---- other tensors ----

LATENT = torch.zeros(2, 5, 8)
OTHERS = {
    # name: (call, something good, things that are bad)
    "gather": (
        lambda x: geometry.gather(x, torch.zeros(2, 3, dtype=torch.int64)),
        torch.zeros(2, 5, 7),
        (torch.zeros(3, 5, 7), torch.zeros(5, 7), torch.zeros(2, 0, 7), None),
    ),
    "TokenPointNet": (
        patches.TokenPointNet(8).eval(),
        torch.zeros(2, 3, 4, 3),
        (torch.zeros(2, 4, 3), torch.zeros(2, 3, 0, 3), torch.zeros(2, 3, 4, 2), [0.0]),
    ),
    "patch_chamfer": (
        lambda x: transformer.patch_chamfer(x, torch.zeros(2, 3, 4, 3)),
        torch.zeros(2, 3, 5, 3),
        (torch.zeros(2, 4, 3), torch.zeros(2, 0, 4, 3), torch.zeros(2, 3, 4, 3).long(), 0.0),
    ),
    "nearest_codes": (
        lambda x: bottlenecks.nearest_codes(x, torch.zeros(4, 8)),
        torch.zeros(6, 8),
        (torch.zeros(6, 7), torch.zeros(0, 8), torch.zeros(8), LATENT, "tokens"),
    ),
    "VectorQuantizer": (
        bottlenecks.VectorQuantizer(4, 8).eval(),
        LATENT,
        (LATENT[0], LATENT[..., :7], LATENT[:0], LATENT[:, :0], LATENT.long(), None),
    ),
    "GaussianBottleneck": (
        bottlenecks.GaussianBottleneck(8).eval(),
        LATENT,
        (LATENT[0], LATENT[..., :7], LATENT[:0], LATENT[:, :0], LATENT.long(), None),
    ),
    "ResidualQuantizer": (
        bottlenecks.ResidualQuantizer(2, 4, 8).eval(),
        LATENT,
        (LATENT[0], LATENT[..., :7], LATENT[:0], LATENT[:, :0], LATENT.long(), None),
    ),
    "FiniteScalarQuantizer": (
        bottlenecks.FiniteScalarQuantizer(8).eval(),
        LATENT,
        (LATENT[0], LATENT[..., :7], LATENT[:0], LATENT[:, :0], LATENT.long(), None),
    ),
    "GumbelBottleneck": (
        bottlenecks.GumbelBottleneck(4, 8).eval(),
        LATENT,
        (LATENT[0], LATENT[..., :7], LATENT[:0], LATENT[:, :0], LATENT.long(), None),
    ),
    "rankme": (
        probes.rankme,
        torch.ones(5, 3),
        (torch.ones(5), torch.ones(0, 3), torch.ones(5, 0), torch.ones(5, 3).long(), None),
    ),
    "feature_spread": (
        probes.feature_spread,
        torch.ones(5, 3),
        (torch.ones(5), torch.ones(1, 3), torch.ones(5, 0), torch.ones(5, 3).long(), None),
    ),
    "linear_cka": (
        lambda x: probes.linear_cka(x, torch.ones(5, 2)),
        torch.ones(5, 3),
        (torch.ones(5), torch.ones(5, 0), torch.ones(5, 3).long(), None),
    ),
    "touched": (
        lambda x: POINTNET.losses(GOOD, GOOD, x),
        TOUCHED,
        (TOUCHED.float()[:1], TOUCHED.float()[:, :1], torch.zeros(2, 40, 1), None),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_tensors_are_refused_alike(name):
    call, good, bad = OTHERS[name]
    call(good)
    for given in bad:
        refused(call, given)


@pytest.mark.parametrize(
    "call",
    [
        POINTNET.encoder,
        TRANSFORMER.encoder,
        VASP,
        CLASSIFIER,
        bottlenecks.VectorQuantizer(4, 3),
        bottlenecks.GaussianBottleneck(3),
        bottlenecks.FiniteScalarQuantizer(3),
        lambda x: geometry.knn(GOOD, x, 4),
        lambda x: geometry.chamfer_l2(x, GOOD),
    ],
)
def test_tensors_on_another_device_are_refused(call):
    with pytest.raises(ValueError, match=r"is on (meta|cpu), wanted on (meta|cpu): move it with"):
        call(GOOD.to("meta"))


@pytest.mark.parametrize("shape", ["B N 3", "2 N 3", "2 40 3", "S M C"])
def test_expect_is_silent_about_what_fits(shape):
    assert expect(GOOD, shape) is None


def test_expect_counts_the_dimensions_and_the_numbers():
    for shape in ("B N", "B N 3 x", "3 N 3", "B 41 3", "B N 4"):
        with pytest.raises(ValueError, match=rf"wanted \({', '.join(shape.split())}\)"):
            expect(GOOD, shape)
    expect(TOUCHED, "B N", floats=False)
    with pytest.raises(TypeError, match=r"touched is torch\.bool, wanted a float type"):
        expect(TOUCHED, "B N", "touched")
