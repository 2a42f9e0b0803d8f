"""The exercises: the solution passes, the stub is told kindly, each mistake gets its own hint."""

import importlib
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import torch

from serplib.course import exercises

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FOLD = re.compile(r"<details><summary>Solution</summary>\s*```python\n(.*?)```", re.DOTALL)
NAMES, MUTANTS = {"torch": torch}, {}
for path in sorted(Path(__file__).parent.glob("planted_*.py")):  # one module a notebook or more
    module = importlib.import_module(path.stem)
    NAMES |= module.NAMES
    MUTANTS |= module.MUTANTS
SHARED_HINTS = {"one side of Eq. 11"}  # one message for two mirrored mistakes


def exercises_found():
    """Name of each exercise in the notebooks to the code of its folded solution and of its stub."""
    found = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        for cell, following in pairwise(cells):
            for solution in FOLD.findall(cell.source):
                name = re.search(r"exercises\.(\w+)\(", following.source)[1]
                found[name] = solution, following.source.split("exercises.")[0]
    return found


EXERCISES = exercises_found()


def function(code, name):
    names = dict(NAMES)
    exec(code, names)
    return names[name]


def verdict(name, candidate, capsys):
    getattr(exercises, name)(candidate)
    return capsys.readouterr().out


def test_every_exercise_is_known_here():
    assert set(EXERCISES) == set(MUTANTS)
    assert all(len(mutants) >= 3 for mutants in MUTANTS.values())


@pytest.mark.parametrize("name", EXERCISES)
def test_the_folded_solution_passes(name, capsys):
    assert verdict(name, function(EXERCISES[name][0], name), capsys) == f"{name}: right!\n"


@pytest.mark.parametrize("name", EXERCISES)
def test_the_untouched_stub_is_told_kindly(name, capsys):
    said = verdict(name, function(EXERCISES[name][1], name), capsys)
    assert said.startswith(f"{name}: still open.")


@pytest.mark.parametrize(
    "name, mutant, hint",
    [(name, *pair) for name, pairs in MUTANTS.items() for pair in pairs],
    ids=[f"{name}-{pair[1]}" for name, pairs in MUTANTS.items() for pair in pairs],
)
def test_a_planted_mistake_gets_its_hint(name, mutant, hint, capsys):
    said = verdict(name, mutant, capsys)
    assert said.startswith(f"{name}: not yet.") and hint in said, said


def test_hints_are_told_apart():
    for name, pairs in MUTANTS.items():
        hints = [hint for _, hint in pairs if hint not in SHARED_HINTS]
        assert len(set(hints)) == len(hints), name


@pytest.mark.parametrize("name", EXERCISES)
def test_a_function_that_breaks_does_not_stop_the_notebook(name, capsys):
    def broken(*arguments, **options):
        raise RuntimeError("shape mismatch")

    assert "stopped with RuntimeError: shape mismatch" in verdict(name, broken, capsys)
    assert "Pass the function itself" in verdict(name, torch.zeros(1), capsys)
    assert "not yet" in verdict(name, lambda *a, **k: torch.full((1, 7), 3.0), capsys)
