"""Sizes of the inputs that an exported graph takes."""

from collections.abc import Sequence

from torch import Tensor

from extremal.errors import ExtremalValueError


def check_exported_sizes(x: Tensor, sizes: Sequence[int | None], noun: str, remedy: str) -> None:
    """Check that inputs x (B, ...) have the sizes of an exported graph.

    Args:
        x: inputs.
        sizes: of the graph's input, with its batch axis, which is not checked; None: variable.
        noun: the network in messages.
        remedy: how to export a graph that takes other sizes.

    Raises:
        ExtremalValueError: a size differs.
    """
    if x.ndim != len(sizes) or any(a not in (None, b) for a, b in zip(sizes[1:], x.shape[1:], strict=True)):
        allowed = ", ".join("any" if size is None else str(size) for size in sizes[1:])
        raise ExtremalValueError(
            f"{noun} takes inputs (N, {allowed}), got {tuple(x.shape)}; resize the input, or {remedy}"
        )
