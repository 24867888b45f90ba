"""Predictions to be scored: from the model, or from a file that was written before."""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicon.datasets.boxes import as_boxes, xywh_to_xyxy
from musicon.datasets.command import progress
from musicon.datasets.images import ImageError, decode_reduced
from musicon.datasets.records import Box, Category, ImageRecord, Manifest, Rejects
from musicon.detect.alignment import align
from musicon.detect.detections import Detections, rescale
from musicon.detect.evaluation import EvaluationError, is_boxed
from musicon.detect.hierarchy import SureName
from musicon.detect.outputs import sure_fields
from musicon.detect.pipeline import ArtworkDetector


@dataclass(frozen=True)
class NamedCrops:
    """What the classifier alone says of parts of pictures whose class is known.

    Attributes:
        probabilities: (N, C + 1); column 0 is the negative class.
        labels: (N,), columns of the true classes.
        images: (N,), ids of the pictures.
        left_out: Crops of classes that the model does not know.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    images: NDArray[np.int64]
    left_out: int


@dataclass(frozen=True)
class Predictions:
    """What was found in the images of a manifest.

    Attributes:
        found: Image id of the manifest -> detections.
        categories: What their labels refer to; None where they are the manifest's own.
        crops: The classifier on the true boxes; None where no model ran.
        pictures: The classifier on whole pictures that hold one instrument, named but not
            boxed; None where no model ran.
        rejects: Images that could not be read, with the reason.
        not_in_data: Predicted images that the manifest does not list.
        lowest: Least score that the predictions were cut at, where it is known.
    """

    found: Mapping[int, Detections]
    categories: tuple[Category, ...] | None
    crops: NamedCrops | None = None
    pictures: NamedCrops | None = None
    rejects: Rejects = field(default_factory=Rejects)
    not_in_data: int = 0
    lowest: float | None = None

    def only(self, data: Manifest) -> Predictions:
        """Without the images that are not in ``data``, such as those of another split."""
        ids = {record.id for record in data.images}
        return replace(self, found={i: d for i, d in self.found.items() if i in ids})

    def to_manifest(self, data: Manifest, folder: Path) -> Manifest:
        """The detections as a manifest that lies in ``folder``; scores are kept."""
        records = []
        for record in data.images:
            if record.id not in self.found:
                continue
            name = os.path.relpath(data.path(record), folder).replace(os.sep, "/")
            records.append(ImageRecord(record.id, name, record.width, record.height, labels=None,
                                       boxes=tuple(_boxes(self.found[record.id]))))
        return Manifest(folder, self.categories or data.categories, tuple(records),
                        {"description": "Detections, unlikely ones included, for evaluation"})


def _boxes(found: Detections) -> Iterator[Box]:
    for box, score, label, detector, classifier, name in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(),
            found.detector_scores.tolist(), found.classifier_scores.tolist(),
            found.sure or [None] * len(found), strict=True):
        yield Box((box[0], box[1], box[2], box[3]), label, origin="pseudo", score=score,
                  extra={"detector_score": round(detector, 6),
                         "classifier_score": round(classifier, 6), **sure_fields(name)})


def run_model(detector: ArtworkDetector, data: Manifest, *, batch_size: int = 8,
              workers: int = 2, search: bool = True, quiet: bool = False) -> Predictions:
    """Search every image that can be scored, and have the classifier name what is known.

    Boxes of all scores are kept: average precision needs the unlikely ones too. Without ``search``,
    which takes nearly all the time, only the naming is done.

    Raises:
        EvaluationError: No picture can be read.
    """
    columns, common = _crop_columns(detector.categories, data)
    records = [record for record in data.images if is_named(record)
               or (is_boxed(record) if search else record.boxes)]
    crops, pictures = _Naming(detector, columns, common), _Naming(detector, columns, common)
    rejects = Rejects()
    found: dict[int, Detections] = {}
    stream = _decoded(data, records, batch_size + workers, workers, detector.working_side)
    decoded = progress(stream, total=len(records), desc="evaluating", quiet=quiet)
    while batch := list(islice(decoded, batch_size)):
        to_search = []
        for record, image, reason in batch:
            if image is None:
                rejects.add(data.path(record), reason)
            elif is_named(record):
                pictures.add(record.id, image, [[0, 0, image.shape[1], image.shape[0]]],
                             record.known_labels)
            else:
                to_search.append((record, image))
        if search:
            results = detector.predict([image for _, image in to_search], threshold=0.0)
            found |= {record.id: rescale(result, (record.width, record.height))
                      for (record, _), result in zip(to_search, results, strict=True)}
        for record, image in to_search:
            boxes = [box for box in record.boxes if not box.iscrowd]
            scale = [image.shape[1] / record.width, image.shape[0] / record.height] * 2
            crops.add(record.id, image,
                      as_boxes([box.xyxy for box in boxes]) * np.array(scale, np.float32),
                      [box.label for box in boxes])
    if records and len(rejects) == len(records):
        file, reason = rejects.rows[0]
        raise EvaluationError(f"none of the {len(records):,} pictures can be read; the first: "
                              f"{file}: {reason}; put them where the manifest says")
    return Predictions(found, detector.categories, crops.result(), pictures.result(), rejects)


def is_named(record: ImageRecord) -> bool:
    """True where the image holds one instrument that is named but not boxed."""
    return not record.boxes and len(record.known_labels) == 1


class _Naming:
    """Gathers what the classifier says, image by image."""

    def __init__(self, detector: ArtworkDetector, columns: Sequence[int],
                 common: Mapping[int, int]) -> None:
        self.detector, self.columns, self.common = detector, columns, common
        self.rows = [np.zeros((0, 1 + max(columns)), np.float32)]
        self.labels: list[int] = []
        self.images: list[int] = []
        self.left_out = 0

    def add(self, image_id: int, image: NDArray[np.uint8], boxes: object,
            labels: Sequence[int]) -> None:
        """Classify boxes (N, 4) of one image; those of classes that are not shared are counted."""
        known = [i for i, label in enumerate(labels) if label in self.common]
        self.left_out += len(labels) - len(known)
        if known:
            said = self.detector.classify(image, as_boxes(boxes)[known])
            self.rows.append(_merged(said, self.columns))
            self.labels += [self.common[labels[i]] for i in known]
            self.images += [image_id] * len(known)

    def result(self) -> NamedCrops:
        """All of it."""
        return NamedCrops(np.concatenate(self.rows), np.array(self.labels, np.int64),
                          np.array(self.images, np.int64), self.left_out)


def _crop_columns(model: Sequence[Category], data: Manifest) -> tuple[list[int], dict[int, int]]:
    """Where the classifier's columns go, and the column of each class of the data.

    Two classes of the model that mean the same to the data are one column.
    """
    alignment = align(model, data.categories)
    order = {common: i for i, common in enumerate(dict.fromkeys(
        alignment.to_common[category.id] for category in model), start=1)}
    columns = [0, *(order[alignment.to_common[category.id]] for category in model)]
    return columns, {common: order[common] for common in alignment.shared}


def _merged(probabilities: NDArray[np.float32], columns: Sequence[int]) -> NDArray[np.float32]:
    out = np.zeros((len(probabilities), 1 + max(columns)), np.float32)
    np.add.at(out.T, np.asarray(columns), probabilities.T)
    return out


def _decoded(data: Manifest, records: Sequence[ImageRecord], ahead: int, workers: int,
             max_side: int) -> Iterator[tuple[ImageRecord, NDArray[np.uint8] | None, str]]:
    """The images in order, decoded in threads, or None and the reason why not."""

    def decode(record: ImageRecord) -> tuple[ImageRecord, NDArray[np.uint8] | None, str]:
        try:
            image, image_wh = decode_reduced(data.path(record), max_side)
        except ImageError as error:
            return record, None, error.reason
        if image_wh != (record.width, record.height):
            return record, None, (f"it is {image_wh[0]}x{image_wh[1]} pixels, but the manifest "
                                  f"says {record.width}x{record.height}")
        return record, image, ""

    with ThreadPoolExecutor(workers, thread_name_prefix="images") as pool:
        waiting: deque[Future[tuple[ImageRecord, NDArray[np.uint8] | None, str]]] = deque()
        try:
            for record in records:
                waiting.append(pool.submit(decode, record))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def read_predictions(file: str | Path, data: Manifest) -> Predictions:
    """Read ``detections.json`` of ``tools/infer.py``, or a COCO results list.

    Images are paired by file; those of a results list, which has no file names, by id.

    Raises:
        EvaluationError: Not such a file, or its images are not the data's.
        ManifestError: A broken ``detections.json``.
    """
    path = Path(file)
    if path.is_dir():
        path = path / "detections.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such file; make one with python tools/infer.py --images "
                              f"{data.root} --out {path.parent}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EvaluationError(f"{path}: not a JSON file ({error})") from None
    if isinstance(document, list):
        return _results_list(document, data, path)
    return _detections_file(Manifest.from_coco(document, path.parent, str(path)), data, path)


def _detections_file(predicted: Manifest, data: Manifest, path: Path) -> Predictions:
    found: dict[int, Detections] = {}
    pairs = _pairs(predicted, data)
    strangers = []
    for record in predicted.images:
        truth = pairs.get(record.id)
        if truth is None:
            strangers.append(record.file_name)
            continue
        if (record.width, record.height) != (truth.width, truth.height):
            raise EvaluationError(
                f"{path}: {record.file_name} was searched at {record.width}x{record.height} "
                f"pixels, but the data's is {truth.width}x{truth.height}; search the data's files")
        found[truth.id] = _detections(record, path)
    if not found and strangers:
        raise EvaluationError(f"{path}: none of its {len(strangers)} images (such as "
                              f"{strangers[0]}) is in the data; give the predictions made on it")
    lowest = predicted.info.get("threshold")
    return Predictions(found, predicted.categories, not_in_data=len(strangers),
                       lowest=float(lowest) if isinstance(lowest, (int, float)) else None)


def _detections(record: ImageRecord, path: Path) -> Detections:
    if any(box.score is None for box in record.boxes):
        raise EvaluationError(f"{path}: {record.file_name} has boxes without a score: these are "
                              "not predictions; give the detections.json of tools/infer.py")
    scores = [box.score or 0.0 for box in record.boxes]
    sure = [SureName(str(box.extra["sure_name"]), str(box.extra["level"]))
            for box in record.boxes if "level" in box.extra and "sure_name" in box.extra]
    return _sorted(
        [box.xyxy for box in record.boxes], scores, [box.label for box in record.boxes],
        [float(box.extra.get("detector_score", s))
         for box, s in zip(record.boxes, scores, strict=True)],
        [float(box.extra.get("classifier_score", s))
         for box, s in zip(record.boxes, scores, strict=True)],
        (record.width, record.height), tuple(sure) if len(sure) == len(scores) else None)


def _sorted(boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[int],
            detector: Sequence[float], classifier: Sequence[float],
            image_wh: tuple[int, int], sure: tuple[SureName, ...] | None = None) -> Detections:
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    return Detections(as_boxes(boxes), np.asarray(scores, np.float32),
                      np.asarray(labels, np.int64), np.asarray(detector, np.float32),
                      np.asarray(classifier, np.float32), image_wh, sure).select(order)


def _pairs(predicted: Manifest, data: Manifest) -> dict[int, ImageRecord]:
    """Predicted image id -> the data's image of the same file, wherever the two lists lie.

    That is the very file; else the image whose whole name ends the predicted one's, where no other
    image has such a name, and no other predicted one is it or could be.
    """
    by_path = {os.path.realpath(data.path(record)): record for record in data.images}
    by_name: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in data.images:
        by_name[PurePosixPath(record.file_name).name].append(record)
    pairs: dict[int, ImageRecord] = {}
    claims: dict[int, list[tuple[int, ImageRecord]]] = defaultdict(list)
    for record in predicted.images:
        name = record.file_name
        if truth := by_path.get(os.path.realpath(predicted.path(record))):
            pairs[record.id] = truth
            continue
        same = [r for r in by_name[PurePosixPath(name).name]
                if f"/{name}".endswith(f"/{r.file_name}")]
        if len(same) == 1:
            claims[same[0].id].append((record.id, same[0]))
    found = {truth.id for truth in pairs.values()}
    return pairs | dict(claim[0] for truth_id, claim in claims.items()
                        if len(claim) == 1 and truth_id not in found)


def _results_list(rows: Sequence[Any], data: Manifest, path: Path) -> Predictions:
    """COCO results: ``[{"image_id", "category_id", "bbox", "score"}, ...]``, ids of the data."""
    records = {record.id: record for record in data.images}
    by_image: dict[int, list[tuple[tuple[float, ...], float, int]]] = {}
    strangers = set()
    for row in rows:
        try:
            image_id, label = int(row["image_id"]), int(row["category_id"])
            box, score = xywh_to_xyxy(row["bbox"]), float(row["score"])
        except (KeyError, TypeError, ValueError) as error:
            raise EvaluationError(f"{path}: {str(row)[:120]} is no COCO result ({error!r}); it "
                                  "needs image_id, category_id, bbox and score") from None
        if image_id in records:
            by_image.setdefault(image_id, []).append((box, score, label))
        else:
            strangers.add(image_id)
    if strangers and not by_image:
        raise EvaluationError(f"{path}: none of its image ids is in the data")
    found = {}
    for image_id, record in records.items():
        boxes = by_image.get(image_id, [])
        scores = [score for _, score, _ in boxes]
        found[image_id] = _sorted([box for box, _, _ in boxes], scores,
                                  [label for _, _, label in boxes], scores, scores,
                                  (record.width, record.height))
    return Predictions(found, None, not_in_data=len(strangers))
