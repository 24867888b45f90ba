"""The table is what its sources make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from musicon.datasets import taxonomy_table
from musicon.datasets.records import UserError
from musicon.datasets.taxonomy_table import TABLES, make_table, write_classes, write_table


def _entry(label: str, keyword: int, **names: str) -> dict[str, object]:
    return {"Label": label, "MIMOPage": str(keyword), "Translations": {"en": label, **names}}


def _vocabulary(folder: Path, entries: list[dict[str, object]], classes: dict[str, object]) -> Path:
    (folder / "translations.json").write_text(json.dumps(entries), encoding="utf-8")
    (folder / "hornbostelSachs.json").write_text(json.dumps(classes), encoding="utf-8")
    return folder


def test_plurals_join_placeholders_go_and_classes_arrive(tmp_path: Path) -> None:
    entries = [
        _entry("Rebec", 3202, de="Rebec", fr="Rebec (To be translated)", es="Reb?c", it="Ribeca"),
        _entry("Lutes", 3313, de="Lauten"), _entry("Lute", 3394, de="Laute", nl="Luit / Loit"),
    ]
    classes = {"321.3": {"Label": "Handle lutes", "Instruments": ["Lutes"], "MIMOPage": "9",
                         "Description": "Of wood. (en)"},
               "321.321": {"Label": "Necked", "Instruments": ["Lute", "instrumentskeywords:3202"],
                           "MIMOPage": "10", "Description": None}}
    rows = {row.name: row for row in make_table(_vocabulary(tmp_path, entries, classes))}
    assert "lutes" not in rows
    lute, rebec = rows["lute"], rows["rebec"]
    assert (lute.mimo, lute.also, lute.family, lute.hornbostel_sachs) == (
        "3394", ("3313",), "lutes", "321.321")
    assert lute.names == {"en": ("lutes",), "de": ("Laute", "Lauten"), "nl": ("Luit", "Loit")}
    assert rebec.names == {"it": ("Ribeca",)}
    assert (rebec.family, rebec.supercategory, rebec.hornbostel_sachs) == (
        "fiddles", "strings", "321.321")
    assert rows["handpan"].mimo == ""
    write_table(rows.values(), tmp_path / "table.tsv")
    read = {row["name"]: row for row in taxonomy_table.read_tsv(tmp_path / "table.tsv")}
    assert read["lute"]["nl"] == "Luit | Loit" and read["lute"]["also"] == "3313"
    assert write_classes(tmp_path, tmp_path / "classes.tsv") == 2
    assert taxonomy_table.read_tsv(tmp_path / "classes.tsv")[0]["description"] == "Of wood."


def test_slipped_rows_are_dropped(tmp_path: Path) -> None:
    entries = [_entry("Kayamba", 8300, es="Ukulele", fr="Cayamba"),
               _entry("Gangsa", 5209, pl="Zhangu"), _entry("Zhangu", 2804)]
    rows = {row.name: row for row in make_table(_vocabulary(tmp_path, entries, {"1": {
        "Label": "x", "Instruments": [], "MIMOPage": "1", "Description": ""}}))}
    assert rows["kayamba"].names == {"fr": ("Cayamba",)}
    assert rows["gangsa"].names == {}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_wrong_vocabulary_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "translations.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="translations.json"):
        make_table(tmp_path)
    with pytest.raises(UserError, match="missing"):
        make_table(tmp_path / "missing")


def test_tables_are_small_plain_text() -> None:
    files = list(TABLES.glob("*.tsv"))
    assert len(files) == 7 and sum(file.stat().st_size for file in files) < 1_500_000


@pytest.mark.real
def test_the_shipped_tables_are_up_to_date(real_fixture: Path, tmp_path: Path) -> None:
    vocabulary = real_fixture / "vocabulary"
    write_table(make_table(vocabulary), tmp_path / "instruments.tsv")
    assert write_classes(vocabulary, tmp_path / "hornbostel_sachs.tsv") == 643
    for name in ("instruments.tsv", "hornbostel_sachs.tsv"):
        assert (tmp_path / name).read_bytes() == (TABLES / name).read_bytes()
