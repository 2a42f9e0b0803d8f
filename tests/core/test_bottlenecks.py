"""The bottlenecks: against vector-quantize-pytorch, torch.distributions and by hand."""

import math
import sys
from functools import partial
from inspect import signature

import pytest
import torch
from torch import distributed, multiprocessing
from torch.distributions import Categorical, Normal, kl_divergence
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from vector_quantize_pytorch import FSQ, VectorQuantize

from serplib.bottlenecks import (
    FiniteScalarQuantizer,
    GaussianBottleneck,
    GumbelBottleneck,
    Identity,
    ResidualQuantizer,
    VectorQuantizer,
    code_use,
    nearest_codes,
)
from serplib.seeding import named_generator

K, DIM, SHAPE = 7, 5, (3, 4, 5)  # codes, l, (B, T, l)


def tokens(name="tokens", shape=SHAPE, dtype=torch.float32, grad=True):
    values = torch.randn(shape, generator=named_generator(name), dtype=torch.float64)
    return values.to(dtype).requires_grad_(grad)


def quantizer(seed=0, size=K, **options):
    """A quantizer whose codes are as far from each other as the tokens are."""
    torch.manual_seed(seed)
    module = VectorQuantizer(size, DIM, **options)
    codes = tokens(("codes", seed), (size, DIM), grad=False)
    with torch.no_grad():
        module.codebook.copy_(F.normalize(codes, dim=-1) if module.cosine else codes)
        if module.ema is not None:
            module.token_sum.copy_(module.codebook)
    return module


def gradients(loss, *leaves):
    return torch.autograd.grad(loss, leaves, allow_unused=True)


# ---------------------------------------------------------------- the nearest code (Eq. 12)


@pytest.mark.parametrize("seed", range(3))
def test_nearest_is_nearest(seed):
    z, codes = tokens(("z", seed), (40, DIM)), tokens(("e", seed), (K, DIM))
    by_hand = (z[:, None] - codes).square().sum(-1).argmin(1)
    assert torch.equal(nearest_codes(z.detach(), codes.detach()), by_hand)


def test_what_passes_is_the_nearest_code():
    module, z = quantizer(), tokens()
    index = module.encode(z)
    passed = module(z)
    assert index.shape == SHAPE[:2]
    torch.testing.assert_close(passed.latent, module.codebook[index])
    error = (z - module.codebook[index]).square().mean()
    assert passed.diagnostics["quantization_error"] == error
    assert not any(value.requires_grad for value in passed.diagnostics.values())


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "restart": 0.1, "init": "kmeans"}])
def test_no_tensor_holds_more_than_tokens_times_codes(options):
    """B*c*K elements (or B*c*l, or K*l), and never B*c*K*l."""
    batch, num_tokens, size, dim = 4, 25, 40, 32
    module = VectorQuantizer(size, dim, **options)
    z = torch.randn(batch, num_tokens, dim, requires_grad=True)
    with Largest() as seen:
        passed = module(z)
        (passed.latent.sum() + sum(passed.losses.values())).backward()
    assert seen.elements == batch * num_tokens * size


# ---------------------------------------------------------------- gradients (Eq. 13)


def test_straight_through_is_the_identity():
    module, z = quantizer(), tokens()
    weight = tokens("weight", grad=False)
    grad_z, grad_codes = gradients((module(z).latent * weight).sum(), z, module.codebook)
    torch.testing.assert_close(grad_z, weight)
    assert grad_codes is None


def test_alpha_moves_the_codes_and_beta_the_encoder():
    module, z = quantizer(alpha=0.7, beta=0.3), tokens()
    losses = module(z).losses
    error = (z - module.codebook[module.encode(z)]).square().mean().item()
    assert losses["codebook"].item() == pytest.approx(0.7 * error)
    assert losses["commitment"].item() == pytest.approx(0.3 * error)

    grad_z, grad_codes = gradients(losses["codebook"], z, module.codebook)
    assert grad_z is None and grad_codes.abs().sum() > 0
    used = torch.zeros(K, dtype=torch.bool)
    used[module.encode(z)] = True
    assert torch.equal(grad_codes.abs().sum(1) > 0, used)

    grad_z, grad_codes = gradients(module(z).losses["commitment"], z, module.codebook)
    assert grad_codes is None
    by_hand = 0.3 * 2 * (z - module.codebook[module.encode(z)]) / z.numel()  # a mean, not a sum
    torch.testing.assert_close(grad_z, by_hand)


def test_losses_by_gradcheck():
    """In double, with the other side of each stop-gradient held: z for alpha, e for beta."""
    module = quantizer().double()
    z, codes = tokens(dtype=torch.float64), module.codebook.detach().clone()
    assert torch.autograd.gradcheck(lambda z: module(z).losses["commitment"], z)

    def codebook_term(codes):
        return torch.func.functional_call(module, {"codebook": codes}, z).losses["codebook"]

    assert torch.autograd.gradcheck(codebook_term, codes.requires_grad_())


