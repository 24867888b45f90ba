"""Cytomine: a project's pictures and what its users drew on them, through its own client.

    export CYTOMINE_PUBLIC_KEY=... CYTOMINE_PRIVATE_KEY=...
    python tools/prepare_data.py cytomine HOST PROJECT --out data/cytomine

HOST is the server's address, PROJECT the number or name of a project. Pictures are kept between
runs; boxes, terms and reviews are asked for anew, so that what was changed or deleted there is so
here. The keys come from the environment (or the passwords of HOST-public and HOST-private in
~/.netrc) and are never printed. The client is an extra: pip install 'musicon[cytomine]'.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from musicon.datasets import command
from musicon.datasets.addresses import find_key
from musicon.datasets.boxes import Xyxy, iou, wkt_to_xyxy
from musicon.datasets.fetching import store_folder
from musicon.datasets.images import ImageError, probe
from musicon.datasets.records import ImageRecord, Rejects
from musicon.datasets.sources import boxed
from musicon.datasets.sources.base import SourceData, SourceError
from musicon.datasets.sources.boxed import RawBox, RawImage

TRIES = 4
PATIENCE = 1.0
"""Seconds before the second try; each further one waits twice as long."""
REFUSED = (401, 403)
"""HTTP statuses of what the account may not have."""
SAME_BOX = 0.8
"""IoU from which two users' boxes of one term are one instrument."""
SEEN = 0.5
"""Share of a box that must lie in a window; less of it is a crowd: neither learnt nor scored."""


class RefusedError(SourceError):
    """The account may not have what was asked for; asking again changes nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source's options."""
    parser.add_argument("host", help="the server's address: https://cytomine.example.org")
    parser.add_argument("project", help="number or name of the project")
    parser.add_argument("--size", type=command.count, default=2048, metavar="PIXELS",
                        help="longer side of the pictures, boxes scaled alike (default 2048)")
    parser.add_argument("--original", action="store_true", help="the files as they were uploaded")
    parser.add_argument("--window", type=command.count, metavar="PIXELS",
                        help="cut pictures that are longer into windows so many pixels wide and "
                             "high, each fetched at no more than --size")
    parser.add_argument("--users", nargs="+", default=[], metavar="NAME",
                        help="only what these users drew")
    parser.add_argument("--reviews", choices=("prefer", "only", "ignore"), default="prefer",
                        help="reviewed outlines take the place of what they review (default), or "
                             "they alone count, or they are passed over")
    parser.add_argument("--store", type=Path, metavar="FOLDER",
                        help="where pictures are kept between runs (default: OUT-store)")
    boxed.add_arguments(parser, unannotated=True)


def read(options: argparse.Namespace, rejects: Rejects) -> SourceData:
    """Pictures and boxes of a project.

    Raises:
        SourceError: The server, the project or a user cannot be found or may not be read.
        ImportError: The client is missing; the message names what to install.
    """
    with connect(options.host):
        project = find_project(options.project)
        terms = {term.id: term.name for term in fetch(_models().TermCollection, project)}
        images = fetch(_models().ImageInstanceCollection, project)
        drawn = _drawn(project, options)
        outlines = _outlines(drawn, {image.id: image for image in images}, terms, rejects)
        store = store_folder(options) / "cytomine" / str(project.id)
        shown = command.progress(images, len(images), "fetching pictures",
                                 getattr(options, "quiet", True))
        raw = [made for image in shown for made in _pictures(
            image, outlines.get(image.id, _Outlines()), store, options, rejects)]
    if not raw:
        why = "; {}: {}".format(*rejects.rows[-1]) if rejects.rows else ""
        raise SourceError(f"{options.project}: the project has no picture that can be used{why}")
    merged = sum(found.merged for found in outlines.values())
    notes = [f"{command.counted(merged, 'box', 'boxes')} drawn twice by different users counted "
             "once"] if merged else []
    silent = sum(image.label_names is None for image in raw)
    used = sorted({box.name for image in raw for box in image.boxes}
                  | {name for image in raw for name in image.label_names or ()})
    return boxed.build(raw, used, options, rejects,
                       info={"layout": "cytomine", "project": project.id,
                             "host": urlsplit(address(options.host)).netloc},
                       notes=[*notes, *boxed.silent_note(silent, options.unannotated,
                                                         "without an outline")])


