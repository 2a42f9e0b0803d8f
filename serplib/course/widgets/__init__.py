"""Live figures of the course, each thin over a pure function. One module an explorer.

These modules import without any Jupyter package; a widget asks for ipywidgets and plotly when it is
made. One figure a widget, updated in place.
"""

from serplib.course.widgets.codebook import (
    CodeAtlas,
    CodeView,
    code_atlas,
    code_layers,
    code_readout,
    codebook_explorer,
    explore_code,
)
from serplib.course.widgets.denoising import (
    Repair,
    denoising_explorer,
    denoising_readout,
    explore_denoising,
)
from serplib.course.widgets.patches import (
    PatchExploration,
    explore_patches,
    nearest_patch,
    patch_explorer,
    patch_readout,
)
from serplib.course.widgets.perturbation import (
    Exploration,
    explore_perturbation,
    perturbation_explorer,
    readout,
)

__all__ = [
    "CodeAtlas",
    "CodeView",
    "Exploration",
    "PatchExploration",
    "Repair",
    "code_atlas",
    "code_layers",
    "code_readout",
    "codebook_explorer",
    "denoising_explorer",
    "denoising_readout",
    "explore_code",
    "explore_denoising",
    "explore_patches",
    "explore_perturbation",
    "nearest_patch",
    "patch_explorer",
    "patch_readout",
    "perturbation_explorer",
    "readout",
]
