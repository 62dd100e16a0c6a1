"""Read weights from files without unpickling, and messages about unknown names and missing weights."""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.file_checks import describe_error

Weights = str | os.PathLike[str] | None  # a local file; "random"; None: the network's own
RANDOM_WEIGHTS = "random"


def is_random(weights: Weights) -> bool:
    """Return whether the weights are to be random."""
    return weights is not None and str(weights) == RANDOM_WEIGHTS


def load_file(model: nn.Module, weights: Weights, unused: str = "") -> None:
    """Load weights from a file into the model, if a file is given.

    Args:
        model: keeps its own weights otherwise.
        weights: as in `zoo.load`.
        unused: prefix of the names of tensors to ignore; empty: none are.
    """
    if weights is None or is_random(weights):
        return
    state = read_state(weights)
    if unused:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(unused)}
    load_state(model, state, str(weights))


def load_state(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load a state dict that was read from a file; `name` is its path."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        message = " ".join(str(error).split())[:200]
        raise ExtremalValueError(f"weights must fit the network, got {name!r}: {message}") from None


def read_state(weights: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from a file without unpickling."""
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


def download_error(name: str, error: Exception) -> ExtremalValueError:
    """Return the error for weights that could not be downloaded."""
    return ExtremalValueError(
        f"the pretrained weights of {name} could not be downloaded ({first_line(error)}); "
        "pass a local file with --weights FILE, or --weights random"
    )


def reject_weights(name: str, weights: Weights) -> None:
    """Raise an error if weights are given for a network that includes its own."""
    if weights is not None:
        raise ExtremalValueError(f"{name} includes its weights, got --weights {str(weights)!r}; omit them")


def check_name(name: str, names: Iterable[str], description: str) -> None:
    """Check that a family has this network.

    Raises:
        ExtremalValueError: it does not; similar names are suggested.
    """
    names = list(names)
    if name not in names:
        raise ExtremalValueError(f"a network must be {description}, got {name!r}{suggest(name, names)}")


def suggest(name: str, names: Iterable[str]) -> str:
    """Return the end of a message that suggests similar names; empty if there are none.

    >>> suggest("resnt50", ["resnet50", "vgg16"])
    '; nearest: resnet50'
    """
    matches = get_close_matches(name, names, n=3)
    return f"; nearest: {', '.join(matches)}" if matches else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error of another library, shortened to whole words."""
    return describe_error(error).removeprefix(f"{type(error).__name__}: ")
