"""What a frozen encoder knows: probes without training it further, and its health (section 4.2).

Every head is scikit-learn's, its setting chosen on shapes held out of the training set
(`serplib.data.splits.hold_out`); the test set comes from a callable that is called once, when all
choices have been made. Every probe stands beside the untrained encoder of the same shape, which is
strong, and beside features made by hand.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from serplib.classifier import accuracy_of
from serplib.data.common import Clouds
from serplib.data.splits import hold_out
from serplib.seeding import named_generator
from serplib.validation import expect

SVM_C = (0.001, 0.01, 0.1, 1.0)
KNN_K = (1, 3, 5, 10, 20)
LINEAR_C = (0.01, 0.1, 1.0)
MLP3_DECAY = (1e-4, 1e-2, 1.0)


@torch.no_grad()
def features(encoder: nn.Module, points: Tensor, batch_size: int = 128) -> Tensor:
    """What an encoder in evaluation mode makes of clouds ``(S, N, 3)``: ``(S, D)`` on the CPU."""
    expect(points, "S N 3")
    encoder.eval()
    device = next(encoder.parameters()).device
    parts = [encoder(part.to(device)).float().cpu() for part in points.split(batch_size)]
    return torch.cat(parts)


def handmade(points: Tensor) -> Tensor:
    """Features that nobody had to learn: quantiles of each coordinate, histogram of distances.

    Args:
        points: ``(S, N, 3)`` on the unit sphere.

    Returns:
        ``(S, 93)``: 21 quantiles of x, y and z, and the shares of the distances of point i to point
        i + N/2 (points are in no order: pairs at random) in 30 bins from 0 to 2.
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
    """Effective rank of features ``(S, D)``: exp of the entropy of the normalised singular values.

    1 when all features lie on one line, at most min(S, D) (Garrido et al., 2023, Eq. 1: features
    as they are, not centred). Compare at equal S and D.
    """
    expect(features, "S D", "features")
    values = torch.linalg.svdvals(features.double())  # (min(S, D),)
    shares = values / values.sum().clamp_min(1e-12)
    return float(torch.special.entr(shares).sum().exp())


def feature_variance(features: Tensor) -> float:
    """Standard deviation over the shapes, mean over dimensions, of ``(S, D)``; 0 is collapse."""
    expect(features, "S D", "features")
    if len(features) < 2:
        raise ValueError(f"features are {tuple(features.shape)}, wanted (S >= 2, D)")
    return float(features.double().std(0).mean())


def linear_cka(a: Tensor, b: Tensor) -> float:
    """Linear CKA of two encoders' features ``(S, D)``, ``(S, E)`` of the same shapes, 0 to 1.

    ``|A^T B|^2 / (|A^T A| |B^T B|)`` of centred features (Kornblith et al., 2019, Eq. 3).
    """
    expect(a, "S D", "the first argument")
    expect(b, "S E", "the second argument")
    if len(a) != len(b):
        raise ValueError(f"features of {len(a)} and of {len(b)} shapes, wanted the same shapes")
    a, b = (f.double() - f.double().mean(0) for f in (a, b))
    cross = (a.T @ b).square().sum()
    return float(cross / ((a.T @ a).norm() * (b.T @ b).norm()).clamp_min(1e-12))


def _svm(c: float, seed: int = 0):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    return make_pipeline(StandardScaler(), LinearSVC(C=c, dual="auto", max_iter=3000, tol=1e-3))


def _knn(k: int, seed: int = 0):
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=k, metric="cosine")


def _linear(c: float, seed: int = 0):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300, tol=1e-3))


def _mlp3(decay: float, seed: int = 0):
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = MLPClassifier((256, 256), alpha=decay, max_iter=200, tol=1e-3, random_state=seed)
    return make_pipeline(StandardScaler(), head)


# Name of a head: how it is made, the name of its one setting, and what that is chosen from.
HEADS = {
    "svm": (_svm, "c", SVM_C),
    "knn": (_knn, "k", KNN_K),
    "linear": (_linear, "c", LINEAR_C),  # "MLP-linear" of the literature: one layer, cross-entropy
    "mlp3": (_mlp3, "decay", MLP3_DECAY),  # "MLP-3": three layers
}


