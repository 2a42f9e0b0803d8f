"""frozen features, and how sure a difference is."""

import json
import math
import warnings
from typing import get_args

import numpy as np
import pytest
import torch

from serplib.classifier import autoencoder
from serplib.data import load
from serplib.data.common import Clouds
from serplib.evaluation import probes, significance
from serplib.experiments import runner, suites, summaries, tables
from serplib.experiments.records import unpack_bits
from serplib.presets import build
from serplib.seeding import named_generator


def gaussian(*shape, name="probe"):
    return torch.randn(*shape, generator=named_generator(name))


# ---- health of features ------------------------------------------------------------------------


def test_rankme_counts_equal_directions():
    """Orthonormal features of rank r have effective rank r, whatever the scale and the basis."""
    basis = torch.linalg.qr(gaussian(40, 12))[0]  # (40, 12), orthonormal columns
    turn = torch.linalg.qr(gaussian(12, 12, name="turn"))[0]
    for rank in (1, 3, 12):
        features = basis[:, :rank] @ turn[:rank]
        assert probes.rankme(7 * features) == pytest.approx(rank, abs=1e-4)


def test_rankme_is_the_exponential_of_the_entropy():
    values = torch.tensor([5.0, 3.0, 2.0])
    shares = np.array([0.5, 0.3, 0.2])
    found = probes.rankme(torch.diag(values))
    assert found == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert probes.rankme(torch.zeros(5, 4)) == pytest.approx(1.0)


def test_collapse_has_no_variance():
    assert probes.feature_spread(gaussian(1, 8).expand(30, 8)) == pytest.approx(0, abs=1e-7)
    spread = gaussian(4000, 6) * 3
    assert probes.feature_spread(spread) == pytest.approx(3, rel=0.05)
    assert probes.feature_spread(spread + 100) == pytest.approx(
        probes.feature_spread(spread), rel=1e-4
    )


@pytest.mark.parametrize("function", [probes.rankme, probes.feature_spread])
def test_features_are_two_dimensional(function):
    with pytest.raises(ValueError, match=r"\(5,\).*wanted \(S"):
        function(torch.zeros(5))
    with pytest.raises(ValueError, match="wanted"):
        function(torch.zeros(0, 3))


def test_cka_ignores_rotation_and_scale_alone():
    a, b = gaussian(60, 5), gaussian(60, 7, name="other")
    turn = torch.linalg.qr(gaussian(5, 5, name="turn"))[0]
    assert probes.linear_cka(a, a) == pytest.approx(1)
    assert probes.linear_cka(a, 3 * a @ turn + 2) == pytest.approx(1, abs=1e-6)
    assert probes.linear_cka(a, b) == pytest.approx(probes.linear_cka(b, a))
    assert probes.linear_cka(a, b) < 0.5
    assert probes.linear_cka(a, a * torch.tensor([9.0, 1, 1, 1, 1])) < 0.99
    with pytest.raises(ValueError, match="60 and of 59"):
        probes.linear_cka(a, b[1:])


# ---- features ----------------------------------------------------------------------------------


def test_features_by_hand():
    points = load("objects", "train", 3, 256).points
    found = probes.handmade(points)
    assert found.shape == (3, 93)
    torch.testing.assert_close(found[:, 63:].sum(1), torch.ones(3))
    torch.testing.assert_close(found[:, 0:3], points.amin(1))
    torch.testing.assert_close(found[:, 60:63], points.amax(1))
    torch.testing.assert_close(found[:, 30:33], points.sort(1).values[:, 128])
    pair = torch.tensor([[[0.0, 0, 0], [0.5, 0, 0], [0.0, 0, 0], [-0.5, 0, 0]]])
    shares = probes.handmade(pair)[0, 63:]  # distances 0 and 1
    assert shares[0] == 0.5 and shares[15] == 0.5 and shares.sum() == 1


def test_features_of_an_encoder_are_in_evaluation_mode_and_batchwise():
    torch.manual_seed(0)
    encoder = autoencoder(build("quick"), "pointnet").encoder.train()
    points = load("objects", "train", 7, 128).points
    found = probes.features(encoder, points, batch_size=3)
    assert not encoder.training and not found.requires_grad
    torch.testing.assert_close(found, encoder(points).detach())
    torch.testing.assert_close(probes.features(encoder, points, 100), found)


