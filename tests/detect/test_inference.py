"""Streaming: right boxes for every kind of file, and the same bytes after a kill."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from finder import CATEGORIES, colour_detector, picture, tiny_model
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from musicon.datasets.records import Manifest, UserError
from musicon.detect import inference
from musicon.detect.annotated import Pictures
from musicon.detect.detections import Detections
from musicon.detect.inference import InferenceOptions, list_images, run_inference
from musicon.detect.pipeline import ArtworkDetector
from musicon.detect.progress import ProgressLog
from musicon.detect.summary import InferenceSummary, lines, results_name
from musicon.detect.tiling import TestTime

FILES = ("detections.json", "detections.csv", "rejects.jsonl")
QUIET = InferenceOptions(batch_size=3, workers=2, quiet=True)


def save(path: Path, image: NDArray[np.uint8], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def search(images: Path | Sequence[str], out: Path, options: InferenceOptions = QUIET,
           detector: ArtworkDetector | None = None) -> InferenceSummary:
    places = [str(images)] if isinstance(images, Path) else images
    return run_inference(detector or colour_detector(), list_images(places, out), out, options)


def red(width: int = 120, height: int = 80) -> NDArray[np.uint8]:
    return picture(width, height, red=(20, 10, 60, 50))


def boxes_of(out: Path) -> dict[str, list[tuple[float, ...]]]:
    return {Path(r.file_name).name: [b.xyxy for b in r.boxes]
            for r in Manifest.read(out / "detections.json").images}


def test_a_full_disk_leaves_no_half_picture(tmp_path: Path) -> None:
    """A limit on file size stands in for a full disk: both fail in the middle of a write."""
    save(tmp_path / "images" / "a.png", red(400, 300))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        with pytest.raises(OSError, match="annotated") as caught:
            search(tmp_path / "images", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value.filename).endswith("a.png.jpg")
    assert not list((tmp_path / "out" / "annotated").iterdir())


def test_what_is_written_for_a_small_collection(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    save(images / "a.png", red())
    save(images / "b" / "empty.png", picture(50, 40))
    (images / "broken.jpg").write_bytes(b"no picture")
    done = search(images, out)

    manifest = Manifest.read(out / "detections.json")
    assert [c.id for c in manifest.categories] == [3, 5, 9]
    first, second = manifest.images
    assert manifest.path(first).resolve() == (images / "a.png").resolve()
    assert (first.width, first.height, first.labels) == (120, 80, None)
    box = first.boxes[0]
    np.testing.assert_allclose(box.xyxy, (20, 10, 60, 50))
    assert (box.label, box.origin) == (3, "pseudo")
    assert box.score == pytest.approx((0.9 * 0.8) ** 0.5, abs=1e-5)
    assert box.extra == {"detector_score": 0.9, "classifier_score": 0.8, "sure_name": "lute",
                         "level": "leaf"}
    assert second.boxes == ()
    assert len(COCO(str(out / "detections.json")).getAnnIds(catIds=[3])) == 1

    rows = list(csv.DictReader((out / "detections.csv").open(encoding="utf-8", newline="")))
    assert [(r["instrument"], r["x0"], r["image_width"]) for r in rows] == [
        ("lute", "20.0", "120"), ("", "", "50")]
    reject = json.loads((out / "rejects.jsonl").read_text())
    assert reject["file"] == str(images / "broken.jpg") and "picture" in reject["reason"]
    assert (done.counts.images, done.counts.found, done.counts.rejected) == (2, 1, 1)
    assert done.counts.boxes == {"lute": 1}
    text = "\n".join(lines(done))
    assert "2 images, 1 with instruments, 1 box" in text and "1 file could not be read" in text
    assert sorted(p.relative_to(out).as_posix() for p in (out / "annotated").rglob("*.*")) == [
        "annotated/a.png.jpg", "annotated/b/empty.png.jpg"]
    drawn = cv2.imread(str(out / "annotated" / "a.png.jpg"))
    assert drawn.shape == (341, 512, 3)  # enlarged: there is room for the name
    assert not [p for p in out.rglob("*") if p.suffix == ".part"]


def test_boxes_of_large_scans_are_in_pixels_of_the_original(tmp_path: Path) -> None:
    scan = picture(4000, 2400, red=(800, 600, 2000, 1800))
    save(tmp_path / "in" / "scan.jpg", scan, quality=95)
    search(tmp_path / "in", tmp_path / "out")
    (box,) = boxes_of(tmp_path / "out")["scan.jpg"]
    # The detector sees 128 pixels for 4,000: its own precision is 31 pixels.
    np.testing.assert_allclose(box, (800, 600, 2000, 1800), atol=40)
    drawn = cv2.imread(str(tmp_path / "out" / "annotated" / "scan.jpg"))
    assert drawn.shape == (960, 1600, 3)


def test_pictures_are_no_longer_where_tiles_need_more(tmp_path: Path) -> None:
    save(tmp_path / "in" / "scan.png", picture(2400, 1200, red=(600, 300, 1200, 900)))
    finder = colour_detector(test_time=TestTime(zooms=(16.0,)))
    assert finder.working_side == 2048
    search(tmp_path / "in", tmp_path / "out", detector=finder)
    drawn = cv2.imread(str(tmp_path / "out" / "annotated" / "scan.png.jpg"))
    assert drawn.shape == (800, 1600, 3)
    assert (drawn[500, 700] > 200).tolist() == [False, False, True]  # red lies under the box
    np.testing.assert_allclose(drawn[500, 850], 220, atol=20)


class Watching:
    """Searches like another detector; remembers how many images and looks it was given at once."""

    def __init__(self, finder: ArtworkDetector, working_side: int) -> None:
        self.finder = finder
        self.working_side = working_side
        self.batches: list[tuple[int, int | None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)

    def predict(self, images: Sequence[NDArray[np.uint8]], threshold: float | None = None,
                at_once: int | None = None) -> list[Detections]:
        self.batches.append((len(images), at_once))
        return self.finder.predict(images, threshold, at_once)


def test_memory_does_not_grow_with_the_zoom(tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """Large images are searched one by one and not decoded ahead; small ones as ever."""
    sizes = [40, 40, 40, 40, 160, 160, 160, 80, 80]
    for index, side in enumerate(sizes):
        save(tmp_path / "in" / f"{index}.png", red(side, side))
    monkeypatch.setattr(inference, "WORKING_SIDE", 40)
    held = most = 0
    lock = threading.Lock()
    decode, take = inference._decode, inference._take

    def decoding(*arguments: Any) -> Any:
        nonlocal held, most
        item = decode(*arguments)
        with lock:
            threads.add(threading.get_ident())
            held += item.pixels
            most = max(most, held)
        return item

    def taking(*arguments: Any) -> Any:
        nonlocal held
        batch = take(*arguments)
        with lock:
            held -= sum(item.pixels for item in batch)
        return batch

    monkeypatch.setattr(inference, "_decode", decoding)
    monkeypatch.setattr(inference, "_take", taking)
    options = InferenceOptions(batch_size=4, workers=2, annotated=False, quiet=True)
    found = []
    for side, batches in ((40, [4, 4, 1]), (60, [2, 2, 1, 1, 1, 1, 1]), (160, [1] * 9)):
        held = most = 0
        threads: set[int] = set()
        watching: Any = Watching(colour_detector(), side)
        search(tmp_path / "in", tmp_path / f"out{side}", options, watching)
        assert watching.batches == [(count, 4) for count in batches], side
        assert most <= max(15 * 40 ** 2, side ** 2), side
        assert len(threads) <= (1 if side == 160 else 2)
        found.append(len(boxes_of(tmp_path / f"out{side}")))
    assert found == [9, 9, 9]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotated_files_give_boxes_in_the_upright_picture(tmp_path: Path,
                                                              orientation: int) -> None:
    upright = red(120, 80)
    # How each orientation's camera would have stored it (EXIF 2.3, tag 274).
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
              5: upright.transpose(1, 0, 2), 6: np.rot90(upright, 1),
              7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    save(tmp_path / "in" / "x.jpg", np.ascontiguousarray(stored), exif=exif, quality=95)
    search(tmp_path / "in", tmp_path / "out")
    record = Manifest.read(tmp_path / "out" / "detections.json").images[0]
    assert (record.width, record.height) == (120, 80)
    np.testing.assert_allclose(record.boxes[0].xyxy, (20, 10, 60, 50), atol=2)


def test_unusual_names_collisions_and_a_file_given_twice(tmp_path: Path) -> None:
    images, out = tmp_path / "Bilder [alt] (1)", tmp_path / "out"
    names = ["a b.png", "Flöte & Leier.png", "x[1].png", "same.png", "same.jpg", "same.png.jpg",
             "quote\"'.png", "new\nline.png", "# %20.png", "日本.png", "l" * 248 + ".png"]
    for name in names:
        save(images / name, red())
    done = search([str(images), str(images / "same.jpg"), str(images / "*.png")], out)
    assert done.counts.images == len(names)
    assert set(boxes_of(out)) == set(names)
    pictures = [p for p in (out / "annotated").rglob("*") if p.is_file()]
    assert len(pictures) == len(names)
    assert {"same.jpg", "same.png.jpg", "same.png~.jpg"} <= {p.name for p in pictures}


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    save(images / "ok.png", red())
    odd = os.fsencode(images) + b"/caf\xe9.png"
    try:
        with open(odd, "wb") as stream:
            stream.write((images / "ok.png").read_bytes())
    except OSError:
        pytest.skip("this disk takes no such names")
    assert search(images, out).counts.images == 2
    record = Manifest.read(out / "detections.json").images[0]
    assert os.path.samefile(out / record.file_name, odd)
    assert "caf\\xe9.png" in (out / "detections.csv").read_text(encoding="utf-8")


def test_read_only_images_and_results_inside_the_images(tmp_path: Path) -> None:
    images = tmp_path / "in"
    save(images / "a.png", red())
    (images / "a.png").chmod(0o444)
    before = sorted(images.rglob("*"))
    search(images, tmp_path / "out")
    assert sorted(images.rglob("*")) == before

    inside = images / "results"
    assert search(images, inside).counts.images == 1
    again = search(images, inside)
    assert (again.counts.images, again.left_out, again.searched) == (1, 1, 0)
    other = search(images, images / "more")
    assert (other.counts.images, other.left_out) == (1, 1)


def test_results_never_overwrite_images(tmp_path: Path) -> None:
    precious = save(tmp_path / "annotated" / "a.jpg", red())
    before = precious.read_bytes()
    with pytest.raises(UserError, match="another folder with --out"):
        search(tmp_path, tmp_path)
    assert precious.read_bytes() == before


def test_nothing_to_do_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images in"):
        search(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UserError, match="no such file or folder"):
        search(tmp_path / "missing", tmp_path / "out")
    (tmp_path / "bad").mkdir()
    for name in "ab":
        (tmp_path / "bad" / f"{name}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 2 files could be read.*0 bytes"):
        search(tmp_path / "bad", tmp_path / "out")
    assert len((tmp_path / "out" / "rejects.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "out" / "detections.json").exists()


def test_only_what_is_new_or_changed_is_searched_again(tmp_path: Path) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    for index in range(5):
        save(images / f"{index}.png", red())
    assert search(images, out).searched == 5
    before = (out / "detections.json").read_bytes()
    assert search(images, out).searched == 0
    assert (out / "detections.json").read_bytes() == before

    save(images / "25.png", red())
    save(images / "3.png", picture(50, 50))
    os.utime(images / "3.png", (1, 1))
    (images / "1.png").unlink()
    (out / "annotated" / "0.png.jpg").unlink()
    done = search(images, out)
    assert (done.searched, done.resumed) == (3, 2)
    assert {name: len(boxes) for name, boxes in boxes_of(out).items()} == {
        "0.png": 1, "2.png": 1, "25.png": 1, "3.png": 0, "4.png": 1}
    assert (out / "annotated" / "0.png.jpg").exists()
    fresh = search(images, tmp_path / "fresh")
    assert fresh.counts == done.counts
    for name in FILES:
        assert (out / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_another_model_or_threshold_starts_anew_and_says_so(tmp_path: Path) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    save(images / "a.png", red())
    assert search(images, out).started_anew is None
    strict = InferenceOptions(threshold=0.99, quiet=True)
    done = search(images, out, strict)
    assert done.started_anew == "another threshold" and done.searched == 1
    assert "made with another threshold: started anew" in "\n".join(lines(done))
    assert boxes_of(out) == {"a.png": []}
    done = search(images, out, strict, colour_detector(nms_iou=0.7))
    assert done.started_anew == "another model"


@pytest.mark.parametrize(("key", "words"), [
    ("precision", "another precision"), ("looks", "another --zoom or --flip"),
    ("attributes", "other --attributes"), ("format", "another version of musicon")])
def test_what_has_changed_is_told_in_words(tmp_path: Path, key: str, words: str) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    save(images / "a.png", red())
    search(images, out)
    run = out / ".progress" / "run.json"
    run.write_text(json.dumps(json.loads(run.read_text()) | {key: "as it was"}))
    assert search(images, out).started_anew == words


def test_a_picture_of_another_image_of_that_name_is_drawn_anew(tmp_path: Path) -> None:
    first, second, out = tmp_path / "A" / "images", tmp_path / "B" / "images", tmp_path / "out"
    for name in ("1.png", "2.png"):
        save(first / name, red())
    save(second / "1.png", picture(120, 80))
    drawn, other = out / "annotated" / "1.png.jpg", out / "annotated" / "2.png.jpg"
    assert search(first, out).replaced is None
    before = drawn.read_bytes()
    done = search(second, out)
    assert (done.replaced, done.foreign) == (str(first), 1) and drawn.read_bytes() != before
    assert f"were of the images in {first}: replaced" in "\n".join(lines(done))
    assert f"not of these results: 1 picture in {other.parent}" in "\n".join(lines(done))
    done = search(first, out)
    assert (done.replaced, done.searched, done.resumed, done.foreign) == (str(second), 1, 1, 0)
    assert drawn.read_bytes() == before
    assert search(first, out).replaced is None


def test_a_picture_from_another_threshold_is_drawn_anew(tmp_path: Path) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    save(images / "a.png", red())
    drawn = out / "annotated" / "a.png.jpg"
    search(images, out, InferenceOptions(threshold=0.99, quiet=True))
    without = drawn.read_bytes()
    low = InferenceOptions(threshold=0.1, quiet=True)
    assert search(images, out, replace(low, annotated=False)).foreign == 1
    done = search(images, out, low)
    assert (done.searched, done.foreign) == (1, 0) and drawn.read_bytes() != without
    assert search(images, out, low).searched == 0
    assert search(images, out, replace(low, annotated=False)).foreign == 0


def test_a_folder_that_may_not_be_read_is_a_reject(tmp_path: Path,
                                                   permissions_count: None) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "shut/b.png"):
        save(images / name, red())
    (images / "shut").chmod(0)
    for _ in range(2):
        done = search(images, out)
        assert (done.counts.images, done.counts.rejected) == (1, 1)
        assert json.loads((out / "rejects.jsonl").read_text()) == {
            "file": str(images / "shut"),
            "reason": "no permission to read this folder; change its permissions"}
    with pytest.raises(UserError, match="shut: no permission to read this folder"):
        search(images / "shut", tmp_path / "other")
    (images / "shut").chmod(0o755)
    assert (search(images, out).counts.images, search(images, out).counts.rejected) == (2, 0)


def test_a_repaired_file_is_taken_up(tmp_path: Path) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    save(images / "a.png", red())
    (images / "b.png").write_bytes(b"")
    assert search(images, out).counts.rejected == 1
    assert search(images, out).searched == 0  # looked at again, but no picture was searched
    save(images / "b.png", red())
    done = search(images, out)
    assert (done.counts.images, done.counts.rejected, done.searched) == (2, 0, 1)
    assert (out / "rejects.jsonl").read_text() == ""


def test_two_runs_never_write_to_one_folder(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", red())
    listing = list_images([str(tmp_path / "in")], tmp_path / "out")
    with (ProgressLog(tmp_path / "out", listing.files, listing.stamps, {}),
          pytest.raises(UserError, match="another run is writing")):
        search(tmp_path / "in", tmp_path / "out")


def test_a_line_cut_short_by_a_crash_is_dropped(tmp_path: Path) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    for index in range(7):
        save(images / f"{index}.png", red())
    search(images, out)
    expected = [(out / name).read_bytes() for name in FILES]
    log = out / ".progress" / "done.jsonl"
    whole = log.read_bytes()
    assert whole.count(b"\n") == 3  # batches of three
    for cut in (len(whole) - 1, whole.index(b"\n") + 10, 5, 0):
        log.write_bytes(whole[:cut])
        assert search(images, out).searched > 0
        assert [(out / name).read_bytes() for name in FILES] == expected
        assert log.read_bytes() == whole


def test_pictures_mirror_the_common_folder(tmp_path: Path) -> None:
    for name in ("p/x/a.jpg", "p/y/a.jpg"):
        save(tmp_path / name, red())
    out = tmp_path / "out"
    for places in (["p"], ["p/*/*.jpg"], ["p/x", "p/y"], ["p/x/a.jpg", "p/y/a.jpg"]):
        listing = list_images([str(tmp_path / place) for place in places], out)
        names = [Pictures(listing, out, {}).path(i).relative_to(out).as_posix() for i in range(2)]
        assert names == ["x/a.jpg", "y/a.jpg"], places
    assert len(list_images([str(tmp_path)], out, limit=1).files) == 1


def test_results_are_called_after_the_images(tmp_path: Path) -> None:
    save(tmp_path / "My Paintings (2)" / "a.jpg", red())
    folder = str(tmp_path / "My Paintings (2)")
    for place in (folder, f"{folder}/", f"{folder}/a.jpg", f"{folder}/**/*.jpg"):
        assert results_name([place]) == "My-Paintings-2"
    assert results_name([folder], "Chosen name") == "Chosen-name"
    assert results_name(["/"]) == "images"


PROGRAM = """
import sys, time
from pathlib import Path
from musicon.detect.inference import InferenceOptions, list_images, run_inference
from musicon.detect.pipeline import ArtworkDetector
images, model, out, pause = sys.argv[1:]
detector = ArtworkDetector.load(model, "cpu")
predict = detector.predict
def slowly(*arguments):
    time.sleep(float(pause))
    return predict(*arguments)
