"""What a stage learns from: sorted by what is known, drawn by the generator alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stage_data import CLASSES, context, make_data, painting, settings

from musicon.datasets.files import sha256
from musicon.datasets.records import Box, Category, ImageRecord, Manifest, UserError
from musicon.detect import classifier as classifiers
from musicon.detect import detectors
from musicon.detect.crops import ClassifierTask, misses
from musicon.detect.detectors.task import BoxedImage, DetectorTask, agnostic_ap50, mirror
from musicon.detect.material import collect, own_first


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("material"))


def test_images_are_sorted_by_what_is_known(data: Path, tmp_path: Path,
                                            caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="musicon"):
        material = collect(context(settings(data), tmp_path), "train")
    counts = [len(getattr(material, n)) for n in ("photos", "labelled", "boxed", "negatives")]
    assert counts == [6, 1, 1, 5]
    assert all(item.photo and item.rehearsed for item in material.photos)
    assert not material.boxed[0].rehearsed
    assert "1 left out: images that nobody has labelled" in caplog.text


def test_boxes_that_a_stage_cannot_use_are_counted(data: Path, tmp_path: Path,
                                                   caplog: pytest.LogCaptureFixture) -> None:
    art = Manifest.read(data / "art")
    known = (Box((20, 30, 90, 100), 1), Box((5, 5, 30, 30), 3),
             Box((100, 10, 150, 60), 1, iscrowd=True))
    records = [replace(record, boxes=known) if record.id == 1 else record for record in art.images]
    folder = tmp_path / "art"
    shutil.copytree(data / "art", folder)
    Manifest(folder, (*CLASSES, Category(3, "serpent")), tuple(records)).write(folder)
    with caplog.at_level("INFO", logger="musicon"):
        material = collect(context(settings(data, manifest=str(folder)), tmp_path), "train")
    assert [len(item.boxes) for item in material.boxed] == [1]
    assert "1 left out: boxes around crowds" in caplog.text
    assert "1 left out: boxes of classes that are not among this stage's" in caplog.text


def test_a_class_by_another_name_is_known(data: Path, tmp_path: Path,
                                          caplog: pytest.LogCaptureFixture) -> None:
    """The photos call the lute by its French name; ids are another order's."""
    folder = tmp_path / "photos"
    shutil.copytree(data / "photos", folder)
    photos = Manifest.read(folder)
    Manifest(folder, (Category(1, "harp"), Category(2, "luth")), photos.images).write(folder)
    with caplog.at_level("INFO", logger="musicon"):
        ctx = context(settings(data, rehearsal=[str(folder)]), tmp_path)
        labels = [item.labels for item in collect(ctx, "train").photos]
    assert labels == [(1,), (2,)] * 3
    assert "classes that are not among" not in caplog.text
    others = [Category(5, "luth"), Category(6, "lute"), Category(7, "serpent")]
    assert ctx.labels_of(others) == {6: 2}


@pytest.mark.parametrize("known", [{"labels": (1, 2)},
                                   {"boxes": (Box((20, 30, 90, 100), 2, iscrowd=True),)}])
def test_pictures_of_several_instruments_without_boxes_are_counted(
        data: Path, tmp_path: Path, known: dict, caplog: pytest.LogCaptureFixture) -> None:
    art = Manifest.read(data / "art")
    folder = tmp_path / "art"
    shutil.copytree(data / "art", folder)
    Manifest(folder, CLASSES, tuple(
        ImageRecord(2, "2.png", 160, 120, split="train", domain="cytomine", **known)
        if record.id == 2 else record for record in art.images)).write(folder)
    with caplog.at_level("INFO", logger="musicon"):
        material = collect(context(settings(data, manifest=str(folder)), tmp_path), "train")
    assert material.labelled == ()
    assert "1 left out: images of several instruments, none of them boxed" in caplog.text


