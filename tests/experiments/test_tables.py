"""Tables: records to frames, frames to text, HTML and Markdown; each number computed once."""

import copy
import html
import math
import re

import pandas as pd
import pytest
from scipy import stats

from serplib.evaluation import protocol, significance
from serplib.experiments import notes, records, render, report, summaries, tables


def record(name, seed, accuracy, **run):
    right = round(40 * accuracy)
    correct = f"{int('1' + '1' * right + '0' * (40 - right), 2):x}"
    return {
        "run": {"name": name, "hash": f"{name}{seed}", **run},
        "parameters": {"seed": seed, "preset": "quick"},
        "metrics": {"test": {"accuracy": accuracy, "correct": correct, "num_shapes": 40}},
        "data": {"test": {"name": "objects", "num_shapes": 40}},
        "history": [],
        "seconds": 1.0,
        "environment": {"device": "CPU", "packages": {"torch": "2"}, "git": {"revision": None}},
    }


def test_labelled_and_seen_shapes_are_those_of_both_trainings():
    epoch = {"train_accuracy": 0.5}
    parent = record("pretrain", 0, 0.5)
    parent |= {"metrics": {}, "history": [{}, {}, {}]}
    parent["data"] = {"train": {"num_shapes": 100}}
    found = [record("scratch", 0, 0.5), record("ours", 0, 0.6, parent="pretrain0"),
             record("lost", 0, 0.6, parent="elsewhere")]  # fmt: skip
    for r in found:
        r |= {"history": [epoch, epoch]}
        r["data"]["train"] = {"num_shapes": 7}
    rows = tables.accuracy([parent, *found])
    assert rows.labelled.tolist() == [7, 7, 7]
    assert rows.seen["scratch"] == 14 and rows.seen["ours"] == 314
    assert math.isnan(rows.seen["lost"]), "its pre-training has no record"
    shown = summaries.summarize([parent, *found]).tables["Accuracy on objects, %"]
    assert shown["shapes seen"].tolist() == ["14", "314", ""]


def test_corrected_figures_are_those_over_the_true_number_of_shapes():
    values = {key: round(tables.corrected(v), 2) for key, v in tables.PUBLISHED.items()}
    assert values == {
        "table1/scratch": 91.77, "table1/serp": 92.42, "table1/vasp": 91.13,
        "table2/scratch": 86.06, "table2/delta": 87.24, "table2/cdl2": 87.2,
    }  # fmt: skip


def test_published_figures_fit_the_wrong_divisor_and_not_the_right_one():
    def fits(value: float, divisor: int) -> bool:
        digits = len(str(value).split(".")[1])
        return any(round(100 * k / divisor, digits) == value for k in range(divisor + 1))

    assert all(fits(value, notes.DIVISOR) for value in tables.PUBLISHED.values())
    impossible = {v for v in tables.PUBLISHED.values() if not fits(v, notes.TEST_SHAPES)}
    assert impossible == {88.48, 87.85, 82.97, 84.06}


# ---- frames ------------------------------------------------------------------------------------


def test_rows_average_over_seeds():
    found = [record("scratch", s, a) for s, a in enumerate((0.5, 0.6, 0.7))]
    found += [record("ours", s, a, scratch="scratch", published="table1/serp")
              for s, a in enumerate((0.6, 0.7, 0.8))]  # fmt: skip
    rows = tables.accuracy(found)
    assert rows["mean"].tolist() == pytest.approx([60, 70]) and rows.sd["ours"] == pytest.approx(10)
    assert rows.gain["ours"] == pytest.approx(10) and rows.pairs.tolist() == [0, 3]
    assert math.isnan(rows.gain["scratch"]) and math.isnan(rows.published["scratch"])
    assert rows.shapes_low["ours"] < 10 < rows.shapes_high["ours"]
    assert rows.better["ours"] == rows.worse["ours"] == 0  # 4 of 40 gained, none lost: p = 1/8
    assert rows.gain_text.tolist() == ["", "+10.00 [+10.00, +10.00] significant gain"]


@pytest.mark.parametrize("task", ["objects", "few labels", "few shapes", "as the paper"])
def test_the_papers_figures_stand_beside_its_own_task_only(task):
    found = [record("ours", 0, 0.5, published="table1/serp")]
    if task != "objects":
        found[0]["data"]["test"] |= {"name": "modelnet40", "num_shapes": notes.TEST_SHAPES}
    few = {"few labels": {"labels_per_class": 8}, "few shapes": {"train_shapes": 4000}}
    found[0]["parameters"] |= few.get(task, {"labels_per_class": 0, "train_shapes": 0})
    (shown,) = summaries.summarize(found).tables.values()
    assert ("paper, ModelNet40" in shown) == (task == "as the paper")


