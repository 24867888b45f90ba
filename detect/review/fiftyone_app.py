"""The review in FiftyOne: look at ground truth and predictions, correct them, take them back.

The only file that imports FiftyOne, and only when it is used. Nothing is sent anywhere: usage
tracking is off and the App listens on this machine alone. The database keeps absolute paths;
what is exported does not.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from musicon.datasets.boxes import relative_xywh_to_xyxy, xyxy_to_relative_xywh
from musicon.datasets.records import Box, Category, ImageRecord, Manifest, Rejects, UserError
from musicon.datasets.taxonomy import Taxonomy
from musicon.detect.outputs import OPINIONS
from musicon.detect.review import fiftyone_look as look
from musicon.detect.review.corrections import REVIEWED, ImageState, ReviewBox, StartBox, settle
from musicon.detect.review.entries import Entry, pair
from musicon.detect.review.mongod import URI_VARIABLE, database_state
from musicon.detect.review.previews import make_previews

ADDRESS = "127.0.0.1"
PORT = 5151
PREFIX = "musicon-"
"""Names of reviews start so, as the database may hold other data sets."""
_PING_MS = 3000
_SHOWN = (look.GROUND_TRUTH, look.PREDICTIONS)


class ReviewUnavailable(UserError):
    """FiftyOne or its database cannot start; the message says how to get it."""


class ReviewError(UserError):
    """A review that cannot be made, opened or exported as asked; the message says what to do."""


def connect() -> Any:
    """The fiftyone module, with its database open.

    Raises:
        ReviewUnavailable: FiftyOne is not installed, has no database program, or the database
            that FIFTYONE_DATABASE_URI (or FiftyOne's own settings) names does not answer.
    """
    os.environ["FIFTYONE_DO_NOT_TRACK"] = "1"
    # mongod 6.0 is "the oldest supported version", which FiftyOne would say at every start.
    os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
    os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "WARNING")
    state = database_state()
    if not state.usable:
        raise ReviewUnavailable(state.message)
    if os.environ.get(URI_VARIABLE):
        _ping(os.environ[URI_VARIABLE])
    try:
        import fiftyone
        from fiftyone.core.config import FiftyOneConfigError
        from fiftyone.core.service import ServiceException
        from pymongo.errors import PyMongoError
    except ImportError as error:
        raise ReviewUnavailable(f"FiftyOne cannot be loaded ({error}); type: make env") from None
    if fiftyone.config.database_uri and not os.environ.get(URI_VARIABLE):
        _ping(fiftyone.config.database_uri)
    try:
        fiftyone.list_datasets()
    except (FiftyOneConfigError, ServiceException, PyMongoError, OSError, RuntimeError) as error:
        raise ReviewUnavailable(
            f"FiftyOne's database does not start ({' '.join(str(error).split())[:300]}); see "
            f"log/mongo.log in {fiftyone.config.database_dir}, or set {URI_VARIABLE} to a MongoDB "
            "server of yours") from None
    return fiftyone


def _ping(uri: str) -> None:
    """Ask the database for a sign of life; FiftyOne itself would wait half a minute for one."""
    try:
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError
    except ImportError:
        return  # FiftyOne is not installed, as connect() will say
    try:
        client: MongoClient[dict[str, Any]] = MongoClient(uri, serverSelectionTimeoutMS=_PING_MS)
        with client:
            client.admin.command("ping")
    except (PyMongoError, ValueError) as error:
        # Of every server and timeout that it lists, the first complaint says it all.
        why = str(error).split(",")[0].split(" (configured")[0]
        raise ReviewUnavailable(
            f"the MongoDB server that {URI_VARIABLE} names does not answer ({why}); start it, or "
            f"unset {URI_VARIABLE} to use FiftyOne's own") from None


def load_dataset(name: str, ground_truth: Manifest | None = None,
                 predictions: Manifest | None = None, *, overwrite: bool = False,
                 rejects: Rejects | None = None, quiet: bool = True) -> Any:
    """Make or update the FiftyOne data set of a review.

    Loading again under the same name updates it in place: images that a person has worked on
    keep their corrections and tags (and their predictions, where those carry tags), all others
    take what is new.

    Args:
        name: Name of the data set; see ``dataset_name``.
        ground_truth: The data set that was labelled.
        predictions: What the model found, as ``infer.py`` writes it.
        overwrite: Throw away an earlier review of that name, corrections and all.
        rejects: Gets the images whose files are missing.
        quiet: No progress bars.

    Returns:
        The persistent ``fiftyone.Dataset``; ``info["musicon"]`` counts what was added, updated,
        kept and removed.

    Raises:
        ReviewUnavailable: FiftyOne or its database cannot start.
        ReviewError: Nothing to show, or a data set of that name that is not a review of ours.
    """
    rejects = Rejects() if rejects is None else rejects
    entries, categories = pair(ground_truth, predictions, rejects)
    if not entries:
        raise ReviewError(f"nothing to review: {len(rejects)} images are listed and none is there; "
                          "check that the images lie where the manifest says")
    fo = connect()
    quiet = quiet or not sys.stderr.isatty()
    fo.config.show_progress_bars = not quiet
    dataset = _open_or_create(fo, name, overwrite)
    attributes = {_key(key) for entry in entries for key in entry.record.attributes}
    look.declare_fields(fo, dataset, attributes,
                        {_key(key) for entry in entries for key in entry.guessed})
    previews = make_previews(((entry.path, entry.record.width, entry.record.height)
                              for entry in entries),
                             Path(fo.config.default_dataset_dir) / "musicon-previews", quiet=quiet)
    counts = _update(fo, dataset, entries, {c.id: c for c in categories}, previews, quiet)
    evaluated = look.evaluate(dataset, quiet)
    look.dress(fo, dataset, categories, _instrument_names(max(0, look.MAX_NAMES - len(categories))))
    views = look.save_views(fo, dataset, evaluated)
    rows = Manifest(Path(), tuple(categories), ()).to_coco()["categories"]
    dataset.info["musicon"] = {"categories": rows, "counts": counts, "evaluated": evaluated,
                               "views": views}
    dataset.save()
    return dataset


def dataset_name(*sources: Path | None) -> str:
    """A name for the review of these files: that of the first one's folder.

    ``results/detections.json`` is called after the folder above where its own says nothing.
    """
    for source in sources:
        if source is not None:
            resolved = source.resolve()
            folder = resolved.parent if resolved.suffix == ".json" else resolved
            name = re.sub(r"[^\w.-]+", "-", folder.name).strip("-.")
            if name:
                return f"{PREFIX}{name}"
    return f"{PREFIX}review"


def _open_or_create(fo: Any, name: str, overwrite: bool) -> Any:
    if not fo.dataset_exists(name):
        try:
            dataset = fo.Dataset(name, persistent=True)
        except ValueError as error:
            raise ReviewError(f"{name!r} cannot be the name of a review ({error}); "
                              "give another with --name") from None
        dataset.info["musicon"] = {}  # at once: an interrupted load can be repeated
        dataset.save()
        return dataset
    dataset = fo.load_dataset(name)
    if "musicon" not in (dataset.info or {}) and len(dataset):
        raise ReviewError(f"FiftyOne has a data set {name!r} that is not a review of musicon; "
                          "give another name with --name")
    if overwrite:
        dataset.clear()
    return dataset


def _update(fo: Any, dataset: Any, entries: Sequence[Entry], categories: Mapping[int, Category],
            previews: Mapping[Path, Path], quiet: bool) -> dict[str, int]:
    """Bring the samples up to date; what a person has done stays."""
    existing = dict(zip(*dataset.values(["filepath", "id"]), strict=True)) if len(dataset) else {}
    touched: dict[str, bool] = {}
    if existing:
        for sample_id, state in read_states(dataset):
            settled = settle(state)
            if settled.touched:
                touched[sample_id] = any(box.tags for box in state.shown)
    wanted = {str(entry.path) for entry in entries}
    gone = [i for path, i in existing.items() if path not in wanted and i not in touched]
    if gone:
        dataset.delete_samples(gone)
    new: list[tuple[Entry, dict[str, Any]]] = []
    columns: dict[str, dict[str, Any]] = {}
    for entry in entries:
        values = _values(fo, entry, categories, previews.get(entry.path))
        if str(entry.path) not in existing:
            new.append((entry, values))
            continue
        sample_id = existing[str(entry.path)]
        keep = {look.CORRECTIONS, look.STATE, REVIEWED} if sample_id in touched else {REVIEWED}
        keep |= set(_SHOWN) if touched.get(sample_id) else set()
        for field, value in values.items():
            if field not in keep:
                columns.setdefault(field, {})[sample_id] = value
    for field, column in columns.items():
        dataset.set_values(field, column, key_field="id", validate=False, expand_schema=False)
    if new:
        samples = (fo.Sample(filepath=str(entry.path), **values) for entry, values in new)
        dataset.add_samples(samples, expand_schema=False, validate=False, num_samples=len(new),
                            progress=not quiet)
    return {"images": len(dataset), "added": len(new), "updated": len(entries) - len(new),
            "kept": len(touched), "removed": len(gone)}


def _values(fo: Any, entry: Entry, categories: Mapping[int, Category],
            preview: Path | None) -> dict[str, Any]:
    """The fields of one sample."""
    record = entry.record

    def labels(boxes: Sequence[Box] | None) -> Any:
        return None if boxes is None else fo.Detections(
            detections=[_detection(fo, box, record, categories[box.label]) for box in boxes])

    shown = {look.GROUND_TRUTH: labels(entry.truth), look.PREDICTIONS: labels(entry.predicted)}
    corrections = labels(entry.start)
    source = shown[look.GROUND_TRUTH] if entry.truth is not None else shown[look.PREDICTIONS]
    copied_from = source.detections if source else ()
    start = {now.id: _start_row(box, now.label, original.id) for now, box, original
             in zip(corrections.detections, entry.start, copied_from, strict=True)}
    # Text, as the keys of attributes and extras may be none that the database allows.
    row = Manifest(Path(), (), (replace(record, labels=()),)).to_coco()["images"][0]
    state = {"image": row, "start": start}
    names = None if record.labels is None else [categories[i].name for i in record.labels]
    return {
        **shown, look.CORRECTIONS: corrections, look.STATE: {"json": json.dumps(state)},
        "metadata": fo.ImageMetadata(width=record.width, height=record.height),
        look.PREVIEW: None if preview is None else str(preview), REVIEWED: False,
        "file_name": record.file_name, "labels": names, "split": record.split,
        "domain": record.domain, "group": record.group, "rights": record.rights,
        "source_url": record.source_url,
        "attributes": fo.DynamicEmbeddedDocument(
            **{_key(key): str(value) for key, value in record.attributes.items()}),
        # The confidence is the likeliest class's, also where the answer is "uncertain".
        **{f"{look.GUESSED}{_key(key)}": fo.Classification(
            label=answer, confidence=max(scores.values(), default=None))
           for key, (answer, scores) in entry.guessed.items()},
    }


def _detection(fo: Any, box: Box, record: ImageRecord, category: Category) -> Any:
    known = {"supercategory": category.supercategory, "mimo": category.mimo,
             "hornbostel_sachs": category.hornbostel_sachs, "origin": box.origin,
             "iscrowd": box.iscrowd or None, "confidence": box.score,
             **{name: box.extra.get(name) for name in OPINIONS}}
    place = xyxy_to_relative_xywh(box.xyxy, record.width, record.height)
    return fo.Detection(label=category.name, bounding_box=list(place),
                        **{name: value for name, value in known.items() if value is not None})


def _start_row(box: Box, name: str, source_id: str) -> dict[str, Any]:
    return {"name": name, "xyxy": list(box.xyxy), "origin": box.origin, "score": box.score,
            "iscrowd": box.iscrowd, "extra": dict(box.extra), "source": source_id}


def read_states(dataset: Any) -> Iterator[tuple[str, ImageState]]:
    """Each sample's id, and the image as the person left it.

    Samples that came into the data set by other means are not ours and are passed over.
    """
    ids, paths, tags, reviewed, states = dataset.values(["id", "filepath", "tags", REVIEWED,
                                                         look.STATE])
    boxes = {field: _columns(dataset, field) for field in look.LABEL_FIELDS}
    ours = [i for i, state in enumerate(states) if state]
    loaded = {i: json.loads(states[i]["json"]) for i in ours}
    records = Manifest.from_coco({"images": [loaded[i]["image"] for i in ours]}, Path(),
                                 "the review").images
    for i, record in zip(ours, records, strict=True):
        start = {key: _start_box(row) for key, row in loaded[i]["start"].items()}
        now, *shown = (_review_boxes(boxes[field], i, record)
                       for field in (look.CORRECTIONS, *_SHOWN))
        yield ids[i], ImageState(Path(paths[i]), record, start, now, shown[0] + shown[1],
                                 bool(reviewed[i]) or REVIEWED in (tags[i] or ()))


def _columns(dataset: Any, field: str) -> list[list[Any]]:
    """For each sample, ids, labels, places and tags of a field's boxes."""
    return dataset.values([f"{field}.detections.{part}"
                           for part in ("id", "label", "bounding_box", "tags")])


def _review_boxes(columns: list[list[Any]], i: int, record: ImageRecord) -> tuple[ReviewBox, ...]:
    rows = zip(*(column[i] or () for column in columns), strict=True)
    return tuple(
        ReviewBox(key, name, relative_xywh_to_xyxy(place, record.width, record.height),
                  frozenset(tags or ()))
        for key, name, place, tags in rows if place)


def _start_box(row: Mapping[str, Any]) -> StartBox:
    x0, y0, x1, y1 = row["xyxy"]
    box = Box((x0, y0, x1, y1), label=0, origin=row["origin"], score=row["score"],
              iscrowd=row["iscrowd"], extra=row["extra"])
    return StartBox(box, row["name"], row["source"])


def list_reviews() -> list[tuple[str, int, Any]]:
    """Name, number of images and time of the last change of each review, newest first."""
    fo = connect()
    reviews = []
    for name in fo.list_datasets(info=True):
        dataset = fo.load_dataset(name["name"])
        if "musicon" in (dataset.info or {}):
            reviews.append((dataset.name, len(dataset), dataset.last_modified_at))
    return sorted(reviews, key=lambda row: row[2], reverse=True)


def open_dataset(name: str) -> Any:
    """A review that was made before, by its whole name or without ``musicon-``.

    Raises:
        ReviewUnavailable: FiftyOne or its database cannot start.
        ReviewError: There is none of that name; the message lists those that exist.
    """
    fo = connect()
    for known in (name, f"{PREFIX}{name}"):
        if fo.dataset_exists(known):
            dataset = fo.load_dataset(known)
            if "musicon" in (dataset.info or {}):
                return dataset
    there = ", ".join(row[0] for row in list_reviews()) or "none yet"
    raise ReviewError(f"there is no review named {name!r}; there are: {there}")


def categories_of(dataset: Any) -> tuple[Category, ...]:
    """The instruments of a review."""
    rows = dataset.info["musicon"]["categories"]
    return Manifest.from_coco({"images": [], "categories": rows}, Path(), "the review").categories


def launch(dataset: Any, port: int = PORT, browser: bool = True) -> None:
    """Open the App on this machine and wait until Ctrl-C.

    Raises:
        ReviewError: The port is taken, or no port.
    """
    fo = connect()
    with socket.socket() as probe:
        # As servers do: a port that was left a moment ago counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OverflowError:
            raise ReviewError(f"port {port}: ports go from 1 to 65535; give one such as "
                              f"--port {PORT}") from None
        except OSError:
            raise ReviewError(f"port {port} is taken, perhaps by another review that is open; "
                              f"close that, or give another with --port") from None
    # It warns of settings that its own App sends back; a person could do nothing about them.
    logging.getLogger("fiftyone").setLevel(logging.ERROR)
    session = fo.launch_app(dataset, port=port, address=ADDRESS, remote=True)
    url = f"http://{ADDRESS}:{port}/datasets/{dataset.name}"
    print(f"the review is open at {url} (Ctrl-C ends it; what you did is kept)")
    if browser:
        import webbrowser

        webbrowser.open(url)
    try:
        session.wait(-1)
    except KeyboardInterrupt:
        print("\nclosed; take your corrections out with: python tools/review.py "
              f"--name {dataset.name} --export FOLDER", file=sys.stderr)
    finally:
        session.close()


def _instrument_names(limit: int) -> list[str]:
    """Instruments of the taxonomy: a painting can hold what the model was never taught.

    Those with names in most languages come first where there are more than ``limit``.
    """
    known = sorted(Taxonomy.load().instruments, reverse=True, key=lambda instrument: (
        len(instrument.names), sum(map(len, instrument.names.values()))))
    return sorted((instrument.name for instrument in known[:limit]), key=str.casefold)


def _key(name: str) -> str:
    """An attribute's name as the database allows it: letters, digits, underscores."""
    return re.sub(r"\W", "_", name).strip("_").lower() or "other"
