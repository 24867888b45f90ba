from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from musicon.styletransfer import encoder as encoders
from musicon.styletransfer.decoder import Decoder, convolve_enlarged
from musicon.styletransfer.weights import (
    LAYERS,
    StyleError,
    conv_names,
    decoder_state,
    encoder_state,
    read_state,
)

SMALL = (4, 6, 8, 10, 12)


def small_state() -> dict[str, Tensor]:
    return encoders.random_state(3, SMALL)


def test_features_are_torchvisions(tmp_path: Path) -> None:
    from torchvision.models.vgg import cfgs, make_layers

    torchvision_vgg = make_layers(cfgs["E"])
    for parameter, value in zip(torchvision_vgg.parameters(),
                                encoders.random_state(5).values(), strict=False):
        parameter.data = value
    file = tmp_path / "vgg19.pth"
    torch.save({f"features.{k}": v for k, v in torchvision_vgg.state_dict().items()}, file)
    made = encoders.build(file)
    images = torch.rand(2, 3, 32, 48)
    mean, std = (torch.tensor(v)[:, None, None]
                 for v in (encoders.IMAGENET_MEAN, encoders.IMAGENET_STD))
    found = made(images)
    expected, maps = {}, (images - mean) / std
    for number, layer in enumerate(torchvision_vgg):
        maps = layer(maps)
        if number in (1, 6, 11, 20, 29):
            # A copy: the layers after it work in place.
            expected[LAYERS[len(expected)]] = maps.clone()
    assert list(found) == list(LAYERS)
    for layer in LAYERS:
        torch.testing.assert_close(found[layer], expected[layer], rtol=1e-3, atol=1e-4)
    assert made.channels == dict(zip(LAYERS, (64, 128, 256, 512, 512), strict=True))


def test_average_pooling_by_hand() -> None:
    weights = {f"conv{i}.weight": torch.eye(3)[..., None, None] * F.pad(
        torch.ones(1, 1), (1, 1, 1, 1)) for i in ("1_1", "1_2", "2_1")}
    state = weights | {key.replace("weight", "bias"): torch.zeros(3) for key in weights}
    state |= {"preprocess.weight": torch.eye(3)[..., None, None], "preprocess.bias": torch.zeros(3)}
    image = torch.tensor([[1.0, 3, 9], [5, 7, 11]]).expand(1, 3, 2, 3)
    average = encoders.Encoder(state, pooling="average").features(image)
    largest = encoders.Encoder(state, pooling="max").features(image)
    # The odd column is a window of its own: the mean of 9 and 11.
    assert average[0, 0].tolist() == [[4, 10]]
    assert largest[0, 0].tolist() == [[7, 11]]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (17, 31)])
def test_any_size_has_features(size: tuple[int, int]) -> None:
    made = encoders.Encoder(small_state())
    found = made(torch.rand(1, 3, *size))
    for number, layer in enumerate(LAYERS):
        expected = tuple(-(-side // 2**number) for side in size)
        assert found[layer].shape[2:] == expected
        assert torch.isfinite(found[layer]).all()


@pytest.mark.parametrize("depth", LAYERS)
def test_reach_covers_all_that_a_feature_depends_on(depth: str) -> None:
    made = encoders.Encoder(encoders.random_state(1, SMALL), depth=depth, pooling="average")
    side = 2 * made.reach + 3 * made.stride
    for name in conv_names(depth):  # no unit is dead: every pixel that can matter does
        made.conv(name).weight.data.abs_()
    image = torch.rand(1, 3, side, side, requires_grad=True)
    centre = made.reach // made.stride + 1
    (grad,) = torch.autograd.grad(made.features(image)[0, :, centre, centre].sum(), image)
    touched = grad[0].abs().sum(0).nonzero()
    first, last = centre * made.stride, (centre + 1) * made.stride - 1
    assert touched.min() >= first - made.reach and touched.max() <= last + made.reach
    assert touched.min() <= first - made.reach + made.stride  # and it is not far too large


def test_encoder_only_goes_as_deep_as_its_weights(tmp_path: Path) -> None:
    names = conv_names("relu3_1")
    state = {k: v for k, v in small_state().items() if k.rpartition(".")[0] in names}
    file = tmp_path / "short.safetensors"
    save_file(state, file)
    assert encoders.build(file).depth == "relu3_1"
    with pytest.raises(StyleError, match="reach relu3_1, not relu4_1"):
        encoders.build(file, depth="relu4_1")
    with pytest.raises(StyleError, match="write one of: relu1_1"):
        encoders.build(file, depth="conv3_1")
    with pytest.raises(StyleError, match="max or average"):
        encoders.build(file, pooling="mean")


def test_unusable_weight_files(tmp_path: Path) -> None:
    with pytest.raises(StyleError, match="no such weight file"):
        encoders.build(tmp_path / "none.pth")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing")
    with pytest.raises(StyleError, match="not a readable weight file"):
        encoders.build(bad)
    save_file({"layer.weight": torch.zeros(2)}, bad)
    with pytest.raises(StyleError, match=r"VGG encoder .*layer\.weight"):
        encoders.build(bad)
    with pytest.raises(StyleError, match="decoder"):
        decoder_state(read_state(bad), "bad")


def test_without_a_network_auto_warns_and_torchvision_refuses(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(StyleError, match="could not be fetched"):
        encoders.build("torchvision")
    with pytest.warns(UserWarning, match="random weights"):
        made = encoders.build("auto", depth="relu1_1", seed=4)
    again = encoders.build("random", depth="relu1_1", seed=4)
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(made.features(image), again.features(image))


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 2), (4, 7)])
def test_enlarged_convolution_is_the_plain_one(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 5, *size, dtype=torch.float64)
    weight, bias = torch.randn(6, 5, 3, 3, dtype=torch.float64), torch.randn(6).double()
    enlarged = F.pad(F.interpolate(maps, scale_factor=2), (1, 1, 1, 1), mode="reflect")
    torch.testing.assert_close(convolve_enlarged(maps, weight, bias),
                               F.conv2d(enlarged, weight, bias))