@pytest.mark.parametrize(("side", "held"), [(128, 512), (512, 1024), (1024, 1600)])
def test_a_part_of_a_scan_is_as_sharp_as_the_whole_is_seen(data: Path, tmp_path: Path, side: int,
                                                           held: int) -> None:
    """Half of a picture's side holds the pixels that the detector sees, up to what it may see."""
    Image.new("RGB", (2000, 2000), (90, 80, 70)).save(tmp_path / "1.png")
    Manifest(tmp_path, CLASSES, (ImageRecord(1, "1.png", 2000, 2000, (
        Box((0, 0, 2000, 2000), 1),), split="train"),)).write(tmp_path)
    config = settings(data, manifest=str(tmp_path), rehearsal=[], composites=None)
    config = config.model_copy(update={"detector": config.detector.model_copy(update={
        "image_size": side})})
    material = collect(context(config, tmp_path / "cache"), "train")
    image, scale = material.store.get(tmp_path / "1.png")
    assert max(image.shape) == held and scale == held / 2000
    assert material.cutout_side == max(512, side)


def test_photos_are_cut_out_and_pasted(data: Path, tmp_path: Path) -> None:
    ctx = context(settings(data), tmp_path)
    material = collect(ctx, "train")
    cutout = material.cutout(np.random.default_rng(0), label=2)
    assert cutout is not None and cutout.label == 2
    assert ctx.stage.composites is not None
    scenes = [material.scene(np.random.default_rng(i), 128, ctx.stage.composites)
              for i in range(12)]
    assert all(max(s.image.shape[:2]) == 128 for s in scenes)
    assert sum(len(s.boxes) for s in scenes) > 6


def test_an_example_depends_on_its_generator_alone(data: Path, tmp_path: Path) -> None:
    ctx = context(settings(data), tmp_path)
    classifier = classifiers.build(ctx.config.classifier, 2)
    detector = detectors.build(ctx.config.detector, 2, classifier)
    for task in (ClassifierTask(classifier, ctx), DetectorTask(detector, ctx)):  # type: ignore[arg-type]
        order = [5, 1, 3, 0, 2, 4]
        first = {i: _drawn(task, i) for i in sorted(order)}
        again = {i: _drawn(task, i) for i in order}
        for i in order:
            assert first[i][0] == again[i][0]
            for a, b in zip(_arrays(first[i][1]), _arrays(again[i][1]), strict=True):
                assert np.array_equal(a, b)
        assert all(task.describe(i) for i in range(len(task)))


def test_the_temperature_is_set_where_instruments_are_seen(data: Path, tmp_path: Path) -> None:
    ctx = context(settings(data), tmp_path)
    task = ClassifierTask(classifiers.build(ctx.config.classifier, 2), ctx)
    task.model.eval()
    rng, side = np.random.default_rng(0), task.model.image_size
    crops = [rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(6)]
    empty = [(crop, 0) for crop in crops[:3]]
    photos = [(crop, 1 + i % 2) for i, crop in enumerate(crops[3:])]
    held_out = {"photos": photos, "pasted": [], "labelled": [], "boxed": [], "negatives": empty}

    def temperature(**kinds: list) -> float:
        task.model.temperature.fill_(1.5)
        task._held_out = {**held_out, **kinds}
        return task.calibrate()

    assert temperature(photos=[]) == 1.5  # the empty ones alone would push it to a limit
    assert temperature(photos=[], negatives=[]) == 1.5
    both = temperature()
    assert both != 1.5 and temperature(pasted=[*photos, *empty], negatives=[]) == both
    only = temperature(negatives=[])
    assert temperature(boxed=photos, photos=empty, negatives=[]) == only


def _drawn(task: object, seed: int) -> tuple[int, object]:
    rng = np.random.default_rng(seed)
    index = task.draw(rng)  # type: ignore[attr-defined]
    return index, task.example(index, rng)  # type: ignore[attr-defined]


def _arrays(example: object) -> list[np.ndarray]:
    if isinstance(example, BoxedImage):
        return [example.image, example.boxes, example.labels]
    return [np.asarray(part) for part in example]  # type: ignore[union-attr]


def test_tasks_score_and_descend(data: Path, tmp_path: Path) -> None:
    ctx = context(settings(data), tmp_path)
    torch.manual_seed(0)
    classifier = classifiers.build(ctx.config.classifier, 2)
    task = ClassifierTask(classifier, ctx)
    task.start()
    rng = np.random.default_rng(0)
    batch = task.collate([task.example(task.draw(rng), rng) for _ in range(6)])
    assert batch[0].dtype == torch.uint8 and batch[0].shape == (6, 3, 48, 48)
    losses = task.losses(classifier.train(), batch)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    figures = task.evaluate(classifier.eval())
    assert 0 <= figures["score"] <= 1 and {"top1_photos", "top1_negatives"} <= set(figures)
    boxing = DetectorTask(detectors.build(ctx.config.detector, 2, classifier), ctx)  # type: ignore[arg-type]
    figures = boxing.evaluate(boxing.model.eval())
    assert 0 <= figures["score"] <= 1
    assert len(boxing.preview(rng, 3)) == 3