def test_features_of_all_layers_are_pooled_outputs_of_each():
    """Of the Transformer by its blocks one after the other; of PointNet by its shared layers."""
    torch.manual_seed(0)
    points = load("objects", "train", 5, 128).points
    encoder = autoencoder(build("quick"), "transformer").encoder.train()
    found = probes.layer_features(encoder, points, batch_size=2)
    assert not encoder.training and not found.requires_grad
    with torch.no_grad():
        patches = encoder.patches(points)
        x, _ = encoder.embedding(patches.inputs, patches.centers)
        wanted = []
        for block in [lambda x: x, *encoder.blocks]:
            x = block(x)
            wanted += [x[:, 0], x[:, 1:].mean(1), x[:, 1:].max(1).values]
    torch.testing.assert_close(found, torch.cat(wanted, 1))
    assert found.shape == (5, 3 * (len(encoder.blocks) + 1) * encoder.embedding.width)
    encoder = autoencoder(build("quick"), "pointnet").encoder
    found = probes.layer_features(encoder, points, batch_size=2)
    width = found.shape[1] // 2 - encoder.local.linear.out_features
    last = encoder.last.linear.out_features
    assert width == encoder.middle.linear.out_features + last
    torch.testing.assert_close(found[:, -last:], probes.features(encoder, points))
    assert not encoder.local._forward_hooks  # none is left behind


# ---- probes ------------------------------------------------------------------------------------


def separable(num=120, classes=3, gap=6.0, name="separable"):
    """Clouds of one point whose x coordinate tells the class."""
    labels = torch.arange(num) % classes
    points = gaussian(num, 1, 3, name=name)
    points[:, 0, 0] += gap * labels
    return Clouds("made", "train", points, labels, tuple("abc"[:classes]), "none")


def flat(points):
    return points.flatten(1)


def test_an_svm_of_each_pair_of_classes():
    """It is libsvm's, and its C is chosen like that of the other: on held-out shapes."""
    train, test = separable(), separable(90, name="test")
    found = probes.probe(flat, train, lambda: test, seed=0, heads=("svm",), svm="pairs")
    assert found["svm_accuracy"] > 0.95 and found["svm_c"] in probes.HEADS["svm"][1]
    head = probes.build_head("svm", found["svm_c"], svm="pairs")
    head.fit(flat(train.points).numpy(), train.labels)
    assert type(head[-1]).__name__ == "SVC" and head[-1].kernel == "linear"
    assert head.score(flat(test.points).numpy(), test.labels) == found["svm_accuracy"]
    assert type(probes.build_head("svm", 0.1)[-1]).__name__ == "LinearSVC"


def test_separable_features_are_found_and_noise_is_not():
    train, test = separable(), separable(90, name="test")
    found = probes.probe(flat, train, lambda: test, seed=0)
    assert found["svm_accuracy"] > 0.95 and found["knn_accuracy"] > 0.6
    assert found["num_shapes"] == 90 and found["dim"] == 3
    assert found["svm_c"] in probes.HEADS["svm"][1] and found["knn_k"] in probes.HEADS["knn"][1]
    answers = unpack_bits(found["svm_correct"])
    assert len(answers) == 90 and np.mean(answers) == found["svm_accuracy"]
    noise = probes.probe(flat, separable(gap=0.0), lambda: separable(90, gap=0.0, name="t"), 0)
    assert noise["svm_accuracy"] < 0.55 and noise["knn_accuracy"] < 0.55
    json.dumps(found, allow_nan=False)


