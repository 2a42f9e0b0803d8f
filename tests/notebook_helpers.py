"""The committed notebooks, for the tests that read them or run what they define."""

import ast
from pathlib import Path

import nbformat
import torch

from serplib import geometry

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {
    path.stem: nbformat.read(path, as_version=4)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
}


def cells(name, kind):
    """The cells of a notebook of one kind, ``"code"`` or ``"markdown"``."""
    return [cell for cell in NOTEBOOKS[name].cells if cell.cell_type == kind]


def built(name, values=(), **more):
    """The functions defined in a notebook's cells, stubs left out, ready to be called.

    ``values`` are names of the notebook's own values that their code expects; ``more`` are other
    names, beside torch, gather and knn.
    """
    names = {"torch": torch, "gather": geometry.gather, "knn": geometry.knn} | more
    for cell in cells(name, "code"):
        for node in ast.parse(cell.source).body:
            kept = isinstance(node, ast.FunctionDef)
            kept &= "NotImplementedError" not in ast.unparse(node)
            kept |= isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in values
            if kept:
                exec(compile(ast.Module([node], []), name, "exec"), names)
    return names
