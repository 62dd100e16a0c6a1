"""What must be so of a local folder in the format of Hugging Face before anything of it is loaded."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from extremal.errors import ExtremalValueError
from extremal.networks.zoo.weights import first_line, nearest

SAFE = "model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")  # none of these is read


def config_of(folder: Path, path: str) -> dict[str, Any]:
    """What config.json says, which must not send for code elsewhere.

    Args:
        folder: where it stands.
        path: as the caller gave it.
    """
    if not folder.is_dir():
        near = nearest(folder.name, [other.name for other in folder.parent.glob("*") if other.is_dir()])
        raise ExtremalValueError(
            f"an hf: network must be a local folder, got {path!r}; nothing is downloaded, fetch it first{near}"
        )
    file = folder / "config.json"
    if not file.is_file():
        raise ExtremalValueError(
            f"an hf: network must have a config.json, got {path!r} without one; write it with save_pretrained"
        )
    config = _read(file, path)
    elsewhere = next(_attention_from_elsewhere(config), None)
    if elsewhere is not None:
        raise ExtremalValueError(
            f"an hf: network must bring no code, got {path!r}, whose config.json sends for {elsewhere!r} as its "
            "attention; take that out of it"
        )
    return config


def check_weights(folder: Path, path: str) -> None:
    """Whether there are weights, all of them in safetensors.

    Args:
        folder: where they stand.
        path: as the caller gave it.
    """
    index = folder / f"{SAFE}.index.json"
    if (folder / SAFE).is_file():
        return
    if index.is_file():
        shards = _read(index, path).get("weight_map", {}).values()
        other = [str(shard) for shard in shards if Path(str(shard)).suffix != ".safetensors"]
    else:
        other = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
        if not other:
            raise ExtremalValueError(
                f"weights must be in safetensors, got {path!r} without {SAFE}; copy it there, or pass --weights FILE"
            )
    if other:
        raise ExtremalValueError(
            f"weights must be in safetensors, got {path!r} with {other[0]!r}, which may run any code when it is "
            "unpickled; convert it where it is trusted: load it there and save_pretrained"
        )


@contextmanager
def by_itself(transformers: Any) -> Iterator[None]:
    """Without a word on stderr, and off the net also where a configuration asks for another model; restored on exit."""
    from huggingface_hub import constants

    logging = transformers.utils.logging
    before, bars, offline = logging.get_verbosity(), logging.is_progress_bar_enabled(), constants.HF_HUB_OFFLINE
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        if bars:
            logging.enable_progress_bar()
        logging.set_verbosity(before)


def _read(file: Path, path: str) -> dict[str, Any]:
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ExtremalValueError(
            f"an hf: network must have a {file.name} in JSON, got {path!r}: {first_line(error)}; copy it again"
        ) from None
    if not isinstance(found, dict):
        raise ExtremalValueError(
            f"an hf: network must have a {file.name} that is an object, got {path!r} with a {type(found).__name__}; "
            "copy it again"
        )
    return found


def _attention_from_elsewhere(config: Any) -> Iterator[str]:
    """Kernels that transformers would fetch and run: an attention named by its owner and repository."""
    if isinstance(config, dict):
        for key, value in config.items():
            if "attn_implementation" in key and "/" in str(value):
                yield str(value)
            yield from _attention_from_elsewhere(value)
