"""The input of a row, read again from its file, and the settings that rows do not share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.networks.input_kinds import hash_input
from extremal.networks.inputs import ImageLike, describe_stack, prepare, read_stacks
from extremal.networks.network import Network


@dataclass(frozen=True, eq=False)
class RowInput:
    """The input of a row as it was explained."""

    net: Network  # with the spacing of the row
    x: Tensor  # (1, C, *S)
    stack: dict[str, Any]  # what a result stores about the third dimension (`describe_stack`)


def open_input(row: Mapping[str, Any], net: Network, image: ImageLike | None) -> RowInput:
    """Prepare the input of a row.

    Args:
        row: of `SCHEMA`.
        net: with the preprocessing of the run.
        image: the input, as `explain` takes it; None: it is read from the row's path.

    Raises:
        ExtremalValueError: the image is missing, cannot be read, or is another than that of the row.
    """
    source = row["path"] if image is None else image
    if image is None and not isinstance(source, str):  # pandas has NaN for null
        raise ExtremalValueError(f"a row without a path needs its image, row {row['key']!r} has none; pass it as image")
    opened = read_stacks(net, source)
    x = prepare(net, opened)
    if isinstance(source, str | os.PathLike) and hash_input(source) != row["content_hash"]:
        raise ExtremalValueError(
            f"an image must be the one that was explained, the bytes of {str(source)!r} are not those of row "
            f"{row['key']!r}; restore the file, or explain again"
        )
    if len(x) != 1:
        raise ExtremalValueError(f"a row belongs to one input, got {len(x)}; pass the one of row {row['key']!r}")
    return RowInput(net.with_spacing(find_spacing(row)), x, describe_stack(net, x, opened))


def find_spacing(row: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the spacing of a row's volume in mm; empty if it has none of its own."""
    spacing: Any = row.get("spacing")
    return tuple(map(float, spacing)) if hasattr(spacing, "__len__") else ()  # pandas has NaN for null


def complete_settings(row: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that all rows of a run share, with the spacing of one row."""
    spacing = find_spacing(row)
    return {**settings, "spacing": list(spacing)} if spacing else dict(settings)
