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
    rows = tables.protocol(found).set_index("label")
    assert set(rows.index[~rows["trained"]]) == set(protocol.WAYS.values())
    assert (rows["n"] == 3).all()
    way = {key: rows.loc[text] for key, text in protocol.WAYS.items()}
    assert way["votes"].verdict == "significant gain"
    assert 1.1 < way["votes"].gain < way["best_votes"].gain < 1.3
    for key in ("last_epoch", "farthest", "random"):
        assert way[key].verdict == "not significant"
    assert way["class_mean"].verdict == "significant loss" and way["padded"].gain < -2.9
    assert rows["low"].isna().sum() == len(protocol.ONE_SIGN) == 3  # "three rows"
    for label in ("no augmentation", "no label smoothing"):
        assert rows.verdict[label] == "not significant"
    assert rows.gain["no augmentation"] > 0 > rows.gain["6 epochs"] + 20
    drawn = rows[rows["gain"] > -10]
    assert len(rows) - len(drawn) == 2  # "two rows" are not drawn
    tuned = tables.accuracy(found)
    assert (tuned["rise"] > 1).all()  # "still rises in all rows"
    for record in tables.variants(found)["transformer"]:
        watched = [epoch["monitor_accuracy"] for epoch in record["history"]]
        assert watched.index(max(watched)) >= 20  # "one of the last" of 24 epochs
        assert record["metrics"]["protocol"]["reference"] == record["metrics"]["test"]["accuracy"]