def test_settings_are_chosen_before_the_test_set_is_seen(monkeypatch):
    """The test set is asked for once, after the last choice; other test labels change nothing."""
    calls = []
    train, test = separable(), separable(90, name="test")
    build_head = probes.build_head
    monkeypatch.setattr(
        probes, "build_head", lambda *setting: calls.append(setting) or build_head(*setting)
    )
    found = probes.probe(flat, train, lambda: calls.append("test") or test, seed=0)
    assert calls.count("test") == 1 and calls[-1] == "test"
    wrong = Clouds("made", "test", test.points, test.labels.roll(1), test.classes, "none")
    again = probes.probe(flat, train, lambda: wrong, seed=0)
    assert (again["svm_c"], again["knn_k"]) == (found["svm_c"], found["knn_k"])
    assert again["svm_accuracy"] != found["svm_accuracy"]


def test_two_labels_a_class_warn_of_nothing_and_change_no_filter(recwarn):
    labels = torch.arange(30).repeat(2)
    points = torch.eye(30)[labels]  # (60, 30): features
    pair = Clouds("x", "train", points, labels, tuple(map(str, range(30))), "")
    before = list(warnings.filters)
    found = probes.probe(lambda points: points, pair, lambda: pair, 0, heads=("svm",))
    assert found["svm_accuracy"] == 1 and not recwarn.list
    assert list(warnings.filters) == before


def test_every_head_finds_what_is_there_and_the_same_again():
    train, test = separable(240), separable(90, name="test")
    heads = tuple(probes.HEADS)
    assert heads == get_args(probes.Head)  # what a suite accepts
    found = probes.probe(flat, train, lambda: test, seed=0, heads=heads)
    assert found["linear_c"] in probes.HEADS["linear"][1]
    assert found["mlp3_decay"] in probes.HEADS["mlp3"][1]
    for head in heads:
        assert found[f"{head}_accuracy"] > (0.6 if head in ("knn", "memory") else 0.95), head
        assert np.mean(unpack_bits(found[f"{head}_correct"])) == found[f"{head}_accuracy"]
    assert probes.probe(flat, train, lambda: test, seed=0, heads=heads) == found
    with pytest.raises(ValueError, match="heads has \\['forest'\\], wanted some of"):
        probes.probe(flat, train, lambda: test, seed=0, heads=("forest",))


def known_classes(num, classes=4, noise=0.01, name="known"):
    """Features that name their class, and the labels."""
    labels = torch.arange(num) % classes
    features = torch.nn.functional.one_hot(labels, classes).float()
    return features + noise * gaussian(num, classes, name=name), labels


def test_few_shot_episodes():
    train, test = known_classes(80), known_classes(48, name="test")
    found = probes.few_shot(train, test, way=3, shot=5, seed=0, queries=10, folds=4)
    assert found["accuracy"] == 1.0 and found["sd"] == 0 and len(found["folds"]) == 4
    blind = (gaussian(80, 4), train[1]), (gaussian(48, 4, name="t"), test[1])
    chance = probes.few_shot(*blind, way=4, shot=5, seed=0, queries=10)
    assert 0.1 < chance["accuracy"] < 0.42 and chance["sd"] > 0 and len(chance["folds"]) == 10
    assert probes.few_shot(*blind, way=4, shot=5, seed=0, queries=10) == chance
    other = probes.few_shot(*blind, way=4, shot=5, seed=1, queries=10)
    assert other["folds"] != chance["folds"]


def test_few_shot_supports_come_from_the_training_split_and_queries_from_the_test_split():
    """Where the splits contradict each other every query is missed, and 20 a class are asked."""
    train, test = known_classes(80), known_classes(80, name="test")
    swapped = test[0], (test[1] + 1) % 4
    found = probes.few_shot(train, swapped, way=4, shot=10, seed=0)
    assert found["accuracy"] == 0
    half = test[0], torch.where(torch.arange(80) < 40, test[1], (test[1] + 1) % 4)
    found = probes.few_shot(train, half, way=4, shot=10, seed=0)  # all 80 test shapes are asked
    assert found["folds"] == [0.5] * 10


