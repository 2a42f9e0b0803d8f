"""The experiments as functions from parameters to a record (paper, section 4).

Each experiment notebook is one call of the function of its name. A script with such a call can be
started by ``accelerate launch``: all processes train, the main process writes. Arguments that the
functions share:

- preset: a name in `presets.PRESETS`; changes: settings that differ from it, by dotted name.
- model: ``"pointnet"``, ``"transformer"``, ``"vasp"`` or ``"masked"``.
- dataset: as ``serp data list`` prints it; data_seed: of the built-in shapes and of subsets.
- train_shapes, test_shapes: numbers of clouds, 0 for all.
- encoder: safetensors file of a pre-trained encoder, empty for none.
- mixed_precision: ``"no"``, ``"bf16"`` or ``"fp16"``.
- processes: number of processes that share each batch, each with a GPU of its own if there are any.
  The function starts them (see `launcher`), and the main one writes.
- tracker: one of `trackers.NAMES`, empty for none.
- extend: also resume a run with fewer epochs in the folder; this is recorded, because the learning
  rates differ from those of one long run.
- seed: of weights, order, perturbation and dropout.
- folder: for checkpoint, weights and ``record.json``.
- run: name and hash of the run for the report; by default those of a run by hand.
"""

from __future__ import annotations

import inspect
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from accelerate import Accelerator
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from serplib import presets, training
from serplib.classifier import Classifier, Model, autoencoder
from serplib.data import load, modelnet40_c
from serplib.data.common import Clouds, DataError
from serplib.data.splits import few_labels, hold_out, same_classes
from serplib.evaluation import leakage as leakage_module
from serplib.evaluation import np_net, point_nn, probes, protocol, reconstruction
from serplib.evaluation.accuracy import predict
from serplib.evaluation.robustness import modelnet40_c as score_modelnet40_c
from serplib.evaluation.robustness import robustness as measure_robustness
from serplib.experiments import launcher, records, trackers
from serplib.experiments.accelerators import fresh_accelerator
from serplib.experiments.weights import load_module, save_module
from serplib.pointnet import PointNetEncoder
from serplib.pretext import Pretext
from serplib.seeding import named_generator, named_seed
from serplib.transformer import SerpTransformer, TransformerEncoder
from serplib.validation import Share

Panels = dict[str, dict[str, Tensor]]  # title -> role -> points, as `plots.show_clouds` takes them
Precision = Literal["no", "bf16", "fp16"]
# Features that need no training, by the name of the model in `probe`.
WITHOUT_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "handmade": probes.handmade, "point_nn": point_nn.features, "np_net": np_net.features,
}  # fmt: skip
_BY_HAND = {"name": "by-hand", "hash": "by-hand"}
_NOT_RECORDED = {"encoder", "processes", "tracker", "folder", "run"}


class Result(NamedTuple):
    """The record, as written to ``record.json``, and tensors for the pictures of the notebook."""

    record: dict[str, Any]
    shown: dict[str, Any]


