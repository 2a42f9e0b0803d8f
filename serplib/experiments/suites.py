"""Suites of experiments: which notebooks run, with what, after what (paper, section 4).

A suite is a YAML file beside the experiment notebooks::

    title: what it shows
    seeds: [0, 1, 2]
    retries: 3                # optional: how many lost workers a run may have; Dask's default is 3
    profiles:                 # parameters of every run of a notebook, by profile
      quick: {pretrain: {preset: quick}, finetune: {preset: quick}}
    runs:
      pretrain-delta: {notebook: pretrain, model: pointnet}
      few-delta: {notebook: finetune, model: pointnet, parent: pretrain-delta, processes: 2, ...}
      sweep: {notebook: pretrain, grid: {corruption.perturbation.sigma: [0.03, 0.1]}, ...}

`plan` turns it into `Run`s, one for each name and seed; `experiments.runner` executes them. A run
is finished when its folder holds a record with the run's own hash: that of its notebook's name, its
parameters, all settings of its preset, and its parent's hash. The number of ``processes`` that
train it and its ``tracker`` do not count.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Set
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from serplib import presets
from serplib.data import NAMES, DataError, exists, own
from serplib.experiments import pipelines, records
from serplib.experiments.smoke import shrink
from serplib.validation import check_field


class SuiteError(ValueError):
    """A wrong suite or request; the message is one line and says what is accepted."""


def _distinct(values: list) -> list:
    if len({json.dumps(value) for value in values}) < len(values):
        raise ValueError(f"{values} names a value twice")
    return values


_Values = Annotated[list[Any], Field(min_length=1), AfterValidator(_distinct)]


class _Parameters(BaseModel):
    """Parameters of a notebook."""

    model_config = ConfigDict(extra="allow", strict=True)

    processes: Annotated[int, Field(ge=1)] = 1


class _Entry(_Parameters):
    """A run in YAML; further fields are parameters of its notebook."""

    notebook: str
    parent: str | None = None
    label: str | None = None
    scratch: str | None = None
    published: str | None = None
    group: str | None = None
    versus: list[str] | None = None
    margin: Annotated[float, Field(gt=0)] | None = None
    changes: dict[str, Any] = {}
    grid: Annotated[dict[str, _Values], Field(min_length=1)] | None = None


class _Suite(BaseModel):
    """The fields of a suite."""

    model_config = ConfigDict(extra="forbid", strict=True)

    title: str
    retries: Annotated[int, Field(ge=0)] | None = None
    seeds: Annotated[list[int], Field(min_length=1), AfterValidator(_distinct)]
    profiles: Annotated[dict[str, dict[str, _Parameters]], Field(min_length=1)]
    runs: Annotated[dict[str, _Entry], Field(min_length=1)]


# For the order of runs and for the report.
_NOT_PARAMETERS = set(_Entry.model_fields) - {"changes", "processes"}
UNLABELLED = ("pretrain", "leakage")  # notebooks that need no classes
_NOT_COMPUTED = {"processes", "tracker"}  # parameters that change neither the result nor the hash


@dataclass(frozen=True)
class Run:
    """One notebook to execute.

    Attributes:
        suite: its name.
        profile: its profile.
        name: of the run in the suite.
        seed: one of the suite's.
        notebook: file stem of the notebook.
        parameters: those that papermill injects, without ``run``, ``folder`` and ``encoder``.
        parent: the run whose encoder this one starts from, or None.
        about: label, scratch, published and group, for the report, and the runs ``versus`` which
            its equivalence within ``margin`` points is tested; of a run that a grid has made also
            ``grid``; of a smoke run also ``absent``, the data sets that built-in shapes stand in
            for.
        hash: of notebook, parameters, the preset's settings and the parent's hash.
        folder: of its outputs.
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

    def finished(self) -> bool:
        """Tell whether the folder holds a complete record of exactly this run."""
        try:
            return records.read_json(self.folder / "record.json")["run"]["hash"] == self.hash
        except (OSError, ValueError, KeyError, TypeError):
            return False


