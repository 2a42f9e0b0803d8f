"""README, results page and reproduction page: links, parameter counts, numbers from records."""

import json
import re
from dataclasses import fields, is_dataclass

import pytest
from measure_notebooks import RECORD
from measure_notebooks import row as map_row
from notebook_helpers import NOTEBOOKS, ROOT

from serplib.classifier import autoencoder
from serplib.evaluation.significance import holm
from serplib.experiments import notes, records, report, tables
from serplib.presets import PAPER, PRESETS

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = records.results_folder() / "README.md"
REPRODUCTION = (ROOT / "notebooks" / "site" / "reproduction.md").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "datasets/README.md", "tests/README.md"]
PAGES += ["notebooks/experiments/README.md", "notebooks/experiments/results/README.md"]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_exist(page):
    path = ROOT / page
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in link and not link.startswith("#"):
            assert (path.parent / link.split("#")[0]).exists(), link


def test_the_readme_is_short_and_links_the_other_pages():
    assert 8_000 <= len(README.encode()) <= 10_240
    for page in (*PAGES[1:2], *PAGES[3:], "notebooks/site/reproduction.md"):
        assert f"]({page.removesuffix('/README.md')}" in README, page


def test_the_map_has_the_measured_minutes():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    for name in NOTEBOOKS:
        (line,) = re.findall(rf"^\| \[{name}\]\(.*$", README, re.MULTILINE)
        assert line == map_row(name, line.split(" | ")[1], record)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    pages = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", pages, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_annotated_tree_names_what_is_there():
    """Every file and folder in the tree exists, and every module of the paper is in it."""
    (tree,) = re.findall(r"^```\n(notebooks/ .*?)^```", README, re.MULTILINE | re.DOTALL)
    folder, named = "", set()
    for line in tree.splitlines():
        names = re.match(r"((?:[\w.]+[/y] ?)+)", line.strip())[1].split()
        if not line.startswith(" "):
            folder = names[0]
            names = [""]
        for name in names:
            assert (ROOT / folder / name).exists(), folder + name
            named.add(folder + name)
    modules = {f"serplib/{p.name}" for p in (ROOT / "serplib").glob("[!_]*.py")}
    assert modules <= named, modules - named
    assert len(re.findall(r"\(\d\) section", tree)) == 6


def test_the_table_of_the_readme_is_that_of_the_records():
    """Accuracy, gain with its interval, the paper's figure and the corrected one."""
    block = README.split("<!-- results readme -->\n")[1].split("<!-- end of readme -->")[0]
    assert block == report.readme_table() + "\n", "paste report.readme_table() into the README"
    block = README.split("<!-- results eight -->\n")[1].split("<!-- end of eight -->")[0]
    assert block == report.readme_few() + "\n", "paste report.readme_few() into the README"


