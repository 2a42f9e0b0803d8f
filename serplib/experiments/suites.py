"""Suites of experiments: which notebooks run, with what, after what (paper, section 4).

A suite is a YAML file beside the experiment notebooks::

    title: what it shows
    seeds: [0, 1, 2]
    profiles:                 # parameters of every run of a notebook, by profile
      quick: {pretrain: {preset: quick}, finetune: {preset: quick}}
    runs:
      pretrain-delta: {notebook: pretrain, model: pointnet}
      few-delta: {notebook: finetune, model: pointnet, parent: pretrain-delta, ...}

`plan` turns it into `Run`s, one for each name and seed; `experiments.runner` has papermill run
them. A run is finished when its folder holds a record with the run's own hash: that of its
notebook's name, its parameters, all settings of its preset, and its parent's hash.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from serplib import presets
from serplib.experiments import records


class SuiteError(Exception):
    """A suite asks for something that is not there; the message says what is."""


# What the fields beside the parameters of a run in YAML mean: for the order and for the report.
_NOT_PARAMETERS = {"notebook", "parent", "label", "scratch", "published", "group"}


@dataclass(frozen=True)
class Run:
    """One notebook to execute.

    Attributes:
        name: as in the suite. seed: one of the suite's. notebook: file stem of the notebook.
        parameters: what papermill injects, but for ``run``, ``folder`` and ``encoder``.
        parent: the run whose encoder this one starts from, or None.
        about: label, scratch, published and group, for the report.
        hash: of notebook, parameters, the preset's settings and the parent's hash.
        folder: where its outputs go.
    """

    suite: str
    profile: str
    name: str
    seed: int
    notebook: str
    parameters: dict
    parent: Run | None
    about: dict
    hash: str
    folder: Path

    @property
    def encoder(self) -> str:
        """Path of the weights to start from, empty for none."""
        return str(self.parent.folder / "encoder.safetensors") if self.parent else ""

    def finished(self) -> bool:
        """Whether a whole record of exactly this run is there."""
        try:
            return records.read_json(self.folder / "record.json")["run"]["hash"] == self.hash
        except (OSError, ValueError, KeyError, TypeError):
            return False


def experiments_folder() -> Path:
    """Where the experiment notebooks and the suites lie."""
    return records.project_root() / "notebooks" / "experiments"


def known_suites() -> list[str]:
    """Names of the suites there are."""
    return sorted(path.stem for path in (experiments_folder() / "suites").glob("*.yaml"))


def load(suite: str) -> dict:
    """A suite's YAML.

    Raises:
        SuiteError: an unknown suite, or one without title, seeds, profiles and runs.
    """
    if suite not in known_suites():
        raise SuiteError(f"no suite {suite!r}: there are {', '.join(known_suites())}")
    path = experiments_folder() / "suites" / f"{suite}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SuiteError(f"{path}: not YAML ({error})") from error
    wanted = ("title", "seeds", "profiles", "runs")
    missing = [key for key in wanted if not isinstance(content, dict) or key not in content]
    if missing:
        raise SuiteError(f"{path}: lacks {', '.join(missing)}")
    return content


def plan(suite: str, profile: str | None = None, seeds: int | None = None) -> list[Run]:
    """The runs of a suite, parents before children, seeds outermost.

    Args:
        profile: one of the suite's; None for its first.
        seeds: how many of its seeds, from the front (more than it names go on counting).
    """
    content = load(suite)
    profile = profile or next(iter(content["profiles"]))
    if profile not in content["profiles"]:
        raise SuiteError(
            f"suite {suite!r} has no profile {profile!r}: "
            f"there are {', '.join(content['profiles'])}"
        )
    chosen = list(content["seeds"])
    if seeds is not None:
        if seeds < 1:
            raise SuiteError(f"seeds is {seeds}, wanted >= 1")
        while len(chosen) < seeds:
            chosen.append(max(chosen) + 1)
        chosen = chosen[:seeds]
    runs = []
    for seed in chosen:
        by_name: dict[str, Run] = {}
        for name, entry in content["runs"].items():
            by_name[name] = _run(suite, profile, name, entry, seed, content, by_name)
        runs += by_name.values()
    return runs


def _run(suite, profile, name, entry, seed, content, by_name) -> Run:
    where = f"suite {suite!r}, run {name!r}"
    notebook = entry.get("notebook")
    path = experiments_folder() / f"{notebook}.ipynb"
    home = experiments_folder()
    if not path.is_file() or path.resolve().parent != home.resolve():
        raise SuiteError(f"{where}: no notebook {notebook!r} in {home}")
    if not re.fullmatch(r"[\w-]+", name):
        raise SuiteError(f"{where}: wanted a name of letters, digits, '-' and '_'")
    parent = entry.get("parent")
    if parent is not None and parent not in by_name:
        raise SuiteError(f"{where}: its parent {parent!r} is not a run above it")
    shared = (content["profiles"][profile] or {}).get(notebook) or {}
    own = {key: value for key, value in entry.items() if key not in _NOT_PARAMETERS}
    parameters = {**shared, **own, "seed": seed}
    parameters["changes"] = {**shared.get("changes", {}), **own.get("changes", {})}
    unknown = set(parameters) - _accepted(path)
    if unknown:
        raise SuiteError(
            f"{where}: unknown parameters {sorted(unknown)}; {path.name} takes "
            f"{sorted(_accepted(path) - {'run', 'folder', 'encoder'})}"
        )
    about = {key: entry[key] for key in ("label", "scratch", "published", "group") if key in entry}
    up = by_name.get(parent)
    try:  # what the preset says today is part of what is computed, not its name alone
        settings = asdict(presets.build(parameters["preset"], parameters["changes"]))
    except (KeyError, ValueError) as error:
        raise SuiteError(f"{where}: {error}") from None
    identity = [notebook, parameters, settings, up.hash if up else None]
    identity = json.dumps(identity, sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = (
        records.project_root() / "runs" / f"{suite}-{profile}" / f"{name}-seed{seed}-{digest[:8]}"
    )
    return Run(suite, profile, name, seed, notebook, parameters, up, about, digest, folder)


def _accepted(path: Path) -> set[str]:
    """The names that a notebook's cell tagged ``parameters`` assigns."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            body = ast.parse("".join(cell["source"])).body
            plain = {t.id for node in body if isinstance(node, ast.Assign) for t in node.targets}
            return plain | {node.target.id for node in body if isinstance(node, ast.AnnAssign)}
    raise SuiteError(f"{path}: has no cell tagged 'parameters'")


def gather_records(runs: Iterable[Run]) -> list[dict]:
    """The records of the finished runs, in the order of the plan."""
    return [records.read_json(r.folder / "record.json") for r in runs if r.finished()]