@pytest.mark.parametrize("depth", LAYERS)
def test_decoder_is_the_plain_sequence(depth: str) -> None:
    encoder = encoders.Encoder(small_state(), depth=depth)
    decoder = Decoder.mirror(encoder, seed=1)
    maps = plain = torch.rand(1, encoder.channels[depth], 3, 2)
    state = decoder.state()
    for name in reversed(conv_names(depth)):
        plain = F.conv2d(F.pad(plain, (1, 1, 1, 1), mode="reflect"), state[f"{name}.weight"],
                         state[f"{name}.bias"])
        plain = plain if name == "conv1_1" else plain.relu()
        if name.endswith("_1") and name != "conv1_1":
            plain = F.interpolate(plain, scale_factor=2)
    found = decoder(maps)
    assert found.shape == (1, 3, 3 * encoder.stride, 2 * encoder.stride)
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-5)
    again = Decoder(decoder_state(state, "saved"))
    assert torch.equal(again(maps), found)


def test_layers_by_number_are_found_by_their_order() -> None:
    """The public decoders number the layers of a sequence: 1, 5, 8, 12, 15 from relu3_1."""
    decoder = Decoder.mirror(encoders.Encoder(small_state(), depth="relu3_1"))
    numbers = dict(zip(decoder.names, (1, 5, 8, 12, 15), strict=True))
    numbered = {f"{numbers[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v
                for k, v in decoder.state().items()}
    features = torch.rand(1, 8, 4, 4)
    assert torch.equal(Decoder(decoder_state(numbered, "numbers"))(features), decoder(features))


@pytest.mark.real
@pytest.mark.parametrize(("encoder", "decoder", "error"), [
    ("vgg19_normalised/vgg_normalised_conv3_1", "vgg19_normalised/feature_invertor_conv3_1", .003),
    ("vgg19_normalised/vgg_normalised_conv1_1", "vgg19_normalised/feature_invertor_conv1_1", .001),
    ("vgg19_distilled16x/encoder_relu4_1", "vgg19_distilled16x/decoder_relu4_1", .005),
])
def test_real_weights_give_the_photo_back(real_fixture: Path, encoder: str, decoder: str,
                                          error: float) -> None:
    """Channel order, range and padding are right only if the picture returns."""
    from musicon.datasets.images import decode_reduced

    photo = next(iter(sorted((real_fixture / "photos_kaggle30").rglob("*.jpg"))))
    image = torch.from_numpy(decode_reduced(photo, 224)[0]).permute(2, 0, 1)[None] / 255
    weights = real_fixture / "weights"
    made = encoders.build(weights / f"{encoder}.safetensors")
    file = weights / f"{decoder}.safetensors"
    with torch.no_grad():
        found = Decoder(decoder_state(read_state(file), str(file)))(made.features(image))
        wrong = Decoder(decoder_state(read_state(file), str(file)))(made.features(image.flip(1)))
    assert F.mse_loss(found.clamp(0, 1), image) < error
    assert encoder_state(read_state(weights / f"{encoder}.safetensors"), "x")["preprocess.weight"] \
        .shape == (3, 3, 1, 1)
    assert F.mse_loss(wrong.clamp(0, 1), image) > 2 * F.mse_loss(found.clamp(0, 1), image)
