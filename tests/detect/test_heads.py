"""Head rows against torchvision's own layouts, and carrying class rows over by name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from musicon.detect.heads import HeadError, carry_over, rows_by_anchor, rows_by_class

NAMES = ["lute", "violin", "harp", "trumpet", "drum"]


class Toy(nn.Module):
    """One shared layer, a class-major head and an anchor-major head."""

    def __init__(self, classes: int, width: int = 3) -> None:
        super().__init__()
        self.classes = classes
        self.body = nn.Linear(2, width)
        self.boxes = nn.Linear(width, 4 * (classes + 1))
        self.anchors = nn.Conv2d(width, 2 * classes, 1)

    def head_rows(self) -> dict[str, Tensor]:
        boxes = rows_by_class(self.classes, 4)
        anchors = rows_by_anchor(self.classes, 2, background=False)
        return {"boxes.weight": boxes, "boxes.bias": boxes,
                "anchors.weight": anchors, "anchors.bias": anchors}


def test_class_major_rows_are_faster_rcnn_s() -> None:
    # torchvision reads bbox_pred as view(N, classes, 4): class 2 owns 8..11.
    values = torch.arange(4 * 4).view(4, 4)
    assert torch.equal(rows_by_class(3, 4), values)
    assert torch.equal(rows_by_class(2, 1), torch.tensor([[0], [1], [2]]))
    assert torch.equal(rows_by_class(2, 2, background=False),
                       torch.tensor([[-1, -1], [0, 1], [2, 3]]))


@given(st.integers(1, 7), st.integers(1, 9))
def test_anchor_major_rows_are_retinanet_s(num_classes: int, anchors: int) -> None:
    # torchvision's RetinaNet head: view(N, A, K, H, W), so channel a * K + k.
    channels = torch.arange(anchors * num_classes).view(anchors, num_classes)
    rows = rows_by_anchor(num_classes, anchors, background=False)
    assert rows.shape == (num_classes + 1, anchors)
    assert (rows[0] == -1).all()
    for k in range(num_classes):
        assert torch.equal(rows[k + 1], channels[:, k])
    # SSD's head counts the background among the classes.
    channels = torch.arange(anchors * (num_classes + 1)).view(anchors, num_classes + 1)
    assert torch.equal(rows_by_anchor(num_classes, anchors, background=True), channels.T)


@given(st.permutations(NAMES).flatmap(
    lambda names: st.tuples(st.just(names[:3]), st.permutations(NAMES).map(lambda n: n[:4]))))
def test_shared_classes_predict_as_before(pair: tuple[list[str], list[str]]) -> None:
    old_names, new_names = pair
    old, new = Toy(len(old_names)), Toy(len(new_names))
    fresh = {name: value.clone() for name, value in new.state_dict().items()}
    carried = carry_over(old, new, old_names, new_names)
    assert set(carried.shared) == set(old_names) & set(new_names)
    assert set(carried.fresh) == set(new_names) - set(old_names)
    assert set(carried.dropped) == set(old_names) - set(new_names)
    hidden = torch.randn(5, 2)
    with torch.no_grad():
        features = old.body(hidden)
        torch.testing.assert_close(new.body(hidden), features)
        before, after = old.boxes(features).view(5, -1, 4), new.boxes(features).view(5, -1, 4)
        torch.testing.assert_close(after[:, 0], before[:, 0])
        pixels = features[:, :, None, None]
        dense_before = old.anchors(pixels).view(5, 2, -1)
        dense_after = new.anchors(pixels).view(5, 2, -1)
        for name in carried.shared:
            i, j = old_names.index(name), new_names.index(name)
            torch.testing.assert_close(after[:, j + 1], before[:, i + 1])
            torch.testing.assert_close(dense_after[:, :, j], dense_before[:, :, i])
    for name in carried.fresh:
        rows = new.head_rows()["boxes.weight"][new_names.index(name) + 1]
        assert torch.equal(new.boxes.weight.detach()[rows], fresh["boxes.weight"][rows])


def test_another_architecture_is_refused() -> None:
    with pytest.raises(HeadError, match=r"another architecture: .*body"):
        carry_over(Toy(2, width=3), Toy(2, width=4), ["lute", "harp"], ["lute", "harp"])