def test_rotation_trick_turns_the_gradient():
    module, z = quantizer(rotation=True), tokens()
    weight = tokens("weight", grad=False)
    passed = module(z).latent
    e = module.codebook[module.encode(z)].detach()
    torch.testing.assert_close(passed, e)
    (grad,) = gradients((passed * weight).sum(), z)
    for i in range(SHAPE[0]):
        for j in range(SHAPE[1]):
            a, b = z[i, j].detach(), e[i, j]
            a_hat, b_hat = a / a.norm(), b / b.norm()
            r = (a_hat + b_hat) / (a_hat + b_hat).norm()
            turn = torch.eye(DIM) - 2 * torch.outer(r, r) + 2 * torch.outer(b_hat, a_hat)
            torch.testing.assert_close(turn @ turn.T, torch.eye(DIM), atol=1e-5, rtol=0)
            matrix = b.norm() / a.norm() * turn
            torch.testing.assert_close(matrix @ a, b, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(grad[i, j], matrix.T @ weight[i, j], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_rotation_of_a_token_at_zero_and_opposite_its_code(value):
    module = VectorQuantizer(1, DIM, rotation=True)
    z = (value * module.codebook.detach())[None].requires_grad_()
    passed = module(z).latent
    torch.testing.assert_close(passed[0], module.codebook.detach())
    assert gradients(passed.sum(), z)[0].isfinite().all()


# ---------------------------------------------------------------- a second opinion


def theirs(module, **options):
    """vector-quantize-pytorch's quantizer on our codebook and our moving averages."""
    learned = module.ema is None
    other = VectorQuantize(
        DIM, K, decay=module.ema or 0.9, ema_update=not learned, learnable_codebook=learned,
        rotation_trick=module.rotation, use_cosine_sim=module.cosine, **options,
    )  # fmt: skip
    with torch.no_grad():
        other._codebook.embed.copy_(module.codebook[None])
        other._codebook.embed_avg.copy_(module.codebook[None])
    return other


@pytest.mark.parametrize("rotation", [False, True])
def test_values_and_gradients_are_theirs(rotation):
    """alpha = beta = 1: their one term, with a learned codebook, moves both."""
    module = quantizer(alpha=1.0, beta=1.0, rotation=rotation)
    other = theirs(module)
    z, weight = tokens(), tokens("weight", grad=False)
    ours, (values, index, loss) = module(z), other(z)
    assert torch.equal(module.encode(z), index)
    torch.testing.assert_close(ours.latent, values)
    total = sum(ours.losses.values())
    # Both of our terms have the value of theirs; each brings half of its gradient.
    torch.testing.assert_close(total, 2 * loss)
    grads = gradients((ours.latent * weight).sum() + total, z, module.codebook)
    by_them = gradients((values * weight).sum() + loss, z, other._codebook.embed)
    torch.testing.assert_close(grads[0], by_them[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grads[1], by_them[1][0])


@pytest.mark.parametrize("cosine", [False, True])
def test_moving_averages_are_theirs(cosine):
    """They count tokens, we count fair shares (M / K tokens): the same up to this unit."""
    module = quantizer(ema=0.9, beta=0.25, cosine=cosine, epsilon=1e-3)
    share = SHAPE[0] * SHAPE[1] / K
    other = theirs(module, commitment_weight=0.25, eps=1e-3 * share)
    other._codebook.cluster_size.fill_(share)
    other._codebook.embed_avg.mul_(share)
    for step in range(5):
        z = tokens(("step", step))
        ours, (values, _, loss) = module(z), other(z)
        torch.testing.assert_close(ours.latent, values)
        torch.testing.assert_close(ours.losses["commitment"], loss)
        assert set(ours.losses) == {"commitment"}
        torch.testing.assert_close(module.usage * share, other._codebook.cluster_size[0])
        torch.testing.assert_close(module.token_sum * share, other._codebook.embed_avg[0])
        torch.testing.assert_close(module.codebook, other._codebook.embed[0])
    before = module.codebook.clone()
    module.eval()(tokens())
    assert torch.equal(module.codebook, before)


@pytest.mark.parametrize("old", [0.9, 0.3])
def test_ema_by_hand(old):
    """Two codes, three tokens and one: n = .9 + .1 * share, sum = .9 e + .1 * sum of z / 2."""
    new, module = 1 - old, VectorQuantizer(2, 1, ema=old, epsilon=0.0)
    with torch.no_grad():
        module.codebook.copy_(torch.tensor([[0.0], [10.0]]))
        module.token_sum.copy_(module.codebook)
    module(torch.tensor([[[1.0], [2.0], [3.0], [9.0]]]))  # fair share: 2 tokens
    torch.testing.assert_close(module.usage, torch.tensor([old + new * 1.5, old + new * 0.5]))
    codes = [[new * 3 / (old + new * 1.5)], [(old * 10 + new * 4.5) / (old + new * 0.5)]]
    torch.testing.assert_close(module.codebook.data, torch.tensor(codes))


# ---------------------------------------------------------------- options


def test_cosine_compares_directions():
    module = quantizer(cosine=True, restart=0.5)
    with torch.no_grad():  # what an optimiser step does: lengths differ again
        module.codebook.mul_(torch.linspace(0.2, 5, K)[:, None])
    z = tokens()
    similar = F.normalize(z, dim=-1) @ F.normalize(module.codebook, dim=-1).T
    assert torch.equal(module.encode(z), similar.argmax(-1))
    module.usage.zero_()  # all codes are restarted between forward and backward
    passed = module(z)
    torch.testing.assert_close(passed.latent.norm(dim=-1), torch.ones(SHAPE[:2]))
    (passed.latent.sum() + sum(passed.losses.values())).backward()
    assert z.grad.isfinite().all() and module.codebook.grad.isfinite().all()


@pytest.mark.parametrize("ema", [None, 0.9])
def test_restart_revives_dead_codes(ema):
    module = VectorQuantizer(20, DIM, ema=ema, restart=0.1, init="uniform")
    with torch.no_grad():
        module.codebook[1:] += 100.0  # no token will ever choose these
    perplexities = [module(tokens(step, (8, 10, DIM))).diagnostics["perplexity"].item()
                    for step in range(120)]  # fmt: skip
    assert perplexities[0] == 1.0 and max(perplexities[-10:]) > 8
    assert module.codebook.abs().max() < 10


def test_restart_leaves_the_living_alone_and_gives_no_token_twice():
    module = quantizer(restart=0.5)
    module.usage[2:] = 0.0
    before, z = module.codebook.detach().clone(), tokens(shape=(1, 3, DIM))
    module(z)
    assert torch.equal(module.codebook[:2], before[:2])
    moved = (module.codebook != before).any(1)
    assert moved.sum() == 3  # five dead codes, three tokens: two codes wait
    assert {tuple(c) for c in module.codebook[moved].tolist()} == {tuple(t) for t in z[0].tolist()}
    assert torch.equal(module.usage[moved], torch.ones(3))
    module.eval().usage.zero_()
    before = module.codebook.detach().clone()
    module(z)
    assert torch.equal(module.codebook, before)


def test_a_code_with_its_fair_share_is_never_dead_whatever_the_batch():
    module = quantizer(restart=0.9)
    z = module.codebook.detach()[None].repeat(1, 50, 1)  # 50 tokens a code
    for _ in range(5):
        module(z)
    torch.testing.assert_close(module.usage, torch.ones(K))


def test_kmeans_starts_at_the_clusters_of_the_first_batch():
    centers = 10 * tokens("centers", (K, DIM), grad=False)
    z = centers.repeat(8, 1)[None] + 0.01 * tokens("noise", (1, 8 * K, DIM), grad=False)
    torch.manual_seed(3)
    module = VectorQuantizer(3 * K, DIM, init="kmeans", ema=0.9)
    assert not module.ready
    module.eval()(z)
    assert not module.ready  # evaluation starts nothing
    found = module.train()(z)
    assert module.ready and found.diagnostics["quantization_error"] < 1e-3
    torch.manual_seed(99)
    first = module.codebook.clone()
    module(z)
    torch.testing.assert_close(module.codebook.data, first.data, atol=0.5, rtol=0)  # no new start
    restored = VectorQuantizer(3 * K, DIM, init="kmeans", ema=0.9)
    restored.load_state_dict(module.state_dict())
    assert restored.ready and torch.equal(restored.codebook, module.codebook)


@pytest.mark.parametrize(("size", "seed"), [(3, 4), (10, 2)])  # of ten, one ends with one token
def test_kmeans_ends_where_each_code_is_the_mean_of_its_tokens(size, seed):
    z = tokens("spread", (1, 24, DIM), grad=False)
    torch.manual_seed(seed)
    module = VectorQuantizer(size, DIM, init="kmeans")
    module(z)
    index = nearest_codes(z[0], module.codebook.detach())
    means = torch.stack([z[0][index == code].mean(0) for code in range(size)])
    torch.testing.assert_close(module.codebook.detach(), means)


@pytest.mark.parametrize("cosine", [False, True])
def test_kmeans_of_fewer_tokens_than_codes(cosine):
    module = VectorQuantizer(30, DIM, init="kmeans", cosine=cosine)
    z = tokens()
    passed = module(z)  # 12 tokens
    start = F.normalize(z.detach(), dim=-1) if cosine else z.detach()
    apart = (module.codebook.detach()[:, None] - start.flatten(0, 1)).norm(dim=-1)  # (30, 12)
    assert apart.amin(1).max() < 1e-5  # a code that no token chose stays where it started
    assert passed.diagnostics["quantization_error"] < 1e-10
    assert passed.diagnostics["perplexity"].item() == pytest.approx(12)


def test_collapse_and_cure_on_a_toy():
    """Tokens around 16 places, far from U[0, 1): a codebook that starts there uses few codes."""
    places = 3 + tokens("places", (16, DIM), grad=False)

    def trained(**options):
        torch.manual_seed(0)
        module = VectorQuantizer(16, DIM, alpha=0.25, **options)
        learned = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learned or [torch.zeros(1)], lr=1e-2)
        for step in range(150):
            generator = named_generator("toy", step)
            which = torch.randint(16, (4, 32), generator=generator)
            z = places[which] + 0.1 * torch.randn(4, 32, DIM, generator=generator)
            found = module(z)
            if learned:
                optimizer.zero_grad()
                sum(found.losses.values()).backward()
                optimizer.step()
        return {name: value.item() for name, value in found.diagnostics.items()}

    collapsed = trained(init="uniform")
    cured = trained(init="kmeans", ema=0.9, restart=0.1)
    assert collapsed["perplexity"] < 5 and collapsed["quantization_error"] > 0.3
    assert cured["perplexity"] > 11 and cured["quantization_error"] < 0.06


def test_perplexity_extremes():
    assert code_use(torch.tensor([0, 9, 0])) == {
        "perplexity": 1.0,
        "bits": 0.0,
        "live_codes": pytest.approx(1 / 3),
    }
    even = code_use(torch.full((8,), 5))
    assert even["perplexity"].item() == pytest.approx(8) and even["live_codes"] == 1.0
    assert even["bits"].item() == pytest.approx(3)
    both = code_use(torch.full((8,), 5), torch.tensor([1, 0, 1, 0]))  # 8 codes, then 2 of 4
    assert both["bits"].item() == pytest.approx(4) and both["live_codes"] == 0.75
    assert both["perplexity"].item() == pytest.approx(16)
    half = code_use(torch.tensor([3, 3, 0, 0]))
    assert half["perplexity"].item() == pytest.approx(2) and half["live_codes"] == 0.5
    assert code_use(torch.zeros(4))["perplexity"] == 1.0  # nothing chosen: no NaN
    assert code_use(torch.tensor([0, 1])) == {"perplexity": 1.0, "bits": 0.0, "live_codes": 0.5}
    one = VectorQuantizer(1, DIM)(tokens()).diagnostics
    assert one["perplexity"] == 1.0 and one["live_codes"] == 1.0


def test_initial_codes():
    torch.manual_seed(0)
    uniform = VectorQuantizer(50, DIM, init="uniform").codebook
    assert 0 <= uniform.min() < 0.1 and 0.9 < uniform.max() < 1
    small = VectorQuantizer(50, DIM, init="small").codebook
    assert small.abs().max() <= 1 / 50 and small.min() < -0.9 / 50 and 0.9 / 50 < small.max()
    sonnet, bound = VectorQuantizer(50, 12, init="sonnet").codebook, 0.5  # sqrt(3 / 12)
    assert (
        sonnet.abs().max() <= bound and sonnet.min() < -0.95 * bound < 0.95 * bound < sonnet.max()
    )
    unit = VectorQuantizer(50, DIM, cosine=True).codebook
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(50))
    mixed = GumbelBottleneck(100, 64).codebook  # tokens of length 1 or so
    assert abs(mixed.mean().item()) < 0.01 and 0.12 < mixed.std().item() < 0.13


def test_half_precision_tokens():
    """bfloat16 in, bfloat16 out; who is nearest is decided in float32, autocast or not."""
    module, z = quantizer(), tokens(grad=False).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        passed = module(z)
    assert passed.latent.dtype == torch.bfloat16
    assert torch.equal(module.encode(z), module.encode(z.float()))
    assert passed.losses["commitment"].dtype == torch.float32
    many, near = quantizer(size=500), tokens("many", (400, DIM), grad=False)
    with torch.autocast("cpu", torch.bfloat16):
        chosen = many.encode(near)
    assert torch.equal(chosen, many.encode(near))
    for module in (GaussianBottleneck(DIM), GumbelBottleneck(K, DIM), FiniteScalarQuantizer(DIM),
                   ResidualQuantizer(2, K, DIM)):  # fmt: skip
        with torch.autocast("cpu", torch.bfloat16):
            passed = module(z)
        assert passed.latent.dtype == torch.bfloat16
        assert all(loss.dtype == torch.float32 for loss in passed.losses.values())


CURED = {"ema": 0.9, "init": "kmeans", "restart": 0.5}
STATISTICS = [
    *(partial(VectorQuantizer, K, DIM, **o) for o in ({"ema": 0.9}, {"restart": 0.9}, CURED)),
    partial(ResidualQuantizer, 2, K, DIM, **CURED),
]


def _process(rank, file, results):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    states = []
    for make in STATISTICS:
        torch.manual_seed(0)
        module = make()
        torch.manual_seed(rank)  # as the training loop does
        for step in range(8):
            module(tokens((rank, step), grad=False))
            states.append(torch.cat([t.flatten() for t in module.state_dict().values()]))
    results[rank] = torch.cat(states)
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="forks processes that use gloo")
def test_processes_keep_one_codebook(tmp_path):
    """Two processes on different tokens: the same state in both, after every step."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        results = manager.dict()
        workers = [
            context.Process(target=_process, args=(rank, tmp_path / "store", results))
            for rank in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
        assert torch.equal(results[0], results[1])
        found = results[0].view(-1)
    # The average over both processes is that of one process which sees all their tokens.
    torch.manual_seed(0)
    module = STATISTICS[0]()
    module(torch.cat([tokens((rank, 0), grad=False) for rank in range(2)]))
    state = torch.cat([t.flatten() for t in module.state_dict().values()])
    torch.testing.assert_close(found[: len(state)], state)


# ---------------------------------------------------------------- frozen codes


def test_without_alpha_and_averages_the_codes_stay():
    module = VectorQuantizer(K, DIM, alpha=0.0)
    before = module.codebook.clone()
    optimizer = torch.optim.AdamW([*module.parameters(), z := tokens()], weight_decay=1.0)
    found = module(z)
    (found.latent.square().sum() + sum(found.losses.values())).backward()
    optimizer.step()
    assert torch.equal(module.codebook, before) and not module.codebook.requires_grad
    assert VectorQuantizer(K, DIM, alpha=0.1).codebook.requires_grad


# ---------------------------------------------------------------- codebooks in stages


def two_stages(**options):
    """Codes 0 and 10, then -1 and 1."""
    module = ResidualQuantizer(2, 2, 1, **options)
    with torch.no_grad():
        for stage, codes in zip(module.stages, ([[0.0], [10.0]], [[-1.0], [1.0]])):
            stage.codebook.copy_(torch.tensor(codes))
    return module


def test_residuals_by_hand():
    """8.7 is 10, and -1.3 is left: -1. 3 is 0, and 3 is left: 1."""
    module = two_stages(alpha=0.7, beta=0.3)
    z = torch.tensor([[[8.7], [3.0]]], requires_grad=True)
    found = module(z)
    torch.testing.assert_close(found.latent.flatten(), torch.tensor([9.0, 1.0]))
    assert module.encode(z).tolist() == [[[1, 0], [0, 1]]]
    squares = [1.3**2, 0.3**2, 3.0**2, 2.0**2]  # of both stages, for both tokens
    assert found.losses["commitment"].item() == pytest.approx(0.3 * sum(squares) / 2)
    assert found.losses["codebook"].item() == pytest.approx(0.7 * sum(squares) / 2)
    (grad,) = gradients((found.latent * torch.tensor([[[2.0], [5.0]]])).sum(), z)
    assert grad.flatten().tolist() == [2.0, 5.0]  # copied once, not once a stage
    (grad,) = gradients(module(z).losses["commitment"], z)
    torch.testing.assert_close(grad.flatten(), torch.tensor([0.3 * (-1.3 - 0.3), 0.3 * (3 + 2.0)]))
    first, second = gradients(module(z).losses["codebook"], *(s.codebook for s in module.stages))
    torch.testing.assert_close(first.flatten(), 0.7 * torch.tensor([-3.0, 1.3]))
    torch.testing.assert_close(second.flatten(), 0.7 * torch.tensor([0.3, -2.0]))
    use = {name: found.diagnostics[name].item() for name in ("bits", "perplexity", "live_codes")}
    assert use == pytest.approx({"bits": 2, "perplexity": 4, "live_codes": 1})
    assert found.diagnostics["quantization_error"].item() == pytest.approx((0.3**2 + 2**2) / 2)


@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "restart": 0.5}, {"init": "kmeans"}])
def test_one_stage_is_a_vector_quantizer(options):
    alone, staged = quantizer(**options), ResidualQuantizer(1, K, DIM, **options)
    staged.stages[0].load_state_dict(alone.state_dict())
    for step in range(3):
        z, found = tokens(step), []
        for module in (alone, staged):
            torch.manual_seed(step)
            found.append(module(z))
        torch.testing.assert_close(found[1].latent, found[0].latent)
        torch.testing.assert_close(found[1].losses, found[0].losses)
        torch.testing.assert_close(found[1].diagnostics, found[0].diagnostics)


def test_further_stages_lower_the_error():
    z, errors = tokens("many", (4, 50, DIM)), []
    for stages in (1, 2, 3):
        torch.manual_seed(0)
        module = ResidualQuantizer(stages, K, DIM, init="kmeans", ema=0.9)
        passed = module(z).latent
        errors.append((passed - z).square().mean().item())
        assert module.encode(z).shape == (4, 50, stages)
    assert errors[0] > 1.3 * errors[1] > 1.6 * errors[2]


# ---------------------------------------------------------------- the grid (FSQ)


@pytest.mark.parametrize("levels", [(8, 8, 8), (7, 5, 5, 5), (3,), (4, 3)])
def test_grid_is_theirs(levels):
    """Values and gradients of vector-quantize-pytorch's FSQ with our linear layers."""
    module, other = FiniteScalarQuantizer(DIM, levels), FSQ(list(levels), DIM)
    other.project_in, other.project_out = module.to_grid, module.from_grid
    z, weight = tokens(), tokens("weight", grad=False)
    ours, (values, index) = module(3 * z), other(3 * z)
    torch.testing.assert_close(ours.latent, values)
    mine = module.encode(3 * z)
    assert len(mine.unique()) == len(index.unique())  # the same codes in another order
    assert len(torch.stack([mine, index.long()], -1).flatten(0, 1).unique(dim=0)) == len(
        mine.unique()
    )
    leaves = (z, *module.parameters())
    grads = gradients((ours.latent * weight).sum(), *leaves)
    torch.testing.assert_close(grads, gradients((values * weight).sum(), *leaves))
    assert ours.losses == {}


