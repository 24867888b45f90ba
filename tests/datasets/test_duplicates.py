"""Near-duplicates among themselves: copies of copies are one group, different pictures are not."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from musicon.datasets.duplicates import copy_groups, fingerprint


def picture(seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).uniform(0, 255, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)


def test_copies_share_a_group_and_others_do_not() -> None:
    a, b, c = (picture(seed) for seed in range(3))
    darker = (a * 0.8 + 9).astype(np.uint8)
    pictures = [b, a, darker, c, cv2.resize(darker[4:-4, 5:-5], (90, 70)), a[:, ::-1].copy(),
                np.full_like(a, 90), np.full_like(a, 90)]
    assert copy_groups([fingerprint(p) for p in pictures]) == [0, 1, 1, 3, 1, 1, 6, 7]
    assert copy_groups([]) == []
