"""Compute the explanation that the app shows when it is opened.

    python examples/app_example.py

It takes about half a minute. Run it again when the default solver changes; a test compares both. Masks are rounded to
10 binary digits, so that the compressed file is a quarter of what it would be.
"""

import dataclasses
import lzma
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import extremal
from extremal.app.answers import example_path

PHOTOGRAPH = Path(extremal.__file__).parent / "app" / "photographs" / "tripod.jpg"
KEPT_BITS = 10  # of the 23 of a fraction


def round_bits(values: Tensor) -> Tensor:
    """Round positive float32 values to a few binary digits."""
    dropped = 23 - KEPT_BITS
    bits = (values.contiguous().view(torch.int32) + (1 << (dropped - 1))) >> dropped << dropped
    return bits.view(torch.float32).clamp(0, 1)


def main() -> None:
    """Explain the photograph at the default settings, and store the explanation with the package."""
    with Image.open(PHOTOGRAPH) as photograph:
        explanation = extremal.explain("embedded", photograph.convert("RGB"), "tripod")
    rounded = dataclasses.replace(
        explanation, masks=round_bits(explanation.masks), agreement=round_bits(explanation.agreement)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tripod.safetensors"
        rounded.save(path)
        example_path().write_bytes(lzma.compress(path.read_bytes(), preset=9))
    for area, verdict in zip(explanation.areas, explanation.verdict[0], strict=True):
        print(f"{area:.3g}: {verdict.label}")


if __name__ == "__main__":
    main()