def test_a_negative_square_shows_neither_a_part_nor_the_whole_of_an_instrument() -> None:
    large = np.array([[100, 100, 500, 500]], np.float32)
    assert not misses(np.array([200, 200, 240, 240]), large)
    small = np.array([[200, 200, 220, 220]], np.float32)
    assert not misses(np.array([0, 0, 500, 500]), small)
    assert misses(np.array([0, 0, 101, 101]), large)
    assert misses(np.array([0, 0, 90, 90]), np.concatenate([large, small]))


def test_a_negative_square_avoids_what_the_stage_does_not_ask_for(data: Path,
                                                                  tmp_path: Path) -> None:
    """A boxed work that a crowd fills gives none: all come from grey instrument-free grounds."""
    for name, image in (("scene", painting(1)), ("empty", np.full((120, 160, 3), 90, np.uint8))):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    boxes = (Box((0, 0, 8, 8), 1), Box((0, 0, 160, 120), 1, iscrowd=True))
    Manifest(tmp_path, CLASSES, (
        ImageRecord(1, "scene.png", 160, 120, boxes, split="train"),
        ImageRecord(2, "empty.png", 160, 120, split="train"))).write(tmp_path)
    config = settings(data, manifest=str(tmp_path), rehearsal=[], composites=None)
    task = ClassifierTask(classifiers.build(config.classifier, 2),
                          context(config, tmp_path / "cache"))
    rng = np.random.default_rng(0)
    assert all((task._negative(task.material, rng) == 90).all() for _ in range(60))


def test_the_probe_of_another_seed_learns_from_other_examples(data: Path, tmp_path: Path) -> None:
    config = settings(data)
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = classifiers.build(config.classifier, 2)
        ctx = context(config.model_copy(update={"seed": seed}), tmp_path)
        ClassifierTask(model, ctx)._probe(64)
        heads.append(list(model.network.parameters())[-2].detach().clone())
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_calibration_lowers_the_validation_loss(data: Path, tmp_path: Path) -> None:
    ctx = context(settings(data), tmp_path)
    torch.manual_seed(0)
    classifier = classifiers.build(ctx.config.classifier, 2).eval()
    task = ClassifierTask(classifier, ctx)
    task.start()
    task.evaluate(classifier)
    crops = [crop for kind, found in (task._held_out or {}).items() if kind != "photos"
             for crop in found]
    labels = torch.tensor([label for _, label in crops])

    def loss() -> float:
        said = torch.from_numpy(classifier.classify_crops([crop for crop, _ in crops]))
        return float(torch.nn.functional.nll_loss(said.log(), labels))

    before, temperature = loss(), task.calibrate()
    assert temperature != 1 and loss() < before
    assert task.calibrate() == pytest.approx(temperature)


def test_windows_keep_their_boxes_true(data: Path, tmp_path: Path) -> None:
    """A window's box must hold the same pixels as the box of the whole picture did."""
    ctx = context(settings(data), tmp_path)
    classifier = classifiers.build(ctx.config.classifier, 2)
    task = DetectorTask(detectors.build(ctx.config.detector, 2, classifier), ctx)  # type: ignore[arg-type]
    whole, _ = task.material.store.get(task.items[0].path)
    x0, y0, x1, y1 = task.items[0].boxes[0].astype(int)
    expected = whole[y0:y1, x0:x1].reshape(-1, 3).mean(0)
    for seed in range(25):
        window = task._window(task.items[0], np.random.default_rng(seed))
        assert len(window.boxes) == 1
        a, b, c, d = window.boxes[0].round().astype(int)
        inside = window.image[b:d, a:c].reshape(-1, 3).mean(0)
        assert np.abs(inside - expected).max() < 25
        height, width = window.image.shape[:2]
        assert 0 <= a < c <= width and 0 <= b < d <= height


