"""Weights from files, never unpickled, and what the families tell about names and weights that are not to be had."""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError

Weights = str | os.PathLike[str] | None  # a local file; "random"; None: those that the network brings
RANDOM = "random"


def is_random(weights: Weights) -> bool:
    """Whether there are to be no weights at all."""
    return weights is not None and str(weights) == RANDOM


def load_file(model: nn.Module, weights: Weights, unused: str = "") -> None:
    """Weights from a file into the model, where a file is named.

    Args:
        unused: tensors whose names begin so are left out; empty: none.
    """
    if weights is None or is_random(weights):
        return
    state = read_state(weights)
    if unused:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(unused)}
    fill(model, state, str(weights))


def fill(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load a state dict that was read from the file of this name."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise ExtremalValueError(f"weights must fit the network, got {name!r}: {first}") from None


def read_state(weights: str | os.PathLike[str]) -> dict[str, Tensor]:
    """A state dict from a file, never unpickled."""
    path = Path(weights)
    if not path.is_file():
        raise ExtremalValueError(f"weights must be an existing file or 'random', got {str(path)!r}; check the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ExtremalValueError(
            f"weights must be a safetensors file or a plain state dict, got {str(path)!r}: {first_line(error)}"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ExtremalValueError(f"weights must be a state dict of tensors, got something else in {str(path)!r}")
    return state


def no_weights(name: str, error: Exception) -> ExtremalValueError:
    """The error where a family's own weights could not be downloaded."""
    return ExtremalValueError(
        f"the pretrained weights of {name} could not be had ({first_line(error)}); "
        "pass a local file with --weights FILE, or --weights random"
    )


def refuse_weights(name: str, weights: Weights) -> None:
    """For networks that stand in one file, or are made by the caller, with all they need."""
    if weights is not None:
        raise ExtremalValueError(f"{name} brings its weights, got --weights {str(weights)!r}; leave them out")


def check_name(name: str, known: Iterable[str], what: str) -> None:
    """Whether the family has this network.

    Raises:
        ExtremalValueError: it has not; near names are offered.
    """
    known = list(known)
    if name not in known:
        raise ExtremalValueError(f"a network must be {what}, got {name!r}{nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message that offers near names; empty where none is near.

    >>> nearest("resnt50", ["resnet50", "vgg16"])
    '; nearest: resnet50'
    """
    near = get_close_matches(name, known, n=3)
    return f"; nearest: {', '.join(near)}" if near else ""


def first_line(error: Exception) -> str:
    """What an error of another library says first, in 120 characters at most."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
