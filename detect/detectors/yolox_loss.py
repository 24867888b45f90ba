"""The losses of YOLOX, and which cells learn which box (SimOTA).

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv 2107.08430, section 2.1; Ge et al., "OTA:
Optimal Transport Assignment for Object Detection", CVPR 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from musicon.detect.detectors.yolox_network import cells

RADIUS = 1.5
"""Cells whose middle is this many strides or less from a box's middle may learn it."""
SHARERS = 10
"""A box is learnt by as many cells as the IoUs of its best so many add up to."""
IOU_COST = 3.0
BOX_WEIGHT = 5.0


def losses(found: Tensor, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sums over the batch, divided by the number of cells that learn a box.

    Args:
        found: (N, A, 4 + 1 + C), as ``Yolox`` gives them.
        images: (N, 3, H, W), for their size alone.
        targets: For each image ``boxes`` (B, 4) xyxy in pixels and ``labels`` (B,) from 0.
    """
    corners, strides = cells(images)
    middles = (corners + 0.5) * strides
    objectness = torch.zeros_like(found[..., 4])
    boxes, wanted, logits, classes = [], [], [], []
    for row, target, there in zip(found, targets, objectness, strict=True):
        chosen, truth, iou = assign(row, middles, strides, target["boxes"], target["labels"])
        there[chosen] = 1.0
        boxes.append(row[chosen, :4])
        wanted.append(target["boxes"][truth])
        logits.append(row[chosen, 5:])
        one_hot = nn.functional.one_hot(target["labels"][truth], row.shape[1] - 5)
        classes.append(one_hot * iou[:, None])
    count = max(sum(map(len, boxes)), len(images))  # images without a box count as one cell each
    binary = nn.functional.binary_cross_entropy_with_logits
    overlap = pair_iou(torch.cat(boxes), torch.cat(wanted))
    return {
        "loss_box_reg": BOX_WEIGHT * (1 - overlap.square()).sum() / count,
        "loss_objectness": binary(found[..., 4], objectness, reduction="sum") / count,
        "loss_classifier": binary(torch.cat(logits), torch.cat(classes), reduction="sum") / count,
    }


@torch.no_grad()
def assign(found: Tensor, middles: Tensor, strides: Tensor, boxes: Tensor,
           labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which cells of one image learn which box.

    Each box takes the cells near its middle that it costs least to teach it, no cell two boxes.

    Args:
        found: (A, 4 + 1 + C).
        middles: (A, 2) in pixels.
        strides: (A, 1) in pixels.
        boxes: (B, 4) xyxy.
        labels: (B,) from 0.

    Returns:
        The cells (M,), the box (M,) of each, and the IoU (M,) of what it says with that box.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = ((middles - centres[:, None]).abs() < RADIUS * strides).all(-1)
    candidates = near.any(0).nonzero()[:, 0]
    if len(candidates) == 0:
        return candidates, candidates, found.new_zeros(0)
    near, said = near[:, candidates], found[candidates].float()
    iou = box_iou(boxes, said[:, :4]).nan_to_num()
    chance = (said[:, 5:].sigmoid() * said[:, 4:5].sigmoid()).sqrt()
    truth = nn.functional.one_hot(labels, chance.shape[1]).to(chance)
    cost = nn.functional.binary_cross_entropy(
        chance.expand(len(boxes), -1, -1), truth[:, None].expand(-1, len(candidates), -1),
        reduction="none").sum(-1)
    cost = cost - IOU_COST * (iou + 1e-8).log()
    cost = cost.masked_fill(~near, torch.inf)
    takes = torch.zeros_like(near)
    best = iou.masked_fill(~near, 0).topk(min(SHARERS, len(candidates))).values
    for i, share in enumerate(best.sum(1).int().clamp(min=1).tolist()):
        takes[i, cost[i].topk(min(share, int(near[i].sum())), largest=False).indices] = True
    cheapest = nn.functional.one_hot(cost.argmin(0), len(boxes)).T.bool()
    takes &= cheapest | (takes.sum(0) == 1)
    truth, cell = takes.nonzero().unbind(1)
    return candidates[cell], truth, iou[truth, cell]


def pair_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU (M,) of boxes (M, 4) with boxes (M, 4), each with its own; 0 where both are empty."""
    corner = torch.minimum(first[:, 2:], second[:, 2:])
    shared = (corner - torch.maximum(first[:, :2], second[:, :2])).clamp(min=0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) for b in (first, second)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-6)