def pretrain(
    *,
    preset: str = "quick",
    model: Model = "transformer",
    changes: dict[str, Any] | None = None,
    dataset: str = "objects",
    train_shapes: NonNegativeInt = 512,
    valid_shapes: PositiveInt = 64,
    data_seed: int = 0,
    mixed_precision: Precision = "no",
    processes: int = 1,
    tracker: str = "",
    extend: bool = False,
    seed: int = 0,
    folder: str = "runs/by-hand/pretrain",
    run: dict[str, Any] | None = None,
) -> Result:
    """Train an autoencoder on its pretext task and measure how well it restores (section 4.1).

    Args:
        valid_shapes: clouds held out from training, at least 1. For the others see the module.

    Returns:
        A record with the metric ``restoration``, and panels of four restored clouds.
    """
    given, started = dict(locals()), time.perf_counter()
    if processes != 1 and not launcher.launched():
        return Result(*launcher.call("pretrain", given, processes))
    settings = presets.build(preset, changes or {})
    train, valid = _pretraining_split(dataset, train_shapes, valid_shapes, data_seed)
    optim = settings.pretrain_pointnet if model == "pointnet" else settings.pretrain_transformer
    steps = optim.epochs * len(training.epoch_batches(len(train), optim.batch_size, seed, 0))
    torch.manual_seed(named_seed(seed, "weights"))
    network = autoencoder(settings, model, total_steps=steps)
    task = Pretext(network, settings.corruption)
    with _accelerator(mixed_precision, tracker, folder, run) as accelerator:
        history = training.pretrain(
            task, train.points, valid.points, optim, seed, Path(folder) / "checkpoint",
            accelerator, extend=extend,
        )  # fmt: skip
    restoration = reconstruction.restoration(task, valid.points, seed)
    doubled = valid.points
    # Built-in shapes can have twice the points, so that each half is a whole cloud.
    if dataset in ("objects", "procedural"):
        doubled = load(dataset, "train", num_shapes=64, num_points=2 * doubled.shape[1]).points
    restoration |= reconstruction.resample_baseline(doubled, seed)

    device = next(network.parameters()).device
    generator = named_generator(seed, "picture", device=device)
    pair = task.corrupt(valid.points[:4].to(device), generator)
    names = [f"shape {i}" for i in range(len(pair[0]))]
    shown = _restoration_panels(names, *pair, {"restored": network.eval().restore(pair[0])})
    _save(network, folder, "autoencoder")
    _save(network.encoder, folder, "encoder")
    data, metrics = {"train": train, "valid": valid}, {"restoration": restoration}
    return Result(_record(given, started, data, metrics, history, network), shown)


def _published_corruptions(
    classify: Callable[[Tensor], Tensor], test: Clouds, severities: tuple[int, ...]
) -> dict[str, float]:
    """Score the files of ModelNet40-C; warn and return nothing if they do not fit the test set."""
    try:
        modelnet40_c.locate()
    except DataError:
        return {}
    try:
        return score_modelnet40_c(classify, test, severities) if test.name == "modelnet40" else {}
    except DataError as error:
        warnings.warn(f"ModelNet40-C is not scored: {error}", stacklevel=2)
        return {}


def finetune(
    *,
    preset: str = "quick",
    model: Model = "transformer",
    changes: dict[str, Any] | None = None,
    dataset: str = "objects",
    train_shapes: NonNegativeInt = 512,
    test_dataset: str = "",
    test_shapes: NonNegativeInt = 0,
    data_seed: int = 0,
    labels_per_class: NonNegativeInt = 0,
    valid_fraction: Share = 0.1,
    robustness: Annotated[int, Field(ge=0, le=5)] = 0,
    protocols: bool = False,
    encoder: str = "",
    mixed_precision: Precision = "no",
    processes: int = 1,
    tracker: str = "",
    extend: bool = False,
    seed: int = 0,
    folder: str = "runs/by-hand/finetune",
    run: dict[str, Any] | None = None,
) -> Result:
    """Train a classifier on an encoder and test it once, at the end (section 4.2).

    The kept labels and the validation clouds depend on the seed only, so that variants with the
    same seed learn from the same clouds.

    Args:
        test_dataset: test on its clouds of the same categories; empty for ``dataset``.
        labels_per_class: labelled clouds kept of each class, 0 for all.
        valid_fraction: share of each class that picks the epoch; 0 keeps the last epoch.
        robustness: also test on corrupted clouds of severities 1 to this, and on the files of
            ModelNet40-C if they are there; 0 does not.
        protocols: also test as `protocol.ways_to_test` does. This measures the test set after each
            epoch; what is trained and chosen stays the same. For the others see the module.

    Returns:
        A record with the metrics ``test`` and, if asked for, ``robustness``, ``modelnet40_c`` and
        ``protocol``; nothing to draw.
    """
    test_dataset = test_dataset or dataset
    given, started = dict(locals()), time.perf_counter()
    if processes != 1 and not launcher.launched():
        return Result(*launcher.call("finetune", given, processes))
    settings = presets.build(preset, changes or {})
    train = load(dataset, "train", num_shapes=train_shapes or None, seed=data_seed)
    if labels_per_class:
        train = few_labels(train, labels_per_class, seed)
    valid = None
    if valid_fraction:
        train, valid = hold_out(train, valid_fraction, seed)
    body = _encoder(settings, model, seed, encoder)
    tuning = settings.finetune
    classifier = Classifier(
        body, len(train.classes), tuning.head_widths, tuning.dropout, tuning.freeze
    )

    @cache
    def load_test() -> Clouds:
        clouds = load(test_dataset, "test", num_shapes=test_shapes or None, seed=data_seed)
        return clouds if test_dataset == dataset else same_classes(clouds, train.classes)

    with _accelerator(mixed_precision, tracker, folder, run) as accelerator:
        history, result = training.finetune(
            classifier, train, valid, load_test, tuning.optim, seed, tuning.augment,
            Path(folder) / "checkpoint", accelerator,
            label_smoothing=tuning.label_smoothing, extend=extend,
            monitor=load_test() if protocols else None,
        )  # fmt: skip
        metrics, test = {"test": result}, load_test()
        if protocols:
            with accelerator.autocast():  # as `history` was measured
                metrics["protocol"] = protocol.ways_to_test(classifier, test, history, seed)
    if robustness:
        severities = tuple(range(1, robustness + 1))
        classify = partial(predict, classifier)
        metrics["robustness"] = measure_robustness(classify, test, 0, severities)
        if published := _published_corruptions(classify, test, severities):
            metrics["modelnet40_c"] = published
    _save(classifier, folder, "classifier")
    data = {"train": train, "test": test} | ({} if valid is None else {"valid": valid})
    return Result(_record(given, started, data, metrics, history, classifier), {})