def experiments_folder() -> Path:
    """Return the folder of the experiment notebooks and the suites."""
    return records.project_root() / "notebooks" / "experiments"


def known_suites() -> list[str]:
    """List the names of all suites."""
    return sorted(path.stem for path in (experiments_folder() / "suites").glob("*.yaml"))


def load(suite: str) -> dict[str, Any]:
    """Read and check a suite.

    Raises:
        SuiteError: an unknown suite, or a file that is no suite; one line.
    """
    if suite not in known_suites():
        raise SuiteError(f"no suite {suite!r}: there are {', '.join(known_suites())}")
    path = experiments_folder() / "suites" / f"{suite}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        _Suite.model_validate(content)
        _refuse_numbers_as_text(content)
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: not UTF-8 ({error})") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise SuiteError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        message = f"{path}: {place}: {first['msg']}"
        if isinstance(first["input"], bool):
            message += "; YAML reads yes, no, on and off as true and false: put text in quotes"
        raise SuiteError(message) from None
    except ValueError as error:
        raise SuiteError(f"{path}: {error}") from None
    return content


def _refuse_numbers_as_text(value: Any) -> None:
    """Raise a ValueError for ``1e-3``, which YAML reads as text."""
    if isinstance(value, dict):
        for item in value.values():
            _refuse_numbers_as_text(item)
    elif isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        raise ValueError(f"YAML reads {value} as text: write {float(value):.1e}")


def plan(
    suite: str,
    profile: str | None = None,
    seeds: int | None = None,
    dataset: str | None = None,
    smoke: bool = False,
    processes: int | None = None,
    tracker: str | None = None,
) -> list[Run]:
    """List the runs of a suite, parents before children, seeds outermost.

    Args:
        suite: its name.
        profile: one of the suite's; None for its first.
        seeds: number of its seeds, from the first; more than it names continue the count.
        dataset: that of every run, in place of the suite's (see `_on`); the runs' profile is then
            ``<profile>-<dataset>``, so that reports stay apart.
        smoke: two training steps on a few shapes in each run (see `smoke`); the runs' profile then
            ends in ``-smoke``, and no other run has their hashes.
        processes: that train each run, in place of what the suite says.
        tracker: of each training, in place of what the suite says (see `trackers`).

    Raises:
        SuiteError: a wrong suite, profile, number or data set; one line.
    """
    content = load(suite)
    if dataset is not None:
        _require_known(dataset)
    profile = profile or next(iter(content["profiles"]))
    if profile not in content["profiles"]:
        raise SuiteError(
            f"suite {suite!r} has no profile {profile!r}: "
            f"there are {', '.join(content['profiles'])}"
        )
    for name, number in {"seeds": seeds, "processes": processes}.items():
        if number is not None and number < 1:
            raise SuiteError(f"{name} is {number}, wanted >= 1")
    given = {"processes": processes, "tracker": tracker}
    given = {key: value for key, value in given.items() if value is not None}
    named, runs = content["seeds"], list[Run]()
    further = range(max(named) + 1, max(named) + 1 + (seeds or 0))
    chosen = [*named, *further][: seeds or len(named)]
    limits = cache(own.limits)  # the folder of an own set is listed once
    try:
        entries = _expand(content["runs"])
    except ValueError as error:
        raise SuiteError(f"suite {suite!r}, {error}") from None
    for seed in chosen:
        by_name: dict[str, Run] = {}
        for name, entry in entries.items():
            by_name[name] = _run(
                suite, profile, name, entry, seed, content, by_name, dataset, limits, smoke, given
            )
        runs += by_name.values()
    return runs


