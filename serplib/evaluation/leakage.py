"""What positions give away: a decoder that never saw a patch (paper, sections 1 and 3.3).

The paper holds against masking that its decoder is told where the masked patches were, and says
that SeRP avoids this leakage. In the authors' code SeRP's decoder is given the positions, too. Here
the claim is a number: how well are patches reconstructed from positions alone?
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from serplib.classifier import autoencoder
from serplib.patches import PositionMLP, make_patches
from serplib.point_mae import Masked
from serplib.presets import Preset
from serplib.training import Pretext, pretrain, validate_pretext
from serplib.transformer import TransformerConfig, TransformerDecoder, patch_chamfer


class Blind(nn.Module):
    """A decoder on one learned token in place of every latent token: no encoder, no patch.

    Args:
        config: of the autoencoder whose patches, decoder and loss are used.
        positions: hand over the positions of the patches. Without, all tokens are the same, and the
            best it can learn is one patch for all: the baseline that knows nothing.
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
        """As an autoencoder's; ``perturbed, clean (B, N, 3)``, ``touched`` is not used."""
        c = self.config
        patches = make_patches(
            clean if self.clean else perturbed,
            c.num_centers, c.patch_size, clean, c.normalize, c.target_frame,
        )  # fmt: skip
        batch, num_centers, _ = patches.centers.shape
        positions = torch.cat(
            [self.cls_position.expand(batch, -1, -1), self.position(patches.centers)], 1
        )  # (B, c+1, d)
        predicted = self.decoder(self.token.expand(batch, num_centers + 1, -1), positions)
        return {"total": patch_chamfer(predicted, patches.targets, c.loss)}


@contextmanager
def another_shape(model: nn.Module, what: str) -> Iterator[None]:
    """Give the decoder the ``"latents"`` or the ``"positions"`` of another shape of the batch."""
    if what not in ("latents", "positions"):
        raise ValueError(f"what is {what!r}, wanted 'latents' or 'positions'")

    def swap(_, given: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        latent, positions = given  # (B, T, l), (B, T, d)
        if len(latent) < 2:
            raise ValueError("a batch of one shape has no other: change the batch size")
        moved = [x.roll(1, 0) if name == what else x
                 for name, x in (("latents", latent), ("positions", positions))]  # fmt: skip
        return moved[0], moved[1]

    hook = model.decoder.register_forward_pre_hook(swap)
    try:
        yield
    finally:
        hook.remove()


def leakage(
    preset: Preset, model: str, train: Tensor, test: Tensor, seed: int = 0
) -> dict[str, float]:
    """Train an autoencoder and three blind decoders alike, and compare what they reconstruct.

    The second blind decoder, with positions of another shape, is there because positions do two
    things: they say where a patch of this shape lies, and they make tokens differ at all. With the
    Chamfer distance over the union of patches the latter is most of what a decoder needs.

    Args:
        preset: its ``pretrain_transformer`` says how long all of them train. Reconstruction has a
            slow start: as long as ``full`` is near ``constant`` the shares mean nothing.
        model: ``"transformer"``, ``"vasp"`` or ``"masked"``. SeRP's decoder gets positions where
            ``transformer.decoder_positions`` says so, that of masking always.
        train, test: ``(S, M, 3)`` clean clouds; no batch of ``test`` may hold a single shape.

    Returns:
        Reconstruction losses on ``test``, in squared units of the target's frame:

        - ``constant``: blind, one learned patch for all; ``positions_of_another``: blind, trained
          and tested with those of another shape of the batch; ``positions``: blind, with the own;
        - ``full``: the autoencoder; ``full_positions_of_another`` and ``full_latents_of_another``:
          with one of its decoder's inputs exchanged (latents carry positions themselves where the
          encoder was given them);
        - ``explained``: (constant - positions) / (constant - full), the share of the autoencoder's
          gain that positions alone explain; ``explained_by_another``: the same for those of another
          shape; ``leaked``: their difference, what is learned of this very shape, or 0 where the
          decoder is handed no positions.
    """
    torch.manual_seed(seed)
    full = autoencoder(preset, model)
    if not hasattr(full, "decoder") or not hasattr(full.config, "decoder_positions"):
        raise ValueError(f"model is {model!r}, wanted one of patches: 'transformer' or 'masked'")
    optim, hides = preset.pretrain_transformer, isinstance(full, Masked)
    size = optim.batch_size
    if min(size, len(train), len(test), len(test) % size or size) < 2:
        raise ValueError(
            f"{len(train)} and {len(test)} shapes in batches of {size} make a batch of one, which "
            "has no other shape to swap with: change the number of shapes or the batch size"
        )

    def trained(net: nn.Module) -> Pretext:
        task = Pretext(net, preset.corruption)
        pretrain(task, train, test[:2], optim, seed)
        return task

    def loss(task: Pretext) -> float:
        device = next(task.parameters()).device
        found = validate_pretext(task, test, size, seed, device)
        return found.get("valid_reconstruction", found["valid_total"])

    result: dict[str, float] = {}
    result["constant"] = loss(trained(Blind(full.config, False, hides)))
    blind = Blind(full.config, True, hides)
    with another_shape(blind, "positions"):
        result["positions_of_another"] = loss(trained(blind))
    result["positions"] = loss(trained(Blind(full.config, True, hides)))
    task = trained(full)
    result["full"] = loss(task)
    for what in ("positions", "latents"):
        with another_shape(full, what):
            result[f"full_{what}_of_another"] = loss(task)
    gain = result["constant"] - result["full"]
    result["explained"] = (result["constant"] - result["positions"]) / gain
    result["explained_by_another"] = (result["constant"] - result["positions_of_another"]) / gain
    leaked = result["explained"] - result["explained_by_another"]
    result["leaked"] = leaked if full.config.decoder_positions else 0.0
    return result
