"""`point_mae` and `evaluation.leakage`: Point-MAE, and what positions give away."""

import dataclasses

import pytest
import torch

from serplib.classifier import Classifier, autoencoder
from serplib.evaluation.leakage import PositionOnlyDecoder, leakage, swap_decoder_input
from serplib.evaluation.reconstruction import restoration
from serplib.geometry import chamfer_l2
from serplib.patches import make_patches
from serplib.perturbation import Perturbation
from serplib.point_mae import PointMAE, PointMAEConfig
from serplib.presets import PAPER, QUICK, Optim, Preset, build
from serplib.pretext import Corruption
from serplib.seeding import named_generator
from serplib.training import Pretext, pretrain, validate_pretext
from serplib.transformer import SerpTransformer, TransformerConfig, patch_chamfer

TINY = TransformerConfig(
    num_centers=8,
    patch_size=6,
    dim=12,
    latent_dim=10,
    encoder_depth=2,
    decoder_depth=1,
    encoder_heads=2,
    decoder_heads=2,
    mlp_ratio=2,
    token_widths=(4, 5, 6),
)
STILL = Corruption(Perturbation(2, 4, 0.0), num_points=48)


def clouds(num=3, num_points=48, seed=0):
    return torch.randn(num, num_points, 3, generator=named_generator(seed, "clouds"))


def islands(batch=2, seed=0):
    """Eight groups of six points, far from each other: patches that share no point.

    The first point of each is a corner of a cube and will be its centre; the other five lie inside
    the cube, so near that no farthest point is among them, wherever the seed puts them.
    """
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)  # (8, 3)
    inside = torch.rand(batch, 8, 6, 3, generator=named_generator(seed, "islands"))  # (B, 8, 6, 3)
    inside = (0.1 + 0.1 * inside) * torch.tensor([0.0, 1, 1, 1, 1, 1])[:, None]
    return (corners[:, None] * (1 - inside)).flatten(1, 2)  # (B, 48, 3)


def grown(num, seed, by_place=True):
    """Octahedra on the corners of a cube: large on one side, small on the other; or at random."""
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3)  # (8, 3)
    large = (corners[:, 0] > 0).expand(num, 8)
    if not by_place:
        large = torch.rand(num, 8, generator=named_generator(seed, "size")) < 0.5
    octahedron = torch.cat([torch.eye(3), -torch.eye(3)])  # (6, 3)
    noise = 0.1 * torch.randn(num, 8, 6, 3, generator=named_generator(seed, "grown"))
    size = torch.where(large, 0.2, 0.02)[..., None, None]  # (B, 8, 1, 1)
    return (corners[:, None] + size * (octahedron + noise)).flatten(1, 2)  # (B, 48, 3)


def tiny(config=TINY, **masked):
    torch.manual_seed(0)
    return PointMAE(config, PointMAEConfig(**masked))


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize(("ratio", "hidden"), [(0.6, 4), (0.5, 4), (0.13, 1), (0.99, 7)])
def test_as_many_are_masked_as_the_ratio_says(ratio, hidden):
    model = tiny(ratio=ratio)
    visible, masked = model.draw(model.encoder.patches(clouds()))
    assert masked.inputs.shape == (3, hidden, 6, 3)
    assert visible.inputs.shape == (3, 8 - hidden, 6, 3)


def test_each_patch_is_either_seen_or_masked():
    model, patches = tiny(), tiny().encoder.patches(clouds())
    visible, masked = model.draw(patches)
    for name in patches._fields:
        parts = torch.cat([getattr(visible, name), getattr(masked, name)], 1).flatten(2)
        whole = getattr(patches, name).flatten(2)
        for a, b in zip(parts, whole):
            assert sorted(map(tuple, a.tolist())) == sorted(map(tuple, b.tolist()))


def test_masks_are_drawn_anew_in_training_and_fixed_in_evaluation():
    model, patches = tiny(), tiny().encoder.patches(clouds(4))

    def draw():
        return model.draw(patches)[1].centers

    torch.manual_seed(0)
    first, second = draw(), draw()
    assert not torch.equal(first, second)
    torch.manual_seed(0)  # as the training loop does at each step
    assert torch.equal(draw(), first)
    model.eval()
    assert torch.equal(draw(), draw())


def test_every_patch_is_masked_equally_often():
    model = tiny()
    patches = model.encoder.patches(clouds(1).expand(4000, -1, -1))
    torch.manual_seed(0)
    masked = model.draw(patches)[1].centers  # (4000, 4, 3)
    share = (masked[:, :, None] == patches.centers[:1, None]).all(-1).float().sum(1).mean(0)  # (c,)
    torch.testing.assert_close(share, torch.full((8,), 0.5), atol=0.03, rtol=0)


