"""Predictions from a model with known answers, and from files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import detector, pictures
from pycocotools.coco import COCO

from musicon.datasets.records import Category, Manifest
from musicon.detect.evaluation import EvaluationError, evaluate
from musicon.detect.prediction import read_predictions, run_model


@pytest.mark.parametrize("side", [300, 1200])  # the larger one is searched at reduced size
def test_boxes_come_back_in_pixels_of_the_original(tmp_path: Path, side: int) -> None:
    data = pictures(tmp_path, side=side)
    predictions = run_model(detector(), data, batch_size=2, quiet=True)
    metrics = evaluate(data, predictions.found, model_categories=predictions.categories,
                       threshold=0.3)
    assert metrics.coco["AP"] == pytest.approx(1.0)
    assert metrics.found.hits == metrics.named.hits == 4 and metrics.found.false_alarms == 0
    assert sorted(predictions.found) == [1, 2, 3, 4]  # picture 5 has no boxes to score


def test_classifier_names_true_boxes_and_whole_pictures(tmp_path: Path) -> None:
    predictions = run_model(detector(), pictures(tmp_path), quiet=True)
    crops, whole = predictions.crops, predictions.pictures
    assert crops is not None and whole is not None
    assert crops.labels.tolist() == [1, 2, 1, 2] and crops.left_out == 0
    assert crops.probabilities.argmax(axis=1).tolist() == [1, 2, 1, 2]
    assert crops.probabilities.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert whole.labels.tolist() == [2]
    alone = run_model(detector(), pictures(tmp_path), search=False, quiet=True)
    assert alone.found == {} and alone.crops is not None and alone.pictures is not None
    np.testing.assert_array_equal(alone.crops.probabilities, crops.probabilities)
    np.testing.assert_array_equal(alone.pictures.probabilities, whole.probabilities)


def test_classifier_columns_follow_the_names_not_the_ids(tmp_path: Path) -> None:
    # The same model under other ids, one class of which the data calls otherwise.
    model = detector((Category(7, "lute"), Category(3, "arpa")))
    predictions = run_model(model, pictures(tmp_path), quiet=True)
    crops = predictions.crops
    assert crops is not None
    assert crops.probabilities.argmax(axis=1).tolist() == crops.labels.tolist() == [1, 2, 1, 2]


def test_two_classes_of_one_meaning_are_one_column(tmp_path: Path) -> None:
    model = detector((Category(1, "lute"), Category(2, "Laute")))
    crops = run_model(model, pictures(tmp_path), quiet=True).crops
    assert crops is not None
    assert crops.probabilities.shape == (2, 2)  # the negative class and the lute
    assert crops.labels.tolist() == [1, 1] and crops.left_out == 2  # harps are unknown to it


def test_unreadable_images_are_rejected_with_a_reason(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    (tmp_path / "1.png").write_bytes(b"not a picture")
    (tmp_path / "2.png").write_bytes((tmp_path / "3.png").read_bytes())
    wrong = replace(data, images=tuple(replace(r, width=640) if r.id == 2 else r
                                       for r in data.images))
    predictions = run_model(detector(), wrong, quiet=True)
    reasons = dict(predictions.rejects.rows)
    assert len(reasons) == 2 and 1 not in predictions.found and 3 in predictions.found
    assert "600x300" in reasons[str(tmp_path / "2.png")]


def test_no_readable_picture_is_an_error(tmp_path: Path) -> None:
    data = replace(pictures(tmp_path), root=tmp_path / "elsewhere")
    with pytest.raises(EvaluationError, match=r"none of the \d+ pictures can be read.*elsewhere"):
        run_model(detector(), data, quiet=True)


def test_predictions_written_and_read_again_score_the_same(tmp_path: Path) -> None:
    data = pictures(tmp_path / "pictures")
    predictions = run_model(detector(), data, quiet=True)
    out = tmp_path / "results"
    file = predictions.to_manifest(data, out).write(out / "predictions.json")
    again = read_predictions(file, data)
    first, second = (evaluate(data, p.found, model_categories=p.categories, threshold=0.3)
                     for p in (predictions, again))
    assert first.coco == second.coco and first.found == second.found
    assert again.found.keys() == predictions.found.keys()


def detections(folder: Path, names: dict[str, list[dict[str, Any]]], **info: Any) -> Path:
    """A file as ``infer.py`` writes it: images numbered anew, names from the file's folder."""
    images = [{"id": i, "file_name": name, "width": 600, "height": 300}
              for i, name in enumerate(names, start=1)]
    rows = [{**row, "image_id": i, "category_id": row.get("category_id", 1)}
            for i, found in enumerate(names.values(), start=1) for row in found]
    for i, row in enumerate(rows, start=1):
        row["id"] = i
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "detections.json"
    file.write_text(json.dumps({
        "info": info, "images": images, "annotations": rows,
        "categories": [{"id": 1, "name": "harp"}, {"id": 2, "name": "lute"}]}))
    return file


