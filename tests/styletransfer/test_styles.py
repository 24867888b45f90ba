from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from painted import SMALL, build_bank, manifest, painted
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.cluster import DBSCAN

from musicon.datasets import command
from musicon.datasets.duplicates import fingerprint, nearest_copies
from musicon.datasets.files import sha256
from musicon.datasets.records import Manifest
from musicon.styletransfer import encoder as encoders
from musicon.styletransfer.clusters import dbscan, k_distances
from musicon.styletransfer.gram import grams, style_loss
from musicon.styletransfer.gram_vectors import GramVectors, middle_square
from musicon.styletransfer.style_features import embed
from musicon.styletransfer.styles import read_styles

KINDS = 4


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paintings")
    manifest(folder, {f"{kind}_{number}.png": painted(kind, number)
                      for kind in range(KINDS) for number in range(8)})
    return folder


def test_the_style_of_each_kind_is_found(paintings: Path, tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "styles"
    code = build_bank("styles", "--paintings", paintings, "--out", out, *SMALL[:-1],
                      "--compare", "kind", "--eps", 0.06)
    assert code == 0
    said = capsys.readouterr().out
    rows = list(csv.DictReader((out / "paintings.csv").open()))
    clusters = {(row["file_name"][0], row["cluster"]) for row in rows if row["cluster"]}
    assert len({kind for kind, _ in clusters}) == len(clusters) == KINDS  # one kind, one cluster
    made, named = read_styles(out)
    assert [name for name, _ in named] == ["c000", "c001", "c002", "c003"]
    assert {record.attributes["kind"] for record in made.images} == set("0123")
    assert all(sha256(made.path(r)) == r.sha256 and r.split == "train" for r in made.images)
    assert f"{KINDS} styles" in said and "agreement with kind" in said
    for picture in ("k_distance.png", "map.png", "clusters/cluster_003.png"):
        assert min(Image.open(out / picture).size) > 100


def test_labels_equal_the_plain_algorithm_on_the_style_loss(paintings: Path,
                                                            tmp_path: Path) -> None:
    """From pictures to clusters, against scikit-learn on ``style_loss`` of every two pictures."""
    out, eps = tmp_path / "styles", 0.02
    encoder = encoders.build("random", depth="relu2_1", pooling="average")
    records = Manifest.read(paintings).images
    squares = [middle_square(np.array(Image.open(paintings / r.file_name)), 32) for r in records]
    images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
    found = grams(encoder(images))
    losses = torch.stack([style_loss(found, {k: v[i:i + 1] for k, v in found.items()})
                          for i in range(len(images))]).double().clamp(min=0).sqrt().numpy()
    eps = float(np.sort(losses, 1)[:, 2].mean() * 1.1)
    build_bank("styles", "--paintings", paintings, "--out", out, *SMALL, "--eps", eps,
               "--min-samples", 3)
    expected = DBSCAN(eps=eps, min_samples=3, metric="precomputed").fit(losses).labels_
    rows = list(csv.DictReader((out / "paintings.csv").open()))
    assert [int(row["cluster"] or -1) for row in rows] == expected.tolist()
    assert expected.max() >= 1


def test_test_pictures_and_their_copies_are_refused(paintings: Path, tmp_path: Path) -> None:
    pictures = {f"{kind}_{n}.png": painted(kind, n) for kind in (1, 2) for n in range(6)}
    mine = manifest(tmp_path / "mine", pictures)
    scaled = cv2.resize(painted(1, 3), (180, 150))[:, ::-1].astype(np.float32) * 0.8 + 20
    tests = manifest(tmp_path / "tests", {"other.png": scaled.astype(np.uint8)}, split="test",
                     group="somebody")
    own = replace(mine, images=(*mine.images[:-1], replace(mine.images[-1], split="test")))
    own.write(tmp_path / "mine")
    out = tmp_path / "styles"
    code = build_bank("styles", "--paintings", tmp_path / "mine", "--out", out, *SMALL,
                      "--apart-from", tests.root, "--random", 10)
    assert code == command.DONE_WITH_REJECTS
    taken = {record.extra["painting"] for record in Manifest.read(out).images}
    assert taken == set(pictures) - {"1_3.png", "2_5.png"}
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert len(rejects) == 1 and "near-duplicate of the test picture tests/other.png" in \
        rejects[0]["reason"]


def test_only_the_training_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest(tmp_path / "p", {"a.png": painted(0, 1)}, split="test")
    assert build_bank("styles", "--paintings", tmp_path / "p", "--out", tmp_path / "s", *SMALL) == 2
    assert "no picture of the training split (1 in test)" in capsys.readouterr().err


def test_noise_can_be_kept_dropped_or_counted(tmp_path: Path) -> None:
    pictures = {f"{k}_{n}.png": painted(k, n) for k in (0, 2) for n in range(6)}
    pictures["9_0.png"] = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    manifest(tmp_path / "p", pictures)
    found = {}
    for noise in ("drop", "keep", "nearest"):
        build_bank("styles", "--paintings", tmp_path / "p", "--out", tmp_path / "s", *SMALL,
                   "--noise", noise, "--eps", 0.1, "--min-samples", 3)
        found[noise] = Manifest.read(tmp_path / "s").images
    assert len(found["keep"]) == len(found["drop"]) + 1
    assert found["keep"][-1].extra["painting"] == "9_0.png"
    assert sum(r.extra["members"] for r in found["nearest"]) == 13
    assert sum(r.extra["members"] for r in found["drop"]) == 12
    assert len(list((tmp_path / "s" / "images").iterdir())) == len(found["nearest"])


def test_no_cluster_and_one_say_what_to_change(tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    manifest(tmp_path / "p", {f"{k}_{n}.png": painted(k, n) for k in (0, 2) for n in range(6)})
    common = ("styles", "--paintings", tmp_path / "p", "--out", tmp_path / "s", *SMALL[:-1])
    assert build_bank(*common, "--eps", 1e-6) == 2
    assert "--eps" in capsys.readouterr().err
    assert build_bank(*common, "--eps", 1e6) == 0
    said = capsys.readouterr().out
    assert "One cluster" in said and "gives 2 clusters" in said


def test_several_of_a_cluster(paintings: Path, tmp_path: Path) -> None:
    build_bank("styles", "--paintings", paintings, "--out", tmp_path / "s", *SMALL,
               "--per-cluster", 3, "--eps", 0.06)
    _, named = read_styles(tmp_path / "s")
    assert [n for n, g in named if g == "cluster 0"] == ["c000", "c000-2", "c000-3"]
    assert len(named) == 3 * KINDS


def test_a_second_run_encodes_nothing_again(paintings: Path, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    out, counts = tmp_path / "s", []
    encoded = GramVectors._encoded

    def counting(self: GramVectors, files: list[Path]) -> Any:
        counts.append(len(files))
        return encoded(self, files)

    monkeypatch.setattr(GramVectors, "_encoded", counting)
    build_bank("styles", "--paintings", paintings, "--out", out, *SMALL)
    first, before = (out / "manifest.json").read_bytes(), sum(counts)
    assert before == len(Manifest.read(paintings))
    build_bank("styles", "--paintings", paintings, "--out", out, *SMALL)
    assert (out / "manifest.json").read_bytes() == first
    assert sum(counts) - before < before  # only what lies near eps
    next((out / ".features").glob("*/part-*.npz")).write_bytes(b"torn")
    build_bank("styles", "--paintings", paintings, "--out", out, *SMALL)
    assert (out / "manifest.json").read_bytes() == first


def test_another_folder_is_not_overwritten(paintings: Path, tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    assert build_bank("styles", "--paintings", paintings, "--out", tmp_path, *SMALL) == 2
    assert "give another --out" in capsys.readouterr().err


def test_vectors_make_way_when_the_room_is_used_up(paintings: Path, tmp_path: Path) -> None:
    files = [Manifest.read(paintings).path(r) for r in Manifest.read(paintings).images[:6]]
    encoder = encoders.build("random", depth="relu1_1", pooling="average")
    free = GramVectors(files, encoder, side=16)
    tight = GramVectors(files, encoder, side=16, store=tmp_path / "v", room=4 * free.dimension * 2)
    for rows in ([0, 1, 2], [2, 0], [5, 4, 3, 2, 1, 0], [1, 0]):
        assert (tight(np.array(rows)) == free(np.array(rows))).all()
    assert tight.computed < free.computed


def test_flat_pictures_are_nobodys_copy() -> None:
    plain = [fingerprint(np.full((50, 60, 3), value, np.uint8)) for value in (0, 130, 255)]
    assert nearest_copies(plain, plain) == [None] * 3
    assert nearest_copies([], plain) == [] and nearest_copies(plain, []) == [None] * 3


@pytest.mark.real
def test_copies_of_real_paintings_are_found_and_others_are_not(real_fixture: Path) -> None:
    files = sorted((real_fixture / "paintings_peopleart" / "JPEGImages").rglob("*.jpg"))[::4]
    images = [cv2.resize(np.array(Image.open(f).convert("RGB")), None, fx=0.5, fy=0.5,
                         interpolation=cv2.INTER_AREA) for f in files]
    prints = [fingerprint(image) for image in images]
    copies = [fingerprint(np.clip(image[3:-4, 2:-5].astype(np.float32) * (1.1, 1, 0.9) + 5, 0, 255)
                          .astype(np.uint8)) for image in images]
    found = nearest_copies(copies, prints)
    right = sum(at == number for number, at in enumerate(found))
    assert right >= 0.97 * len(files)
    assert all(at is None or at == number for number, at in enumerate(found))


@pytest.mark.real
def test_real_paintings_get_the_labels_of_the_plain_algorithm(real_fixture: Path,
                                                              tmp_path: Path) -> None:
    """480 paintings, Gram matrices of relu1_1 to relu3_1, several eps, against scikit-learn."""
    files = sorted((real_fixture / "paintings_peopleart" / "JPEGImages").rglob("*.jpg"))
    weights = real_fixture / "weights" / "vgg19_normalised" / "vgg_normalised_conv3_1.safetensors"
    encoder = encoders.build(weights, pooling="average")
    vectors = GramVectors(files, encoder, side=64, store=tmp_path / "v", room=10**9)
    points = embed(vectors, [file.name for file in files], tmp_path / "features", 0,
                   lambda items, total, what: iter(items))
    exact = vectors(np.arange(len(files)))
    distances = cdist(exact.astype(np.float64), exact)
    curve = k_distances(points, 5)
    for eps in np.percentile(curve, (10, 30, 50, 70, 90)) * 1.00001:
        for min_samples in (3, 5):
            found = dbscan(points, vectors, float(eps), min_samples)
            plain = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(distances)
            assert found.labels.tolist() == plain.labels_.tolist()
            assert found.checked < 1000
