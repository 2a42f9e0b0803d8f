"""The report's figures are drawn from records, and hold what the records say."""

import base64
import copy
import html

import pytest
from matplotlib.figure import Figure

from serplib.evaluation.corruptions import CORRUPTIONS
from serplib.evaluation.robustness import POINTS
from serplib.experiments import figures, findings, records, report, summaries, tables

FEW = records.read_suite("fewshot-laptop")["records"]


def panels(found):
    return figures.panels(found, tables.accuracy(found))


def axes():
    return Figure().subplots()


def test_panels_are_those_that_the_records_fill():
    assert list(panels(FEW)) == [
        "Pre-training", "Test accuracy, mean ± sd over seeds", "Few labels", "Cost",
    ]  # fmt: skip
    assert list(panels(records.read_suite("leakage-quick")["records"])) == ["Cost"]
    for picture in figures.draw(FEW, tables.accuracy(FEW)).values():
        assert picture.startswith(b"\x89PNG") and len(picture) > 5000


def test_few_label_curves_are_the_means_of_the_records():
    drawn = axes()
    panels(FEW)["Few labels"](drawn)
    lines = {c.get_label(): c.lines[0].get_xydata().tolist() for c in drawn.containers}
    assert len(lines) == 3
    for label, points in lines.items():
        for labels, mean in points:
            own = [r["metrics"]["test"]["accuracy"] for r in FEW
                   if r["run"].get("label") == label and "test" in r["metrics"]
                   and r["parameters"]["labels_per_class"] == labels]  # fmt: skip
            assert len(own) >= 3 and mean == pytest.approx(100 * sum(own) / len(own))


def test_loss_curves_stand_beside_the_loss_of_copying():
    drawn = axes()
    panels(FEW)["Pre-training"](drawn)
    dashed = [line.get_ydata()[0] for line in drawn.lines if line.is_dashed()]
    trained = [r for r in FEW if r["metrics"].get("restoration") and r["parameters"]["seed"] == 0]
    wanted = [
        r["metrics"]["restoration"]["patch_copy"] / r["history"][0]["valid_total"] for r in trained
    ]
    assert dashed == pytest.approx(wanted) and len(wanted) == 2
    ends = [line.get_ydata()[-1] for line in drawn.lines if not line.is_dashed()]
    assert len(ends) == sum(bool(r["metrics"].get("restoration")) for r in FEW)
    assert all(0 < end < 1 for end in ends)


@pytest.fixture
def robust():
    """A record of three seeds with a robustness that is easy to add up."""
    found = []
    for seed in range(3):
        record = copy.deepcopy(next(r for r in FEW if "test" in r["metrics"]))
        record["parameters"]["seed"] = seed
        values = {
            "clean": 0.9,
            "clean_in_box": 0.88,
            "rotated_z": 0.5,
            "rotated_so3": 0.4,
            "files": 0.0,
        }
        values |= {f"{name}_{s}": 0.1 * s for name in CORRUPTIONS for s in range(1, 6)}
        values |= {f"points_{count}": count / 1024 for count in POINTS}
        record["metrics"]["robustness"] = values
        found.append(record)
    return found


def test_robustness_curves(robust):
    made = panels(robust)
    drawn = axes()
    made["Fifteen corruptions"](drawn)
    assert drawn.containers[0].lines[0].get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert drawn.containers[0].lines[0].get_ydata().tolist() == pytest.approx([10, 20, 30, 40, 50])
    drawn = axes()
    made["Fewer points"](drawn)
    points = drawn.containers[0].lines[0].get_xydata().tolist()
    assert points[-1] == pytest.approx([1024, 90]) and points[0] == pytest.approx([64, 6.25])


SIGMA = "corruption.perturbation.sigma"


def sweep(values, others=()):
    """Records of a grid of sigma on three seeds, with their baseline, and accuracies to expect."""
    plain = next(r for r in FEW if r["run"].get("scratch") and "test" in r["metrics"])
    found, means = [], []
    for i, value in enumerate(values):
        for seed in range(3):
            record = copy.deepcopy(plain)
            record["parameters"]["seed"] = seed
            grid = {"of": "SeRP", "values": {SIGMA: value, **dict(others)}}
            record["run"] |= {"name": f"t-{i}", "label": f"SeRP {value}", "grid": grid}
            record["run"] |= {"scratch": "base", "group": "8 labels"}
            record["metrics"]["test"]["accuracy"] = 0.5 + 0.1 * i + 0.01 * seed
            found.append(record)
        means.append(51 + 10 * i)
    base = copy.deepcopy(plain)
    base["run"] |= {"name": "base", "label": "from scratch", "group": "8 labels"}
    base["metrics"]["test"]["accuracy"] = 0.4
    return [*found, base], means


