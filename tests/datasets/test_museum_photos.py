"""Photos cropped to the instrument, on drawn photos whose box is known."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from musicon.datasets import museum_photos
from musicon.datasets.atelier.works import draw_work
from musicon.datasets.boxes import iou
from musicon.datasets.images import ImageError
from musicon.datasets.museum_photos import Kept, crop, crop_all, quality_report


def photo() -> np.ndarray:
    """A brown body on a grey ground; a colour strip reaches into the box around it."""
    noise = np.random.default_rng(0).normal(205, 1.5, (300, 260, 3))
    picture = noise.clip(0, 255).astype(np.uint8)
    cv2.ellipse(picture, (130, 130), (60, 100), -35, 0, 360, (110, 60, 30), -1)
    for i, colour in enumerate([(200, 30, 30), (30, 160, 40), (30, 40, 190), (230, 210, 40),
                                (20, 20, 20), (160, 30, 160)]):
        cv2.rectangle(picture, (3 + 11 * i, 205), (13 + 11 * i, 220), colour, -1)
    return picture


def test_a_panel_inside_the_crop_is_painted_over() -> None:
    picture = photo()
    done = crop(picture)
    assert done.image is not None and done.xyxy is not None and not done.faults
    x0, y0, x1, y1 = (int(v) for v in done.window)
    panel = picture[205:y1, x0:69]
    assert panel.size and panel.std() > 40
    after = done.image[205 - y0:, :69 - x0].astype(float)
    ground = np.abs(after - 205).max(axis=-1) < 12
    body = (np.abs(after - (110, 60, 30)).max(axis=-1) < 40)
    assert (ground | body).mean() > 0.97
    assert done.painted > 0.01


def test_the_box_is_that_of_the_instrument_in_the_crop() -> None:
    done = crop(photo())
    assert done.xyxy is not None and done.image is not None
    truth = cv2.boundingRect((np.abs(photo().astype(int) - (110, 60, 30)).max(-1) < 5)
                             .astype(np.uint8))
    x, y, w, h = truth
    left, top = done.window[:2]
    assert iou([done.xyxy], [(x - left, y - top, x + w - left, y + h - top)])[0, 0] > 0.95
    assert done.image.shape[:2] == (done.window[3] - top, done.window[2] - left)


def test_doubtful_photos_say_so() -> None:
    busy = np.random.default_rng(1).integers(0, 255, (120, 120, 3), np.uint8)
    assert crop(busy).faults == (museum_photos.NOT_PLAIN,) and crop(busy).image is None
    pair = np.full((200, 260, 3), 230, np.uint8)
    cv2.circle(pair, (70, 100), 50, (90, 40, 20), -1)
    cv2.circle(pair, (190, 100), 50, (20, 40, 90), -1)
    assert crop(pair).faults == (museum_photos.SEVERAL,) and crop(pair).parts == 2
    tiny = np.full((400, 400, 3), 230, np.uint8)
    cv2.circle(tiny, (200, 200), 30, (90, 40, 20), -1)
    assert crop(tiny).faults == (museum_photos.SMALL,)


def test_generated_museum_photos_are_cut_to_their_instrument() -> None:
    found = []
    for index in range(10):
        work = draw_work(3, "mimo", index)
        done = crop(work.rgb)
        if done.xyxy is None:
            continue
        left, top = done.window[:2]
        box = [done.xyxy[0] + left, done.xyxy[1] + top, done.xyxy[2] + left, done.xyxy[3] + top]
        found.append(float(iou([box], [work.true_boxes[0][1]])[0, 0]))
    assert len(found) >= 9 and np.mean(found) > 0.9


def test_crops_are_kept_between_runs(tmp_path: Path) -> None:
    file, broken = tmp_path / "a.png", tmp_path / "b.jpg"
    Image.fromarray(photo()).save(file)
    broken.write_bytes(b"no picture")
    asked = [(file, "violin/a.png", "violin"), (broken, "violin/b.jpg", "violin")]
    first = list(crop_all(asked, tmp_path / "crops"))
    assert isinstance(first[0], Kept) and isinstance(first[1], ImageError)
    time = Path(first[0].file).stat().st_mtime_ns
    again = list(crop_all(asked, tmp_path / "crops"))
    assert again[0] == first[0] and Path(first[0].file).stat().st_mtime_ns == time
    Image.fromarray(photo()[:, ::-1]).save(file)
    assert next(crop_all(asked[:1], tmp_path / "crops")) != first[0]


def test_the_report_counts_by_class() -> None:
    def kept(label: str, *faults: str, box: bool = True) -> Kept:
        return Kept("x", label, 100, 200, (0, 0, 100, 200), (0, 0, 50, 100) if box else None,
                    1, 0.0, faults)

    rows = list(csv.DictReader(io.StringIO(quality_report([
        kept("harp"), kept("harp", museum_photos.SEVERAL), kept("gong", museum_photos.NOT_PLAIN,
                                                                box=False)]))))
    assert [(r["class"], r["photos"], r["boxed"], r["several objects"], r["no plain ground"],
             r["median share of the instrument's box"]) for r in rows] == [
        ("gong", "1", "0", "0", "1", ""), ("harp", "2", "2", "1", "0", "0.25")]


@pytest.mark.real
def test_real_photos_find_a_plain_ground(real_fixture: Path) -> None:
    """Looked at: 240 of 300 photos stand on a plain ground; rooms and players don't."""
    from musicon.datasets.images import decode

    files = sorted((real_fixture / "photos_kaggle30").glob("*/*"))[::15]
    boxed = sum(crop(decode(file)).xyxy is not None for file in files)
    assert 0.65 * len(files) < boxed < 0.9 * len(files)
