"""Adaptive instance normalisation: one network for all styles (Huang & Belongie 2017).

The content's features are given the mean and deviation that the style's features have in each
channel; a decoder turns them into an image. A style is thus 2 C numbers, encoded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from musicon.styletransfer import encoder as encoders
from musicon.styletransfer.decoder import Decoder
from musicon.styletransfer.encoder import Encoder
from musicon.styletransfer.methods.base import MethodSettings, StyleMethod
from musicon.styletransfer.moments import moments
from musicon.styletransfer.tiling import Tile, tiles
from musicon.styletransfer.weights import StyleError, decoder_state, read_state


class Settings(MethodSettings):
    """Where the two networks are."""

    encoder: str
    """A weight file, ``torchvision``, or ``random``."""
    decoder: Path
    """A weight file; its number of layers says at which layer of the encoder it starts."""


class AdaIN(StyleMethod):
    """``encode_style`` gives (N, 2, C): mean and deviation of each channel."""

    def __init__(self, encoder: Encoder, decoder: Decoder, settings: MethodSettings) -> None:
        super().__init__("adain", settings)
        self.encoder, self.decoder = encoder, decoder.requires_grad_(False)

    def _encode(self, style: Tensor) -> Tensor:
        parts = self._tiles(style, self.encoder.reach)
        return torch.stack(moments(self._features(style, parts)), 1)

    def _transfer(self, content: Tensor, code: Tensor, alpha: Tensor) -> Tensor:
        styles = len(code) // len(content)
        if len(content) > 1 and content.device.type == "cpu":
            # One at a time: the maps of one image fit the cache, those of a batch do not.
            singly = zip(content.split(1), code.split(styles), alpha.split(styles), strict=True)
            return torch.cat([self._transfer(*one) for one in singly])
        parts = self._tiles(content, 2 * self.encoder.reach)
        if len(parts) == 1:
            maps = self.encoder.features(content)
            factor, offset = affine(*moments([maps]), code, alpha)
            image = self._decode(maps, factor, offset, styles)
            return image[:, :, :content.shape[2], :content.shape[3]]
        # Statistics of the whole image first, so that tiles meet without a seam. The features are
        # computed again for each tile: those of the whole image are what memory lacks.
        factor, offset = affine(*moments(self._features(content, parts)), code, alpha)
        result = content.new_empty((len(code), *content.shape[1:]))
        for part in parts:
            maps = self.encoder.features(part.cut(content))
            part.paste(result, self._decode(maps, factor, offset, styles))
        return result

    def _decode(self, maps: Tensor, factor: Tensor, offset: Tensor, styles: int) -> Tensor:
        if maps.device.type == "cpu":
            pairs = zip(factor.to(maps).split(1), offset.to(maps).split(1), strict=True)
            return torch.cat([self.decoder(torch.addcmul(add, maps, times))
                              for times, add in pairs])
        maps = maps.repeat_interleave(styles, 0) if styles > 1 else maps
        decoded: Tensor = self.decoder(torch.addcmul(offset.to(maps), maps, factor.to(maps)))
        return decoded

    def _features(self, images: Tensor, parts: Iterable[Tile]) -> Iterator[Tensor]:
        """The features of an image, tile by tile."""
        for part in parts:
            yield part.inner(self.encoder.features(part.cut(images)), self.encoder.stride)

    def _tiles(self, images: Tensor, halo: int) -> list[Tile]:
        height, width = images.shape[2:]
        return tiles(height, width, self.settings.tile, halo, self.encoder.stride)


def affine(mean: Tensor, deviation: Tensor, code: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """AdaIN and the mixing by alpha as one multiplication and one addition a channel.

    α (σ_s (x - μ_c) / σ_c + μ_s) + (1 - α) x  =  factor x + offset.

    Args:
        mean: The contents' (N, C).
        deviation: The contents' (N, C).
        code: The styles' (N · K, 2, C).
        alpha: (N · K, 1, 1, 1).

    Returns:
        factor and offset, (N · K, C, 1, 1).
    """
    styles = len(code) // len(mean)
    mean, deviation = mean.repeat_interleave(styles, 0), deviation.repeat_interleave(styles, 0)
    strength = alpha.reshape(-1, 1)
    ratio = code[:, 1] / deviation
    factor = strength * ratio + (1 - strength)
    offset = strength * (code[:, 0] - mean * ratio)
    return factor[:, :, None, None], offset[:, :, None, None]


def build(settings: Settings) -> AdaIN:
    """Read the two networks.

    Raises:
        StyleError: Weights that cannot be read, or a decoder made for another encoder.
    """
    decoder = Decoder(decoder_state(read_state(settings.decoder), str(settings.decoder)))
    encoder = encoders.build(settings.encoder, depth=decoder.depth)
    expected = decoder.convs[decoder.names[0]].in_channels
    if encoder.channels[encoder.depth] != expected:
        raise StyleError(f"{settings.decoder}: it decodes {expected} channels of {decoder.depth}, "
                         f"{settings.encoder} has {encoder.channels[encoder.depth]}; give the "
                         "decoder that was trained with this encoder")
    return AdaIN(encoder, decoder, settings)
