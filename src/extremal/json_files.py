"""JSON texts and files of bounded size and depth."""

import json
import os
from pathlib import Path
from typing import Any

from extremal.errors import ExtremalValueError
from extremal.file_checks import check_file, describe_error, quote

MAX_JSON_BYTES = 32_000_000  # of a JSON text, whose values take about 20 times the memory
MAX_JSON_DEPTH = 64  # of lists and objects in each other


def parse_json(text: str | bytes, *, is_strict: bool = False) -> Any:
    """Parse a JSON text of bounded size and depth.

    >>> parse_json('{"areas": [0.1, 0.2]}')
    {'areas': [0.1, 0.2]}

    Args:
        text: in UTF-8.
        is_strict: refuse NaN, infinity, and halves of characters, which Python reads but other programs do not.

    Raises:
        ValueError: it is no JSON, too large or too deep.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"it has {len(text) / 1e6:,.1f} MB of JSON, more than {MAX_JSON_BYTES / 1e6:g} MB")
    try:
        value = json.loads(text, parse_constant=_refuse_constant if is_strict else None)
        if is_strict:
            json.dumps(value, ensure_ascii=False).encode()  # half of a character cannot be written again
    except RecursionError:
        raise ValueError(f"its JSON is deeper than {MAX_JSON_DEPTH} levels") from None
    layer, depth = [value], 0
    while layer:
        depth += 1
        if depth > MAX_JSON_DEPTH + 1:
            raise ValueError(f"its JSON is deeper than {MAX_JSON_DEPTH} levels")
        layer = [
            part
            for one in layer
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
            if isinstance(part, dict | list)
        ]
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_json(path: str | os.PathLike[str], noun: str) -> Any:
    """Read a JSON file of bounded size and depth.

    Args:
        path: of the file.
        noun: for messages, with its article: "a manifest".

    Raises:
        ExtremalValueError: it is no file, too large, or not JSON in UTF-8.
    """
    check_file(path, noun, max_bytes=MAX_JSON_BYTES)
    try:
        return parse_json(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ExtremalValueError(
            f"{noun} must be JSON, got {quote(path)}: {describe_error(error)}; write it again"
        ) from None