detector.predict = slowly
run_inference(detector, list_images([images], Path(out)), Path(out),
              InferenceOptions(batch_size=4, quiet=True))
"""


def test_kill_9_then_the_same_bytes(tmp_path: Path) -> None:
    """With real networks, in a process of its own that is killed in mid-run."""
    rng = np.random.default_rng(0)
    for index in range(30):
        save(tmp_path / "in" / f"{index:02}.png",
             cv2.resize(rng.integers(0, 255, (6, 8, 3)).astype(np.uint8),
                        (int(rng.integers(80, 200)), int(rng.integers(80, 200)))))
    (tmp_path / "in" / "05.png").write_bytes(b"")
    model, out = tiny_model(tmp_path / "model"), tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "in"), str(model), str(out)]
    log = out / ".progress" / "done.jsonl"
    process = subprocess.Popen([*command, "0.3"])
    deadline = time.monotonic() + 90
    while not (log.exists() and log.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "detections.json").exists()
    detector = ArtworkDetector.load(model, "cpu")
    four = InferenceOptions(batch_size=4, quiet=True)
    resumed = search(tmp_path / "in", out, four, detector)
    assert 0 < resumed.searched <= 30 - 3 * 4
    search(tmp_path / "in", tmp_path / "straight", four, detector)
    assert Manifest.read(out / "detections.json").images[3].boxes
    for name in (*FILES, *(f"annotated/{p.name}" for p in (out / "annotated").iterdir()
                           if p.suffix == ".jpg")):
        assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


def test_categories_of_the_test_are_not_in_counting_order() -> None:
    assert [c.id for c in CATEGORIES] != [1, 2, 3]
