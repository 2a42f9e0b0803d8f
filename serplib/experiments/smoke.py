"""The runs of ``serp run --smoke``: two training steps on a few shapes, end to end.

They show that every notebook of a plan starts, trains, writes its record and serves its children,
at the real size of the models. They show neither accuracy nor the memory of a whole batch.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from serplib.data import BUILT_IN, READERS, DataError

SHAPES = 64  # at least two of each category of the built-in objects
_PRETRAINING = {"train_shapes": 8, "valid_shapes": 4}
_OPTIM = {"epochs": 2, "batch_size": SHAPES, "warmup_epochs": 1.0}  # an epoch is one step
_CHANGES = {
    f"{group}.{field}": value
    for group in ("pretrain_pointnet", "pretrain_transformer", "finetune.optim")
    for field, value in _OPTIM.items()
}


def shrink(
    parameters: dict[str, Any], accepted: Set[str], limits: dict[str, Any] | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the parameters of a run with two training steps, and the data sets it misses.

    Args:
        parameters: of the run.
        accepted: the parameters of its notebook.
        limits: of its data set where that is an own one (see `data.own.limits`).

    Returns:
        The parameters, with the built-in objects in place of each published set that is not on
        this machine, and the names of those sets.
    """
    sets = {key: parameters[key] for key in ("dataset", "test_dataset") if parameters.get(key)}
    absent = {key: name for key, name in sets.items() if not _is_here(name)}
    small = parameters | dict.fromkeys(absent, "objects")
    changes = parameters["changes"] | _CHANGES
    most = {"test_shapes": SHAPES} | (_PRETRAINING if "valid_shapes" in accepted else {})
    if (processes := parameters.get("processes", 1)) > 1:  # equal shares, two shapes for BatchNorm
        batch = max(16 // processes, 2) * processes
        changes |= {key: batch for key in _CHANGES if key.endswith(".batch_size")}
        most |= {"train_shapes": batch} if "valid_shapes" in accepted else {}
    small["changes"] = {  # a schedule must not outlast the training
        key: min(value, _OPTIM["epochs"]) if key.endswith("_steps") else value
        for key, value in changes.items()
    }
    for key in most.keys() & accepted:  # 0 is all there are
        small[key] = min(parameters.get(key) or most[key], most[key])
    if parameters.get("robustness"):
        small["robustness"] = 1
    if parameters.get("few_shot"):
        small["few_shot"] = False  # episodes need 20 shapes of each category
    if "labels_per_class" in accepted:  # of all shapes: a subset may have one of a rare category
        small["train_shapes"] = SHAPES if small.get("dataset", "objects") in BUILT_IN else 0
        per_class = min(2, limits["labels_per_class"]) if limits else 2
        small["labels_per_class"] = min(parameters.get("labels_per_class") or 2, per_class)
    for split in ("train", "test"):  # of an own set, which may have fewer
        if (
            limits
            and small.get(f"{split}_shapes", 0) + small.get("valid_shapes", 0) > limits[split]
        ):
            small[f"{split}_shapes"] = 0
    return small, sorted(set(absent.values()))


def _is_here(name: str) -> bool:
    """Tell whether a data set is built in, an own one, or a published one on this machine."""
    try:
        return name not in READERS or bool(READERS[name].locate())
    except DataError:
        return False