def _expand(entries: dict[str, dict]) -> dict[str, dict]:
    """Replace each run that has a grid, and each run below it, by one run a value.

    Returns:
        The runs by name. Those of a grid have the values in name, label and ``changes``; their
        ``grid`` is ``{"of": label of the whole, "values": value by setting}``. The ``scratch`` of a
        run is the one with its values, where that one was expanded too.

    Raises:
        ValueError: two runs of one name, or no such ``scratch``; the message begins with the run.
    """
    made: dict[str, dict] = {}
    copies: dict[str | None, dict[str | None, dict[str, Any]]] = {}  # values by expanded name
    for name, entry in entries.items():
        parent, grid = entry.get("parent"), entry.get("grid") or {}
        choices = [dict(zip(grid, values)) for values in product(*grid.values())]  # one if no grid
        copies[name] = {}
        for above, inherited in copies.get(parent, {parent: {}}).items():
            if twice := grid.keys() & inherited:
                raise ValueError(f"run {name!r}: {', '.join(twice)} is in its parent's grid")
            for values in choices:
                swept = inherited | values
                called = {key.rpartition(".")[2]: value for key, value in swept.items()}
                full = "-".join([name, *(f"{key}-{value}" for key, value in called.items())])
                full = re.sub(r"[^\w-]+", "_", full) if swept else name
                if full in made or (swept and full in entries):
                    raise ValueError(f"run {name!r}: there are two runs {full!r}")
                copies[name][full] = swept
                made[full] = entry
                if swept:
                    of = entry.get("label") or name
                    made[full] = entry | {
                        "parent": above,
                        "label": ", ".join([of, *(f"{k} {v}" for k, v in called.items())]),
                        "changes": {**entry.get("changes", {}), **values},
                        "grid": {"of": of, "values": swept},
                    }
    for name, entry in made.items():
        if entry.get("scratch") not in (None, *entries, *made):
            raise ValueError(f"run {name!r}: its scratch {entry['scratch']!r} is not a run")
        values = entry["grid"]["values"] if "grid" in entry else {}
        bases = copies.get(entry.get("scratch"), {})
        equal = [base for base, held in bases.items() if held.items() <= values.items()]
        if bases and not equal:
            raise ValueError(f"run {name!r}: its scratch {entry['scratch']!r} has another grid")
        if equal:
            made[name] = entry | {"scratch": equal[0]}
    return made


def _run(
    suite: str, profile: str, name: str, entry: dict, seed: int, content: dict,
    by_name: dict[str, Run], dataset: str | None, limits: Callable[[str], dict[str, Any] | None],
    smoke: bool, given: dict[str, Any],
) -> Run:  # fmt: skip
    notebook = entry["notebook"]
    shared = content["profiles"][profile].get(notebook, {})
    named = {key: value for key, value in entry.items() if key not in _NOT_PARAMETERS}
    parameters = {**shared, **named, "seed": seed}
    parameters["changes"] = {**shared.get("changes", {}), **named.get("changes", {})}
    reported = ("label", "scratch", "published", "group", "versus", "margin", "grid")
    about = {key: entry[key] for key in reported if key in entry}
    parent = by_name.get(entry.get("parent", ""))
    try:
        if notebook not in pipelines.EXPERIMENTS:
            raise ValueError(
                f"no notebook {notebook!r}: there are {', '.join(pipelines.EXPERIMENTS)}"
            )
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError("wanted a name of letters, digits, '-' and '_'")
        if entry.get("parent") is not None and parent is None:
            raise ValueError(f"its parent {entry['parent']!r} is not a run above it")
        if unknown := set(entry.get("versus", ())) - content["runs"].keys():
            raise ValueError(f"versus names {', '.join(sorted(unknown))}: not in the suite")
        if "versus" in entry and "margin" not in entry:
            raise ValueError("versus needs a margin, in points of accuracy")
        accepted = pipelines.defaults(notebook).keys()
        parameters |= {key: given[key] for key in given.keys() & accepted}
        if unknown := parameters.keys() - accepted:
            takes = sorted(accepted - {"run", "folder", "encoder"})
            raise ValueError(f"unknown parameters {sorted(unknown)}; {notebook} takes {takes}")
        for key, value in parameters.items():
            check_field(pipelines.EXPERIMENTS[notebook], key, value)
        if "preset" not in parameters:
            raise ValueError(f"no preset: give one of {sorted(presets.PRESETS)}")
        if dataset is not None:
            parameters = _on(dataset, limits(dataset), notebook, parameters, accepted)
            profile = f"{profile}-{dataset}"
        for key in ("dataset", "test_dataset"):
            _require_known(parameters.get(key) or "objects")
        own_set = limits(parameters.get("dataset", ""))
        if notebook not in UNLABELLED and not _has_classes(parameters.get("dataset"), own_set):
            raise ValueError(f"{parameters['dataset']} has no two classes, {notebook} needs them")
        if (model := parameters.get("model")) in pipelines.WITHOUT_WEIGHTS:
            if parent:
                raise ValueError(f"model {model!r} has no weights: it takes no parent")
            if parameters.get("readout") == "layers":
                raise ValueError(f"model {model!r} has no layers: readout 'layers' needs them")
        if parent and _is_pointnet(parameters) != _is_pointnet(parent.parameters):
            raise ValueError(f"its parent {parent.name!r} trains another model: give both the same")
        if smoke:
            parameters, absent = shrink(parameters, accepted, own_set)
            profile, about = f"{profile}-smoke", about | {"absent": absent}
        # The settings of the preset, not only its name, decide what is computed.
        settings = asdict(presets.build(parameters["preset"], parameters["changes"]))
        counted = {key: parameters[key] for key in parameters if key not in _NOT_COMPUTED}
        computed = [notebook, counted, settings, parent.hash if parent else None]
        computed += [own_set["identity"]] if own_set else []  # its files may change
        computed += ["smoke"] if smoke else []
        identity = json.dumps(computed, sort_keys=True)
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise SuiteError(f"suite {suite!r}, run {name!r}: {error}") from None
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    runs = records.project_root() / "runs" / f"{suite}-{profile}"
    folder = runs / f"{name}-seed{seed}-{digest[:8]}"
    return Run(suite, profile, name, seed, notebook, parameters, parent, about, digest, folder)


