"""Probes of a frozen encoder: classifiers on its features, and feature health (section 4.2).

Every head is scikit-learn's. Its setting is chosen on shapes held out of the training set
(`serplib.data.splits.hold_out`); the test set is loaded once, after all choices. Report each probe
beside the untrained encoder of the same architecture, a strong baseline, and beside features
without training: `handmade`, `point_nn.features` and `np_net.features`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from serplib.data.common import Clouds
from serplib.data.splits import hold_out
from serplib.evaluation.accuracy import accuracy_of, features
from serplib.pointnet import PointNetEncoder
from serplib.seeding import named_generator
from serplib.transformer import TransformerEncoder
from serplib.validation import expect

Head = Literal["svm", "knn", "memory", "linear", "mlp3"]
Svm = Literal["rest", "pairs"]  # one class against the rest, or against each other class
Readout = Literal["last", "layers"]  # `features` or `layer_features`
HEADS: dict[str, tuple[str, tuple[float, ...]]] = {  # name: its setting, the values to choose from
    "svm": ("c", (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),  # linear
    "knn": ("k", (1, 3, 5, 10, 20)),  # cosine distance
    "memory": ("gamma", (10, 30, 100, 300, 1000, 3000, 10000)),  # weights exp(-gamma (1 - cos))
    "linear": ("c", (0.01, 0.1, 1.0)),  # "MLP-linear" of the literature: one layer, cross-entropy
    "mlp3": ("decay", (1e-4, 1e-2, 1.0)),  # "MLP-3": three layers
}


def layer_features(
    encoder: PointNetEncoder | TransformerEncoder, points: Tensor, batch_size: int = 128
) -> Tensor:
    """Encode clouds ``(S, N, 3)`` by all layers of an encoder, in evaluation mode.

    Of the Transformer's embedding and of each block: [CLS], and the mean and the maximum over the
    patches. Of each shared layer of PointNet: the mean and the maximum over the points.

    Returns:
        ``(S, D)`` float32 on the CPU: D is 3 (L + 1) times the width of L blocks, or twice the sum
        of PointNet's widths.
    """
    layers: list[nn.Module]
    if isinstance(encoder, TransformerEncoder):
        layers = [encoder.embedding, *encoder.blocks]
    else:
        layers = [encoder.local, encoder.middle, encoder.last]
    found: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}  # of each batch

    def pool(layer: nn.Module, _inputs: Any, output: Any) -> None:
        x = output[0] if isinstance(output, tuple) else output  # (B, c+1, width) or (B, N, width)
        cls = [x[:, 0]] if isinstance(encoder, TransformerEncoder) else []
        x = x[:, len(cls) :]  # (B, c, width) or (B, N, width)
        found[layer].append(torch.cat([*cls, x.mean(1), x.amax(1)], -1).float().cpu())

    handles = [layer.register_forward_hook(pool) for layer in layers]
    try:
        features(encoder, points, batch_size)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat([torch.cat(batches) for batches in found.values()], -1)  # (S, D)


def handmade(points: Tensor) -> Tensor:
    """Compute features without learning: coordinate quantiles and a histogram of distances.

    Args:
        points: ``(S, N, 3)`` in the unit sphere.

    Returns:
        ``(S, 93)``: 21 quantiles of x, y and z, and the distances of point i to point i + N/2
        (random pairs, as points are unordered) as shares of 30 bins from 0 to 2.
    """
    expect(points, "S N 3")
    ranks = torch.linspace(0, points.shape[1] - 1, 21).round().long()
    quantiles = points.sort(1).values[:, ranks].flatten(1)  # (S, 63)
    half = points.shape[1] // 2
    distances = (points[:, :half] - points[:, half : 2 * half]).norm(dim=-1)  # (S, N/2)
    bins = (distances * 15).long().clamp(0, 29)
    shares = torch.zeros(len(points), 30).scatter_add_(1, bins, torch.ones_like(distances)) / half
    return torch.cat([quantiles, shares], 1)


def rankme(features: Tensor) -> float:
    """Compute the effective rank of features ``(S, D)`` (Garrido et al., 2023, Eq. 1).

    It is exp of the entropy of the normalised singular values, from 1 (all features on one line)
    to min(S, D). Features are not centred. Compare at equal S and D only.
    """
    expect(features, "S D", "features")
    values = torch.linalg.svdvals(features.double())  # (min(S, D),)
    shares = values / values.sum().clamp_min(1e-12)
    return float(torch.special.entr(shares).sum().exp())


def feature_spread(features: Tensor) -> float:
    """Average over D the standard deviation over S of features ``(S, D)``; 0 means collapse."""
    expect(features, "S D", "features")
    if len(features) < 2:
        raise ValueError(f"features are {tuple(features.shape)}, wanted (S >= 2, D)")
    return float(features.double().std(0).mean())


def linear_cka(a: Tensor, b: Tensor) -> float:
    """Compute the linear CKA of features ``(S, D)`` and ``(S, E)`` of the same shapes, 0 to 1.

    ``|A^T B|^2 / (|A^T A| |B^T B|)`` of centred features (Kornblith et al., 2019, Eq. 3).
    """
    expect(a, "S D", "the first argument")
    expect(b, "S E", "the second argument")
    if len(a) != len(b):
        raise ValueError(f"features of {len(a)} and of {len(b)} shapes, wanted the same shapes")
    a, b = (f.double() - f.double().mean(0) for f in (a, b))
    cross = (a.T @ b).square().sum()
    return float(cross / ((a.T @ a).norm() * (b.T @ b).norm()).clamp_min(1e-12))


def build_head(name: str, setting: float, seed: int = 0, svm: Svm = "rest") -> Any:
    """Build the unfitted scikit-learn classifier of a head in `HEADS` with its setting.

    Args:
        name: in `HEADS`.
        setting: one of its values.
        seed: of the initial weights of ``mlp3``.
        svm: ``"rest"``: one linear SVM a class, against the rest, squared hinge loss (liblinear).
            ``"pairs"``: one for each pair of classes, which vote, hinge loss (libsvm), as
            CrossPoint's; ten times faster on 1,000 features of all ModelNet40.
    """
    from sklearn.linear_model import LogisticRegression  # scikit-learn is slow to import
    from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, LinearSVC

    if name == "knn":
        return KNeighborsClassifier(n_neighbors=int(setting), metric="cosine")
    if name == "memory":  # the cosine distance is at most 2: all shapes are neighbours
        # Divided by the largest weight of a row, so that not all of them become 0.
        weights = np.frompyfunc(lambda row: np.exp(setting * (row.min() - row)), 1, 1)
        return RadiusNeighborsClassifier(2.1, metric="cosine", weights=weights)
    if name == "svm":
        rest = LinearSVC(C=setting, dual="auto", max_iter=3000, tol=1e-3)
        head = rest if svm == "rest" else SVC(C=setting, kernel="linear")
    elif name == "linear":
        head = LogisticRegression(C=setting, max_iter=300, tol=1e-3)
    else:
        head = MLPClassifier((256, 256), alpha=setting, max_iter=200, tol=1e-3, random_state=seed)
    return make_pipeline(StandardScaler(), head)


def probe(
    embed: Callable[[Tensor], Tensor],
    train: Clouds,
    load_test: Callable[[], Clouds],
    seed: int,
    valid_fraction: float = 0.1,
    heads: tuple[str, ...] = ("svm", "knn"),
    svm: Svm = "rest",
) -> dict[str, Any]:
    """Train classifiers on frozen features and test them.

    Args:
        embed: maps clouds ``(S, N, 3)`` to features ``(S, D)``: ``partial(features, encoder)``.
        train: labelled clouds.
        load_test: returns the labelled test clouds; called once, after all settings are chosen.
        seed: of the held-out shapes and of the heads.
        valid_fraction: share of each class on which the setting of a head is chosen (the first of
            the best); the head is then fitted to all of ``train``.
        heads: names in `HEADS`.
        svm: kind of the linear SVM, see `build_head`.

    Returns:
        For each head its chosen setting (``svm_c``, ``knn_k``, ``memory_gamma``, ...), and
        over the test shapes ``*_accuracy``, ``*_mean_class_accuracy`` (0 to 1) and ``*_correct``
        as in `accuracy.score`; ``rankme``, ``feature_variance`` (the name in records of
        `feature_spread`) and ``dim`` of the test features, and ``num_shapes``.

    Raises:
        ValueError: an unknown head, no test labels, or other classes than those of ``train``.
    """
    if unknown := [head for head in heads if head not in HEADS]:
        raise ValueError(f"heads has {unknown}, wanted some of {list(HEADS)}")
    encoded = replace(train, points=embed(train.points))  # (S, D)
    fit, valid = hold_out(encoded, valid_fraction, seed)
    chosen = {}
    for name in heads:
        options = [o for o in HEADS[name][1] if name != "knn" or o <= len(fit)]
        # With one label a class scikit-learn warns that the labels may be a regression target.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
            scores = [
                build_head(name, o, seed, svm)
                .fit(fit.points.numpy(), fit.labels)
                .score(valid.points.numpy(), valid.labels)
                for o in options
            ]
        chosen[name] = options[scores.index(max(scores))]
    fitted = {
        name: build_head(name, setting, seed, svm).fit(encoded.points.numpy(), train.labels)
        for name, setting in chosen.items()
    }
    test = load_test()
    if test.labels is None or test.classes != train.classes:
        raise ValueError(f"{test.name} has no labels, or not the classes of {train.name}")
    embedded = embed(test.points)
    result: dict[str, Any] = {f"{name}_{HEADS[name][0]}": o for name, o in chosen.items()}
    result |= {
        "rankme": rankme(embedded),
        "feature_variance": feature_spread(embedded),
        "dim": embedded.shape[1],
        "num_shapes": len(test),
    }
    for name, head in fitted.items():
        predicted = torch.from_numpy(head.predict(embedded.numpy()))
        score = accuracy_of(predicted.eq(test.labels), test.labels)
        result |= {f"{name}_{key}": score[key] for key in score if key != "num_shapes"}
    return result


def _draw_shapes(labels: Tensor, classes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw the indices of ``count`` shapes of each class: ``(len(classes) * count,)`` int64."""
    parts = [(labels == c).nonzero()[:, 0] for c in classes]
    orders = [torch.randperm(len(part), generator=generator)[:count] for part in parts]
    return torch.cat([part[order] for part, order in zip(parts, orders)])


