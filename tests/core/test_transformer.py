"""`serplib.transformer`: SeRP-Transformer, and what each choice of its configuration changes."""

import dataclasses

import pytest
import torch

from serplib.geometry import chamfer_l2, gather
from serplib.perturbation import Perturbation
from serplib.seeding import named_generator
from serplib.transformer import (
    Attention,
    Block,
    DropPath,
    SerpTransformer,
    TransformerConfig,
    TransformerEncoder,
    patch_chamfer,
)

TINY = TransformerConfig(
    num_centers=5,
    patch_size=7,
    dim=6,
    latent_dim=10,
    encoder_depth=2,
    decoder_depth=2,
    encoder_heads=2,
    decoder_heads=3,
    mlp_ratio=2,
    token_widths=(4, 5, 6),
)
ADD = {"fusion": "add", "positions_every_block": True}


def twins(batch=3, num_points=40, dtype=torch.float32):
    clean = torch.randn(batch, num_points, 3, generator=named_generator("cloud"), dtype=dtype)
    perturbed, touched, _ = Perturbation(4, 6, 0.2)(clean, named_generator("noise"))
    return perturbed, clean, touched


def tiny(seed=0, **changes):
    """A tiny model, in evaluation, its norms, [CLS] and BatchNorm not the initial ones."""
    torch.manual_seed(seed)
    model = SerpTransformer(dataclasses.replace(TINY, **changes)).eval()
    generator = named_generator("settled", seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:  # biases and all of the norms
            noise = 0.3 * torch.rand(tensor.shape, generator=generator)
            tensor.add_(noise if name.endswith(("weight", "running_var")) else noise - 0.1)
        elif "cls" in name:
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return model


# ---------------------------------------------------------------- shapes, as in the paper


@pytest.fixture(scope="module")
def paper():
    torch.manual_seed(0)
    return SerpTransformer().eval()


@torch.no_grad()
def test_shapes_of_the_paper(paper):
    clouds = torch.randn(1, 1024, 3, generator=named_generator("paper"))
    patches = paper.encoder.patches(clouds)
    tokens, positions = paper.encoder.embedding(patches.inputs, patches.centers)
    assert tokens.shape == (1, 65, 768) and positions.shape == (1, 65, 384)  # Eq. 5 to 7
    latent, _ = paper.encoder.encode(patches)
    assert latent.shape == (1, 65, 384)  # Eq. 8
    assert paper.decoder(latent, positions).shape == (1, 64, 32, 3)  # Eq. 10
    assert paper.encoder(clouds).shape == (1, 384)
    assert paper.restore(clouds).shape == (1, 2048, 3)


def test_layers_of_the_paper(paper):
    assert len(paper.encoder.blocks) == 12 and len(paper.decoder.blocks) == 4
    assert paper.encoder.blocks[0].norm1.normalized_shape == (768,)
    assert paper.decoder.blocks[0].norm1.normalized_shape == (384,)
    assert paper.encoder.to_latent.out_features == 384  # 768 down to l
    assert paper.decoder.head.out_features == 96  # 3n


@pytest.mark.parametrize("pooling", ["cls", "cls_max"])
@pytest.mark.parametrize("fusion", [{}, ADD], ids=["concat", "add"])
def test_shapes_of_a_tiny_one(pooling, fusion):
    model = tiny(pooling=pooling, **fusion)
    perturbed, clean, _ = twins()
    predicted, patches = model(perturbed, clean)
    assert predicted.shape == patches.targets.shape == (3, 5, 7, 3)
    latent, positions = model.encoder.encode(patches)
    assert latent.shape == (3, 6, 10) and positions.shape == (3, 6, 6)
    assert model.encoder(perturbed).shape == (3, model.encoder.feature_dim)
    assert model.encoder.feature_dim == (10 if pooling == "cls" else 20)


def test_the_latent_is_smaller_or_larger_only_where_it_says_so():
    assert isinstance(tiny(latent_dim=12).encoder.to_latent, torch.nn.Identity)  # 2d = l
    assert isinstance(tiny(latent_dim=6).decoder.from_latent, torch.nn.Identity)  # d = l
    assert isinstance(tiny(latent_dim=6).encoder.to_latent, torch.nn.Linear)


# ---------------------------------------------------------------- attention, blocks


def test_attention_is_the_softmax_by_hand():
    torch.manual_seed(0)
    layer = Attention(6, 2, qkv_bias=True).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64, generator=named_generator("attention"))
    out = torch.empty(2, 5, 6, dtype=torch.float64)
    for b in range(2):
        projected = x[b] @ layer.qkv.weight.T + layer.qkv.bias  # (5, 18): q, k, v side by side
        for head in range(2):
            q, k, v = (projected[:, 6 * i + 3 * head : 6 * i + 3 * head + 3] for i in range(3))
            scores = q @ k.T / 3**0.5
            weights = scores.exp() / scores.exp().sum(1, keepdim=True)
            out[b, :, 3 * head : 3 * head + 3] = weights @ v
            torch.testing.assert_close(layer.weights(x)[b, head], weights, rtol=0, atol=1e-12)
    out = out @ layer.out.weight.T + layer.out.bias
    torch.testing.assert_close(layer(x), out, rtol=0, atol=1e-12)


