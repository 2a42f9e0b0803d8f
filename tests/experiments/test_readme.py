"""What the README says is so: parameters, links, results read from records."""

import json
import re
from pathlib import Path

import pytest
from measure_notebooks import RECORD, row
from notebook_helpers import NOTEBOOKS

from serplib.classifier import autoencoder
from serplib.experiments import records, report
from serplib.presets import PRESETS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("preset", PRESETS)
def test_parameter_counts(preset):
    def count(module) -> str:
        return f"{sum(p.numel() for p in module.parameters()):,}"

    models = [autoencoder(PRESETS[preset], m) for m in ("pointnet", "transformer")]
    cells = [f"{count(model)} ({count(model.encoder)})" for model in models]
    assert f"| `{preset}` | {cells[0]} | {cells[1]} |" in README


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_map_has_the_measured_minutes():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    for name in NOTEBOOKS:
        (line,) = re.findall(rf"^\| \[{name}\]\(.*$", README, re.MULTILINE)
        assert line == row(name, line.split(" | ")[1], record)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_result_tables_are_those_of_the_records():
    names = re.findall(r"<!-- results (\S+) -->", README)
    assert "quick-quick" in names
    for name in names:
        found = records.read_suite(name)["records"]
        assert report.fill(README, name, found) == README, f"serp report --keep renews {name}"
        shown = README.split(f"<!-- results {name} -->")[1].split(f"<!-- end of {name}")[0]
        classified = any("test" in record["metrics"] for record in found)
        assert ("±" in shown) == classified  # restorations alone have no spread to show
        assert classified or "| restored | copy input |" in shown
        assert ("| paper, ModelNet40 | corrected |" in shown) == ("'Corrected' is" in shown)


def test_the_data_card_says_what_the_record_says():
    (record,) = records.read_suite("sim-to-real-quick")["records"]
    card = " ".join((ROOT / "datasets" / "README.md").read_text(encoding="utf-8").split())
    result = record["metrics"]["test"]
    assert f"gets {100 * result['accuracy']:.1f} % of ModelNet40's" in card
    assert f"{result['num_shapes']:,} test shapes" in card
    assert f"{100 * result['mean_class_accuracy']:.1f} % as a mean over classes" in card
    assert (
        f"{record['data']['train']['num_shapes'] + record['data']['valid']['num_shapes']:,}" in card
    )
