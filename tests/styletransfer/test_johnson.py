from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from musicon.styletransfer.methods import build
from musicon.styletransfer.methods.gatys import total_variation
from musicon.styletransfer.methods.johnson import EPSILON, NAMES, REACH, Network, network_state
from musicon.styletransfer.weights import StyleError

SMALL = (4, 5, 6)


def write(file: Path, seed: int = 0) -> str:
    network = Network(seed, SMALL)
    generator = torch.Generator().manual_seed(seed)
    for shifts in network.shifts.values():  # as if trained: shifts that are not nothing
        shifts.data = 0.2 * torch.randn(shifts.shape, generator=generator)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, file)
    return str(file)


def images(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height))


def test_shapes_of_the_layers_are_the_papers() -> None:
    network = Network()
    sizes = {}
    for number, name in enumerate(NAMES):
        sizes[name] = tuple(network(images(1, 32, 48), until=number).shape[1:])
    assert sizes["down1"] == (32, 32, 48)
    assert sizes["down2"] == (64, 16, 24)
    assert {sizes[n] for n in NAMES[2:13]} == {(128, 8, 12)}
    assert sizes["up1"] == (64, 16, 24) and sizes["up2"] == (32, 32, 48)
    assert sizes["up3"] == (3, 32, 48)
    assert len(NAMES) == 16
    # Johnson et al. state 1.67 million weights for this architecture.
    assert 1.6e6 < sum(p.numel() for p in network.parameters()) < 1.7e6


def test_instance_norm_by_hand() -> None:
    # One layer, a kernel that copies: 255 times 0, 0, 1, 1 has mean 127.5 and deviation 127.5.
    network = Network(widths=(1, 1, 1))
    network.weights["down1"].data = torch.zeros(1, 3, 9, 9)
    network.weights["down1"].data[0, 0, 4, 4] = 1
    network.weights["down2"].data = torch.zeros(1, 1, 3, 3)
    network.weights["down2"].data[0, 0, 0, 0] = 1
    network.scales["down1"].data[:], network.shifts["down1"].data[:] = 2.0, 0.5
    image = torch.zeros(1, 3, 4, 4)
    image[:, 0, :, 2:] = 1
    # Normalised to -1 and 1, times 2 plus 0.5 is -1.5 and 2.5; the first is cut to 0.
    assert network(image, until=1)[0, 0].flatten().tolist() == pytest.approx([0, 2.5] * 2, rel=1e-6)


def test_normalisation_is_torchs() -> None:
    network = Network(3, SMALL)
    image = images(2, 16, 12)
    first = network(image, until=0)
    normed = F.instance_norm(first, weight=network.scales["down1"], bias=network.shifts["down1"],
                             eps=EPSILON).relu()
    expected = F.conv2d(F.pad(normed, (0, 1, 0, 1)), network.weights["down2"], stride=2)
    torch.testing.assert_close(network(image, until=1), expected, rtol=1e-3, atol=1e-3)


def test_tensorflow_weights_are_turned_round(tmp_path: Path) -> None:
    network = Network(1, SMALL)
    published, number = {}, 0
    for name in NAMES:
        # OIHW -> HWIO, and for transposed convolutions IOHW -> HWOI: the same turn.
        for value in (network.weights[name].permute(2, 3, 1, 0), network.shifts[name],
                      network.scales[name]):
            published["Variable" if number == 0 else f"Variable_{number}"] = value.contiguous()
            number += 1
    for key, value in network_state(published, "x").items():
        assert torch.equal(value, network.state_dict()[key])
    file = tmp_path / "published.safetensors"
    save_file({k: v.detach().clone() for k, v in published.items()}, file)
    found = build("johnson", {"weights": str(file)})(images(1, 8, 8), images(1, 4, 4))
    torch.testing.assert_close(found, network(images(1, 8, 8)).clamp(0, 1))


def test_transposed_convolution_is_the_gradient_of_the_strided_one() -> None:
    """What TensorFlow's ``conv2d_transpose`` with SAME padding is, by definition."""
    network = Network(2, SMALL)
    weight = network.weights["up1"]  # (6, 5, 3, 3)
    maps = torch.randn(1, 6, 4, 6)
    larger = torch.randn(1, 5, 8, 12, requires_grad=True)
    down = F.conv2d(F.pad(larger, (0, 1, 0, 1)), weight, stride=2)
    (expected,) = torch.autograd.grad(down, larger, maps)
    torch.testing.assert_close(network._convolve("up1", maps), expected)


def test_tiles_equal_the_whole(tmp_path: Path) -> None:
    weights = write(tmp_path / "network.safetensors")
    content, style = images(1, 150, 201), images(1, 5, 5)
    whole = build("johnson", {"weights": weights})(content, style)
    tiled = build("johnson", {"weights": weights, "tile": 80})(content, style)
    assert REACH % 4 == 0
    torch.testing.assert_close(tiled, whole, rtol=1e-3, atol=2e-4)


def test_alpha_batches_and_sizes(tmp_path: Path) -> None:
    method = build("johnson", {"weights": write(tmp_path / "network.safetensors")})
    content = images(2, 9, 7)
    codes = method.encode_style(images(2, 4, 4))
    assert codes.shape == (2, 0)
    found = method.transfer(content, codes, torch.tensor([0.0, 0.25]))
    assert torch.equal(found[0], content[0])
    alone = method.transfer(content[1:], codes[:1])
    torch.testing.assert_close(found[1], torch.lerp(content[1], alone[0], 0.25),
                               rtol=1e-3, atol=1e-4)
    assert method.transfer(content, method.encode_style(images(6, 4, 4))).shape == (6, 3, 9, 7)
    assert torch.isfinite(method(images(1, 1, 1), images(1, 4, 4))).all()


def test_what_is_no_network_is_said(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"conv1_1.weight": torch.zeros(3, 3, 3, 3)}, file)
    with pytest.raises(StyleError, match=r"not a style network .*train-style"):
        build("johnson", {"weights": str(file)})


@pytest.mark.real
def test_the_published_network_runs(real_fixture: Path) -> None:
    from musicon.datasets.images import decode_reduced

    method = build("johnson", {
        "weights": str(real_fixture / "weights" / "johnson" / "mathura.safetensors")})
    photo = sorted((real_fixture / "photos_kaggle30").rglob("*.jpg"))[5]
    content = torch.from_numpy(decode_reduced(photo, 160)[0]).permute(2, 0, 1)[None] / 255
    found = method(content, content)
    # A drawing in black ink on white: grey, and full of lines.
    assert found.std(1).mean() < 0.05
    assert total_variation(found) > 3 * total_variation(content)
