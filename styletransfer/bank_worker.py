"""One process of a bank: reads contents, gives them their styles, writes the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from musicon.datasets.files import write_atomic
from musicon.datasets.images import ImageError, decode_reduced
from musicon.styletransfer import methods
from musicon.styletransfer.methods.base import StyleMethod
from musicon.styletransfer.weights import StyleError

STYLE_SIDE = 512
"""Longer side at which styles are looked at, in pixels."""
TOGETHER = 4
"""Pictures that a CPU computes at once: more take memory and save no time."""
FLAGS = {"jpg": cv2.IMWRITE_JPEG_QUALITY, "webp": cv2.IMWRITE_WEBP_QUALITY}


@dataclass(frozen=True)
class Recipe:
    """What every picture of a bank shares; sent to each process once.

    Attributes:
        method: Name of the transfer method.
        settings: Its settings.
        precision: As ``StyleMethod.place``.
        styles: Each style's picture, or None where the look is in the weights.
        format: ``jpg`` or ``webp``.
        quality: 1 to 100.
    """

    method: str
    settings: Mapping[str, Any]
    precision: str
    styles: tuple[Path | None, ...]
    format: str
    quality: int


@dataclass(frozen=True)
class Task:
    """One content and the pictures to be made of it.

    Attributes:
        path: The content's file.
        size: (width, height) of the pictures.
        wanted: (style, alpha, file to write) of each.
    """

    path: Path
    size: tuple[int, int]
    wanted: tuple[tuple[int, float, Path], ...]


@dataclass(frozen=True)
class Made:
    """What became of a task: the check sum of each file, or why there is none."""

    task: Task
    sums: tuple[str, ...] = ()
    fault: str = ""


class Worker:
    """Makes pictures; one for each process."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self.recipe = recipe
        if device == "cpu":
            # Sums are rounded alike whatever the number of processes, so bytes are the same.
            torch.set_num_threads(1)
        cv2.setNumThreads(1)
        self.method: StyleMethod = methods.build(recipe.method, recipe.settings).place(
            device, recipe.precision)
        self.on_cpu = device == "cpu"
        self._codes: dict[int, torch.Tensor] = {}

    def make(self, tasks: Sequence[Task]) -> list[Made]:
        """Make all pictures of some tasks whose sizes and numbers of pictures are equal."""
        with ThreadPoolExecutor(1 if self.on_cpu else 4) as pool:
            images = list(pool.map(_read, tasks))
            sound = [(task, image) for task, image in zip(tasks, images, strict=True)
                     if not isinstance(image, str)]
            faults = [Made(task, fault=image) for task, image in zip(tasks, images, strict=True)
                      if isinstance(image, str)]
            done = []
            if sound:
                pictures = self._styled([task for task, _ in sound],
                                        np.stack([image for _, image in sound]))
                for (task, _), made in zip(sound, pictures, strict=True):
                    files = [file for _, _, file in task.wanted]
                    done.append(Made(task, tuple(pool.map(self._write, made, files))))
        return done + faults

    def _styled(self, tasks: Sequence[Task], images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 contents (N, H, W, 3) -> pictures (N, K, H, W, 3)."""
        content = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.method.device).float() / 255
        count = len(tasks[0].wanted)
        step = min(count, TOGETHER) if self.on_cpu else count
        parts = []
        for first in range(0, count, step):
            wanted = [task.wanted[first:first + step] for task in tasks]
            codes = torch.cat([self._code(style) for row in wanted for style, _, _ in row])
            alpha = torch.tensor([alpha for row in wanted for _, alpha, _ in row])
            made = self.method.transfer(content, codes, alpha)
            made = (made * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
            parts.append(made.reshape(len(tasks), -1, *made.shape[1:]).cpu().numpy())
        return np.concatenate(parts, 1)

    def _code(self, style: int) -> torch.Tensor:
        if style not in self._codes:
            path = self.recipe.styles[style]
            image = (np.zeros((8, 8, 3), np.uint8) if path is None
                     else decode_reduced(path, STYLE_SIDE)[0])
            tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
            self._codes[style] = self.method.encode_style(tensor / 255)
        return self._codes[style]

    def _write(self, picture: NDArray[np.uint8], file: Path) -> str:
        payload = encoded(picture, self.recipe.format, self.recipe.quality)
        write_atomic(file, payload)
        return hashlib.sha256(payload).hexdigest()


def encoded(picture: NDArray[np.uint8], form: str, quality: int) -> bytes:
    """An RGB picture (H, W, 3) as a JPEG or WebP file."""
    done, buffer = cv2.imencode(f".{form}", np.ascontiguousarray(picture[..., ::-1]),
                                [FLAGS[form], quality])
    if not done:
        raise StyleError(f"a picture of {picture.shape[1]}x{picture.shape[0]} pixels cannot be "
                         f"written as {form}; give another --format or --size")
    return buffer.tobytes()


def _read(task: Task) -> NDArray[np.uint8] | str:
    try:
        image, _ = decode_reduced(task.path, max(task.size))
    except ImageError as error:
        return error.reason
    if image.shape[1::-1] != task.size:
        image = cv2.resize(image, task.size, interpolation=cv2.INTER_AREA)
    return image


_worker: list[Worker] = []
"""This process's worker, once ``start`` was called."""


def start(recipe: Recipe, device: str) -> None:
    """Prepare this process."""
    _worker[:] = [Worker(recipe, device)]


def work(tasks: Sequence[Task]) -> list[Made]:
    """Make pictures with the worker that ``start`` prepared."""
    return _worker[0].make(tasks)
