"""Answers to the exercises of 03: wrong ones with a piece of their hint, and right ones."""

import numpy as np
import torch

from serplib.geometry import gather, knn

NAMES = {"torch": torch, "gather": gather, "knn": knn}


def visits(index, num_points):
    ones = torch.ones(index.flatten(1).shape)
    return torch.zeros(len(index), num_points).scatter_add_(1, index.flatten(1), ones)


def truncated(index, num_points):
    return torch.stack([(patches.flatten().bincount() == 0).sum() for patches in index])


def one_based(index, num_points):
    seen = torch.zeros(len(index), num_points + 1)
    return (seen.scatter_(1, index.flatten(1), 1.0) == 0).sum(1)


def overwriting(index, num_points):
    index[index >= num_points] = 0
    index.sort(-1)
    index += 1
    return (visits(index - 1, num_points) == 0).sum(1)


def assigned(index, num_points):
    seen = torch.zeros(len(index), num_points)
    seen[:, index.flatten(1)] = 1.0  # every cloud gets the patches of all clouds
    return (seen == 0).sum(1)


def frame(patches, axes=(2,)):
    mean = patches.mean(axes, keepdim=True)
    return mean, (patches - mean).square().mean((*axes, 3), keepdim=True).sqrt()


def mean_of(patches):
    return frame(patches)[0]


def std_of(patches):
    return frame(patches)[1]


def in_frame(choose):
    """``choose(noisy, target) -> (mean, std)``, applied to the target."""

    def answer(points, clean, index):
        noisy, target = gather(points, index), gather(clean, index)
        mean, std = choose(noisy, target)
        return (target - mean) / std

    return answer


def in_place(x, y, i):
    mean, std = frame(gather(x, i))
    return gather(y.sub_(y.mean(1, keepdim=True)), i) / std - mean


def centered_std(x, y, i):
    noisy, target = gather(x, i), gather(y, i)
    mean = noisy.mean(2, keepdim=True)
    noisy, target = noisy - mean, target - mean
    return target / noisy.flatten(2).std(-1, correction=0)[..., None, None]


def framed_in_numpy(x, y, i):
    b = np.arange(len(i))[:, None, None]
    noisy, target = x.numpy()[b, i.numpy()], y.numpy()[b, i.numpy()]
    mean = noisy.mean(2, keepdims=True)
    return (target - mean) / np.sqrt(np.square(noisy - mean).mean((2, 3), keepdims=True))


def framed_in_place(x, y, i):
    noisy, target = gather(x, i), gather(y, i)
    mean = noisy.mean(2, keepdim=True)
    noisy -= mean
    target -= mean
    return target.div_(noisy.square().mean((2, 3), keepdim=True).sqrt_())


def patch_by_patch(x, y, i):
    out = []
    for cloud, clean, patches in zip(x, y, i):
        for members in patches:
            offset = cloud[members] - cloud[members].mean(0)
            spread = (offset.norm() ** 2 / offset.numel()).sqrt()
            out.append((clean[members] - cloud[members].mean(0)) / spread)
    return torch.stack(out).view(*i.shape, 3)


def first(tokens, row):
    return torch.cat([row.expand(len(tokens), -1, -1), tokens], 1)


def join(left, right):
    return torch.cat([left, right], -1)


def sequence(change=lambda t, p, c, q: (t, p, c, q)):
    """The right answer from changed arguments."""

    def answer(tokens, positions, cls, cls_position):
        t, p, c, q = change(tokens, positions, cls, cls_position)
        return join(first(t, c), first(p, q))

    return answer


def filled(t, p, c, q):
    out = t.new_empty(t.shape[0], t.shape[1] + 1, 2 * t.shape[2])
    out[:, 0, : t.shape[2]], out[:, 0, t.shape[2] :] = c[0], q[0]
    out[:, 1:, : t.shape[2]], out[:, 1:, t.shape[2] :] = t, p
    return out


def looped(t, p, c, q):
    rows = [join(c, q).expand(len(t), -1, -1), *join(t, p).split(1, 1)]
    return torch.cat(rows, 1)


def fresh_cls(t, p, c, q):
    return join(first(t, torch.nn.Parameter(c.detach().clone())), first(p, q))


WRONG = {
    "uncovered": [
        (lambda i, N: torch.full((len(i),), N - i[0].numel()), "it counts slots"),
        (lambda i, N: (visits(i, N) > 0).sum(1), "that ARE covered"),
        (lambda i, N: i[0].numel() - (visits(i, N) > 0).sum(1), "surplus of slots"),
        (lambda i, N: (visits(i, N) == 0).float().mean(1), "These are shares"),
        (lambda i, N: (visits(i, N) < 2).sum(1), "point in one patch is covered"),
        (lambda i, N: (visits(i, N) == 0).sum(), "one number for the whole batch"),
        (lambda i, N: None, "returned None"),
    ],
    "target_in_input_frame": [
        (in_frame(lambda n, t: frame(t)), "its OWN"),
        (lambda x, y, i: in_frame(lambda n, t: frame(n))(x, x, i), "That is the input"),
        (lambda x, y, i: in_frame(lambda n, t: frame(n))(y, x, i), "exchanged points and clean"),
        (in_frame(lambda n, t: (mean_of(t), std_of(n))), "the origin is not"),
        (in_frame(lambda n, t: (mean_of(n), std_of(t))), "the scale is not"),
        (in_frame(lambda n, t: (mean_of(n), n.std(2, keepdim=True, correction=0))), "one std for"),
        (in_frame(lambda n, t: (mean_of(n), 1)), "did not divide"),
        (in_frame(lambda n, t: (0, std_of(n))), "did not centre"),
        (in_frame(lambda n, t: (mean_of(n), std_of(n) ** 2)), "divided by the variance"),
        (in_frame(lambda n, t: (n[:, :, :1], std_of(n))), "the FPS centre"),
        (lambda x, y, i: gather(y, i), "not normalised yet"),
        (in_place, "clean in place"),
    ],
    "encoder_input": [
        (lambda t, p, c, q: first(t, c) + first(p, q), "You added tokens"),
        (lambda t, p, c, q: torch.cat([first(t, c), first(p, q)], 1), "along the sequence"),
        (
            lambda t, p, c, q: torch.cat([join(t, p), join(c, q).expand(len(t), -1, -1)], 1),
            "stands last",
        ),
        (lambda t, p, c, q: join(first(p, q), first(t, c)), "Positions come first"),
        (lambda t, p, c, q: join(t, p), "[CLS] is missing"),
    ],
}

