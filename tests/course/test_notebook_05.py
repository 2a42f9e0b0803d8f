"""05_serp_pointnet: what the notebook builds is what `serplib.pointnet` has."""

import dataclasses

import pytest
import torch
from notebook_helpers import built
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from serplib import accel
from serplib.geometry import chamfer_l2
from serplib.perturbation import Perturbation
from serplib.pointnet import PointNetConfig, SerpPointNet
from serplib.presets import Optim
from serplib.pretext import Corruption, Pretext
from serplib.seeding import named_generator
from serplib.training import epoch_batches, learning_rate, pretrain

NAME = "05_serp_pointnet"
SIZES = PointNetConfig(
    widths=(6, 8, 10), decoder_widths=(9, 8, 7, 6), transform_widths=(5, 6, 7, 6, 5)
)


@pytest.fixture(scope="module")
def made():
    return built(
        NAME,
        F=F,
        chamfer_l2=chamfer_l2,
        named_generator=named_generator,
        epoch_batches=epoch_batches,
        learning_rate=learning_rate,
        num_points=64,  # a default of make_task
    )


@pytest.fixture(scope="module")
def twins():
    """Clouds that the notebook does not use, and a size that it does not use."""
    clean = torch.randn(3, 40, 3, generator=named_generator("05", "cloud")) / 2
    perturbed, touched, _ = Perturbation(4, 6, 0.3)(clean, named_generator("05", "noise"))
    return perturbed, clean, touched


def settled(**changes):
    """A model whose BatchNorm layers and T-Nets are not as they are at first."""
    torch.manual_seed(3)
    model = SerpPointNet(dataclasses.replace(SIZES, **changes)).eval()
    generator = named_generator("05", "settled")
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_var", "norm.weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith(("running_mean", "norm.bias")) or "matrix" in name:
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return model


@torch.no_grad()
def test_encoder_piece_by_piece(made, twins):
    model = settled(input_transform=False, feature_transform=False)
    points = twins[0]
    for layer in (model.encoder.local, model.encoder.local.requires_grad_(False)):
        torch.testing.assert_close(made["my_shared"](points, layer), layer(points))
    features, local = made["my_features"](points, model.encoder)
    whole, their_local = model.encoder.encode(points)
    torch.testing.assert_close(features.max(1).values, whole)
    torch.testing.assert_close(local, their_local)
    assert (features < 0).any()  # the last layer has no ReLU


@torch.no_grad()
def test_heads(made, twins):
    model = settled()
    whole, local = model.encoder.encode(twins[0])
    for ours, theirs in zip(made["my_heads"](whole, local, model), model(twins[0])):
        torch.testing.assert_close(ours, theirs)


@torch.no_grad()
@pytest.mark.parametrize("task", ["delta", "cdl2"])
def test_losses_of_equation_1(made, twins, task):
    model = settled(task=task, alpha_cls=0.7)
    perturbed, clean, touched = twins
    ours = made["my_losses"](*model(perturbed), perturbed, clean, touched, model.config)
    theirs = model.losses(perturbed, clean, touched)
    for mine, name in zip(ours, ("total", "classification", "reconstruction")):
        torch.testing.assert_close(mine, theirs[name])


def test_gradient_norms_are_the_two_parts_of_the_encoders_gradient(made, twins):
    model = settled(alpha_cls=0.5)
    norms = made["gradient_norms"](model, model.losses(*twins))
    for name, alpha in (("classification", 0.5), ("reconstruction", 1.5)):
        model.zero_grad()
        (alpha * model.losses(*twins)[name]).backward()
        whole = torch.cat([p.grad.flatten() for p in model.encoder.parameters()]).norm()
        assert norms[name] == pytest.approx(whole.item(), rel=1e-4)
    assert norms["classification"] != pytest.approx(norms["reconstruction"], rel=0.1)


@pytest.mark.parametrize("share, weights", [(0.3, (1.0, 1.0)), (0.3, (0.25, 0.75)), (0.6, (2, 1))])
def test_base_rate_entropy_is_the_best_that_a_constant_can_pay(made, share, weights):
    touched = (torch.arange(1000) < 1000 * share).long()
    paid = [
        F.cross_entropy(
            torch.tensor([0.0, logit]).expand(1000, 2), touched, torch.tensor(weights).float()
        ).item()
        for logit in torch.linspace(-4, 4, 801).tolist()
    ]
    assert made["base_rate_entropy"](share, weights) == pytest.approx(min(paid), abs=1e-4)


def test_auc_equals_scikit_learns_with_ties(made):
    generator = named_generator("05", "roc")
    touched = torch.rand(400, generator=generator) < 0.3
    for scores in (
        torch.randn(400, generator=generator) + touched,
        torch.randint(-3, 3, (400,), generator=generator) + touched.long(),  # many ties
        torch.zeros(400),
    ):
        assert made["my_auc"](scores, touched) == pytest.approx(roc_auc_score(touched, scores))


def test_the_loop_ends_at_the_weights_of_the_library(made, twins):
    points = torch.cat([twins[1], -twins[1]])  # (6, 40, 3)
    optim = Optim(epochs=3, batch_size=2, lr=5e-3, weight_decay=0.1, warmup_epochs=1)
    ends = []
    for ours in (True, False):
        torch.manual_seed(5)
        task = Pretext(SerpPointNet(SIZES), Corruption(Perturbation(3, 5, 0.2), num_points=30))
        first = {name: value.clone() for name, value in task.state_dict().items()}
        if ours:
            history = made["my_pretrain"](task, points, optim, 7, watch_every=4)
        else:
            with accel.disabled():  # the notebook's loop trains plain layers, too
                pretrain(task, points, points[:2], optim, 7)
        ends.append({name: value.cpu() for name, value in task.state_dict().items()})
        name = "model.decoder.0.linear.weight"
        assert not torch.equal(first[name], ends[-1][name])
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-4, atol=1e-5)
    assert len(history) == 9 and [i for i, h in enumerate(history) if "norms" in h] == [0, 4, 8]


def test_a_points_answer_needs_the_winners_alone(made, twins):
    """Section 11: what wins no maximum can be deleted, and no other point's answer changes."""
    model = settled(feature_transform=False, input_transform=False)
    cloud = twins[0][:1]
    with torch.no_grad():
        features, _ = made["my_features"](cloud, model.encoder)
        winners = features[0].max(0).indices.unique()
        asked = next(i for i in range(40) if i not in winners.tolist())
        kept = torch.cat([torch.tensor([asked]), winners])
        torch.testing.assert_close(model(cloud)[0][0, asked], model(cloud[:, kept])[0][0, 0])
    assert len(kept) < 15


def test_nearest_gap(made):
    line = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]])
    assert made["nearest_gap"](line).tolist() == [[1.0, 1.0, 2.0]]
