"""Count the exercises of each notebook, time it on one core, and write notebooks.json.

    python tests/measure_notebooks.py

The table of notebooks in the README takes its minutes from this record (`test_readme.py`), and
`test_notebooks.py` compares the counts with the notebooks and the seconds with their limit.
"""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise

from notebook_helpers import NOTEBOOKS, ROOT, cells

sys.path.insert(0, str(ROOT / "tests" / "course"))
from test_exercises import RIGHT, SUBTLE, WRONG, count

from serplib.experiments import records

RECORD = ROOT / "notebooks" / "experiments" / "results" / "notebooks.json"
TIMER = """
import contextlib, io, os, sys, time
import nbformat
os.environ.pop("SERP_DATA", None)
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
start = time.process_time()
with contextlib.redirect_stdout(io.StringIO()):
    for cell in nbformat.read(sys.argv[1], as_version=4).cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source).raise_error()
print(time.process_time() - start)
"""


def cpu_seconds(name: str) -> float:
    """CPU seconds of all cells of a notebook, on one thread, imports included."""
    path = ROOT / "notebooks" / f"{name}.ipynb"
    done = subprocess.run(
        [sys.executable, "-c", TIMER, str(path)],
        capture_output=True,
        text=True,
        cwd=path.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout.splitlines()[-1])


def counts(name: str) -> dict[str, int]:
    """Count minutes to read, exercises, and the answers tried on their checkers."""
    text = "\n".join(cell.source for cell in cells(name, "markdown"))
    exercises = [
        re.search(r"exercises\.(\w+)\(", following.source)[1]
        for cell, following in pairwise(NOTEBOOKS[name].cells)
        if "<summary>Solution</summary>" in cell.source
    ]
    return {
        "read_minutes": int(re.search(r"about (\d+) minutes to read", text)[1]),
        "exercises": len(exercises),
        "wrong_answers": sum(count(table, e) for e in exercises for table in (WRONG, SUBTLE)),
        "right_answers": sum(len(RIGHT[e]) for e in exercises),
    }


def reading_minutes(name: str) -> float:
    """Estimate the minutes: 130 words or ten lines of code each, and those of the exercises.

    The folds of an exercise belong to its minutes. A formula and a piece of code count as one
    word each, addresses of links as none.
    """
    text = "\n".join(cell.source for cell in cells(name, "markdown"))
    exercises = sum(map(int, re.findall(r"^#+ Exercise .*\((\d+) minutes\)$", text, re.MULTILINE)))
    for aside in (r"<details>.*?</details>", r"\]\([^)]*\)", r"<[^>]*>"):
        text = re.sub(aside, " ", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`]*`", " x ", text, flags=re.DOTALL)
    words = re.findall(r"[^\W_][\w'’.,-]*", text)
    lines = [line for cell in cells(name, "code") for line in cell.source.splitlines() if line]
    return len(words) / 130 + len(lines) / 10 + exercises


def row(name: str, cells: str, record: dict) -> str:
    """Build a line of the README's table of notebooks."""
    found = record["notebooks"][name]
    seconds = f"{found['cpu_seconds']:.0f} s"
    return f"| [{name}](notebooks/{name}.ipynb) | {cells} | {found['read_minutes']} | {seconds} |"


if __name__ == "__main__":
    found = {}
    for name in NOTEBOOKS:
        found[name] = counts(name) | {"cpu_seconds": round(cpu_seconds(name), 1)}
        print(name, found[name], flush=True)
    record = {"environment": records.environment(), "notebooks": found}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name in NOTEBOOKS:
        line = re.compile(rf"^\| \[{name}\]\(.*$", re.MULTILINE)
        middle = line.search(text)[0].split(" | ")[1].removesuffix(" |")
        text = line.sub(lambda _, n=name, m=middle: row(n, m, record), text)
    readme.write_text(text, encoding="utf-8")