def _models() -> Any:
    """The client's classes, imported when they are used."""
    try:
        import cytomine.models
    except ImportError:
        raise ImportError("reading Cytomine needs its client: pip install 'musicon[cytomine]' "
                          "(it pins versions of its own: best in an environment of its own)"
                          ) from None
    return cytomine.models


def address(host: str) -> str:
    """The server's address with its scheme; https unless another is written."""
    return (host if "://" in host else f"https://{host}").rstrip("/")


def connect(host: str) -> Any:
    """A connected client, to be used in ``with``.

    Raises:
        SourceError: No such server, or keys that it does not know.
        UserError: No keys.
        ImportError: No client.
    """
    _models()
    import requests
    from cytomine import Cytomine

    url = address(host)
    name = urlsplit(url).hostname or host
    advice = "Your account page on the server shows both keys"
    public = find_key("CYTOMINE_PUBLIC_KEY", f"{name}-public", advice)
    private = find_key("CYTOMINE_PRIVATE_KEY", f"{name}-private", advice)
    try:  # the client itself would wait two minutes for a sign of life
        requests.get(f"{url}/server/ping", timeout=20).raise_for_status()
        # Its messages at DEBUG level would hold the signed headers.
        client = Cytomine(url, public, private, verbose=logging.CRITICAL, use_cache=False,
                          configure_logging=False)
    except requests.RequestException as error:
        raise SourceError(f"{url}: no Cytomine server answers there ({type(error).__name__}); "
                          "check the address") from None
    if not client.current_user or getattr(client.current_user, "username", None) is None:
        raise SourceError(f"{url}: the server does not know these keys; set "
                          "CYTOMINE_PUBLIC_KEY and CYTOMINE_PRIVATE_KEY to those of your account")
    client._session.hooks["response"].append(_check_right)
    return client


def _check_right(answer: Any, *_: Any, **__: Any) -> None:
    """Look at each answer of the server; the client itself says only that something failed."""
    if answer.status_code in REFUSED:
        answer.close()
        words = f"HTTP {answer.status_code} {answer.reason or ''}".strip()
        raise RefusedError(f"the server refuses this to your account ({words}); ask the project's "
                           "manager for the right to it, then run the same command again")


def attempt(what: Callable[[], Any], tries: int = TRIES) -> Any:
    """The result of a request; asked for again, ever later, where it failed but was not refused.

    Args:
        what: Asks; False means that it failed, as the client has it.
        tries: 1 for what must not be done twice.

    Raises:
        SourceError: It failed each time.
        RefusedError: The account may not have it.
    """
    import requests
    from cytomine.models._utilities.dump import DumpError

    for number in range(tries):
        try:
            found = what()
            if found is not False:
                return found
        except (requests.RequestException, DumpError, OSError):
            pass
        if number + 1 < tries:
            time.sleep(PATIENCE * 2 ** number)
    raise SourceError(f"the server refused or failed {command.counted(tries, 'time')}; your "
                      "account may lack the right to this, or the server is busy: run the same "
                      "command again")


def fetch(kind: Any, project: Any) -> list[Any]:
    """All of one kind that a project has: terms, images, users."""
    return list(attempt(lambda: kind().fetch_with_filter("project", project.id)))


def find_project(wanted: str) -> Any:
    """The project of that number or name.

    Raises:
        SourceError: None or several; the message lists what there is.
    """
    projects = list(attempt(lambda: _models().ProjectCollection().fetch()))
    found = [p for p in projects if str(p.id) == wanted] or \
        [p for p in projects if p.name.casefold() == wanted.casefold()]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{p.id} {p.name}" for p in (found or projects)[:10]) or "none"
    what = "several projects have that name" if found else "no such project for your account"
    raise SourceError(f"{wanted!r}: {what}; there are: {shown}")


