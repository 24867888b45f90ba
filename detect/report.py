"""One web page that says how good a model is: to a cataloguer in words, to a researcher in tables.

The page is a single file: styles, plots and pictures lie inside it, nothing is fetched.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from musicon.datasets.records import write_atomic
from musicon.detect.calibration import CropMetrics
from musicon.detect.coco_scoring import COCO_KEYS
from musicon.detect.colours import hex_colour
from musicon.detect.evaluation import DetectionMetrics
from musicon.detect.examples import COLOURS, Example, Gallery
from musicon.detect.matching import count

TEMPLATES = Path(__file__).parent / "templates"
COCO_MEANINGS = {
    "AP": "mean over IoU .50 to .95", "AP50": "IoU .50", "AP75": "IoU .75",
    "AP_small": "boxes under 32 × 32 pixels", "AP_medium": "up to 96 × 96",
    "AP_large": "over 96 × 96", "AR1": "best recall with 1 box an image",
    "AR10": "with 10", "AR100": "with 100", "AR_small": "small boxes",
    "AR_medium": "medium boxes", "AR_large": "large boxes",
}


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        metrics: The evaluation.
        facts: Name -> value of what was evaluated: model, data, split, date, ...
        crops: The classifier's figures on true boxes, where a model ran.
        pictures: The same on whole pictures of one instrument that nobody boxed.
        galleries: Pictures.
        plots: Title -> PNG.
        notes: Sentences that a reader must know before trusting a figure.
        threshold_origin: Where the threshold comes from, in words.
    """

    metrics: DetectionMetrics
    facts: Mapping[str, str]
    crops: CropMetrics | None = None
    pictures: CropMetrics | None = None
    galleries: Sequence[Gallery] = ()
    plots: Mapping[str, bytes] = field(default_factory=dict)
    notes: Sequence[str] = ()
    threshold_origin: str = "given"


def write_report(path: str | Path, report: Report) -> None:
    """Write the page, atomically."""
    write_atomic(path, render(report))


def render(report: Report) -> str:
    """The page as text."""
    metrics = report.metrics
    return template("report.html").render(
        report=report, metrics=metrics, cards=cards(metrics), found=metrics.found,
        coco_rows=[(key, COCO_MEANINGS[key], _or_none(metrics.coco[key]),
                    _or_none(metrics.agnostic_coco[key])) for key in COCO_KEYS],
        thresholds=threshold_rows(metrics), coverage=coverage_sentences(metrics),
        colours={kind: hex_colour(colour) for kind, colour in COLOURS.items()},
        caption=caption, classifier=[
            (title, crops) for title, crops in (
                ("crops around a person's boxes", report.crops),
                ("whole pictures of one instrument that nobody boxed", report.pictures))
            if crops is not None and crops.count],
    )


def template(name: str) -> Template:
    """One of the pages, with the filters that they share."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"figure": figure, "percent": percent, "data_uri": data_uri}
    return environment.get_template(name)


@dataclass(frozen=True)
class Card:
    """One figure in plain words: a number, what it says, and the count behind it."""

    value: str
    text: str
    detail: str


def cards(metrics: DetectionMetrics) -> list[Card]:
    """The four figures that matter to somebody who catalogues pictures."""
    found, negatives = metrics.found, metrics.coverage.negatives
    shown = found.hits + found.false_alarms
    return [
        Card(percent(found.recall), "of the instruments are found",
             f"{found.hits:,} of {found.hits + found.misses:,} have a box on them"),
        Card(percent(found.precision), "of the boxes are on an instrument",
             f"{found.hits:,} of {shown:,}; the others are false alarms"),
        Card(percent(metrics.naming_accuracy), "of the found instruments get the right name",
             "among the instruments that the model was taught"),
        Card(figure(metrics.false_alarms_per_negative, 2),
             "false alarms in a picture without instruments",
             f"{percent(metrics.negatives_with_alarm)} of {negatives:,} such pictures show one"
             if negatives else "no such picture in these data"),
    ]


def threshold_rows(metrics: DetectionMetrics) -> list[dict[str, Any]]:
    """What a lower or higher threshold would show and miss."""
    limits = sorted({0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, round(metrics.threshold, 4)})
    negatives = [image for image in metrics.matched if image.is_negative]
    rows = []
    for limit in limits:
        at = metrics.threshold if limit == round(metrics.threshold, 4) else limit
        counts = count(metrics.matched, at)
        alarms = sum(int(image.shown(at).sum()) for image in negatives)
        rows.append({"threshold": at, "counts": counts, "chosen": at == metrics.threshold,
                     "alarms": alarms / len(negatives) if negatives else None})
    return rows


def coverage_sentences(metrics: DetectionMetrics) -> list[str]:
    """What was scored, and everything that could not be."""
    coverage, classes = metrics.coverage, metrics.alignment.to_json()
    out = [f"{coverage.images:,} pictures were scored; {coverage.negatives:,} of them hold no "
           f"instrument. {coverage.boxes:,} instruments were to be found."]
    if coverage.unboxed:
        out.append(f"{coverage.unboxed:,} pictures were left out: they hold instruments that "
                   "nobody has boxed, so that a find can't be told from a false alarm.")
    if coverage.partly_boxed:
        out.append(f"{coverage.partly_boxed:,} pictures hold more kinds of instruments than have a "
                   "box: what is found beside their boxes is neither right nor a false alarm.")
    if coverage.without_prediction:
        out.append(f"For {coverage.without_prediction:,} pictures there is no prediction; they "
                   "count as pictures in which nothing was found.")
    if coverage.not_in_data:
        out.append(f"{coverage.not_in_data:,} predicted pictures are not in the data and were "
                   "not scored.")
    if coverage.crowds:
        out.append(f"{coverage.crowds:,} boxes around groups of instruments are neither to be "
                   "found nor held against the model.")
    if classes["data_only"]:
        out.append(f"The model was never taught {_listed(classes['data_only'])}; their "
                   f"{coverage.data_only_boxes:,} boxes count only as \"any instrument\".")
    if classes["model_only"]:
        out.append(f"The data can't confirm {_listed(classes['model_only'])}; the "
                   f"{coverage.model_only_boxes:,} boxes so named (unlikely ones included) count "
                   "only as \"any instrument\".")
    if classes["renamed"]:
        pairs = [f"{pair['model']} = {pair['data']}" for pair in classes["renamed"]]
        out.append(f"Taken for the same under other names (model = data): {_listed(pairs)}.")
    return out


def _listed(names: Sequence[str], limit: int = 30) -> str:
    names = [name.replace("_", " ") for name in names]
    rest = len(names) - limit
    if rest > 0:
        return ", ".join(names[:limit]) + f" and {rest} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def caption(example: Example) -> dict[str, str]:
    """What a picture is: its file, and the work's own data where the manifest has them."""
    name = PurePosixPath(example.record.file_name).stem.replace("_", " · ").replace("-", " ")
    facts = [example.record.attributes[key] for key in ("painter", "movement", "medium")
             if key in example.record.attributes]
    return {"name": name, "facts": ", ".join(facts), "file": example.record.file_name}


def percent(value: float | None) -> str:
    """A share as a whole percentage; a dash where there is none."""
    return "–" if value is None else f"{value:.0%}"


def figure(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def data_uri(data: bytes, kind: str) -> Markup:
    """A picture as an address that holds it."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}")


def _or_none(value: float) -> float | None:
    """COCO's -1 means that there was nothing to measure."""
    return None if value < 0 else value
