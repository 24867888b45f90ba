"""From a source to a data set: checked pictures, mended boxes, splits, one manifest beside them.

All or nothing: everything is made in a hidden folder beside the target and moved into place at
the end; a run that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import errno
import fnmatch
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from musicon.datasets import command
from musicon.datasets.checking import Item, Journal, check
from musicon.datasets.classes import fewer, read_rules
from musicon.datasets.leakage import apart_from, hold_out, labels_only
from musicon.datasets.leaks import with_copies_grouped
from musicon.datasets.records import (
    MANIFEST_NAME,
    SPLITS,
    Category,
    ImageRecord,
    Manifest,
    Rejects,
)
from musicon.datasets.sources import base
from musicon.datasets.splits import assign_splits, divided_groups, parse_fractions
from musicon.datasets.workplace import (
    JOURNAL,
    MADE_BY,
    REJECTS_NAME,
    PrepareError,
    earlier_manifest,
    publish,
    workplace,
)

__all__ = ["MADE_BY", "REJECTS_NAME", "PrepareError", "Prepared", "add_arguments", "free_name",
           "link_or_copy", "prepare", "prepare_all"]
_ROBOFLOW = re.compile(r"^(?P<stem>.+)\.rf\.[0-9A-Za-z]{8,}$")
_RESERVED = ("split", "domain", "group")
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS,
             errno.EOPNOTSUPP}


@dataclass(frozen=True)
class Prepared:
    """What was made.

    Attributes:
        file: The manifest.
        manifest: Its contents.
        rejects: What was left out.
        naming: (name in source, instrument, how).
        notes: Sentences on what was mended, merged or kept.
    """

    file: Path
    manifest: Manifest
    rejects: Rejects
    naming: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all sources share."""
    group = parser.add_argument_group("data set")
    group.add_argument("--out", type=Path, metavar="FOLDER",
                       help="the data set to make; an earlier one is brought up to date")
    group.add_argument("--settings", action=command.SettingsFile, metavar="FILE",
                       help="YAML file of further arguments, such as 'split: 70/10/20'; the "
                            "command line wins")
    group.add_argument("--in-place", action="store_true",
                       help="leave the pictures where they are; only write the manifest")
    group.add_argument("--copy", action="store_true",
                       help="copy pictures (default: hard links, where the disk allows)")
    group.add_argument("--domain", metavar="NAME",
                       help="where the pictures come from: mimo, google, cytomine, ...")
    group.add_argument("--match", metavar="GLOB",
                       help="only pictures whose path below the source matches, e.g. '*/*a_*'")
    group.add_argument("--pattern", metavar="REGEX",
                       help="read attributes from the path: '(?P<movement>[^/]+)/(?P<painter>[^_/]"
                            "+)_'; the names split, domain, group have their meaning")
    group.add_argument("--group-by", metavar="NAME[,NAME]",
                       help="never divide pictures alike in these attributes between splits; "
                            "'folder' is the folder they lie in")
    group.add_argument("--split", default="70/10/20", metavar="TRAIN/VAL/TEST",
                       help="shares in percent (default 70/10/20)")
    group.add_argument("--seed", type=int, default=0, help="of the split (default 0)")
    group.add_argument("--resplit", action="store_true",
                       help="forget the splits that the source or an earlier run made")
    group.add_argument("--as-split", choices=SPLITS, help="put every picture into this split")
    group.add_argument("--hold-out", choices=SPLITS, metavar="SPLIT",
                       help="this split of the source is for the final test alone; the others "
                            "are dealt anew into train and val")
    group.add_argument("--apart-from", type=Path, nargs="+", default=[], metavar="DATASET",
                       help="leave out what the test splits of these data sets hold too, and "
                            "other works by the same painters")
    group.add_argument("--copies", action="store_true",
                       help="look for copies of one picture (cropped, framed, recoloured, "
                            "mirrored): never divide them, and leave out those of the tests of "
                            "--apart-from; slow")
    group.add_argument("--merge", type=Path, metavar="FILE",
                       help="YAML file 'group: [instruments]' of classes to be one, such as "
                            "'violin family: [family:violins]'")
    group.add_argument("--rare", type=int, default=0, metavar="N",
                       help="classes in fewer than N pictures become the plainer instrument, or "
                            "'other FAMILY'")
    group.add_argument("--labels-only", action="store_true",
                       help="keep which instruments are in a picture and forget where")
    group.add_argument("--workers", type=int, metavar="N", help="threads that decode")
    group.add_argument("--quiet", action="store_true", help="no progress bars")


