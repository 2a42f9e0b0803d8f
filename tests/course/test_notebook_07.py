"""What notebook 07 builds is what the library has, and its last tables read any records."""

import re

import pytest
import torch
from notebook_helpers import built, cells
from test_exercises import EXERCISES, function

from serplib.bottlenecks import VectorQuantizer, nearest_codes
from serplib.evaluation.significance import paired_gain
from serplib.experiments import records
from serplib.presets import AUTHORS_CODE, PAPER
from serplib.seeding import named_generator
from serplib.transformer import TransformerConfig
from serplib.vasp import Vasp, VaspConfig


@pytest.fixture(scope="module")
def made():
    return built("07_vasp", nearest_codes=nearest_codes)


def tokens(seed, *shape):
    return torch.randn(*shape, generator=named_generator("notebook 07", seed))


@pytest.mark.parametrize("seed", range(3))
def test_nearest_codes(made, seed):
    z, codes = tokens(("z", seed), 500, 7), tokens(("codes", seed), 40, 7)
    assert torch.equal(made["my_nearest"](z, codes), nearest_codes(z, codes))
    ties = torch.randint(-2, 3, (300, 2), generator=named_generator(seed)).float()
    index = made["my_nearest"](ties, ties[:9])
    distance = (ties[:, None] - ties[:9]).square().sum(-1)
    assert torch.equal(index, distance.argmin(1))  # whole numbers are exact: the lowest index


@pytest.mark.parametrize("alpha, beta", [(1.0, 0.25), (0.25, 0.25), (0.0, 2.0)])
def test_quantize_is_the_vector_quantizer(made, alpha, beta):
    vq = VectorQuantizer(12, 5, alpha, beta)
    vq.codebook.data.copy_(tokens("book", 12, 5))
    ours = [tokens("z", 3, 4, 5).requires_grad_(), vq.codebook.detach().clone().requires_grad_()]
    theirs = [tokens("z", 3, 4, 5).requires_grad_(), vq.codebook]
    passed, losses, index = made["quantize"](*ours, alpha, beta)
    found = vq(theirs[0])
    assert torch.equal(index, vq.encode(theirs[0]))
    torch.testing.assert_close(passed, found.latent)
    assert losses.keys() == found.losses.keys()
    for terms, latent in ((losses, passed), (found.losses, found.latent)):
        (sum(terms.values()) + latent.pow(3).sum()).backward()
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.grad, b.grad)


def test_straight_through(made):
    z, e = tokens("z", 6, 3).requires_grad_(), tokens("e", 6, 3).requires_grad_()
    passed = made["straight_through"](z, e)
    torch.testing.assert_close(passed, e)
    weights = tokens("weights", 6, 3)
    (passed * weights).sum().backward()
    assert torch.equal(z.grad, weights)


@pytest.mark.parametrize("seed", range(3))
def test_the_solution_of_exercise_3_is_the_librarys_step(seed):
    vq = VectorQuantizer(6, 3, ema=0.9, epsilon=0.01).train()
    z = 2 + tokens(("ema", seed), 1, 40, 3)
    usage, sums, index = vq.usage.clone(), vq.token_sum.clone(), vq.encode(z)[0]
    fair = 6 / 40  # the library counts in fair shares
    expected = function(EXERCISES["ema_codes"][0], "ema_codes")(
        usage / fair, sums / fair, z[0], index, 0.9, 0.01 / fair
    )
    vq(z)
    torch.testing.assert_close(vq.codebook.detach(), expected)


def test_what_a_code_tells(made):
    codes = torch.tensor([0, 0, 1, 1, 2, 2])
    told = made["told_by"]
    assert told(codes, codes[:, None].float()) == pytest.approx(1)
    assert told(codes, torch.tensor([[1.0], [-1], [1], [-1], [1], [-1]])) == pytest.approx(0)
    assert told(codes, torch.tensor([[0.0], [2], [4], [6], [8], [10]])) == pytest.approx(64 / 70)


def test_commitment_settles_the_walk(made):
    line = torch.tensor([[-1.5], [0.0], [1.5]])
    walk = built("07_vasp", line_codes=line, nearest_codes=nearest_codes)["walk"]
    restless, settled = walk(0.0)[-20:], walk(1.0)[-20:]
    assert min(restless) < 0.75 < max(restless) and min(settled) > 0.95


def test_codes_are_as_wide_as_the_latent_tokens():
    """Eq. 8 against section 3.4: l, not d."""
    config = TransformerConfig(
        num_centers=4, patch_size=4, dim=8, latent_dim=12, encoder_depth=1, decoder_depth=1,
        encoder_heads=2, decoder_heads=2, token_widths=(4, 4, 8),
    )  # fmt: skip
    assert Vasp(config, VaspConfig(codebook_size=5)).bottleneck.codebook.shape == (5, 12)


def test_table_of_open_settings_is_the_presets():
    (cell,) = [c for c in cells("07_vasp", "code") if "codes K" in c.source]
    shown = cell.outputs[0]["data"]["text/markdown"]
    for name, value in (("codes K", "codebook_size"), ("alpha", "alpha"), ("beta", "beta")):
        row = re.search(rf"^\| {name} \| not given \| (\S+) \| (\S+) \|$", shown, re.M)
        wanted = [getattr(preset.vasp, value) for preset in (PAPER, AUTHORS_CODE)]
        assert [float(number) for number in row.groups()] == wanted


# ---- the last tables, on records made up here --------------------------------------------------


def record(name, seed, **metrics):
    return {"run": {"name": name}, "parameters": {"seed": seed}, "metrics": metrics}


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
    return built("07_vasp", paired_gain=paired_gain, KINDS=kinds)


def rows(table):
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {line[0]: line[1:] for line in lines}


def test_arm_table_reads_what_is_there(reading):
    found = rows(reading["arm_table"](suite(["none", "vq-paper"])))
    assert found == {
        "none": ["40.0 (5 seeds)", "", "52.0 (5 seeds)", "26.0 (5 seeds)"],
        "vq-paper": ["40.0 (5 seeds)", "7 (5 seeds)", "32.0 (5 seeds)", "16.0 (5 seeds)"],
    }
    extra = [record("probe-untrained", 0, probes={"svm_accuracy": 0.25})]
    extra += [record("few-scratch", 0, test={"accuracy": 0.1})]
    found = rows(reading["arm_table"](extra))
    assert found["untrained"][2] == "25.0 (1 seeds)" and found["scratch"][3] == "10.0 (1 seeds)"


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
    assert means(reading, found, "restoration", "restored")["none"] < copied(found)
    for arm in ("vq-paper", "vq-authors"):
        assert verdicts[f"{arm} against none"] == ["significant loss"] * 3
    assert verdicts["vq-cured against none"] == [
        "significant loss",
        "not significant",
        "not significant",
    ]
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
