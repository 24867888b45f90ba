"""What Johnson's networks and AdaIN's decoders are trained for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicon.styletransfer.decoder import Decoder
from musicon.styletransfer.encoder import Encoder
from musicon.styletransfer.gram import flatten, grams
from musicon.styletransfer.methods.adain import affine
from musicon.styletransfer.methods.gatys import total_variation
from musicon.styletransfer.moments import moments


class PerceptualLosses:
    """Content, style and smoothness of a network's images (Johnson, Alahi & Fei-Fei 2016).

    Content and style are measured as ``methods.gatys`` does: relative to what is aimed at.
    """

    def __init__(self, network: nn.Module, encoder: Encoder, style: Tensor, *,
                 style_weight: float = 10.0, tv_weight: float = 0.1) -> None:
        """Take the style from an image (1, 3, h, w) in 0..1."""
        self.network, self.encoder = network, encoder
        self.content_layer = encoder.layers[min(2, len(encoder.layers) - 1)]
        self.style_weight, self.tv_weight = style_weight, tv_weight
        with torch.no_grad():
            self.wanted = flatten(grams(encoder(style)))

    def __call__(self, content: Tensor) -> dict[str, Tensor]:
        """Losses of a batch (N, 3, H, W) in 0..1, H and W multiples of 4."""
        image = self.network(content)
        found = self.encoder(image)
        with torch.no_grad():
            aim = self.encoder(content)[self.content_layer]
        distance = (flatten(grams(found)) - self.wanted).square().sum(1)
        return {"content": F.mse_loss(found[self.content_layer], aim) / aim.square().mean(),
                "style": self.style_weight * (distance / self.wanted.square().sum()).mean(),
                "variation": self.tv_weight * total_variation(image)}


class DecoderLosses:
    """A decoder's image has AdaIN's features, and the style's statistics at every layer.

    Equations 12 and 13 of Huang & Belongie (2017).
    """

    def __init__(self, decoder: Decoder, encoder: Encoder, *, style_weight: float = 10.0) -> None:
        self.decoder, self.encoder, self.style_weight = decoder, encoder, style_weight

    def __call__(self, content: Tensor, style: Tensor) -> dict[str, Tensor]:
        """Losses of N contents (N, 3, H, W) and N styles (N, 3, h, w), in 0..1."""
        with torch.no_grad():
            maps = self.encoder.features(content)
            wanted = {layer: moments([value]) for layer, value in self.encoder(style).items()}
            code = torch.stack(wanted[self.encoder.depth], 1)
            factor, offset = affine(*moments([maps]), code,
                                    torch.ones(len(maps), 1, 1, 1, device=maps.device))
            aim = torch.addcmul(offset, maps, factor)
        found = self.encoder(self.decoder(aim))
        style_loss = torch.stack([
            F.mse_loss(mine, its) for layer, value in found.items()
            for mine, its in zip(moments([value]), wanted[layer], strict=True)]).sum()
        return {"content": F.mse_loss(found[self.encoder.depth], aim),
                "style": self.style_weight * style_loss}
