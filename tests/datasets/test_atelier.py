"""The atelier: same seed, same pictures; exact masks; boxes, splits and classes as promised."""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicon.datasets.atelier import making, scenes, sheets, styles, works
from musicon.datasets.atelier.canvas import Layer, Material, Pen, pose, spline
from musicon.datasets.atelier.kinds import KINDS, draw
from musicon.datasets.atelier.picture import Picture
from musicon.datasets.boxes import iou
from musicon.datasets.command import progress
from musicon.datasets.records import Manifest
from musicon.datasets.sources import atelier
from musicon.datasets.sources.base import SourceError

FLAT = Material((1.0, 1.0, 1.0), gloss=0.0, rough=0.0, edge=0.0)


def options(**given: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    atelier.add_arguments(parser)
    return argparse.Namespace(**{**vars(parser.parse_args([])), "workers": 1, **given})


def digest(work: works.Work) -> str:
    return hashlib.sha256(work.rgb.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def some() -> dict[str, list[works.Work]]:
    """The first works of each domain."""
    return {domain: [works.draw_work(3, domain, i) for i in range(9)] for domain in works.DOMAINS}


# Drawing ---------------------------------------------------------------------------------------


def test_square_covers_its_area_at_its_place() -> None:
    layer = Layer(60, 50)
    corners = [(0, 0), (1, 0), (1, 1), (0, 1)]
    Pen(layer, pose(10, 20, 16), np.random.default_rng(0)).fill(corners, FLAT)
    # 16 x 16 pixels from (10, 20) to (26, 36); anti-aliasing blurs the rim.
    assert layer.alpha[20:36, 10:26].min() == 1.0
    np.testing.assert_allclose(layer.bounds(0.5), (10, 20, 26, 36), atol=1)


def test_disc_and_tube_cover_their_areas() -> None:
    layer = Layer(200, 200)
    Pen(layer, pose(100, 100, 1), np.random.default_rng(0)).disc((0, 0), 40.0, FLAT)
    assert layer.alpha.sum() == pytest.approx(math.pi * 40**2, rel=0.03)
    layer = Layer(200, 200)
    Pen(layer, pose(0, 0, 1), np.random.default_rng(0)).tube([(30, 100), (170, 100)], 20.0, FLAT)
    assert layer.alpha.sum() == pytest.approx(140 * 20, rel=0.1)


def test_pen_leaves_the_canvas_without_harm() -> None:
    layer = Layer(20, 20)
    pen = Pen(layer, pose(500, -500, 30), np.random.default_rng(0))
    pen.disc((0, 0), 1.0, FLAT)
    pen.line([(0, 0), (1, 1)], 0.1, (0, 0, 0))
    assert layer.alpha.sum() == 0
    assert layer.bounds() is None


def test_spline_passes_through_its_points() -> None:
    points = np.array([(0, 0), (1, 2), (3, 1), (4, 4)], np.float32)
    curve = spline(points, steps=10)
    np.testing.assert_allclose(curve[::10], points, atol=1e-6)
    assert len(spline(points, closed=True, steps=10)) == 40


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_instrument_is_whole_varied_and_confined_to_its_mask(kind: object) -> None:
    ground = np.full((260, 260, 3), 0.5, np.float32)
    seen = set()
    for seed in range(4):
        drawn = draw(kind, (260, 260), (130, 130), 200, 0.0, np.random.default_rng(seed))
        picture = Picture(ground)
        picture.place(drawn.layer, 1)
        untouched = drawn.layer.alpha == 0
        assert (picture.rgb[untouched] == 0.5).all()
        x0, y0, x1, y1 = drawn.layer.bounds()
        # About one unit (200 pixels) long, and not cut by the canvas.
        assert 120 < max(x1 - x0, y1 - y0) < 250
        assert min(x0, y0) > 0
        assert max(x1, y1) < 260
        seen.add(hashlib.sha256(drawn.layer.alpha.tobytes()).hexdigest())
    assert len(seen) == 4


def test_shape_does_not_depend_on_the_canvas() -> None:
    for kind in KINDS:
        small, large = (
            draw(kind, (side, side), (100, 100), 150, 20.0, np.random.default_rng(5)).hands
            for side in (40, 200)
        )
        np.testing.assert_array_equal(small, large)


# Masks and boxes -------------------------------------------------------------------------------


def test_boxes_are_the_extremes_of_the_visible_masks() -> None:
    rng = np.random.default_rng(1)
    picture = Picture(np.zeros((300, 400, 3), np.float32))
    layers = []
    for i, kind in enumerate(KINDS[:5]):
        drawn = draw(kind, (400, 300), (70 + 60 * i, 150), 180, 30.0 * i, rng)
        picture.place(drawn.layer, i + 1)
        layers.append(drawn.layer.alpha)
    found = {label: box for label, box, _ in picture.boxes()}
    for i, alpha in enumerate(layers):
        for later in layers[i + 1 :]:
            alpha = alpha * (1 - later)
        rows, columns = np.any(alpha > 0.5, axis=1), np.any(alpha > 0.5, axis=0)
        ys, xs = np.flatnonzero(rows), np.flatnonzero(columns)
        assert found[i + 1] == (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1)


def test_hidden_instrument_has_no_box() -> None:
    picture = Picture(np.zeros((100, 100, 3), np.float32))
    small, cover = Layer(100, 100), Layer(100, 100)
    Pen(small, pose(50, 50, 20), np.random.default_rng(0)).disc((0, 0), 1.0, FLAT)
    Pen(cover, pose(50, 50, 40), np.random.default_rng(0)).disc((0, 0), 1.0, FLAT)
    picture.place(small, 1)
    assert [label for label, _, _ in picture.boxes()] == [1]
    picture.place(cover)
    assert picture.boxes() == []


def test_boxes_lie_inside_and_are_loose_by_a_little(some: dict[str, list[works.Work]]) -> None:
    for work in some["cytomine"]:
        height, width = work.rgb.shape[:2]
        assert len(work.boxes) == len(work.true_boxes)
        for (label, box), (same, true) in zip(work.boxes, work.true_boxes, strict=True):
            assert label == same
            assert 0 <= box[0] < box[2] <= width
            assert 0 <= box[1] < box[3] <= height
            if min(true[2] - true[0], true[3] - true[1]) > 24:
                assert iou(box, true)[0, 0] > 0.85
        assert work.labels == tuple(sorted({label for label, _ in work.boxes}))


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 300), st.integers(1, 300),
       st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_human_box_stays_inside_and_near(x: int, y: int, w: int, h: int, seed: int) -> None:
    width, height = x + w + 5, y + h + 5
    true = (x, y, x + w, y + h)
    box = works.human_box(true, width, height, np.random.default_rng(seed))
    assert 0 <= box[0] < box[2] <= width
    assert 0 <= box[1] < box[3] <= height
    for drawn, exact, side in zip(box, true, (w, h, w, h), strict=True):
        assert abs(drawn - exact) <= 0.04 * side + 0.6


def test_class_labelled_domains_publish_no_boxes(some: dict[str, list[works.Work]]) -> None:
    for domain in ("mimo", "google"):
        for work in some[domain]:
            assert work.boxes == ()
            assert len(work.labels) == 1
            assert work.labels[0] in {label for label, _ in work.true_boxes}


def test_true_box_of_a_museum_photo_holds_the_object(some: dict[str, list[works.Work]]) -> None:
    """The picture's strong contrasts, panel and bar aside, lie in the box: seen by eye or Otsu."""
    for work in some["mimo"]:
        (_, (x0, y0, x1, y1)), = work.true_boxes
        grey = cv2.cvtColor(work.rgb, cv2.COLOR_RGB2GRAY)
        edges = cv2.Canny(grey, 60, 160)[40:-40, 40:-40]
        ys, xs = np.nonzero(edges)
        inside = (xs + 40 >= x0 - 3) & (xs + 40 < x1 + 3) & (ys + 40 >= y0 - 3) & (ys + 40 < y1 + 3)
        assert inside.mean() > 0.8


# The plan: classes, splits, masters ------------------------------------------------------------


@pytest.mark.parametrize("domain", works.DOMAINS)
def test_every_split_has_every_class(domain: str) -> None:
    plan = [(works.split_of(0, domain, i), works.leading(0, domain, i)) for i in range(700)]
    for split, least in (("train", 20), ("val", 6), ("test", 6)):
        counts = Counter(lead for s, lead in plan if s == split and lead is not None)
        assert set(counts) == set(range(1, len(KINDS) + 1))
        assert min(counts.values()) >= least
        assert max(counts.values()) - min(counts.values()) <= 2
    shares = Counter(split for split, _ in plan)
    assert shares["train"] / 700 == pytest.approx(5 / 7, abs=0.01)


def test_three_in_ten_scenes_have_no_instrument(some: dict[str, list[works.Work]]) -> None:
    for split in ("train", "val", "test"):
        leads = [works.leading(0, "cytomine", i) for i in range(1400)
                 if works.split_of(0, "cytomine", i) == split]
        assert leads.count(None) / len(leads) == pytest.approx(0.3, abs=0.02)
    for index, work in enumerate(some["cytomine"]):
        assert (work.labels == ()) == (works.leading(3, "cytomine", index) is None)


def test_no_split_divides_a_master_and_every_split_has_every_style() -> None:
    splits: dict[str, set[str]] = {}
    movements: dict[str, set[str]] = {}
    for i in range(2 * works.MASTERS):
        master, split = works.master_of(0, "cytomine", i), works.split_of(0, "cytomine", i)
        splits.setdefault(master.name, set()).add(split)
        movements.setdefault(split, set()).add(master.movement)
    assert len(splits) == works.MASTERS
    assert all(len(found) == 1 for found in splits.values())
    assert all(found == set(styles.STYLES) for found in movements.values())


def test_masters_of_the_domains_are_other_people() -> None:
    names = [styles.master(0, domain, i).name for domain in ("google", "cytomine")
             for i in range(works.MASTERS)]
    assert len(set(names)) == len(names)


# Determinism and making ------------------------------------------------------------------------


def test_same_seed_same_picture(some: dict[str, list[works.Work]]) -> None:
    for domain in works.DOMAINS:
        again = works.draw_work(3, domain, 7)
        assert digest(again) == digest(some[domain][7])
        assert again.true_boxes == some[domain][7].true_boxes
        assert digest(works.draw_work(4, domain, 7)) != digest(again)
        assert len({digest(work) for work in some[domain]}) == len(some[domain])


def make(folder: Path, **given: object) -> Manifest:
    data = atelier.generate(options(**given), folder, progress)
    records = tuple(record for _, record in data.records)
    manifest = Manifest(folder, data.categories, records, data.info)
    assert manifest.faults() == []
    assert all(path == folder / record.file_name for path, record in data.records)
    return manifest


def hashes(manifest: Manifest) -> list[str]:
    found = [hashlib.sha256(manifest.path(r).read_bytes()).hexdigest() for r in manifest.images]
    assert found == [record.sha256 for record in manifest.images]
    return found


def test_larger_set_begins_with_the_smaller_and_a_cut_off_run_goes_on(tmp_path: Path) -> None:
    small = make(tmp_path / "small", domain="mimo", size=5)
    large = make(tmp_path / "large", domain="mimo", size=33)
    assert hashes(large)[:5] == hashes(small)
    assert large.images[:5] == small.images
    kept, lost = large.path(large.images[0]), large.path(large.images[32])
    before = kept.stat().st_mtime_ns
    lost.unlink()
    again = make(tmp_path / "large", domain="mimo", size=33)
    assert again == large
    assert hashes(again) == hashes(large)
    assert kept.stat().st_mtime_ns == before


def test_other_seed_or_torn_notes_are_drawn_anew(tmp_path: Path) -> None:
    first = hashes(make(tmp_path, domain="mimo", size=2))
    assert hashes(make(tmp_path, domain="mimo", size=2, seed=1)) != first
    (tmp_path / making.NOTES / "000000.json").write_text('{"key": ', encoding="utf-8")
    assert hashes(make(tmp_path, domain="mimo", size=2)) == first


def test_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    one = make(tmp_path / "one", domain="mimo", size=33)
    two = make(tmp_path / "two", domain="mimo", size=33, workers=2)
    assert hashes(one) == hashes(two)


def test_manifest_survives_and_names_are_the_museums(tmp_path: Path) -> None:
    make(tmp_path, domain="cytomine", size=9).write(tmp_path)
    manifest = Manifest.read(tmp_path)
    assert [category.name for category in manifest.categories] == [kind.name for kind in KINDS]
    assert all(category.mimo and category.hornbostel_sachs for category in manifest.categories)
    assert any(record.is_negative for record in manifest.images)
    for record in manifest.images:
        assert record.group == record.attributes["painter"]
        assert record.attributes["movement"] in styles.STYLES
        height, width = cv2.imread(str(manifest.path(record))).shape[:2]
        assert (width, height) == (record.width, record.height)
        assert len(record.extra["true_boxes"]) == len(record.boxes)


def test_all_three_domains_share_the_size() -> None:
    for size in (60, 61, 997, 100_000):
        parts = atelier.parts(options(domain="all", size=size))
        assert list(parts) == list(works.DOMAINS)
        assert sum(part.size for part in parts.values()) == size
        assert [part.domain for part in parts.values()] == list(works.DOMAINS)


@pytest.mark.parametrize(("given", "said"), [
    ({"size": 59, "domain": "all"}, "60 to 100000"),
    ({"size": 100_001}, "60 to 100000"),
    ({"size": 0, "domain": "mimo"}, "1 to 100000"),
    ({"seed": -1}, "from 0"),
    ({"workers": 0}, "at least 1"),
])
def test_impossible_orders_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        atelier.parts(options(**given))


def test_contact_sheet_is_small_and_of_one_domain(tmp_path: Path) -> None:
    file = tmp_path / "sheet.jpg"
    atelier.contact_sheet(options(domain="mimo", contact_sheet=file))
    assert 20_000 < file.stat().st_size < sheets.MAX_BYTES
    assert cv2.imread(str(file)).shape[1] == 1280
    with pytest.raises(SourceError, match="--domain"):
        atelier.contact_sheet(options(domain="all", contact_sheet=file))


# What the domains look like --------------------------------------------------------------------


def border_activity(work: works.Work) -> float:
    """Mean gradient in the outer tenth of a picture."""
    grey = cv2.cvtColor(work.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    gradient = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    height, width = grey.shape
    inner = np.zeros(grey.shape, bool)
    inner[height // 10 : -height // 10, width // 10 : -width // 10] = True
    return float(np.median(gradient[~inner]))


def test_domains_are_far_apart(some: dict[str, list[works.Work]]) -> None:
    """Museum paper is calm to the edge, paintings are not; a photo has one object."""
    calm = [border_activity(work) for work in some["mimo"]]
    for domain in ("google", "cytomine"):
        painted = [border_activity(work) for work in some[domain]]
        assert np.median(painted) > 2 * np.median(calm)
    assert all(len(work.true_boxes) == 1 for work in some["mimo"])
    assert max(len(work.true_boxes) for work in some["cytomine"]) > 1


@pytest.mark.parametrize("movement", list(styles.STYLES))
def test_every_style_repaints_without_losing_the_scene(movement: str) -> None:
    rng = np.random.default_rng(0)
    picture, _ = scenes.background(320, 260, rng)
    scenes.single(picture, KINDS[3], rng)
    master = styles.master(0, "x", list(styles.STYLES).index(movement))
    masks = [owned.mask for owned in picture.owned]
    kept = picture.rgb.copy()
    painted, moved = styles.paint(picture.rgb, masks, master, rng)
    assert painted.shape == picture.rgb.shape
    assert painted.dtype == np.float32
    assert painted.min() >= 0
    assert painted.max() <= 1
    assert np.abs(painted - picture.rgb).mean() > 0.02
    np.testing.assert_array_equal(picture.rgb, kept)
    # What is drawn stays where it was: masks before and after overlap.
    before, after = masks[0] > 0.5, moved[0] > 0.5
    assert (before & after).sum() / (before | after).sum() > 0.6


def test_a_work_takes_less_than_a_second() -> None:
    start = time.process_time()
    for domain in works.DOMAINS:
        for index in range(2):
            works.draw_work(9, domain, index)
    assert (time.process_time() - start) / 6 < 1.0
