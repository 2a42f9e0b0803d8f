"""The exercises: right answers pass however written, each wrong answer gets a hint that fits."""

import ast
import importlib
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from serplib.course import exercises

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FOLD = re.compile(r"<details><summary>Solution</summary>\s*```python\n(.*?)```", re.DOTALL)
NAMES, WRONG, SUBTLE, RIGHT = {"torch": torch}, {}, {}, {}
for path in sorted(Path(__file__).parent.glob("planted_*.py")):  # one module a notebook or more
    module = importlib.import_module(path.stem)
    NAMES |= module.NAMES
    WRONG |= module.WRONG
    SUBTLE |= module.SUBTLE
    RIGHT |= module.RIGHT


def exercises_found():
    """Name of each exercise to the code of its solution and of its stub, and to its statement."""
    found = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        for cell, following in pairwise(cells):
            for solution in FOLD.findall(cell.source):
                name = re.search(r"exercises\.(\w+)\(", following.source)[1]
                statement = cell.source.split("<details>")[0] + following.source
                found[name] = solution, following.source, statement
    return found


EXERCISES = exercises_found()


def planted(table):
    """``(exercise, wrong answer, piece of its hint)``; several answers may share a hint."""
    for name, pairs in table.items():
        for answers, hint in pairs:
            for answer in answers if isinstance(answers, list) else [answers]:
                yield name, answer, hint


MISTAKES = [*planted(WRONG), *planted(SUBTLE)]


def count(table, name):
    return sum(found == name for found, *_ in planted(table))


def function(code, name):
    names = dict(NAMES)
    exec(code, names)
    return names[name]


def solution(name):
    return function(EXERCISES[name][0], name)


def graded(name, candidate, capsys):
    getattr(exercises, name)(candidate)
    return capsys.readouterr().out


def test_every_exercise_has_wrong_and_right_answers():
    assert set(EXERCISES) == set(WRONG) == set(SUBTLE) == set(RIGHT)
    for name in EXERCISES:
        assert count(WRONG, name) + count(SUBTLE, name) >= 8, name
        assert count(SUBTLE, name) >= 4 and len(RIGHT[name]) >= 4, name


@pytest.mark.parametrize("name", EXERCISES)
def test_the_stub_is_the_solution_without_its_body(name):
    """The stub cell holds the solution's signature, the line that raises, and the check."""
    answer, stub = (ast.parse(code).body for code in EXERCISES[name][:2])
    assert len(answer) == 1 and len(stub) == 2
    answer[0].body = ast.parse("raise NotImplementedError").body
    assert ast.dump(stub[0]) == ast.dump(answer[0])
    assert ast.unparse(stub[1]) == f"exercises.{name}({name})"


STATED = {  # what a checker enforces beside the value
    "touched_share": ["leaves its arguments unchanged", "however small"],
    "same_set": ["exactly equal"],
    "encoder_input": ["gradient must reach"],
    "chamfer_gradient": ["without autograd", "without a loop over points"],
    "critical_points": ["bool"],
    "split_layer": ["multiplications", "gradient must reach"],
    "weighted_cross_entropy": ["Do not use `F.cross_entropy`", "`F.nll_loss`", "must stay finite"],
    "post_norm_block": ["gradient must reach"],
    "pair_head": ["without `conv1d`", "gradient must reach"],
    "vq_terms": ["gradients"],
    "ema_codes": ["update `usage` and `token_sum` in place"],
    "stratified": ["bool"],
    "fair_gain": ["ValueError"],
    "given_away": ["without a loop over patches"],
    "kl_to_uniform": ["must stay finite"],
    "seeds_needed": ["80 %", "at 5 %", "At least two"],
}


@pytest.mark.parametrize("name", STATED)
def test_what_a_checker_enforces_is_stated(name):
    assert [phrase for phrase in STATED[name] if phrase not in EXERCISES[name][2]] == []


@pytest.mark.parametrize("name", EXERCISES)
def test_the_folded_solution_passes(name, capsys):
    assert graded(name, solution(name), capsys) == f"{name}: right!\n"


@pytest.mark.parametrize("name", EXERCISES)
def test_the_untouched_stub_is_open(name, capsys):
    stub = EXERCISES[name][1].split("exercises.")[0]
    assert graded(name, function(stub, name), capsys).startswith(f"{name}: still open.")


@pytest.mark.parametrize(
    "name, answer",
    [(name, answer) for name, answers in RIGHT.items() for answer in answers],
    ids=[f"{name}-{number}" for name, answers in RIGHT.items() for number in range(len(answers))],
)
def test_a_right_answer_passes_however_it_is_written(name, answer, capsys):
    assert graded(name, answer, capsys) == f"{name}: right!\n"


@pytest.mark.parametrize(
    "name, answer, hint", MISTAKES, ids=[f"{name}-{hint}" for name, _, hint in MISTAKES]
)
def test_a_wrong_answer_gets_its_hint(name, answer, hint, capsys):
    said = graded(name, answer, capsys)
    assert said.startswith(f"{name}: not yet.") and hint in said, said


def test_hints_are_distinct():
    for name in EXERCISES:
        hints = [hint for _, hint in WRONG[name]]
        assert len(set(hints)) == len(hints), name


CONVERSIONS = {
    "float64": lambda tensor: tensor.double() if tensor.is_floating_point() else tensor,
    "numpy": lambda tensor: tensor.numpy(),
    "list": lambda tensor: tensor.tolist(),
    "0-d tensors": lambda tensor: [*tensor] if tensor.ndim else tensor,
}
NUMBERS = {"float64": np.float64, "0-d": torch.tensor, "1-d": lambda x: np.array([x])}
TRAIN = ("encoder_input", "split_layer", "weighted_cross_entropy", "post_norm_block", "pair_head",
         "vq_terms", "kl_to_uniform")  # fmt: skip
NO_TENSOR = ("decay_groups", "snapshot", "same_set")


@pytest.mark.parametrize("kind", CONVERSIONS)
@pytest.mark.parametrize("name", sorted(set(EXERCISES) - set(NO_TENSOR) - set(TRAIN)))
def test_one_conversion_for_all_answers(name, kind, capsys):
    """A tensor, an array, a list, a number of any kind: what counts is the value."""

    def answer(*arguments):
        found = solution(name)(*arguments)
        if isinstance(found, torch.Tensor):
            return CONVERSIONS[kind](found)
        return NUMBERS.get(kind, float)(found)

    assert graded(name, answer, capsys) == f"{name}: right!\n"


@pytest.mark.parametrize("name", EXERCISES)
def test_a_function_that_breaks_does_not_stop_the_notebook(name, capsys):
    def broken(*arguments, **options):
        raise RuntimeError("shape mismatch")

    assert "stopped with RuntimeError: shape mismatch" in graded(name, broken, capsys)
    assert "Pass the function itself" in graded(name, torch.zeros(1), capsys)
    for nonsense in (torch.full((1, 7), 3.0), "three", {}, [], object(), 1j, [1, "a"], np.nan):
        assert "not yet" in graded(name, lambda *a, value=nonsense, **k: value, capsys)
    assert "returned None" in graded(name, lambda *a, **k: None, capsys)
