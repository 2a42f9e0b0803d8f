"""`patches`: patches with clean partners, the token PointNet, and the encoder's input."""

import pytest
import torch
from torch.nn import functional as F

from serplib.geometry import farthest_point_sample, gather, knn
from serplib.patches import Embedding, PositionMLP, TokenPointNet, make_patches, stitch
from serplib.perturbation import Perturbation
from serplib.seeding import named_generator

FRAMES = [(n, t) for n in ("center", "mean_std") for t in ("own", "input")]


def twins(batch=2, num_points=120, dtype=torch.float64):
    """A perturbed and a clean cloud, ``(batch, num_points, 3)`` each."""
    clean = torch.randn(batch, num_points, 3, generator=named_generator("cloud"), dtype=dtype)
    return Perturbation(10, 12, 0.1)(clean, named_generator("noise")).points, clean


def settled(module, dtype=torch.float64):
    """In evaluation, with BatchNorm statistics and weights that are not the initial ones."""
    generator = named_generator("settled")
    for name, tensor in module.state_dict().items():
        if name.endswith("running_mean") or name.endswith("norm.bias"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        elif name.endswith("running_var") or name.endswith("norm.weight"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module.to(dtype).eval()


# ---------------------------------------------------------------- patches


def test_shapes():
    points, clean = twins(dtype=torch.float32)
    p = make_patches(points, 8, 16, clean)
    assert p.inputs.shape == p.targets.shape == (2, 8, 16, 3)
    assert p.centers.shape == p.clean_centers.shape == (2, 8, 3)
    assert p.origin.shape == (2, 8, 1, 3) and p.scale.shape == (2, 8, 1, 1)
    assert p.index.shape == (2, 8, 16) and p.index.dtype == torch.int64
    assert p.inputs.dtype == p.targets.dtype == torch.float32


def test_the_papers_patches():
    cloud = torch.randn(1, 1024, 3, generator=named_generator("paper"))
    assert make_patches(cloud, 64, 32).inputs.shape == (1, 64, 32, 3)


@pytest.mark.parametrize(("normalize", "frame"), FRAMES)
def test_centers_and_neighbors_are_those_of_the_corrupted_cloud(normalize, frame):
    points, clean = twins()
    p = make_patches(points, 8, 16, clean, normalize, frame)
    chosen = farthest_point_sample(points, 8)
    assert not chosen.equal(farthest_point_sample(clean, 8))  # or this would show nothing
    assert p.index.equal(knn(gather(points, chosen), points, 16))
    assert p.centers.equal(gather(points, chosen))
    assert p.clean_centers.equal(gather(clean, chosen))
    assert p.index[..., 0].equal(chosen)  # a centre is its own nearest point


@pytest.mark.parametrize(("normalize", "frame"), FRAMES)
def test_targets_are_the_clean_points_of_the_same_index(normalize, frame):
    points, clean = twins()
    p = make_patches(points, 8, 16, clean, normalize, frame)
    wanted = gather(clean, p.index)
    torch.testing.assert_close(p.targets * p.scale + p.origin, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("normalize", "frame"), FRAMES)
def test_stitch_inverts(normalize, frame):
    points, clean = twins()
    p = make_patches(points, 8, 16, clean, normalize, frame)
    cloud = stitch(p.targets, p.origin, p.scale)
    assert cloud.shape == (2, 128, 3)
    torch.testing.assert_close(cloud, gather(clean, p.index.flatten(1)), rtol=0, atol=1e-14)


def test_stitch_by_hand():
    patches = torch.tensor([[[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 0]]]])  # (1, 2, 2, 3)
    origin = torch.tensor([[[[10.0, 0, 0]], [[0, 20, 0]]]])
    scale = torch.tensor([[[[2.0]], [[3.0]]]])
    wanted = [[12.0, 0, 0], [10, 2, 0], [0, 20, 3], [0, 20, 0]]
    assert stitch(patches, origin, scale)[0].tolist() == wanted


def test_center_subtracts_the_center_and_leaves_the_scale():
    points, clean = twins()
    own = make_patches(points, 8, 16, clean, "center", "own")
    assert own.inputs.equal(gather(points, own.index) - own.centers[:, :, None])
    assert own.targets.equal(gather(clean, own.index) - own.clean_centers[:, :, None])
    assert own.inputs[:, :, 0].equal(torch.zeros(2, 8, 3, dtype=torch.float64))
    assert own.scale.equal(torch.ones(2, 8, 1, 1, dtype=torch.float64))
    other = make_patches(points, 8, 16, clean, "center", "input")
    assert other.inputs.equal(own.inputs)
    assert other.targets.equal(gather(clean, own.index) - own.centers[:, :, None])


def test_mean_std_gives_mean_zero_and_deviation_one():
    points, clean = twins()
    p = make_patches(points, 8, 16, clean, "mean_std", "own")
    for patches in (p.inputs, p.targets):
        assert patches.mean(2).abs().max() < 1e-13
        spread = patches.square().mean((2, 3))  # one number a patch, over points and coordinates
        torch.testing.assert_close(spread, torch.ones_like(spread), rtol=0, atol=1e-12)
    # One number a patch: the axes keep their proportions.
    assert patches.std(2).std(-1).min() > 0.01


def test_target_frame_input_normalises_the_target_by_the_corrupted_patch():
    points, clean = twins()
    own = make_patches(points, 8, 16, clean, "mean_std", "own")
    other = make_patches(points, 8, 16, clean, "mean_std", "input")
    assert other.inputs.equal(own.inputs)
    assert not other.targets.equal(own.targets)
    noisy = gather(points, own.index)
    torch.testing.assert_close(other.origin, noisy.mean(2, keepdim=True), rtol=0, atol=1e-14)
    # A network that copies its input is then off by the noise, no more and no less.
    noise = noisy - gather(clean, own.index)
    torch.testing.assert_close(
        (other.inputs - other.targets) * other.scale, noise, rtol=0, atol=1e-14
    )
    # With "own" the frame itself gives away where the clean patch is.
    assert ((own.inputs - own.targets) * own.scale - noise).abs().max() > 1e-3


def test_target_frame_cloud_leaves_the_targets_where_they_were():
    points, clean = twins()
    p = make_patches(points, 8, 16, clean, "mean_std", "cloud")
    assert p.targets.equal(gather(clean, p.index))
    assert p.inputs.equal(make_patches(points, 8, 16, clean, "mean_std", "own").inputs)
    assert stitch(p.targets, p.origin, p.scale).equal(p.targets.flatten(1, 2))
    half = make_patches(points.float(), 8, 16, clean.float(), "center", "cloud")
    assert half.origin.shape == (len(points), 8, 1, 3) and half.scale.eq(1).all()


def test_target_frame_origin_takes_the_origin_of_the_corrupted_patch_and_the_unit_of_the_cloud():
    points, clean = twins()
    p = make_patches(points, 8, 16, clean, "mean_std", "origin")
    other = make_patches(points, 8, 16, clean, "mean_std", "input")
    assert p.inputs.equal(other.inputs) and p.origin.equal(other.origin)
    assert p.targets.equal(gather(clean, p.index) - other.origin) and p.scale.eq(1).all()
    torch.testing.assert_close(p.targets, other.targets * other.scale, rtol=0, atol=1e-14)


@pytest.mark.parametrize("frame", ["own", "input", "origin"])
@pytest.mark.parametrize("normalize", ["center", "mean_std"])
def test_patches_do_not_know_where_they_are(normalize, frame):
    points, clean = twins()
    move = torch.tensor([0.5, -0.25, 2.0], dtype=torch.float64)
    here = make_patches(points, 8, 16, clean, normalize, frame)
    there = make_patches(points + move, 8, 16, clean + move, normalize, frame)
    assert here.index.equal(there.index)
    torch.testing.assert_close(here.inputs, there.inputs, rtol=0, atol=1e-13)
    torch.testing.assert_close(here.targets, there.targets, rtol=0, atol=1e-13)
    torch.testing.assert_close(here.centers + move, there.centers, rtol=0, atol=0)


def test_mean_std_does_not_know_how_large_a_patch_is_and_center_does():
    points, clean = twins()
    for normalize, factor in (("mean_std", 1.0), ("center", 2.0)):
        small = make_patches(points, 8, 16, clean, normalize).inputs
        large = make_patches(2 * points, 8, 16, 2 * clean, normalize).inputs
        torch.testing.assert_close(large, factor * small, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("normalize", "frame"), FRAMES)
def test_without_a_clean_cloud_the_targets_are_the_inputs(normalize, frame):
    points, _ = twins()
    p = make_patches(points, 8, 16, None, normalize, frame)
    assert p.inputs.equal(p.targets) and p.centers.equal(p.clean_centers)


def test_a_patch_of_equal_points_is_finite():
    p = make_patches(torch.ones(1, 5, 3), 2, 4, normalize="mean_std")
    assert p.inputs.tolist() == torch.zeros(1, 2, 4, 3).tolist()
    assert stitch(p.targets, p.origin, p.scale).equal(torch.ones(1, 8, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalize": "std"}, "normalize is 'std'"),
        ({"target_frame": "clean"}, "target_frame is 'clean'"),
        ({"clean": torch.zeros(1, 9, 3)}, r"clean is \(1, 9, 3\), .* wanted the same shape"),
        ({"clean": torch.zeros(1, 11, 3)}, r"clean is \(1, 11, 3\), points \(1, 10, 3\)"),
        ({"num_centers": 11}, r"num_samples is 11, wanted 1\.\.10"),
        ({"patch_size": 11}, r"k is 11, wanted 1\.\.10"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_patches(**{"points": torch.zeros(1, 10, 3), "num_centers": 2, "patch_size": 3}
                     | arguments)  # fmt: skip


# ---------------------------------------------------------------- the token PointNet


def patches_for_tokens(dtype=torch.float64):
    return torch.randn(2, 5, 7, 3, generator=named_generator("patches"), dtype=dtype)


def test_a_token_does_not_depend_on_the_order_of_its_points():
    net = settled(TokenPointNet(6, (8, 10, 12)))
    patches = patches_for_tokens()
    order = torch.randperm(7, generator=named_generator("order"))
    torch.testing.assert_close(net(patches), net(patches[:, :, order]), rtol=0, atol=1e-13)


def test_a_token_does_not_depend_on_the_order_in_training_either():
    net = TokenPointNet(6, (8, 10, 12)).double().train()
    patches = patches_for_tokens()
    torch.testing.assert_close(net(patches), net(patches.flip(2)), rtol=0, atol=1e-12)


def test_tokens_of_a_cloud_depend_on_their_own_patch_only():
    net = settled(TokenPointNet(6, (8, 10, 12)))
    patches = patches_for_tokens()
    changed = patches.clone()
    changed[0, 2] += 1
    same = (net(patches) == net(changed)).all(-1)
    assert same.tolist() == [[True, True, False, True, True], [True] * 5]


def test_the_maximum_reaches_every_point():
    """Without its columns the tokens are those of a PointNet without the concatenation."""
    net = settled(TokenPointNet(6, (8, 10, 12)))
    before = net(patches_for_tokens())
    with torch.no_grad():
        net.wide.weight[:, :10] = 0  # [maximum; point]
    after = net(patches_for_tokens())
    assert not before.equal(after)
    x = net.local(norm_rows(net.first_norm, net.first(patches_for_tokens())).relu())
    x = norm_rows(net.wide_norm, x @ net.wide.weight[:, 10:].T + net.wide.bias).relu()
    torch.testing.assert_close(after, net.last(x).amax(2))


def test_a_token_by_its_equation():
    """Point by point: [maximum over the patch; own feature], and the maximum again."""
    net, patches = settled(TokenPointNet(6, (8, 10, 12))), patches_for_tokens()
    tokens = net(patches)
    for b in range(2):
        for c in range(5):
            points = patches[b, c]  # (7, 3)
            local = net.local(net.first_norm(net.first(points)).relu())  # (7, 10)
            whole = torch.stack([local.max(0).values] * 7)  # (7, 10)
            wide = net.wide_norm(net.wide(torch.cat([whole, local], 1))).relu()  # (7, 12)
            torch.testing.assert_close(tokens[b, c], net.last(wide).max(0).values)


def norm_rows(norm, x):
    return norm(x.flatten(0, -2)).view(x.shape)


def test_widths_of_the_paper_sized_token_net():
    net = TokenPointNet(384)
    assert [net.first.out_features, net.local.out_features] == [128, 256]
    assert (net.wide.in_features, net.wide.out_features) == (512, 512)
    assert net.last.out_features == 384


# ---------------------------------------------------------------- embedding


@pytest.mark.parametrize(("fusion", "width"), [("concat", 12), ("add", 6)])
def test_widths_of_the_embedding_and_cls_first(fusion, width):
    net = settled(Embedding(6, fusion, 0.5, 0.5, (8, 10, 12)))
    patches = patches_for_tokens()
    centers = torch.randn(2, 5, 3, dtype=torch.float64, generator=named_generator("centers"))
    tokens, positions = net(patches, centers)
    assert net.width == width
    assert tokens.shape == (2, 6, width) and positions.shape == (2, 6, 6)
    for cloud in range(2):
        assert tokens[cloud, 0, :6].equal(net.cls[0, 0])
        assert positions[cloud, 0].equal(net.cls_position[0, 0])
    torch.testing.assert_close(tokens[:, 1:, :6], net.token(patches), rtol=0, atol=1e-13)
    torch.testing.assert_close(positions[:, 1:], net.position(centers), rtol=0, atol=1e-13)
    if fusion == "concat":  # [token; position], Eq. 6
        assert tokens[..., 6:].equal(positions)


def test_add_leaves_the_positions_to_the_blocks():
    net = settled(Embedding(6, "add", 0.5, 0.5, (8, 10, 12)))
    patches, centers = patches_for_tokens(), torch.zeros(2, 5, 3, dtype=torch.float64)
    assert net(patches, centers)[0].equal(net(patches, centers + 1)[0])
    assert not net(patches, centers)[1].equal(net(patches, centers + 1)[1])


def test_initial_deviation_of_cls_and_its_position():
    torch.manual_seed(0)
    net = Embedding(2000, "concat", 0.02, 1.0, (4, 4, 4))
    assert 0.018 < net.cls.std().item() < 0.022
    assert 0.9 < net.cls_position.std().item() < 1.1
    assert abs(net.cls_position.mean().item()) < 0.1 and abs(net.cls.mean().item()) < 0.01
    assert Embedding(10, "concat", 0.0, 1.0, (4, 4, 4)).cls.count_nonzero() == 0


def test_defaults_of_the_embedding():
    torch.manual_seed(0)
    net = Embedding(2000)
    assert net.fusion == "concat"
    assert 0.018 < net.cls.std().item() < 0.022
    assert 0.018 < net.cls_position.std().item() < 0.022
    assert [net.token.first.out_features, net.token.local.out_features] == [128, 256]
    assert net.token.wide.out_features == 512


def test_cls_and_its_position_are_learnt():
    net = Embedding(6, "concat", token_widths=(8, 10, 12))
    tokens, _ = net(patches_for_tokens(torch.float32), torch.zeros(2, 5, 3))
    tokens[:, 0].sum().backward()
    assert net.cls.grad.flatten().tolist() == [2.0] * 6
    assert net.cls_position.grad.flatten().tolist() == [2.0] * 6


def test_position_mlp_is_linear_gelu_linear():
    net = PositionMLP(6, 5).double()
    centers = torch.randn(2, 4, 3, dtype=torch.float64, generator=named_generator("mlp"))
    wanted = F.gelu(centers @ net[0].weight.T + net[0].bias) @ net[2].weight.T + net[2].bias
    torch.testing.assert_close(net(centers), wanted, rtol=1e-12, atol=1e-14)
    assert PositionMLP(384)[0].out_features == 128
