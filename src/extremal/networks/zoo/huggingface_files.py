"""Safety checks of a local folder in the format of Hugging Face, before anything in it is loaded."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from extremal.errors import ExtremalValueError
from extremal.networks.zoo.weights import first_line, suggest

SAFETENSORS_FILE = "model.safetensors"
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")  # of files that are not read


def read_config(folder: Path, path: str) -> dict[str, Any]:
    """Read config.json, and reject it if it refers to code elsewhere.

    Args:
        folder: the folder.
        path: the folder as the user gave it.

    Raises:
        ExtremalValueError: there is no such folder or file, or it is broken or refers to code.
    """
    if not folder.is_dir():
        suggestion = suggest(folder.name, [sibling.name for sibling in folder.parent.glob("*") if sibling.is_dir()])
        raise ExtremalValueError(
            f"an hf: network must be a local folder, got {path!r}; nothing is downloaded, fetch it first{suggestion}"
        )
    file = folder / "config.json"
    if not file.is_file():
        raise ExtremalValueError(
            f"an hf: network must have a config.json, got {path!r} without one; write it with save_pretrained"
        )
    config = _read_json(file, path)
    remote = next(_find_remote_attention(config), None)
    if remote is not None:
        raise ExtremalValueError(
            f"an hf: network must not load code, got {path!r}, whose config.json names {remote!r} as its "
            "attention; remove that entry"
        )
    return config


def check_weights(folder: Path, path: str) -> None:
    """Check that there are weights, all of them in safetensors.

    Args:
        folder: the folder.
        path: the folder as the user gave it.

    Raises:
        ExtremalValueError: there are no weights, or some are pickled.
    """
    index = folder / f"{SAFETENSORS_FILE}.index.json"
    if (folder / SAFETENSORS_FILE).is_file():
        return
    if index.is_file():
        shards = _read_json(index, path).get("weight_map", {}).values()
        pickled = [str(shard) for shard in shards if Path(str(shard)).suffix != ".safetensors"]
    else:
        pickled = sorted(file.name for pattern in PICKLE_PATTERNS for file in folder.glob(pattern))
        if not pickled:
            raise ExtremalValueError(
                f"weights must be in safetensors, got {path!r} without {SAFETENSORS_FILE}; copy it there, or pass "
                "--weights FILE"
            )
    if pickled:
        raise ExtremalValueError(
            f"weights must be in safetensors, got {path!r} with {pickled[0]!r}, which may run any code when it is "
            "unpickled; convert it on a machine where it is trusted: load it and call save_pretrained"
        )


@contextmanager
def offline_and_quiet(transformers: Any) -> Iterator[None]:
    """Silence transformers and keep it offline, even if a configuration names another model; restored on exit."""
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


def _read_json(file: Path, path: str) -> dict[str, Any]:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ExtremalValueError(
            f"an hf: network must have a {file.name} in JSON, got {path!r}: {first_line(error)}; copy it again"
        ) from None
    if not isinstance(content, dict):
        raise ExtremalValueError(
            f"an hf: network must have a {file.name} that is an object, got {path!r} with a {type(content).__name__}; "
            "copy it again"
        )
    return content


def _find_remote_attention(config: Any) -> Iterator[str]:
    """Yield kernels that transformers would download and run: attentions named by owner and repository."""
    if isinstance(config, dict):
        for key, value in config.items():
            if "attn_implementation" in key and "/" in str(value):
                yield str(value)
            yield from _find_remote_attention(value)
