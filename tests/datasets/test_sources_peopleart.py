"""PeopleArt's paths and annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from musicon.datasets.records import Rejects
from musicon.datasets.sources.base import SourceData, SourceError
from musicon.datasets.sources.peopleart import from_path

Draw = Callable[..., Path]
Reader = Callable[..., tuple[SourceData, Rejects]]
PERSON = ("<annotation><object><name>person</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
          "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>")


@pytest.mark.parametrize(("stem", "painter", "title", "year"), [
    ("henri-martin_bucolic", "henri-martin", "bucolic", None),
    ("henri-martin_country-house-1910", "henri-martin", "country house", "1910"),
    ("dorothy-lathrop_a-little-boy-lost-1920-23", "dorothy-lathrop", "a little boy lost", "1920"),
    ("albrecht-altdorfer_the-battle-of-issus-fragment-1529-7", "albrecht-altdorfer",
     "the battle of issus fragment", "1529"),
    ("ivan-vladimirov_bloody-sunday-january-9-1905-1", "ivan-vladimirov",
     "bloody sunday january 9", "1905"),
    ("nicholas-roerich_himalayas-41", "nicholas-roerich", "himalayas 41", None),
    ("hiro-yamagata_not-detected-272393", "hiro-yamagata", "not detected 272393", None),
    ("utagawa-kunisada_not_detected_240316", "utagawa-kunisada", "not detected 240316", None),
    ("scan12", None, None, None),
])
def test_from_path(stem: str, painter: str | None, title: str | None, year: str | None) -> None:
    told = from_path(f"ArtNouveau(Modern)/{stem}.jpg")
    assert told.pop("movement") == "ArtNouveau(Modern)"
    assert told == {k: v for k, v in
                    {"painter": painter, "title": title, "year": year}.items() if v}


def test_labels_say_what_is_known(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    draw("JPEGImages/Cubism/juan-gris_guitar-1912.jpg")
    draw("JPEGImages/Rococo/a_b.jpg")
    (tmp_path / "Annotations/Cubism").mkdir(parents=True)
    (tmp_path / "Annotations/Cubism/juan-gris_guitar-1912.jpg.xml").write_text(PERSON)
    data, rejects = read_source("peopleart", tmp_path)
    assert [r.file_name for _, r in data.records] == ["Cubism/juan-gris_guitar-1912.jpg",
                                                      "Rococo/a_b.jpg"]
    assert [r.labels for _, r in data.records] == [None, None] and not data.categories
    assert "nobody looked" in data.notes[0] and len(rejects) == 0
    data, _ = read_source("peopleart", tmp_path, "--without-instruments")
    assert all(r.is_negative for _, r in data.records)
    data, _ = read_source("peopleart", tmp_path, "--persons")
    assert [c.name for c in data.categories] == ["person"]
    assert [r.boxes[0].xyxy for _, r in data.records if r.boxes] == [(0, 0, 9, 9)]


def test_splits_of_a_class(tmp_path: Path, draw: Draw, read_source: Reader) -> None:
    sets = tmp_path / "ImageSets/Main"
    sets.mkdir(parents=True)
    (tmp_path / "Annotations").mkdir()
    for name in ("a_x", "b_y"):
        draw(f"JPEGImages/Cubism/{name}.jpg")
        (tmp_path / f"Annotations/{name}.xml").write_text("<annotation/>")
    (sets / "person_train.txt").write_text("Cubism/a_x.jpg 1\n")
    (sets / "person_test.txt").write_text("Cubism/b_y.jpg -1\n")
    data, _ = read_source("peopleart", tmp_path)
    assert [r.split for _, r in data.records] == ["train", "test"]


def test_unusable(tmp_path: Path, read_source: Reader) -> None:
    with pytest.raises(SourceError, match="no pictures"):
        read_source("peopleart", tmp_path)


@pytest.mark.real
def test_paintings_peopleart(real_fixture: Path, read_source: Reader) -> None:
    folder = real_fixture / "paintings_peopleart"
    data, rejects = read_source("peopleart", folder, "--without-instruments")
    assert len(data.records) == 480 and len(rejects) == 0
    assert set(Counter(r.attributes["movement"] for _, r in data.records).values()) == {40}
    assert all(r.is_negative and r.attributes["painter"] and r.attributes["title"]
               for _, r in data.records)
    years = [int(r.attributes["year"]) for _, r in data.records if "year" in r.attributes]
    assert len(years) > 200 and min(years) > 1400 and max(years) < 2020
    data, _ = read_source("peopleart", folder, "--persons")
    assert sum(bool(r.boxes) for _, r in data.records) == 105