def test_grid_by_hand():
    """Three levels: tanh(x) * 1.001 rounds to -1, 0, 1. Eight: 0 stays 0, -4 to 3."""
    module = FiniteScalarQuantizer(1, (3,))
    with torch.no_grad():
        for layer in (module.to_grid, module.from_grid):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
    z = torch.tensor([[[-2.0], [0.1], [0.5], [0.6]]], requires_grad=True)
    found = module(z)
    assert found.latent.flatten().tolist() == [-1.0, 0.0, 0.0, 1.0]
    assert module.encode(z).tolist() == [[0, 1, 1, 2]]
    assert found.diagnostics["bits"].item() == pytest.approx(1.5)
    (grad,) = gradients(found.latent.sum(), z)
    torch.testing.assert_close(grad, 1.001 * (1 - z.detach().tanh() ** 2))
    module.levels = (8,)
    z = torch.tensor([[[-9.0], [0.0], [9.0]]])
    assert module.bound(z).round().flatten().tolist() == [-4, 0, 3]
    assert module.encode(z).tolist() == [[0, 4, 7]]


@pytest.mark.parametrize("levels", [(2, 2), (3, 4), (8, 5, 2)])
def test_every_point_of_the_grid_is_reached(levels):
    module = FiniteScalarQuantizer(DIM, levels)
    with torch.no_grad():
        module.to_grid.weight.normal_()
    z = 3 * tokens("wide", (1, 20_000, DIM), grad=False)
    assert module.encode(z).unique().tolist() == list(range(math.prod(levels)))
    use = module(z).diagnostics
    assert use["live_codes"] == 1 and use["bits"] <= math.log2(math.prod(levels)) + 1e-6


