"""What notebook 07 builds is what the library has."""

import re

import pytest
import torch
from notebook_helpers import built, cells
from test_exercises import EXERCISES, function

from serplib.bottlenecks import VectorQuantizer, nearest_codes
from serplib.presets import AUTHORS_CODE, PAPER
from serplib.seeding import named_generator
from serplib.transformer import TransformerConfig
from serplib.vasp import Vasp, VaspConfig


@pytest.fixture(scope="module")
def made():
    return built("07_vasp", nearest_codes=nearest_codes)


def tokens(seed, *shape):
    return torch.randn(*shape, generator=named_generator("notebook 07", seed))


@pytest.mark.parametrize("seed", range(3))
def test_nearest_codes(made, seed):
    z, codes = tokens(("z", seed), 500, 7), tokens(("codes", seed), 40, 7)
    assert torch.equal(made["my_nearest"](z, codes), nearest_codes(z, codes))
    ties = torch.randint(-2, 3, (300, 2), generator=named_generator(seed)).float()
    index = made["my_nearest"](ties, ties[:9])
    distance = (ties[:, None] - ties[:9]).square().sum(-1)
    assert torch.equal(index, distance.argmin(1))  # whole numbers are exact: the lowest index


@pytest.mark.parametrize("alpha, beta", [(1.0, 0.25), (0.25, 0.25), (0.0, 2.0)])
def test_quantize_is_the_vector_quantizer(made, alpha, beta):
    vq = VectorQuantizer(12, 5, alpha, beta)
    vq.codebook.data.copy_(tokens("book", 12, 5))
    ours = [tokens("z", 3, 4, 5).requires_grad_(), vq.codebook.detach().clone().requires_grad_()]
    theirs = [tokens("z", 3, 4, 5).requires_grad_(), vq.codebook]
    passed, losses, index = made["quantize"](*ours, alpha, beta)
    found = vq(theirs[0])
    assert torch.equal(index, vq.encode(theirs[0]))
    torch.testing.assert_close(passed, found.latent)
    assert losses.keys() == found.losses.keys()
    for terms, latent in ((losses, passed), (found.losses, found.latent)):
        (sum(terms.values()) + latent.pow(3).sum()).backward()
    for a, b in zip(ours, theirs):
        gradient = torch.zeros_like(a) if b.grad is None else b.grad  # alpha 0: frozen codes
        torch.testing.assert_close(a.grad, gradient)


def test_straight_through(made):
    z, e = tokens("z", 6, 3).requires_grad_(), tokens("e", 6, 3).requires_grad_()
    passed = made["straight_through"](z, e)
    torch.testing.assert_close(passed, e)
    weights = tokens("weights", 6, 3)
    (passed * weights).sum().backward()
    assert torch.equal(z.grad, weights)


@pytest.mark.parametrize("seed", range(3))
def test_the_solution_of_exercise_3_is_the_librarys_step(seed):
    vq = VectorQuantizer(6, 3, ema=0.9, epsilon=0.01).train()
    z = 2 + tokens(("ema", seed), 1, 40, 3)
    usage, sums, index = vq.usage.clone(), vq.token_sum.clone(), vq.encode(z)[0]
    fair = 6 / 40  # the library counts in fair shares
    expected = function(EXERCISES["ema_codes"][0], "ema_codes")(
        usage / fair, sums / fair, z[0], index, 0.9, 0.01 / fair
    )
    vq(z)
    torch.testing.assert_close(vq.codebook.detach(), expected)


def test_what_a_code_tells(made):
    codes = torch.tensor([0, 0, 1, 1, 2, 2])
    told = made["told_by"]
    assert told(codes, codes[:, None].float()) == pytest.approx(1)
    assert told(codes, torch.tensor([[1.0], [-1], [1], [-1], [1], [-1]])) == pytest.approx(0)
    assert told(codes, torch.tensor([[0.0], [2], [4], [6], [8], [10]])) == pytest.approx(64 / 70)


def test_enough_commitment_settles_the_walk(made):
    line = torch.tensor([[-1.5], [0.0], [1.5]])
    walk = built("07_vasp", line_codes=line, nearest_codes=nearest_codes)["walk"]
    for restless in (walk(0.0)[-20:], walk(0.25)[-20:], walk(0.6, number=400)[-20:]):
        assert min(restless) < 0.75 < max(restless)
    for beta in (0.7, 1.0, 1.3):  # between 2/3 and 4/3: in the cell of the best code
        assert walk(beta, number=400)[-1] == pytest.approx(1.5 - 0.5 / beta, abs=1e-3)
    for beta in (1.4, 3.0):  # in the cell before it
        assert walk(beta, number=400)[-1] == pytest.approx(1 / beta, abs=1e-3)


def test_codes_are_as_wide_as_the_latent_tokens():
    """Eq. 8 against section 3.4: l, not d."""
    config = TransformerConfig(
        num_centers=4, patch_size=4, dim=8, latent_dim=12, encoder_depth=1, decoder_depth=1,
        encoder_heads=2, decoder_heads=2, token_widths=(4, 4, 8),
    )  # fmt: skip
    assert Vasp(config, VaspConfig(codebook_size=5)).bottleneck.codebook.shape == (5, 12)


def test_table_of_open_settings_is_the_presets():
    (cell,) = [c for c in cells("07_vasp", "code") if "codes K" in c.source]
    shown = cell.outputs[0]["data"]["text/markdown"]
    for name, value in (("codes K", "codebook_size"), ("alpha", "alpha"), ("beta", "beta")):
        row = re.search(rf"^\| {name} \| not given \| (\S+) \| (\S+) \|$", shown, re.M)
        wanted = [getattr(preset.vasp, value) for preset in (PAPER, AUTHORS_CODE)]
        assert [float(number) for number in row.groups()] == wanted