def test_mirror_twice_is_the_same() -> None:
    example = BoxedImage(painting(3), np.array([[10, 20, 50, 60]], np.float32), np.array([1]))
    once, twice = mirror(example), mirror(mirror(example))
    assert once.boxes.tolist() == [[110, 20, 150, 60]]
    assert np.array_equal(twice.image, example.image)
    assert np.array_equal(twice.boxes, example.boxes)


def test_agnostic_ap50_by_hand() -> None:
    truth = BoxedImage(painting(1), np.array([[0, 0, 50, 50], [60, 60, 100, 100]], np.float32),
                       np.array([1, 2]))
    perfect = {"boxes": truth.boxes, "scores": np.array([0.9, 0.8])}
    assert agnostic_ap50([truth], [perfect]) == pytest.approx(1.0)
    half = {"boxes": truth.boxes[:1], "scores": np.array([0.9])}
    # COCO's 101 recall levels: precision 1 up to recall 0.5, that is 51 of them.
    assert agnostic_ap50([truth], [half]) == pytest.approx(51 / 101)
    assert agnostic_ap50([truth], [{"boxes": np.zeros((0, 4)), "scores": np.zeros(0)}]) == 0
    first = replace(truth, boxes=truth.boxes[1:], labels=truth.labels[1:])
    assert agnostic_ap50([first], [perfect]) == pytest.approx(0.5)  # its best box is none's
    unasked = replace(first, unasked=truth.boxes[:1])
    assert agnostic_ap50([unasked], [perfect]) == pytest.approx(1.0)
    assert agnostic_ap50([replace(unasked, boxes=truth.boxes[:0])], [perfect]) == 0


def test_validation_stands_in_with_scenes_and_keeps_negatives(data: Path, tmp_path: Path) -> None:
    from musicon.detect.validation import ENOUGH_BOXED, validation_manifest

    ctx = context(settings(data), tmp_path)
    made = validation_manifest(ctx)
    assert made.faults() == []
    assert all(made.path(record).is_file() for record in made.images)
    assert sum(record.is_negative for record in made.images) >= 2
    boxed = len(collect(ctx, "val").boxed)
    scenes = sum(record.file_name.startswith("scene") for record in made.images)
    assert scenes == ENOUGH_BOXED - boxed
    again = validation_manifest(ctx)
    assert again.images == made.images


def test_finds_in_crowds_and_of_unknown_classes_count_neither_way(data: Path,
                                                                 tmp_path: Path) -> None:
    """One boxed work of validation: a lute, a crowd of them, and a class that no stage knows."""
    from musicon.detect.detections import Detections
    from musicon.detect.evaluation import evaluate
    from musicon.detect.validation import validation_manifest

    folder = tmp_path / "art"
    shutil.copytree(data / "art", folder)
    art = Manifest.read(folder)
    boxes = (Box((20, 30, 60, 100), 2), Box((100, 10, 150, 60), 2, iscrowd=True),
             Box((70, 70, 95, 110), 3))
    Manifest(folder, (*CLASSES, Category(3, "serpent")), tuple(
        replace(record, boxes=boxes) if record.id == 9 else record
        for record in art.images)).write(folder)
    config = settings(data, manifest=str(folder), rehearsal=[], composites=None)
    ctx = context(config, tmp_path / "cache")
    made = validation_manifest(ctx)
    assert made.faults() == []
    record, = (record for record in made.images if record.boxes)
    found = np.array([box.xyxy for box in boxes], np.float32)
    scores = np.array([0.7, 0.8, 0.9], np.float32)
    said = {record.id: Detections(found, scores, np.array([2, 2, 1]), scores, scores, (160, 120))}
    scored = evaluate(made, said, model_categories=made.categories)
    assert scored.agnostic_ap50 == pytest.approx(1) and scored.coverage.boxes == 1
    task = DetectorTask(detectors.build(ctx.config.detector, 2, classifiers.build(  # type: ignore[arg-type]
        ctx.config.classifier, 2)), ctx)
    example, = (example for example in task._validation_images() if len(example.boxes))
    scale = example.image.shape[1] / 160
    assert example.unasked == pytest.approx(found[1:] * scale)
    assert agnostic_ap50([example], [{"boxes": found * scale, "scores": scores}]) \
        == pytest.approx(1)


