"""Export of cut masks: exact values, holes, borders, and refusal of invalid masks."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.area import cut_one
from extremal.masking.level_set import LevelSet
from extremal.report.export import coco_rle, polygons, write_mask, write_png
from support.errors import message_of

WRITERS = [
    lambda mask, folder: write_png(mask, folder / "mask.png"),
    lambda mask, _: coco_rle(mask),
    lambda mask, _: polygons(mask),
]


def smooth_mask(area: float, shape: tuple[int, ...] = (96, 128)) -> Tensor:
    """A random smooth mask, cut: (1, H, W)."""
    family = LevelSet(shape)
    noise = torch.randn(1, 1, *family.parameter_shape, generator=torch.Generator().manual_seed(7))
    return cut_one(family(noise, torch.tensor([area]), 0.3), area)[0]


def rasterise(rings: list[list[float]], shape: tuple[int, int]) -> Tensor:
    """Polygons rasterised by COCO's own tool: (H, W)."""
    return torch.from_numpy(coco.decode(coco.merge(coco.frPyObjects(rings, *shape))))


def compute_iou(a: Tensor, b: Tensor) -> float:
    return float(torch.minimum(a, b).sum() / torch.maximum(a, b).sum())


@pytest.mark.parametrize("area", [0.02, 0.2, 0.5])
def test_png_has_the_values_of_the_mask(tmp_path: Path, area: float) -> None:
    mask = smooth_mask(area)
    write_png(mask, tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as picture:
        assert (picture.mode, picture.size) == ("L", (128, 96))
        assert np.array_equal(np.asarray(picture), mask[0].byte().numpy() * 255)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.png"]


def test_png_into_a_missing_folder(tmp_path: Path) -> None:
    folder = tmp_path / "no"
    with pytest.raises(ExtremalValueError) as caught:
        write_png(smooth_mask(0.1), folder / "mask.png")
    assert str(caught.value) == (
        f"an output must lie in a folder that can be written, got {str(folder)!r}: No such file or directory; "
        "choose another folder"
    )


@pytest.mark.parametrize("area", [0.02, 0.2, 0.5])
def test_run_lengths_are_exact_and_text(area: float) -> None:
    mask = smooth_mask(area)
    encoded = json.loads(json.dumps(coco_rle(mask)))
    assert encoded["size"] == [96, 128]
    assert np.array_equal(coco.decode(encoded), mask[0].numpy())
    assert int(coco.area(encoded)) == round(area * 96 * 128)


def test_run_lengths_keep_holes_and_empty_masks() -> None:
    ring = torch.zeros(1, 7, 7)
    ring[:, 1:6, 1:6] = 1
    ring[:, 3, 3] = 0
    assert np.array_equal(coco.decode(coco_rle(ring)), ring[0].numpy())
    assert coco.decode(coco_rle(torch.zeros(1, 3, 4))).sum() == 0


@pytest.mark.parametrize("area", [0.02, 0.05, 0.1, 0.2])
def test_polygons_reproduce_smooth_masks(area: float) -> None:
    mask = smooth_mask(area)
    assert compute_iou(rasterise(polygons(mask), (96, 128)), mask[0].byte()) >= 0.95


def test_polygons_close_at_the_border() -> None:
    whole = torch.ones(1, 12, 20)
    (ring,) = polygons(whole)
    assert (min(ring[::2]), max(ring[::2]), min(ring[1::2]), max(ring[1::2])) == (0, 20, 0, 12)
    assert compute_iou(rasterise([ring], (12, 20)), whole[0].byte()) >= 0.95


def test_polygons_fill_holes_and_separate_parts() -> None:
    mask = torch.zeros(1, 30, 40)
    mask[:, 2:16, 2:16] = 1
    mask[:, 6:12, 6:12] = 0
    filled = mask.clone()
    filled[:, 6:12, 6:12] = 1
    mask[:, 20:28, 24:36] = filled[:, 20:28, 24:36] = 1
    rings = polygons(mask)
    assert len(rings) == 2
    assert compute_iou(rasterise(rings, (30, 40)), filled[0].byte()) >= 0.95


def test_polygons_of_nothing_and_of_corners() -> None:
    assert polygons(torch.zeros(1, 5, 5)) == []
    assert len(polygons(torch.eye(3)[None])) == 3


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float64, torch.bfloat16])
def test_any_dtype(dtype: torch.dtype) -> None:
    mask = smooth_mask(0.1)
    assert coco_rle(mask.to(dtype)) == coco_rle(mask)


@pytest.mark.parametrize("write", WRITERS)
class TestErrors:
    @pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (1, 1, 4, 4), (1, 4), (1, 0, 4)])
    def test_shape(self, tmp_path: Path, write: object, shape: tuple[int, ...]) -> None:
        message = f"a mask must be one image, (1, H, W), got shape {shape}; e.g. explanation.binary(0.1)[0]"
        with pytest.raises(ExtremalValueError, match=f"^{re.escape(message)}$"):
            write(torch.zeros(shape), tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_grey(self, tmp_path: Path, write: object) -> None:
        mask = torch.zeros(1, 4, 4)
        mask[0, 0] = torch.tensor([0.5, 2.0, float("nan"), 1.0])
        message = "a mask must be cut to zeros and ones, got 3 other values; use Explanation.binary(area)"
        with pytest.raises(ExtremalValueError, match=f"^{re.escape(message)}$"):
            write(mask, tmp_path)

    def test_not_a_tensor(self, tmp_path: Path, write: object) -> None:
        message = "a mask must be a tensor (1, *S) of zeros and ones, got ndarray; e.g. explanation.binary(0.1)[0]"
        with pytest.raises(ExtremalTypeError, match=f"^{re.escape(message)}$"):
            write(np.zeros((1, 4, 4)), tmp_path)


class TestMaskFiles:
    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (torch.full((1, 3, 4), 0.9), "a mask must be cut to zeros and ones, got 12 other values"),
            (torch.zeros(4), "a mask must be one of an input, (1, *S), got shape (4,)"),
            (np.zeros((1, 3)), "a mask must be a tensor (1, *S) of zeros and ones, got ndarray"),
        ],
    )
    def test_arrays_are_checked_as_pictures_are(self, tmp_path: Path, mask: Any, message: str) -> None:
        assert message_of(write_mask, mask, tmp_path / "mask.npy").startswith(message)
        assert list(tmp_path.iterdir()) == []

    def test_other_files(self, tmp_path: Path) -> None:
        message = message_of(write_mask, torch.zeros(1, 3, 4), tmp_path / "mask.jpg")
        assert message.startswith("a mask must be written to a .png or .npy file, got ")
        write_mask(torch.ones(1, 5), tmp_path / "mask.npy")
        assert np.load(tmp_path / "mask.npy").tolist() == [1] * 5
