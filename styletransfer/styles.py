"""Paintings -> the styles of a bank: one picture for each cluster of paintings alike in style.

What is left is a folder that ``build_bank.py make`` reads, and an ordinary manifest.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from musicon.datasets import command
from musicon.datasets.duplicates import fingerprints, nearest_copies
from musicon.datasets.files import sha256, write_atomic
from musicon.datasets.images import ImageError
from musicon.datasets.leakage import Item, apart_from
from musicon.datasets.prepare import link_or_copy
from musicon.datasets.records import Manifest, Rejects
from musicon.datasets.workplace import REJECTS_NAME
from musicon.styletransfer import clusters
from musicon.styletransfer.clusters import NOISE, Clustering
from musicon.styletransfer.gram_vectors import GramVectors, free_bytes
from musicon.styletransfer.sketch import Floats, Indices, Points
from musicon.styletransfer.style_features import embed
from musicon.styletransfer.weights import StyleError

MADE_BY = "musicon build_bank styles"
FEATURES = ".features"
ROOM = 20_000_000_000
"""Bytes of disk that Gram vectors may take while clusters are searched, at most half of what is
free."""
NOISE_CHOICES = ("keep", "drop", "nearest")
TABLE_POINTS = 2000
TABLE_PLACES = (10, 20, 30, 40, 50, 60, 70, 80, 90)


@dataclass(frozen=True)
class StyleOptions:
    """What ``build_bank.py styles`` was asked for.

    Attributes:
        paintings: Manifest; only its training split counts.
        out: Folder to make.
        encoder: ``auto``, ``torchvision``, ``random``, or a weight file.
        depth: Deepest layer; None takes the deepest that the weights have.
        weights: Layer -> weight in the style loss; None weighs all alike.
        side: Pixels of the square that pictures are compared at.
        eps: Neighbourhood in style space, the square root of the style loss; None takes the knee.
        min_samples: Neighbours, itself included, that make a core point.
        noise: What becomes of paintings in no cluster, one of ``NOISE_CHOICES``.
        per_cluster: Styles taken from each cluster: its medoid, then the furthest members.
        random: Take so many paintings at random instead of clusters; 0 for clusters.
        apart_from: Data sets whose test pictures, and copies of them, are no styles.
        device: Of the encoder.
    """

    paintings: Path
    out: Path
    encoder: str = "auto"
    depth: str | None = None
    weights: dict[str, float] | None = None
    side: int = 256
    eps: float | None = None
    min_samples: int = 5
    noise: str = "drop"
    per_cluster: int = 1
    random: int = 0
    apart_from: tuple[Path, ...] = ()
    seed: int = 0
    device: str = "cpu"
    workers: int = 2
    quiet: bool = False


@dataclass(frozen=True)
class Style:
    """One style of a bank.

    Attributes:
        name: Unique and stable: ``c003`` is the medoid of cluster 3, ``c003-2`` a further member,
            ``n0017`` a painting in no cluster, ``r005`` one taken at random.
        group: What the bank is balanced over: the cluster, or the style itself.
        position: Of the painting among those that were looked at.
        members: Paintings that it stands for.
    """

    name: str
    group: str
    position: int
    members: int = 1


@dataclass(frozen=True)
class Found:
    """The paintings as points, and their clusters."""

    points: Points
    curve: Floats
    eps: float
    clustering: Clustering
    computed: int
    table: tuple[tuple[float, int, int, int], ...] = ()


@dataclass(frozen=True)
class StylesMade:
    """What was made: the manifest of the styles, and how it came about."""

    manifest: Manifest
    items: tuple[Item, ...]
    rejects: Rejects
    left: Counter[str]
    found: Found | None = None
    advice: str = ""
    files: tuple[str, ...] = field(default_factory=tuple)


def make_styles(options: StyleOptions) -> StylesMade:
    """Choose styles and write the folder.

    Raises:
        StyleError: No painting may be a style, or no style came of them.
        ManifestError: A manifest that cannot be read.
    """
    _check_target(options.out)
    rejects = Rejects()
    items, left = select(options, rejects)
    found = None
    if options.random:
        styles = _random_styles(items, options)
    else:
        found = search(items, options)
        styles = choose(found, options.noise, options.per_cluster)
    advice = _advice(found, options) if found is not None else ""
    if not styles:
        raise StyleError(f"no cluster among {len(items)} paintings at eps {found.eps:g}, "
                         f"min_samples {options.min_samples}: no style. {advice}" if found else
                         "no style")
    manifest = _write(styles, items, found, options)
    rejects.write(options.out / REJECTS_NAME)
    pictures = _draw(styles, items, found, options) if found is not None else ()
    return StylesMade(manifest, tuple(items), rejects, left, found, advice, pictures)


def select(options: StyleOptions, rejects: Rejects) -> tuple[list[Item], Counter[str]]:
    """Paintings that may be styles, and how many are in which other split.

    Left out are test pictures (of this and of other data sets), their copies and near-duplicates,
    other works of the same painters as ``prepare_data.py --apart-from`` does, and what cannot be
    read.
    """
    manifest = Manifest.read(options.paintings)
    left = Counter(record.split or "no split" for record in manifest.images)
    train = [(manifest.path(r), r) for r in manifest.images if r.split == "train"]
    if not train:
        there = ", ".join(f"{n} in {name}" for name, n in left.items() if n)
        raise StyleError(f"{options.paintings}: no picture of the training split ({there}); only "
                         "these may be styles: deal splits with prepare_data.py")
    del left["train"]
    tested = [m.select(split="test") for m in
              (manifest, *(Manifest.read(path) for path in options.apart_from))]
    tests = [(m, record) for m in tested for record in m.images]
    train = apart_from(train, tested, rejects) if tests else train
    looked = list(command.progress(
        fingerprints([*(path for path, _ in train), *(m.path(record) for m, record in tests)],
                     options.workers),
        len(train) + len(tests), "looking for copies of test pictures", options.quiet))
    mine, theirs = looked[:len(train)], looked[len(train):]
    known = [(m, r, p) for (m, r), p in zip(tests, theirs, strict=True)
             if not isinstance(p, ImageError)]
    readable = [p for p in mine if not isinstance(p, ImageError)]
    copies = iter(nearest_copies(readable, [p for _, _, p in known]))
    items: list[Item] = []
    for (path, record), looked_at in zip(train, mine, strict=True):
        if isinstance(looked_at, ImageError):
            rejects.add(path, looked_at.reason)
            continue
        copy = next(copies)
        if copy is None:
            items.append((path, record))
        else:
            other, twin, _ = known[copy]
            rejects.add(path, f"near-duplicate of the test picture {other.root.name}/"
                              f"{twin.file_name}")
    if not items:
        raise StyleError(f"{options.paintings}: none of {len(train)} paintings may be a style; "
                         f"the first: {rejects.rows[0][0]}: {rejects.rows[0][1]}")
    return items, left


def search(items: Sequence[Item], options: StyleOptions) -> Found:
    """Place the paintings in style space and cluster them."""
    from musicon.styletransfer import encoder as encoders

    def bar(iterable: Any, total: int | None = None, desc: str = "") -> Iterator[Any]:
        return command.progress(iterable, total, desc, options.quiet)

    encoder = encoders.build(options.encoder, depth=options.depth, pooling="average",
                             seed=options.seed).to(options.device)
    unknown = [layer for layer in options.weights or {} if layer not in encoder.layers]
    if unknown:
        raise StyleError(f"layer {unknown[0]!r} is not among the encoder's: write "
                         f"{', '.join(encoder.layers)}")
    folder = options.out / FEATURES
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "vectors.f32"
    vectors = GramVectors([path for path, _ in items], encoder, side=options.side,
                          weights=options.weights, store=store,
                          room=min(ROOM, free_bytes(folder) // 2), workers=options.workers)
    contents = [record.sha256 or sha256(path) for path, record in items]
    try:
        points = embed(vectors, contents, folder, options.seed, bar)
        curve = clusters.k_distances(points, options.min_samples, options.seed)
        eps = options.eps or clusters.knee(curve)
        clustering = clusters.dbscan(points, vectors, eps, options.min_samples)
        table = _table(points, vectors, curve, options) if clustering.count < 2 else ()
    finally:
        store.unlink(missing_ok=True)
    return Found(points, curve, eps, clustering, vectors.computed, table)


def choose(found: Found, noise: str = "drop", per_cluster: int = 1) -> list[Style]:
    """The styles of a clustering: medoids, further members, and noise where it is kept."""
    clustering, points = found.clustering, found.points
    styles = []
    chosen = [clusters.spread(points, clustering.members(label), per_cluster)
              for label in range(clustering.count)]
    sizes = Counter(clustering.labels.tolist())
    loose = clustering.members(NOISE)
    if noise == "nearest" and chosen and len(loose):
        medoids = points.take(np.array([rows[0] for rows in chosen]))
        for part in np.array_split(loose, -(-len(loose) // 1000)):
            sizes.update(medoids.distances(points.take(part)).argmin(1).tolist())
    for label, rows in enumerate(chosen):
        for number, position in enumerate(rows, 1):
            name = f"c{label:03}" + (f"-{number}" if number > 1 else "")
            styles.append(Style(name, f"cluster {label}", position, sizes[label]))
    if noise == "keep":
        styles += [Style(f"n{int(at):04}", f"noise {int(at)}", int(at)) for at in loose]
    return styles


def read_styles(folder: Path) -> tuple[Manifest, list[tuple[str, str]]]:
    """The styles of a folder: its manifest, and (name, group) of each of its images.

    Raises:
        StyleError: Not a folder that ``styles`` made.
    """
    manifest = Manifest.read(folder)
    rows = [(r.extra.get("style"), r.extra.get("style_group")) for r in manifest.images]
    if not rows or any(not name or not group for name, group in rows):
        raise StyleError(f"{folder}: not a folder of styles; make one with: python "
                         "tools/build_bank.py styles --paintings MANIFEST --out FOLDER")
    return manifest, [(str(name), str(group)) for name, group in rows]


def _check_target(out: Path) -> None:
    if out.is_file():
        raise StyleError(f"{out}: a file of that name is in the way; give another --out")
    if not out.exists() or not any(name != FEATURES for name in os.listdir(out)):
        return
    try:
        made_by = Manifest.read(out).info.get("made_by")
    except ValueError:
        made_by = None
    if made_by != MADE_BY:
        raise StyleError(f"{out}: not empty, and not made by this command; give another --out")


def _random_styles(items: Sequence[Item], options: StyleOptions) -> list[Style]:
    if options.random > len(items):
        raise StyleError(f"--random {options.random}: there are {len(items)} paintings that may be "
                         "styles; give a smaller number")
    rows = np.random.default_rng(options.seed).choice(len(items), options.random, replace=False)
    return [Style(f"r{number:03}", f"random {number}", int(at))
            for number, at in enumerate(np.sort(rows))]


def _write(styles: Sequence[Style], items: Sequence[Item], found: Found | None,
           options: StyleOptions) -> Manifest:
    """Link the styles' pictures into the folder; then the manifest; then what is stale goes."""
    out = options.out
    before = set()
    if (out / "manifest.json").exists():
        before = {record.file_name for record in Manifest.read(out).images}
    records = []
    for number, style in enumerate(styles, 1):
        path, record = items[style.position]
        name = f"images/{style.name}_{Path(record.file_name).name}"
        (out / "images").mkdir(parents=True, exist_ok=True)
        (out / name).unlink(missing_ok=True)
        link_or_copy(path, out / name, copy=False)
        records.append(replace(
            record, id=number, file_name=name, boxes=(), labels=None,
            sha256=record.sha256 or sha256(path),
            attributes={**record.attributes, "style": style.name},
            extra={"style": style.name, "style_group": style.group, "members": style.members,
                   "painting": record.file_name}))
    clustered = {} if found is None else {
        "eps": found.eps, "min_samples": options.min_samples, "noise": options.noise,
        "clusters": found.clustering.count, "side": options.side, "encoder": options.encoder}
    manifest = Manifest(out, (), tuple(records), {
        "description": f"styles of {options.paintings.resolve().name}", "made_by": MADE_BY,
        "seed": options.seed, "random": options.random, **clustered})
    if found is not None:
        write_atomic(out / "paintings.csv", _table_of_paintings(styles, items, found))
    manifest.write(out)
    for name in before - {record.file_name for record in records}:
        (out / name).unlink(missing_ok=True)
    return manifest