def test_attention_weights_sum_to_one_and_nothing_is_masked():
    torch.manual_seed(0)
    weights = Attention(6, 3, qkv_bias=False).weights(torch.randn(2, 4, 6))
    assert weights.shape == (2, 3, 4, 4)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4))


def test_a_block_normalises_before_its_branches():
    torch.manual_seed(0)
    block = Block(6, 2, 3, True, 0.0).double()
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    middle = x + block.attention(block.norm1(x))
    wanted = middle + block.mlp(block.norm2(middle))
    assert block(x).equal(wanted)
    assert block.mlp[0].out_features == 18


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="encoder_heads is 4: must divide the encoder's width 6"):
        TransformerConfig(dim=6, encoder_heads=4, decoder_heads=3, **ADD)
    assert tiny(encoder_heads=4).encoder.embedding.width == 12  # token and position side by side


def test_heads_change_the_result_for_the_same_weights():
    perturbed, *_ = twins()
    one, two = tiny(encoder_heads=2), tiny(encoder_heads=3)
    two.load_state_dict(one.state_dict())
    assert not one.encoder(perturbed).allclose(two.encoder(perturbed))


def test_drop_path_skips_whole_samples_and_keeps_the_mean():
    layer = DropPath(0.3)
    x = torch.ones(20_000, 2, 3)
    assert layer.eval()(x) is x
    torch.manual_seed(0)
    y = layer.train()(x)
    per_sample = y[:, 0, 0]
    assert y.equal(per_sample[:, None, None].expand_as(y))
    values = per_sample.unique().tolist()
    assert values == [0.0, pytest.approx(1 / 0.7)]
    assert abs((per_sample == 0).double().mean().item() - 0.3) < 0.015
    assert abs(y.mean().item() - 1) < 0.02
    assert DropPath(0.0).train()(x) is x


def test_drop_path_rises_with_depth():
    model = tiny(drop_path=0.1, encoder_depth=5, decoder_depth=3)
    assert [b.drop_path.p for b in model.encoder.blocks] == pytest.approx(
        [0, 0.025, 0.05, 0.075, 0.1], abs=1e-7
    )
    assert [b.drop_path.p for b in model.decoder.blocks] == pytest.approx([0, 0.05, 0.1], abs=1e-7)
    assert {b.drop_path.p for b in tiny().encoder.blocks} == {0.0}


def test_drop_path_changes_training_and_not_evaluation():
    perturbed, *_ = twins(8)
    without, with_path = tiny(drop_path=0.0), tiny(drop_path=0.9)
    assert without.encoder(perturbed).equal(with_path.encoder(perturbed))
    for model in (without, with_path):
        for module in model.modules():  # all but BatchNorm, whose training would differ anyway
            if isinstance(module, DropPath):
                module.train()
    torch.manual_seed(0)
    assert without.encoder(perturbed).equal(without.encoder(perturbed))
    assert not with_path.encoder(perturbed).equal(with_path.encoder(perturbed))