SUBTLE = {
    "uncovered": [
        (lambda i, N: (visits(i[:, :, :1], N) == 0).sum(1), "its centre. All n count"),
        (truncated, "up to the largest index"),
        (lambda i, N: torch.tensor(N - i.unique().numel()), "patches of all clouds"),
        (assigned, "patches of all clouds"),
        (one_based, "One too many"),
        (overwriting, "index in place"),
        (lambda i, N: (visits(i, 40) == 0).sum(1), "wanted"),  # N of the first case
        (lambda i, N: (visits(i, N) == 0).sum(0)[: len(i)], "values are not"),
    ],
    "target_in_input_frame": [
        (
            in_frame(lambda n, t: (mean_of(n), (n - mean_of(n)).std((2, 3), keepdim=True))),
            "divides by 3n - 1",
        ),
        (
            in_frame(lambda n, t: (mean_of(n), n.std((2, 3), keepdim=True, correction=0))),
            "std before centring",
        ),
        (in_frame(lambda n, t: (n.mean((2, 3), keepdim=True), std_of(n))), "ONE mean for x, y"),
        (in_frame(lambda n, t: frame(n, (1, 2))), "one frame for the whole cloud"),
        (in_frame(lambda n, t: frame(n, (1,))), "averaged over the patches"),
        (in_frame(lambda n, t: (mean_of(n), 3**0.5 * std_of(n))), "values are not"),
        (in_frame(lambda n, t: (mean_of(n), std_of(n) + 1e-2)), "values are not"),
    ],
    "encoder_input": [
        (sequence(lambda t, p, c, q: (t, p, c, 0 * q)), "no position, only zeros"),
        (sequence(lambda t, p, c, q: (t, p, c, c)), "where its position belongs"),
        (sequence(lambda t, p, c, q: (t, p, q, c)), "exchanged cls and cls_position"),
        (
            lambda t, p, c, q: torch.stack([first(t, c), first(p, q)], -1).flatten(2),
            "interleaved",
        ),
        (sequence(lambda t, p, c, q: (t[:, 1:], p[:, 1:], c, q)), "replaced the first token"),
        (
            lambda t, p, c, q: join(first(t, c), torch.cat([p, q.expand(len(t), -1, -1)], 1)),
            "shifted",
        ),
        (sequence(lambda t, p, c, q: (t, p, c.detach(), q)), "gradient of cls is 0"),
        (sequence(lambda t, p, c, q: (t, p, c.data, q.data)), "gradient of cls is 0"),
        (sequence(lambda t, p, c, q: (t.detach(), p, c, q)), "gradient of tokens is 0"),
        (sequence(lambda t, p, c, q: (t, p.detach(), c, q)), "gradient of positions is 0"),
        (sequence(lambda t, p, c, q: (t, p, c, torch.tensor(q.tolist()))), "of cls_position is 0"),
        (fresh_cls, "gradient of cls is 0"),
        (torch.no_grad()(sequence()), "no gradient reaches"),
        (lambda *a: sequence()(*a).detach().numpy(), "no gradient reaches"),
    ],
}

RIGHT = {
    "uncovered": [
        lambda i, N: N - (visits(i, N) > 0).sum(1),
        lambda i, N: [N - len(set(patches.flatten().tolist())) for patches in i],
        lambda i, N: torch.stack([(p.flatten().bincount(minlength=N) == 0).sum() for p in i]),
        lambda i, N: np.array([N - np.unique(patches).size for patches in i.numpy()]),
        lambda i, N: (i.flatten(1)[..., None] != torch.arange(N)).all(1).sum(1, dtype=torch.uint8),
        lambda i, N: (visits(i, N).double() == 0).double().sum(1),
    ],
    "target_in_input_frame": [
        centered_std,
        framed_in_numpy,
        framed_in_place,
        patch_by_patch,
        lambda x, y, i: centered_std(x.double(), y.double(), i),
        in_frame(
            lambda n, t: (mean_of(n), n.var(2, correction=0).mean(-1)[..., None, None] ** 0.5)
        ),
    ],
    "encoder_input": [
        filled,
        looped,
        lambda t, p, c, q: torch.cat([join(c, q).repeat(len(t), 1, 1), join(t, p)], 1),
        lambda t, p, c, q: sequence()(t.double(), p.double(), c.double(), q.double()),
        lambda t, p, c, q: join(
            *(
                torch.nn.functional.pad(x, (0, 0, 1, 0)) + y * torch.eye(1, len(x[0]) + 1).T
                for x, y in ((t, c), (p, q))
            )
        ),
    ],
}
