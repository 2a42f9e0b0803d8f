"""The table in tests/README.md names tests that exist, with as many cases as it says."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_promise_has_its_test_and_its_cases():
    rows = re.findall(r"^\| .+ \| `(test_\w+\.py::\w+)` \| (\d+) \|$",
                      (TESTS / "README.md").read_text(), re.MULTILINE)  # fmt: skip
    assert len(rows) > 60 and len({name for name, _ in rows}) == len(rows)
    files = sorted({name.split("::")[0] for name, _ in rows})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        cwd=TESTS, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    found = re.findall(r"(test_\w+\.py::\w+)", done.stdout)
    counts = Counter(found)
    wrong = {name: (int(cases), counts[name]) for name, cases in rows if counts[name] != int(cases)}
    assert not wrong, f"promised and found: {wrong}"
