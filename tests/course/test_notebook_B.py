"""The bottlenecks that B_bottlenecks builds are the library's; its tables read any records."""

import math
import re

import pytest
import torch
from notebook_helpers import built
from torch.nn import functional as F

from serplib.bottlenecks import GaussianBottleneck, GumbelBottleneck
from serplib.evaluation.significance import paired_gain
from serplib.experiments import records, tables
from serplib.seeding import named_generator

NAME = "B_bottlenecks"


def test_parity_of_the_gaussian():
    made, latent = built(NAME), torch.randn(3, 5, 4, generator=named_generator("n10"))
    for free in (0.0, 0.05, 3.0):
        theirs = GaussianBottleneck(4, beta=1.0, free_bits=free)
        mean, log_variance = theirs.to_moments(latent).chunk(2, -1)
        torch.manual_seed(3)
        sample, kl = made["my_gaussian"](mean, log_variance, free)
        torch.manual_seed(3)
        passed = theirs(latent)
        torch.testing.assert_close(sample, passed.latent)
        torch.testing.assert_close(kl, passed.losses["kl"])


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_parity_of_gumbel_softmax(temperature):
    made, latent = built(NAME), torch.randn(3, 5, 4, generator=named_generator("n10"))
    theirs = GumbelBottleneck(6, 4, temperature=temperature, final_temperature=0.1)
    logits = theirs.to_logits(latent)
    torch.manual_seed(4)
    weights = made["my_gumbel_softmax"](logits, temperature)
    torch.manual_seed(4)
    torch.testing.assert_close(weights, F.gumbel_softmax(logits, temperature))
    torch.manual_seed(4)
    torch.testing.assert_close(weights @ theirs.codebook, theirs(latent).latent)


# ---- the tables of section 5, on records made up here ------------------------------------------


def record(name, seed, nats=None, **metrics):
    found = {"run": {"name": name}, "parameters": {"seed": seed}, "metrics": metrics}
    return found | {"history": [{"valid_nats": 99.0}, {"valid_nats": nats} if nats else {}]}


def suite(arms, seeds=5):
    """Accuracies: 0.5 for none, 0.3 for vq-paper, 0.6 for vq-cured, plus a hundredth a seed."""
    level = {"none": 0.5, "vq-paper": 0.3, "vq-cured": 0.6}
    found = []
    for seed in range(seeds):
        for arm in arms:
            value = level.get(arm, 0.4) + seed / 100
            restoration = {"restored": 0.004, "perplexity": 7.4}
            if arm == "none":
                del restoration["perplexity"]
            found += [
                record(f"pretrain-{arm}", seed, restoration=restoration),
                record(f"probe-{arm}", seed, probes={"svm_accuracy": value}),
                record(f"few-{arm}", seed, test={"accuracy": value / 2, "num_shapes": 600}),
            ]
    return found


@pytest.fixture(scope="module")
def reading():
    kinds = ("none", "vq-paper", "vq-authors", "vq-cured", "vae", "dvae")
    return built(NAME, paired_gain=paired_gain, math=math, KINDS=kinds)


def rows(table):
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {line[0]: line[1:] for line in lines}


def test_arm_table_reads_what_is_there(reading):
    found = rows(reading["arm_table"](suite(["none", "vq-paper"])))
    assert found == {
        "none": ["40.0", "", "", "52.0", "26.0", "5"],
        "vq-paper": ["40.0", "7", f"{math.log(7.4):.1f}", "32.0", "16.0", "5"],
    }
    extra = [record("probe-untrained", 0, probes={"svm_accuracy": 0.25})]
    extra += [record("few-scratch", 0, test={"accuracy": 0.1})]
    extra += [record("pretrain-vae", seed, nats=50 + seed, restoration={}) for seed in range(3)]
    found = rows(reading["arm_table"](extra))
    assert found["untrained"] == ["", "", "", "25.0", "", "1"]
    assert found["scratch"] == ["", "", "", "", "10.0", "1"]
    assert found["vae"] == ["", "", "51.0", "", "", "3"]


def test_probes_inside_the_pretraining_record_are_read_too(reading):
    one = [record("pretrain-none", 3, probes={"svm_accuracy": 0.5}, restoration={})]
    assert reading["by_seed"](one, "none", "probes", "svm_accuracy") == {3: 0.5}
    assert reading["by_seed"](one, "vae", "probes", "svm_accuracy") == {}
    assert reading["by_seed"](one, "none", "restoration", "perplexity") == {}