def prepare_all(source: str, options: argparse.Namespace) -> list[Prepared]:
    """``prepare``, or one data set below ``options.out`` for each part that the source makes."""
    if options.out is None:
        name = getattr(options, "domain", None) or "NAME"
        raise PrepareError(f"no target given; add --out data/{name}")
    divide = getattr(base.load(source), "parts", None)
    parts: dict[str, argparse.Namespace] = {} if divide is None else divide(options)
    if len(parts) < 2:
        return [prepare(source, options)]
    return [prepare(source, argparse.Namespace(**{**vars(part), "out": options.out / name}))
            for name, part in parts.items()]


def prepare(source: str, options: argparse.Namespace) -> Prepared:
    """Make or update the data set ``options.out``.

    Args:
        source: Name of the source.
        options: Of ``add_arguments`` and of the source.

    Raises:
        PrepareError: The target may not be written, or nothing usable was found.
        SourceError: The source cannot be read.
    """
    fractions = parse_fractions(options.split)
    pattern = _compiled(options.pattern)
    module = base.load(source)
    out = Path(os.path.realpath(options.out))
    earlier = earlier_manifest(out, options)
    _refuse_nesting(out, options)
    rejects = Rejects()

    def bar(iterable: Any, total: int | None = None, desc: str = "") -> Iterator[Any]:
        return command.progress(iterable, total, desc, options.quiet)

    with workplace(out, source, options) as work:
        if hasattr(module, "generate"):
            data = module.generate(options, work / "images", bar)
        else:
            shutil.rmtree(work / "images", ignore_errors=True)
            data = module.read(options, rejects)
        found, notes = _described(data.records, options, pattern)
        found = _kept_apart(found, options, rejects)
        journal = Journal(work / JOURNAL)
        try:
            checked = check(found, rejects, journal, bar, options.workers)
        finally:
            journal.close()
        if not checked.items:
            first = f"; the first: {rejects.rows[0][0]}: {rejects.rows[0][1]}" if rejects.rows \
                else ""
            raise PrepareError(f"none of {len(found)} pictures can be used{first}")
        items, copy_notes = checked.items, list[str]()
        if options.copies:
            items, copy_notes = with_copies_grouped(
                items, [Manifest.read(path) for path in options.apart_from], rejects, bar,
                options.workers)
            if not items:
                raise PrepareError("every picture is a copy of one that --apart-from tests on")
        categories, items, class_notes = fewer(data.categories, items, (
            read_rules(options.merge) if options.merge else {}), options.rare)
        items, split_notes = _split(items, options, fractions, earlier)
        items = _placed(items, work, out, options, bar)
        records = _numbered([record for _, record in items])
        info = {**data.info, "description": _description(source, options), "made_by": MADE_BY,
                "source": source, "in_place": bool(options.in_place)}
        manifest = Manifest(out, _categories(categories, records, options),
                            tuple(records), info)
        replace(manifest, root=work).write(work)
        rejects.write(work / REJECTS_NAME)
        publish(work, out, manifest, earlier)
    return Prepared(out / MANIFEST_NAME, manifest, rejects, data.naming,
                    (*data.notes, *notes, *checked.notes, *copy_notes, *class_notes,
                     *split_notes))


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise PrepareError(f"--pattern {pattern!r}: not a regular expression ({error})") from None
    if not compiled.groupindex:
        raise PrepareError(f"--pattern {pattern!r}: no named part; write (?P<painter>...)")
    return compiled