def _table_of_paintings(styles: Sequence[Style], items: Sequence[Item], found: Found) -> str:
    """Each painting's cluster, as comma-separated values."""
    names = {style.position: style.name for style in styles}
    clustering = found.clustering
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["file_name", "cluster", "kind", "style"])
    for at, (_, record) in enumerate(items):
        label = int(clustering.labels[at])
        kind = "noise" if label == NOISE else "core" if clustering.core[at] else "border"
        table.writerow([record.file_name, "" if label == NOISE else label, kind,
                        names.get(at, "")])
    return stream.getvalue()


def _draw(styles: Sequence[Style], items: Sequence[Item], found: Found,
          options: StyleOptions) -> tuple[str, ...]:
    """Curve, map and contact sheets; their names."""
    from musicon.styletransfer import style_pictures as draw

    files = [path for path, _ in items]
    out, clustering = options.out, found.clustering
    write_atomic(out / "k_distance.png", draw.plot_k_distances(
        found.curve, options.min_samples, found.eps,
        "the curve's knee" if options.eps is None else "given"))
    write_atomic(out / "map.png", draw.plot_map(
        found.points, clustering, [(s.position, files[s.position]) for s in styles], options.seed))
    for old in (out / "clusters").glob("*.png"):
        old.unlink()
    medoids = {style.group: style.position for style in reversed(styles)}
    for label in range(clustering.count):
        members = clustering.members(label)
        write_atomic(out / "clusters" / f"cluster_{label:03}.png", draw.cluster_sheet(
            files, found.points, members,
            f"Cluster {label}: {len(members):,} paintings, its style (the medoid) first",
            medoids[f"cluster {label}"]))
    loose = clustering.members(NOISE)
    if len(loose):
        write_atomic(out / "clusters" / "noise.png", draw.cluster_sheet(
            files, found.points, loose, f"In no cluster: {len(loose):,} paintings"))
    return ("k_distance.png", "map.png", "clusters/")