def test_instrument_free_validation_images_come_from_every_collection(data: Path,
                                                                      tmp_path: Path) -> None:
    from musicon.detect.validation import MAX_NEGATIVES, validation_manifest

    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
        for i in range(80):
            Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(folder / f"{i}.png")
        Manifest(folder, CLASSES, tuple(ImageRecord(i + 1, f"{i}.png", 8, 8, split="val")
                                        for i in range(80))).write(folder)
    config = settings(data, backgrounds=[str(folder) for folder in folders], composites=None)
    ctx = context(config, tmp_path / "cache")
    made = [record.file_name for record in validation_manifest(ctx).images]
    shares = [sum(f"/{folder.name}/" in name for name in made) for folder in folders]
    assert sum(shares) <= MAX_NEGATIVES and min(shares) >= 0.4 * MAX_NEGATIVES
    task = DetectorTask(detectors.build(ctx.config.detector, 2, classifiers.build(  # type: ignore[arg-type]
        ctx.config.classifier, 2)), ctx)
    values = [int(example.image[0, 0, 0]) for example in task._validation_images()
              if not len(example.boxes)]
    assert max(values) > 60  # pictures are as light as their number: not the first 20 alone


@pytest.mark.parametrize("share", [0.0, 0.25, 0.8])
def test_own_boxed_images_take_turns_with_rehearsed_ones(share: float, data: Path,
                                                         tmp_path: Path) -> None:
    """One boxed work of the stage's own, thirty of an earlier stage."""
    for i in range(1, 31):
        Image.fromarray(painting(i)).save(tmp_path / f"{i}.png")
    Manifest(tmp_path, CLASSES, tuple(
        ImageRecord(i, f"{i}.png", 160, 120, (Box((20, 30, 90, 100), 1),), split="train")
        for i in range(1, 31))).write(tmp_path)
    config = settings(data, rehearsal=[str(tmp_path)], rehearsal_share=share, composites=None)
    ctx = context(config, tmp_path / "cache")
    task = DetectorTask(detectors.build(ctx.config.detector, 2, classifiers.build(  # type: ignore[arg-type]
        ctx.config.classifier, 2)), ctx)
    rng = np.random.default_rng(0)
    drawn = [index for _ in range(2000) if (index := task.draw(rng)) < len(task.items)]
    rehearsed = np.mean([task.items[index].rehearsed for index in drawn])
    assert rehearsed == pytest.approx(share, abs=0.04)
    assert len(set(drawn)) == (31 if share else 1)


def test_validation_images_keep_their_true_size(data: Path, tmp_path: Path) -> None:
    # 1000 x 333 shrinks to 512 x 170, from which 332 would be worked out.
    from musicon.detect.validation import validation_manifest

    art = tmp_path / "art"
    art.mkdir()
    for name in ("train", "val"):
        Image.fromarray(np.full((333, 1000, 3), 90, np.uint8)).save(art / f"{name}.png")
    Manifest(art, CLASSES, tuple(
        ImageRecord(i, f"{name}.png", 1000, 333, (Box((0, 0, 500, 333), 1),), split=name)
        for i, name in enumerate(("train", "val"), 1))).write(art)
    config = settings(data, manifest=str(art), rehearsal=[])
    made = validation_manifest(context(config, tmp_path / "cache"))
    boxed = [record for record in made.images if record.file_name.endswith("val.png")]
    assert [(record.width, record.height) for record in boxed] == [(1000, 333)]


def test_the_stages_own_images_come_first(data: Path, tmp_path: Path) -> None:
    config = settings(data, manifest=str(data / "photos"), rehearsal=[],
                      backgrounds=[str(data / "art")])
    negatives = collect(context(config, tmp_path), "train").negatives
    assert negatives and all(item.rehearsed for item in negatives)
    own = [replace(item, rehearsed=False) for item in negatives[2:4]]
    mixed = [*negatives[:2], *own, *negatives[4:]]
    assert own_first(mixed, 99) == [*own, *negatives[:2], *negatives[4:]]
    assert own_first(mixed, 1) == own[:1]
    assert own_first(mixed, 3) == [*own, negatives[0]]


