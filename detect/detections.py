"""What the detector found in one image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.boxes import clip
from musicon.detect.hierarchy import SureName


@dataclass(frozen=True)
class Detections:
    """Boxed instruments of one image, best first.

    Attributes:
        boxes: float32 (N, 4), xyxy in pixels of the upright original, half-open.
        scores: float32 (N,), fused confidence in [0, 1], falling.
        labels: int64 (N,), category ids (from 1) of the model's ``categories.json``.
        detector_scores: float32 (N,), what the detector alone said.
        classifier_scores: float32 (N,), what the crop classifier said of ``labels``.
        image_wh: Width and height of the upright original in pixels.
        sure: What may be said of each box, backed off to its family where its label is not sure;
            None where that is not known.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    detector_scores: NDArray[np.float32]
    classifier_scores: NDArray[np.float32]
    image_wh: tuple[int, int]
    sure: tuple[SureName, ...] | None = None

    def __post_init__(self) -> None:
        n = len(self.scores)
        shapes = (self.boxes.shape, self.labels.shape, self.detector_scores.shape,
                  self.classifier_scores.shape)
        if shapes != ((n, 4), (n,), (n,), (n,)):
            raise ValueError(f"Detections: boxes, scores, labels disagree in length: {shapes}, {n}")
        if self.sure is not None and len(self.sure) != n:
            raise ValueError(f"Detections: {len(self.sure)} sure names for {n} boxes")

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls, image_wh: tuple[int, int]) -> Detections:
        """No instrument found."""
        none = np.zeros(0, np.float32)
        return cls(np.zeros((0, 4), np.float32), none, np.zeros(0, np.int64), none, none, image_wh)

    def select(self, keep: object) -> Detections:
        """The detections at a boolean mask (N,) or index array, in that order."""
        index = np.asarray(keep)
        sure = None if self.sure is None else tuple(
            self.sure[i] for i in np.arange(len(self))[index])
        return Detections(self.boxes[index], self.scores[index], self.labels[index],
                          self.detector_scores[index], self.classifier_scores[index],
                          self.image_wh, sure)

    def above(self, threshold: float) -> Detections:
        """The detections that score at least ``threshold``."""
        return self.select(self.scores >= threshold)


def rescale(detections: Detections, image_wh: tuple[int, int]) -> Detections:
    """The same detections in the pixels of the image at another size (width, height)."""
    if image_wh == detections.image_wh:
        return detections
    (width, height), (seen_w, seen_h) = image_wh, detections.image_wh
    scale = np.array([width / seen_w, height / seen_h] * 2, np.float32)
    return replace(detections, boxes=clip(detections.boxes * scale, width, height),
                   image_wh=(width, height))
