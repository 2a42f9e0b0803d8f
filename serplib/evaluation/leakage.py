"""How much of a reconstruction the patch positions alone explain (paper, sections 1 and 3.3).

The paper criticises masked autoencoders because their decoder receives the positions of the masked
patches, and states that SeRP avoids this leakage. In the authors' code SeRP's decoder receives the
positions, too. This module measures the leakage: it trains decoders that see no patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from serplib.classifier import autoencoder
from serplib.patches import PositionMLP, make_patches
from serplib.point_mae import PointMAE
from serplib.presets import Preset
from serplib.training import Pretext, pretrain, validate_pretext
from serplib.transformer import TransformerConfig, TransformerDecoder, patch_chamfer


class PositionOnlyDecoder(nn.Module):
    """A decoder without an encoder: one learned token replaces every latent token.

    Args:
        config: settings of the autoencoder whose patches, decoder and loss are used.
        positions: whether the decoder receives the positions of the patches. Without them all
            tokens are equal, and the optimum is one constant patch.
        clean: cut the patches from the clean cloud, as masking does, not from the perturbed one.
    """

    def __init__(self, config: TransformerConfig, positions: bool, clean: bool) -> None:
        super().__init__()
        self.config = replace(config, decoder_positions=positions)
        self.clean = clean
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, config.latent_dim))
        self.position = PositionMLP(config.dim)
        self.cls_position = nn.Parameter(0.02 * torch.randn(1, 1, config.dim))
        self.decoder = TransformerDecoder(self.config)

    def losses(self, perturbed: Tensor, clean: Tensor, touched: Tensor) -> dict[str, Tensor]:
        """Compute the patch Chamfer distance.

        Args:
            perturbed: ``(B, N, 3)``.
            clean: ``(B, N, 3)``.
            touched: not used; present because every pretext model takes it.
        """
        c = self.config
        source = clean if self.clean else perturbed
        patches = make_patches(
            source, c.num_centers, c.patch_size, clean, c.normalize, c.target_frame
        )
        batch, num_centers, _ = patches.centers.shape
        positions = torch.cat(
            [self.cls_position.expand(batch, -1, -1), self.position(patches.centers)], 1
        )  # (B, c+1, d)
        predicted = self.decoder(self.token.expand(batch, num_centers + 1, -1), positions)
        return {"total": patch_chamfer(predicted, patches.targets, c.loss)}


@contextmanager
def swap_decoder_input(model: nn.Module, what: str) -> Iterator[None]:
    """Within the context, give the decoder one input of another shape of the same batch.

    Args:
        model: an autoencoder whose ``decoder`` is called with latents and positions.
        what: the input that is swapped, ``"latents"`` or ``"positions"``.

    Raises:
        ValueError: another ``what``, or a forward pass over a batch of one shape.
    """
    if what not in ("latents", "positions"):
        raise ValueError(f"what is {what!r}, wanted 'latents' or 'positions'")
    decoder = model.decoder
    assert isinstance(decoder, nn.Module)

    def swap(_, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        latents, positions = inputs  # (B, T, l), (B, T, d)
        if len(latents) < 2:
            raise ValueError("a batch of one shape has no other: change the batch size")
        if what == "latents":
            return latents.roll(1, 0), positions
        return latents, positions.roll(1, 0)

    hook = decoder.register_forward_pre_hook(swap)
    try:
        yield
    finally:
        hook.remove()


def leakage(
    preset: Preset, model: str, train: Tensor, test: Tensor, seed: int = 0
) -> dict[str, float]:
    """Train an autoencoder and three position-only decoders alike and compare their losses.

    Positions do two things: they say where a patch of this shape lies, and they make the tokens
    differ. With the Chamfer distance over the union of patches the second effect is most of what a
    decoder needs. A decoder with the positions of another shape measures it separately.

    Args:
        preset: its ``pretrain_transformer`` sets the training of all four. Reconstruction improves
            slowly at first: while ``full`` is close to ``constant`` the shares mean nothing.
        model: ``"transformer"``, ``"vasp"`` or ``"masked"``. SeRP's decoder gets positions if
            ``transformer.decoder_positions`` is set, the masked autoencoder's always.
        train: ``(S, M, 3)`` clean clouds.
        test: ``(S, M, 3)`` clean clouds; no batch may hold a single shape.
        seed: of weights, order and perturbation.

    Returns:
        Reconstruction losses on ``test``, in squared units of the target's frame:

        - ``constant``: position-only decoder without positions, one learned patch for all;
        - ``positions_of_another``: trained and tested with the positions of another shape;
        - ``positions``: with the shape's own positions;
        - ``full``: the autoencoder;
        - ``full_positions_of_another``, ``full_latents_of_another``: the trained autoencoder with
          one input of its decoder swapped (latents may carry positions from the encoder);
        - ``explained``: (constant - positions) / (constant - full), the share of the autoencoder's
          gain that positions alone explain;
        - ``explained_by_another``: the same for ``positions_of_another``;
        - ``leaked``: ``explained - explained_by_another``, what the positions of this very shape
          add; 0 if the decoder receives no positions.

    Raises:
        ValueError: a model without patches, or a batch of a single shape.
    """
    torch.manual_seed(seed)
    full = autoencoder(preset, model)
    config = full.config
    if not isinstance(config, TransformerConfig):
        raise ValueError(f"model is {model!r}, wanted one of patches: 'transformer' or 'masked'")
    optim, clean = preset.pretrain_transformer, isinstance(full, PointMAE)
    size = optim.batch_size
    if min(size, len(train), len(test), len(test) % size or size) < 2:
        raise ValueError(
            f"{len(train)} and {len(test)} shapes in batches of {size} make a batch of one, which "
            "has no other shape to swap with: change the number of shapes or the batch size"
        )

    def trained(network: nn.Module) -> Pretext:
        task = Pretext(network, preset.corruption)
        pretrain(task, train, test[:2], optim, seed)
        return task

    def test_loss(task: Pretext) -> float:
        device = next(task.parameters()).device
        losses = validate_pretext(task, test, size, seed, device)
        return losses.get("valid_reconstruction", losses["valid_total"])

    result = {"constant": test_loss(trained(PositionOnlyDecoder(config, False, clean)))}
    decoder = PositionOnlyDecoder(config, True, clean)
    with swap_decoder_input(decoder, "positions"):
        result["positions_of_another"] = test_loss(trained(decoder))
    result["positions"] = test_loss(trained(PositionOnlyDecoder(config, True, clean)))
    task = trained(full)
    result["full"] = test_loss(task)
    for what in ("positions", "latents"):
        with swap_decoder_input(full, what):
            result[f"full_{what}_of_another"] = test_loss(task)
    gain = result["constant"] - result["full"]
    result["explained"] = (result["constant"] - result["positions"]) / gain
    result["explained_by_another"] = (result["constant"] - result["positions_of_another"]) / gain
    leaked = result["explained"] - result["explained_by_another"]
    result["leaked"] = leaked if config.decoder_positions else 0.0
    return result
