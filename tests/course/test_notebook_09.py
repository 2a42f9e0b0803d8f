"""Notebook 09: what it builds is what serplib does."""

import pytest
import torch
from notebook_helpers import built
from torch import nn

from serplib.evaluation.probes import build_head
from serplib.experiments import records, tables
from serplib.seeding import named_generator

MADE = built("09_finetuning", nn=nn)


@pytest.mark.parametrize("k", [1, 5])
def test_the_vote_agrees_with_scikit_learns_where_no_votes_tie(k):
    generator = named_generator("vote")
    centres = 4 * torch.randn(3, 6, generator=generator)
    labels = torch.randint(3, (90,), generator=generator)
    known = centres[labels] + torch.randn(90, 6, generator=generator)
    asked = centres[labels[:40]] + torch.randn(40, 6, generator=generator)
    ours = MADE["knn_vote"](known, labels, asked, k)
    theirs = torch.from_numpy(
        build_head("knn", k).fit(known.numpy(), labels).predict(asked.numpy())
    )
    assert (ours == theirs).float().mean() > (0.99 if k == 1 else 0.95)


def test_of_tied_classes_the_nearest_wins():
    known = torch.tensor([[1.0, 0.0], [1.0, 0.2], [1.0, 0.4], [1.0, 0.6]])
    vote = MADE["knn_vote"](known, torch.tensor([2, 1, 1, 2]), known[:1], 4)
    assert vote.tolist() == [2]


def test_two_directions_are_the_principal_components():
    from sklearn.decomposition import PCA

    features = torch.randn(50, 7, generator=named_generator("pca")) * torch.arange(1.0, 8)
    ours = MADE["two_directions"](features)
    theirs = torch.from_numpy(PCA(2).fit_transform(features.double().numpy()))
    scale = theirs.abs().amax()
    for column in range(2):
        a, b = ours[:, column].double(), theirs[:, column] / scale
        assert min((a - b).abs().max(), (a + b).abs().max()) < 1e-4
    assert ours.abs().max() == 1


def test_luck_grows_with_the_epochs_and_is_none_for_one():
    luck = [
        MADE["best_of"](epochs, 500, 0.8, 0.0, named_generator("luck"), trials=200)
        for epochs in (1, 5, 20)
    ]
    assert abs(luck[0]) < 1e-4 and luck[0] < luck[1] < luck[2]
    one = (0.8 * 0.2 / 500) ** 0.5 * 100
    assert luck[2] == pytest.approx(1.87 * one, rel=0.15)  # mean maximum of 20 normal draws
    stays = MADE["best_of"](20, 500, 0.8, 1.0, named_generator("luck"), trials=200)
    assert abs(stays) < 1e-4


def test_the_prose_says_what_the_records_say():
    """Verdicts and sizes of gains are in the tables, which are computed; these are stated."""
    found = records.read_suite("fewshot-laptop")["records"]
    gain = tables.accuracy(found)["gain"]
    for labels in ("one", "eight", "thirty"):
        assert gain[f"{labels}-strong"] > gain[f"{labels}-serp"]
    restored = tables.means(found, "restoration").loc["pretrain-serp"]
    assert restored["restored"] > restored["copy_input"]
    rank = tables.probes(found)["rankme"]
    for name in ("probe-serp", "probe-strong"):
        assert rank[name] > rank["probe-untrained"]


def test_the_prose_of_longer_fine_tuning_says_what_the_records_say():
    eight = records.read_suite("eight-laptop")["records"]
    tuned, frozen = tables.accuracy(eight), tables.probes(eight)
    assert (tuned.loc[["eight-scratch", "eight-affine", "eight-serp"], "rise"] > 1).all()
    for name in ("affine", "frame", "serp"):
        assert tuned.verdict[f"eight-{name}"] == "not significant"
    for name in ("affine-input", "clean-frame"):
        assert tuned.verdict[f"eight-{name}"] == "significant gain"
    verdicts = [frozen.verdict[f"eight-frozen-{name}"] for name in ("affine", "serp")]
    assert verdicts == ["significant gain", "significant loss"], "notebook 00 says so, too"
    xeon = tables.accuracy(records.read_suite("eight-xeon")["records"])
    assert xeon.verdict["eight-affine"] == "significant gain", "on another processor"
    noise = tables.direct(eight).set_index(["label", "base"]).query("group.str.endswith('labels')")
    pair = tuple(frozen["label"][[f"probe-{name}" for name in ("serp", "clean")]])
    assert noise.verdict[pair] == "significant gain", "noise helps in the patch's frame"
    assert frozen["mean"]["eight-point-nn"] > frozen["mean"]["eight-frozen-affine"]
    few = tables.accuracy(records.read_suite("fewshot-laptop")["records"])["mean"]
    assert tuned["mean"]["eight-scratch"] > few["eight-strong"], "scratch is a weak baseline"
    restored = tables.means(eight, "restoration")
    ratio = restored["restored"] / restored["copy_input"]
    assert ratio["pretrain-affine"] < 0.5 and ratio["pretrain-serp"] > 2


def test_the_prose_of_24_epochs_says_what_the_records_say():
    found = records.read_suite("epochs-laptop")["records"]
    tuned = tables.accuracy(found)
    assert (tuned["rise"] > 1).all(), "none has converged"
    assert tuned.gain["serp-4"] < 0 and tuned.verdict["serp-4"] == "not significant"
    assert tuned.gain["affine-4"] > 2 * tuned.gain["affine-24"] and tuned.pairs["affine-24"] == 5
    assert tuned.verdict["affine-24"] == "significant gain" and tuned.gain["serp-24"] > 1
    there = tables.accuracy(records.read_suite("table1-xeon")["records"])
    assert abs(there.gain["all-serp"]) < 0.1, "on another processor"
    assert tuned.gain["frame-48"] < 0.1 < tuned.gain["frame-24"]
    assert tuned.verdict["frame-48"] == "not significant" and tuned.pairs["frame-48"] == 3
    length = tables.variants(records.read_suite("length-laptop")["records"])
    (more,), (short, *_), (calibrated, *_) = (
        length[f"probe-{name}"] for name in ("serp-80", "serp", "calibrated")
    )
    svm = [r["metrics"]["probes"]["svm_accuracy"] for r in (short, calibrated, more)]
    assert svm == sorted(svm) and {r["parameters"]["seed"] for r in (more, short, calibrated)} == {
        0
    }