def test_the_findings_are_those_of_the_records():
    """One assertion a finding of the README, in their order."""
    eight = records.read_suite("eight-laptop")["records"]
    tuned, frozen = tables.accuracy(eight), tables.probes(eight)
    assert not notes.across_devices([r for r in eight if "nn" not in r["run"]["name"]])
    for name in ("affine", "serp", "frame", "clean"):
        assert tuned.verdict[f"eight-{name}"] == "not significant"
    assert (tuned.pairs[1:] == 3).all()
    for name in ("eight-frozen", "probe"):
        assert frozen.verdict[f"{name}-serp"] == "significant loss"
        assert frozen.verdict[f"{name}-affine-input"] == "not significant"
        assert frozen.verdict[f"{name}-affine"] == "significant gain"
        assert frozen.verdict[f"{name}-frame"] == "significant gain"
    assert frozen.verdict["probe-origin"] == "significant loss"
    pairs = tables.direct(eight)
    trained = pairs[~pairs["base"].str.contains("calibrated")]
    parts = trained.query("label.str.contains('origin') or base.str.contains('origin')")
    parts = parts[parts["group"].str.endswith("all labels")]
    assert parts.verdict.tolist() == ["significant gain", "not significant"]  # origin, unit
    for name in ("clean-frame", "affine-input"):
        assert tuned.verdict[f"eight-{name}"] == "significant gain"
    bases = pairs.query("base.str.startswith('SeRP, loss in the cloud') and n == 3")
    significant = {"frozen encoder, 8 labels a class"}
    assert len(bases) == 3
    assert set(bases.group[bases.verdict == "significant gain"]) == significant
    frames = trained.query("label.str.contains('loss in the cloud')").set_index("group")
    assert set(frames.verdict[["8 labels a class"]]) == {"not significant"}
    table1 = records.read_suite("table1-laptop")["records"]
    restored = tables.means(table1, "restoration")
    ratio = restored["restored"] / restored["copy_input"]
    added = pairs.query("base.str.startswith('clean clouds, loss in the cloud')")
    assert len(added) == 3 and set(added.verdict) == {"not significant"} and set(added.n) == {3}
    helped = pairs.query("base.str.startswith('clean clouds, loss in the patch')")
    frozen_alike = {"frozen encoder, 8 labels a class", "frozen encoder, all labels"}
    assert set(helped.group[helped.verdict == "significant gain"]) == frozen_alike
    for name in ("eight-frozen", "probe"):
        assert frozen.verdict[f"{name}-clean"] == "significant loss"
    words = " ".join(README.split())
    fine_tuned = tuned[tuned.pairs > 1]
    assert min(holm(fine_tuned["p"].tolist())) > 0.05
    calibrated = pairs.query("base.str.endswith('calibrated, all labels')")
    calibrated = calibrated.set_index(calibrated.label.str.split("'").str[0])
    calibrated = calibrated[calibrated.index.str.startswith("SeRP, loss")]
    assert calibrated.verdict.tolist() == ["not significant", "significant gain"]
    assert (
        frozen.verdict[["probe-calibrated", "eight-frozen-calibrated"]].eq("significant loss").all()
    )
    for text in (
        f"restores {ratio['pretrain-serp']:.1f} times worse than copying",
        f"SeRP gains {tuned.gain['eight-serp']:.2f} points with the loss in the patch's frame",
        f"and {tuned.gain['eight-frame']:.2f} in the cloud's; an autoencoder of *clean* clouds "
        f"gains {tuned.gain['eight-clean-frame']:.2f} there. By Holm, none is significant.",
        f"frame is {-frozen.gain['probe-serp']:.2f} points below the untrained encoder. "
        f"{-frozen.gain['probe-calibrated']:.2f} of them appear without training, by calibration "
        f"alone; the other {-calibrated.gain['SeRP, loss in the patch']:.2f} are not significant.",
        f"In the cloud's frame SeRP has {frozen['mean']['probe-frame']:.2f}, clean clouds "
        f"{frozen['mean']['probe-clean-frame']:.2f}: what noise adds is not significant.",
    ):
        assert text in words, text
    assert frozen.verdict["probe-own"] == "significant loss"
    deep = tables.probes(records.read_suite("layers-laptop")["records"])
    for name in ("affine", "frame"):
        for layers in ("layers", "last"):
            assert deep.verdict[f"{layers}-{name}"] == "significant gain"
        assert deep["mean"][f"layers-{name}"] > deep["mean"][f"last-{name}"]
    text = f"NPNet's features, without training, have {frozen['mean']['probe-np-net']:.2f} (one"
    assert text in words and frozen["seeds"]["probe-np-net"] == 1
    length = [r for r in records.read_suite("length-laptop")["records"]
              if r["parameters"]["seed"] == 0]  # fmt: skip
    svm = tables.probes(length)["mean"]
    text = f"give {svm['probe-serp-80']:.2f} instead of {svm['probe-serp']:.0f} (seed 0)"
    assert f"80 epochs {text}" in words
    assert deep.verdict["layers-serp"] == "significant loss"
    longer = tables.accuracy(records.read_suite("epochs-laptop")["records"])
    few, most = longer.loc["affine-4"], longer.loc["frame-48"]
    assert few.verdict == "significant gain" and (longer["rise"] > 1).all()
    assert most.verdict == "not significant" and (few.pairs, most.pairs) == (3, 3)
    assert f"frame has {most.gain:+.2f} [{most.low:+.2f}, {most.high:+.2f}]" in words
    first, second = table1, records.read_suite("table2-laptop")["records"]
    for found in (first, second):
        trained = [r for r in found if "test" in r["metrics"]]
        assert trained and len({len(r["history"]) for r in trained}) == 1
    gains = tables.accuracy(first).query("pairs > 0")
    assert (tables.accuracy(first).rise > 1).all(), "no network has converged"
    corrected = dict(zip(gains.index, holm(gains["p"].tolist())))
    paper = tables.PUBLISHED["table1/serp"] - tables.PUBLISHED["table1/scratch"]
    serp = gains.loc["all-serp"]
    text = f"SeRP gains {serp.gain:.2f} points (5 seeds: [{serp.low:+.2f}, {serp.high:+.2f}]"
    assert f"{text}; paper: {paper:.2f})" in words and serp.pairs == 5
    assert corrected["all-serp"] < 0.05
    xeon = records.read_suite("table1-xeon")["records"]
    there = tables.accuracy(xeon).loc["all-serp"]
    text = f"another processor {there.gain:.2f} [{there.low:+.2f}, {there.high:+.2f}] (3 seeds)"
    assert text in words and there.pairs == 3
    both = (gains.loc["all-affine"], tables.accuracy(xeon).loc["all-affine"])
    ours, theirs = (f"{g.gain:.2f} [{g.low:+.2f}, {g.high:+.2f}]" for g in both)
    assert f"Affine maps gain {ours} and {theirs}" in words
    vasp = tables.accuracy(xeon).loc["all-vasp"]
    text = f"its processor it gains {vasp.gain:.2f} [{vasp.low:+.2f}, {vasp.high:+.2f}]"
    assert text in words and "all-vasp" in notes.across_devices(first)
    perplexity = tables.means(first, "restoration").perplexity["pretrain-vasp"]
    assert f"its perplexity is {perplexity:.0f} of 512" in words
    rows = tables.protocol(records.read_suite("protocol-laptop")["records"])
    plain = rows[rows["label"].eq("no augmentation") & rows["group"].str.contains("PointNet")]
    assert f"costs PointNet {plain['gain'].item():.1f} points" in words