# ---------------------------------------------------------------- one test a choice


def latent_of(model, points):
    return model.encoder.encode(model.encoder.patches(points))[0]


def test_encoder_norm():
    perturbed, *_ = twins()
    model = tiny(latent_dim=12)  # no projection: the latent is the norm's own output
    torch.nn.init.ones_(model.encoder.norm.weight)
    torch.nn.init.zeros_(model.encoder.norm.bias)
    latent = latent_of(model, perturbed)
    assert latent.mean(-1).abs().max() < 1e-6
    assert (latent.var(-1, unbiased=False) - 1).abs().max() < 1e-3
    plain = tiny(latent_dim=12, encoder_norm=False)
    plain.load_state_dict(model.state_dict(), strict=False)
    raw = latent_of(plain, perturbed)
    assert raw.mean(-1).abs().max() > 0.01
    torch.testing.assert_close(model.encoder.norm(raw), latent)


@pytest.mark.parametrize("bias", [True, False])
def test_qkv_bias(bias):
    model = tiny(qkv_bias=bias)
    for block in (*model.encoder.blocks, *model.decoder.blocks):
        assert (block.attention.qkv.bias is not None) is bias
        assert block.attention.out.bias is not None


def test_fusion_concat_puts_the_position_beside_the_token_and_add_onto_it():
    perturbed, *_ = twins()
    concat, add = tiny(), tiny(**ADD)
    assert concat.encoder.blocks[0].norm1.normalized_shape == (12,)
    assert add.encoder.blocks[0].norm1.normalized_shape == (6,)
    patches = add.encoder.patches(perturbed)
    tokens, positions = add.encoder.embedding(patches.inputs, patches.centers)
    first = []
    add.encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: first.append(inputs[0]))
    add.encoder.encode(patches)
    assert first[0].equal(tokens + positions)


def inputs_of_blocks(blocks, call):
    """What goes into each block and what comes out, during ``call()``."""
    seen = []
    hooks = [
        b.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
        for b in blocks
    ]
    call()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("every_block", [True, False])
def test_positions_every_block(every_block):
    perturbed, *_ = twins()
    model = tiny(**ADD) if every_block else tiny()
    patches = model.encoder.patches(perturbed)
    _, positions = model.encoder.embedding(patches.inputs, patches.centers)
    seen = inputs_of_blocks(model.encoder.blocks, lambda: model.encoder.encode(patches))
    wanted = seen[0][1] + positions if every_block else seen[0][1]
    assert seen[1][0].equal(wanted)


@pytest.mark.parametrize("given", [True, False])
def test_decoder_positions(given):
    """The paper's decoder has none: its output for a latent is one, whatever the positions."""
    perturbed, *_ = twins()
    model = tiny(decoder_positions=given)
    latent, positions = model.encoder.encode(model.encoder.patches(perturbed))
    here, elsewhere = model.decoder(latent, positions), model.decoder(latent, positions + 1)
    assert here.equal(elsewhere) is not given
    seen = inputs_of_blocks(model.decoder.blocks, lambda: model.decoder(latent, positions))
    start = model.decoder.from_latent(latent)
    assert seen[0][0].equal(start + positions if given else start)
    assert seen[1][0].equal(seen[0][1] + positions if given else seen[0][1])


@pytest.mark.parametrize("name", ["normalize", "target_frame"])
def test_frames_reach_the_patches(name):
    perturbed, clean, _ = twins()
    value = {"normalize": "center", "target_frame": "own"}[name]
    one = tiny().encoder.patches(perturbed, clean)
    two = tiny(**{name: value}).encoder.patches(perturbed, clean)
    assert one.inputs.equal(two.inputs) is (name == "target_frame")
    assert not one.targets.equal(two.targets)


