"""Records: one JSON file a run with its parameters, data, results and environment.

Reports and the recorded numbers in the notebooks are read from records.
"""

from __future__ import annotations

import ast
import datetime
import functools
import hashlib
import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from serplib.data.common import Clouds, absolute_path, digest

RECORD_VERSION = 1
_PACKAGES = ("torch", "numpy", "accelerate", "safetensors", "scikit-learn", "numba", "papermill")


def project_root() -> Path:
    """Return the folder with notebooks/ and runs/: ``$SERP_ROOT``, or the one of serplib."""
    return absolute_path(os.environ.get("SERP_ROOT") or Path(__file__).parents[2])


def results_folder() -> Path:
    """Return the folder of the committed records."""
    return project_root() / "notebooks" / "experiments" / "results"


def write_json(path: Path, content: object) -> None:
    """Write JSON, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ValueError: a damaged file; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not whole JSON ({error}); delete it and run again") from error


@functools.cache
def environment() -> dict:
    """Describe versions, device, threads and git revision of this process."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": {name: version_of(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name() if cuda else f"CPU ({_processor()})",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "git": _git(),
        "code": code_digest(),
    }


def version_of(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or "unknown"


def _run_git(*words: str) -> tuple[int, str]:
    """Return exit status (-1 where it cannot be run) and output of git in the project."""
    options: dict = {"cwd": project_root(), "capture_output": True, "text": True, "timeout": 20}
    try:
        done = subprocess.run(["git", *words], **options)
    except (OSError, subprocess.TimeoutExpired):
        return -1, ""
    return done.returncode, done.stdout.strip()


def _git() -> dict:
    found, revision = _run_git("rev-parse", "HEAD")
    known, changes = _run_git("status", "--porcelain", "--untracked-files=no")
    return {"revision": None if found else revision, "clean": None if known else not changes}


# The code that decides the numbers of a record, in the folder of serplib.
_DECIDING = ("*.py", "data/**/*.py", "evaluation/*.py", "experiments/pipelines.py",
             "experiments/loop.py")  # fmt: skip


@functools.cache
def code_digest() -> str:
    """Return the start of the sha256 of the code that decides results.

    Docstrings, blank lines and lines of comments do not count.
    """
    home, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted({path for pattern in _DECIDING for path in home.glob(pattern)}):
        text = path.read_text(encoding="utf-8")
        skipped: set[int] = set()
        for node in ast.walk(ast.parse(text)):
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
                skipped |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        for number, line in enumerate(text.splitlines(), start=1):
            if number not in skipped and line.strip() and not line.lstrip().startswith("#"):
                digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]


def code_changed(environment: dict) -> bool | None:
    """Tell whether learning has changed since a record; None if unknown.

    Two versions of the code count as equal if ``code.json`` beside the records gives both the same
    losses of the first training steps (``tests/core/golden_losses.py --vouch`` adds the current
    version).

    Args:
        environment: of the record. Its ``code`` is compared; older records have a git revision.
    """
    if "code" not in environment:
        return _changed_since(environment["git"]["revision"], environment["git"].get("clean"))
    if environment["code"] == code_digest():
        return False
    path = results_folder() / "code.json"
    losses = read_json(path) if path.exists() else {}
    return losses.get(environment["code"], "unknown") != losses.get(code_digest())


@functools.cache
def _changed_since(revision: str | None, clean: bool | None) -> bool | None:
    paths = [f":(glob)serplib/{pattern}" for pattern in _DECIDING]
    status, _ = _run_git("diff", "--quiet", revision, "--", *paths) if revision else (-1, "")
    return {0: False if clean else None, 1: True}.get(status)


def make(
    parameters: dict,
    data: dict[str, Clouds],
    metrics: dict,
    history: list[dict],
    seconds: float,
    **more: object,
) -> dict:
    """Make a record.

    Args:
        parameters: of the experiment.
        data: data sets by role, such as ``"train"``.
        metrics: results at the end.
        history: results by epoch.
        seconds: wall time.
        more: further entries.
    """
    described = {
        role: {
            "name": clouds.name,
            "split": clouds.split,
            "num_shapes": len(clouds),
            "num_points": clouds.points.shape[1],
            "num_classes": len(clouds.classes),
            "checksum": clouds.checksum,
            **({} if clouds.labels is None else {"labels": digest(clouds.labels)}),  # their order
        }
        for role, clouds in data.items()
    }
    return {
        "version": RECORD_VERSION,
        "parameters": parameters,
        "data": described,
        "metrics": metrics,
        "history": history,
        "seconds": round(seconds, 1),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        **more,
    }


def unpack_bits(text: str) -> list[bool]:
    """Decode ``correct`` of a record: right or wrong for each test shape (`accuracy.score`)."""
    return [bit == "1" for bit in f"{int(text, 16):b}"[1:]]


def read_suite(name: str) -> dict:
    """Read the committed records ``results/<name>.json``: ``{"suite", "profile", "records"}``."""
    path = results_folder() / f"{name}.json"
    if not path.exists():
        suites = results_folder().parent / "suites"
        known = sorted(p.stem for p in results_folder().glob("*-*.json")
                       if (suites / f"{p.stem.rpartition('-')[0]}.yaml").exists())  # fmt: skip
        raise FileNotFoundError(
            f"no committed records of {name}: there are {', '.join(known) or 'none'}; "
            "'serp report SUITE --keep' writes those of your finished runs"
        )
    return read_json(path)
