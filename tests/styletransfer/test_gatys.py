from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import write_networks
from torch import Tensor

from musicon.styletransfer.gram import grams, style_loss
from musicon.styletransfer.methods import build
from musicon.styletransfer.methods.gatys import Gatys, Objective, total_variation
from musicon.styletransfer.weights import StyleError


def images(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def make(folder: Path, **settings: object) -> Gatys:
    method = build("gatys", {"encoder": write_networks(folder)["encoder"], **settings})
    assert isinstance(method, Gatys)
    return method


def loss_and_gradient(method: Gatys, content: Tensor, style: Tensor, image: Tensor,
                      alpha: float = 1.0) -> tuple[float, Tensor]:
    objective = Objective(method, content, method.encode_style(style).to(content), alpha)
    leaf = image.clone().requires_grad_(True)
    loss = objective(leaf)
    assert leaf.grad is not None
    return float(loss), leaf.grad


def test_gradient_against_differences(tmp_path: Path) -> None:
    method = make(tmp_path, tv_weight=0.5)
    method.double()
    method.dtype = torch.float64
    content, style, image = (images(9, 11, seed).double() for seed in range(3))
    _, gradient = loss_and_gradient(method, content, style, image)
    rng, step = np.random.default_rng(0), 1e-6
    for _ in range(12):
        place = tuple(rng.integers(0, n) for n in image.shape)
        moved = [image.clone(), image.clone()]
        moved[0][place] += step
        moved[1][place] -= step
        up, down = (loss_and_gradient(method, content, style, m)[0] for m in moved)
        assert gradient[place].item() == pytest.approx((up - down) / (2 * step), rel=1e-3, abs=1e-7)


def test_loss_is_the_formula(tmp_path: Path) -> None:
    method = make(tmp_path, style_weight=3.0, content_weight=2.0, tv_weight=0.25)
    content, style, image = images(16, 20), images(12, 12, 1), images(16, 20, 2)
    maps = [method.encoder(x) for x in (content, style, image)]
    wanted = grams(maps[1])
    zeros = {layer: torch.zeros_like(value) for layer, value in wanted.items()}
    layer = method.content_layer
    assert layer == "relu4_1"
    expected = (2 * (maps[2][layer] - maps[0][layer]).square().sum() / maps[0][layer].square().sum()
                + 0.5 * (3 * style_loss(grams(maps[2]), wanted) / style_loss(wanted, zeros)
                         + 0.25 * total_variation(image)))
    assert loss_and_gradient(method, content, style, image, 0.5)[0] == pytest.approx(
        float(expected), rel=1e-4)


def test_tiles_have_the_gradient_of_the_whole(tmp_path: Path) -> None:
    whole, tiled = make(tmp_path), make(tmp_path, tile=64)
    content, style, image = images(100, 133), images(90, 130, 1), images(100, 133, 2)
    assert len(tiled._tiles(content)) == 6
    torch.testing.assert_close(tiled.encode_style(style), whole.encode_style(style),
                               rtol=1e-3, atol=1e-6)
    first = loss_and_gradient(whole, content, style, image)
    second = loss_and_gradient(tiled, content, style, image)
    assert second[0] == pytest.approx(first[0], rel=1e-3)
    assert (second[1] - first[1]).norm() < 1e-3 * first[1].norm()


def test_total_variation_by_hand() -> None:
    # Down: 2, 2, 0, and three rows of nothing below; across: 1, 1 | 1, 1 | 1, 1 ...
    image = torch.tensor([[[[0.0, 1], [2, 3]]]])
    assert total_variation(image).item() == pytest.approx((2 + 2) / 4 + (1 + 1) / 4)
    assert total_variation(torch.rand(1, 3, 1, 1)).item() == 0


@pytest.mark.parametrize(("optimiser", "start"), [("lbfgs", "content"), ("adam", "content"),
                                                  ("lbfgs", "noise")])
def test_the_loss_falls(tmp_path: Path, optimiser: str, start: str) -> None:
    method = make(tmp_path, optimiser=optimiser, start=start, steps=15)
    content, style = images(24, 20), images(20, 24, 1) ** 3
    found = method(content, style)
    assert found.shape == content.shape and found.min() >= 0 and found.max() <= 1
    begin = content if start == "content" else images(24, 20, 7)
    before, after = (loss_and_gradient(method, content, style, x)[0] for x in (begin, found))
    assert after < 0.7 * before


def test_alpha_0_leaves_the_content_and_a_batch_is_one_by_one(tmp_path: Path) -> None:
    method = make(tmp_path, steps=3)
    contents = torch.cat([images(12, 16), images(12, 16, 1)])
    styles = torch.cat([images(10, 10, 2), images(10, 10, 3)])
    found = method(contents, styles, torch.tensor([0.0, 0.7]))
    torch.testing.assert_close(found[:1], contents[:1])
    torch.testing.assert_close(found[1:], method(contents[1:], styles[1:], 0.7))
    assert torch.isfinite(method(images(1, 1), images(1, 2))).all()


def test_content_layer_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StyleError, match="relu9_1 is not among"):
        make(tmp_path, content_layer="relu9_1")


@pytest.mark.real
def test_real_style_is_taken_and_content_kept(real_fixture: Path) -> None:
    from musicon.datasets.images import decode_reduced

    def load(file: Path) -> Tensor:
        return torch.from_numpy(decode_reduced(file, 64)[0]).permute(2, 0, 1)[None] / 255

    weights = real_fixture / "weights" / "vgg19_normalised" / "vgg_normalised_conv3_1.safetensors"
    method = build("gatys", {"encoder": str(weights), "steps": 20})
    assert isinstance(method, Gatys)
    content = load(sorted((real_fixture / "photos_kaggle30").rglob("*.jpg"))[700])
    style = load(sorted((real_fixture / "paintings_peopleart").rglob("*.jpg"))[100])
    found = method(content, style)
    wanted = grams(method.encoder(style))
    losses = [style_loss(grams(method.encoder(x)), wanted).item() for x in (content, found)]
    assert losses[1] < 0.1 * losses[0]
    maps = [method.encoder(x)["relu3_1"] for x in (content, found, content.flip(3))]
    assert (maps[1] - maps[0]).norm() < 0.7 * (maps[2] - maps[0]).norm()
