"""Heads that change their classes: which rows belong to whom, and carrying shared ones over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from musicon.datasets.records import UserError
from musicon.detect.alignment import taxonomy_name

NO_ROW = -1


class HeadError(UserError):
    """Weights that do not fit the model they are meant for."""


class HasHeadRows(Protocol):
    """A module that knows which of its parameters' rows belong to which class."""

    def head_rows(self) -> dict[str, Tensor]:
        """Parameter name -> int64 (K + 1, m): rows of the background, then of each class."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """As ``torch.nn.Module``."""
        ...

    def load_state_dict(self, state_dict: Any) -> Any:
        """As ``torch.nn.Module``."""
        ...


@dataclass(frozen=True)
class Carried:
    """What a new head took over.

    Attributes:
        shared: Classes whose rows were copied.
        fresh: Classes that start from their initialisation.
        dropped: Classes that the new head no longer has.
    """

    shared: tuple[str, ...]
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.shared)} classes carried over"]
        if self.fresh:
            parts.append(f"new: {', '.join(self.fresh)}")
        if self.dropped:
            parts.append(f"no longer known: {', '.join(self.dropped)}")
        return "; ".join(parts)


def rows_by_class(num_classes: int, per_class: int, *, background: bool = True) -> Tensor:
    """Rows of a layer that lists class after class, ``per_class`` outputs each.

    Faster R-CNN's ``cls_score`` has 1 output a class, its ``bbox_pred`` 4; both count the
    background as class 0.

    Returns:
        int64 (num_classes + 1, per_class); row 0 is the background's, -1 where it has none.
    """
    first = 0 if background else per_class
    rows = torch.arange((num_classes + 1) * per_class).view(num_classes + 1, per_class) - first
    if not background:
        rows[0] = NO_ROW
    return rows


def rows_by_anchor(num_classes: int, anchors: int, *, background: bool) -> Tensor:
    """Rows of a convolution that lists anchor after anchor, every class for each.

    So do the classification heads of RetinaNet, FCOS (one anchor) and SSD (whose classes
    include the background).

    Returns:
        int64 (num_classes + 1, anchors); row 0 is the background's, -1 where it has none.
    """
    classes = num_classes + int(background)
    by_class = torch.arange(anchors * classes).view(anchors, classes).T
    if background:
        return by_class.contiguous()
    return torch.cat([torch.full((1, anchors), NO_ROW), by_class])


def same_classes(old_names: Sequence[str], new_names: Sequence[str]) -> dict[str, str]:
    """New name -> the old name of the same instrument; classes without one are left out.

    Equal names first; the rest by their names in museum vocabulary, one to one.
    """
    same = {name: name for name in new_names if name in set(old_names)}
    left = [name for name in new_names if name not in same]
    free = [name for name in old_names if name not in same]
    if left and free:
        by_canonical = {taxonomy_name(name): name for name in reversed(free)}
        for name in left:
            old = by_canonical.pop(taxonomy_name(name), None)
            if old is not None:
                same[name] = old
    return same


def carry_over(old: HasHeadRows, new: HasHeadRows, old_names: Sequence[str],
               new_names: Sequence[str]) -> Carried:
    """Copy the weights of ``old`` into ``new``, class rows by name.

    Args:
        old: Trained on ``old_names``.
        new: Same architecture, built for ``new_names``; its rows of unshared classes stay as
            they were initialised.
        old_names: Classes of ``old`` in label order, without background.
        new_names: Classes of ``new`` in label order.

    Raises:
        HeadError: Another architecture.
    """
    same = same_classes(old_names, new_names)
    label_of = {name: label for label, name in enumerate(old_names, start=1)}
    pairs = [(0, 0)] + [(label_of[same[name]], label)
                        for label, name in enumerate(new_names, start=1) if name in same]
    _copy(old, new, pairs)
    return Carried(shared=tuple(name for name in new_names if name in same),
                   fresh=tuple(name for name in new_names if name not in same),
                   dropped=tuple(name for name in old_names if name not in set(same.values())))


def _copy(old: HasHeadRows, new: HasHeadRows, pairs: Sequence[tuple[int, int]]) -> None:
    old_state, new_state = old.state_dict(), new.state_dict()
    old_rows, new_rows = old.head_rows(), new.head_rows()
    odd = sorted(set(old_state) ^ set(new_state) | set(old_rows) ^ set(new_rows))
    odd += [name for name in new_state
            if name not in new_rows and old_state.get(name, new_state[name]).shape
            != new_state[name].shape]
    if odd:
        raise HeadError(f"the weights are of another architecture: {odd[0]} does not fit"
                        + (f" (nor do {len(odd) - 1} other tensors)" if len(odd) > 1 else ""))
    source = torch.tensor([a for a, _ in pairs])
    target = torch.tensor([b for _, b in pairs])
    with torch.no_grad():
        for name, value in new_state.items():
            if name not in new_rows:
                value.copy_(old_state[name])
                continue
            read, write = old_rows[name][source].flatten(), new_rows[name][target].flatten()
            there = (read != NO_ROW) & (write != NO_ROW)
            value[write[there]] = old_state[name][read[there]].to(value)
    new.load_state_dict(new_state)