def probe(
    *,
    preset: str = "quick",
    model: Literal[Model, "handmade", "point_nn", "np_net"] = "transformer",
    changes: dict[str, Any] | None = None,
    dataset: str = "objects",
    train_shapes: NonNegativeInt = 512,
    test_shapes: NonNegativeInt = 0,
    data_seed: int = 0,
    labels_per_class: NonNegativeInt = 0,
    heads: tuple[probes.Head, ...] = ("svm", "knn"),
    few_shot: bool = False,
    readout: probes.Readout = "last",
    svm: probes.Svm = "rest",
    encoder: str = "",
    seed: int = 0,
    folder: str = "runs/by-hand/probe",
    run: dict[str, Any] | None = None,
) -> Result:
    """Train classifiers on the features of a frozen encoder (section 4.2).

    Args:
        model: also ``"handmade"``, features that need no network, and ``"point_nn"`` and
            ``"np_net"``, networks without weights.
        labels_per_class: as in `finetune`, and the same clouds for the same seed.
        heads: names in `probes.HEADS`.
        few_shot: also 5 and 10 way, 10 and 20 shot episodes.
        readout: ``"last"``, the encoder's output as in `probes.features`; ``"layers"``, all layers
            as in `probes.layer_features`.
        svm: kind of the head ``"svm"``, see `probes.build_head`; not of the episodes. For the
            others see the module.

    Returns:
        A record with the metric ``probes``; the ``features`` of the test shapes ``(S, D)``, their
        ``labels`` and ``classes``, and the ``singular_values`` of 512 training shapes' features.
    """
    given, started = dict(locals()) | {"heads": list(heads)}, time.perf_counter()
    settings = presets.build(preset, changes or {})
    embed = WITHOUT_WEIGHTS.get(model)
    if embed is not None and encoder:
        raise ValueError(f"model {model!r} has no weights: encoder is {encoder!r}, wanted none")
    if embed is not None and readout == "layers":
        raise ValueError(f"model {model!r} has no layers: readout is 'layers', wanted 'last'")
    if embed is None:
        body = _encoder(settings, model, seed, encoder)
        encode = {"last": probes.features, "layers": probes.layer_features}[readout]
        embed = partial(encode, body.to("cuda" if torch.cuda.is_available() else "cpu"))
    embed = cache(embed)  # by the identity of the tensor: each split is encoded once
    train = load(dataset, "train", num_shapes=train_shapes or None, seed=data_seed)
    if labels_per_class:
        train = few_labels(train, labels_per_class, seed)
    load_test = cache(partial(load, dataset, "test", test_shapes or None, seed=data_seed))
    found = probes.probe(embed, train, load_test, seed, heads=heads, svm=svm)
    test = load_test()
    assert train.labels is not None and test.labels is not None  # else probe() has raised
    embedded = embed(test.points)  # (S, D)
    if few_shot:
        splits = (embed(train.points), train.labels), (embedded, test.labels)
        for way, shot in ((5, 10), (5, 20), (10, 10), (10, 20)):
            found[f"few_shot_{way}w{shot}s"] = probes.few_shot(*splits, way, shot, seed)
    if encoder:  # similarity to the untrained encoder of the same seed
        untrained = _encoder(settings, model, seed).to(next(body.parameters()).device)
        features = encode(untrained, test.points)
        found["cka_untrained"] = probes.linear_cka(embedded, features)
    shown = {"features": embedded, "labels": test.labels, "classes": test.classes}
    shown["singular_values"] = torch.linalg.svdvals(embed(train.points)[:512])
    return Result(_record(given, started, {"train": train, "test": test}, {"probes": found}), shown)


