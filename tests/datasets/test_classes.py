"""Merged and rare classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from musicon.datasets.classes import fewer, read_rules
from musicon.datasets.records import Box, Category, ImageRecord, UserError
from musicon.datasets.taxonomy import Taxonomy


def classes(*names: str) -> tuple[Category, ...]:
    taxonomy = Taxonomy.load()
    return tuple(Taxonomy.to_category(taxonomy[n], i) if n in taxonomy else Category(i, n)
                 for i, n in enumerate(names, start=1))


def pictures(*labels: tuple[int, ...]) -> list[tuple[Path, ImageRecord]]:
    return [(Path(f"{i}.jpg"), ImageRecord(i, f"{i}.jpg", 40, 30, labels=some, boxes=tuple(
        Box((1, 1, 9, 9), label) for label in some))) for i, some in enumerate(labels)]


def shown(categories: tuple[Category, ...], items: list[tuple[Path, ImageRecord]]) -> list[str]:
    names = {c.id: c.name for c in categories}
    return [" ".join(names[i] for i in r.known_labels) for _, r in items]


def test_rules_merge_by_family_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("violin family: [family:violins]\ntuba: [saxhorn, tuba]\n")
    rules = read_rules(tmp_path / "rules.yaml")
    found, items, notes = fewer(classes("violin", "saxhorn", "cello", "tuba", "harp"), pictures(
        (1, 3), (2,), (4,), (5,), ()), rules, 0)
    assert [c.name for c in found] == ["violin family", "tuba", "harp"]
    assert [c.id for c in found] == [1, 2, 3]
    assert shown(found, items) == ["violin family", "tuba", "tuba", "harp", ""]
    assert found[0].supercategory == "strings" and found[0].extra["source_names"] == [
        "violin", "cello"]
    assert found[1].mimo == Taxonomy.load()["tuba"].mimo  # the instrument of the group's name
    assert notes == ["violin family: violin, cello", "tuba: saxhorn"]
    assert [b.label for b in items[0][1].boxes] == [1, 1]  # both stay


def test_rare_classes_go_up_and_never_vanish() -> None:
    names = ("saxophone", "alto saxophone", "violin", "cello", "viola", "rebec", "my thing")
    rows = [(1,)] * 5 + [(2,)] + [(3,)] * 5 + [(4,), (4,), (5,), (6,), (7,)]
    found, items, notes = fewer(classes(*names), pictures(*rows), {}, 3)
    after = shown(found, items)
    assert after[:6] == ["saxophone"] * 6  # the alto is a saxophone
    assert after[6:11] == ["violin"] * 5
    assert after[11:14] == ["other violins"] * 3  # cellos and viola together are enough
    assert after[14].startswith("other ") and after[15] == "my thing"
    assert any("alto saxophone became saxophone" in note for note in notes)
    assert any(note.startswith("still in fewer than 3 pictures") for note in notes)
    assert len(items) == len(rows) and all(r.known_labels for _, r in items)


def test_nothing_asked_changes_nothing() -> None:
    categories = classes("violin", "harp")
    items = pictures((1,), (2,), (), (1, 2))
    assert fewer(categories, items, {}, 0) == (categories, items, [])


def test_unlabelled_pictures_stay_so() -> None:
    path = Path("a.jpg")
    record = ImageRecord(1, "a.jpg", 4, 4, labels=None)
    _, items, _ = fewer(classes("violin"), [(path, record)], {"strings": ["violin"]}, 0)
    assert items[0][1].labels is None


def test_unusable_rules(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a readable YAML"):
        read_rules(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_text("- violin\n")
    with pytest.raises(UserError, match="expected lines 'group"):
        read_rules(tmp_path / "a.yaml")
    with pytest.raises(UserError, match="qwertzuiop"):
        fewer(classes("violin"), [], {"x": ["qwertzuiop"]}, 0)