@pytest.fixture
def bank(data: Path, tmp_path: Path) -> Path:
    """Green versions, half as large, of the photo 2 and the boxed painting; and a scene."""
    folder = tmp_path / "bank"
    folder.mkdir()
    records = []
    contents = (("photos", 2, "mimo", None, (2,)),
                ("art", 1, "cytomine", (Box((10, 15, 45, 50), 1, origin="style"),), None))
    for number, (kind, content, domain, boxes, labels) in enumerate(contents, 1):
        size = (60, 45) if kind == "photos" else (80, 60)
        Image.new("RGB", size, (0, 200, 0)).save(folder / f"{number}.png")
        known = {"boxes": boxes} if boxes else {"labels": labels}
        records.append(ImageRecord(
            number, f"{number}.png", *size, domain=domain, split="train",
            extra={"content_sha256": sha256(data / kind / f"{content}.png")}, **known))  # type: ignore[arg-type]
    Image.new("RGB", (100, 80), (0, 200, 0)).save(folder / "scene.png")
    records.append(ImageRecord(9, "scene.png", 100, 80,
                               (Box((20, 20, 70, 70), 2, origin="style"),), split="train"))
    Manifest(folder, CLASSES, tuple(records)).write(folder)
    return folder


def test_styled_versions_take_turns_with_the_clean_pictures(data: Path, bank: Path,
                                                            tmp_path: Path) -> None:
    ctx = context(settings(data, bank={"path": str(bank), "probability": 0.5}), tmp_path)
    material = collect(ctx, "train")
    photo_item = next(item for item in material.photos if item.path.name == "2.png")
    rng = np.random.default_rng(0)
    looks = [material.look(photo_item, rng).path.parent.name for _ in range(200)]
    assert 70 < looks.count("bank") < 130
    # The photo 4 is a copy of 2, and has its styled version too; 3 is another picture.
    assert {path.name for path in material.styled} == {"1.png", "2.png", "4.png", "6.png"}
    untouched = next(item for item in material.photos if item.path.name == "3.png")
    assert all(material.look(untouched, rng) is untouched for _ in range(20))
    clean, styled = material.cut(photo_item), material.cut(photo_item, material.styled[
        photo_item.path][0])
    assert clean is not None and styled is not None
    assert styled.rgba[..., :3].reshape(-1, 3).mean(0) == pytest.approx((0, 200, 0), abs=1)
    assert styled.rgba.shape[0] == pytest.approx(clean.rgba.shape[0] / 2, abs=2)
    assert not collect(ctx, "val").styled


def test_a_styled_painting_keeps_its_boxes_and_scenes_are_learnt_from(data: Path, bank: Path,
                                                                      tmp_path: Path) -> None:
    ctx = context(settings(data, bank={"path": str(bank), "probability": 0.9}), tmp_path)
    torch.manual_seed(0)
    classifier = classifiers.build(ctx.config.classifier, 2)
    crops = ClassifierTask(classifier, ctx)
    boxed = next(i for i, (_, box, _) in enumerate(crops.items) if box is not None)
    greens = [crops._positive(crops.material, *crops.items[boxed], np.random.default_rng(i))
              for i in range(30)]
    assert 20 < sum(abs(int(np.median(crop[..., 1])) - 200) < 8 for crop in greens) < 30
    task = DetectorTask(detectors.build(ctx.config.detector, 2, classifier), ctx)  # type: ignore[arg-type]
    scenes = [task._scene(ctx.stage.composites, np.random.default_rng(i)) for i in range(40)]  # type: ignore[arg-type]
    green = [s for s in scenes if (s.image == (0, 200, 0)).all()]
    assert 30 < len(green) < 40
    for scene in green:
        assert scene.labels.tolist() == [2] and scene.boxes.shape == (1, 4)
    assert len(task.example(0, np.random.default_rng(1)).boxes) == 1


def test_a_bank_of_other_pictures_is_refused(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    folder.mkdir()
    Image.new("RGB", (60, 45)).save(folder / "1.png")
    Manifest(folder, CLASSES, (ImageRecord(1, "1.png", 60, 45, labels=(1,), split="train",
                                           extra={"content_sha256": "0" * 64}),)).write(folder)
    with pytest.raises(UserError, match="build_bank.py make"):
        collect(context(settings(data, bank=str(folder)), tmp_path), "train")
