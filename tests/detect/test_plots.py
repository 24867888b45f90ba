"""Plots: pictures that open, at any number of classes; what is left out is said."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from musicon.datasets.records import Box, Category, ImageRecord, Manifest, UserError
from musicon.detect import plots
from musicon.detect.calibration import calibration
from musicon.detect.detections import Detections
from musicon.detect.evaluation import DetectionMetrics, evaluate


def metrics(classes: int, images: int, seed: int = 0) -> DetectionMetrics:
    rng = np.random.default_rng(seed)
    records, predictions = [], {}
    for i in range(1, images + 1):
        low = rng.uniform(0, 200, (3, 2))
        boxes = np.concatenate([low, low + rng.uniform(20, 100, (3, 2))], axis=1)
        labels = rng.integers(1, classes + 1, 3)
        records.append(ImageRecord(i, f"{i}.jpg", 400, 400, tuple(
            Box((float(b[0]), float(b[1]), float(b[2]), float(b[3])), int(c))
            for b, c in zip(boxes, labels, strict=True))))
        scores = np.sort(rng.random(3).astype(np.float32))[::-1]
        named = np.where(rng.random(3) < 0.7, labels, rng.integers(1, classes + 1, 3))
        predictions[i] = Detections((boxes + rng.normal(0, 6, (3, 4))).astype(np.float32), scores,
                                    named, scores, scores, (400, 400))
    names = tuple(Category(c, f"viola da gamba of kind number {c}") for c in range(1, classes + 1))
    return evaluate(Manifest(Path("."), names, tuple(records)), predictions)


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text")))


def size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        return picture.size


@pytest.mark.parametrize("classes", [1, 3, 60])
def test_plots_of_few_and_many_classes(classes: int) -> None:
    measured = metrics(classes, 70)
    for plot in (plots.plot_precision_recall, plots.plot_class_ap, plots.plot_confusion):
        width, height = size(plots.to_png(plot(measured)))
        assert 300 < width < 3000 and 150 < height < 3000, plot.__name__


def test_classes_that_find_no_room_are_announced() -> None:
    measured = metrics(60, 120)
    assert f"the {plots.MAX_CURVES} commonest of 60" in words(plots.plot_precision_recall(measured))
    assert f"the {plots.MAX_BARS} commonest of 60" in words(plots.plot_class_ap(measured))
    assert f"{60 - plots.MAX_MATRIX} other classes" in words(plots.plot_confusion(measured))
    assert "commonest of" not in words(plots.plot_class_ap(metrics(3, 20)))


def test_folded_matrix_keeps_every_box() -> None:
    measured = metrics(60, 120)
    folded, names = plots._fold(measured.confusion, measured.confusion_names)
    assert folded.sum() == measured.confusion.sum()
    assert folded[:, -1].sum() == measured.confusion[:, -1].sum()
    assert len(names) == len(folded) == plots.MAX_MATRIX + 2


def test_nothing_to_plot_is_said() -> None:
    empty = evaluate(Manifest(Path("."), (Category(1, "lute"),), ()), {})
    assert "nothing to find" in words(plots.plot_precision_recall(empty))
    assert "no class" in words(plots.plot_class_ap(empty))
    assert "no predictions" in words(plots.plot_reliability(calibration([], [])))
    for plot in (plots.plot_precision_recall, plots.plot_class_ap, plots.plot_confusion):
        size(plots.to_png(plot(empty)))


def test_curve_ends_where_recall_does() -> None:
    measured = metrics(3, 20)
    recall, precision = plots._reached(measured.curves[""])
    counts = sum(int((image.gt_index >= 0).sum()) for image in measured.matched)
    assert recall[-1] == pytest.approx(counts / measured.coverage.boxes, abs=0.01)
    assert precision[-1] == 0 and (precision[:-1] > 0).all()


def test_curves_of_a_training_log(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    rows = ["step,seconds,lr,loss,box,score,note"]
    rows += [f"{i},{i / 9},{1e-3 / i},{2 / i},{1 / i},{0.01 * i if i % 10 == 0 else ''},-"
             for i in range(1, 81)]
    log.write_text("\n".join(rows))
    plots.plot_curves(log, tmp_path / "curves.png")
    three_panels = size((tmp_path / "curves.png").read_bytes())
    log.write_text("step,loss\n1,2.5\n")
    plots.plot_curves(log, tmp_path / "first.png")
    assert size((tmp_path / "first.png").read_bytes())[1] < three_panels[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "first.png", "log.csv"]


def test_smoothing_keeps_a_constant_and_the_length() -> None:
    assert plots._smoothed(np.full(20, 3.0)) == pytest.approx(np.full(20, 3.0))


@pytest.mark.parametrize("text", [None, "", "loss\n1\n"])
def test_no_training_log(tmp_path: Path, text: str | None) -> None:
    log = tmp_path / "log.csv"
    if text is not None:
        log.write_text(text)
    with pytest.raises(UserError, match="training log"):
        plots.plot_curves(log, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
