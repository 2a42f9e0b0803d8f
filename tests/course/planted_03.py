"""Wrong answers to the exercises of 03, each with a piece of the hint meant for it."""

import torch

from serplib.geometry import gather, knn

NAMES = {"torch": torch, "gather": gather, "knn": knn}


def visits(index, num_points):
    ones = torch.ones(index.flatten(1).shape)
    return torch.zeros(len(index), num_points).scatter_add_(1, index.flatten(1), ones)


def truncated(index, num_points):
    return torch.stack([(patches.flatten().bincount() == 0).sum() for patches in index])


def frame(patches):
    mean = patches.mean(2, keepdim=True)
    return mean, (patches - mean).square().mean((2, 3), keepdim=True).sqrt()


def mean_of(patches):
    return frame(patches)[0]


def std_of(patches):
    return frame(patches)[1]


def whole_cloud(x, y, i):
    noisy = gather(x, i)
    mean = noisy.mean((1, 2), keepdim=True)
    return (gather(y, i) - mean) / (noisy - mean).square().mean((1, 2, 3), keepdim=True).sqrt()


def in_place(x, y, i):
    mean, std = frame(gather(x, i))
    return gather(y.sub_(y.mean(1, keepdim=True)), i) / std - mean


def first(tokens, row):
    return torch.cat([row.expand(len(tokens), -1, -1), tokens], 1)


def join(left, right):
    return torch.cat([left, right], -1)


MUTANTS = {
    "uncovered": [
        (lambda i, N: torch.full((len(i),), N - i[0].numel()), "it counts slots"),
        (lambda i, N: (visits(i, N) > 0).sum(1), "that ARE covered"),
        (lambda i, N: i[0].numel() - (visits(i, N) > 0).sum(1), "the spare slots"),
        (lambda i, N: (visits(i, N) == 0).float().mean(1), "These are shares"),
        (lambda i, N: (visits(i, N) < 2).sum(1), "in exactly one patch is covered"),
        (lambda i, N: (visits(i[:, :, :1], N) == 0).sum(1), "its centre. All n count"),
        (truncated, "up to the largest index"),
        (lambda i, N: torch.tensor(N - i.unique().numel()), "patches of all clouds"),
        (lambda i, N: (visits(i, N) == 0).sum(), "one number for the batch"),
        (lambda i, N: None, "returned None"),
    ],
    "target_in_input_frame": [
        (lambda x, y, i: (gather(y, i) - mean_of(gather(y, i))) / std_of(gather(y, i)), "its OWN"),
        (
            lambda x, y, i: (gather(x, i) - mean_of(gather(x, i))) / std_of(gather(x, i)),
            "That is the input",
        ),
        (
            lambda x, y, i: (gather(x, i) - mean_of(gather(y, i))) / std_of(gather(y, i)),
            "exchanged points and clean",
        ),
        (
            lambda x, y, i: (gather(y, i) - mean_of(gather(y, i))) / std_of(gather(x, i)),
            "the origin is not",
        ),
        (
            lambda x, y, i: (gather(y, i) - mean_of(gather(x, i))) / std_of(gather(y, i)),
            "the unit is not",
        ),
        (
            lambda x, y, i: (
                (gather(y, i) - mean_of(gather(x, i)))
                / gather(x, i).std(2, keepdim=True, correction=0)
            ),
            "one std an axis",
        ),
        (
            lambda x, y, i: (
                (gather(y, i) - mean_of(gather(x, i)))
                / (gather(x, i) - mean_of(gather(x, i))).std((2, 3), keepdim=True)
            ),
            "divides by 3n - 1",
        ),
        (
            lambda x, y, i: (
                (gather(y, i) - mean_of(gather(x, i)))
                / gather(x, i).std((2, 3), keepdim=True, correction=0)
            ),
            "not yet centred",
        ),
        (lambda x, y, i: gather(y, i) - mean_of(gather(x, i)), "did not divide"),
        (
            lambda x, y, i: (gather(y, i) - mean_of(gather(x, i))) / std_of(gather(x, i)) ** 2,
            "divided by the variance",
        ),
        (
            lambda x, y, i: (gather(y, i) - gather(x, i)[:, :, :1]) / std_of(gather(x, i)),
            "the FPS centre",
        ),
        (whole_cloud, "one frame for the whole cloud"),
        (lambda x, y, i: gather(y, i), "not normalised yet"),
        (in_place, "in place"),
    ],
    "encoder_input": [
        (lambda t, p, c, q: first(t, c) + first(p, q), "You added tokens"),
        (lambda t, p, c, q: torch.cat([first(t, c), first(p, q)], 1), "along the sequence"),
        (
            lambda t, p, c, q: torch.cat([join(t, p), join(c, q).expand(len(t), -1, -1)], 1),
            "stands last",
        ),
        (lambda t, p, c, q: join(first(p, q), first(t, c)), "Positions come first"),
        (lambda t, p, c, q: join(first(t, c), first(p, 0 * q)), "no position, only zeros"),
        (lambda t, p, c, q: join(first(t, c), first(p, c)), "where its position belongs"),
        (lambda t, p, c, q: join(first(t, q), first(p, c)), "exchanged cls and cls_position"),
        (lambda t, p, c, q: join(t, p), "[CLS] is missing"),
        (
            lambda t, p, c, q: torch.stack([first(t, c), first(p, q)], -1).flatten(2),
            "interleaved",
        ),
    ],
}
