from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from painted import ROOT, SMALL, build_bank, manifest, painted
from PIL import Image
from safetensors.torch import save_file

from musicon.datasets import command
from musicon.datasets.files import sha256
from musicon.datasets.records import Box, Category, ImageRecord, Manifest
from musicon.styletransfer import bank
from musicon.styletransfer import encoder as encoders
from musicon.styletransfer.bank_plan import draw
from musicon.styletransfer.decoder import Decoder
from musicon.styletransfer.encoder import Encoder

Make = Callable[..., int]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six boxed photos of three sizes, four styles, and a small AdaIN network."""
    folder = tmp_path_factory.mktemp("bank")
    photos = []
    for number in range(6):
        image = painted(1, number, ((60, 44), (40, 40), (44, 60))[number % 3])
        name = f"photo {number}.png"
        (folder / "photos").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / "photos" / name)
        box = Box((4.0, 6.0, 30.0, 36.0), label=1 + number % 2)
        photos.append(ImageRecord(
            number + 10, name, image.shape[1], image.shape[0], (box,), labels=(box.label,),
            split=("train", "train", "train", "train", "val", "test")[number], domain="mimo",
            group="g" if number < 2 else None, attributes={"maker": "Stein"}, rights="CC0",
            sha256=sha256(folder / "photos" / name)))
    Manifest(folder / "photos", (Category(1, "lute", mimo="3394"), Category(2, "harp")),
             tuple(photos)).write(folder / "photos")
    manifest(folder / "paintings", {f"{k}_{n}.png": painted(k, n) for k in range(4)
                                    for n in range(6)})
    assert build_bank("styles", "--paintings", folder / "paintings", "--out", folder / "styles",
                      *SMALL, "--eps", 0.06) == 0
    state = encoders.random_state(0, (6, 8))
    encoder = Encoder(state)
    save_file(state, folder / "encoder.safetensors")
    save_file({k: v.contiguous() for k, v in Decoder.mirror(encoder).state().items()},
              folder / "decoder.safetensors")
    return folder


@pytest.fixture
def make(place: Path) -> Make:
    def run(out: Path, *arguments: object) -> int:
        return build_bank("make", "--content", place / "photos", "--styles", place / "styles",
                          "--out", out, "--per-image", 2, "--workers", 1, "--set",
                          f"encoder={place}/encoder.safetensors",
                          f"decoder={place}/decoder.safetensors", *arguments, "--quiet")
    return run


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_the_bank_is_an_ordinary_manifest(place: Path, make: Make, tmp_path: Path) -> None:
    assert make(tmp_path / "b", "--size", 30) == 0
    made, photos = Manifest.read(tmp_path / "b"), Manifest.read(place / "photos")
    assert [c.name for c in made.categories] == ["lute", "harp"]
    by_id = {record.id: record for record in photos.images}
    assert Counter(r.extra["content_id"] for r in made.images) == {10: 2, 11: 2, 12: 2, 13: 2}
    styles = {r.extra["style"]: r for r in Manifest.read(place / "styles").images}
    for record in made.images:
        content = by_id[record.extra["content_id"]]
        assert Image.open(made.path(record)).size == (record.width, record.height)
        assert max(record.width, record.height) == 30
        scale = record.width / content.width
        (box,), (before,) = record.boxes, content.boxes
        assert box.origin == "style" and box.label == before.label
        assert box.xyxy == pytest.approx([v * scale for v in before.xyxy], abs=0.5)
        assert (record.split, record.domain, record.labels, record.rights) == (
            "train", "mimo", content.labels, "CC0")
        assert record.group == (content.group or f"photos/{content.file_name}")
        assert record.attributes["maker"] == "Stein"
        assert record.extra["content_sha256"] == content.sha256
        assert record.extra["style_sha256"] == styles[record.attributes["style"]].sha256
        assert record.sha256 == sha256(made.path(record))
        assert record.extra["method"] == "adain" and len(record.extra["weights_sha256"]) == 64


def test_pictures_are_what_the_method_gives(place: Path, make: Make, tmp_path: Path) -> None:
    """The file, decoded, is the transfer called by hand, as far as JPEG keeps it."""
    from musicon.styletransfer import methods

    make(tmp_path / "b", "--quality", 100, "--alpha", 0.5)
    method = methods.build("adain", {"encoder": str(place / "encoder.safetensors"),
                                     "decoder": str(place / "decoder.safetensors")})
    made, styles = Manifest.read(tmp_path / "b"), Manifest.read(place / "styles")
    record = made.images[3]

    def tensor(file: Path) -> torch.Tensor:
        pixels = np.array(Image.open(file).convert("RGB"), np.float32) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)[None]

    style = next(r for r in styles.images if r.extra["style"] == record.attributes["style"])
    content = Manifest.read(place / "photos").images[record.extra["content_id"] - 10]
    expected = method(tensor(place / "photos" / content.file_name), tensor(styles.path(style)), 0.5)
    got = tensor(made.path(record))
    # In grey: JPEG halves the resolution of colours.
    assert got.shape == expected.shape and (got - expected).mean(1).abs().mean() < 0.02
    assert record.extra["alpha"] == 0.5


def test_shares_processes_and_a_second_run_give_the_same_bytes(place: Path, make: Make,
                                                               tmp_path: Path) -> None:
    assert make(tmp_path / "b") == 0
    whole = contents_of(tmp_path / "b")
    times = {f: f.stat().st_mtime_ns for f in (tmp_path / "b" / "images").rglob("*.jpg")}
    assert make(tmp_path / "b") == 0
    assert contents_of(tmp_path / "b") == whole
    assert all(f.stat().st_mtime_ns == time for f, time in times.items())
    for share in (2, 1, 3):
        assert make(tmp_path / "s", "--shard", f"{share}/3") == 0
        assert not (tmp_path / "s" / "manifest.json").exists()
    assert make(tmp_path / "s") == 0
    assert contents_of(tmp_path / "s") == whole
    assert make(tmp_path / "p", "--workers", 2) == 0
    assert contents_of(tmp_path / "p") == whole


def test_ray_gives_the_same_bytes(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="an extra: pip install -e .[ray]")
    assert make(tmp_path / "b") == 0
    assert make(tmp_path / "r", "--engine", "ray") == 0
    assert contents_of(tmp_path / "r") == contents_of(tmp_path / "b")


def test_without_ray_the_error_names_the_extra(make: Make, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert make(tmp_path / "b", "--engine", "ray") == 2
    assert "pip install 'ray[data]'" in capsys.readouterr().err


def test_a_changed_setting_redoes_only_what_it_touches(place: Path, make: Make,
                                                       tmp_path: Path) -> None:
    out = tmp_path / "b"
    make(out)
    first = contents_of(out / "images")
    make(out, "--per-image", 3)
    more = contents_of(out / "images")
    assert len(more) == 12 and first.items() <= more.items()
    make(out, "--per-image", 3, "--alpha", 0.7)
    assert not contents_of(out / "images").keys() & more.keys()
    make(out)
    assert contents_of(out / "images") == first
    photos = Manifest.read(place / "photos")
    boxes = (replace(photos.images[0].boxes[0], label=2),)
    changed = replace(photos, images=(replace(photos.images[0], boxes=boxes, labels=(2,)),
                                      *photos.images[1:]))
    try:
        changed.write(place / "photos")
        make(out)
    finally:
        photos.write(place / "photos")
    assert contents_of(out / "images") == first  # a corrected name repaints nothing
    assert Manifest.read(out).images[0].boxes[0].label == 2


def test_killed_and_run_again_gives_the_same_bytes(place: Path, make: Make, tmp_path: Path) -> None:
    make(tmp_path / "whole")
    out = tmp_path / "killed"
    words = [sys.executable, str(ROOT / "tools/build_bank.py"), "make", "--content",
             str(place / "photos"), "--styles", str(place / "styles"), "--out", str(out),
             "--per-image", "2", "--workers", "1", "--quiet", "--set",
             f"encoder={place}/encoder.safetensors", f"decoder={place}/decoder.safetensors"]
    with subprocess.Popen(words) as running:
        give_up = time.monotonic() + 120
        while running.poll() is None and not list(out.glob("images/*/*.jpg")):
            assert time.monotonic() < give_up
            time.sleep(0.005)
        os.kill(running.pid, signal.SIGKILL)
    there = list(out.glob("images/*/*.jpg"))
    assert there
    there[0].with_name(".half.part").write_bytes(b"half")
    make(out)
    assert contents_of(out) == contents_of(tmp_path / "whole")


def test_check_finds_damage_and_make_mends_it(make: Make, tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "b"
    make(out)
    whole = contents_of(out)
    assert build_bank("make", "--check", "--out", out) == 0
    pictures = sorted(out.glob("images/*/*.jpg"))
    pictures[0].write_bytes(pictures[0].read_bytes()[:-1] + b"!")
    pictures[1].unlink()
    capsys.readouterr()
    assert build_bank("make", "--check", "--out", out) == command.DONE_WITH_REJECTS
    said = capsys.readouterr().out
    assert f"changed: {pictures[0].relative_to(out)}" in said
    assert f"missing: {pictures[1].relative_to(out)}" in said
    make(out)
    assert contents_of(out) == whole


def test_too_little_disk_is_said_before_anything_is_made(
        make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bank, "free_bytes", lambda folder: bank.RESERVE + 1000)
    assert make(tmp_path / "b") == 2
    assert "GB are needed" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_an_unreadable_content_is_counted_and_left_out(place: Path, make: Make,
                                                       tmp_path: Path) -> None:
    file = place / "photos" / "photo 2.png"
    sound = file.read_bytes()
    try:
        file.write_bytes(sound[:60])
        assert make(tmp_path / "b") == command.DONE_WITH_REJECTS
    finally:
        file.write_bytes(sound)
    rows = [json.loads(line) for line in (tmp_path / "b/rejects.jsonl").read_text().splitlines()]
    assert len(rows) == 1 and rows[0]["file"].endswith("photo 2.png")
    assert len(Manifest.read(tmp_path / "b")) == 6


@pytest.mark.parametrize(("arguments", "sentence"), [
    (("--per-image", 40), "there are 4 styles"),
    (("--method", "adian"), "adain"),
    (("--set", "encodr=1"), "encodr is no setting"),
])
def test_errors_say_what_to_type(make: Make, tmp_path: Path, arguments: tuple[object, ...],
                                 sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path / "b", *arguments) == 2
    assert sentence in capsys.readouterr().err


def test_test_pictures_cannot_be_asked_for(make: Make, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        make(tmp_path / "b", "--split", "test")


@given(count=st.integers(1, 60), groups=st.lists(st.integers(0, 5), min_size=1, max_size=12),
       seed=st.integers(0, 99), data=st.data())
def test_draws_are_balanced_distinct_and_stable(count: int, groups: list[int], seed: int,
                                                data: st.DataObject) -> None:
    keys = [f"content {n}" for n in range(count)]
    named = [f"cluster {g}" for g in groups]
    names = [f"style {n}" for n in range(len(groups))]
    rounds = data.draw(st.integers(1, len(groups)))
    drawn = draw(keys, named, names, rounds, seed)
    assert all(len(set(row)) == rounds for row in drawn)
    first = Counter(groups[row[0]] for row in drawn)
    assert max(first.values()) - min(first[g] for g in set(groups)) <= 1
    assert [row[:1] for row in drawn] == draw(keys, named, names, 1, seed)  # more leave the first
    order = data.draw(st.permutations(range(count)))
    again = draw([keys[i] for i in order], named, names, rounds, seed)
    assert [drawn[i] for i in order] == again


def test_another_seed_draws_otherwise() -> None:
    keys, groups = [str(n) for n in range(40)], [str(n) for n in range(8)]
    assert draw(keys, groups, groups, 2, 0) != draw(keys, groups, groups, 2, 1)
    counts = Counter(style for row in draw(keys, groups, groups, 4, 0) for style in row)
    assert min(counts.values()) >= 19 and max(counts.values()) <= 21  # 20 each, on average


def test_composed_scenes_are_styled_as_wholes(place: Path, make: Make, tmp_path: Path) -> None:
    photos = []
    for number in range(4):
        image = np.full((80, 90, 3), 255, np.uint8)
        image[20:60, 25:65] = painted(number % 3, number, (40, 40))
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "p" / f"{number}.png")
        photos.append(ImageRecord(number + 1, f"{number}.png", 90, 80, labels=(1 + number % 2,),
                                  split="train", domain="mimo"))
    Manifest(tmp_path / "p", (Category(1, "lute"), Category(2, "harp")), tuple(photos)).write(
        tmp_path / "p")
    common = ("--content", tmp_path / "p", "--composites", 5, "--size", 80)
    assert make(tmp_path / "b", *common) == 2  # no grounds
    assert make(tmp_path / "b", *common, "--grounds", place / "paintings") == 0
    made, scenes = Manifest.read(tmp_path / "b"), Manifest.read(tmp_path / "b" / "scenes")
    assert len(scenes) == 5 and len(made) == 2 * (4 + 5)
    assert sum(len(record.boxes) for record in scenes.images) > 0
    for record in made.images:
        if record.attributes["content"].startswith("scenes/"):
            scene = scenes.images[record.extra["content_id"] - 1]
            assert [b.xyxy for b in record.boxes] == [b.xyxy for b in scene.boxes]
            assert {b.origin for b in scene.boxes} <= {"composite"}
            assert {b.origin for b in record.boxes} <= {"style"}
    whole = contents_of(tmp_path / "b")
    next((tmp_path / "b" / "scenes").glob("images/*/*.png")).unlink()
    assert make(tmp_path / "b", *common, "--grounds", place / "paintings") == 0
    assert contents_of(tmp_path / "b") == whole


def test_the_contact_sheet_shows_contents_and_styles(place: Path, make: Make, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "b")
    sheet = tmp_path / "sheet.png"
    assert build_bank("show", tmp_path / "b", "--content", place / "photos", "--styles",
                      place / "styles", "--out", sheet, "--rows", 3, "--columns", 2) == 0
    bare = tmp_path / "bare.png"
    build_bank("show", tmp_path / "b", "--out", bare, "--rows", 3, "--columns", 2)
    larger, smaller = np.asarray(Image.open(sheet)), np.asarray(Image.open(bare))
    column = larger.shape[1] - smaller.shape[1]
    assert larger.shape[0] == smaller.shape[0] and column > 150
    # Beside the content as it was, the same styled pictures, but for a style in a corner of each.
    first = slice(26, 190)
    assert len(np.unique(larger[first, :column].reshape(-1, 3), axis=0)) > 100
    apart = (larger[first, column:] != smaller[first]).any(axis=2).mean()
    assert 0.02 < apart < 0.2
    assert build_bank("show", place / "photos", "--out", sheet) == 2
    assert "make a bank" in capsys.readouterr().err
