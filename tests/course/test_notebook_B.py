"""The bottlenecks that B_bottlenecks builds are the library's."""

import pytest
import torch
from notebook_helpers import built
from torch.nn import functional as F

from serplib.bottlenecks import GaussianBottleneck, GumbelBottleneck
from serplib.seeding import named_generator

NAME = "B_bottlenecks"


def test_parity_of_the_gaussian():
    made, latent = built(NAME), torch.randn(3, 5, 4, generator=named_generator("n10"))
    for free in (0.0, 0.05, 3.0):
        theirs = GaussianBottleneck(4, beta=1.0, free_bits=free)
        mean, log_variance = theirs.to_moments(latent).chunk(2, -1)
        torch.manual_seed(3)
        sample, kl = made["my_gaussian"](mean, log_variance, free)
        torch.manual_seed(3)
        passed = theirs(latent)
        torch.testing.assert_close(sample, passed.latent)
        torch.testing.assert_close(kl, passed.losses["kl"])


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_parity_of_gumbel_softmax(temperature):
    made, latent = built(NAME), torch.randn(3, 5, 4, generator=named_generator("n10"))
    theirs = GumbelBottleneck(6, 4, temperature=temperature, final_temperature=0.1)
    logits = theirs.to_logits(latent)
    torch.manual_seed(4)
    weights = made["my_gumbel_softmax"](logits, temperature)
    torch.manual_seed(4)
    torch.testing.assert_close(weights, F.gumbel_softmax(logits, temperature))
    torch.manual_seed(4)
    torch.testing.assert_close(weights @ theirs.codebook, theirs(latent).latent)
