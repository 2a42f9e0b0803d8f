"""Checkers of the exercises: each says what is wrong with an answer, and why.

A notebook calls ``exercises.<exercise>(your_function)``. The result is printed and nothing is
raised, so that an open exercise never stops a notebook. One module a notebook.
"""
# ruff: noqa: F401

from serplib.course.exercises.beyond import given_away, kl_to_uniform, leaked_share
from serplib.course.exercises.finetuning import accuracy, fair_gain, stratified
from serplib.course.exercises.losses import best_constant, chamfer_gradient, chamfer_l1
from serplib.course.exercises.perturbation import copy_baseline, expected_shared, perturb_rigid
from serplib.course.exercises.point_clouds import normalize_like, same_set, sample_triangle
from serplib.course.exercises.pointnet import critical_points, split_layer, weighted_cross_entropy
from serplib.course.exercises.pretraining import decay_groups, snapshot, warmup_cosine
from serplib.course.exercises.protocol import inflation, vote
from serplib.course.exercises.results import seeds_needed, sign_test, standard_error
from serplib.course.exercises.tokenization import encoder_input, target_in_input_frame, uncovered
from serplib.course.exercises.transformer import block_parameters, pair_head, post_norm_block
from serplib.course.exercises.vasp import ema_codes, perplexity, vq_terms
from serplib.course.exercises.welcome import touched_share