def test_answers_are_paired_by_seed_and_leave_out_what_is_not_there(reading):
    same = "+0.0 [+0.0, +0.0] not significant"
    found = rows(reading["answers"](suite(["none", "vq-paper", "vq-cured"])))
    assert {
        title: [cell.replace("-0.0", "+0.0") for cell in row] for title, row in found.items()
    } == {
        "vq-paper against none": [
            same,
            "-20.0 [-20.0, -20.0] significant loss",
            "-10.0 [-10.0, -10.0] significant loss",
        ],
        "vq-cured against vq-paper": [
            same,
            "+30.0 [+30.0, +30.0] significant gain",
            "+15.0 [+15.0, +15.0] significant gain",
        ],
        "vq-cured against none": [
            same,
            "+10.0 [+10.0, +10.0] significant gain",
            "+5.0 [+5.0, +5.0] significant gain",
        ],
    }
    assert rows(reading["answers"](suite(["none"]))) == {}


def test_less_chamfer_is_better(reading):
    found = [
        record(f"pretrain-{arm}", seed, restoration={"restored": value + seed * 1e-5})
        for seed in range(3)
        for arm, value in (("none", 0.004), ("vae", 0.005))
    ]
    assert (
        rows(reading["answers"](found))["vae against none"][0]
        == "-10.0 [-10.0, -10.0] significant loss"
    )


def verdicts_of(reading, found):
    return {
        title: [
            re.search(r"significant loss|significant gain|not significant|$", cell)[0]
            for cell in row
        ]
        for title, row in rows(reading["answers"](found)).items()
    }


def means(reading, found, *keys):
    values = {arm: reading["by_seed"](found, arm, *keys) for arm in reading["KINDS"]}
    return {arm: sum(v.values()) / 5 for arm, v in values.items() if len(v) == 5}


def copied(found):
    return sum(r["metrics"]["restoration"]["copy_input"] for r in found
               if r["run"]["name"] == "pretrain-none") / 5  # fmt: skip


def test_the_prose_says_what_the_records_say(reading):
    found = records.read_suite("bottlenecks-quick")["records"]
    verdicts = verdicts_of(reading, found)
    for arm in ("vq-paper", "vq-authors", "vq-cured"):
        restored, *kept = verdicts[f"{arm} against none"]
        assert restored == "significant loss" and "significant loss" not in kept, arm
    every = [v for row in verdicts.values() for v in row[1:]]
    assert every.count("significant gain") == 1  # "One comparison is a significant gain"
    assert verdicts["none against untrained"][1] == "significant loss"
    assert min(means(reading, found, "restoration", "restored").values()) > 5 * copied(found)


def test_the_prose_says_what_the_records_of_the_larger_sigma_say(reading):
    found = records.read_suite("bottlenecks-strong")["records"]
    verdicts = verdicts_of(reading, found)
    assert (
        verdicts["none against untrained"][1]
        == verdicts["none against scratch"][2]
        == "significant gain"
    )
    restored = means(reading, found, "restoration", "restored")
    assert max(restored["none"], restored["vq-cured"]) < copied(found)
    for arm in ("vq-paper", "vq-authors"):
        assert verdicts[f"{arm} against none"] == ["significant loss"] * 3
    assert verdicts["vq-cured against none"] == [
        "significant loss",
        "not significant",
        "not significant",
    ]
    gains = ["significant gain", "not significant", "significant gain"]
    assert verdicts["vq-cured against vq-paper"] == gains
    for keys in (("probes", "svm_accuracy"), ("test", "accuracy")):
        mean = means(reading, found, *keys)
        lost = mean["none"] - mean["vq-paper"]
        assert mean["vq-cured"] - mean["vq-paper"] > lost / 2  # "more than half"
        assert mean["vq-cured"] < mean["none"]  # "both means lean that way"


@pytest.mark.parametrize("name", ["bottlenecks-quick", "bottlenecks-strong"])
def test_the_prose_says_what_both_records_say(reading, name):
    found = records.read_suite(name)["records"]
    verdicts = verdicts_of(reading, found)
    assert verdicts["vq-cured against vq-paper"][0] == "significant gain"
    assert verdicts["vq-cured against none"][0] == "significant loss"
    assert verdicts["vae against none"][1:] == ["not significant"] * 2
    assert verdicts["dvae against vq-cured"] == ["significant loss"] * 3
    restored = means(reading, found, "restoration", "restored")
    lost = restored["vq-paper"] - restored["none"]
    assert restored["vq-paper"] - restored["vq-cured"] > lost / 2  # "more than half"
    used = means(reading, found, "restoration", "perplexity")
    assert 4 < used["vq-paper"] < 8 and used["vq-cured"] > 200 and used["dvae"] < 30
    passed = reading["nats"](found, "vae").values()
    assert sum(passed) / 5 > 8 * math.log(512)  # "about ten times as many nats"