HARP = {"bbox": [75, 60, 150, 150], "score": 0.8, "origin": "pseudo"}


def test_images_pair_by_file_not_by_number(tmp_path: Path) -> None:
    data = pictures(tmp_path / "pictures")
    file = detections(tmp_path / "out", {"../pictures/4.png": [], "../pictures/2.png": [HARP],
                                         "../elsewhere/9.png": [HARP]}, threshold=0.3)
    predictions = read_predictions(tmp_path / "out", data)
    assert {i: len(d) for i, d in predictions.found.items()} == {4: 0, 2: 1}
    assert predictions.not_in_data == 1 and predictions.lowest == 0.3
    assert predictions.categories is not None
    metrics = evaluate(data.select(where=lambda r: r.id == 2),
                       predictions.only(data.select(where=lambda r: r.id == 2)).found,
                       model_categories=predictions.categories, threshold=0.5)
    assert metrics.named.hits == 1  # harp is 1 in the file and 2 in the data
    assert file.exists()


def test_images_pair_where_the_pictures_were_moved(tmp_path: Path) -> None:
    data = replace(pictures(tmp_path / "pictures"), root=tmp_path / "not_there")
    detections(tmp_path / "out", {"/scans/2.png": [HARP]})
    assert list(read_predictions(tmp_path / "out", data).found) == [2]


def test_another_picture_of_the_same_name_is_no_picture_of_the_data(tmp_path: Path) -> None:
    data = pictures(tmp_path / "pictures")
    detections(tmp_path / "out", {"../pictures/2.png": [HARP], "../elsewhere/2.png": []})
    found = read_predictions(tmp_path / "out", data)
    assert {i: len(d) for i, d in found.found.items()} == {2: 1} and found.not_in_data == 1
    moved = replace(data, root=tmp_path / "not_there")
    detections(tmp_path / "out", {"/a/2.png": [HARP], "/b/2.png": [], "/a/4.png": []})
    found = read_predictions(tmp_path / "out", moved)  # which of the two it is nobody can tell
    assert list(found.found) == [4] and found.not_in_data == 2


def test_results_list_pairs_by_id_and_agrees_with_pycocotools(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    rows = [{"image_id": 2, "category_id": 2, "bbox": [75, 60, 150, 150], "score": 0.8},
            {"image_id": 2, "category_id": 1, "bbox": [0, 0, 50, 50], "score": 0.9}]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(rows))
    predictions = read_predictions(file, data)
    assert predictions.categories is None and set(predictions.found) == {1, 2, 3, 4, 5}
    coco = COCO()
    coco.dataset = data.to_coco()
    coco.createIndex()
    loaded = coco.loadRes(rows).loadAnns([1, 2])
    ours = predictions.found[2]
    theirs = sorted(loaded, key=lambda row: -row["score"])
    assert ours.scores.tolist() == pytest.approx([row["score"] for row in theirs])
    assert ours.labels.tolist() == [row["category_id"] for row in theirs]
    widths = ours.boxes[:, 2:] - ours.boxes[:, :2]
    assert (widths.prod(axis=1)).tolist() == pytest.approx([row["area"] for row in theirs])


@pytest.mark.parametrize(("text", "words"), [
    ("{", "not a JSON file"),
    ('[{"image_id": 1}]', "needs image_id, category_id, bbox and score"),
    ('[{"image_id": 99, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 1}]', "none of its image"),
    ('{"annotations": []}', "no list 'images'"),
])
def test_files_that_are_no_predictions(tmp_path: Path, text: str, words: str) -> None:
    data = pictures(tmp_path)
    file = tmp_path / "detections.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_predictions(file, data)


def test_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="tools/infer.py --images"):
        read_predictions(tmp_path / "none.json", Manifest(tmp_path, (), ()))


def test_predictions_of_other_pictures_of_another_size_or_without_scores(tmp_path: Path) -> None:
    data = pictures(tmp_path / "pictures")
    detections(tmp_path / "a", {"x.png": [], "y.png": []})
    with pytest.raises(EvaluationError, match="none of its 2 images"):
        read_predictions(tmp_path / "a", data)
    small = replace(data, images=tuple(replace(r, width=1200) for r in data.images))
    detections(tmp_path / "b", {"../pictures/2.png": []})
    with pytest.raises(EvaluationError, match="600x300 pixels, but the data's is 1200x300"):
        read_predictions(tmp_path / "b", small)
    unscored = {key: value for key, value in HARP.items() if key != "score"}
    detections(tmp_path / "c", {"../pictures/2.png": [unscored]})
    with pytest.raises(EvaluationError, match="without a score"):
        read_predictions(tmp_path / "c", data)


def test_relative_names_are_read_from_any_working_folder(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures(tmp_path / "pictures")
    detections(tmp_path / "out", {"../pictures/2.png": [HARP]})
    monkeypatch.chdir(tmp_path / "out")
    assert list(read_predictions(Path(os.curdir), data).found) == [2]