def test_few_shot_draws_from_all_classes():
    """A class with exactly the shots and queries that are needed takes part like any other."""
    labels = torch.tensor([0] * 30 + [1] * 30 + [2] * 10)
    queries = torch.tensor([0] * 30 + [1] * 30 + [2] * 20)
    features = torch.nn.functional.one_hot(labels, 3).float()
    wrong = torch.nn.functional.one_hot(queries, 3).float()
    wrong[queries == 2] = torch.tensor([1.0, 0, 0])  # class 2 is taken for class 0
    found = probes.few_shot((features, labels), (wrong, queries), 3, 10, 0)
    assert found["folds"] == pytest.approx([2 / 3] * 10)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"way": 5}, "4 classes, wanted 5 or more"),
        ({"shot": 21}, "class 0 has 20 training shapes, wanted 21"),
        ({"queries": 13}, "class 0 has 12 test shapes, wanted 13"),
    ],
)
def test_few_shot_leaves_no_class_out(changes, words):
    settings = {"way": 3, "shot": 5, "seed": 0, "queries": 10} | changes
    with pytest.raises(ValueError, match=words):
        probes.few_shot(known_classes(80), known_classes(48), **settings)
    lacking = known_classes(48)
    lacking = lacking[0][lacking[1] < 3], lacking[1][lacking[1] < 3]  # the test split lacks one
    with pytest.raises(ValueError, match="class 3 has 0 test shapes"):
        probes.few_shot(known_classes(80), lacking, 3, 5, 0, queries=10)


def test_memory_of_the_support_is_no_help():
    """Features that tell each shape apart, but no class."""
    labels, own = torch.arange(60) % 2, torch.eye(120)
    found = probes.few_shot((own[:60], labels), (own[60:], labels), 2, 10, 0, 20, 6)
    assert found["accuracy"] < 0.75


def test_the_classes_of_both_splits_must_agree():
    """Labels are compared by number: the same number must be the same class."""
    train, test = separable(), separable(90, name="test")
    other = Clouds("other", "test", test.points, test.labels, ("b", "a", "c"), "none")
    with pytest.raises(ValueError, match="other has no labels, or not the classes of made"):
        probes.probe(flat, train, lambda: other, seed=0)


# ---- how sure ----------------------------------------------------------------------------------


def test_mcnemar_counts_discordant_pairs():
    ours = [True] * 10 + [False] * 2 + [True] * 50
    base = [False] * 10 + [True] * 2 + [True] * 50
    found = significance.mcnemar(ours, base)
    assert (found["gained"], found["lost"]) == (10, 2)
    by_hand = 2 * sum(math.comb(12, k) for k in range(3)) / 2**12  # two sides of a fair coin
    assert found["p"] == pytest.approx(by_hand)
    assert significance.mcnemar(ours, ours) == {"gained": 0, "lost": 0, "p": 1.0}


def test_bootstrap_interval_has_the_width_of_the_binomial():
    generator = np.random.default_rng(0)
    ours = [(generator.random(400) < 0.8).tolist()]
    base = [(generator.random(400) < 0.6).tolist()]
    found = significance.bootstrap_gain(ours, base)
    assert found["gain"] == pytest.approx(np.mean(ours) - np.mean(base))
    expected = 2 * 1.96 * math.sqrt((0.8 * 0.2 + 0.6 * 0.4) / 400)
    assert found["high"] - found["low"] == pytest.approx(expected, rel=0.15)
    assert found["low"] < found["gain"] < found["high"]
    assert significance.bootstrap_gain(ours, base) == found
    assert significance.bootstrap_gain(ours, ours) == {"gain": 0, "low": 0, "high": 0}


def test_bootstrap_draws_the_same_shapes_for_every_seed():
    """Two seeds that agree on every shape are one seed as far as shapes go."""
    one = [[True, False, True, True, False] * 20]
    base = [[False, False, True, True, True] * 20]
    assert significance.bootstrap_gain(one * 2, base * 2) == significance.bootstrap_gain(one, base)


@pytest.mark.parametrize("pair", [([[True]], [[True, False]]), ([[]], [[]])])
def test_answers_must_pair(pair):
    with pytest.raises(ValueError, match="wanted the same"):
        significance.bootstrap_gain(*pair)


# ---- the notebook, the suites and the tables ---------------------------------------------------