def test_the_tables_of_the_results_page_are_those_of_the_records():
    page = RESULTS.read_text(encoding="utf-8")
    made = report.renew(page)
    if "Code: it is unknown" in made:  # a clone without history
        page, made = (re.sub(r"^Code: .*\n", "", text, flags=re.MULTILINE) for text in (page, made))
    assert made == page, "the results page is stale: make results"
    files = {path.stem for path in RESULTS.parent.glob("*.json")}
    suites = {
        name for name in files if "records" in records.read_json(RESULTS.parent / f"{name}.json")
    }
    marked = re.findall(r"<!-- results (\S+) -->", page)
    assert set(marked) - {"intervals"} == suites and len(suites) >= 14 and "intervals" in marked


def test_the_prose_of_the_results_page_says_what_the_records_say():
    sources = records.read_suite("sources-laptop")["records"]
    frozen = tables.probes(sources)
    gain = frozen.gain
    assert gain["probe-procedural"] / gain["probe-real"] == pytest.approx(2 / 3, abs=0.03)
    assert gain["probe-objects"] / gain["probe-real"] == pytest.approx(4 / 5, abs=0.03)
    pairs = tables.direct(sources)
    found = pairs[pairs.verdict == "significant gain"]
    assert sorted(found.base.str.split(",").str[0] + " " + found.group) == [
        "procedural frozen encoder, 8 labels a class",
        "procedural frozen encoder, all labels",
        "procedural frozen encoder, all labels",
    ]
    assert set(pairs.n) == {3} and "significant loss" not in set(pairs.verdict)

    deep = tables.probes(records.read_suite("layers-laptop")["records"]).gain
    eight = tables.probes(records.read_suite("eight-laptop")["records"])
    page = " ".join(RESULTS.read_text(encoding="utf-8").split())
    for text in (
        f"they gain {deep['last-frame']:.2f} and {deep['last-affine']:.2f} points here, "
        f"{eight.gain['probe-frame']:.2f} and {eight.gain['probe-affine']:.2f} in `eight`",
        f"`eight` they are {-eight.gain['probe-calibrated']:.2f} points below the untrained "
        f"encoder with all labels, and {-eight.gain['eight-frozen-calibrated']:.2f} below it",
        f"{-eight.gain['probe-serp']:.2f} points below the untrained encoder (all labels), but not",
        f"Calibrated it has {eight['mean']['probe-calibrated']:.2f} (see `eight`; seed 0 a",
    ):
        assert text in page, text
    pairs = tables.direct(records.read_suite("eight-laptop")["records"])
    cloud = pairs[pairs.base.str.contains("calibrated")]
    cloud = cloud[cloud.label.str.contains("in the cloud|drops, (?:8|all) labels")]
    some = cloud.set_index("group").gain
    for group, low, high in (("all labels", 11, 14), ("8 labels a class", 21, 26)):
        assert some[f"frozen encoder, {group}"].between(low, high).all()
        assert len(some[f"frozen encoder, {group}"]) == 3
    for pair in pairs.itertuples():
        if "calibrated" in pair.base and pair.label.startswith("SeRP, loss in the patch"):
            assert f"({pair.gain:+.2f} [{pair.low:+.2f}, {pair.high:+.2f}])" in page
            assert pair.verdict == "not significant" and pair.n == 3
    longer = tables.accuracy(records.read_suite("epochs-laptop")["records"])
    most = longer[longer["epochs"] == 24]["mean"].max()
    assert longer["mean"]["scratch-48"] > most > 80

    here = tables.variants(records.read_suite("eight-laptop")["records"])
    there = tables.variants(records.read_suite("eight-xeon")["records"])

    def more(name: str, metric: str, key: str) -> list[float]:
        sides = ({r["parameters"]["seed"]: r["metrics"][metric][key] for r in runs[name]}
                 for runs in (here, there))  # fmt: skip
        one, two = sides
        assert one.keys() == two.keys()
        return sorted(round(100 * (one[seed] - two[seed]), 2) for seed in one)

    assert more("eight-scratch", "test", "accuracy")[::2] == [0.36, 1.42]
    for name in ("probe-untrained", "eight-frozen-untrained"):
        assert set(more(name, "probes", "svm_accuracy")) == {0}
    assert max(map(abs, more("eight-frozen-affine", "probes", "svm_accuracy"))) > 1

    probed = tables.probes(records.read_suite("pretext-laptop")["records"])
    pointnet = probed[probed["group"] == "frozen PointNet"]
    assert set(pointnet["seeds"]) == {1} and len(pointnet) == 7
    order = pointnet.sort_values("mean").index.str.removeprefix("probe-pointnet-").tolist()
    assert order[:2] == ["untrained", "calibrated"] and set(order[2:4]) == {"paper", "none"}
    assert set(order[5:]) == {"reflect", "affine"}
    trained = pointnet["mean"].drop(["probe-pointnet-untrained", "probe-pointnet-calibrated"])
    assert trained.max() - pointnet["mean"]["probe-pointnet-calibrated"] < 1
    assert trained.min() - pointnet["mean"]["probe-pointnet-calibrated"] < 0.1
    xeon = records.read_suite("table1-xeon")["records"]
    again = records.read_suite("table1-repeat")["records"]
    assert {r["run"]["name"] for r in again} == {"all-scratch", "pretrain-serp"}
    for r in again:
        key = r["run"]["name"], r["parameters"]["seed"]
        (old,) = (o for o in xeon if (o["run"]["name"], o["parameters"]["seed"]) == key)
        assert r["history"] == old["history"] and len(r["history"]) in (10, 24)
        for metric, values in old["metrics"].items():
            assert {k: r["metrics"][metric][k] for k in values} == values
        assert r["environment"]["code"] != old["environment"]["code"]

    length = records.read_suite("length-laptop")["records"]
    first = {r["run"]["name"]: r["metrics"] for r in length if r["parameters"]["seed"] == 0}
    svm = {name: 100 * m["probes"]["svm_accuracy"] for name, m in first.items() if "probes" in m}
    assert 10 < svm["probe-serp-80"] - svm["probe-serp"] < 12
    assert svm["probe-serp-80"] - svm["probe-calibrated"] == pytest.approx(5, abs=0.5)
    assert svm["probe-untrained"] - svm["probe-serp-80"] == pytest.approx(4, abs=0.5)
    vote = [100 * first[f"probe-serp{end}"]["probes"]["knn_accuracy"] for end in ("-80", "")]
    assert vote[0] - vote[1] < 0.1
    few = {name: 100 * m["test"]["accuracy"] for name, m in first.items() if "test" in m}
    assert 1 < few["eight-serp-80"] - few["eight-serp"] < 1.5
    short, long = (first[f"pretrain-serp{end}"]["restoration"] for end in ("", "-80"))
    assert long["copy_input"] < long["restored"] < short["restored"]
    losses = [e["valid_total"] for r in length for e in r["history"]
              if r["run"]["name"] == "pretrain-serp-80"]  # fmt: skip
    assert len(losses) == 80 and losses[-1] < losses[-9] < losses[-17]

    table1, xeon = (records.read_suite(f"table1-{of}")["records"] for of in ("laptop", "xeon"))
    tuned, there = tables.accuracy(table1), tables.accuracy(xeon)
    across = notes.across_devices(table1)
    assert across == {"all-vasp": "VASP (all labels)"} and not notes.across_devices(xeon)
    assert there.high["all-serp"] < tuned.low["all-serp"], "the intervals exclude each other"
    assert there.gain["all-serp"] == pytest.approx(0, abs=0.1)
    known = records.read_json(RESULTS.parent / "code.json")
    compared = [r for r in table1 + xeon if r["run"]["name"] in ("all-serp", "all-scratch")]
    losses = {known.get(r["environment"].get("code")) for r in compared}
    assert losses == {known[records.code_digest()]}, "the code computes the same"
    (one,) = tables.accuracy(records.read_suite("wide-laptop")["records"]).itertuples()
    assert one.seeds == 1
    pointnet = tables.means(records.read_suite("table2-laptop")["records"], "restoration")
    delta = pointnet.loc["pretrain-delta"]
    assert delta.detection_auc == pytest.approx(0.5, abs=0.005)
    assert delta.touched_moved > delta.touched_copy, "its shifts are worse than none"
    clean = tables.direct(table1).query("base.str.startswith('clean')")
    assert {tuned.verdict["all-clean-frame"], *clean.verdict} == {"not significant"}
    assert 0 < tuned.gain["all-clean-frame"] < 1

    def apart(name: str) -> list[float]:
        sides = ({r["parameters"]["seed"]: 100 * r["metrics"]["test"]["accuracy"]
                  for r in tables.variants(found)[name]} for found in (table1, xeon))  # fmt: skip
        one, two = sides
        return sorted(round(two[seed] - one[seed], 1) for seed in two)

    assert apart("all-scratch")[::2] == [0.3, 0.5]
    assert sorted(-gap for gap in apart("all-serp"))[::2] == [0.7, 0.9]


