"""Reconstruction metrics and trivial baselines (paper, section 4.1).

A Chamfer distance alone is hard to judge. At sigma = 0.03 copying the perturbed input is already
close to the clean cloud, closer than two independent samples of the same surface. Both baselines
are measured here and reported beside every reconstruction figure of the course.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from serplib.bottlenecks import code_use
from serplib.geometry import chamfer_l2, gather
from serplib.point_mae import PointMAE
from serplib.pointnet import SerpPointNet
from serplib.pretext import Pretext
from serplib.seeding import named_generator
from serplib.transformer import patch_chamfer
from serplib.validation import expect
from serplib.vasp import Vasp


@torch.no_grad()
def restoration(task: Pretext, points: Tensor, seed: int, batch_size: int = 32) -> dict[str, float]:
    """Restore perturbed clouds and measure their distance from the clean ones.

    Args:
        task: a trained pretext task.
        points: ``(S, M, 3)`` clean clouds that were not used in training.
        seed: of the perturbation.
        batch_size: clouds of one forward pass.

    Returns:
        Means over the clouds, Chamfer distances as Eq. 11 in squared unit-sphere radii:

        - ``restored``: the model's clouds (SeRP-Transformer: patches at perturbed centres);
        - ``copy_input``: the perturbed clouds themselves;
        - ``touched``: share of perturbed points;
        - SeRP-PointNet: ``detection_auc``, area under the ROC curve of the detection of perturbed
          points, where some are perturbed and some are not; ``touched_moved``, mean squared
          distance to the clean point over perturbed points, and ``touched_copy``, the same for the
          input (its expectation is 3 sigma^2);
        - SeRP-Transformer: ``restored_clean_centers``, patches at the c clean centres; ``perfect``,
          the clean points of the patches, above 0 where these do not hold all points; ``patch``
          and ``patch_copy``, Chamfer patch by patch in the target's frame, of model and input;
        - VASP: the same, and the rate in bits a token, an upper bound of what the decoder learns
          of it: with codes `bottlenecks.code_use` over all clouds (several stages: product, sum and
          mean) and ``bits_fixed``, log2 of the number of codes; ``bits`` of ``"vae"`` is its KL;
        - masking: ``patch`` over the masked patches; use a task with sigma = 0.
    """
    task.eval()
    model: Any = task.model  # nn.Module does not declare restore()
    device = next(task.parameters()).device
    sums: dict[str, float] = {}
    scores, truth, codes = [], [], []
    for i, part in enumerate(points.split(batch_size)):
        generator = named_generator(seed, "restoration", i, device=device)
        perturbed, clean, touched = task.corrupt(part.to(device), generator)
        values = {
            "restored": chamfer_l2(model.restore(perturbed), clean),
            "copy_input": chamfer_l2(perturbed, clean),
            "touched": touched.double().mean(),
        }
        if isinstance(model, SerpPointNet):
            scores.append(model(perturbed)[0].float().softmax(-1)[..., 1].flatten().cpu())
            truth.append(touched.flatten().cpu())
            if touched.any() and perturbed.shape == clean.shape:
                values["touched_copy"] = (perturbed - clean)[touched].square().sum(-1).mean()
                if model.config.task == "delta":  # cd-l2 predicts a set: no point correspondence
                    restored = model.restore(perturbed)
                    values["touched_moved"] = (restored - clean)[touched].square().sum(-1).mean()
        else:
            if isinstance(model, Vasp):
                predicted, patches, output = model.reconstruct(perturbed, clean)
                if model.vasp.codebook_sizes():
                    codes.append(model.codes(perturbed).flatten(0, 1).cpu())  # (M,) or (M, stages)
                elif "nats" in output.diagnostics:
                    values["bits"] = output.diagnostics["nats"] / math.log(2)
            else:
                predicted, patches = model(perturbed, clean)
            if not isinstance(model, PointMAE):
                values["restored_clean_centers"] = chamfer_l2(
                    model.restore(perturbed, clean, centers="clean"), clean
                )
            values["perfect"] = chamfer_l2(gather(clean, patches.index.flatten(1)), clean)
            values["patch"] = patch_chamfer(predicted, patches.targets)
            values["patch_copy"] = patch_chamfer(patches.inputs, patches.targets)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(part)
    result = {name: value / len(points) for name, value in sums.items()}
    if scores and len((touched := torch.cat(truth)).unique()) == 2:
        from sklearn.metrics import roc_auc_score  # slow to import, not needed elsewhere

        result["detection_auc"] = float(roc_auc_score(touched, torch.cat(scores)))
    if codes:
        sizes = model.vasp.codebook_sizes()
        stages = torch.cat(codes).view(-1, len(sizes)).unbind(1)  # (M,) each
        use = code_use(*(index.bincount(minlength=size) for index, size in zip(stages, sizes)))
        result |= {name: float(value) for name, value in use.items()}
        result["bits_fixed"] = sum(math.log2(size) for size in sizes)
    return result


@torch.no_grad()
def resample_baseline(points: Tensor, seed: int) -> dict[str, float]:
    """Measure the Chamfer distance between two clean samples of the same surfaces.

    Args:
        points: ``(S, M, 3)`` clean clouds, split at random into two halves of M // 2 points each.
            Clouds of 2,048 points give halves of 1,024; with 1,024 points the halves are sparser
            and the distance is about twice as large.
        seed: of the split.

    Returns:
        ``resample``, the mean Chamfer distance of the halves, and ``resample_points``, M // 2.
    """
    expect(points, "S M 3")
    half = points.shape[1] // 2
    order = torch.rand(points.shape[:2], generator=named_generator(seed, "resample")).argsort(1)
    mixed = gather(points, order)  # (S, M, 3)
    distances = [
        float(chamfer_l2(part[:, :half], part[:, half : 2 * half])) * len(part)
        for part in mixed.split(32)
    ]
    return {"resample": sum(distances) / len(points), "resample_points": half}
