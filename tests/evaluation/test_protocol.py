"""The ways to test one classifier, on classifiers whose answers are known."""

import pytest
import torch
from torch import nn

from serplib.data.common import Clouds
from serplib.evaluation.accuracy import predict
from serplib.evaluation.protocol import VOTES, WAYS, votes, ways_to_test
from serplib.perturbation import scale_and_shift
from serplib.seeding import named_generator

CLASSES = ("left", "right", "middle")


class Sides(nn.Module):
    """Logits by the mean x of a cloud; a parameter, since `predict` asks for its device."""

    def __init__(self, sharpness=4.0):
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(sharpness))

    def forward(self, points):
        x = points[..., 0].mean(1)  # (B,)
        return self.sharpness * torch.stack([-x, x, 0.1 - x.abs()], 1)  # (B, 3)


@pytest.fixture
def clouds():
    generator = named_generator("protocol")
    points = 0.2 * torch.randn(100, 64, 3, generator=generator)
    labels = torch.arange(100) % 3
    points[..., 0] += 0.12 * torch.tensor([-1.0, 1.0, 0.0])[labels, None]
    return Clouds("made up", "test", points, labels, CLASSES, "")


def history(*values):
    return [{"epoch": i + 1, "monitor_accuracy": value} for i, value in enumerate(values)]


def test_votes_by_hand(clouds):
    model, generator = Sides(), named_generator("v")
    found = votes(model, clouds.points, 3, named_generator("v"), batch_size=7)
    assert found.shape == (3, 100) and found.dtype == torch.int64
    torch.testing.assert_close(found[0], predict(model, clouds.points))  # the first is as it is
    with torch.no_grad():
        total = model(clouds.points).softmax(-1)
        for row in found[1:]:
            total = total + model(scale_and_shift(clouds.points, generator)).softmax(-1)
            torch.testing.assert_close(row, total.argmax(-1))
    assert not found[0].equal(found[2])  # a shift of 0.2 changes some of these


def test_ways_by_hand(clouds):
    model = Sides()
    found = ways_to_test(model, clouds, history(0.5, 0.9, 0.7), seed=0)
    right = predict(model, clouds.points).eq(clouds.labels)
    assert set(found) == {"reference", *WAYS}
    assert found["reference"] == pytest.approx(right.double().mean().item())
    assert 0.6 < found["reference"] < 1  # else the ways could not differ
    assert (found["last_epoch"], found["best_epoch"]) == (0.7, 0.9)
    assert found["padded"] == pytest.approx(int(right.sum()) / 128)
    each = [right[clouds.labels == c].double().mean().item() for c in range(3)]
    assert found["class_mean"] == pytest.approx(sum(each) / 3)
    rows = votes(model, clouds.points, VOTES, named_generator(0, "votes")).eq(clouds.labels)
    assert found["votes"] == pytest.approx(rows[-1].double().mean().item())
    assert found["best_votes"] == pytest.approx(rows.double().mean(1).max().item())
    assert found["best_votes"] >= max(found["votes"], found["reference"])


def test_half_of_the_points_reach_the_classifier(clouds):
    sizes = []

    class Counting(Sides):
        def forward(self, points):
            sizes.append(points.shape[1])
            return super().forward(points)

    ways_to_test(Counting(), clouds, history(0.5), seed=0)
    assert sizes.count(32) == 2 and set(sizes) == {32, 64}  # one batch each


def test_the_seed_decides_the_votes(clouds):
    first, again, other = (ways_to_test(Sides(), clouds, history(1.0), s) for s in (1, 1, 2))
    assert first == again and first != other


def test_bad_arguments_are_named(clouds):
    with pytest.raises(ValueError, match="monitor=test"):
        ways_to_test(Sides(), clouds, [{"epoch": 1}], 0)
    with pytest.raises(ValueError, match="wanted labels"):
        bare = Clouds("made up", "test", clouds.points, None, CLASSES, "")
        ways_to_test(Sides(), bare, history(1.0), 0)
    with pytest.raises(ValueError, match="count is 0"):
        votes(Sides(), clouds.points, 0, named_generator("v"))
    with pytest.raises(ValueError, match="points has shape"):
        votes(Sides(), clouds.points[0], 2, named_generator("v"))