# ---------------------------------------------------------------- who sees what


@pytest.mark.parametrize("training", [True, False])
def test_the_encoder_never_sees_a_masked_patch(training):
    """Move the points of masked patches about: latents and predictions stay bit for bit.

    In training, too, where BatchNorm looks at all that is embedded.
    """
    model, points = tiny(ratio=0.5).train(training), islands()
    latents = []
    model.decoder.register_forward_pre_hook(lambda _, given: latents.append(given[0]))

    def run(points):
        torch.manual_seed(5)
        return model(points)

    predicted, masked = run(points)
    moved, other = points.clone(), islands(seed=1)
    for cloud in range(2):
        index = masked.index[cloud].flatten()  # (m*n,)
        moved[cloud, index] = other[cloud, index]
    assert (moved != points).any(-1).sum() == 2 * 4 * 5  # the centres stay where they are
    again, masked_again = run(moved)
    assert torch.equal(masked_again.centers, masked.centers)
    assert not torch.equal(masked_again.targets, masked.targets)
    assert torch.equal(latents[0], latents[1]) and torch.equal(predicted, again)


def test_the_encoder_is_given_visible_tokens_only():
    model, lengths = tiny(ratio=0.6), []
    model.encoder.blocks[0].register_forward_pre_hook(lambda _, x: lengths.append(x[0].shape[1]))
    model.decoder.blocks[0].register_forward_pre_hook(lambda _, x: lengths.append(x[0].shape[1]))
    model(clouds())
    assert lengths == [5, 9]  # [CLS] and 4 of 8; all 8 in the decoder


def test_predictions_follow_the_positions_of_the_masked():
    """Mask tokens are all alike: exchange two masked centres, and the predictions change places."""
    model = tiny().eval()
    visible, masked = model.draw(model.encoder.patches(clouds()))
    predicted = model.predict(visible, masked.centers)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        model.predict(visible, masked.centers[:, order]), predicted[:, order]
    )
    assert not torch.allclose(predicted[:, 0], predicted[:, 1])


def test_forward_is_point_mae_step_by_step():
    """The model written out again from Point-MAE's text, with [CLS] before the visible tokens."""
    model, points = tiny().eval(), clouds()
    predicted, masked = model(points)
    c = model.config
    patches = make_patches(points, c.num_centers, c.patch_size)  # minus their centre
    hidden = torch.rand(3, 8, generator=named_generator("mask")).argsort(1) < 0
    for row, centers in enumerate(masked.centers):
        hidden[row] = (patches.centers[row, :, None] == centers).all(-1).any(-1)
    embedding = model.encoder.embedding
    x = embedding.token(patches.inputs)[~hidden].view(3, 4, -1)
    where = embedding.position(patches.centers[~hidden].view(3, 4, 3))
    x = torch.cat([embedding.cls.expand(3, 1, -1), x], 1)
    where = torch.cat([embedding.cls_position.expand(3, 1, -1), where], 1)
    for block in model.encoder.blocks:
        x = block(x + where)
    x = model.decoder.from_latent(model.encoder.to_latent(model.encoder.norm(x)))
    mask = model.decoder.from_latent(model.mask_token).expand(3, 4, -1)
    x = torch.cat([x, mask], 1)
    where = model.position(torch.cat([patches.centers[~hidden].view(3, 4, 3),
                                      patches.centers[hidden].view(3, 4, 3)], 1))  # fmt: skip
    where = torch.cat([model.cls_position.expand(3, 1, -1), where], 1)
    for block in model.decoder.blocks:
        x = block(x + where)
    out = model.decoder.head(model.decoder.norm(x[:, -4:])).view(3, 4, 6, 3)
    loss = chamfer_l2(out.flatten(0, 1), patches.targets[hidden])
    torch.testing.assert_close(model.losses(points, points, None)["total"], loss)
    torch.testing.assert_close(
        chamfer_l2(predicted.flatten(0, 1), masked.targets.flatten(0, 1)), loss
    )


def test_the_loss_is_of_masked_patches_of_the_clean_cloud():
    model, clean = tiny().eval(), clouds()
    predicted, masked = model(clean + 1.0, clean)  # the perturbed cloud is not looked at
    assert torch.equal(predicted, model(clean)[0])
    assert torch.equal(masked.targets, model(clean)[1].targets)
    each = [
        chamfer_l2(p[None], t[None]) for row in zip(predicted, masked.targets) for p, t in zip(*row)
    ]
    total = model.losses(clean + 1.0, clean, None)["total"]
    torch.testing.assert_close(total, torch.stack(each).mean())


