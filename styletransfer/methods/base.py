"""What every transfer method shares: one call, its checks, and what is done to the result."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from musicon.styletransfer.weights import StyleError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LUMA = (0.299, 0.587, 0.114)


class MethodSettings(BaseModel):
    """Settings that every method has; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preserve_colour: bool = False
    """Take only the lightness of the stylised image and keep the content's colours."""
    tile: int = Field(1536, ge=64)
    """Images of more than ``tile`` x ``tile`` pixels are worked on in tiles of that side."""


class StyleMethod(nn.Module, ABC):
    """Gives content the look of a style: ``method(content, style, alpha) -> image``.

    Images are float (N, 3, H, W), RGB in 0..1, of any size. A style that is used more than once is
    encoded once: ``code = encode_style(style)``, then ``transfer(content, code, alpha)``.
    """

    def __init__(self, name: str, settings: MethodSettings) -> None:
        super().__init__()
        self.name, self.settings = name, settings
        self.dtype = torch.float32

    @abstractmethod
    def _encode(self, style: Tensor) -> Tensor:
        """Styles (N, 3, h, w) of the working type -> codes (N, ...), float32."""

    @abstractmethod
    def _transfer(self, content: Tensor, code: Tensor, alpha: Tensor) -> Tensor:
        """Contents (N, 3, H, W), codes (N · K, ...), alpha (N · K, 1, 1, 1) -> (N · K, 3, H, W)."""

    def forward(self, content: Tensor, style: Tensor, alpha: float | Tensor = 1.0) -> Tensor:
        """``transfer(content, encode_style(style), alpha)``."""
        return self.transfer(content, self.encode_style(style), alpha)

    @torch.no_grad()
    def encode_style(self, style: Tensor) -> Tensor:
        """What ``transfer`` needs to know of styles: (N, 3, h, w) -> (N, ...) float32.

        Codes of styles of different sizes can be concatenated.
        """
        _check_images("style", style)
        return self._encode(self._place(style))

    @torch.no_grad()
    def transfer(self, content: Tensor, code: Tensor, alpha: float | Tensor = 1.0) -> Tensor:
        """Give each content the look of one or of several styles.

        Args:
            content: (N, 3, H, W), RGB in 0..1.
            code: (N · K, ...) as ``encode_style`` returns them: the K styles of the first content,
                then those of the second, ...; or a single one for all.
            alpha: Strength from 0 (the content as the method gives it back) to 1; a number, or
                (N · K,).

        Returns:
            (N · K, 3, H, W) float32 in 0..1, on the method's device.

        Raises:
            StyleError: Shapes that don't fit, or alpha outside 0..1.
        """
        _check_images("content", content)
        if len(code) == 1:
            code = code.expand(len(content), *code.shape[1:])
        if len(code) == 0 or len(code) % len(content):
            raise StyleError(f"{len(code)} style codes for {len(content)} contents: give one, or "
                             "as many for each content")
        weights = torch.as_tensor(alpha, dtype=torch.float32, device=self.device).reshape(-1)
        if len(weights) not in (1, len(code)) or not ((weights >= 0) & (weights <= 1)).all():
            raise StyleError(f"alpha is {alpha}; give a number from 0 to 1, or one for each of the "
                             f"{len(code)} results")
        placed = self._place(content)
        image = self._transfer(placed, code.to(self.device),
                               weights.expand(len(code)).reshape(-1, 1, 1, 1))
        image = image.float().clamp(0, 1)
        if self.settings.preserve_colour:
            original = content.to(self.device).float().repeat_interleave(
                len(code) // len(content), 0)
            image = keep_colours(original, image)
        return image

    @property
    def device(self) -> torch.device:
        """Where the method's weights are."""
        return next(self.parameters()).device

    def place(self, device: str | torch.device = "cpu", precision: str = "auto") -> StyleMethod:
        """Move to a device, in a number type; ``auto`` is float16 on CUDA and float32 elsewhere.

        bfloat16 doubles the speed of CPUs that compute in it (AVX512-BF16, AMX).

        Raises:
            StyleError: An unknown precision.
        """
        target = torch.device(device)
        if precision == "auto":
            precision = "float16" if target.type == "cuda" else "float32"
        if precision not in PRECISIONS:
            raise StyleError(f"precision {precision!r} is not known; write one of: auto, "
                             f"{', '.join(PRECISIONS)}")
        self.dtype = PRECISIONS[precision]
        self.to(device=target, dtype=self.dtype).to(memory_format=torch.channels_last)
        return self

    def describe(self) -> dict[str, Any]:
        """Plain values that decide what a transfer gives: settings, and the weights' check sum."""
        digest = hashlib.sha256()
        for name, value in self.state_dict().items():
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return {"method": self.name, "precision": str(self.dtype).removeprefix("torch."),
                "weights_sha256": digest.hexdigest(), **self.settings.model_dump(mode="json")}

    def _place(self, images: Tensor) -> Tensor:
        return images.to(device=self.device, dtype=self.dtype, memory_format=torch.channels_last)


def keep_colours(content: Tensor, image: Tensor) -> Tensor:
    """The content with the stylised image's lightness (Y of YIQ); both (N, 3, H, W) in 0..1.

    Luminance-only transfer of Gatys et al., "Preserving Color in Neural Artistic Style Transfer"
    (2016), section 4: I and Q stay the content's, so that red, green and blue all change by the
    difference in Y.
    """
    luma = image.new_tensor(_LUMA).reshape(1, 3, 1, 1)
    return (content + ((image - content) * luma).sum(1, keepdim=True)).clamp(0, 1)


def _check_images(what: str, images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point() \
            or 0 in images.shape:
        raise StyleError(f"{what}: expected float RGB images (N, 3, H, W) in 0..1, found "
                         f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}")