def few_shot(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    way: int,
    shot: int,
    seed: int,
    queries: int = 20,
    folds: int = 10,
) -> dict[str, Any]:
    """Classify frozen features by a linear SVM (C = 1) in ``folds`` few-shot episodes.

    Each episode draws ``way`` of all classes. Of each class it draws ``shot`` support shapes from
    the training split and ``queries`` query shapes from the test split, as is usual on ModelNet40:
    5 or 10 way, 10 or 20 shot, 20 queries, 10 folds.

    Args:
        train: features ``(S, D)`` and labels ``(S,)`` int64 of the training split.
        test: features ``(T, D)`` and labels ``(T,)`` int64 of the test split.
        way, shot, queries, folds: as above.
        seed: of the episodes.

    Returns:
        ``accuracy`` and ``sd`` over the episodes (0 to 1), and the ``folds`` one by one.

    Raises:
        ValueError: fewer than ``way`` classes, or one with too few shapes. None is left out.
    """
    features, labels = train
    query_features, query_labels = test
    classes = torch.cat([labels, query_labels]).unique()  # (C,)
    if len(classes) < way:
        raise ValueError(f"{len(classes)} classes, wanted {way} or more: lower way")
    for name, need, own in (("training", shot, labels), ("test", queries, query_labels)):
        counts = own.bincount(minlength=int(classes.max()) + 1)[classes]  # (C,)
        if counts.min() < need:
            raise ValueError(
                f"class {int(classes[counts.argmin()])} has {int(counts.min())} {name} shapes, "
                f"wanted {need}: use the whole split, or lower shot or queries"
            )
    accuracies = []
    for fold in range(folds):
        generator = named_generator(seed, "few-shot", way, shot, fold)
        chosen = classes[torch.randperm(len(classes), generator=generator)[:way]]  # (way,)
        support = _draw_shapes(labels, chosen, shot, generator)
        query = _draw_shapes(query_labels, chosen, queries, generator)
        head = build_head("svm", 1.0).fit(features[support].numpy(), labels[support])
        accuracies.append(float(head.score(query_features[query].numpy(), query_labels[query])))
    values = torch.tensor(accuracies, dtype=torch.float64)
    return {"accuracy": values.mean().item(), "sd": values.std().item(), "folds": accuracies}
