"""Read weights from files without unpickling, and messages about unknown names and missing weights."""

import os
import pickletools
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_entries, check_file, describe_error, expand_user, quote
from extremal.networks.names import RANDOM_WEIGHTS
from extremal.networks.suggestions import suggest

Weights = str | os.PathLike[str] | None  # a local file; "random"; None: the network's own
NOUN = "weights"
MAX_TOKEN = 4096  # characters of a text in a pickle
PICKLES_PER_FILE = 5  # of the form without zip: number, version, system, tensors, their keys
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # of DataParallel, torch.compile, Lightning
_STATE_KEYS = ("state_dict", "model_state_dict", "model")  # under which checkpoints have the state dict


def is_random(weights: Weights) -> bool:
    """Return whether the weights are to be random."""
    return weights is not None and str(weights) == RANDOM_WEIGHTS


def build_with_weights(
    build: Callable[[int], nn.Module], classes: int, weights: Weights, unused: str = ""
) -> tuple[Any, int]:
    """Build a network and load the weights of a file, if one is given, with as many classes as its head has there.

    Args:
        build: builds the network with this number of classes.
        classes: of the network by itself.
        weights: as in `zoo.load`.
        unused: prefix of the names of tensors to ignore; empty: none are.

    Returns:
        The network, and its number of classes.
    """
    model = build(classes)
    if weights is None or is_random(weights):
        return model, classes
    state = strip_prefixes(read_state(weights), model)
    if unused:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(unused)}
    found = count_classes(state, model, classes)
    if found != classes:
        model = build(found)
    load_state(model, state, str(weights))
    return model, found


def strip_prefixes(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Remove what wrappers put before the names of all tensors, as long as more names then are those of the model.

    >>> list(strip_prefixes({"module._orig_mod.weight": torch.zeros(2)}, nn.Linear(2, 1, bias=False)))
    ['weight']
    """
    expected, candidates = set(model.state_dict()), [state]
    for prefix in (*_PREFIXES, *_PREFIXES):  # wrappers may be inside each other, in any order
        names = {name: name.replace(prefix, "", 1) if name.startswith(prefix) else name for name in candidates[-1]}
        if len(set(names.values())) == len(names):
            candidates.append({names[name]: tensor for name, tensor in candidates[-1].items()})
    return max(candidates, key=lambda candidate: len(expected & set(candidate)))  # the first of equals


def count_classes(state: dict[str, Tensor], model: nn.Module, classes: int) -> int:
    """Return the number of classes of the head in a state dict, by the tensors whose first size differs.

    >>> count_classes(nn.Linear(8, 10).state_dict(), nn.Linear(8, 1000), 1000)
    10
    """
    counts = set()
    for name, own in model.state_dict().items():
        stored = state.get(name)
        if stored is None or stored.shape == own.shape:
            continue
        if not classes or stored.ndim != own.ndim or not own.ndim or stored.shape[1:] != own.shape[1:]:
            return classes
        counts.add(len(stored) * classes / len(own))  # a detector has several numbers for each class
    (count,) = counts if len(counts) == 1 else (classes,)
    return int(count) if count >= 1 and count == int(count) else classes


def load_state(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load a state dict that was read from a file; `name` is its path.

    Raises:
        ExtremalValueError: tensors are missing, are not part of the network, or have other shapes.
    """
    expected = model.state_dict()
    missing, unknown = [key for key in expected if key not in state], [key for key in state if key not in expected]
    reshaped = [
        f"{key} with {tuple(state[key].shape)} instead of {tuple(own.shape)}"
        for key, own in expected.items()
        if key in state and isinstance(own, Tensor) and state[key].shape != own.shape
    ]
    problems = ((missing, "missing"), (unknown, "unknown"), (reshaped, "of another shape"))
    told = [f"{len(names)} {problem}, e.g. {names[0]}" for names, problem in problems if names]
    if told:
        raise ExtremalValueError(
            f"weights must fit the network, got {quote(name)}, of its {len(expected)} tensors {'; '.join(told)}; check "
            "that they are of this network"
        )
    try:
        model.load_state_dict(state)
    except Exception as error:
        raise ExtremalValueError(
            f"weights must fit the network, got {quote(name)}: {describe_error(error)}; check that they are of "
            "this network"
        ) from None


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
    if isinstance(state, dict):
        inner = (state[key] for key in _STATE_KEYS if isinstance(state.get(key), dict))
        state = next(inner, state)
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


def check_name(name: str, names: Iterable[str], description: str) -> None:
    """Check that a family has this network.

    Raises:
        ExtremalValueError: it does not; similar names are suggested.
    """
    names = list(names)
    if name not in names:
        raise ExtremalValueError(f"a network must be {description}, got {quote(name)}{suggest(name, names)}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error of another library, shortened to whole words."""
    return describe_error(error).removeprefix(f"{type(error).__name__}: ")
