"""Answers to the exercises of C: wrong ones with a piece of their hint, and right ones."""

import torch
from torch.nn import functional as F

NAMES = {"torch": torch}


def gain(best, chosen):
    """An answer that subtracts one accuracy on the test set, of ``correct, valid``, of another."""
    return lambda correct, valid: best(correct, valid) - chosen(correct, valid)


def of(epoch):
    return lambda correct, valid: correct.double().mean(1)[epoch(valid)]


def best(correct, valid):
    return correct.double().mean(1).max()


def last_of_equal(valid):
    return (valid == valid.max()).nonzero()[-1, 0]


def by_sorting(correct, valid):
    order = valid.argsort(descending=True, stable=True)
    rate = correct.sum(1) / correct.shape[1]
    return rate.max() - rate[order[0]]


def by_loop(correct, valid):
    rates = [sum(row) / len(row) for row in correct.tolist()]
    values = valid.tolist()
    return max(rates) - rates[values.index(max(values))]


WRONG = {
    "inflation": [
        (best, "accuracy of the best epoch"),
        (of(torch.argmax), "accuracy of the chosen epoch"),
        (gain(best, lambda c, v: c.double().mean(1)[-1]), "last epoch's accuracy"),
        (gain(best, lambda c, v: c.double().mean()), "mean over the epochs"),
        (lambda c, v: None, "returned None"),
    ],
    "vote": [
        (lambda x: x.mean(0).argmax(-1), "averaged logits"),
        (lambda x: x.argmax(-1).mode(0).values, "majority"),
        (lambda x: x[0].argmax(-1), "one vote"),
        (lambda x: x.softmax(-1).mean(0), "Wanted the class"),
        (lambda x: x.argmax(-1), "one class for each cloud"),
    ],
}

SUBTLE = {
    "inflation": [
        (gain(best, of(last_of_equal)), "take the first"),
        (gain(best, lambda c, v: v.max().double()), "one on validation"),
        (
            gain(lambda c, v: c.any(0).double().mean(), of(torch.argmax)),
            "any epoch gets right",
        ),
        (lambda c, v: c.shape[1] * by_loop(c, v), "number of shapes"),
        (lambda c, v: 100 * by_loop(c, v), "in per cent"),
        (lambda c, v: -by_loop(c, v), "sign is wrong"),
        (
            lambda c, v: c.sum(1).max() / len(c) - c.sum(1)[v.argmax()] / len(c),
            "number of epochs",
        ),
    ],
    "vote": [
        (lambda x: x.softmax(-1).amax(0).argmax(-1), "surest single vote"),
        (lambda x: x.log_softmax(-1).sum(0).argmax(-1), "multiplies the probabilities"),
        (lambda x: x.softmax(-1).median(0).values.argmax(-1), "median"),
        (lambda x: x.softmax(1).mean(0).argmax(-1), "over the classes"),
        (lambda x: x.softmax(-1).mean(0).argmin(-1), "least likely"),
        (
            lambda x: F.one_hot(x.argmax(-1), x.shape[-1]).float().mean(0).argmax(-1),
            "majority",
        ),
    ],
}

RIGHT = {
    "inflation": [
        by_sorting,
        by_loop,
        gain(best, of(torch.argmax)),
        lambda c, v: (c.double().mean(1) - c.double().mean(1)[v.argmax()]).max(),
        lambda c, v: (c.sum(1).max() - c[v.argmax()].sum()).item() / c.shape[1],
    ],
    "vote": [
        lambda x: x.softmax(-1).mean(0).argmax(-1),
        lambda x: x.softmax(-1).sum(0).max(-1).indices,
        lambda x: sum(F.softmax(one, -1) for one in x).argmax(-1),
        lambda x: (x - x.logsumexp(-1, keepdim=True)).exp().mean(0).argmax(-1),
        lambda x: x.log_softmax(-1).logsumexp(0).argmax(-1).tolist(),
    ],
}