def _require_known(dataset: str) -> None:
    if not exists(dataset):
        raise SuiteError(
            f"no data set {dataset!r}: there are {', '.join(NAMES)} and folders of your own in "
            "SERP_DATA (see 'serp data list')"
        )


def _has_classes(dataset: str | None, limits: dict[str, Any] | None) -> bool:
    return dataset != "procedural" and (limits is None or len(limits["classes"]) > 1)


def _is_pointnet(parameters: dict[str, Any]) -> bool:
    return parameters.get("model") == "pointnet"


def _on(
    dataset: str,
    limits: dict[str, Any] | None,
    notebook: str,
    parameters: dict[str, Any],
    accepted: Set[str],
) -> dict[str, Any]:
    """Return the parameters of a run on another data set.

    An own set may hold less than a suite asks for: numbers of shapes and labels are then cut to
    what it has (``limits``), and at most a tenth of it is held out in pre-training. Without two
    classes it serves pre-training alone; other runs keep the suite's data set.
    """
    if notebook not in UNLABELLED and not _has_classes(dataset, limits):
        return parameters
    changed = {**parameters, "dataset": dataset}
    changed.pop("test_dataset", None)
    if limits is None:
        return changed
    held_out = 0
    if "valid_shapes" in accepted:
        held_out = min(parameters.get("valid_shapes", 64), max(limits["train"] // 10, 1))
        changed["valid_shapes"] = held_out
    most = {"train_shapes": limits["train"] - held_out, "test_shapes": limits["test"]}
    for key in most.keys() & accepted:  # 0 is all there are
        changed[key] = parameters.get(key, 0) if parameters.get(key, 0) <= most[key] else 0
    if parameters.get("labels_per_class"):
        changed["labels_per_class"] = min(
            parameters["labels_per_class"], limits["labels_per_class"]
        )
    if "valid_fraction" in accepted:
        if (changed.get("labels_per_class") or limits["labels_per_class"]) < 2:
            changed["valid_fraction"] = 0.0  # one shape of a class cannot be split
    if "kinds" in accepted:
        changed["kinds"] = " ".join([kind for kind in limits["classes"] if " " not in kind][:4])
    return changed


def gather_records(runs: Iterable[Run]) -> list[dict]:
    """Read the records of the finished runs, in the order of the plan."""
    return [records.read_json(r.folder / "record.json") for r in runs if r.finished()]
