"""Safety checks of a local folder in the format of Hugging Face, before anything in it is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, describe_error, find_kind, list_names, quote
from extremal.json_files import MAX_JSON_BYTES, parse_json
from extremal.networks.network_files import check_huggingface_folder

VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")  # one is needed
TOKENIZER_FILES = ("tokenizer_config.json", *VOCABULARY_FILES)
SAFETENSORS_FILE = "model.safetensors"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")  # of files that are not read


def read_config(folder: Path, path: str) -> dict[str, Any]:
    """Read config.json, and reject it if it refers to code elsewhere.

    Args:
        folder: the folder.
        path: the folder as the user gave it.

    Raises:
        ExtremalValueError: there is no such folder or file, or it is broken or refers to code.
    """
    file = check_huggingface_folder(folder, path)
    config = read_json_object(file, path)
    remote = next(_find_remote_attention(config), None)
    if remote is not None:
        raise ExtremalValueError(
            f"an hf: network must not load code, got {quote(path)}, whose config.json names {quote(remote)} as its "
            "attention; remove that entry"
        )
    return config


def find_weights(folder: Path, path: str) -> list[Path]:
    """Return the files of weights, all of them in safetensors.

    Args:
        folder: the folder.
        path: the folder as the user gave it.

    Raises:
        ExtremalValueError: there are no weights, or some are pickled.
    """
    index = folder / f"{SAFETENSORS_FILE}.index.json"
    if find_kind(folder / SAFETENSORS_FILE, "weights"):
        return [folder / SAFETENSORS_FILE]
    shards: list[str] = []
    if find_kind(index, "weights"):
        names = read_json_object(index, path).get("weight_map")
        shards = sorted({str(name) for name in names.values()}) if isinstance(names, dict) else []
        pickled = [shard for shard in shards if Path(shard).suffix != ".safetensors"]
    else:
        pickled = [name for name in list_names(folder) if Path(name).suffix in PICKLE_SUFFIXES]
    if not shards and not pickled:
        raise ExtremalValueError(
            f"weights must be in safetensors, got {quote(path)} without {SAFETENSORS_FILE}; copy it there, or pass "
            "--weights FILE"
        )
    if pickled:
        raise ExtremalValueError(
            f"weights must be in safetensors, got {quote(path)} with {quote(pickled[0])}, which may run any code when "
            "it is unpickled; convert it on a machine where it is trusted: load it and call save_pretrained"
        )
    outside = next((shard for shard in shards if Path(shard).name != shard), None)
    if outside is not None:
        raise ExtremalValueError(
            f"weights must lie in the folder of the network, got {quote(path)} with {quote(outside)}; copy them there"
        )
    return [folder / shard for shard in shards]


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


def read_json_object(file: Path, path: str) -> dict[str, Any]:
    """Read a JSON file of the folder.

    Args:
        file: to read.
        path: the folder as the user gave it.

    Raises:
        ExtremalValueError: it is no regular file, too large, or not an object.
    """
    check_file(file, f"{file.name} of an hf: network", max_bytes=MAX_JSON_BYTES)
    try:
        content = parse_json(file.read_bytes())
    except (ValueError, OSError) as error:
        raise ExtremalValueError(
            f"an hf: network must have a {file.name} in JSON, got {quote(path)}: {describe_error(error)}; copy it again"
        ) from None
    if not isinstance(content, dict):
        raise ExtremalValueError(
            f"an hf: network must have a {file.name} that is an object, got {quote(path)} with a "
            f"{type(content).__name__}; copy it again"
        )
    return content


def _find_remote_attention(config: Any) -> Iterator[str]:
    """Yield kernels that transformers would download and run: attentions named by owner and repository."""
    if isinstance(config, dict):
        for key, value in config.items():
            if "attn_implementation" in key and "/" in str(value):
                yield str(value)
            yield from _find_remote_attention(value)


def load_tokenizer(transformers: Any, folder: Path, path: str, rule: str, remedy: str) -> Any:
    """Load the tokenizer of a folder.

    Args:
        transformers: the library.
        folder: the folder.
        path: the folder as the user gave it.
        rule: for messages: who must have a tokenizer.
        remedy: for messages.

    Raises:
        ExtremalValueError: there is none that loads.
    """
    with offline_and_quiet(transformers):
        try:
            if not has_vocabulary(folder):  # the tokenizer would be empty
                raise FileNotFoundError(f"there is no {' or '.join(VOCABULARY_FILES)}")
            return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise ExtremalValueError(f"{rule}, got {quote(path)}: {describe_error(error)}; {remedy}") from None


def has_vocabulary(folder: Path) -> bool:
    """Return whether a folder has the words of a tokenizer."""
    return any((folder / name).is_file() for name in VOCABULARY_FILES)