def test_one_noisy_epoch_does_not_decide_whether_training_has_converged():
    """100 epochs with a noise of 3 points: one level, and one that rises by 2 points."""
    curves = {"flat": [], "rising": []}
    for epoch in range(100):
        noise = (3.0, -3.0, 1.0, -1.0)[epoch % 4]  # the last epoch of each is 4 below its 97th
        curves["flat"].append(80 + noise)
        curves["rising"].append(80 + 0.1 * epoch + noise)
    assert tables.rise(curves["flat"]) == pytest.approx(0, abs=0.5)
    assert tables.rise(curves["rising"]) == pytest.approx(2.5, abs=0.5)
    assert tables.rise([70.0]) == 0 and tables.rise([70.0, 75.0]) == 5
    found = [record(name, 0, 0.5) for name in curves]
    for one, curve in zip(found, curves.values()):
        one["history"] = [{"train_accuracy": value / 100} for value in curve]
    (note,) = [n for n in summaries.summarize(found).notes if n.startswith("Not converged")]
    assert "rising" in note and "flat" not in note


def paired(affine=(0, 1, 2), serp=(0, 1)):
    """Affine maps gain 5 points on each seed, SeRP's noise 0 and 2.5, the base has three seeds."""
    found = [record("scratch", s, 0.5) for s in (0, 1, 2)]
    for name, seeds in (("affine", affine), ("serp", serp)):
        found += [record(f"pretrain-{name}", s, 0.5) | {"metrics": {}} for s in seeds]
        for s in seeds:
            about = {"scratch": "scratch", "parent": f"pretrain-{name}{s}"}
            accuracy = 0.55 if name == "affine" else 0.5 + s / 40
            found.append(record(f"all-{name}", s, accuracy, **about))
    return found


def test_pre_trainings_are_compared_with_each_other():
    rows = tables.direct(paired())
    (row,) = rows.itertuples()
    assert (row.label, row.base, row.n) == ("all-affine", "all-serp", 2)
    assert row.gain == pytest.approx(3.75)
    summary = summaries.summarize(paired())
    shown = summary.tables["Pre-trainings compared with each other"]
    assert shown.iloc[0, 4].startswith("+3.75 [") and notes.DIRECT_NOTE in summary.notes
    assert tables.direct(paired(serp=(0,))).empty, "one seed gives no interval"


def test_seeds_that_only_some_variants_have_are_said():
    (line,) = tables.unequal_seeds(paired())
    assert line == ("all-affine has 3 seeds; over the 2 that all variants have, its gain is "
                    "+5.00 [+5.00, +5.00]")  # fmt: skip
    assert any(line in note for note in summaries.summarize(paired()).notes)
    assert not tables.unequal_seeds(paired(serp=(0, 1, 2)))


@pytest.mark.parametrize(("model", "accuracies", "seeds"), [
    ("point_nn", (0.8, 0.8), 1), ("point_nn", (0.8, 0.7), 2), ("transformer", (0.8, 0.8), 2),
])  # fmt: skip
def test_a_control_that_no_seed_changes_is_one_seed(model, accuracies, seeds):
    found = [record("x", s, 0.5) | {"metrics": {"probes": {"memory_accuracy": a, "rankme": 9.0}}}
             for s, a in enumerate(accuracies)]  # fmt: skip
    for one in found:
        one["parameters"]["model"] = model
        one["data"]["train"] = {"name": "objects", "num_shapes": 1234}
    (shown,) = summaries.summarize(found).tables.values()
    assert shown.loc[0, "seeds"] == str(seeds) and shown.loc[0, "labelled shapes"] == "1,234"
    assert (" ± " in shown.loc[0, "memory bank"]) == (seeds > 1)


