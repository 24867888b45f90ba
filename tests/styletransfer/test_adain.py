from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from networks import write_networks
from torch import Tensor

from musicon.styletransfer.gram import grams, style_loss
from musicon.styletransfer.methods import METHODS, build
from musicon.styletransfer.methods.adain import AdaIN, affine
from musicon.styletransfer.methods.base import keep_colours
from musicon.styletransfer.moments import EPSILON, moments
from musicon.styletransfer.tiling import tiles
from musicon.styletransfer.weights import LAYERS, StyleError


@pytest.fixture(scope="module")
def adain(tmp_path_factory: pytest.TempPathFactory) -> AdaIN:
    made = build("adain", write_networks(tmp_path_factory.mktemp("networks")))
    assert isinstance(made, AdaIN)
    return made


def images(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_features_carry_the_styles_mean_and_deviation() -> None:
    content, style = torch.randn(2, 5, 9, 7) * 3 + 1, torch.randn(2, 5, 4, 6) * 0.3 - 2
    code = torch.stack(moments([style]), 1)
    factor, offset = affine(*moments([content]), code, torch.ones(2, 1, 1, 1))
    found = content * factor + offset
    torch.testing.assert_close(found.mean((2, 3)), style.mean((2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.var((2, 3), correction=0), style.var((2, 3), correction=0),
                               rtol=1e-3, atol=1e-3)


def test_against_torchs_instance_norm() -> None:
    content, style = torch.randn(1, 5, 9, 7), torch.randn(1, 5, 4, 6)
    code = torch.stack(moments([style]), 1)
    factor, offset = affine(*moments([content]), code, torch.ones(1, 1, 1, 1))
    expected = F.instance_norm(content, weight=code[0, 1], bias=code[0, 0], eps=EPSILON)
    torch.testing.assert_close(content * factor + offset, expected)


@given(alpha=st.floats(0, 1), seed=st.integers(0, 1000))
def test_alpha_mixes_features(alpha: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    content = torch.randn(1, 3, 5, 4, generator=generator)
    code = torch.rand(1, 2, 3, generator=generator)

    def styled(strength: float) -> Tensor:
        factor, offset = affine(*moments([content]), code, torch.full((1, 1, 1, 1), strength))
        return content * factor + offset

    torch.testing.assert_close(styled(alpha), alpha * styled(1.0) + (1 - alpha) * content,
                               rtol=1e-4, atol=1e-4)
    assert torch.equal(styled(0.0), content)


@given(cuts=st.lists(st.integers(1, 6), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_moments_of_parts_are_those_of_the_whole(cuts: list[int], seed: int) -> None:
    whole = np.random.default_rng(seed).normal(5, 0.1, size=(2, 3, sum(cuts), 4)).astype("f4")
    mean, deviation = moments(torch.from_numpy(whole).split(cuts, dim=2))
    np.testing.assert_allclose(mean, whole.mean((2, 3)), rtol=1e-5)
    np.testing.assert_allclose(deviation, np.sqrt(whole.var((2, 3)) + EPSILON), rtol=1e-3)


def test_alpha_0_is_the_content_as_the_decoder_sees_it(adain: AdaIN) -> None:
    content = images(1, 21, 30)
    found = adain(content, images(1, 16, 16, 1), 0.0)
    decoded = adain.decoder(adain.encoder.features(content))[:, :, :21, :30].clamp(0, 1)
    torch.testing.assert_close(found, decoded)


def test_one_batch_equals_one_by_one_and_styles_stand_beside_their_content(adain: AdaIN) -> None:
    contents, styles = images(2, 20, 12), images(3, 15, 18, 1)
    codes = adain.encode_style(styles)
    strengths = torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0, 0.0])
    found = adain.transfer(contents, codes.repeat(2, 1, 1), strengths)
    for number in range(6):
        one = adain(contents[number // 3][None], styles[number % 3][None], float(strengths[number]))
        torch.testing.assert_close(found[number], one[0], rtol=1e-4, atol=1e-5)
    same = adain.transfer(contents, codes[:1])
    torch.testing.assert_close(same[1:], adain.transfer(contents[1:], codes[:1]))


@pytest.mark.parametrize("reflects", [True, False])
@pytest.mark.parametrize("depth", ["relu2_1", "relu3_1", "relu4_1"])
def test_tiles_meet_without_a_seam(tmp_path: Path, depth: str, reflects: bool) -> None:
    networks = write_networks(tmp_path, depth, reflects=reflects)
    whole, tiled = build("adain", networks), build("adain", {**networks, "tile": 64})
    content, style = images(1, 131, 205), images(1, 150, 77, 1)
    assert len(tiles(131, 205, 64, 8, 8)) == 12
    torch.testing.assert_close(tiled.encode_style(style), whole.encode_style(style),
                               rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tiled(content, style), whole(content, style), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (65, 7)])
def test_any_size(adain: AdaIN, size: tuple[int, int]) -> None:
    found = adain(images(2, *size), images(2, 5, 1, 1), 0.5)
    assert found.shape == (2, 3, *size)
    assert torch.isfinite(found).all() and found.min() >= 0 and found.max() <= 1


def test_half_precision_is_close(tmp_path: Path) -> None:
    networks = write_networks(tmp_path)
    content, style = images(1, 32, 32), images(1, 32, 32, 1)
    exact = build("adain", networks)(content, style)
    found = build("adain", networks).place("cpu", "bfloat16")(content, style)
    assert found.dtype == torch.float32
    assert (found - exact).abs().mean() < 0.01


def test_colours_are_kept() -> None:
    content, image = 0.3 + 0.2 * images(1, 6, 5), 0.4 + 0.2 * images(1, 6, 5, 1)
    found = keep_colours(content, image)
    yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    kept, wanted, now = (torch.einsum("ij,njhw->nihw", yiq, x) for x in (content, image, found))
    torch.testing.assert_close(now[:, 1:], kept[:, 1:], rtol=0, atol=2e-3)  # yiq is rounded
    torch.testing.assert_close(now[:, 0], wanted[:, 0])


def test_a_colour_preserving_method_keeps_grey_grey(tmp_path: Path) -> None:
    made = build("adain", {**write_networks(tmp_path), "preserve_colour": True})
    found = made(images(1, 16, 16)[:, :1].expand(1, 3, 16, 16), images(1, 16, 16, 1))
    torch.testing.assert_close(found[:, 0], found[:, 2])


def test_what_cannot_be_used_is_said(adain: AdaIN, tmp_path: Path) -> None:
    with pytest.raises(StyleError, match="write one of: adain, gatys, johnson"):
        build("cyclegan")
    with pytest.raises(StyleError, match=r"encoder must be given.*its settings are"):
        build("adain", {"decoder": "x"})
    with pytest.raises(StyleError, match="alfa is no setting"):
        build("adain", {"alfa": 1})
    with pytest.raises(StyleError, match="no such weight file"):
        build("adain", {"encoder": "random", "decoder": str(tmp_path / "none.safetensors")})
    networks = write_networks(tmp_path)
    with pytest.raises(StyleError, match="decodes 8 channels of relu3_1, random has 256"):
        build("adain", {**networks, "encoder": "random"})
    content = images(2, 8, 8)
    code = adain.encode_style(images(3, 8, 8))
    with pytest.raises(StyleError, match="3 style codes for 2 contents"):
        adain.transfer(content, code)
    with pytest.raises(StyleError, match="alpha"):
        adain.transfer(content, code[:2], 1.5)
    with pytest.raises(StyleError, match=r"expected float RGB .* uint8 \(2, 3, 8, 8\)"):
        adain.encode_style((content * 255).to(torch.uint8))
    with pytest.raises(StyleError, match="auto, float32"):
        adain.place("cpu", "half")


def test_description_tells_weights_and_settings_apart(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir(), second.mkdir()
    one, other = build("adain", write_networks(first)), build("adain", write_networks(second,
                                                                                      seed=5))
    again = build("adain", write_networks(first))
    assert one.describe() == again.describe()
    assert one.describe()["weights_sha256"] != other.describe()["weights_sha256"]
    assert METHODS[0] == one.describe()["method"]


@pytest.mark.real
def test_real_styles_come_nearer_and_contents_stay(real_fixture: Path) -> None:
    from musicon.datasets.images import decode_reduced

    weights = real_fixture / "weights" / "vgg19_normalised"
    made = build("adain", {"encoder": str(weights / "vgg_normalised_conv3_1.safetensors"),
                           "decoder": str(weights / "feature_invertor_conv3_1.safetensors")})
    assert isinstance(made, AdaIN)

    def load(file: Path) -> Tensor:
        pixels = decode_reduced(file, 160)[0]
        return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255

    photos = sorted((real_fixture / "photos_kaggle30").rglob("*.jpg"))[5:1500:300]
    paintings = sorted((real_fixture / "paintings_peopleart").rglob("*.jpg"))[::48]
    contents, styles = [load(file) for file in photos], [load(file) for file in paintings]
    maps, ratios = [made.encoder(content) for content in contents], []
    for number, content in enumerate(contents):
        for style in styles:
            wanted = grams(made.encoder(style))
            found = made.encoder(made(content, style))
            before = style_loss(grams(maps[number]), wanted, dict.fromkeys(LAYERS[:3], 1 / 3))
            after = style_loss(grams(found), wanted, dict.fromkeys(LAYERS[:3], 1 / 3))
            ratios.append(float(after / before))
            # Normalised features still say which photo it was.
            distances = [_difference(found["relu3_1"], other["relu3_1"]) for other in maps]
            assert int(np.argmin(distances)) == number
    assert max(ratios) < 1 and np.median(ratios) < 0.4


def _difference(first: Tensor, second: Tensor) -> float:
    """Mean square between instance-normalised maps, brought to one size."""
    sized = [F.interpolate(F.instance_norm(x), (40, 40), mode="bilinear") for x in (first, second)]
    return F.mse_loss(*sized).item()