# ---------------------------------------------------------------- its place beside SeRP


def test_configuration():
    model = PointMAE(dataclasses.replace(TINY, head="pair", loss="union"), PointMAEConfig())
    c = model.config
    assert (c.fusion, c.positions_every_block, c.encoder_norm) == ("add", True, True)
    assert (c.normalize, c.target_frame) == ("center", "own")
    assert (c.head, c.loss, c.decoder_positions) == ("token", "patch", True)
    same = PointMAE(TINY, PointMAEConfig(point_mae=False))
    assert same.config == dataclasses.replace(TINY, decoder_positions=True)
    serp = SerpTransformer(TINY).encoder.state_dict()
    assert {n: t.shape for n, t in same.encoder.state_dict().items()} == {
        n: t.shape for n, t in serp.items()
    }  # one encoder, two pretext tasks


@pytest.mark.parametrize("point_mae", [True, False])
def test_interface(point_mae):
    model = tiny(point_mae=point_mae)
    task = Pretext(model, STILL)
    before = validate_pretext(task, grown(8, 1), 8, 0)["valid_total"]
    optim = Optim(epochs=6, batch_size=8, lr=1e-2, clip_norm=1.0)
    history = pretrain(task, grown(32, 0), grown(8, 1), optim, 0)
    assert history[-1]["valid_total"] < 0.8 * before
    assert Classifier(model.encoder, 4, (8,))(clouds()).shape == (3, 4)
    found = restoration(task, clouds(4), 0)
    assert found["copy_input"] == found["patch_copy"] == 0 < found["patch"]
    assert "restored_clean_centers" not in found
    assert isinstance(autoencoder(QUICK, "masked"), PointMAE)
    assert PAPER.masked == PointMAEConfig(0.6, True)


@pytest.mark.parametrize("frame", ["own", "input", "origin", "cloud"])
@pytest.mark.parametrize("point_mae", [True, False])
def test_restore_puts_everything_in_its_place(point_mae, frame):
    model = tiny(dataclasses.replace(TINY, target_frame=frame), point_mae=point_mae).eval()
    points = islands()
    model.predict = lambda visible, centers: model.draw(model.encoder.patches(points))[1].targets
    restored = model.restore(points)  # predictions that are right give the cloud back
    assert restored.shape == (2, 48, 3)
    assert chamfer_l2(restored, points) < 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PointMAEConfig(0.0), "ratio is 0.0: must be greater than 0"),
        (lambda: PointMAEConfig(1.0), "ratio is 1.0: must be less than 1"),
        (lambda: PointMAEConfig(float("nan")), "ratio is nan: must be a finite number"),
        (lambda: tiny(ratio=0.1), "mask ratio 0.1 of 8 patches masks 0: at least one must be"),
        (
            lambda: tiny(dataclasses.replace(TINY, num_centers=1)),
            "of 1 patches masks 0: .* change ratio, or raise num_centers",
        ),
        (lambda: build("quick", {"masked.ratio": 1.5}), "ratio is 1.5: must be"),
    ],
)
def test_bad_ratios_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------- leakage


def preset(**transformer):
    config = dataclasses.replace(TINY, **transformer)
    optim = Optim(epochs=25, batch_size=8, lr=1e-2, clip_norm=1.0)
    return Preset("tiny", STILL, transformer=config, pretrain_transformer=optim)


def measured(by_place, epochs):
    optim = Optim(epochs=epochs, batch_size=8, lr=1e-2, clip_norm=1.0)
    settings = dataclasses.replace(preset(), pretrain_transformer=optim)
    return leakage(settings, "masked", grown(32, 0, by_place), grown(16, 1, by_place))


def test_position_only_decoders():
    perturbed, clean = clouds(), clouds(seed=1)
    for positions in (False, True):
        torch.manual_seed(0)
        decoder = PositionOnlyDecoder(TINY, positions, clean=False)
        seen = []
        decoder.decoder.register_forward_hook(lambda _, given, out, seen=seen: seen.append(out))
        decoder.losses(perturbed, clean, None)["total"].backward()
        constant = torch.allclose(seen[0], seen[0][:1, :1].expand_as(seen[0]), atol=1e-6)
        assert constant is not positions  # without positions: one patch for all
        used = [p.grad is not None for p in decoder.position.parameters()]
        assert all(used) if positions else not any(used)
    for cut in (False, True):  # SeRP's patches are cut from the perturbed cloud, masking's are not
        decoder = PositionOnlyDecoder(TINY, True, clean=cut)
        decoder.decoder.register_forward_hook(lambda _, given, out: seen.append(out))
        loss = decoder.losses(perturbed, clean, None)["total"]
        source = clean if cut else perturbed
        patches = make_patches(source, 8, 6, clean, TINY.normalize, TINY.target_frame)
        torch.testing.assert_close(loss, patch_chamfer(seen[-1], patches.targets))
    # The inside of patches does not matter, only where they are.
    decoder = PositionOnlyDecoder(TINY, True, clean=True)
    outs = []
    decoder.decoder.register_forward_hook(lambda _, given, out: outs.append(out))
    for points in (islands(), islands(seed=1)):
        decoder.losses(points, points, None)
    assert torch.equal(outs[0], outs[1])