def _drawn(project: Any, options: argparse.Namespace) -> list[Any]:
    """The annotations that count, reviews in place of what they review."""
    asked: dict[str, Any] = {"project": project.id, "showWKT": True, "showTerm": True,
                             "showUser": True}
    if options.users:
        known = {name.casefold(): user.id for user in fetch(_models().UserCollection, project)
                 for name in (str(user.id), user.username or "")}
        unknown = [name for name in options.users if name.casefold() not in known]
        if unknown:
            raise SourceError(f"--users {unknown[0]}: not a user of the project; there are: "
                              f"{', '.join(sorted(n for n in known if not n.isdigit()))}")
        asked["users"] = [known[name.casefold()] for name in options.users]

    def ask(**more: Any) -> list[Any]:
        return list(attempt(lambda: _models().AnnotationCollection(**asked, **more).fetch()))

    reviewed = ask(reviewed=True) if options.reviews != "ignore" else []
    if options.reviews == "only":
        return reviewed
    replaced = {getattr(annotation, "parentIdent", None) for annotation in reviewed}
    return [*reviewed, *(a for a in ask() if a.id not in replaced)]


@dataclass(frozen=True)
class _Outlines:
    """What was drawn on one picture, in pixels of the server's full size, y pointing down."""

    boxes: tuple[RawBox, ...] = ()
    spoilt: bool = False
    merged: int = 0


def _outlines(drawn: Sequence[Any], images: Mapping[int, Any], terms: Mapping[int, str],
              rejects: Rejects) -> dict[int, _Outlines]:
    boxes: dict[int, list[RawBox]] = defaultdict(list)
    spoilt: set[int] = set()
    merged: Counter[int] = Counter()
    for annotation in sorted(drawn, key=lambda a: a.id):
        image = images.get(annotation.image)
        if image is None:
            continue  # of an image that was taken out of the project
        try:
            box = _box(annotation, float(image.height), terms)
        except ValueError as error:
            rejects.add(_name(image), f"annotation {annotation.id} left out: {error}")
            spoilt.add(image.id)
            continue
        if any(box.name == other.name and iou(box.xyxy, other.xyxy)[0, 0] >= SAME_BOX
               and box.extra["user"] != other.extra["user"] for other in boxes[image.id]):
            merged[image.id] += 1
        else:
            boxes[image.id].append(box)
    return {number: _Outlines(tuple(boxes[number]), number in spoilt, merged[number])
            for number in boxes.keys() | spoilt}


def _box(annotation: Any, height: float, terms: Mapping[int, str]) -> RawBox:
    xyxy = wkt_to_xyxy(annotation.location or "", height)
    if xyxy[2] <= xyxy[0] or xyxy[3] <= xyxy[1]:
        kind = (annotation.location or "").split("(")[0].strip() or "outline"
        raise ValueError(f"a {kind} without width or height is no box")
    votes = Counter(dict.fromkeys(annotation.term or (), 0))
    for row in getattr(annotation, "userByTerm", None) or ():
        votes[row["term"]] += len(row.get("user", ()))
    named = [term for term, _ in sorted(votes.items(), key=lambda item: (-item[1], item[0]))
             if term in terms]
    if not named:
        raise ValueError("it has no term; choose one in Cytomine")
    extra: dict[str, Any] = {"cytomine_annotation": annotation.id, "user": annotation.user}
    if len(named) > 1:
        extra["other_terms"] = [terms[term] for term in named[1:]]
    return RawBox(terms[named[0]], xyxy, extra=extra)


def _name(image: Any) -> str:
    return str(image.instanceFilename or image.originalFilename or image.id)


