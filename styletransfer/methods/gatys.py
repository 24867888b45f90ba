"""Style transfer by optimising the pixels (Gatys, Ecker & Bethge 2016): slow, the reference.

The image is changed until its features are near the content's and its Gram matrices near the
style's. Both distances are taken relative to what they aim at, so that the same weights suit
encoders whose features differ in scale.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from musicon.styletransfer import encoder as encoders
from musicon.styletransfer.encoder import Encoder
from musicon.styletransfer.gram import flatten, gram
from musicon.styletransfer.methods.base import MethodSettings, StyleMethod
from musicon.styletransfer.tiling import Tile, tiles
from musicon.styletransfer.weights import LAYERS, StyleError


class Settings(MethodSettings):
    """What is minimised, and how."""

    encoder: str = "auto"
    """A weight file, ``torchvision``, ``auto``, or ``random``."""
    pooling: Literal["average", "max"] = "average"
    content_layer: str | None = None
    """None takes relu4_1, or the deepest layer that the weights have."""
    content_weight: float = Field(1.0, ge=0)
    style_weight: float = Field(10.0, ge=0)
    tv_weight: float = Field(0.1, ge=0)
    """Of the total variation: the mean difference between neighbouring pixels."""
    optimiser: Literal["lbfgs", "adam"] = "lbfgs"
    steps: int = Field(100, ge=1)
    learning_rate: float = Field(0.02, gt=0)
    """Of Adam; L-BFGS finds its own."""
    start: Literal["content", "noise"] = "content"
    seed: int = Field(0, ge=0)
    """Of the noise."""


class Gatys(StyleMethod):
    """``encode_style`` gives (N, D): the Gram matrices, in vectors whose distance is the loss.

    Alpha scales the style's weight. Images are optimised one at a time, always in float32.
    """

    settings: Settings

    def __init__(self, encoder: Encoder, settings: Settings) -> None:
        super().__init__("gatys", settings)
        self.encoder = encoder
        self.content_layer = settings.content_layer or encoder.layers[min(
            len(encoder.layers) - 1, LAYERS.index("relu4_1"))]
        if self.content_layer not in encoder.layers:
            raise StyleError(f"content_layer={self.content_layer} is not among the encoder's; "
                             f"write one of: {', '.join(encoder.layers)}")

    def place(self, device: str | torch.device = "cpu", precision: str = "auto") -> StyleMethod:
        """As for every method; half precision would stop the optimiser, float32 is kept."""
        return super().place(device, "float32" if precision == "auto" else precision)

    def _encode(self, style: Tensor) -> Tensor:
        return torch.cat([self._style(image[None], self._tiles(image[None])) for image in style])

    def _transfer(self, content: Tensor, code: Tensor, alpha: Tensor) -> Tensor:
        styles = len(code) // len(content)
        with torch.enable_grad():
            made = [self._optimise(content[number // styles][None], code[number][None],
                                   float(alpha[number])) for number in range(len(code))]
        return torch.cat(made)

    def _optimise(self, content: Tensor, code: Tensor, alpha: float) -> Tensor:
        objective = Objective(self, content, code, alpha)
        image = content.clone(memory_format=torch.contiguous_format)
        if self.settings.start == "noise":
            generator = torch.Generator().manual_seed(self.settings.seed)
            image = torch.rand(content.shape, generator=generator).to(image)
        image.requires_grad_(True)
        optimiser: torch.optim.Optimizer
        if self.settings.optimiser == "adam":
            optimiser = torch.optim.Adam([image], lr=self.settings.learning_rate)
            for _ in range(self.settings.steps):
                optimiser.step(lambda: objective(image))
        else:
            optimiser = torch.optim.LBFGS([image], max_iter=self.settings.steps, history_size=20,
                                          tolerance_grad=0, tolerance_change=0,
                                          line_search_fn="strong_wolfe")
            optimiser.step(lambda: objective(image))
        return image.detach()

    def _style(self, image: Tensor, parts: list[Tile]) -> Tensor:
        """The flat Gram matrices of a whole image, (1, D), summed over its tiles."""
        return torch.stack([self._partial(self.encoder(part.cut(image)), part, image)
                            for part in parts]).sum(0)

    def _partial(self, maps: dict[str, Tensor], part: Tile, image: Tensor) -> Tensor:
        """A tile's share in the flat Gram matrices of its image."""
        shares = {}
        for layer, values in maps.items():
            stride = 2 ** LAYERS.index(layer)
            positions = -(-image.shape[2] // stride) * -(-image.shape[3] // stride)
            shares[layer] = gram(part.inner(values, stride)) / positions
        return flatten(shares)

    def _tiles(self, image: Tensor) -> list[Tile]:
        return tiles(image.shape[2], image.shape[3], self.settings.tile, self.encoder.reach,
                     self.encoder.stride)


class Objective:
    """The loss of an image against one content and one style, with its gradient.

    c |F - P|² / |P|²  +  α s |G - A|² / |A|²  +  α t (total variation), where |G - A|² is the
    style loss of ``gram.style_loss``.
    """

    def __init__(self, method: Gatys, content: Tensor, code: Tensor, alpha: float) -> None:
        self.method, self.code, self.parts = method, code, method._tiles(content)
        with torch.no_grad():
            self.wanted = [self._content(method.encoder(part.cut(content)), part)
                           for part in self.parts]
        settings = method.settings
        self.style_scale = alpha * settings.style_weight / max(1e-12, float(code.square().sum()))
        squares = sum(float(maps.square().sum()) for maps in self.wanted)
        self.content_scale = settings.content_weight / max(1e-12, squares)
        self.variation_scale = alpha * settings.tv_weight

    def __call__(self, image: Tensor) -> Tensor:
        """The loss; its gradient is put into ``image.grad``.

        Of several tiles, the Gram matrices of the whole image are needed before the gradient of
        any: they are computed first, without gradients. The style loss is then, to first order,
        linear in each tile's share, so that tile after tile adds its part.
        """
        method, image_grad = self.method, image.grad
        if image_grad is not None:
            image_grad.zero_()
        whole = None
        if len(self.parts) > 1:
            with torch.no_grad():
                whole = method._style(image, self.parts)
        total = torch.zeros((), device=image.device)
        for part, wanted in zip(self.parts, self.wanted, strict=True):
            maps = method.encoder(part.cut(image))
            loss = self.content_scale * (self._content(maps, part) - wanted).square().sum()
            share = method._partial(maps, part, image)
            if whole is None:
                loss = loss + self.style_scale * (share - self.code).square().sum()
            total = total + loss.detach()
            if whole is not None:
                slope = 2 * self.style_scale * (whole - self.code)
                loss = loss + (slope * share).sum()
            loss.backward()
        if whole is not None:
            total = total + self.style_scale * (whole - self.code).square().sum()
        variation = self.variation_scale * total_variation(image)
        variation.backward()
        return total + variation.detach()

    def _content(self, maps: dict[str, Tensor], part: Tile) -> Tensor:
        layer = self.method.content_layer
        return part.inner(maps[layer], 2 ** LAYERS.index(layer))


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference between neighbouring pixels, down plus across."""
    down, across = images.diff(dim=2).abs(), images.diff(dim=3).abs()
    # A side of a single pixel has no neighbours, and a mean of nothing is no number.
    return F.pad(down, (0, 0, 0, 1)).mean() + F.pad(across, (0, 1)).mean()


def build(settings: Settings) -> Gatys:
    """Read the encoder.

    Raises:
        StyleError: Weights that cannot be read, or a layer that they don't have.
    """
    return Gatys(encoders.build(settings.encoder, pooling=settings.pooling), settings)
