"""`notebook_tolerance`: numbers within a tolerance, everything else exactly."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from notebook_tolerance import near, same_text, tolerance_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("stored", "new", "same"),
    [
        ("0.381", "0.383", True),  # 0.5 %
        ("0.381", "0.389", False),  # 2 %
        ("0.38", "0.39", True),  # one unit of the last digit
        ("0.38", "0.40", False),
        ("-0.00", "0.00", True),
        ("1.5e-4", "1.6e-4", True),
        ("1.5e-4", "1.5e-3", False),
        ("1,234.5", "1,230.0", True),
        ("12", "12", True),
        ("12", "13", False),  # whole numbers are exact without a tag
        ("1024", "1025", False),
        ("0.5", "-0.5", False),
    ],
)
def test_near(stored, new, same):
    assert near(stored, new) is same


def test_a_stated_tolerance_holds_for_whole_numbers_too():
    assert near("100", "105", 0.05) and not near("100", "106", 0.05)
    assert near("0.500", "0.524", 0.05) and not near("0.500", "0.530", 0.05)


@pytest.mark.parametrize(
    ("stored", "new", "same"),
    [
        ("loss  9.98, AUC 0.76", "loss 10.01, AUC 0.76", True),  # the column moves
        ("loss 9.98", "Loss 9.98", False),
        ("loss 9.98", "loss 9.98 9.98", False),
        ("loss 9.98\n", "loss 9.98", False),
        ("torch.Size([2, 64, 3])", "torch.Size([2, 64, 3])", True),
        ("torch.Size([2, 64, 3])", "torch.Size([2, 65, 3])", False),
        ("layer2 0.50", "layer3 0.50", False),  # a digit inside a name is a letter
        ("yes", "no", False),
        ("1.0 True", "1.0 False", False),
        ("nan", "0.1", False),
    ],
)
def test_same_text(stored, new, same):
    assert same_text(stored, new) is same


def test_tags():
    assert tolerance_of([]) is None and tolerance_of(["parameters"]) is None
    assert tolerance_of(["tolerance:2.5%"]) == pytest.approx(0.025)
    with pytest.raises(ValueError, match="tolerance:5%"):
        tolerance_of(["tolerance=5"])


def run_nbval(tmp_path, cells):
    """Run cells ``(source, stored text, tags)`` through nbval; return each one's state."""
    notebook = nbformat.v4.new_notebook()
    for source, text, tags in cells:
        outputs = [nbformat.v4.new_output("stream", text=text)] if text else []
        cell = nbformat.v4.new_code_cell(
            source, outputs=outputs, metadata={"tags": tags}, execution_count=1
        )
        notebook.cells.append(cell)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    path = tmp_path / "planted.ipynb"
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "pytest", "-p", "tests.notebook_tolerance", "--nbval", "-v"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(path)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    states = [word for word in done.stdout.split() if word in ("PASSED", "FAILED")]
    return states[: len(cells)], done.stdout


def test_nbval_uses_it(tmp_path):
    """One notebook: cells that must pass and cells that must fail, through nbval itself."""
    cells = [
        ("print('loss', 0.1234)", "loss 0.1230\n", []),  # passes: 0.3 %
        ("print('loss', 0.1234)", "loss 0.1300\n", []),  # fails: 5 %
        ("print('loss', 0.1234)", "loss 0.1300\n", ["tolerance:10%"]),  # passes
        ("print('loss', 0.1234)", "lost 0.1234\n", []),  # fails: a word
        ("pass", "0.5\n", []),  # fails: no output
        ("print(0.5)", "", []),  # fails: an output too many
    ]
    states, output = run_nbval(tmp_path, cells)
    assert states == ["PASSED", "FAILED", "PASSED", "FAILED", "FAILED", "FAILED"], output
