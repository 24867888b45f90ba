"""Corrections, without a database: what they begin with, what they come to, where they go."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from review_pictures import AT, DRUM, HARP, LUTE, found, picture

from musicon.datasets.records import Box, ImageRecord, Manifest, Rejects
from musicon.detect.config import parse
from musicon.detect.review import session
from musicon.detect.review.corrections import (
    NOT_REVIEWED,
    CorrectionsError,
    ImageState,
    ReviewBox,
    StartBox,
    collect,
    settle,
)
from musicon.detect.review.entries import pair
from musicon.detect.review.export import export_corrections
from musicon.detect.stage_checks import check_data

# --- pairing -----------------------------------------------------------------------------------


def test_pair_follows_links_and_checksums_and_merges_classes_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "art" / "a.jpg")
    picture(tmp_path / "art" / "b.jpg")
    picture(tmp_path / "elsewhere" / "b copy.jpg")
    (tmp_path / "linked").symlink_to(tmp_path / "art")
    truth = Manifest(tmp_path / "art", (LUTE, HARP), (
        ImageRecord(7, "a.jpg", 200, 100, (Box((1, 2, 30, 40), 2),), labels=(2,)),
        ImageRecord(8, "b.jpg", 200, 100, sha256="ab" * 32),
        ImageRecord(9, "gone.jpg", 200, 100)))
    predictions = Manifest(tmp_path, (replace(HARP, id=1), DRUM, replace(LUTE, id=4)), (
        ImageRecord(1, "linked/a.jpg", 200, 100, (found((0, 0, 9, 9), 1, 0.9),)),
        ImageRecord(2, "elsewhere/b copy.jpg", 200, 100, (found((0, 0, 9, 9), 3, 0.8),),
                    sha256="ab" * 32)))
    rejects = Rejects()
    entries, categories = pair(truth, predictions, rejects)
    assert {c.name: c.id for c in categories} == {"lute": 1, "harp": 2, "drum": 3}
    assert [e.path.name for e in entries] == ["a.jpg", "b.jpg"]
    assert entries[0].predicted is not None and entries[0].predicted[0].label == 2
    assert entries[1].predicted is not None and entries[1].predicted[0].label == 3
    assert entries[1].truth == ()
    assert [file for file, _ in rejects.rows] == ["gone.jpg"]


def test_corrections_begin_with_human_boxes_only_where_somebody_boxed(tmp_path: Path) -> None:
    for name in ("boxed", "none", "labelled", "unseen"):
        picture(tmp_path / f"{name}.png")
    box, guess = Box((1, 1, 9, 9), 1), found((2, 2, 8, 8), 1, 0.7)
    truth = Manifest(tmp_path, (LUTE,), (
        ImageRecord(1, "boxed.png", 200, 100, (box,), labels=(1,)),
        ImageRecord(2, "none.png", 200, 100, labels=()),
        ImageRecord(3, "labelled.png", 200, 100, labels=(1,)),
        ImageRecord(4, "unseen.png", 200, 100, labels=None)))
    predictions = replace(truth, images=tuple(
        replace(record, boxes=(guess,)) for record in truth.images))
    entries, _ = pair(truth, predictions, Rejects())
    assert [entry.truth for entry in entries] == [(box,), (), None, None]
    assert [entry.start for entry in entries] == [(box,), (), (guess,), (guess,)]


# --- settling ----------------------------------------------------------------------------------


def state(*boxes: ReviewBox, start: Box | None = None, name: str = "lute",
          shown_tags: tuple[str, ...] = (), reviewed: bool = False) -> ImageState:
    begun = {"a": StartBox(found(AT, 1, 0.6) if start is None else start, name, "p")}
    shown = (ReviewBox("p", name, AT, frozenset(shown_tags)),)
    return ImageState(Path("/art/a.jpg"), ImageRecord(1, "a.jpg", 200, 100, labels=None), begun,
                      boxes, shown, reviewed)


@pytest.mark.parametrize(("case", "outcome", "origin"), [
    (state(ReviewBox("a", "lute", AT)), "untouched", "pseudo"),
    (state(ReviewBox("a", "lute", AT), reviewed=True), "accepted", "human"),
    (state(ReviewBox("a", "lute", AT, frozenset({"accepted"}))), "accepted", "human"),
    (state(ReviewBox("a", "lute", AT), shown_tags=("accepted",)), "accepted", "human"),
    (state(ReviewBox("a", "harp", AT)), "changed", "human"),
    (state(ReviewBox("a", "lute", (10, 20, 60, 75))), "changed", "human"),
    (state(ReviewBox("a", "harp", AT), shown_tags=("wrong",)), "changed", "human"),
    (state(ReviewBox("a", "lute", AT, frozenset({"delete"})), reviewed=True), "removed", None),
    (state(ReviewBox("a", "lute", AT), shown_tags=("rejected",)), "removed", None),
    (state(), "removed", None),
])
def test_settle_one_box(case: ImageState, outcome: str, origin: str | None) -> None:
    settled = settle(case)
    assert {key for key, count in settled.counts.items() if count} == {outcome}
    assert [box.origin for _, box in settled.boxes] == ([] if origin is None else [origin])
    assert settled.touched is (outcome != "untouched")
    if origin == "human":
        assert settled.boxes[0][1].score is None
        assert not settled.boxes[0][1].extra


def test_settle_keeps_the_exact_box_through_the_databases_rounding() -> None:
    exact = found((10.123, 20.456, 60.789, 70.012), 1, 0.6)
    rounded = (10.1231, 20.4559, 60.7893, 70.0118)
    settled = settle(state(ReviewBox("a", "lute", rounded), start=exact, reviewed=True))
    assert settled.boxes[0][1].xyxy == exact.xyxy
    renamed = settle(state(ReviewBox("a", "harp", rounded), start=exact))
    assert renamed.boxes[0][1].xyxy == exact.xyxy


def test_accepted_prediction_is_added_or_renames_what_is_there() -> None:
    truth = replace(state(ReviewBox("a", "lute", AT), start=Box(AT, 1)), start={
        "a": StartBox(Box(AT, 1), "lute", "t")})
    tagged = frozenset({"accepted"})
    far = settle(replace(truth, shown=(ReviewBox("p", "drum", (100, 20, 150, 70), tagged),)))
    assert [name for name, _ in far.boxes] == ["lute", "drum"] and far.counts["added"] == 1
    same = settle(replace(truth, shown=(ReviewBox("p", "lute", (11, 21, 60, 70), tagged),)))
    assert [name for name, _ in same.boxes] == ["lute"] and not same.counts["added"]
    other = settle(replace(truth, shown=(ReviewBox("p", "harp", (11, 21, 60, 70), tagged),)))
    assert [(name, box.xyxy) for name, box in other.boxes] == [("harp", AT)]


def test_collect_clips_names_and_refuses(tmp_path: Path) -> None:
    def drawn(name: str | None, xyxy: tuple[float, float, float, float]) -> ImageState:
        return replace(state(ReviewBox("new", name, xyxy)), start={}, shown=())

    rejects = Rejects()
    corrected = collect([
        drawn("harp", (150, 50, 230, 130)),
        drawn("hurdy-gurdy", AT),
        drawn(None, AT),
        drawn("lamp", AT),
        drawn("harp", (300, 300, 400, 400)),
        state(ReviewBox("a", "lute", AT)),
    ], (LUTE, HARP), rejects)
    clipped, new = (record for _, record in corrected.records)
    assert clipped.boxes[0].xyxy == pytest.approx((150, 50, 200, 100))
    assert [clipped.labels, new.labels] == [(2,), (3,)]
    assert corrected.categories[2].name == "hurdy-gurdy"
    assert corrected.categories[2].hornbostel_sachs
    assert (corrected.unreviewed, corrected.faulty) == (1, 3)
    reasons = [reason for _, reason in rejects.rows]
    assert "choose its label" in reasons[0] and "'lamp'" in reasons[1]
    assert "less than a pixel" in reasons[2] and reasons[3] == NOT_REVIEWED


# --- export ------------------------------------------------------------------------------------


def reviewed_states(folder: Path, count: int) -> list[ImageState]:
    return [replace(state(ReviewBox("a", "lute", AT), reviewed=True),
                    path=picture(folder / f"{i}" / "same name.jpg"),
                    record=ImageRecord(1, f"../{folder}/{i}/same name.jpg", 200, 100, labels=None))
            for i in range(count)]


def test_export_is_a_manifest_with_splits_and_files_and_can_be_repeated(tmp_path: Path) -> None:
    states = reviewed_states(tmp_path / "art", 10)
    out = tmp_path / "mended"
    first = export_corrections(states, (LUTE,), out)
    manifest = Manifest.read(out)
    assert manifest.images == first.manifest.images and len(manifest) == 10
    assert {record.split for record in manifest.images} == {"train", "val", "test"}
    assert all(manifest.path(record).is_file() for record in manifest.images)
    assert len({record.file_name for record in manifest.images}) == 10
    assert manifest.images[3].file_name == "images/3/same name.jpg"
    assert tmp_path.name not in (out / "manifest.json").read_text(encoding="utf-8")
    again = export_corrections(states[:4], (LUTE,), out)
    assert [r.split for r in again.manifest.images] == [r.split for r in manifest.images[:4]]
    assert len(list((out / "images").rglob("*.jpg"))) == 4
    assert not list(tmp_path.glob(".mended*"))


@pytest.mark.parametrize("split", [None, "test"])
def test_what_an_export_says_to_type_can_be_trained_on(
        tmp_path: Path, split: str | None) -> None:
    """Also where every picture was kept for testing, as the demo's are."""
    states = [replace(s, record=replace(s.record, split=split))
              for s in reviewed_states(tmp_path / "art", 10)]
    for i, s in enumerate(states):
        Image.new("RGB", (200, 100), (25 * i, 9, 9)).save(s.path)  # none a copy of another
    said = session.export_lines(export_corrections(states, (LUTE,), tmp_path / "my own"))
    typed = [shlex.split(line[line.index("python"):].split(" (")[0])
             for line in said if "python" in line]
    assert len(typed) == (1 if split is None else 2)
    if split is not None:
        done = subprocess.run([sys.executable, *typed[0][1:]], cwd=Path(__file__).parents[2],
                              check=False, stdout=subprocess.DEVNULL)
        assert done.returncode == 0
    setting = typed[-1][-1].removeprefix("stages.cytomine.")
    config = parse({"stages": {"cytomine": dict([setting.split("=")])}})
    check_data(config, "cytomine")  # raises where train or val has no picture


def test_export_refuses_other_folders_and_nothing(tmp_path: Path) -> None:
    states = reviewed_states(tmp_path / "art", 1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(CorrectionsError, match="another --export"):
        export_corrections(states, (LUTE,), tmp_path / "full")
    with pytest.raises(CorrectionsError, match="tick 'reviewed'"):
        export_corrections([state(ReviewBox("a", "lute", AT))], (LUTE,), tmp_path / "new")
    assert not (tmp_path / "new").exists() and (tmp_path / "full" / "thesis.txt").exists()