def figure4(
    *,
    preset: str = "quick",
    model: Model = "transformer",
    changes: dict[str, Any] | None = None,
    dataset: str = "objects",
    test_shapes: NonNegativeInt = 300,
    kinds: str = "chair airplane table lamp",
    data_seed: int = 0,
    encoder: str = "",
    seed: int = 0,
    folder: str = "runs/by-hand/figure4",
    run: dict[str, Any] | None = None,
) -> Result:
    """Restore test shapes with a trained autoencoder, as in the paper's Figure 4 (section 4.1).

    Args:
        kinds: categories; the first test shape of each is drawn.
        encoder: of a pre-training, whose autoencoder lies in the same folder; empty for an
            untrained one. For the others see the module.

    Returns:
        A record with the metric ``restoration`` on the test shapes, and the panels of the figure.
    """
    given, started = dict(locals()), time.perf_counter()
    settings = presets.build(preset, changes or {})
    torch.manual_seed(named_seed(seed, "weights"))
    network = autoencoder(settings, model)
    if encoder:
        path = Path(encoder).with_name("autoencoder.safetensors")
        load_module(network, path)
    task = Pretext(network.eval(), settings.corruption)
    test = load(dataset, "test", num_shapes=test_shapes or None, seed=data_seed)
    if test.labels is None:
        raise ValueError(f"{dataset} has no labels: kinds cannot be chosen")
    names = [test.classes[label] for label in test.labels.tolist()]
    chosen = [names.index(kind) for kind in kinds.split() if kind in names]
    if not chosen:
        raise ValueError(f"no test shape of {dataset} is one of kinds {kinds!r}")
    pair = task.corrupt(test.points[chosen], named_generator(seed, "figure 4"))
    restored = {"restored": network.restore(pair[0])}
    if isinstance(network, SerpTransformer):  # VASP, too
        clean_centers = network.restore(pair[0], pair[1], centers="clean")
        restored["restored, on clean centres"] = clean_centers
    shown = _restoration_panels([names[i] for i in chosen], *pair, restored)
    restoration = reconstruction.restoration(task, test.points, seed)
    restoration |= reconstruction.resample_baseline(test.points, seed)
    return Result(_record(given, started, {"test": test}, {"restoration": restoration}), shown)


def leakage(
    *,
    preset: str = "quick",
    model: Model = "transformer",
    changes: dict[str, Any] | None = None,
    dataset: str = "objects",
    train_shapes: NonNegativeInt = 512,
    valid_shapes: PositiveInt = 64,
    data_seed: int = 0,
    seed: int = 0,
    folder: str = "runs/by-hand/leakage",
    run: dict[str, Any] | None = None,
) -> Result:
    """Measure what patch positions alone explain of a reconstruction (sections 1 and 3.3).

    Args:
        valid_shapes: clouds held out from training, at least 1. For the others see the module.

    Returns:
        A record with the metric ``leakage``; nothing to draw.
    """
    given, started = dict(locals()), time.perf_counter()
    settings = presets.build(preset, changes or {})
    train, valid = _pretraining_split(dataset, train_shapes, valid_shapes, data_seed)
    found = leakage_module.leakage(settings, model, train.points, valid.points, seed)
    return Result(_record(given, started, {"train": train, "valid": valid}, {"leakage": found}), {})


EXPERIMENTS: dict[str, Callable[..., Result]] = {  # by the name of the notebook that calls it
    function.__name__: function for function in (pretrain, finetune, probe, figure4, leakage)
}