def probe(
    embed: Callable[[Tensor], Tensor],
    train: Clouds,
    load_test: Callable[[], Clouds],
    seed: int,
    valid_fraction: float = 0.1,
    heads: tuple[str, ...] = ("svm", "knn"),
) -> dict:
    """Classifiers on frozen features: linear SVM, nearest neighbours, and others of `HEADS`.

    Args:
        embed: clouds ``(S, N, 3)`` to features ``(S, D)``, such as ``partial(features, encoder)``.
        train: labelled clouds; ``valid_fraction`` of each class picks the setting of each head
            (the first of the best), then all of them are learnt.
        load_test: called once, after all have been chosen.
        heads: names in `HEADS`.

    Returns:
        For each head: the choice (``svm_c``, ``knn_k``, ``linear_c``, ``mlp3_decay``),
        ``*_accuracy`` and ``*_mean_class_accuracy`` (0 to 1) over the test shapes, ``*_correct`` as
        in `classifier.score`; and of the test features ``rankme``, ``feature_variance``, their
        ``dim``.

    Raises:
        ValueError: an unknown head.
    """
    if unknown := [head for head in heads if head not in HEADS]:
        raise ValueError(f"heads has {unknown}, wanted some of {list(HEADS)}")
    fit, valid = hold_out(train, valid_fraction, seed)
    parts = {name: embed(c.points).numpy() for name, c in (("fit", fit), ("valid", valid))}
    chosen = {}
    for name in heads:
        make, _, options = HEADS[name]
        options = [o for o in options if name != "knn" or o <= len(fit)]
        scores = [
            make(o, seed).fit(parts["fit"], fit.labels).score(parts["valid"], valid.labels)
            for o in options
        ]
        chosen[name] = options[scores.index(max(scores))]
    whole = embed(train.points).numpy()
    models = {name: HEADS[name][0](o, seed).fit(whole, train.labels) for name, o in chosen.items()}
    test = load_test()
    embedded = embed(test.points)
    result = {f"{name}_{HEADS[name][1]}": choice for name, choice in chosen.items()}
    result |= {
        "rankme": rankme(embedded),
        "feature_variance": feature_variance(embedded),
        "dim": embedded.shape[1],
        "num_shapes": len(test),
    }
    for name, model in models.items():
        said = torch.from_numpy(model.predict(embedded.numpy()))
        scored = accuracy_of(said == test.labels, test.labels)
        result |= {f"{name}_{key}": scored[key] for key in scored if key != "num_shapes"}
    return result


def few_shot(
    features: Tensor,
    labels: Tensor,
    way: int,
    shot: int,
    seed: int,
    queries: int = 20,
    folds: int = 10,
) -> dict:
    """Few-shot classification of frozen features by a linear SVM (C = 1), ``folds`` episodes.

    Each episode draws ``way`` classes, ``shot`` shapes of each to learn and ``queries`` others of
    each to be asked: the usual protocol on ModelNet40 (5 or 10 way, 10 or 20 shot, 20 queries).

    Args:
        features: ``(S, D)``. labels: ``(S,)``. Classes with too few shapes are left out.

    Returns:
        ``accuracy`` and ``sd`` over the episodes (0 to 1), and the ``folds`` one by one.
    """
    rich = [c for c in labels.unique().tolist() if (labels == c).sum() >= shot + queries]
    if len(rich) < way:
        raise ValueError(
            f"{len(rich)} classes have {shot} + {queries} shapes or more, wanted {way}: lower way, "
            "shot or queries"
        )
    found = []
    for fold in range(folds):
        generator = named_generator(seed, "few-shot", way, shot, fold)
        learn, ask = [], []
        for place in torch.randperm(len(rich), generator=generator)[:way].tolist():
            own = (labels == rich[place]).nonzero()[:, 0]
            own = own[torch.randperm(len(own), generator=generator)]
            learn.append(own[:shot])
            ask.append(own[shot : shot + queries])
        learn, ask = torch.cat(learn), torch.cat(ask)
        model = _svm(1.0).fit(features[learn].numpy(), labels[learn])
        found.append(float(model.score(features[ask].numpy(), labels[ask])))
    values = torch.tensor(found, dtype=torch.float64)
    return {"accuracy": values.mean().item(), "sd": values.std().item(), "folds": found}
