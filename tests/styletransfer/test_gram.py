from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musicon.styletransfer.gram import flatten, gram, grams, style_loss


def test_gram_by_hand() -> None:
    # Channel 0: 1 2 3, channel 1: 0 1 -1. G00 = 14, G01 = 2 - 3 = -1, G11 = 2.
    features = torch.tensor([[[[1.0, 2, 3]], [[0, 1, -1]]]])
    assert gram(features).tolist() == [[[14, -1], [-1, 2]]]
    assert torch.allclose(grams({"a": features})["a"], gram(features) / 3)


def test_style_loss_by_hand() -> None:
    # Two channels, so 4 N² = 16; the differences are 1, 2, 2, 3 and their squares sum to 18.
    # Summing before squaring would give 64.
    found = {"a": torch.tensor([[[1.0, 2], [2, 3]]])}
    wanted = {"a": torch.zeros(1, 2, 2)}
    assert style_loss(found, wanted).tolist() == [18 / 16]
    assert style_loss(found, wanted, {"a": 4.0}).tolist() == [4 * 18 / 16]


def test_differences_of_opposite_sign_do_not_cancel() -> None:
    found = {"a": torch.tensor([[[1.0, 0], [0, -1]]])}
    assert style_loss(found, {"a": torch.zeros(1, 2, 2)}).item() == pytest.approx(2 / 16)


@given(seed=st.integers(0, 10_000), channels=st.integers(1, 4), height=st.integers(1, 5),
       width=st.integers(1, 5))
def test_against_numpy_with_the_papers_scale(seed: int, channels: int, height: int,
                                             width: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 2, channels, height, width))
    positions = height * width
    loss = style_loss(grams({"x": torch.from_numpy(first)}), grams({"x": torch.from_numpy(second)}),
                      {"x": 0.7})
    for index in range(2):
        a, b = (part[index].reshape(channels, positions) for part in (first, second))
        expected = 0.7 * np.sum((a @ a.T - b @ b.T) ** 2) / (4 * channels**2 * positions**2)
        assert loss[index].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_one_style_for_many_images() -> None:
    many, one = torch.rand(3, 4, 5, 5), torch.rand(1, 4, 7, 3)
    losses = style_loss(grams({"x": many}), grams({"x": one}))
    alone = [style_loss(grams({"x": image[None]}), grams({"x": one})).item() for image in many]
    assert losses.tolist() == pytest.approx(alone)


@given(seed=st.integers(0, 10_000), weighted=st.booleans())
def test_squared_distance_of_flat_vectors_is_the_style_loss(seed: int, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = [{name: torch.rand(3, channels, 4, 5, generator=generator, dtype=torch.float64)
             for name, channels in (("a", 3), ("b", 6))} for _ in range(2)]
    weights = {"a": 0.2, "b": 1.7} if weighted else None
    first, second = (flatten(grams(part), weights) for part in maps)
    assert first.shape == (3, 6 + 21)
    distances = (first - second).square().sum(1)
    expected = style_loss(grams(maps[0]), grams(maps[1]), weights)
    assert torch.allclose(distances, expected, rtol=1e-12)
