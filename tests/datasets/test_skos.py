"""The taxonomy as SKOS: one concept written out by hand, and what SKOS asks of all of them."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from musicon.datasets import skos
from musicon.datasets.files import UserError
from musicon.datasets.taxonomy import Taxonomy

TAXONOMY = Taxonomy.load()
CONCEPTS = {found[1]: found[2] for text in skos.turtle(TAXONOMY)
            if (found := re.match(r"<(\S+)> a skos:Concept( .*)", text, re.S))}


def test_a_concept() -> None:
    lines = CONCEPTS["urn:musicon:instrument/viola%20d%27amore"].splitlines()
    assert [line.strip(" ;.") for line in lines if "@" not in line or "@en" in line] == [
        "", "skos:inScheme <urn:musicon:instruments>", 'skos:prefLabel "viola d\'amore"@en',
        "skos:broader <urn:musicon:family/viols>", 'skos:notation "321.322-71"',
        "skos:broadMatch <http://www.mimo-db.eu/HornbostelAndSachs/6473>",
        "skos:exactMatch <http://www.mimo-db.eu/InstrumentsKeywords/3608>",
        "skos:exactMatch <http://www.wikidata.org/entity/Q742180>"]
    assert lines[-1].endswith(" .") and all(line.endswith(" ;") for line in lines[:-1])
    assert 'skos:prefLabel "小提琴"@zh' in CONCEPTS["urn:musicon:instrument/violin"]


def test_every_concept_keeps_the_rules_of_skos() -> None:
    above = {concept: re.findall(r"skos:broader <(\S+)>", text)
             for concept, text in CONCEPTS.items()}
    for concept, text in CONCEPTS.items():
        labels = re.findall(r'skos:(\w+)Label ("(?:[^"\\]|\\.)*"@\w+)', text)
        preferred = Counter(label.rpartition("@")[2] for kind, label in labels if kind == "pref")
        assert preferred["en"] == 1 and max(preferred.values()) == 1, concept
        assert len({label for _, label in labels}) == len(labels), concept
        assert set(above[concept]) <= CONCEPTS.keys() and len(above[concept]) <= 1, concept
        assert all(concept in above[below] for below in re.findall(r"narrower <(\S+)>", text))
        seen = {concept}
        while above[concept]:  # a concept above itself would never end, but for this
            concept = above[concept][0]
            assert concept not in seen
            seen.add(concept)
    assert len(CONCEPTS) > len(TAXONOMY) + len(TAXONOMY.hs_tree)


def test_addresses_of_ones_own() -> None:
    text = "".join(skos.turtle(TAXONOMY, "https://example.org/"))
    assert "urn:musicon" not in text and "<https://example.org/instrument/harp> a skos:" in text
    assert next(skos.turtle(TAXONOMY, "urn:ours:"))
    for broken in ("https://example.org", "example.org/", "https://a b/", "https://a>/", ""):
        with pytest.raises(UserError, match="--base .*: write an address that ends in"):
            next(skos.turtle(TAXONOMY, broken))
