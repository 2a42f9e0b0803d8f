"""What a run takes of data, batches and steps; what of it is checked before a suite starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

import torch

from serplib import presets
from serplib.data import BUILT_IN, BUILT_IN_SHAPES, READERS, load, open_split, own
from serplib.data.check import COUNTS
from serplib.data.prepare import choose, remedy
from serplib.evaluation.protocol import VOTES
from serplib.experiments import pipelines
from serplib.experiments.suites import Run, SuiteError

CLASSES = {"objects": 30, "modelnet40": 40, "shapenet55": 55}  # other published sets: 15
TRAINED = ("pretrain", "finetune", "leakage")  # notebooks


class Workload(NamedTuple):
    """The clouds of a run, and what it does with them.

    Attributes:
        train, valid, test: numbers of clouds.
        batch: clouds that are in memory at once, of all processes together.
        steps: of the optimiser, 0 where nothing is trained.
        passes: clouds that are only looked at.
    """

    train: int
    valid: int
    test: int
    batch: int
    steps: int
    passes: int


def parameters(run: Run) -> dict[str, Any]:
    """Return all parameters of a run, with the defaults of its pipeline."""
    return pipelines.defaults(run.notebook) | run.parameters


def schedule(run: Run) -> tuple[str, presets.Optim]:
    """Return the group of settings that a run trains with, such as ``"finetune.optim"``."""
    small = run.parameters.get("model") == "pointnet"
    group = "pretrain_pointnet" if small else "pretrain_transformer"
    group = "finetune.optim" if run.notebook in ("finetune", "probe") else group
    settings = presets.build(run.parameters["preset"], run.parameters["changes"])
    return group, attrgetter(group)(settings)


def of(run: Run) -> Workload:
    """Count the clouds and steps of a run; no cloud is read."""
    p, (_, optim) = parameters(run), schedule(run)
    limits = own.limits(p["dataset"])
    sizes = {call[1]: _size(*call) for call in _loads(p)}
    valid, test = p.get("valid_shapes", 0), sizes.get("test", 0)
    train = sizes.get("train", 0) - valid
    if p.get("labels_per_class"):
        classes = len(limits["classes"]) if limits else CLASSES.get(p["dataset"], 15)
        train = min(train, p["labels_per_class"] * classes)
    if run.notebook == "finetune":
        valid = round(p["valid_fraction"] * train)
        train -= valid
    passes = test * (1 + 15 * p.get("robustness", 0))
    if p.get("protocols"):
        passes += test * (optim.epochs + VOTES + 2)
    if run.notebook not in TRAINED:
        return Workload(train, valid, test, 128, 0, passes + train)  # of `probes.features`
    batch = max(min(optim.batch_size, train), 1)
    steps, passes = optim.epochs * max(train // batch, 1), passes + optim.epochs * valid
    times = 4 if run.notebook == "leakage" else 1  # at most: three train a decoder alone
    return Workload(train, valid, test, batch, times * steps, times * passes)


def _loads(p: dict[str, Any]) -> list[tuple[str, str, int | None, int]]:
    """Return the arguments with which a pipeline calls `data.load`."""
    test, seed = p.get("test_dataset") or p["dataset"], p["data_seed"]
    train_shapes = p.get("train_shapes") and p["train_shapes"] + p.get("valid_shapes", 0)
    found = {"train": (p["dataset"], "train", train_shapes or None, seed),
             "test": (test, "test", p.get("test_shapes") or None, seed)}  # fmt: skip
    return [call for split, call in found.items() if f"{split}_shapes" in p]


def _size(dataset: str, split: str, asked: int | None, seed: int) -> int:
    if asked or dataset in BUILT_IN:
        return asked or BUILT_IN_SHAPES
    limits = own.limits(dataset)
    return limits[split] if limits else COUNTS[dataset][split][0]


def require_equal_shares(runs: Iterable[Run]) -> None:
    """Check that the processes of each training can share its batches.

    Raises:
        SuiteError: a batch is no multiple of the processes; one line with the setting.
    """
    for run in runs:
        if (processes := run.parameters.get("processes", 1)) > 1:
            if (batch := of(run).batch) % processes:
                raise SuiteError(
                    f"run {run.name!r}: {processes} processes cannot share a batch of {batch} "
                    f"evenly: change --processes or {schedule(run)[0]}.batch_size"
                )


def require_data(runs: Iterable[Run]) -> None:
    """Check that published sets are there, and prepare the clouds that runs take of own sets.

    Bad shapes are named once, and runs side by side find their clouds in the cache.

    Raises:
        DataError: a set is unknown or missing, or an own one has bad shapes or too few.
        SuiteError: a class has fewer shapes than ``labels_per_class``, or one that cannot be
            split, or no test shape is of one of the ``kinds`` of a figure; one line.
    """
    runs = list(runs)
    calls = dict.fromkeys(call for run in runs for call in _loads(parameters(run)))
    for name, split, count, seed in calls:
        if name in READERS and own.find(name) is None:
            with remedy(name):
                READERS[name].locate()
        elif name not in BUILT_IN:
            load(name, split, count, seed=seed)
    known = cache(_class_sizes)
    for run in runs:
        p = parameters(run)
        labels, held_out = p.get("labels_per_class", 0), p.get("valid_fraction", 0)
        needed = {"train": labels or held_out, "test": "kinds" in p}
        sizes = {call[1]: known(*call) for call in _loads(p) if needed[call[1]]}
        fewest = min(sizes.get("train", {}).values(), default=0)
        if labels > fewest:
            raise SuiteError(
                f"run {run.name!r}: labels_per_class is {labels}, but a class of {p['dataset']} "
                f"has {fewest} training shapes here: ask for fewer labels, or change train_shapes"
            )
        if held_out and (labels or fewest) < 2:
            raise SuiteError(
                f"run {run.name!r}: valid_fraction is {held_out}, but a class of {p['dataset']} "
                "has one labelled shape here: set it to 0, or ask for more shapes or labels"
            )
        if "kinds" in p and not set(p["kinds"].split()) & sizes["test"].keys():
            raise SuiteError(
                f"run {run.name!r}: no test shape of {p['dataset']} is one of kinds "
                f"{p['kinds']!r}: it has {', '.join(sorted(sizes['test'])) or 'no classes'}"
            )


def _class_sizes(name: str, split: str, count: int | None, seed: int) -> dict[str, int]:
    """Count the shapes of each class that is there."""
    from serplib.data.synthetic.shapes import CATEGORIES

    if name == "objects":  # each category once in a run of all: no shape is made
        each, rest = divmod(count or BUILT_IN_SHAPES, len(CATEGORIES))
        if each:
            return dict.fromkeys(CATEGORIES, each)
        few = load(name, split, rest, seed=seed).labels
        assert few is not None
        return Counter(CATEGORIES[i] for i in few.tolist())
    with remedy(name):  # from the lists: no cloud is read
        source = open_split(name, split)
        labels = source.labels[choose(source.labels, count, seed)]
    return Counter(source.classes[i] for i in labels.tolist()) if source.classes else {}


def require_precision(runs: Iterable[Run]) -> None:
    """Check that this machine can train at the precision of each run.

    Raises:
        SuiteError: ``fp16`` without a GPU; one line.
    """
    for run in runs:
        if run.parameters.get("mixed_precision") == "fp16" and not torch.cuda.is_available():
            raise SuiteError(
                f"run {run.name!r}: mixed_precision is 'fp16', which needs a GPU: "
                "use 'bf16' or 'no' on a CPU"
            )