def _refuse_nesting(out: Path, options: argparse.Namespace) -> None:
    """A target inside the source would be read again; a source inside the target, overwritten."""
    if options.in_place:
        return
    paths = getattr(options, "path", None) or []
    target = Path(os.path.realpath(out))
    for path in paths if isinstance(paths, list) else [paths]:
        there = Path(os.path.realpath(path))
        if there == target or there in target.parents or target in there.parents:
            raise PrepareError(f"{options.out}: lies in the source, or the source in it; give an "
                               "--out elsewhere, or --in-place")


def _described(records: Sequence[Item], options: argparse.Namespace,
               pattern: re.Pattern[str] | None) -> tuple[list[Item], list[str]]:
    """The wanted records with attributes, groups and domain, in the order of their names."""
    notes = []
    wanted = sorted(records, key=lambda item: item[1].file_name)
    if options.match:
        before = len(wanted)
        wanted = [item for item in wanted if fnmatch.fnmatch(item[1].file_name, options.match)]
        notes.append(f"{before - len(wanted)} of {before} pictures do not match "
                     f"{options.match!r} and were passed over")
    out, silent = [], 0
    for path, record in wanted:
        told = pattern.search(record.file_name) if pattern else None
        silent += pattern is not None and told is None
        values = {k: v for k, v in told.groupdict().items() if v} if told else {}
        attributes = {**record.attributes,
                      **{k: v for k, v in values.items() if k not in _RESERVED}}
        split = _told_split(values["split"], record) if "split" in values else record.split
        out.append((path, replace(
            record, attributes=attributes, split=split,
            domain=options.domain or values.get("domain") or record.domain,
            group=_group(record, attributes, values.get("group"), options.group_by))))
    if silent:
        notes.append(f"--pattern does not match the names of {silent} pictures")
    if options.group_by and not any(record.group for _, record in out):
        raise PrepareError(f"--group-by {options.group_by}: no picture has it; give it a name in "
                           "--pattern, or 'folder'")
    return out, notes


def _told_split(name: str, record: ImageRecord) -> str:
    split = base.split_of(f"{name}/x")
    if split is None:
        raise PrepareError(f"--pattern: the split of {record.file_name} is {name!r}; expected "
                           "train, val or test (or valid, validation, ...)")
    return split


def _categories(categories: Sequence[Category], records: Sequence[ImageRecord],
                options: argparse.Namespace) -> tuple[Category, ...]:
    """All classes of the source; with ``--match`` those that its pictures still have."""
    used = {label for record in records for label in record.known_labels}
    return tuple(c for c in categories if not options.match or c.id in used)


def _kept_apart(items: list[Item], options: argparse.Namespace, rejects: Rejects) -> list[Item]:
    if options.hold_out:
        items = hold_out(items, options.hold_out)
    if options.labels_only:
        items = labels_only(items)
    others = [Manifest.read(path) for path in options.apart_from]
    return apart_from(items, others, rejects) if others else items


def _group(record: ImageRecord, attributes: dict[str, str], told: str | None,
           group_by: str | None) -> str | None:
    if group_by:
        folder = PurePosixPath(record.file_name).parent.as_posix()
        known = {**attributes, "folder": folder}
        parts = [known.get(name.strip(), "") for name in group_by.split(",")]
        return " / ".join(parts) if any(parts) else None
    if told or record.group:
        return told or record.group
    # Roboflow writes several altered copies of a picture: name_jpg.rf.<hash>.jpg.
    copies = _ROBOFLOW.match(PurePosixPath(record.file_name).stem)
    return copies["stem"] if copies else None


