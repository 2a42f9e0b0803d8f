"""Checkers of the exercises: each tells at once what is wrong with an answer, and why.

A notebook calls ``check.<exercise>(your_function)``. The verdict is printed and nothing is raised,
so that an exercise left open, or half done, never stops a notebook. One module a notebook.
"""

from serplib.check.perturbation import copy_baseline, expected_shared, perturb_rigid
from serplib.check.point_clouds import normalize_like, same_set, sample_triangle
from serplib.check.welcome import touched_share

__all__ = [
    "copy_baseline",
    "expected_shared",
    "normalize_like",
    "perturb_rigid",
    "same_set",
    "sample_triangle",
    "touched_share",
]