@pytest.mark.parametrize("name", ["cls_std", "cls_position_std"])
def test_deviation_of_cls(name):
    torch.manual_seed(0)
    parameter = name.removesuffix("_std")
    for deviation in (0.0, 0.02, 1.0):
        config = dataclasses.replace(TINY, dim=600, **{name: deviation})
        got = getattr(TransformerEncoder(config).embedding, parameter).std().item()
        assert got == pytest.approx(deviation, rel=0.15)


def test_token_widths():
    token = tiny(token_widths=(3, 8, 9)).encoder.embedding.token
    assert (token.first.out_features, token.local.out_features) == (3, 8)
    assert token.wide.out_features == 9


@pytest.mark.parametrize("head", ["token", "pair"])
def test_head_pair_mixes_neighbors(head):
    """Which patches change when one token does: its own, or also the one behind."""
    model = tiny(head=head)
    model.decoder.blocks = torch.nn.ModuleList()  # only the head, no attention that mixes
    latent = torch.randn(1, 6, 10, generator=named_generator("latent"))
    before = model.decoder(latent, None)
    changed = []
    for token in range(6):
        other = latent.clone()
        other[0, token] = torch.randn(10, generator=named_generator(token))
        moved = (model.decoder(other, None) != before).any(-1).any(-1)[0]
        changed.append(moved.nonzero()[:, 0].tolist())
    if head == "token":
        assert changed == [[], [0], [1], [2], [3], [4]]
    else:
        assert changed == [[0], [0, 1], [1, 2], [2, 3], [3, 4], [4]]


def test_head_gives_each_point_three_neighbouring_numbers():
    model = tiny()
    latent = torch.randn(1, 6, 10, generator=named_generator("latent"))
    torch.nn.init.zeros_(model.decoder.head.weight)
    model.decoder.head.bias.data = torch.arange(21.0)
    assert model.decoder(latent, None)[0, 3].tolist() == torch.arange(21.0).view(7, 3).tolist()


def test_loss_patch_takes_the_mean_over_patches():
    a = torch.randn(2, 3, 4, 3, generator=named_generator("a"))
    b = torch.randn(2, 3, 4, 3, generator=named_generator("b"))
    wanted = torch.stack([chamfer_l2(a[:, i], b[:, i]) for i in range(3)]).mean()
    torch.testing.assert_close(patch_chamfer(a, b, "patch"), wanted)
    assert patch_chamfer(a, b).equal(patch_chamfer(a, b, "patch"))
    union = chamfer_l2(a.reshape(2, 12, 3), b.reshape(2, 12, 3))
    torch.testing.assert_close(patch_chamfer(a, b, "union"), union)
    with pytest.raises(ValueError, match="loss is 'unoin', wanted 'patch' or 'union'"):
        patch_chamfer(a, b, "unoin")


def test_loss_union_is_blind_to_which_patch_is_which():
    perturbed, clean, touched = twins()
    for loss in ("union", "patch"):
        model = tiny(loss=loss)
        patches = model.encoder.patches(perturbed, clean)
        shuffled = patches.targets[:, [1, 2, 3, 4, 0]]
        model.forward = lambda *_, s=shuffled, p=patches: (s, p)
        total = model.losses(perturbed, clean, touched)["total"].item()
        assert total == 0 if loss == "union" else total > 0.01


@pytest.mark.parametrize("pooling", ["cls", "cls_max"])
def test_pooling(pooling):
    perturbed, *_ = twins()
    model = tiny(pooling=pooling)
    latent = latent_of(model, perturbed)
    features = model.encoder(perturbed)
    assert features[:, :10].equal(latent[:, 0])
    if pooling == "cls_max":
        assert features[:, 10:].equal(latent[:, 1:].max(1).values)  # [CLS] has no part in it
    else:
        assert features.shape == (3, 10)


# ---------------------------------------------------------------- order, batch