@pytest.mark.parametrize("values", [[0.1, 0.03, 0.2], ["box", "all", "ball"], [0.001, 0.1, 1]])
def test_the_curve_of_a_grid_has_its_intervals_and_its_baseline(values):
    found, means = sweep(values)
    drawn = axes()
    panels(found)[f"Test accuracy against {SIGMA}"](drawn)
    (curve,) = drawn.containers
    assert curve.get_label() == "SeRP (8 labels)"
    if isinstance(values[0], str):  # in the order of the suite
        assert [tick.get_text() for tick in drawn.get_xticklabels()] == values
    else:
        order = sorted(range(3), key=values.__getitem__)
        assert curve.lines[0].get_xdata().tolist() == [values[i] for i in order]
        means = [means[i] for i in order]
    assert curve.lines[0].get_ydata().tolist() == pytest.approx(means)
    half = 4.302653 * 1 / 3**0.5  # Student's t with two degrees of freedom, sd of 1 point
    (bars,) = (bars.get_segments() for bars in curve.lines[2])
    for mean, ((_, low), (_, high)) in zip(means, bars, strict=True):
        assert (low, high) == pytest.approx((mean - half, mean + half), rel=1e-5)
    (base,) = (line for line in drawn.lines if line.is_dashed())
    assert set(base.get_ydata()) == {40} and base.get_label() == "from scratch (8 labels)"
    assert (drawn.get_xscale() == "log") == (values[0] == 0.001)


def test_a_grid_of_two_settings_has_no_curve():
    found, _ = sweep([0.1, 0.2], {"pretrain_pointnet.lr": 0.1}.items())
    assert not [title for title in panels(found) if "against" in title]


def test_restoration_against_a_value_that_moves_nothing_has_no_ratio():
    found = [copy.deepcopy(r) for r in FEW if "restoration" in r["metrics"]][:2]
    for record, sigma, copied in zip(found, (0.0, 0.1), (0.0, 0.5)):
        record["run"] |= {"name": f"p{sigma}", "grid": {"of": "p", "values": {SIGMA: sigma}}}
        record["metrics"]["restoration"] |= {"restored": 0.25, "copy_input": copied}
    drawn = axes()
    panels(found)[f"Restoration against {SIGMA}"](drawn)
    drawn_y = drawn.containers[0].lines[0].get_ydata()
    assert drawn_y[-1] == pytest.approx(50) and not drawn_y[:-1].tolist() == [0]


def test_the_table_of_robustness(robust):
    summary = summaries.summarize(robust)
    title, table = next(t for t in summary.tables.items() if t[0].startswith("Robustness"))
    assert "severities 1 to 5" in title and table.shape == (1, 14)
    wanted = ["3", "90.0", "88.0", *["30.0"] * 4, "50.0", "25.0", "12.5", "6.2", "50.0", "40.0"]
    assert table.loc[0].tolist()[1:] == wanted
    assert any("corruptions are this library's" in note for note in summary.notes)


def test_pictures_of_figure_4_are_in_the_page(tmp_path, monkeypatch):
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    record = copy.deepcopy(FEW[0])
    record["run"] |= {"name": "figure-x", "hash": "0123456789abcdef", "label": "<i>x</i>"}
    record["history"] = []
    place = tmp_path / "runs" / "fewshot-laptop" / "figure-x-seed0-01234567"
    place.mkdir(parents=True)
    (place / "figure.png").write_bytes(b"\x89PNG figure")
    page = report.write("fewshot", "laptop", [record], []).path.read_text()
    assert 'alt="Figure 4: &lt;i&gt;x&lt;/i&gt;"' in page

    assert base64.b64encode(b"\x89PNG figure").decode() in page


def test_a_report_opens_with_the_clouds_that_a_run_restored_and_its_findings(tmp_path, monkeypatch):
    """The picture beside its record, the sentences of the terminal, the first table."""
    every = records.read_suite("course-quick")["records"]
    found = next(r for r in every if r["run"]["name"] == "pretrain-affine")
    seed = found["parameters"]["seed"]
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    name = f"pretrain-affine-seed{seed}-{found['run']['hash'][:8]}"
    place = tmp_path / "runs" / "course-quick" / name
    data = base64.b64encode(b"\x89PNG clouds").decode()
    place.mkdir(parents=True)
    (place / "figure.png").write_bytes(b"\x89PNG clouds")
    found["run"]["label"] = "SeRP <b>"
    written = report.write("course", "quick", [found], [])
    page, text = (written.path.with_suffix(end).read_text() for end in (".html", ".md"))
    (sentence,) = findings.sentences(written.summary)
    places = [page.index(part) for part in (data, html.escape(sentence), "<table")]
    assert places == sorted(places) and "<figcaption>" in page and "<b>" not in page
    assert text.startswith(f"- {sentence.replace('<b>', '&lt;b>')}\n\n**Restoration")
    (place / "figure.png").unlink()
    assert data not in report.write("course", "quick", [found], []).path.read_text()
