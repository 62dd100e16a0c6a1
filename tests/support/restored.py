"""Explanations written as rows, read back, and compared with the restored ones."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extremal import Explanation, Network
from extremal.files import content_hash
from extremal.jobs.rows import SCHEMA, build_row
from extremal.jobs.store import open_store
from support.runs import run_settings
from support.toys import Switchable


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image as the network takes it: (3, H, W) around zero."""
    return torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 127.5 - 1


def make_network(preprocess: Any = to_tensor, **options: Any) -> Network:
    """Make a network with four classes."""
    return Network(Switchable(), preprocess, ("a", "b", "c", "d"), mirror=True, **options)


def write_images(folder: Path) -> list[str]:
    """Write three files of noise, 32 × 24 px."""
    draw, paths = np.random.default_rng(0), [str(folder / f"{name}.png") for name in ("one", "two", "three")]
    for path in paths:
        Image.fromarray(draw.integers(0, 256, (24, 32, 3)).astype(np.uint8)).save(path)
    return paths


def write_and_read(explanation: Explanation, paths: list[str], folder: Path) -> list[dict[str, Any]]:
    """Return the rows of an explanation, written to the store of a run and read back."""
    rows = [
        build_row(explanation, image, key=path, path=path, digest=content_hash(path), seconds=0.5)
        for image, path in enumerate(paths)
    ]
    with open_store(folder / "run", run_settings(explanation), SCHEMA) as store:
        store.write("a", rows)
        stored_rows: list[dict[str, Any]] = store.read_all().to_pylist()
    return stored_rows


def assert_same(restored: Explanation, explanation: Explanation, image: int = 0) -> None:
    """Assert that every field equals that of one input of the explanation, numbers up to a millionth."""
    for field in dataclasses.fields(Explanation):
        actual, expected = getattr(restored, field.name), getattr(explanation, field.name)
        if field.name == "settings":
            actual, expected = ({**settings, "evaluations": {}} for settings in (actual, expected))
        if field.name in ("target", "target_names", "left_out", "status"):
            expected = expected[image : image + 1]
        if not isinstance(expected, Tensor):
            assert actual == expected, field.name
            continue
        if field.name not in ("trace_step", "within", "units"):
            expected = expected[image : image + 1]
        torch.testing.assert_close(
            actual, expected, atol=1e-6, rtol=1e-6, equal_nan=True, msg=lambda text, name=field.name: f"{name}: {text}"
        )


def assert_exact(restored: Explanation, explanation: Explanation) -> None:
    """Assert that the one input's explanation is restored bit for bit."""
    assert_same(restored, explanation)
    assert restored == explanation
