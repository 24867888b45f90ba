"""How a review looks in the FiftyOne App: fields, colours, saved views, what can be edited.

FiftyOne itself is handed in by ``fiftyone_app``, the one file that imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from musicon.datasets.records import Category
from musicon.detect.colours import class_colour, hex_colour
from musicon.detect.review.corrections import REVIEWED

GROUND_TRUTH, PREDICTIONS, CORRECTIONS = "ground_truth", "predictions", "corrections"
LABEL_FIELDS = (GROUND_TRUTH, PREDICTIONS, CORRECTIONS)
STATE = "musicon"
"""Hidden sample field: the image's record and the boxes that the corrections began with."""
PREVIEW = "preview_path"
CONTENT = "attributes.content"
"""What a picture of a style bank was made from (``build_bank.py make``)."""
GUESSED = "guessed_"
"""Fields of what a model says of the whole work begin so: ``guessed_movement``."""
EVALUATION = "eval"
IOU = 0.5
MAX_NAMES = 600
"""Instruments offered when a box is named: with more, the App's list takes seconds to open."""
_HEAT = "heat_"
_TEXT_FIELDS = ("file_name", "split", "domain", "group", "rights", "source_url")
_BOX_TEXTS = ("supercategory", "mimo", "hornbostel_sachs", "origin", "sure_name", "level")
_BOX_NUMBERS = ("detector_score", "classifier_score")


def heat_field(method: str) -> str:
    """The field of a method's heat maps (``tools/explain.py``)."""
    return _HEAT + method.replace("-", "_")


def declare_fields(fo: Any, dataset: Any, attributes: Iterable[str],
                   guessed: Iterable[str] = ()) -> None:
    """Give the data set every field of a review; those that it has are left as they are."""
    for name in sorted(guessed):
        dataset.add_sample_field(f"{GUESSED}{name}", fo.EmbeddedDocumentField,
                                 embedded_doc_type=fo.Classification)
    for name in (*_TEXT_FIELDS, PREVIEW):
        dataset.add_sample_field(name, fo.StringField)
    dataset.add_sample_field("labels", fo.ListField, subfield=fo.StringField)
    dataset.add_sample_field(REVIEWED, fo.BooleanField)
    dataset.add_sample_field(STATE, fo.DictField)
    dataset.add_sample_field("attributes", fo.EmbeddedDocumentField,
                             embedded_doc_type=fo.DynamicEmbeddedDocument)
    for name in sorted(attributes):
        dataset.add_sample_field(f"attributes.{name}", fo.StringField)
    for field in LABEL_FIELDS:
        dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        for name in _BOX_TEXTS:
            dataset.add_sample_field(f"{field}.detections.{name}", fo.StringField)
        for name in _BOX_NUMBERS:
            dataset.add_sample_field(f"{field}.detections.{name}", fo.FloatField)
        dataset.add_sample_field(f"{field}.detections.iscrowd", fo.BooleanField)


def dress(fo: Any, dataset: Any, categories: Sequence[Category], names: Sequence[str]) -> None:
    """Colours, side bar and the fields that can be edited.

    Args:
        fo: The fiftyone module.
        dataset: The review.
        categories: Instruments of the review, offered first as names of boxes.
        names: Further instruments that a box can be named after.
    """
    own = [category.name for category in categories]
    colours = [{"value": name, "color": hex_colour(class_colour(name))} for name in own]
    config = dataset.app_config
    config.color_scheme = fo.ColorScheme(
        color_by="value", color_pool=[hex_colour(class_colour(name)) for name in own]
        or fo.app_config.color_pool,
        fields=[{"path": field, "colorByAttribute": "label", "valueColors": colours}
                for field in LABEL_FIELDS])
    # The Annotate tab offers only fields that are ticked in the side bar.
    has_truth = bool(dataset.count(f"{GROUND_TRUTH}.detections"))
    config.active_fields = fo.ActiveFields(
        paths=list(LABEL_FIELDS) if has_truth else [CORRECTIONS])
    config.sidebar_groups = sidebar(fo, dataset)
    config.media_fields = ["filepath", PREVIEW]
    config.grid_media_field = config.modal_media_field = PREVIEW
    config.media_fallback = True
    dataset.save()
    _open_for_editing(dataset, own + [name for name in names if name not in set(own)])


def sidebar(fo: Any, dataset: Any) -> list[Any]:
    """The groups of fields in the side bar, as far as the data set has them."""
    heats = [name for name in sorted(dataset.get_field_schema()) if name.startswith(_HEAT)]
    work = [path for path in sorted(dataset.get_field_schema(flat=True))
            if path.startswith("attributes.") or (path.startswith(GUESSED) and "." not in path)]
    groups: tuple[tuple[str, list[str], bool], ...] = (
        ("labels", list(LABEL_FIELDS), True), ("heat maps", heats, True), ("tags", [], True),
        ("image", [REVIEWED, "labels", "split", "domain", "source_url", "rights"], True),
        ("attributes", work, True),
        ("evaluation", [f"{EVALUATION}_{outcome}" for outcome in ("tp", "fp", "fn")]
         if EVALUATION in dataset.list_evaluations() else [], True),
        ("file", ["file_name", "group", "filepath", "id", PREVIEW, "created_at",
                  "last_modified_at"], False),
        ("metadata", ["metadata.width", "metadata.height"], False))
    return [fo.SidebarGroupDocument(name=name, paths=paths, expanded=expanded)
            for name, paths, expanded in groups if paths or name == "tags"]


