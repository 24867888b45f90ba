"""What is drawn, by whatever process: even shares, and the same batches from loader processes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from musicon.detect.sampling import spread


@given(st.integers(0, 300), st.integers(0, 300))
def test_spread_takes_evenly(size: int, count: int) -> None:
    found = spread(range(size), count)
    assert len(found) == min(size, count)
    gaps = {b - a for a, b in zip(found, found[1:], strict=False)}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)


def test_spread_by_hand() -> None:
    assert spread("abcdefg", 3) == ["a", "c", "e"]
    assert spread([1, 2], 3) == [1, 2]
    assert spread([], 3) == []
