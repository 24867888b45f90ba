"""Gram matrices of feature maps, and the style loss between them (Gatys, Ecker & Bethge 2015)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def gram(features: Tensor) -> Tensor:
    """Inner products of the channels' maps: G_ij = Σ_k F_ik F_jk.

    Args:
        features: (N, C, H, W).

    Returns:
        (N, C, C), raw sums: divide by H · W to compare images of different sizes.
    """
    maps = features.flatten(2)
    return maps @ maps.transpose(1, 2)


def grams(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The Gram matrix of each layer divided by its number of positions M_l, (N, C, C)."""
    return {layer: gram(maps) / (maps.shape[2] * maps.shape[3])
            for layer, maps in features.items()}


def style_loss(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor],
               weights: Mapping[str, float] | None = None) -> Tensor:
    """E = Σ_l w_l / (4 N_l² M_l²) Σ_ij (G_ij - A_ij)², equations 4 and 5 of Gatys et al.

    The differences are squared entry by entry, so that E is a squared Euclidean distance. The
    paper's two images have as many positions M_l; here each matrix was divided by its own.

    Args:
        found: Layer -> G / M, (N, C, C), as ``grams`` gives them.
        wanted: Layer -> A / M, (N, C, C) or (1, C, C).
        weights: Layer -> w_l; None weighs the layers of ``wanted`` alike, with the sum 1.

    Returns:
        (N,) losses.
    """
    shares = weights or {layer: 1 / len(wanted) for layer in wanted}
    terms = [share / (4 * wanted[layer].shape[-1] ** 2)
             * (found[layer] - wanted[layer]).square().sum((1, 2))
             for layer, share in shares.items()]
    return torch.stack(terms).sum(0)


def flatten(found: Mapping[str, Tensor], weights: Mapping[str, float] | None = None) -> Tensor:
    """Vectors whose squared Euclidean distance is the style loss.

    Each matrix is symmetric: its upper triangle, with √2 off the diagonal, has the same squares.

    Args:
        found: Layer -> G / M, (N, C, C), as ``grams`` gives them.
        weights: As in ``style_loss``.

    Returns:
        (N, D), D = Σ C (C + 1) / 2 over the layers.
    """
    shares = weights or {layer: 1 / len(found) for layer in found}
    parts = []
    for layer, share in shares.items():
        matrix = found[layer]
        rows, columns = torch.triu_indices(*matrix.shape[1:], device=matrix.device)
        scale = share ** 0.5 / (2 * matrix.shape[1])
        twice = torch.where(rows == columns, 1.0, 2 ** 0.5).to(matrix.dtype)
        parts.append(matrix[:, rows, columns] * (twice * scale))
    return torch.cat(parts, 1)