def test_grid_by_gradcheck():
    module = FiniteScalarQuantizer(3, (8, 5)).double()
    z = tokens(shape=(2, 2, 3), dtype=torch.float64)
    assert torch.autograd.gradcheck(module.bound, z)


@pytest.mark.parametrize("shape", [(1, 1, DIM), (2, 9, DIM)])
@pytest.mark.parametrize("same", [True, False])
def test_one_token_and_equal_tokens_pass(shape, same):
    z = tokens(shape=(1, 1, DIM) if same else shape).expand(shape)
    for module in (FiniteScalarQuantizer(DIM), ResidualQuantizer(3, K, DIM, **CURED)):
        for _ in range(3):
            found = module(z)
            (grad,) = gradients(found.latent.sum() + sum(found.losses.values()), z)
            assert grad.isfinite().all() and found.latent.isfinite().all()
        if same:  # among codes that are equal but for rounding any index may be the nearest
            assert found.latent.flatten(0, 1).std(0, correction=0).max() < 1e-5
            assert found.diagnostics["bits"] < 1e-6 or isinstance(module, ResidualQuantizer)


# ---------------------------------------------------------------- the Gaussian bottleneck


def test_kl_is_that_of_torch_distributions():
    module, z = GaussianBottleneck(DIM, beta=0.5), tokens()
    mean, log_variance = module.to_moments(z).chunk(2, -1)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))  # (B, T, l)
    found = module(z)
    torch.testing.assert_close(found.losses["kl"], 0.5 * expected.sum(-1).mean())
    torch.testing.assert_close(found.diagnostics["nats"], expected.sum(-1).mean().detach())