def _table(points: Points, vectors: GramVectors, curve: Floats,
           options: StyleOptions) -> tuple[tuple[float, int, int, int], ...]:
    """(eps, clusters, largest, noise) for other values of eps; of a sample where they are many."""
    rows: Indices = np.arange(len(points))
    if len(rows) > TABLE_POINTS:
        rows = np.sort(np.random.default_rng(options.seed).choice(rows, TABLE_POINTS,
                                                                  replace=False))
    sample = points.take(rows)
    if len(rows) < len(points):
        curve = clusters.k_distances(sample, options.min_samples)
    found = []
    for eps in dict.fromkeys(float(f"{v:.3g}") for v in np.percentile(curve, TABLE_PLACES)):
        made = clusters.dbscan(sample, lambda chosen: vectors(rows[chosen]), eps,
                               options.min_samples)
        sizes = np.bincount(made.labels[made.labels != NOISE], minlength=1)
        found.append((eps, made.count, int(sizes.max()), int((made.labels == NOISE).sum())))
    return tuple(found)


def _advice(found: Found, options: StyleOptions) -> str:
    """What to change when there is no cluster, or one; else nothing."""
    if found.clustering.count > 1:
        return ""
    several = max(found.table, key=lambda row: (row[1], -row[3]), default=None)
    if several is not None and several[1] > found.clustering.count:
        better = (f"--eps {several[0]:g} gives {command.counted(several[1], 'cluster')} and "
                  f"{several[3]} in none")
    elif found.clustering.count == 0:
        better = "a larger --eps joins more"
    else:
        better = "no --eps divides them: try a smaller --min-samples"
    return (f"{'One cluster' if found.clustering.count else 'No cluster'}: {better}. Otherwise "
            "--noise keep makes every painting outside a style of its own, --per-cluster takes "
            "several of a cluster, --random takes any")
