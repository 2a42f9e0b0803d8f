"""Live figures of the course, each a thin layer over a pure function. One module an explorer.

These modules import without any Jupyter package; an explorer needs ipywidgets and plotly when it
is made. It has one figure, updated in place.
"""
# ruff: noqa: F401, I001

from serplib.course.widgets.codebook import (
    CodeAtlas, CodeView, code_atlas, code_layers, code_readout, codebook_explorer, explore_code
)  # fmt: skip
from serplib.course.widgets.patches import (
    PatchExploration, explore_patches, patch_explorer, patch_readout
)  # fmt: skip
from serplib.course.widgets.perturbation import (
    FAMILIES, Exploration, denoising_explorer, denoising_readout, explore_denoising,
    explore_perturbation, perturbation_explorer, readout,
)  # fmt: skip