def test_the_constant_decoder_finds_the_best_constant():
    """Patches of one point, +1 or -1 away: the best constant is in the middle, at a loss of 2."""
    config = dataclasses.replace(TINY, patch_size=1, normalize="center", target_frame="own")
    decoder = PositionOnlyDecoder(config, False, clean=True)
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-2)
    patches = (
        torch.tensor([1.0, -1.0])[torch.arange(48) % 2].view(1, 48, 1) * torch.ones(3) / 3**0.5
    )
    for _ in range(200):
        predicted = decoder.decoder(decoder.token.expand(1, 9, -1), torch.zeros(1, 9, 12))[:, :1]
        loss = chamfer_l2(predicted[0].expand(48, 1, 3), patches.view(48, 1, 3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(2.0, abs=0.01)


def test_positions_explain_what_follows_from_the_place():
    found = measured(by_place=True, epochs=25)
    assert found["positions"] < 0.8 * found["constant"]
    # Patch i of one shape does not lie where patch i of another does: nothing to be learned.
    assert found["positions_of_another"] > 0.9 * found["constant"]
    assert found["full_positions_of_another"] > 1.1 * found["full"]
    gain = found["constant"] - found["full"]
    share = (found["constant"] - found["positions"]) / gain
    other = (found["constant"] - found["positions_of_another"]) / gain
    assert found["explained"] == pytest.approx(share)
    assert found["explained_by_another"] == pytest.approx(other)
    assert found["leaked"] == pytest.approx(share - other)


def test_positions_explain_nothing_that_does_not_depend_on_the_place():
    found = measured(by_place=False, epochs=8)
    assert found["positions"] > 0.95 * found["constant"]


def test_serps_decoder_leaks_where_it_is_given_positions():
    quick = Optim(epochs=2, batch_size=8, lr=1e-2)
    results = {}
    for given in (False, True):
        settings = dataclasses.replace(preset(decoder_positions=given), pretrain_transformer=quick)
        results[given] = leakage(settings, "transformer", grown(32, 0), grown(16, 1))
    assert results[False]["leaked"] == 0
    # A decoder without positions is deaf to them; the latents of another shape it hears.
    assert results[False]["full_positions_of_another"] == results[False]["full"]
    assert results[False]["full_latents_of_another"] != results[False]["full"]
    assert results[True]["full_positions_of_another"] != results[True]["full"]
    # The position-only decoders are trained alike, whatever the autoencoder gets.
    for name in ("constant", "positions", "positions_of_another"):
        assert results[True][name] == pytest.approx(results[False][name])


def test_leakage_can_be_repeated():
    short = dataclasses.replace(preset(), pretrain_transformer=Optim(epochs=1, batch_size=8))
    first, second = (leakage(short, "masked", grown(16, 0), grown(8, 1)) for _ in range(2))
    assert first == second


def test_another_shape_is_another_and_only_for_a_while():
    model, points = SerpTransformer(TINY).eval(), clouds(3)
    patches = model.encoder.patches(points)
    latent, positions = model.encoder.encode(patches)
    with swap_decoder_input(model, "latents"):
        swapped = model.decoder(latent, positions)
    assert torch.equal(swapped, model.decoder(latent[[2, 0, 1]], positions))
    assert torch.equal(model(points)[0], model.decoder(latent, positions))
    with (
        swap_decoder_input(model, "latents"),
        pytest.raises(ValueError, match="batch of one shape"),
    ):
        model(points[:1])
    with pytest.raises(ValueError, match="what is 'centers', wanted 'latents' or 'positions'"):
        with swap_decoder_input(model, "centers"):
            pass


def test_leakage_names_what_it_cannot_do():
    with pytest.raises(ValueError, match="8 and 17 shapes in batches of 8 make a batch of one"):
        leakage(preset(), "masked", grown(8, 0), grown(17, 1))
    with pytest.raises(ValueError, match="model is 'pointnet', wanted one of patches"):
        leakage(QUICK, "pointnet", grown(8, 0), grown(8, 1))
