"""Pairing of the model's classes with the data's."""

from __future__ import annotations

from musicon.datasets.records import Category
from musicon.detect.alignment import align


def categories(*names: str, first: int = 1) -> tuple[Category, ...]:
    return tuple(Category(i, name) for i, name in enumerate(names, start=first))


def unchanged(name: str) -> str:
    return name


def test_same_names_pair_whatever_their_ids_and_case() -> None:
    result = align(categories("Harp", "lute"), categories("lute", "harp", first=7), unchanged)
    assert result.to_common == {1: 8, 2: 7}
    assert result.shared == (7, 8) and not result.data_only and not result.model_only


def test_no_model_categories_means_the_data_s_own() -> None:
    result = align(None, categories("lute", "harp", first=3))
    assert result.to_common == {3: 3, 4: 4} and result.shared == (3, 4)


def test_classes_of_one_side_are_kept_under_ids_of_their_own() -> None:
    result = align(categories("kazoo", "harp", "bell"), categories("harp", "drum"), unchanged)
    assert result.shared == (1,) and result.data_only == (2,)
    assert [result.names[i] for i in result.model_only] == ["kazoo", "bell"]
    assert sorted(result.to_common.values()) == sorted({1, *result.model_only})


def test_vocabulary_pairs_what_spelling_does_not() -> None:
    canonical = {"Geige": "violin", "fiddle": "violin", "violin": "violin"}
    result = align(categories("Geige", "harp"), categories("violin", "harp"),
                   lambda name: canonical.get(name, name))
    assert result.to_common == {1: 1, 2: 2} and result.renamed == (("Geige", "violin"),)


def test_class_of_the_data_that_nothing_has_paired_with_goes_first() -> None:
    canonical = {"Geige": "violin", "fiddle": "violin"}
    result = align(categories("violin", "Geige"), categories("violin", "fiddle"),
                   lambda name: canonical.get(name, name))
    assert result.to_common == {1: 1, 2: 2}


def test_two_model_classes_of_one_meaning_share_the_data_s_class() -> None:
    canonical = {"Geige": "violin", "viool": "violin"}
    result = align(categories("Geige", "viool"), categories("violin"),
                   lambda name: canonical.get(name, name))
    assert result.to_common == {1: 1, 2: 1} and len(result.renamed) == 2


def test_taxonomy_finds_other_languages() -> None:
    result = align(categories("Geige"), categories("violin"))
    assert result.to_common == {1: 1} and result.renamed == (("Geige", "violin"),)
