"""Grad-CAM and integrated gradients (Captum) against autograd and values known by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from musicon.detect.backbones import build_network
from musicon.detect.classifier import CropClassifier
from musicon.detect.config import ClassifierConfig
from musicon.detect.explanations import METHODS, heat, method_module
from musicon.detect.explanations.grad_cam import heat as grad_cam
from musicon.detect.explanations.integrated_gradients import attributions
from musicon.detect.explanations.integrated_gradients import heat as integrated
from musicon.detect.explanations.tracing import ExplanationError


class Averaged(nn.Module):
    """One 1 x 1 convolution that splits red from green, the average of each, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.split, self.head = nn.Conv2d(3, 2, 1, bias=False), nn.Linear(2, 2, bias=False)
        nn.init.zeros_(self.split.weight)
        self.split.weight.data[0, 0] = self.split.weight.data[1, 1] = 1
        self.head.weight.data[:] = torch.tensor([[1.0, 0.0], [-3.0, 2.0]])

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.split(images).relu().mean(dim=(2, 3)))


def red_and_green() -> Tensor:
    images = torch.zeros(1, 3, 4, 4)
    images[0, 0, 0, 0], images[0, 0, 1, 1], images[0, 1, 3, 3] = 4.0, 2.0, 5.0
    return images


def test_grad_cam_by_hand() -> None:
    """Output 0 weighs red by 1 / 16 (an average of 16 cells), output 1 by -3 / 16, green by 2."""
    maps = grad_cam(Averaged().eval(), red_and_green().expand(2, -1, -1, -1), torch.tensor([0, 1]))
    expected = torch.zeros(2, 4, 4, dtype=torch.float64)
    expected[0, 0, 0], expected[0, 1, 1] = 1.0, 0.5
    expected[1, 3, 3] = 1.0
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize(("name", "module"), [
    ("tf_efficientnet_lite0", "bn2"), ("torchvision:vgg11", "features.19"),
    ("resnet18", "layer4"), ("torchvision:inception_v3", "Mixed_7c"),
    ("torchvision:mobilenet_v3_small", "features.12")])
def test_grad_cam_against_autograd(name: str, module: str) -> None:
    torch.manual_seed(0)
    network = build_network(name, 3, weights="none").eval()
    images, classes = torch.randn(2, 3, 160, 160), torch.tensor([2, 0])
    kept: list[Tensor] = []
    hook = network.get_submodule(module).register_forward_hook(
        lambda _, __, out: kept.append(out))
    outputs = network(images)
    hook.remove()
    gradient, = torch.autograd.grad(outputs.gather(1, classes[:, None]).sum(), kept[0])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = (weights * kept[0]).sum(dim=1, keepdim=True).relu().detach()
    maps = nn.functional.interpolate(maps, (160, 160), mode="bilinear", align_corners=False)[:, 0]
    top = maps.amax(dim=(1, 2), keepdim=True)
    assert top.max() > 0
    torch.testing.assert_close(grad_cam(network, images, classes).float(),
                               maps / top.clamp(min=1e-30), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(network(images), outputs)  # nothing is left behind in the network


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_integrated_gradients_are_complete(name: str) -> None:
    """They sum to what the class's logit gains over the plain picture's (axiom of the paper)."""
    torch.manual_seed(0)
    network = build_network(name, 3, weights="none").eval()
    images, classes = torch.randn(2, 3, 48, 48), torch.tensor([1, 2])
    plain = torch.zeros_like(images)
    found = attributions(network, images, plain, classes, steps=64).sum(dim=(1, 2, 3))
    with torch.no_grad():
        gain = (network(images) - network(plain)).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(found.float(), gain, atol=0.02 * float(gain.abs().max()), rtol=0.03)


def test_integrated_gradients_of_a_linear_network_are_weight_times_difference() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 5, 4)).eval()
    images, plain = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
    classes = torch.tensor([3, 1])
    expected = network[1].weight[classes].view(2, 3, 5, 5) * (images - plain)
    torch.testing.assert_close(attributions(network, images, plain, classes, steps=2).float(),
                               expected.detach(), atol=1e-5, rtol=1e-4)


def test_what_speaks_against_a_class_is_cold() -> None:
    images = torch.zeros(2, 3, 56, 56)
    images[:, 0, 10:20, 10:20], images[:, 1, 40:50, 40:50] = 9.0, 9.0
    both = integrated(Averaged().eval(), images, torch.tensor([0, 1]))
    assert both[0, 15, 15] == 1 and both[0, 45, 45] == 0  # only red speaks for output 0
    assert both[1, 45, 45] == 1 and both[1, 15, 15] == 0  # and against output 1
    none = integrated(Averaged().eval(), torch.zeros(1, 3, 56, 56), torch.tensor([0]))
    assert not none.any()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_crops_of_a_classifier(method: str) -> None:
    torch.manual_seed(0)
    classifier = CropClassifier(ClassifierConfig(backbone="resnet18", weights="none",
                                                 image_size=64), 2).eval()
    crops = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    maps = heat(method, classifier, crops, torch.tensor([1, 2, 0]))
    assert maps.shape == (3, 64, 64) and maps.dtype == torch.float32
    assert maps.min() >= 0 and maps.max() <= 1 and not maps.requires_grad
    again = heat(method, classifier, crops[:1].repeat(2, 1, 1, 1), torch.tensor([1, 2]))
    torch.testing.assert_close(again[0], maps[0], atol=1e-4, rtol=1e-3)
    assert method_module(method).CLASSES_DIFFER is not torch.allclose(again[0], again[1])


def test_an_unknown_method_lists_the_known() -> None:
    with pytest.raises(ExplanationError, match="visualbackprop, gradcam, integrated-gradients"):
        method_module("saliency")
