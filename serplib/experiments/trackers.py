"""Trackers of Hugging Face Accelerate, told of each epoch's losses (`serp run --tracker`)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator

NAMES = ("tensorboard", "mlflow", "trackio")  # also those of their packages


def require(tracker: str) -> None:
    """Check that a tracker can be used.

    Raises:
        ValueError: another name, or its package is missing; one line with the command.
    """
    from accelerate.utils import LoggerType

    if tracker not in NAMES:
        raise ValueError(f"tracker is {tracker!r}, wanted one of {', '.join(NAMES)}")
    if find_spec(tracker) is None or tracker not in LoggerType.list():
        raise ValueError(f"{tracker} is not installed: pip install -U {tracker} accelerate")


def start(accelerator: Accelerator, tracker: str, folder: Path, run: dict[str, Any]) -> None:
    """Start the tracker that an accelerator was made with (``log_with``).

    TensorBoard's files are in ``tensorboard`` in the folder of the run. For the others the run has
    the name of this folder and belongs to the experiment ``<suite>-<profile>``.

    Args:
        accelerator: logs the epochs.
        tracker: one of `NAMES`.
        folder: of the run.
        run: its name in the suite, as in the record.
    """
    project = f"{run['suite']}-{run['profile']}" if "suite" in run else run["name"]
    names = {"mlflow": {"run_name": folder.name}, "trackio": {"name": folder.name}}
    name = project if tracker in names else tracker
    accelerator.init_trackers(name, init_kwargs={tracker: names.get(tracker, {})})