def test_features_do_not_depend_on_the_order_of_the_points_but_for_where_fps_starts():
    model = tiny(pooling="cls_max").double()
    perturbed = twins(dtype=torch.float64)[0]
    order = torch.randperm(39, generator=named_generator("order")) + 1
    order = torch.cat([torch.tensor([0]), order])  # the first point stays: FPS starts there
    torch.testing.assert_close(
        model.encoder(perturbed[:, order]), model.encoder(perturbed), rtol=0, atol=1e-12
    )
    assert not model.encoder(perturbed.roll(1, 1)).allclose(model.encoder(perturbed))


def test_the_order_of_the_patches_does_not_matter_to_the_encoder():
    model = tiny().double()
    patches = model.encoder.patches(twins(dtype=torch.float64)[0])
    order = [3, 0, 4, 1, 2]
    mixed = patches._replace(inputs=patches.inputs[:, order], centers=patches.centers[:, order])
    latent, _ = model.encoder.encode(patches)
    got, _ = model.encoder.encode(mixed)
    torch.testing.assert_close(got[:, 0], latent[:, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(got[:, 1:], latent[:, 1:][:, order], rtol=0, atol=1e-12)


def test_clouds_of_a_batch_do_not_see_each_other_in_evaluation():
    model = tiny().double()
    perturbed = twins(dtype=torch.float64)[0]
    together = model(perturbed)[0]
    for i in range(3):
        alone = model(perturbed[i : i + 1])[0]
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-12)


def test_the_clean_cloud_is_not_seen_by_the_network():
    perturbed, clean, _ = twins()
    model = tiny(target_frame="own")
    assert model(perturbed, clean)[0].equal(model(perturbed, clean + 1)[0])
    assert model(perturbed)[0].equal(model(perturbed, clean)[0])


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("loss", ["patch", "union"])
@pytest.mark.parametrize("frame", ["own", "input"])
def test_losses_are_the_chamfer_to_the_targets(loss, frame):
    perturbed, clean, touched = twins()
    model = tiny(loss=loss, target_frame=frame)
    predicted, patches = model(perturbed, clean)
    losses = model.losses(perturbed, clean, touched)
    assert set(losses) == {"total"}
    assert losses["total"].equal(patch_chamfer(predicted, patches.targets, loss))


class Total(torch.nn.Module):
    """The total loss as a function of the weights, through functional_call."""

    def __init__(self, model, perturbed, clean):
        super().__init__()
        self.model, self.perturbed, self.clean = model, perturbed, clean

    def forward(self):
        return self.model.losses(self.perturbed, self.clean, None)["total"]


@pytest.mark.parametrize(
    "changes", [{}, {"loss": "union", "head": "pair", "decoder_positions": True, **ADD}]
)
def test_gradcheck_of_the_losses(changes):
    """By every parameter of a tiny double model."""
    perturbed, clean, _ = twins(1, 20, torch.float64)
    small = {"num_centers": 2, "patch_size": 3, "encoder_depth": 1, "decoder_depth": 1}
    module = Total(tiny(**(small | changes)).double(), perturbed, clean)
    names = [name for name, _ in module.named_parameters()]

    def total(*parameters):
        weights = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(module, weights, ())

    weights = tuple(p.detach().requires_grad_() for p in module.parameters())
    assert total(*weights).dtype == torch.float64
    assert torch.autograd.gradcheck(total, weights, fast_mode=True)


@pytest.mark.parametrize("changes", [{}, {"head": "pair", "decoder_positions": True, **ADD}])
def test_losses_reach_every_parameter(changes):
    model = tiny(**changes).train()
    model.losses(*twins())["total"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


# ---------------------------------------------------------------- restoring


ALL_FRAMES = [(n, t) for n in ("center", "mean_std") for t in ("own", "input", "origin", "cloud")]
OWN_FRAMES = [(n, t) for n, t in ALL_FRAMES if t in ("own", "input")]


@pytest.mark.parametrize(("normalize", "frame"), ALL_FRAMES)
def test_restore_puts_the_predicted_patches_back(normalize, frame):
    perturbed, clean, _ = twins()
    model = tiny(normalize=normalize, target_frame=frame)
    own = model.encoder.patches(perturbed)  # the frame of what the network was given
    predicted, cut = model(perturbed, clean)
    wanted = (predicted * own.scale + own.origin).flatten(1, 2)
    assert model.restore(perturbed).equal(wanted)
    assert model.restore(perturbed, clean).equal(wanted)  # the clean cloud is not looked at
    origin = own.origin
    if frame != "cloud":
        origin = origin + (cut.clean_centers - cut.centers)[:, :, None]
    wanted = (predicted * own.scale + origin).flatten(1, 2)
    assert model.restore(perturbed, clean, centers="clean").equal(wanted)
    assert not model.restore(perturbed).requires_grad


@pytest.mark.parametrize(("normalize", "frame"), OWN_FRAMES)
def test_a_network_that_copies_its_input_restores_the_input(normalize, frame):
    perturbed, _, _ = twins()
    model = tiny(normalize=normalize, target_frame=frame)
    patches = model.encoder.patches(perturbed)
    model.forward = lambda *_: (patches.inputs, patches)
    wanted = gather(perturbed, patches.index.flatten(1))
    torch.testing.assert_close(model.restore(perturbed), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("normalize", ["center", "mean_std"])
def test_a_perfect_network_restores_the_clean_cloud(normalize):
    """With the input's frame nothing has to be guessed."""
    perturbed, clean, _ = twins()
    model = tiny(normalize=normalize, target_frame="input")
    patches = model.encoder.patches(perturbed, clean)
    model.forward = lambda *_: (patches.targets, patches)
    wanted = gather(clean, patches.index.flatten(1))
    torch.testing.assert_close(model.restore(perturbed), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("centers", ["corrupted", "clean"])
def test_a_perfect_network_restores_the_frame_of_the_cloud(centers):
    """A cloud turned and shifted as a whole: targets in the clean frame need no origin."""
    perturbed, clean, _ = twins()
    model = tiny(target_frame="cloud")
    patches = model.encoder.patches(2 * perturbed + 1, clean)
    model.forward = lambda *_: (patches.targets, patches)
    wanted = gather(clean, patches.index.flatten(1))
    assert model.restore(2 * perturbed + 1, clean, centers).equal(wanted)


def test_clean_centers_hand_the_true_ones_over():
    """The authors' figure: a network that predicts nothing still draws c true points."""
    perturbed, clean, _ = twins()
    model = tiny(normalize="center", target_frame="own")
    patches = model.encoder.patches(perturbed, clean)
    cut = model.encoder.patches(perturbed)
    model.forward = lambda *_: (torch.zeros_like(cut.targets), cut)
    got = model.restore(perturbed, clean, centers="clean")
    wanted = patches.clean_centers[:, :, None].expand(-1, -1, 7, -1).flatten(1, 2)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
    assert not patches.clean_centers.allclose(patches.centers)
    torch.testing.assert_close(
        model.restore(perturbed, clean, centers="corrupted"),
        patches.centers[:, :, None].expand(-1, -1, 7, -1).flatten(1, 2),
    )


def test_restore_names_what_is_wrong():
    perturbed, *_ = twins()
    with pytest.raises(ValueError, match="centers is 'true', wanted 'corrupted' or 'clean'"):
        tiny().restore(perturbed, centers="true")
    with pytest.raises(ValueError, match="centers='clean' needs the clean clouds"):
        tiny().restore(perturbed, centers="clean")


# ---------------------------------------------------------------- bad settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "conv"}, "head is 'conv'"),
        ({"loss": "all"}, "loss is 'all'"),
        ({"pooling": "max"}, "pooling is 'max'"),
        ({"normalize": "std"}, "normalize is 'std'"),
        ({"target_frame": "clean"}, "target_frame is 'clean'"),
        ({"fusion": "sum"}, "fusion is 'sum'"),
        ({"positions_every_block": True}, "'concat' needs False"),
        ({"fusion": "add"}, "'add' needs positions_every_block=True"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**arguments)


def test_too_small_a_cloud_is_named():
    with pytest.raises(ValueError, match=r"num_samples is 5, wanted 1\.\.4"):
        tiny()(torch.zeros(1, 4, 3))