def test_gaussian_sample_and_mean():
    module, z = GaussianBottleneck(DIM), tokens(shape=(1, 1, DIM)).expand(1, 20000, DIM)
    mean, log_variance = module.to_moments(z[0, 0]).chunk(2, -1)
    torch.manual_seed(0)
    sample = module(z).latent[0]
    torch.testing.assert_close(sample.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(sample.std(0), (log_variance / 2).exp(), atol=0.05, rtol=0)
    torch.manual_seed(0)
    assert torch.equal(module(z).latent[0], sample)  # torch's global generator decides
    passed = module.eval()(z).latent[0, 0]
    torch.testing.assert_close(passed, mean)


def test_free_bits():
    z = tokens()
    plain, free = GaussianBottleneck(DIM, 1.0), GaussianBottleneck(DIM, 1.0, free_bits=0.1)
    free.load_state_dict(plain.state_dict())
    mean, log_variance = plain.to_moments(z).chunk(2, -1)
    kl = (mean.square() + log_variance.exp() - 1 - log_variance).mean((0, 1)) / 2  # (l,)
    torch.testing.assert_close(free(z).losses["kl"], kl.clamp_min(0.1).sum())
    generous = GaussianBottleneck(DIM, 1.0, free_bits=100.0)
    loss = generous(z).losses["kl"]
    assert loss.item() == pytest.approx(100 * DIM)
    assert all(g.abs().max() == 0 for g in gradients(loss, *generous.parameters()))


def test_the_distance_from_the_rate_is_what_costs():
    z, module = tokens(), GaussianBottleneck(DIM, 0.5)
    nats = module(z).diagnostics["nats"].item()
    (plain,) = gradients(module(z).losses["kl"], z)
    for share, sign in ((0.8, 1), (1.2, -1)):
        held = GaussianBottleneck(DIM, 0.5, rate=share * nats / math.log(2))
        held.load_state_dict(module.state_dict())
        loss = held(z).losses["kl"]
        assert loss.item() == pytest.approx(0.5 * 0.2 * nats, rel=1e-4)
        torch.testing.assert_close(gradients(loss, z)[0], sign * plain)


def test_the_rate_is_held_within_five_percent():
    """A linear autoencoder of 8 numbers, which passes more where nothing limits it."""
    torch.manual_seed(0)
    rates = {}
    for rate in (None, 9.0):
        module = GaussianBottleneck(8, 0.0 if rate is None else 1.0, rate=rate)
        decoder = torch.nn.Linear(8, 8)
        optimizer = torch.optim.Adam([*module.parameters(), *decoder.parameters()], 1e-2)
        for step in range(400):
            z = tokens(step, (8, 16, 8), grad=False)
            found = module(z)
            optimizer.zero_grad()
            loss = (decoder(found.latent) - z).square().sum(-1).mean()
            (loss + sum(found.losses.values())).backward()
            optimizer.step()
        rates[rate] = found.diagnostics["nats"].item() / math.log(2)
    assert rates[None] > 12 and rates[9.0] == pytest.approx(9, rel=0.05)


def test_warmup_of_beta():
    for module in (GaussianBottleneck(DIM, 1.0, warmup_steps=4),
                   GumbelBottleneck(K, DIM, beta=1.0, warmup_steps=4)):  # fmt: skip
        z, weights = tokens(), []
        full = module.eval()(z).losses["kl"].item()
        for _ in range(6):
            weights.append(module.train()(z).losses["kl"].item() / full)
            assert module.eval()(z).losses["kl"].item() == pytest.approx(full)
        assert weights == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1], rel=1e-5)
        assert module.step == 6 and "step" in module.state_dict()


