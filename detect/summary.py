"""What a person is told after an inference, and the review that the results go into."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from musicon.datasets.command import counted, explain_os_error
from musicon.datasets.images import existing_folder
from musicon.datasets.records import Manifest, UserError
from musicon.detect.checkpoints import model_folder, read_lineage
from musicon.detect.outputs import (
    ANNOTATED,
    ATTRIBUTE_SCORES,
    DETECTIONS_NAME,
    REJECTS_NAME,
    TABLE_NAME,
    Counts,
)

MAX_NAME = 60


@dataclass(frozen=True)
class InferenceSummary:
    """What was done.

    Attributes:
        counts: What the files hold, earlier runs' share included.
        searched: Files that this run decoded and put through the model.
        seconds: Time that took.
        resumed: Files finished by an earlier run.
        left_out: Pictures of earlier results that lay among the images.
        started_anew: Why earlier results were not used, if there were any.
        replaced: Folder of the images that earlier results here were of, where it was another.
        foreign: Pictures beside the results that were not drawn for them.
        out: The results' folder.
        annotated: Whether pictures were drawn.
    """

    counts: Counts
    searched: int
    seconds: float
    resumed: int
    left_out: int
    started_anew: str | None
    replaced: str | None
    foreign: int
    out: Path
    annotated: bool

    @property
    def images_per_second(self) -> float:
        """Speed of this run, decoding, drawing and writing included."""
        return self.searched / self.seconds if self.seconds > 0 else 0.0


def doubts(model: Path) -> list[str]:
    """What the user should know of a model before believing it."""
    if read_lineage(model_folder(model)).get("source") == "atelier":
        return ["note: this model has learnt from drawn sample pictures only; what it says of real "
                "art means nothing. Train one on real pictures: README.md, \"Training on real "
                "collections\""]
    return []


def lines(summary: InferenceSummary) -> list[str]:
    """The summary for the terminal: what was found, how fast, where it is."""
    counts, out = summary.counts, summary.out
    text = []
    if summary.left_out:
        text.append("not searched, as an earlier run drew them: "
                    + counted(summary.left_out, "picture"))
    if summary.started_anew:
        text.append(f"the results here were made with {summary.started_anew}: started anew")
    if summary.replaced:
        text.append(f"the results here were of the images in {summary.replaced}: replaced")
    if summary.resumed:
        text.append(f"kept from an earlier run: {counted(summary.resumed, 'file')}")
    text.append(f"{counted(counts.images, 'image')}, {counts.found:,} with instruments, "
                + counted(sum(counts.boxes.values()), "box", "boxes"))
    width = max([len(name) for name in counts.boxes], default=0)
    text += [f"  {name.ljust(width)}  {n:,}" for name, n in counts.boxes.most_common()]
    text += answer_lines(out) if counts.images == 1 else [
        f"{name}: " + ", ".join(f"{answer} {n:,}" for answer, n in answers.most_common(8))
        for name, answers in counts.attributes.items()]
    if summary.searched:
        speed = summary.images_per_second
        text.append(f"{speed:.1f} images/s" if speed >= 0.1 else f"{1 / speed:,.0f} s an image")
    if counts.rejected:
        text.append(f"{counted(counts.rejected, 'file')} could not be read:")
        text += [f"  {n:,} x {reason}" for reason, n in counts.reasons.most_common(5)]
    text.append(f"boxes:    {out / DETECTIONS_NAME}, {out / TABLE_NAME}")
    if summary.annotated:
        text.append(f"pictures: {out / ANNOTATED}")
    if summary.foreign:
        text.append(f"not of these results: {counted(summary.foreign, 'picture')} in "
                    f"{out / ANNOTATED}, from an earlier run")
    if counts.rejected:
        text.append(f"rejects:  {out / REJECTS_NAME}")
    return text


def hint(threshold: float) -> str:
    """What to type where too few boxes are shown at a model's own threshold."""
    return (f"shown: boxes of {threshold:.0%} and more; --threshold {threshold / 3:.2f} finds "
            "more, and more that is none")


def answer_lines(out: Path) -> list[str]:
    """The likeliest answers for the one image of the results, an attribute a line."""
    record = Manifest.read(out / DETECTIONS_NAME).images[0]
    return [f"{name}: {record.attributes[name]} (" + ", ".join(
                f"{answer} {share:.0%}" for answer, share in scores.items()) + ")"
            for name, scores in record.extra.get(ATTRIBUTE_SCORES, {}).items()]


def results_name(images: Sequence[str], name: str | None = None) -> str:
    """What results are called where nobody says: after the folder of the images."""
    if name is None:
        name = os.path.basename(os.path.abspath(existing_folder(images[0])))
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:MAX_NAME] or "images"


def load_review(out: Path, name: str | None, quiet: bool) -> str:
    """Load the results into FiftyOne; where that cannot be, say how to get the review later.

    Returns:
        One line for the terminal.
    """
    file = out / DETECTIONS_NAME
    again = f"python tools/review.py --predictions {file}"
    try:
        from musicon.detect.review.fiftyone_app import dataset_name, load_dataset
        from musicon.detect.review.session import database_watched

        with database_watched():
            chosen = name or dataset_name(file)
            load_dataset(chosen, predictions=Manifest.read(file), quiet=quiet)
    except (ImportError, UserError, OSError) as error:
        told = explain_os_error(error) if isinstance(error, OSError) else str(error)
        sentence = " ".join(told.split())
        return f"review:   not loaded ({sentence}); the results are complete; later: {again}"
    return f"review:   {again} --name {chosen}"
