"""frozen features, and how sure a difference is."""

import json
import math

import numpy as np
import pytest
import torch

from serplib.classifier import autoencoder
from serplib.data import load
from serplib.data.common import Clouds
from serplib.evaluation import probes, significance
from serplib.experiments import runner, suites, tables, wording
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
    assert probes.feature_variance(gaussian(1, 8).expand(30, 8)) == pytest.approx(0, abs=1e-7)
    spread = gaussian(4000, 6) * 3
    assert probes.feature_variance(spread) == pytest.approx(3, rel=0.05)
    assert probes.feature_variance(spread + 100) == pytest.approx(
        probes.feature_variance(spread), rel=1e-4
    )


@pytest.mark.parametrize("function", [probes.rankme, probes.feature_variance])
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


# ---- probes ------------------------------------------------------------------------------------


def separable(num=120, classes=3, gap=6.0, name="separable"):
    """Clouds of one point whose x coordinate tells the class."""
    labels = torch.arange(num) % classes
    points = gaussian(num, 1, 3, name=name)
    points[:, 0, 0] += gap * labels
    return Clouds("made", "train", points, labels, tuple("abc"[:classes]), "none")


def flat(points):
    return points.flatten(1)


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


def test_every_head_finds_what_is_there_and_the_same_again():
    train, test = separable(240), separable(90, name="test")
    heads = tuple(probes.HEADS)
    found = probes.probe(flat, train, lambda: test, seed=0, heads=heads)
    assert found["linear_c"] in probes.HEADS["linear"][1]
    assert found["mlp3_decay"] in probes.HEADS["mlp3"][1]
    for head in heads:
        assert found[f"{head}_accuracy"] > (0.6 if head == "knn" else 0.95), head
        assert np.mean(unpack_bits(found[f"{head}_correct"])) == found[f"{head}_accuracy"]
    assert probes.probe(flat, train, lambda: test, seed=0, heads=heads) == found
    with pytest.raises(ValueError, match="heads has \\['forest'\\], wanted some of"):
        probes.probe(flat, train, lambda: test, seed=0, heads=("forest",))


def test_few_shot_episodes():
    labels = torch.arange(200) % 4
    known = torch.nn.functional.one_hot(labels, 4).float() + 0.01 * gaussian(200, 4)
    found = probes.few_shot(known, labels, way=3, shot=5, seed=0, queries=10, folds=4)
    assert found["accuracy"] == 1.0 and found["sd"] == 0 and len(found["folds"]) == 4
    chance = probes.few_shot(gaussian(200, 4), labels, way=4, shot=5, seed=0, queries=10, folds=10)
    assert 0.1 < chance["accuracy"] < 0.42 and chance["sd"] > 0
    again = probes.few_shot(gaussian(200, 4), labels, way=4, shot=5, seed=0, queries=10, folds=10)
    assert again == chance
    other = probes.few_shot(gaussian(200, 4), labels, way=4, shot=5, seed=1, queries=10, folds=10)
    assert other["folds"] != chance["folds"]
    with pytest.raises(ValueError, match="4 classes have 5 \\+ 10 shapes or more, wanted 5"):
        probes.few_shot(known, labels, way=5, shot=5, seed=0, queries=10)


def test_few_shot_learns_and_asks_different_shapes():
    """Features that tell each shape apart, but no class: memory of the learnt ones is no help."""
    labels = torch.arange(60) % 2
    own = torch.eye(60)
    assert probes.few_shot(own, labels, 2, 10, 0, queries=20, folds=6)["accuracy"] < 0.75


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
    }


def test_probe_rows_pair_with_the_untrained_encoder():
    found = [probed("untrained", s, "1000000000" * 4) for s in (0, 1)]
    found += [probed("serp", s, "1111000000" * 4, scratch="untrained") for s in (0, 1)]
    rows = {row["name"]: row for row in tables.probe_rows(found)}
    assert rows["untrained"]["mean"] == pytest.approx(10) and rows["untrained"]["gain"] is None
    assert rows["serp"]["mean"] == pytest.approx(40) and rows["serp"]["n"] == 2
    assert rows["serp"]["gain"]["gain"] == pytest.approx(30)
    assert rows["serp"]["significant"] == 2  # 12 gained, none lost: p = 2 / 2^12
    assert rows["serp"]["shapes"]["gain"] == pytest.approx(30)
    (title, heads, lines), *more = wording.tables(found)
    assert "objects" in title and len(heads) == len(lines[0]) and not more
    assert lines[1][-3:] == ["2 of 2 seeds", "40.00 ± 0.00", "3.0"]


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