def test_the_intervals_of_a_page_are_counted():
    page = "<!-- results intervals -->\nold\n<!-- end of intervals -->\n"
    page += "| +1 [+0, +2] significant gain | [+0, +2] | -1 [-3, +1] not significant |\n"
    made = report.renew(page)
    assert "have 2 intervals" in made and " 1 of them exclude zero" in made and "old" not in made
    assert report.renew(made) == made


@pytest.mark.parametrize("preset", PRESETS)
def test_parameter_counts(preset):
    def count(module) -> str:
        return f"{sum(p.numel() for p in module.parameters()):,}"

    models = [autoencoder(PRESETS[preset], m) for m in ("pointnet", "transformer")]
    cells = [f"{count(model)} ({count(model.encoder)})" for model in models]
    assert f"| `{preset}` | {cells[0]} | {cells[1]} |" in REPRODUCTION


def flat(config, prefix="") -> dict[str, object]:
    found = {}
    for f in fields(config):
        value = getattr(config, f.name)
        nested = is_dataclass(value)
        found |= flat(value, f"{prefix}{f.name}.") if nested else {prefix + f.name: value}
    return found


@pytest.mark.parametrize("preset", ["authors_code", "laptop"])
def test_every_difference_from_the_paper_is_on_the_reproduction_page(preset):
    paper, other = flat(PAPER), flat(PRESETS[preset])
    rows = [
        (name, str(paper[name]), str(other[name]))
        for name in paper
        if name != "name" and paper[name] != other[name]
    ]
    head = f"| setting | `paper` | `{preset}` | the text |\n| --- | --- | --- | --- |\n"
    table = REPRODUCTION.split(head)[1].split("\n\n")[0]
    row = r"\| `([\w.]+)` \| `(.+?)` \| `(.+?)` \| (?:says so|in part|unclear|silent) \|"
    assert [re.fullmatch(row, line).groups() for line in table.splitlines()] == rows


def test_the_data_card_says_what_the_record_says():
    (record,) = records.read_suite("sim-to-real-quick")["records"]
    card = " ".join((ROOT / "datasets" / "README.md").read_text(encoding="utf-8").split())
    result = record["metrics"]["test"]
    assert f"{100 * result['accuracy']:.1f} %" in card
    assert f"{result['num_shapes']:,} test shapes" in card
    assert f"{100 * result['mean_class_accuracy']:.1f} %" in card
    assert (
        f"{record['data']['train']['num_shapes'] + record['data']['valid']['num_shapes']:,}" in card
    )