def test_one_change_of_the_protocol_is_compared_with_the_reference_of_its_group():
    found = []
    for group, level in (("A", 0.80), ("B", 0.60)):
        for seed in range(3):
            base = record(group, seed, level, group=group, label="reference")
            ways = dict.fromkeys(protocol.WAYS, level) | {"votes": level + 0.01 * (seed + 1)}
            base["metrics"]["protocol"] = {"reference": level} | ways
            found += [base, record(f"{group}-still", seed, level - 0.1, group=group, label="still")]
    rows = tables.protocol(found[:-1]).set_index(["group", "label"])  # B-still has two seeds
    assert len(rows) == 2 * (len(protocol.WAYS) + 1)
    assert rows["reference"].groupby("group").first().to_dict() == pytest.approx({"A": 80, "B": 60})
    votes = rows.loc[("B", protocol.WAYS["votes"])]
    assert votes["gain"] == pytest.approx(2) and votes["n"] == 3 and not votes["trained"]
    assert votes["high"] - 2 == pytest.approx(stats.t.ppf(0.975, 2) / math.sqrt(3))  # its sd is 1
    chosen = rows.loc[("A", protocol.WAYS["best_votes"])]
    assert chosen["gain"] == 0 and math.isnan(chosen["low"]), "its sign is no result"
    still = rows.loc[("B", "still")]
    assert (still["gain"], still["n"], still["trained"]) == (pytest.approx(-10), 2, True)
    title = "Protocol: what one change is worth against the reference, points of accuracy"
    shown = summaries.summarize(found).tables[title].set_index("one change")
    assert shown.columns.tolist() == ["A: 80.00 %", "B: 60.00 %"]
    assert shown.index.tolist() == [*protocol.WAYS.values(), "still"]  # training comes last
    assert shown.loc["still", "A: 80.00 %"] == "-10.00 [-10.00, -10.00] significant loss"
    assert shown.loc[protocol.WAYS["best_epoch"], "A: 80.00 %"] == "+0.00, never negative"
    assert shown.loc[protocol.WAYS["padded"], "A: 80.00 %"] == "+0.00, arithmetic"
    assert tables.protocol(found[1::2]).empty  # without a reference
    tested_too = copy.deepcopy(found[1])  # all variants tested in all ways, by a profile
    tested_too["metrics"]["protocol"] = found[0]["metrics"]["protocol"]
    pretrained = record("pretrain", 0, 0.5, group="A") | {"metrics": {"restoration": {}}}
    again = [record("A-other", seed, 0.9, group="A", label="still") for seed in range(3)]
    rows = tables.protocol([pretrained, found[0], tested_too, *again])
    assert rows["label"].tolist() == [*protocol.WAYS.values(), "still", "still"]
    assert rows["trained"].sum() == 2, "the first tested variant is the only reference"
    both = summaries.summarize([found[0], tested_too, *again]).tables[title]
    cell = both.set_index("one change").loc["still"].iloc[0]
    assert cell.count("one seed") == 2, "equal labels share a cell"


def test_a_share_needs_its_denominator():
    """The full autoencoder must be a tenth below the constant."""
    losses = {"constant": 1.0, "positions_of_another": 1.0, "positions": 0.95}
    found = [record(name, 0, 0.5) | {"data": {}} for name in ("no", "yes")]
    for one, full in zip(found, (0.91, 0.9)):
        one["metrics"] = {"leakage": losses | {"full": full, "explained": 0.5, "leaked": 0.5}}
    summary = summaries.summarize(found)
    (shown,) = summary.tables.values()
    assert shown["explained"].tolist() == shown["leaked"].tolist() == ["none", "50.0 %"]
    assert notes.LEARNT_NOTE in summary.notes


def test_a_variant_that_still_learns_is_named_as_not_converged():
    """The last quarter of eight epochs is 7 and 8: a rise by 1 point is allowed, 1.5 is not."""
    found = [record("slow", 0, 0.5), record("done", 0, 0.5)]
    for one, end in zip(found, (0.815, 0.81)):
        epochs = [0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, end]
        one["history"] = [{"train_accuracy": a} for a in epochs]
    rows = tables.accuracy(found)
    assert rows.trained.tolist() == pytest.approx([81.5, 81])
    assert rows.rise.tolist() == pytest.approx([1.5, 1.0]) and rows.epochs.tolist() == [8, 8]
    (note,) = [n for n in summaries.summarize(found).notes if n.startswith("Not converged")]
    assert "slow" in note and "done" not in note


POWER = "Power of these comparisons, in points of accuracy"


