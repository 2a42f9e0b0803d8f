"""What 06_serp_transformer builds is what `serplib.transformer` and torch have."""

import ast
import math

import pytest
import torch
from notebook_helpers import built, cells
from torch import nn
from torch.nn import functional as F

from serplib import data, perturbation, seeding
from serplib.presets import build
from serplib.transformer import Attention, Block, SerpTransformer, TransformerConfig

NAME = "06_serp_transformer"
SIZES = {
    "num_centers": 7,
    "patch_size": 9,
    "dim": 6,
    "latent_dim": 10,
    "encoder_depth": 2,
    "decoder_depth": 2,
    "encoder_heads": 3,
    "decoder_heads": 2,
    "mlp_ratio": 2,
    "token_widths": (4, 5, 6),
}


@pytest.fixture(scope="module")
def made():
    return built(NAME, math=math, F=F, nn=nn, SerpTransformer=SerpTransformer)


def draw(*shape):
    generator = seeding.named_generator("notebook 06", *shape)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def settled(module):
    """In double and in evaluation, no norm or bias at the 0 or 1 that it starts with."""
    for tensor in module.double().eval().state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.add_(0.3 * draw(*tensor.shape).abs())
    return module


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(3)
    model = settled(SerpTransformer(TransformerConfig(**SIZES)))
    clean = data.load("objects", "test", 3, 80, seed=5).points
    noisy = perturbation.Perturbation(4, 6, 0.1)(
        clean, seeding.named_generator("notebook 06")
    ).points
    return model, noisy.double()


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (6, 7), (1, 1, 1, 2)])
def test_attention(made, shape):
    q, k, v = draw(3, *shape)
    ours, torchs = made["attend"](q, k, v), F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("width", "heads", "bias"), [(6, 1, True), (6, 3, False), (20, 5, True)])
def test_multi_head_and_block(made, width, heads, bias):
    torch.manual_seed(1)
    x = draw(2, 11, width)
    layer = Attention(width, heads, bias).double()
    torch.testing.assert_close(made["multi_head"](x, layer), layer(x), rtol=0, atol=1e-12)
    block = settled(Block(width, heads, 3, bias, 0.0))
    torch.testing.assert_close(made["pre_norm_block"](x, block), block(x), rtol=0, atol=1e-12)


def test_layer_norm(made):
    norm, x = settled(nn.LayerNorm(5)), 3 * draw(2, 4, 5) + 1
    torch.testing.assert_close(made["layer_norm"](x, norm), norm(x), rtol=0, atol=1e-12)


def test_encoder_and_decoder(made, autoencoder):
    model, noisy = autoencoder
    patches = model.encoder.patches(noisy)
    latent, positions = model.encoder.encode(patches)
    ours = made["my_encode"](model.encoder, patches)
    assert ours.shape == (3, 8, 10)
    torch.testing.assert_close(ours, latent, rtol=0, atol=1e-12)
    ours = made["my_decode"](model.decoder, latent)
    assert ours.shape == (3, 7, 9, 3)
    torch.testing.assert_close(ours, model.decoder(latent, positions), rtol=0, atol=1e-12)


@pytest.mark.parametrize("every", [True, False])
def test_attention_maps(made, autoencoder, every):
    """The maps are the weights that the encoder's own pass computes, block by block."""
    more = {"fusion": "add", "positions_every_block": True, "encoder_norm": False}
    model = settled(SerpTransformer(TransformerConfig(**SIZES, **more))) if every else None
    model, noisy = model or autoencoder[0], autoencoder[1]
    patches, seen = model.encoder.patches(noisy), []
    hooks = [
        block.attention.register_forward_pre_hook(lambda layer, x: seen.append(layer.weights(x[0])))
        for block in model.encoder.blocks
    ]
    model.encoder.encode(patches)
    for hook in hooks:
        hook.remove()
    maps = made["attention_maps"](model.encoder, patches)
    torch.testing.assert_close(maps, torch.stack(seen, 1), rtol=0, atol=1e-12)


def test_training_learns_and_starts_from_the_seed(made):
    """The live loop: same seed, same losses; they fall; the model comes back in evaluation."""
    planes = data.load("procedural", "train", 16, 80, seed=2).points
    names = {"planes": planes, "task": perturbation.Perturbation(4, 6, 0.3), "seed": 4}
    train = built(NAME, SerpTransformer=SerpTransformer, named_generator=seeding.named_generator,
                  **names)["train"]  # fmt: skip
    config = TransformerConfig(**SIZES)
    model, losses = train(config, 60)
    assert not model.training and len(losses) == 60
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])
    assert train(config, 60)[1] == losses


def test_the_table_of_differences_is_complete():
    """Every switch that differs between the presets is explained, and no other."""
    (source,) = (cell.source for cell in cells(NAME, "code") if "meaning = {" in cell.source)
    (node,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "meaning"
    )
    text, code = (vars(build(name).transformer) for name in ("paper", "authors_code"))
    assert list(ast.literal_eval(node.value)) == [key for key in text if text[key] != code[key]]