@pytest.mark.parametrize(("log_variance", "held"), [(-1000.0, -20), (1000.0, 10)])
def test_log_variance_is_held_between_minus_20_and_10(log_variance, held):
    module = GaussianBottleneck(DIM, beta=1.0)
    with torch.no_grad():
        module.to_moments.weight.zero_()
        module.to_moments.bias.copy_(torch.tensor([0.0, log_variance]).repeat_interleave(DIM))
    wanted = DIM * (math.exp(held) - 1 - held) / 2
    assert module(tokens()).losses["kl"].item() == pytest.approx(wanted)


def test_gaussian_by_gradcheck():
    module = GaussianBottleneck(3, 0.3).double()
    z = tokens(shape=(2, 2, 3), dtype=torch.float64)

    def losses_and_sample(z):
        torch.manual_seed(0)
        found = module(z)
        return found.losses["kl"], found.latent

    assert torch.autograd.gradcheck(losses_and_sample, z)


# ---------------------------------------------------------------- the Gumbel bottleneck


def test_kl_to_uniform_is_that_of_torch_distributions():
    module, z = GumbelBottleneck(K, DIM, beta=0.5), tokens()
    q = Categorical(logits=module.to_logits(z))
    uniform = Categorical(probs=torch.full((*SHAPE[:2], K), 1 / K))
    torch.testing.assert_close(module(z).losses["kl"], 0.5 * kl_divergence(q, uniform).mean())


