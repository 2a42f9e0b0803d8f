"""How good a restoration is, beside the answers that need no learning (paper, section 4.1).

A Chamfer distance alone says little. Copying the perturbed input is already a close answer at
sigma = 0.03, and two clean samples of one surface are farther apart than that: `baselines` measures
both, and every reconstruction figure in the course stands beside them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from serplib.bottlenecks import code_use
from serplib.geometry import chamfer_l2
from serplib.point_mae import Masked
from serplib.pointnet import SerpPointNet
from serplib.pretext import Pretext
from serplib.seeding import named_generator
from serplib.transformer import patch_chamfer
from serplib.validation import expect
from serplib.vasp import Vasp


@torch.no_grad()
def restoration(task: Pretext, points: Tensor, seed: int, batch_size: int = 32) -> dict[str, float]:
    """Restore perturbed clouds and measure how far they are from the clean ones.

    Args:
        task: a trained pretext task. points: ``(S, M, 3)`` clean clouds that it has not seen.

    Returns:
        Means over the clouds, Chamfer distances as Eq. 11 in squared unit-sphere radii:

        - ``restored``: the model's clouds (SeRP-Transformer: on corrupted centres);
        - ``copy_input``: the perturbed clouds themselves;
        - ``touched``: share of points touched;
        - SeRP-PointNet: ``detection_auc``, area under the ROC curve of "was this point touched?";
          ``touched_moved``: mean squared distance to the clean point over touched points, and
          ``touched_copy``, the same for the input; 3 sigma^2 is expected of the latter;
        - SeRP-Transformer: ``restored_clean_centers`` (c true points handed over), ``patch`` and
          ``patch_copy``: Chamfer patch by patch in the target's frame, of model and of input;
        - VASP: the same and, where it has a codebook, `bottlenecks.code_use` over all the clouds;
        - masking: ``patch`` over the masked patches; give it a task with sigma = 0.
    """
    task.eval()
    device = next(task.parameters()).device
    sums: dict[str, float] = {}
    scores, truth, codes = [], [], []
    for i, part in enumerate(points.split(batch_size)):
        generator = named_generator(seed, "restoration", i, device=device)
        perturbed, clean, touched = task.corrupt(part.to(device), generator)
        model = task.model
        found = {
            "restored": chamfer_l2(model.restore(perturbed), clean),
            "copy_input": chamfer_l2(perturbed, clean),
            "touched": touched.double().mean(),
        }
        if isinstance(model, SerpPointNet):
            scores.append(model(perturbed)[0].float().softmax(-1)[..., 1].flatten().cpu())
            truth.append(touched.flatten().cpu())
            found["touched_copy"] = (perturbed - clean)[touched].square().sum(-1).mean()
            if model.config.task == "delta":  # only then has each point a twin
                restored = model.restore(perturbed)
                found["touched_moved"] = (restored - clean)[touched].square().sum(-1).mean()
        else:
            predicted, patches = model(perturbed, clean)
            if not isinstance(model, Masked):
                found["restored_clean_centers"] = chamfer_l2(
                    model.restore(perturbed, clean, centers="clean"), clean
                )
            if isinstance(model, Vasp) and model.vasp.bottleneck in ("vq", "dvae"):
                codes.append(model.codes(perturbed).flatten().cpu())
            found["patch"] = patch_chamfer(predicted, patches.targets)
            found["patch_copy"] = patch_chamfer(patches.inputs, patches.targets)
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(part)
    result = {name: value / len(points) for name, value in sums.items()}
    if scores:
        from sklearn.metrics import roc_auc_score  # here: it takes longer to import than torch

        result["detection_auc"] = float(roc_auc_score(torch.cat(truth), torch.cat(scores)))
    if codes:
        counts = torch.cat(codes).bincount(minlength=task.model.vasp.codebook_size)  # (K,)
        result |= {name: float(value) for name, value in code_use(counts).items()}
    return result


@torch.no_grad()
def resample_baseline(points: Tensor, seed: int) -> dict[str, float]:
    """How far apart two clean samples of the same surfaces are.

    Args:
        points: ``(S, M, 3)`` clean clouds, cut at random into two halves of M // 2 points each. Ask
            for clouds of 2,048 points to compare halves of 1,024; with 1,024 the distance is that
            of sparser samples and about twice as large.

    Returns:
        ``resample``, the mean Chamfer distance of the halves, and ``resample_points``, M // 2.
    """
    expect(points, "S M 3")
    half = points.shape[1] // 2
    order = torch.rand(points.shape[:2], generator=named_generator(seed, "resample")).argsort(1)
    mixed = points.gather(1, order[..., None].expand(-1, -1, 3))  # (S, M, 3)
    distance = [
        float(chamfer_l2(part[:, :half], part[:, half : 2 * half])) * len(part)
        for part in mixed.split(32)
    ]
    return {"resample": sum(distance) / len(points), "resample_points": half}