def test_power_stands_in_the_tables_of_modelnet40():
    """Differences 1 to 5 have the sd 1.58; a gain without two seeds or a baseline has no row."""
    found = [record("scratch", s, 0.5) for s in range(5)]
    found += [record("ours", s, 0.5 + (1 + s) / 40, scratch="scratch") for s in range(5)]
    found += [record("one", 0, 0.6, scratch="scratch")]
    assert len(summaries.summarize(found).tables) == 1  # no claim about other shapes
    for one in found:
        one["data"]["test"] |= {"name": "modelnet40", "num_shapes": notes.TEST_SHAPES}
    summary = summaries.summarize(found)
    shown = summary.tables[POWER]
    assert shown.shape == (1, 8) and list(shown)[-2:] == ["seeds for +0.62", "seeds for +1.13"]
    row = dict(zip(shown, shown.iloc[0]))
    sd = 2.5**0.5 * 100 / 40
    assert row["gain"] == "+7.50" and row["sd of the difference"] == f"{sd:.2f}"
    assert row["seeds for +1.13"] == str(significance.seeds_needed(1.13, sd))
    assert row["found with 80 % power"] == f"{significance.smallest_effect(sd, 5):.2f}"
    assert notes.POWER_NOTE in summary.notes


@pytest.mark.parametrize("change", ["three seeds", "few labels"])
def test_no_seeds_for_the_papers_gain_from_three_seeds_or_of_another_task(change):
    seeds = range(3 if change == "three seeds" else 5)
    found = [record("scratch", s, 0.5) for s in seeds]
    found += [record("ours", s, 0.5 + (1 + s) / 40, scratch="scratch") for s in seeds]
    for one in found:
        one["data"]["test"] |= {"name": "modelnet40", "num_shapes": notes.TEST_SHAPES}
        one["parameters"]["labels_per_class"] = 8 if change == "few labels" else 0
    assert list(summaries.summarize(found).tables[POWER])[-1] == "found with 80 % power"


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_note_on_power_gives_the_interval_of_an_sd(n):
    """(n - 1) s^2 / sigma^2 is chi-square."""
    low, high = (math.sqrt((n - 1) / stats.chi2.ppf(p, n - 1)) for p in (0.975, 0.025))
    text = f"{low:.2f} to {high:.2f} times {'as large ' * (n == 3)}with {n}"
    assert text in " ".join(notes.POWER_NOTE.split())