def test_kl_of_the_mean_is_point_berts():
    """Their line: F.kl_div(log_qy, log_uniform, None, None, 'batchmean', log_target=True)."""
    module, z = GumbelBottleneck(K, DIM, beta=1.0, kl="mean"), tokens()
    mean = module.to_logits(z).softmax(-1).mean(1)  # (B, K)
    uniform = torch.full_like(mean, -math.log(K))
    expected = F.kl_div(mean.log(), uniform, reduction="batchmean", log_target=True)
    torch.testing.assert_close(module(z).losses["kl"], expected)


def test_gumbel_temperature():
    module = GumbelBottleneck(K, DIM, 1.0, 0.1, anneal_steps=4)
    found = []
    for _ in range(6):
        found.append(module.current_temperature())
        module(tokens())
    assert found == pytest.approx([1.0, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 0.55,
                                   0.1 + 0.9 * (1 - math.sqrt(0.5)) / 2, 0.1, 0.1])  # fmt: skip
    module.eval()(tokens())
    assert module.step == 6
    assert GumbelBottleneck(K, DIM, 0.7).current_temperature() == 0.7
    restored = GumbelBottleneck(K, DIM, 1.0, 0.1, anneal_steps=4)
    restored.load_state_dict(module.state_dict())
    assert restored.current_temperature() == pytest.approx(0.1)


def test_gumbel_sample():
    """Nearly cold, a sample is one code, drawn with its probability (the Gumbel-max trick)."""
    module = GumbelBottleneck(K, DIM, temperature=1e-3, final_temperature=1e-3)
    z = tokens(shape=(1, 1, DIM)).expand(1, 20000, DIM)
    torch.manual_seed(0)
    sample = module(z).latent[0]
    distance = torch.cdist(sample, module.codebook)  # (20000, K)
    assert distance.amin(1).median() < 1e-5
    share = torch.bincount(distance.argmin(1), minlength=K) / 20000
    torch.testing.assert_close(share, module.to_logits(z)[0, 0].softmax(-1), atol=0.02, rtol=0)
    module.eval()
    torch.testing.assert_close(module(z).latent, module.codebook[module.encode(z)])


