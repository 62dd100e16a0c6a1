"""Read weights from files without unpickling, and messages about unknown names and missing weights."""

import os
import pickletools
import zipfile
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_entries, check_file, describe_error, expand_user, quote

Weights = str | os.PathLike[str] | None  # a local file; "random"; None: the network's own
RANDOM_WEIGHTS = "random"
NOUN = "weights"
MAX_TOKEN = 4096  # characters of a text in a pickle
PICKLES_PER_FILE = 5  # of the form without zip: number, version, system, tensors, their keys


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
    except Exception as error:
        message = " ".join(str(error).split())[:200]
        raise ExtremalValueError(f"weights must fit the network, got {quote(name)}: {message}") from None


def check_weights_file(weights: str | os.PathLike[str]) -> int:
    """Return the size of a file of weights in bytes.

    Raises:
        ExtremalValueError: it is no regular file.
    """
    remedy = "check the path, or pass random for random weights"
    return check_file(expand_user(weights, NOUN), NOUN, name=quote(weights), remedy=remedy)


def _check_pickles(path: Path, size: int) -> None:
    """Look at the pickles of a file of `torch.save` without loading them.

    Raises:
        Exception: they are damaged, or the archive or a name in it is too large. torch takes time that grows with the
            square of a name's length to write an error about it.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_entries(archive.infolist(), size)
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    with archive.open(name) as file:
                        _check_tokens(file, 1)
    else:
        with path.open("rb") as file:
            _check_tokens(file, PICKLES_PER_FILE)


def _check_tokens(file: IO[bytes], count: int) -> None:
    for _ in range(count):
        for _, argument, _ in pickletools.genops(file):
            if isinstance(argument, str | bytes) and len(argument) > MAX_TOKEN:
                raise ValueError(f"it has a name of {len(argument):,} characters")


def read_state(weights: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from a file without unpickling."""
    path, name = expand_user(weights, NOUN), quote(weights)
    size = check_weights_file(weights)
    try:
        if path.suffix != ".safetensors":
            _check_pickles(path, size)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ExtremalValueError(
            f"weights must be a safetensors file or a plain state dict, got {name}: {describe_error(error)}; "
            "save them again with torch.save(model.state_dict(), PATH)"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ExtremalValueError(
            f"weights must be a state dict of tensors, got something else in {name}; save them with "
            "torch.save(model.state_dict(), PATH)"
        )
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
        raise ExtremalValueError(f"{name} includes its weights, got --weights {quote(weights)}; omit them")


def check_name(name: str, names: Iterable[str], description: str) -> None:
    """Check that a family has this network.

    Raises:
        ExtremalValueError: it does not; similar names are suggested.
    """
    names = list(names)
    if name not in names:
        raise ExtremalValueError(f"a network must be {description}, got {quote(name)}{suggest(name, names)}")


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