SPOILED = {  # what differs, and how it is said
    "name": ("data", {"name": "modelnet40"}, "name of the test set: modelnet40, objects"),
    "copy": ("data", {"checksum": "b"}, "checksum of the test set: a, b"),
    "order": ("data", {"labels": "d"}, "labels of the test set: c, d"),
    "number": ("data", {"num_shapes": 39}, "num shapes of the test set: 39, 40"),
    "subset": ("parameters", {"data_seed": 1}, "data_seed of the subset: 0, 1"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_bits_of_other_shapes_or_another_order_are_not_paired(kind):
    """The gain over seeds stays; what pairs shapes is empty, and a note says why."""
    found = [record(name, seed, 0.5 + 0.1 * (name == "ours"), scratch="scratch")
             for name in ("scratch", "ours") for seed in (0, 1)]  # fmt: skip
    for one in found:
        one["data"]["test"] |= {"checksum": "a", "labels": "c"}
        one["parameters"] |= {"data_seed": 0, "test_shapes": 40}
    assert not tables.accuracy(found)["unpaired"].any()
    where, change, reason = SPOILED[kind]
    target = found[3][where]["test"] if where == "data" else found[3][where]
    target |= change
    if kind == "number":
        found[3]["metrics"]["test"]["correct"] = "3" + "f" * 9 + "7"
    row = tables.accuracy(found).loc["ours"]
    assert row.gain == pytest.approx(10) and row.pairs == 2 and row.unpaired == reason
    assert math.isnan(row.shapes_low) and math.isnan(row.better)
    summary = summaries.summarize(found)
    assert any("no McNemar's test" in n and f"ours ({reason})" in n for n in summary.notes)
    (shown,) = summary.tables.values()
    assert shown.loc[1, ["[95 %, over shapes]", "McNemar p < .05"]].eq("").all()


def test_older_records_without_the_order_of_the_labels_are_paired():
    found = [record("scratch", 0, 0.5), record("ours", 0, 0.9, scratch="scratch")]
    found[0]["data"]["test"]["labels"] = "c"
    table = tables.accuracy(found)
    assert table.better["ours"] == 1 and table.worse["ours"] == 0
    found[0], found[1] = (record("scratch", 0, 0.9), record("ours", 0, 0.5, scratch="scratch"))
    table = tables.accuracy(found)
    assert table.better["ours"] == 0 and table.worse["ours"] == 1


def test_committed_records_of_a_suite_were_tested_on_the_same_shapes():
    for path in records.results_folder().glob("*.json"):
        found = records.read_json(path).get("records", [])
        tested = [r for r in found if "test" in r["metrics"] or "probes" in r["metrics"]]
        assert tables._unpaired(tested) == "", path


def test_equivalence_is_tested_within_the_margin_of_the_suite():
    """Differences of 0.5 +- 0.5 and 0 +- 5 points: the one is small, the other only unknown."""
    ends = {"base": (0.5, 0.6, 0.7, 0.8), "near": (0.51, 0.60, 0.71, 0.8)}
    ends["wide"] = (0.55, 0.55, 0.75, 0.75)
    found = [record(name, s, a, versus=["base", "absent"], margin=2.0, group="few")
             for name, values in ends.items() for s, a in enumerate(values)]  # fmt: skip
    for one in found[:4]:
        del one["run"]["versus"]
    rows = tables.equivalences(found)
    assert rows["label"].tolist() == ["near", "wide"] and set(rows["base"]) == {"base"}
    assert rows["equivalent"].tolist() == [True, False]
    assert set(rows["verdict"]) == {"not significant"} and rows["n"].tolist() == [4, 4]
    shown = summaries.summarize(found).tables["Equivalence within 2 points, few"]
    assert shown["within the margin"].tolist() == ["equivalent within 2 points", "not shown"]
    assert shown.loc[0, "difference [95 %, over seeds]"].startswith("+0.50 [-0.42, +1.42] not")
    assert tables.equivalences(found[:4]).empty


def test_every_row_of_a_bottleneck_has_its_rate():
    """From the record, or of an older one from its perplexity or its KL."""
    restored = {"restored": 0.1, "copy_input": 0.2, "resample": 0.1, "resample_points": 512}
    new = restored | {"perplexity": 8.0, "live_codes": 0.5, "bits": 3.0, "bits_fixed": 18.0}
    old = restored | {"perplexity": 16.0, "live_codes": 1.0}
    kinds = {"new": new, "old": old, "vae": restored, "none": restored}
    found = [record(name, 0, 0.5) | {"metrics": {"restoration": values}, "data": {}}
             for name, values in kinds.items()]  # fmt: skip
    for one in found:
        one["parameters"] |= {"changes": {"vasp.codebook_size": 64}, "model": "vasp"}
    found[2]["history"] = [{"valid_nats": 9 * math.log(2)}]
    means = tables.means(found, "restoration")
    assert means["bits"].tolist()[:3] == pytest.approx([3, 4, 9])
    shown = summaries.summarize(found).tables["Rate in bits a token over the held-out clouds"]
    assert shown["variant"].tolist() == ["new", "old", "vae"]
    assert shown["bits, fixed length"].tolist() == ["18.0", "6.0", ""]
    assert shown["bits, entropy or KL"].tolist() == ["3.0", "4.0", "9.0"]


def test_the_distance_of_a_perfect_network_is_shown_where_a_record_has_it():
    values = {"restored": 0.1, "copy_input": 0.2, "resample": 0.1, "resample_points": 512}
    title = "Restoration of held-out clouds: Chamfer (Eq. 11) x 10,000"

    def shown(*more):
        found = [record(f"r{i}", 0, 0.5) | {"metrics": {"restoration": values | one}, "data": {}}
                 for i, one in enumerate(more)]  # fmt: skip
        return summaries.summarize(found).tables[title]

    assert "perfect network" not in shown({})
    assert shown({}, {"perfect": 0.05})["perfect network"].tolist() == ["", "500.0"]


def test_one_seed_decides_nothing():
    found = [record("scratch", 0, 0.5), record("ours", 0, 0.9, scratch="scratch")]
    assert tables.accuracy(found).gain_text["ours"] == "+40.00, one seed"


def test_fewer_labels_come_first_and_all_labels_last():
    wanted = ["1 label a class", "8 labels a class", "30 labels a class", "all labels"]
    found = [record(name, 0, 0.5, group=name) for name in sorted(wanted)]
    assert tables.accuracy(found)["group"].tolist() == wanted


def test_without_records_of_a_kind_its_frame_is_empty():
    found = [record("scratch", 0, 0.5)]
    assert tables.probes(found).query("pairs > 0").empty
    assert tables.accuracy([]).query("pairs > 0").empty
    assert tables.means(found, "restoration").empty
    assert list(summaries.summarize(found).tables) == ["Accuracy on objects, %"]


def test_each_bootstrap_is_computed_once(monkeypatch):
    calls = []
    original = tables.bootstrap_gain
    monkeypatch.setattr(tables, "bootstrap_gain", lambda *a: calls.append(a) or original(*a))
    found = records.read_suite("short-laptop")["records"]
    render.to_markdown(summaries.summarize(found))
    assert len(calls) == 6  # three fine-tuned and three frozen variants with a baseline


def test_a_note_names_the_rows_on_another_processor_than_their_baseline():
    found = [record("scratch", s, 0.5) for s in (0, 1)]
    found += [record(name, s, 0.6, scratch="scratch", group="all labels")
              for name in ("near", "far") for s in (0, 1, 2)]  # fmt: skip
    assert notes.across_devices(found) == {}
    for r in found:  # seed 2 has no baseline
        other = r["run"]["name"] == "far" and r["parameters"]["seed"] > 0
        r["environment"] = r["environment"] | {"device": "CPU (other)" if other else "CPU"}
    assert list(notes.across_devices(found).values()) == ["far (all labels)"]
    (note,) = [n for n in summaries.summarize(found).notes if n.startswith("Not on the processor")]
    assert "baseline: far (all labels). Such" in note


def test_a_note_says_when_the_code_has_changed(monkeypatch):
    found = [record("a", 0, 0.5), record("a", 1, 0.5)]
    for states, words in (((False, True), "has changed since"), ((False, None), "is unknown"),
                          ((False, False), "")):  # fmt: skip
        answers = iter(states)
        monkeypatch.setattr(notes, "code_changed", lambda _, answers=answers: next(answers))
        (*_, note) = [n for n in summaries.summarize(found).notes if n.startswith("Code:")] or [""]
        assert words in note and bool(note) == bool(words)


# ---- text --------------------------------------------------------------------------------------

LONG = "SeRP, of which the label is longer than a cell that pandas shows: sixty characters and more"


@pytest.fixture(scope="module")
def wide():
    """The widest tables of the committed records, and a label of 90 characters."""
    found = records.read_suite("robustness-laptop")["records"]
    found = [r | {"run": r["run"] | {"label": LONG}} if r["run"]["name"] == "robust-serp" else r
             for r in found]  # fmt: skip
    return summaries.summarize(found)


def test_tables_fit_eighty_columns_and_no_name_is_cut():
    summary = summaries.summarize(records.read_suite("robustness-laptop")["records"])
    text = render.to_text(summary, 80)
    assert max(map(len, text.splitlines())) <= 83 and "..." not in text  # one title has 83
    for frame in summary.tables.values():
        for cell in {*frame.columns, *frame.to_numpy().flatten()}:
            assert cell in text, cell


def test_a_label_wider_than_the_terminal_is_kept_whole(wide):
    assert LONG in render.to_text(wide, 80)


def test_html_and_markdown_show_the_same_frames(wide):
    page, text = render.to_html("x", wide, [], {}, []), render.to_markdown(wide)
    shown = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert len(shown) == len(wide.tables) == text.count("\n**") + 1
    for table, frame in zip(shown, wide.tables.values()):
        cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", table)
        assert list(map(html.unescape, cells)) == [*frame, *frame.to_numpy().flatten()]
        assert render.table_to_markdown(frame) in text
    assert all(html.escape(note) in page and note in text for note in wide.notes)


def test_a_label_cannot_break_a_markdown_table():
    frame = pd.DataFrame({"a|b": ["<b>x</b> | y\nz", "[t](u)"]})
    assert render.table_to_markdown(frame).splitlines() == [
        "| a\\|b |", "| --- |", "| &lt;b>x&lt;/b> \\| y z |", "| [t]\\(u) |",
    ]  # fmt: skip


# ---- pages -------------------------------------------------------------------------------------


def test_only_marked_tables_of_the_results_page_are_renewed():
    begin, end = "<!-- results leakage-quick -->", "<!-- end of leakage-quick -->"
    page = f"top\n{begin}\nstale\n{end}\nbetween\n<!-- results open -->\nrest\n"
    made = report.renew(page)
    assert made.startswith(f"top\n{begin}\n**Leakage") and "stale" not in made
    assert made.endswith(f"{end}\nbetween\n<!-- results open -->\nrest\n")
    assert report.renew(made) == made


def test_the_readme_is_never_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    (tmp_path / "README.md").write_text("<!-- results tiny-quick -->\n<!-- end of tiny-quick -->\n")
    before = (tmp_path / "README.md").read_bytes()
    report.keep("tiny", "quick", [record("scratch", 0, 0.5)])
    assert (tmp_path / "README.md").read_bytes() == before
    assert len(records.read_suite("tiny-quick")["records"]) == 1