def _open_for_editing(dataset: Any, names: list[str]) -> None:
    """Let the App's Annotate tab edit the corrections and tick 'reviewed', nothing else."""
    notes = [{"name": name, "type": "float", "component": "text", "read_only": True}
             for name in ("confidence", *_BOX_NUMBERS)]
    notes += [{"name": name, "type": "str", "component": "text", "read_only": True}
              for name in _BOX_TEXTS]
    dataset.set_label_schemas({
        CORRECTIONS: {"type": "detections", "component": "dropdown", "classes": names,
                      "attributes": notes},
        REVIEWED: {"type": "bool", "component": "checkbox"},
    })
    dataset.active_label_schemas = [CORRECTIONS, REVIEWED]


def evaluate(dataset: Any, quiet: bool) -> bool:
    """Match predictions with the ground truth at IoU 0.5, whatever the instrument.

    A matched box of the right instrument is a true positive (``eval == "tp"``). A prediction is
    a false positive without ``eval_id`` where nothing is, and with it where the instrument has
    another name; likewise for false negatives.

    Returns:
        False when no image has both ground truth and predictions.
    """
    if EVALUATION in dataset.list_evaluations():
        dataset.delete_evaluation(EVALUATION)
    both = dataset.exists(GROUND_TRUTH).exists(PREDICTIONS)
    if not both.limit(1).count() or not both.count(f"{GROUND_TRUTH}.detections"):
        return False
    both.evaluate_detections(PREDICTIONS, gt_field=GROUND_TRUTH, eval_key=EVALUATION, iou=IOU,
                             classwise=False, compute_mAP=False, progress=not quiet)
    return True


def save_views(fo: Any, dataset: Any, evaluated: bool) -> list[str]:
    """Save the views that make sense here under their names; the person's own are left alone."""
    f = fo.ViewField
    found = f(f"{PREDICTIONS}.detections")
    views: dict[str, tuple[Any, str]] = {}
    confident = dataset.count(f"{PREDICTIONS}.detections.confidence")
    if confident:
        limit = dataset.quantiles(f"{PREDICTIONS}.detections.confidence", 0.25)
        views["uncertain"] = (
            dataset.match(found.filter(f("confidence") <= limit).length() > 0)
            .sort_by(found.map(f("confidence")).min()),
            f"the quarter of the boxes the model is least sure of (up to {limit:.2f}), first the "
            "least sure")
    if evaluated:
        wrong, matched = f(EVALUATION) != "tp", f(f"{EVALUATION}_id") != ""
        truly = f(EVALUATION).exists()
        views["missed"] = (dataset.filter_labels(GROUND_TRUTH, truly & wrong & ~matched),
                           "instruments in the ground truth that the model did not find")
        views["false alarms"] = (dataset.filter_labels(PREDICTIONS, truly & wrong & ~matched),
                                 "boxes of the model where the ground truth has nothing")
        views["label disagreements"] = (dataset.filter_labels(PREDICTIONS, truly & wrong & matched),
                                        "right place, another instrument than the ground truth")
    elif confident and dataset.count("labels"):
        known = f("labels")
        views["label disagreements"] = (
            dataset.exists("labels").match(
                (known.length() > 0) & (found.length() > 0)
                & (found.map(f("label")).intersection(known).length() == 0)),
            "images where the model names none of the instruments that are known to be there")
    nothing = (dataset.exists(PREDICTIONS).match(found.length() == 0)
               if dataset.exists(PREDICTIONS).limit(1).count()
               else dataset.exists(GROUND_TRUTH).match(
                   f(f"{GROUND_TRUTH}.detections").length() == 0))
    views["no instrument"] = nothing, "images without any box"
    if dataset.has_field(CONTENT) and dataset.count(CONTENT):
        views["by content"] = (dataset.exists(CONTENT).group_by(CONTENT),
                               "each content of a style bank once; opened, it shows all its styles")
    done = (f(REVIEWED) == True) | f("tags").contains(REVIEWED)  # noqa: E712 (builds a query)
    views["to review"] = dataset.match(~done), "images that are not marked as reviewed yet"
    views["reviewed"] = dataset.match(done), "images that are marked as reviewed"
    for name, (view, description) in views.items():
        dataset.save_view(name, view, description=description, overwrite=True)
    for name in {"missed", "false alarms", "label disagreements", "uncertain",
                 "by content"} - set(views):
        if dataset.has_saved_view(name):
            dataset.delete_saved_view(name)
    return list(views)
