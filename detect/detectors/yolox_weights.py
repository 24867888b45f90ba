"""Published weights of YOLOX, read from ONNX files: numbers alone, nothing that could run."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from musicon.detect.backbones import BackboneError
from musicon.detect.detectors.yolox_network import Conv, LevelHead, Yolox

TRIAL_SIDE = 64


def load(network: Yolox, file: Path) -> None:
    """Put the weights of an ONNX file into a network, layer by layer in the order they run in.

    Batch normalisation is folded into the convolutions there: ours then keeps its neutral
    statistics, and its shift is the file's bias. Class scores stay as they are: the file's classes
    are others.

    Raises:
        BackboneError: Not such a file, or one of another network.
    """
    held, wanted = _convolutions(file), _in_order(network)
    own_classes = {id(head.class_scores) for head in network.heads if isinstance(head, LevelHead)}
    if len(held) != len(wanted):
        raise BackboneError(f"{file}: {len(held)} convolutions instead of {len(wanted)}; give the "
                            "ONNX file of the network that detector.family names")
    for (weight, bias), (layer, norm) in zip(held, wanted, strict=True):
        if id(layer) in own_classes:
            continue
        if weight.shape != layer.weight.shape:
            raise BackboneError(f"{file}: a convolution of {tuple(weight.shape)} instead of "
                                f"{tuple(layer.weight.shape)}; give the ONNX file of the network "
                                "that detector.family names")
        with torch.no_grad():
            layer.weight.copy_(weight)
            if norm is None:
                layer.bias.copy_(bias)  # type: ignore[union-attr]
            else:
                norm.weight.fill_((1 + norm.eps) ** 0.5)
                norm.bias.copy_(bias)


def _convolutions(file: Path) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each convolution of an ONNX file, as they run."""
    import cv2

    try:
        net = cv2.dnn.readNetFromONNX(str(file))
    except cv2.error as error:
        raise BackboneError(f"{file}: not a readable ONNX file ({' '.join(str(error).split())}); "
                            "give one of YOLOX's, such as yolox_nano.onnx") from None
    layers = [net.getLayer(net.getLayerId(name)) for name in net.getLayerNames()]
    blobs = [[torch.from_numpy(b) for b in layer.blobs] for layer in layers
             if layer.type == "Convolution"]
    if any(len(row) != 2 for row in blobs):
        raise BackboneError(f"{file}: a convolution without a bias; give a file whose batch "
                            "normalisation is folded in, as YOLOX's own export does")
    return [(weight, bias.flatten()) for weight, bias in blobs]


def _in_order(network: Yolox) -> list[tuple[nn.Conv2d, nn.BatchNorm2d | None]]:
    """Every convolution, with the batch normalisation behind it, in the order they run in."""
    order: list[tuple[nn.Conv2d, nn.BatchNorm2d | None]] = []
    norm_of = {id(m.conv): m.bn for m in network.modules() if isinstance(m, Conv)}
    hooks = [m.register_forward_pre_hook(lambda layer, _: order.append(
        (layer, norm_of.get(id(layer))))) for m in network.modules() if isinstance(m, nn.Conv2d)]
    training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, TRIAL_SIDE, TRIAL_SIDE))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return order