def test_the_prose_of_stated_rates_says_what_the_records_say():
    found = records.read_suite("rates-quick")["records"]
    pairs = tables.equivalences(found)
    verdict = {(r.label, r.base): (r.verdict, r.equivalent) for r in pairs.itertuples()}
    unknown, same = ("not significant", False), ("not significant", True)
    held, cured, frozen = "Gaussian, 9 bits", "VQ, cured, 9 bits", "VQ, frozen random codes, 9 bits"
    assert verdict[cured, held] == verdict["Gaussian, free", "no bottleneck"] == same
    assert verdict["FSQ, 9 bits", held] == ("significant loss", False)
    assert verdict[held, "no bottleneck"] == verdict[held, "Gaussian, free"] == unknown
    assert verdict["residual VQ, 3 x 3 = 9 bits", held] == unknown
    assert verdict["residual VQ, 2 x 9 = 18 bits", cured] == verdict[cured, frozen] == unknown
    assert (pairs[pairs["equivalent"]]["p"] > 0.01).all() and (pairs["margin"] == 2).all()
    restored = tables.means(found, "restoration").set_index("label")
    chamfer, bits = restored["restored"], restored["bits"]
    oord = "VQ as van den Oord, 9 bits"
    assert chamfer.idxmin() == "no bottleneck" and chamfer["Gaussian, free"] < chamfer[held]
    assert chamfer[cured] < chamfer[frozen] < chamfer[oord] and bits[oord] < bits[frozen]
    by_seed = built(NAME)["by_seed"]
    pair = (by_seed(found, name, "restoration", "restored") for name in ("vq-cured", "vae-9"))
    assert paired_gain(*pair)["high"] < 0  # "restores better than this Gaussian"
    assert bits[held] == pytest.approx(9, rel=0.05)
    for r in found:
        if r["run"]["name"] == "pretrain-vae-9":
            assert r["metrics"]["restoration"]["bits"] == pytest.approx(9, rel=0.07)  # "a tenth"
    assert 1.7 < bits["Gaussian, free"] / bits[held] < 2.3
    assert 0.4 < bits["FSQ, 9 bits"] / 9 < 0.6
    assert 1 / 9 < restored["live_codes"]["FSQ, 9 bits"] < 1 / 7
    probed = tables.probes(found)
    probed = probed[probed["group"] == "frozen, all labels"].set_index("label")
    assert probed["sd"].idxmin() == cured


def test_the_prose_of_modelnet40_says_what_the_records_say():
    found = records.read_suite("rates-laptop")["records"]
    pairs = tables.equivalences(found)
    assert set(pairs.n) == {3} and set(pairs.verdict) == {"not significant"}
    equal = pairs.set_index(["label", "base"])["equivalent"]
    assert len(equal) == 3 and equal[equal].index.tolist() == [("FSQ, 9 bits", "Gaussian, 9 bits")]
    restored = tables.means(found, "restoration").set_index("label")
    cured, held, fsq = "VQ, cured, 9 bits", "Gaussian, 9 bits", "FSQ, 9 bits"
    chamfer = restored["restored"]
    assert chamfer.idxmin() == "no bottleneck" and chamfer[held] < chamfer[cured]
    by_seed = built(NAME)["by_seed"]
    both = (by_seed(found, name, "restoration", "restored") for name in ("vq-cured", "vae-9"))
    assert paired_gain(*both)["verdict"] == "not significant"
    assert restored["bits"][fsq] > 7 and restored["bits"][held] == pytest.approx(9, rel=0.01)
    probed = tables.probes(found)
    means = probed["mean"][["all-vae-9", "all-fsq-9", "all-vq-cured"]]
    assert means.max() - means.min() < 0.1
    assert 1.7 < probed["mean"]["all-none"] - means.mean() < 1.9
    assert probed["mean"].idxmax() == probed["sd"].idxmin() == "all-none"
    assert set(probed["gain"].dropna() > 0) == {True}
