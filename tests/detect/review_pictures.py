"""What the tests of the review share: small pictures, what is in them and what was found."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from musicon.datasets.records import Box, Category

LUTE = Category(1, "lute", "strings", "3459", "321.32")
HARP = Category(2, "harp", "strings", "3338", "322")
DRUM = Category(3, "drum", "percussion", "2939", "211")
AT = (10.0, 20.0, 60.0, 70.0)


def picture(path: Path, size: tuple[int, int] = (200, 100)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (120, 90, 60)).save(path)
    return path


def found(xyxy: tuple[float, float, float, float], label: int, score: float) -> Box:
    return Box(xyxy, label, "pseudo", score,
               extra={"detector_score": score, "classifier_score": 0.5,
                      "sure_name": "plucked lutes", "level": "family"})