def _pictures(image: Any, drawn: _Outlines, store: Path, options: argparse.Namespace,
              rejects: Rejects) -> Iterator[RawImage]:
    """The whole picture, or its windows, with the boxes in their pixels."""
    width, height = int(image.width), int(image.height)
    refused: RefusedError | None = None
    for part in _parts(width, height, options.window):
        path, whole = store / _file_name(image, part, options), part == (0, 0, width, height)
        try:
            if not path.exists():
                if refused is not None:  # so will be the other windows
                    raise refused
                attempt(partial(_download, image, part, path, options))
            info = probe(path)
        except (SourceError, ImageError) as error:
            refused = error if isinstance(error, RefusedError) else refused
            which = "" if whole else "window from {}, {} to {}, {}: ".format(*part)
            advice = ", or leave --original out" if refused and whole and options.original else ""
            rejects.add(_name(image), which + getattr(error, "reason", str(error)) + advice)
            continue
        boxes, touched = _inside(drawn.boxes, part)
        wide, high = info.width, info.height
        if whole and options.original:
            wide, high = width, height  # prepare turns what the file's orientation turns
        scale = (wide / (part[2] - part[0]), high / (part[3] - part[1]))
        record = ImageRecord(
            0, path.name, wide, high, group=f"cytomine {image.id}",
            source_url=f"{address(options.host)}/#/project/{image.project}/image/{image.id}",
            extra={"cytomine": {"image": image.id, "part": list(part), "height": height}})
        labels: tuple[str, ...] | None = tuple(sorted({box.name for box in touched}))
        if drawn.spoilt and not labels:
            labels = None
        if not drawn.boxes and not drawn.spoilt and not getattr(image, "reviewed", False):
            silent = boxed.unannotated(path, record, "an annotation", options.unannotated, rejects)
            if silent is not None:
                yield silent
            continue
        yield RawImage(path, record, tuple(replace(box, xyxy=_scaled(box.xyxy, part, scale))
                                           for box in boxes), labels)


def _parts(width: int, height: int, window: int | None) -> list[tuple[int, int, int, int]]:
    """The whole, or windows that cover it evenly and overlap by an eighth or more."""
    if window is None or max(width, height) <= window:
        return [(0, 0, width, height)]

    def starts(length: int) -> list[int]:
        if length <= window:
            return [0]
        count = -(-(length - window) // (window - window // 8)) + 1
        return [round(i * (length - window) / (count - 1)) for i in range(count)]

    return [(x, y, min(x + window, width), min(y + window, height))
            for y in starts(height) for x in starts(width)]


def _file_name(image: Any, part: tuple[int, int, int, int], options: argparse.Namespace) -> str:
    stem = "".join(c if c.isalnum() or c in "-_. " else "_" for c in Path(_name(image)).stem)
    if part != (0, 0, int(image.width), int(image.height)):
        x0, y0, x1, y1 = part
        return f"{image.id}_{stem[:80]}_{x0}-{y0}-{x1 - x0}-{y1 - y0}_{options.size}.jpg"
    if options.original:
        return f"{image.id}_{stem[:80]}{Path(_name(image)).suffix.lower() or '.jpg'}"
    return f"{image.id}_{stem[:80]}_{options.size}.jpg"


def _download(image: Any, part: tuple[int, int, int, int], path: Path,
              options: argparse.Namespace) -> bool:
    """Fetch to a hidden name first: what has its own name is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".part-{path.name}")
    x0, y0, x1, y1 = part
    if (x1 - x0, y1 - y0) != (int(image.width), int(image.height)):
        done = image.window(x0, y0, x1 - x0, y1 - y0, dest_pattern=str(beside),
                            max_size=options.size)
    elif options.original:
        done = image.download(dest_pattern=str(beside))
    else:
        done = image.dump(dest_pattern=str(beside), max_size=options.size)
    if not done:
        return False
    probe(beside, verify=True)
    os.replace(beside, path)
    return True


def _inside(boxes: Sequence[RawBox], part: tuple[int, int, int, int]
            ) -> tuple[list[RawBox], list[RawBox]]:
    """The boxes of a part, cut to it, and those of them that show enough to be named."""
    kept, named = [], []
    for box in boxes:
        x0, y0, x1, y1 = box.xyxy
        cut = (max(x0, part[0]), max(y0, part[1]), min(x1, part[2]), min(y1, part[3]))
        if cut[2] <= cut[0] or cut[3] <= cut[1]:
            continue
        seen = (cut[2] - cut[0]) * (cut[3] - cut[1]) / ((x1 - x0) * (y1 - y0))
        kept.append(replace(box, xyxy=cut, iscrowd=seen < SEEN))
        if seen >= SEEN:
            named.append(box)
    return kept, named


def _scaled(xyxy: Xyxy, part: tuple[int, int, int, int], scale: tuple[float, float]) -> Xyxy:
    x0, y0, x1, y1 = xyxy
    return ((x0 - part[0]) * scale[0], (y0 - part[1]) * scale[1],
            (x1 - part[0]) * scale[0], (y1 - part[1]) * scale[1])
