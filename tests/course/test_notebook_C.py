"""What C_protocol builds is right, and its prose says what the records say."""

import math

import pytest
import torch
from notebook_helpers import built
from torch import nn

from serplib.evaluation import protocol
from serplib.experiments import tables
from serplib.experiments.records import read_suite
from serplib.perturbation import scale_and_shift
from serplib.seeding import named_generator

NAME = "C_protocol"


@pytest.mark.parametrize(
    ("count", "mean"),
    [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi)), (5, 1.16296)],
)
def test_the_mean_of_the_largest_normal_number(count, mean):
    assert built(NAME)["mean_of_largest"](count) == pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize("undecided", [0.0, 0.1, 1.0])
def test_answers_of_a_network_that_no_longer_improves(undecided):
    answers = built(NAME, shapes=20_000)["answers"]
    found = answers(4, undecided, 0.7, named_generator("answers"))
    assert found.shape == (4, 20_000) and found.dtype == torch.bool
    right = 0.7 * (1 - undecided) + 0.5 * undecided
    assert found.double().mean().item() == pytest.approx(right, abs=0.02)
    changed = (found[0] != found[1]).double().mean().item()
    assert changed == pytest.approx(undecided / 2, abs=0.015)


def test_parity_of_votes():
    class Sides(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4, generator=named_generator("w")))

        def forward(self, points):
            return points.mean(1) @ self.weight  # (B, 4)

    points = torch.randn(60, 32, 3, generator=named_generator("clouds"))
    mine = built(NAME, scale_and_shift=scale_and_shift)["my_votes"]
    pair = [f(Sides(), points, 6, named_generator("v")) for f in (mine, protocol.votes)]
    torch.testing.assert_close(*pair)
    assert not pair[0][0].equal(pair[0][5])  # the votes decide something


def test_the_prose_says_what_the_records_say():
    found = read_suite("protocol-laptop")["records"]
    changes = tables.protocol(found)
    assert (changes["n"] == 3).all() and set(changes["group"]) == {
        "SeRP-Transformer", "SeRP-PointNet",
    }  # fmt: skip
    for group, rows in changes.set_index("label").groupby("group"):
        assert set(rows.index[~rows["trained"]]) == set(protocol.WAYS.values())
        way = {key: rows.loc[text] for key, text in protocol.WAYS.items()}
        for key in ("last_epoch", "farthest", "random"):
            assert way[key].verdict == "not significant"
        assert way["class_mean"].verdict == "significant loss" and way["padded"].gain < -2.7
        assert rows["low"].isna().sum() == len(protocol.ONE_SIGN) == 3  # "three changes"
        assert rows.verdict["6 epochs"] == "significant loss"
        drawn = rows[rows["gain"] > -10]
        assert len(rows) - len(drawn) == 2  # "two changes" are not drawn
        votes, augmented = way["votes"], rows.loc["no augmentation"]
        smoothed = rows.verdict["no label smoothing"]
        if group == "SeRP-Transformer":
            assert votes.verdict == "significant gain"
            assert 1.1 < votes.gain < way["best_votes"].gain < 1.3
            assert augmented.verdict == smoothed == "not significant"
        else:
            assert votes.verdict == "not significant"
            assert augmented.verdict == smoothed == "significant gain"
            assert augmented.gain > 10 * 0.62
            assert 0.55 < way["best_epoch"].gain < 0.62  # "close to the published gain"
    tuned = tables.accuracy(found)
    assert (tuned["rise"] > 1).all()  # "still rises in all rows"
    runs = tables.variants(found)
    for record in runs["transformer"] + runs["pointnet"]:
        watched = [epoch["monitor_accuracy"] for epoch in record["history"]]
        assert watched.index(max(watched)) >= 20  # "one of the last" of 24 epochs
        metrics = record["metrics"]
        assert metrics["protocol"]["reference"] == metrics["test"]["accuracy"]