def _split(items: Sequence[Item], options: argparse.Namespace,
           fractions: tuple[float, float, float],
           earlier: Manifest | None) -> tuple[list[Item], list[str]]:
    notes = []
    records = [record for _, record in items]
    if options.as_split:
        return [(path, replace(record, split=options.as_split)) for path, record in items], []
    if earlier is not None and not options.resplit:
        before = {record.sha256: record.split for record in earlier.images}
        kept = sum(r.split is None and before.get(r.sha256) is not None for r in records)
        records = [r if r.split is not None else replace(r, split=before.get(r.sha256))
                   for r in records]
        if kept:
            notes.append(f"{kept} pictures keep the split of the earlier run (--resplit deals "
                         "anew)")
    if options.hold_out:
        records = _deal_the_rest(records, fractions, options.seed)
    else:
        records = assign_splits(records, fractions, seed=options.seed, resplit=options.resplit)
    divided = divided_groups(records)
    if divided:
        notes.append(f"the splits given divide {len(divided)} groups, {divided[0]!r} first: a "
                     "leak (--resplit mends it)")
    return [(path, record) for (path, _), record in zip(items, records, strict=True)], notes


def _deal_the_rest(records: Sequence[ImageRecord], fractions: tuple[float, float, float],
                   seed: int) -> list[ImageRecord]:
    """Deal what is not held out into train and val, by their shares of each other."""
    train, val, _ = fractions
    rest = assign_splits([r for r in records if r.split is None],
                         (train / (train + val), val / (train + val), 0.0), seed=seed)
    dealt = {record.file_name: record for record in rest}
    return [dealt.get(record.file_name, record) for record in records]


def _placed(items: Sequence[Item], work: Path, out: Path, options: argparse.Namespace,
            bar: Any) -> list[Item]:
    """File names relative to the manifest; pictures linked (or copied) below ``images/``."""
    placed: list[Item] = []
    taken: set[str] = set()
    images = work / "images"
    for path, record in bar(items, len(items), "placing pictures"):
        if options.in_place:
            name = Path(os.path.relpath(path, out)).as_posix()
        elif path.is_relative_to(images):
            name = f"images/{path.relative_to(images).as_posix()}"
        else:
            name = f"images/{free_name(record.file_name, taken)}"
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, target, options.copy)
        placed.append((path, replace(record, file_name=name)))
    return placed


def free_name(file_name: str, taken: set[str]) -> str:
    """Where below ``images/`` the picture goes; two never meet, on any kind of disk."""
    parts = [part for part in PurePosixPath(file_name.replace("\\", "/")).parts
             if part not in ("/", "..", ".")]
    if len(parts) > 1 and parts[0].lower() == "images":
        parts = parts[1:]
    wanted = PurePosixPath(*parts)
    name, count = wanted.as_posix(), 1
    while name.casefold() in taken:
        count += 1
        name = wanted.with_name(f"{wanted.stem}_{count}{wanted.suffix}").as_posix()
    taken.add(name.casefold())
    return name


def link_or_copy(path: Path, target: Path, copy: bool) -> None:
    """A hard link, which takes no room, or a copy where asked for or needed."""
    if not copy:
        try:
            os.link(os.path.realpath(path), target)
            return
        except OSError as error:
            # Another disk, a disk without links, or a file of somebody else's: copy instead.
            if error.errno not in _NO_LINKS:
                raise
    shutil.copyfile(path, target)


def _numbered(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Ids from 1 in the order of names; a source's own ids stay where they are unique."""
    records = sorted(records, key=lambda record: record.file_name)
    given = {record.id for record in records}
    if len(given) == len(records) and min(given) > 0:
        return records
    return [replace(record, id=number) for number, record in enumerate(records, start=1)]


def _description(source: str, options: argparse.Namespace) -> str:
    paths = getattr(options, "path", None) or []
    names = [Path(p).resolve().name for p in (paths if isinstance(paths, list) else [paths])]
    return " ".join([source, *names])
