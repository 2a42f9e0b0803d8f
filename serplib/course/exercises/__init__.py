"""Checkers of the exercises: each tells at once what is wrong with an answer, and why.

A notebook calls ``check.<exercise>(your_function)``. The verdict is printed and nothing is raised,
so that an exercise left open, or half done, never stops a notebook. One module a notebook.
"""

from serplib.course.exercises.beyond import given_away, kl_to_uniform, leaked_share
from serplib.course.exercises.finetuning import accuracy, fair_gain, stratified
from serplib.course.exercises.losses import best_constant, chamfer_gradient, chamfer_l1
from serplib.course.exercises.perturbation import (
    copy_baseline,
    expected_shared,
    perturb_rigid,
)
from serplib.course.exercises.point_clouds import (
    normalize_like,
    same_set,
    sample_triangle,
)
from serplib.course.exercises.pointnet import (
    critical_points,
    split_layer,
    weighted_cross_entropy,
)
from serplib.course.exercises.pretraining import decay_groups, snapshot, warmup_cosine
from serplib.course.exercises.results import seeds_needed, sign_test, standard_error
from serplib.course.exercises.tokenization import (
    encoder_input,
    target_in_input_frame,
    uncovered,
)
from serplib.course.exercises.transformer import (
    block_parameters,
    pair_head,
    post_norm_block,
)
from serplib.course.exercises.vasp import ema_codes, perplexity, vq_terms
from serplib.course.exercises.welcome import touched_share

__all__ = [
    "accuracy",
    "best_constant",
    "block_parameters",
    "chamfer_gradient",
    "chamfer_l1",
    "copy_baseline",
    "critical_points",
    "decay_groups",
    "ema_codes",
    "encoder_input",
    "expected_shared",
    "fair_gain",
    "given_away",
    "kl_to_uniform",
    "leaked_share",
    "normalize_like",
    "pair_head",
    "perplexity",
    "perturb_rigid",
    "post_norm_block",
    "same_set",
    "sample_triangle",
    "seeds_needed",
    "sign_test",
    "snapshot",
    "split_layer",
    "standard_error",
    "stratified",
    "target_in_input_frame",
    "touched_share",
    "uncovered",
    "vq_terms",
    "warmup_cosine",
    "weighted_cross_entropy",
]
