"""Which works a task learns from, and which of them a split keeps together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from musicon.datasets.records import ImageRecord, Manifest
from musicon.detect.outputs import ATTRIBUTE_SCORES
from musicon.detect.tasks import TaskError, available, load
from musicon.detect.tasks.settings import SplitConfig, TaskConfig
from musicon.detect.tasks.works import (
    Works,
    collect,
    deal,
    plain,
    read_splits,
    write_splits,
)

MOVEMENT = load("movement")


def manifest(*rows: dict[str, str], **extra: object) -> Manifest:
    images = tuple(ImageRecord(i, f"{i}.jpg", 9, 9, attributes=row, sha256=f"{i:064}",
                               labels=None, **extra)  # type: ignore[arg-type]
                   for i, row in enumerate(rows))
    return Manifest(Path("data"), (), images)


def config(**changes: object) -> TaskConfig:
    base = {"name": "t", "data": Path("data"), "min_works": 1, "head": {"steps": 1}}
    return TaskConfig.model_validate(base | changes)


def found(data: Manifest, **changes: object) -> Works:
    return collect(data, MOVEMENT, config(**changes))


def test_tasks_that_exist() -> None:
    assert available() == ["medium", "movement", "painter"]
    with pytest.raises(TaskError, match="there are: medium, movement, painter"):
        load("year")


@pytest.mark.parametrize("names", [
    ("Pop Art", "PopArt", "pop_art"), ("Ukiyo-e", "ukiyoe", "UKIYO E"),
    ("印象派", "印象派 ", "印象派"),
    ("Ströme", "STRÖME", "ströme")])
def test_spellings_of_one_class(names: tuple[str, ...]) -> None:
    rows = [{"movement": name} for name in (*names, names[0])] + [{"movement": "other"}]
    works = found(manifest(*rows))
    assert set(works.classes) == {names[0].strip(), "other"}
    assert plain("???") == "???", "a name of signs alone stays one"


def test_classes_are_chosen_and_merged() -> None:
    rows = [{"style": s} for s in ("drawing", "Engraving", "painting", "painting", "vase")]
    works = found(manifest(*rows, {"painter": "x"}),
                  classes={"on paper": ["drawing", "engraving"], "Painting": []})
    assert works.classes == ("Painting", "on paper")
    assert [work.label for work in works.works] == [1, 1, 0, 0]
    assert works.left_out == {"no movement is known": 1,
                              "their movement is not among the classes": 1}
    assert config(classes=["a", "b"]).classes == {"a": ("a",), "b": ("b",)}


def test_small_classes_and_guesses_are_left_out_and_counted() -> None:
    rows = [{"movement": name} for name in ("a", "a", "b", "b", "c")]
    works = found(manifest(*rows), min_works=2)
    assert works.classes == ("a", "b")
    assert works.left_out == {"their movement has fewer than 2 works": 1}
    with pytest.raises(TaskError, match=r"0 classes of movement.*attributes are: movement \(5\)"):
        found(manifest(*rows, extra={ATTRIBUTE_SCORES: {"movement": {"a": 0.9}}}), min_works=2)


def test_painters_and_copies_stay_together() -> None:
    rows = [{"movement": "ab"[i % 2], "painter": f"P. {i // 4}"} for i in range(40)]
    works = found(manifest(*rows))
    dealt = deal(works, MOVEMENT, config(), [0, *range(1, 39), 0]).works
    splits: dict[str, set[str]] = {}
    for work in dealt:
        splits.setdefault(work.record.attributes["painter"], set()).add(work.split)
    assert all(len(found) == 1 for found in splits.values())
    assert dealt[0].split == dealt[39].split, "a copy follows its original"
    assert {work.split for work in dealt} == {"train", "val", "test"}


def test_works_of_unknown_painters_are_not_of_one_hand() -> None:
    painters = ("Anonymous, Flemish", "unknown")
    rows = [{"movement": "ab"[i % 2], "painter": painters[i // 2 % 2]} for i in range(40)]
    data = manifest(*rows[:20], *({"movement": row["movement"]} for row in rows[20:]))
    images = tuple(r if "painter" in r.attributes else replace(r, group="Anoniem")
                   for r in data.images)
    works = collect(Manifest(Path("data"), (), images), MOVEMENT, config())
    dealt = deal(works, MOVEMENT, config(), list(range(40))).works
    assert len({work.group for work in dealt}) == 40


def test_a_record_group_that_names_an_attribute_leaves_the_task_to_decide() -> None:
    rows = [{"painter": "ab"[i % 2]} for i in range(20)]
    images = tuple(ImageRecord(r.id, r.file_name, 9, 9, attributes=r.attributes, sha256=r.sha256,
                               group=r.attributes["painter"]) for r in manifest(*rows).images)
    painter, settings = load("painter"), config()
    works = collect(Manifest(Path("data"), (), images), painter, settings)
    dealt = deal(works, painter, settings, list(range(20)))
    assert {work.split for work in dealt.works if work.label == 0} == {"train", "val", "test"}


def test_given_splits_are_kept() -> None:
    data = manifest(*[{"movement": "ab"[i % 2]} for i in range(8)])
    given = ("train", "train", "val", "test", "test", "train", "train", "train")
    images = tuple(ImageRecord(r.id, r.file_name, 9, 9, attributes=r.attributes, sha256=r.sha256,
                               split=split) for r, split in zip(data.images, given, strict=True))
    settings = config(split=SplitConfig(given=True, apart=()))
    works = collect(Manifest(Path("data"), (), images), MOVEMENT, settings)
    assert [w.split for w in deal(works, MOVEMENT, settings, list(range(8))).works] == list(given)


def test_data_that_leave_nothing_to_learn() -> None:
    with pytest.raises(TaskError, match="1 classes of movement"):
        found(manifest({"movement": "a"}, {"movement": "a"}))
    works = found(manifest(*[{"movement": "ab"[i % 2], "painter": "one"} for i in range(9)]))
    with pytest.raises(TaskError, match=r"no work is left for val.*split\.apart=\[\]"):
        deal(works, MOVEMENT, config(), list(range(9)))


def test_splits_are_kept_on_disk(tmp_path: Path) -> None:
    works = found(manifest(*[{"movement": "ab"[i % 2]} for i in range(20)]))
    dealt = deal(works, MOVEMENT, config(), list(range(20)))
    write_splits(tmp_path, MOVEMENT, dealt)
    assert read_splits(tmp_path) == {work.sha256: work.split for work in dealt.works}
    assert read_splits(tmp_path / "none") == {}