def defaults(notebook: str) -> dict[str, Any]:
    """Return the parameters of an experiment's notebook with their defaults."""
    takes = inspect.signature(EXPERIMENTS[notebook]).parameters
    return {name: argument.default for name, argument in takes.items()}


# ---- shared steps ------------------------------------------------------------------------------


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"  # set by accelerate launch and torchrun


def _save(module: nn.Module, folder: str, name: str) -> None:
    if _is_main_process():
        save_module(module, Path(folder) / f"{name}.safetensors")


def _record(
    given: dict[str, Any],
    started: float,
    data: dict[str, Clouds],
    metrics: dict[str, Any],
    history: list[dict[str, float]] | None = None,
    module: nn.Module | None = None,
) -> dict[str, Any]:
    """Make the record of a run and write it.

    Args:
        given: the arguments of the pipeline.
        started: time of its start.
        data, metrics, history: as in `records.make`.
        module: whose parameters are counted, if one was trained.
    """
    parameters = {key: value for key, value in given.items() if key not in _NOT_RECORDED}
    parameters["changes"] = given["changes"] or {}
    if not parameters.get("extend"):
        parameters.pop("extend", None)
    if "encoder" in given:
        parameters["pretrained"] = bool(given["encoder"])
    if launcher.count() > 1 and "processes" in given:
        parameters["processes"] = launcher.count()
    # A preset may change: the record keeps what it was.
    settings = asdict(presets.build(given["preset"], parameters["changes"]))
    settings = json.loads(json.dumps(settings))  # lists for tuples, as the file will have them
    more: dict[str, Any] = {"run": given["run"] or _BY_HAND, "settings": settings}
    if module is not None:
        more["millions_of_parameters"] = sum(p.numel() for p in module.parameters()) / 1e6
    seconds = time.perf_counter() - started
    record = records.make(parameters, data, metrics, history or [], seconds, **more)
    if _is_main_process():
        records.write_json(Path(given["folder"]) / "record.json", record)
    return record


def _pretraining_split(
    dataset: str, train_shapes: int, valid_shapes: int, data_seed: int
) -> tuple[Clouds, Clouds]:
    """Load training clouds and hold some out; the test split is not touched."""
    total = train_shapes + valid_shapes if train_shapes else None
    clouds = load(dataset, "train", num_shapes=total, seed=data_seed)
    if not 0 < valid_shapes < len(clouds):
        raise ValueError(f"valid_shapes is {valid_shapes}, wanted 1 to {len(clouds) - 1}")
    order = torch.randperm(len(clouds), generator=named_generator(data_seed, "pretraining split"))
    return clouds.subset(order[:-valid_shapes]), clouds.subset(order[-valid_shapes:])


def _encoder(
    settings: presets.Preset, model: str, seed: int, weights: str = ""
) -> PointNetEncoder | TransformerEncoder:
    """Build an encoder; load its weights from a safetensors file if one is given."""
    torch.manual_seed(named_seed(seed, "weights"))
    encoder = autoencoder(settings, model).encoder
    if weights:
        load_module(encoder, Path(weights))
    return encoder


@contextmanager
def _accelerator(
    mixed_precision: str, tracker: str, folder: str, run: dict[str, Any] | None
) -> Iterator[Accelerator]:
    """Create the accelerator of one training, on a GPU if there is one; end its tracker."""
    if tracker:
        trackers.require(tracker)
    with fresh_accelerator(
        cpu=not torch.cuda.is_available(), mixed_precision=mixed_precision,
        log_with=tracker or None, project_dir=folder,
    ) as accelerator:  # fmt: skip
        if tracker:
            trackers.start(accelerator, tracker, Path(folder), run or _BY_HAND)
        yield accelerator
        for each in accelerator.trackers:
            each.finish()


def _restoration_panels(
    names: list[str], perturbed: Tensor, clean: Tensor, touched: Tensor, restored: dict[str, Tensor]
) -> Panels:
    """Arrange a row of panels a shape: clean, corrupted, and each restoration."""
    panels: Panels = {}
    for i, name in enumerate(names):
        panels[name] = {"clean": clean[i]}
        panels[f"{name}: corrupted"] = {
            "neutral": perturbed[i][~touched[i]],
            "perturbed": perturbed[i][touched[i]],
        }
        panels |= {f"{name}: {how}": {"restored": points[i]} for how, points in restored.items()}
    return panels
