"""The table in tests/README.md names tests that exist, with as many cases as it says."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from conftest import COLLECTED

TESTS = Path(__file__).parents[1]


def test_every_promise_has_its_test_and_its_cases(pytestconfig):
    rows = re.findall(r"^\| .+ \| `(\w+/test_\w+\.py::\w+)` \| (\d+) \|$",
                      (TESTS / "README.md").read_text(), re.MULTILINE)  # fmt: skip
    assert len(rows) > 60 and len({name for name, _ in rows}) == len(rows)
    files = sorted({name.split("::")[0] for name, _ in rows})
    collected = "\n".join(pytestconfig.stash[COLLECTED])
    if not all(f"{file}::" in collected for file in files):  # not the whole suite
        words = ["--collect-only", "-q", "-p", "no:cacheprovider", *files]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words], cwd=TESTS, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-2000:]
        collected = done.stdout
    found = re.findall(r"(\w+/test_\w+\.py::\w+)", collected)
    counts = Counter(found)
    wrong = {name: (int(cases), counts[name]) for name, cases in rows if counts[name] != int(cases)}
    assert not wrong, f"promised and found: {wrong}"


def test_the_table_of_mutants_is_the_record():
    readme = (TESTS / "README.md").read_text(encoding="utf-8")
    record = json.loads((TESTS / "mutation.json").read_text(encoding="utf-8"))
    assert set(record["modules"]) == {"geometry", "perturbation", "patches", "bottlenecks"}
    for module, found in record["modules"].items():
        tried, killed, lived = found["tried"], found["killed"], found["survivors"]
        assert killed + len(lived) == tried and killed >= 0.9 * tried
        assert all(s["judged"].startswith("equivalent") for s in lived), "one has not been judged"
        row = [found["mutants"], tried, killed, len(lived), f"{100 * killed / tried:.0f} %"]
        assert f"| `{module}.py` | {' | '.join(map(str, row))} |" in readme
