"""AdaIN as public PyTorch code runs it: the baseline that the bank's speed is measured against.

One pair at a time, in float32 and the default memory layout: read and resize the content and the
style, encode both, exchange the statistics, decode, save. Written plainly after the description of
the method, with the same weights; nothing is kept from one pair to the next.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from musicon.styletransfer.methods.adain import AdaIN
from musicon.styletransfer.moments import EPSILON
from musicon.styletransfer.weights import conv_names


class PlainAdaIN:
    """The encoder and the decoder as sequences of the usual layers."""

    def __init__(self, method: AdaIN) -> None:
        encoder = method.encoder
        layers: list[nn.Module] = [_plain(encoder.conv("preprocess"))]
        for name in conv_names(encoder.depth):
            if name.endswith("_1") and name != "conv1_1":
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            layers += [nn.ReflectionPad2d(1)] if encoder.reflects else []
            layers += [_plain(encoder.conv(name)), nn.ReLU()]
        self.encoder = nn.Sequential(*layers).to(method.device)
        layers, above = [], ""
        for name in method.decoder.names:
            layers += [nn.Upsample(scale_factor=2)] if above.endswith("_1") else []
            layers += [nn.ReflectionPad2d(1), _plain(method.decoder.convs[name]), nn.ReLU()]
            above = name
        self.decoder = nn.Sequential(*layers[:-1]).to(method.device)
        self.device = method.device

    @torch.no_grad()
    def __call__(self, content: Tensor, style: Tensor) -> Tensor:
        """(1, 3, H, W) and (1, 3, h, w) in 0..1 -> (1, 3, H, W)."""
        found, wanted = self.encoder(content), self.encoder(style)
        mean, deviation = _statistics(found)
        style_mean, style_deviation = _statistics(wanted)
        image: Tensor = self.decoder((found - mean) / deviation * style_deviation + style_mean)
        return image

    def run(self, content: Path, style: Path, size: int, out: Path) -> None:
        """Files in, file out."""
        from PIL import Image
        from torchvision.transforms.functional import to_tensor
        from torchvision.utils import save_image

        images = [to_tensor(Image.open(file).convert("RGB").resize((size, size)))[None]
                  for file in (content, style)]
        save_image(self(images[0].to(self.device), images[1].to(self.device)).cpu(), out)


def _statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    flat = maps.flatten(2)
    deviation = (flat.var(2, correction=0) + EPSILON).sqrt()
    return flat.mean(2)[..., None, None], deviation[..., None, None]


def _plain(conv: nn.Module) -> nn.Conv2d:
    """A copy in float32 and the default memory layout."""
    if not isinstance(conv, nn.Conv2d) or conv.bias is None:
        raise TypeError(f"expected a convolution with a bias, found {conv}")
    made = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size,  # type: ignore[arg-type]
                     padding=conv.padding)  # type: ignore[arg-type]
    made.load_state_dict({"weight": conv.weight.float().contiguous(), "bias": conv.bias.float()})
    return made.requires_grad_(False)
