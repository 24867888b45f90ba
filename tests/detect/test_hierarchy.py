"""Names that back off, and scores by family: values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicon.datasets.taxonomy import Taxonomy
from musicon.detect.hierarchy import INSTRUMENT, LEVELS, Hierarchy, SureName, family_of
from musicon.detect.matching import Counts, MatchedImage, level_scores

NAMES = ("violin", "cello", "trumpet", "glorbophone")


def test_families_are_the_taxonomys() -> None:
    assert family_of("violin") == family_of("cello") == Taxonomy.load()["violin"].family
    assert family_of("violin") != family_of("trumpet")
    assert family_of("Geige") == family_of("violin")  # whatever the language
    assert family_of("glorbophone") == "glorbophone"


def test_names_back_off_by_hand() -> None:
    hierarchy = Hierarchy.of(NAMES)
    probabilities = np.array([[0.5, 0.3, 0.1, 0.1, 0.0],    # of .5: violin .6
                              [0.0, 0.35, 0.3, 0.35, 0.0],  # violin .35, with the cello .65
                              [0.0, 0.3, 0.1, 0.3, 0.3],    # no family has half
                              [0.0, 0.2, 0.2, 0.15, 0.45],
                              [1.0, 0.0, 0.0, 0.0, 0.0]])
    found = hierarchy.back_off(probabilities, np.array([1, 1, 1, 4, 2]), 0.5)
    assert found == (SureName("violin", "leaf"), SureName(family_of("violin"), "family"),
                     SureName(INSTRUMENT, "instrument"), SureName(INSTRUMENT, "instrument"),
                     SureName(INSTRUMENT, "instrument"))
    assert hierarchy.back_off(np.zeros((0, 5)), np.zeros(0, int), 0.5) == ()


def test_where_the_families_are_in_doubt_their_kin_may_be_sure() -> None:
    """Guitars, mandolins and lutes are three families, and all of them plucked lutes."""
    names = ("guitar", "mandolin", "lute", "trumpet")
    found = Hierarchy.of(names).back_off(np.array([[0.0, 0.4, 0.3, 0.25, 0.05],
                                                   [0.0, 0.2, 0.1, 0.1, 0.6],
                                                   [0.0, 0.2, 0.2, 0.1, 0.5]]),
                                         np.array([1, 4, 4]), 0.55)
    kin = Taxonomy.load()["guitar"].kin
    assert found == (SureName(kin, "family"), SureName("trumpet", "leaf"),
                     SureName(INSTRUMENT, "instrument"))
    assert kin == Taxonomy.load()["lute"].kin != Taxonomy.load()["lute"].family
    image = MatchedImage(1, np.array([[0, 0, 10, 10.0]]), np.array([3]), np.zeros(1, bool),
                         np.array([[0, 0, 10, 10.0]]), np.array([0.9]), np.array([1]),
                         np.array([0]), False, (found[0],))
    assert level_scores([image], dict(enumerate(names, 1)), 0.5).sure == {"family": (1, 1)}


@given(seed=st.integers(0, 10_000), sure=st.floats(0.01, 1), more=st.floats(0, 1))
def test_asking_for_more_never_makes_a_name_narrower(seed: int, sure: float, more: float) -> None:
    names = (*NAMES, "guitar", "mandolin", "lute")
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(8, 0.4), 6)
    labels = probabilities[:, 1:].argmax(1) + 1
    hierarchy = Hierarchy.of(names)

    circles = (names, hierarchy.families.names, hierarchy.kin.names, (INSTRUMENT,))

    def width(found: SureName) -> int:
        return next(i for i, circle in enumerate(circles) if found.name in circle)

    before = hierarchy.back_off(probabilities, labels, sure)
    after = hierarchy.back_off(probabilities, labels, min(1.0, sure + more))
    assert all(width(b) >= width(a) for a, b in zip(before, after, strict=True))
    assert all(LEVELS.index(b.level) >= LEVELS.index(a.level)
               for a, b in zip(before, after, strict=True))


def matched(sure: tuple[SureName, ...] | None) -> MatchedImage:
    """A violin called a cello, a trumpet found rightly, a miss and a false alarm."""
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [70, 0, 80, 10]], float)
    truths = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], float)
    return MatchedImage(1, truths, np.array([1, 3, 1]), np.zeros(3, bool), boxes,
                        np.array([0.9, 0.8, 0.7]), np.array([2, 3, 1]), np.array([0, 1, -1]),
                        False, sure)


def test_level_scores_by_hand() -> None:
    names = dict(enumerate(NAMES, 1))
    sure = (SureName(family_of("violin"), "family"), SureName("trumpet", "leaf"),
            SureName(INSTRUMENT, "instrument"))
    scores = level_scores([matched(sure)], names, 0.5)
    assert scores.family == Counts(2, 1, 1) and scores.family_accuracy == 1
    assert scores.sure == {"leaf": (1, 1), "family": (1, 1)}  # the false alarm has no true name
    assert scores.sure_accuracy == 1
    bold = level_scores([matched((SureName("cello", "leaf"), *sure[1:]))], names, 0.5)
    assert bold.sure == {"leaf": (2, 1)} and bold.sure_accuracy == pytest.approx(0.5)
    strict = level_scores([matched(sure)], names, 0.85)
    assert strict.family == Counts(1, 0, 2) and strict.sure == {"family": (1, 1)}
    bare = level_scores([matched(None)], names, 0.5)
    assert bare.family_accuracy == 1 and bare.sure == {} and bare.sure_accuracy is None
    nothing = level_scores([], names, 0.5)
    assert nothing.family == Counts(0, 0, 0) and nothing.family_accuracy is None
