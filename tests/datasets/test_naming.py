"""Normal forms, plurals and near names, against values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicon.datasets import naming
from musicon.datasets.naming import NameIndex, normalise


@pytest.mark.parametrize(("name", "form"), [
    ("Flûte à bec", "flute a bec"), ("Bęben", "beben"), ("Fløyte", "floyte"), ("Straße", "strasse"),
    ("hurdy_gurdy", "hurdy gurdy"), ("Jew’s harp", "jews harp"), ("136.mandolin", "mandolin"),
    ("gt_212.mandolin", "mandolin"), ("harp_02.png", "harp"), ("harp1_mo", "harp mo"),
    ("  Bass   Drum ", "bass drum"), ("GuitarElectric", "guitar electric"), ("하프", "하프"),
    ("吉他", "吉他"), ("MIDI guitar", "midi guitar"), ("", ""), ("12", "12"), ("Dvořák", "dvorak"),
])
def test_normal_forms(name: str, form: str) -> None:
    assert normalise(name) == form


@given(st.text(max_size=40))
def test_lower_and_upper_case_and_blanks_make_no_difference(text: str) -> None:
    once = normalise(text)
    assert once == once.strip() and "  " not in once
    assert normalise(f"  {text} ") == once


@given(st.from_regex(r"[a-z]{2,9}( [a-z]{2,9}){0,2}", fullmatch=True))
def test_a_plain_name_is_its_own_normal_form(text: str) -> None:
    if text.split()[0] not in ("gt", "cat", "class", "id", "no"):
        assert normalise(text) == text == normalise(text.upper()) == normalise(text.title())


def test_umlauts_are_known_both_ways() -> None:
    assert naming.spellings("Flöte") == {"flote", "floete"}
    assert naming.spellings("harp") == {"harp"}


@pytest.mark.parametrize(("plural", "singular", "language"), [
    ("guitars", "guitar", "en"), ("violins", "violin", "en"), ("lauten", "laute", "de"),
    ("chitarre", "chitarra", "it"), ("liuti", "liuto", "it"), ("tambours", "tambour", "fr"),
    ("violones", "violon", "es"), ("harpor", "harpa", "sv"), ("gitarren", "gitarre", "de"),
    ("harfy", "harfa", "pl"), ("flautas traversas", "flauta traversa", "es"),
    ("trommen", "trom", "nl"), ("biolinak", "biolina", "eu"), ("吉他类", "吉他", "zh"),
])
def test_plurals(plural: str, singular: str, language: str) -> None:
    assert (singular, language) in set(naming.singulars(plural))


def _index(*names: str) -> NameIndex:
    index = NameIndex()
    for target, name in enumerate(names):
        index.add(name, target, "exact", naming.ENGLISH)
    index.seal()
    return index


@pytest.mark.parametrize(("query", "known", "edits"), [
    ("saxaphone", "saxophone", 1), ("acordian", "accordion", 2), ("guitra", "guitar", 1),
    ("arimba", "marimba", 1), ("xmarimba", "marimba", 1), ("garimba", "marimba", 1),
    ("amrimba", "marimba", 1), ("trumpett", "trumpet", 1),
])
def test_near_names_and_their_distance(query: str, known: str, edits: int) -> None:
    near = _index("saxophone", "accordion", "guitar", "marimba", "trumpet").near(query, 2)
    assert [(n.key, n.edits) for n in near] == [(known, edits)]


def test_an_empty_index_knows_nothing() -> None:
    index = _index()
    assert index.exact("lute") == index.plural("lutes") == index.near("lute", 2) == []
    assert list(index.within("a lute")) == []


@pytest.mark.parametrize(("query", "known", "sure"), [
    ("acordian", "accordion", True), ("marakas", "maracas", True), ("saxaphone", "saxophone", True),
    ("planet", "pianet", False), ("cattle", "rattle", False), ("vilin", "violin", False),
    ("trumpt", "trumpet", True), ("aeroplane", "aerophone", False), ("jacket", "racket", False),
])
def test_what_counts_as_a_misspelling(query: str, known: str, sure: bool) -> None:
    near = _index(known).near(query, 2)
    assert any(naming.is_misspelling(query, n) for n in near) is sure


def test_the_longest_name_is_taken_inside_a_text() -> None:
    index = _index("guitar", "bass guitar", "drum")
    assert [part for part, _ in index.within("the bass guitar and drums")] == [
        "bass guitar", "drums"]


@pytest.mark.parametrize(("first", "second", "may_be_one"), [
    ("christ_crucifiction", "christ_crucifixion", True), ("saint_george", "st_george", True),
    ("st_demetrios", "demetrios st", True), ("wobble horn", "WobbleHorn", True),
    ("wobblephones", "Wobblephone", True),
    ("christ_child", "christ_kid", False), ("st_helen", "st_judas", False),
    ("saint", "st", False), ("sword", "word", False), ("castle", "cattle", False),
    ("saint george", "saint george killing it", False), ("", "a", False)])
def test_names_that_may_mean_one_thing(first: str, second: str, may_be_one: bool) -> None:
    assert naming.alike([first, second]) == ([(first, second)] if may_be_one else [])
    assert bool(naming.alike([second, first])) is may_be_one
