"""Masks of COCO's annotations are checked before pycocotools reads them in C, without bounds."""

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from extremal.benchmark.data.coco import _check_segmentation, _sum_runs

SIZE = (12, 16)
SQUARE = [1.0, 1.0, 8.0, 1.0, 8.0, 7.0]


def pack(mask: np.ndarray[Any, Any]) -> str:
    counts: str = rle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    return counts


def test_runs_are_summed_as_pycocotools_packs_them() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        height, width = generator.integers(1, 90, 2)
        mask = generator.random((height, width)) < generator.random()
        assert _sum_runs(pack(mask)) == height * width


@pytest.mark.parametrize(
    "segmentation",
    [[SQUARE], [[-8, 0, 20, 0, 20, 20]], {"size": [12, 16], "counts": [100, 20, 72]}, {"size": [12, 16], "counts": ""}],
)
def test_what_fits_is_taken(segmentation: Any) -> None:
    if segmentation == {"size": [12, 16], "counts": ""}:
        segmentation["counts"] = pack(np.eye(12, 16))
    _check_segmentation(segmentation, SIZE)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[*SQUARE[:5], 1e308]],
        [[*SQUARE[:5], float("nan")]],
        [[*SQUARE[:5], 10**400]],
        [[*SQUARE[:5], None]],
        [SQUARE[:4]],
        [SQUARE[:5]],
        {"size": [10**9, 10**9], "counts": [100, 20, 72]},
        {"size": [12, 16], "counts": [10**12, 20, 72]},
        {"size": [12, 16], "counts": [-100, 220, 72]},
        {"size": [12, 16], "counts": "zzzzzzzzzz"},
        {"size": [12, 16], "counts": "é"},
        {"size": [12, 16], "counts": "0" * 5},
        {"size": [12, 16], "counts": None},
    ],
)
def test_what_does_not_is_refused(segmentation: Any) -> None:
    with pytest.raises(ValueError, match=r"mask|runs|polygon"):
        _check_segmentation(segmentation, SIZE)