def test_gumbel_by_gradcheck():
    for kl in ("token", "mean"):
        module = GumbelBottleneck(4, 3, kl=kl).double()
        z = tokens(shape=(2, 2, 3), dtype=torch.float64)

        def losses_and_sample(z, module=module):
            torch.manual_seed(0)
            found = module(z)
            return found.losses["kl"], found.latent

        assert torch.autograd.gradcheck(losses_and_sample, z)


# ---------------------------------------------------------------- what cannot be


def test_identity():
    z = tokens()
    passed = Identity()(z)
    assert passed.latent is z and passed.losses == {} == passed.diagnostics


VQ, VAE, DVAE = partial(VectorQuantizer, 8, 4), partial(GaussianBottleneck, 4), GumbelBottleneck


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VectorQuantizer(0, 4), "codebook_size is 0: wanted a number >= 1"),
        (lambda: VectorQuantizer(8, 0), "dim is 0"),
        (lambda: VQ(alpha=-1.0), "alpha is -1.0: wanted a number >= 0"),
        (lambda: VQ(beta=math.nan), "beta is nan"),
        (lambda: VQ(beta=float("inf")), "beta is inf"),
        (lambda: VQ(epsilon=-1e-5), "epsilon is -1e-05"),
        (lambda: VQ(ema=1.0), "ema is 1.0: wanted a number between 0 and 1, or None"),
        (lambda: VQ(restart=0.0), "restart is 0.0"),
        (lambda: VQ(restart=-0.5), "restart is -0.5"),
        (lambda: VQ(init="normal"), "init is 'normal', wanted 'uniform', 'small', 'sonnet' or 'k"),
        (lambda: FiniteScalarQuantizer(0), "dim is 0"),
        (lambda: FiniteScalarQuantizer(4, ()), r"levels is \(\): wanted at least one number, each"),
        (lambda: FiniteScalarQuantizer(4, (8, 1)), r"levels is \(8, 1\)"),
        (lambda: VAE(rate=0.0), "rate is 0.0: wanted a number > 0 with free_bits 0, or None"),
        (lambda: VAE(rate=math.nan), "rate is nan"),
        (lambda: VAE(rate=9.0, free_bits=0.1), "rate is 9.0: wanted"),
        (lambda: GaussianBottleneck(0), "dim is 0"),
        (lambda: VAE(beta=-1.0), "beta is -1.0"),
        (lambda: VAE(free_bits=-1.0), "free_bits is -1.0"),
        (lambda: VAE(warmup_steps=-1), "warmup_steps is -1"),
        (
            lambda: VAE(warmup_steps=101, total_steps=100),
            "warmup_steps is 101, but the training has only 100 steps: lower warmup_steps, or",
        ),
        (lambda: DVAE(0, 4), "codebook_size is 0"),
        (lambda: DVAE(8, 4, beta=-1.0), "beta is -1.0"),
        (lambda: DVAE(8, 4, temperature=0.0), "wanted both > 0, the final one not above the first"),
        (lambda: DVAE(8, 4, 0.5, 0.6), "temperature is 0.5, final_temperature 0.6"),
        (lambda: DVAE(8, 4, 0.5, -0.1), "temperature is 0.5, final_temperature -0.1"),
        (lambda: DVAE(8, 4, anneal_steps=9, total_steps=8), "anneal_steps is 9"),
        (lambda: DVAE(8, 4, warmup_steps=9, total_steps=8), "warmup_steps is 9"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_code_of_one_dimension_is_accepted():
    for module in (VectorQuantizer(1, 1), GaussianBottleneck(1), GumbelBottleneck(1, 1),
                   ResidualQuantizer(2, 1, 1), FiniteScalarQuantizer(1, (2,))):  # fmt: skip
        assert module(tokens(shape=(2, 3, 1))).latent.shape == (2, 3, 1)


def test_defaults():
    """Those of the papers: a change of one changes what a user gets who names none."""
    defaults = [
        {p.name: p.default for p in signature(kind).parameters.values() if p.default is not p.empty}
        for kind in (VectorQuantizer, GaussianBottleneck, GumbelBottleneck, FiniteScalarQuantizer)
    ]
    assert defaults == [
        {"alpha": 1.0, "beta": 0.25, "init": "small", "ema": None, "epsilon": 1e-5,
         "restart": None, "cosine": False, "rotation": False},
        {"beta": 1e-3, "warmup_steps": 0, "free_bits": 0.0, "total_steps": None, "rate": None},
        {"temperature": 1.0, "final_temperature": 1 / 16, "anneal_steps": 0, "beta": 1e-3,
         "warmup_steps": 0, "kl": "token", "total_steps": None},
        {"levels": (8, 8, 8)},
    ]  # fmt: skip
    assert signature(VectorQuantizer._kmeans).parameters["iterations"].default == 10


def test_a_schedule_as_long_as_the_training_is_accepted():
    GaussianBottleneck(4, warmup_steps=100, total_steps=100)
    GumbelBottleneck(8, 4, anneal_steps=100, warmup_steps=100, total_steps=100)