def probed(name, seed, bits, **about):
    """A record of a probe that got the shapes of ``bits`` right."""
    accuracy = bits.count("1") / len(bits)
    word = f"{int('1' + bits, 2):x}"
    metrics = {"rankme": 3.0, "feature_variance": 0.1, "dim": 4, "num_shapes": len(bits)}
    for kind in ("svm", "knn"):
        metrics |= {f"{kind}_accuracy": accuracy, f"{kind}_correct": word}
    return {
        "run": {"name": name, "label": name, **about},
        "parameters": {"seed": seed, "preset": "quick"},
        "data": {"test": {"name": "objects", "num_shapes": len(bits)}},
        "metrics": {"probes": metrics},
        "seconds": 1.0,
        "environment": {"device": "CPU", "packages": {"torch": "2"}, "git": {"revision": None}},
    }


def test_probe_rows_pair_with_the_untrained_encoder():
    found = [probed("untrained", s, "1000000000" * 4) for s in (0, 1)]
    found += [probed("serp", s, "1111000000" * 4, scratch="untrained") for s in (0, 1)]
    rows = tables.probes(found)
    assert rows["mean"].tolist() == pytest.approx([10, 40]) and rows.seeds["serp"] == 2
    assert rows.pairs["untrained"] == 0 and math.isnan(rows.gain["untrained"])
    assert rows.pairs["serp"] == 2 and rows.gain["serp"] == pytest.approx(30)
    assert rows.better["serp"] == 2  # 12 gained, none lost: p = 2 / 2^12
    assert rows.shapes_low["serp"] < 30 < rows.shapes_high["serp"]
    ((title, shown),) = summaries.summarize(found).tables.items()
    assert "objects" in title
    assert shown.loc[1].tolist()[-4:] == ["2 better, 0 worse of 2", "40.00 ± 0.00", "3.0", ""]


SUITES = (
    *("bottlenecks", "pretext", "fewshot", "leakage", "table1", "table2"),
    *("robustness", "figure4"),
)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("profile", [0, -1])
def test_every_suite_plans_in_its_profiles(suite, profile):
    """Unknown parameters, settings or parents are refused by `plan`."""
    profiles = list(suites.load(suite)["profiles"])
    runs = suites.plan(suite, profiles[profile])
    assert len({run.hash for run in runs}) == len(runs)
    arms = {run.name: run for run in runs}
    beside = [
        (run.about.get("group"), p) for run in arms.values() if (p := run.about.get("published"))
    ]
    assert len(set(beside)) == len(beside), "a figure of the paper stands beside two arms"
    for run in runs:
        if "scratch" in run.about:
            assert run.about["scratch"] in arms
            base = arms[run.about["scratch"]]
            assert base.notebook == run.notebook and base.parent is None and run.parent
    steps = {
        (build(run.parameters["preset"], run.parameters["changes"]).pretrain_transformer.epochs,
         run.parameters["train_shapes"])
        for run in runs
        if run.notebook in ("pretrain", "leakage") and "times the steps" not in run.about["label"]
    }  # fmt: skip
    # arms are compared at equal steps on equal data; one that is not says so in its label
    assert len(steps) == 1


SMALL = {"train_shapes": 60, "seed": 1}
NOTEBOOKS = {
    "probe": SMALL | {"test_shapes": 60, "model": "pointnet"},
    "leakage": SMALL | {"valid_shapes": 4, "model": "masked",
                        "changes": {"pretrain_transformer.epochs": 1}},
}  # fmt: skip


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_notebook_writes_its_record(notebook, tmp_path):
    executed = tmp_path / "notebook.ipynb"
    runner.execute_notebook(
        notebook, executed, NOTEBOOKS[notebook] | {"folder": str(tmp_path), "run": {"name": "x"}}
    )
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["parameters"]["seed"] == 1 and record["data"]["train"]["num_shapes"] in (56, 60)
    if notebook == "probe":
        found = record["metrics"]["probes"]
        assert found["num_shapes"] == 60 == record["data"]["test"]["num_shapes"]
        assert np.mean(unpack_bits(found["svm_correct"])) == found["svm_accuracy"] > 0.1
    else:
        found = record["metrics"]["leakage"]
        assert found["constant"] > 0 and 0 < found["full"]
