"""Mutations of files: truncated, flipped, oversized, of wrong types, deep. All are a function of a random generator."""

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]

LARGE = (2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**9, 10**12, 10**400)
HOSTILE_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 0.5, -0.5, 1e308, 5e-324, float("nan"), float("inf"), -float("inf")),
    *LARGE,
    *("", "x", "0", "x" * 5000, "../../evil", "/dev/zero", "\0", "\ud800", "a\nb", "<script>", "é" * 300),
    *([], {}, [None], [[]], {"": None}, [0] * 3, ["a"] * 3, [1e308] * 200),
)
HOSTILE_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
SEPARATORS = (",", "\n", '"', "'", "\t", ":", "|", "-", "<", "&", "\r", "=", ";")
CHARACTERS = ("\0", "²", "\u0663", "\ufeff", "\u2028", "\udc80", "🐱")
DEPTHS = (70, 300, 3000, 100_000)


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:  # noqa: C901
    """Change bytes anywhere, near the start three times as often as elsewhere, where headers are."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            return bytes(data)
        place = rng.randrange(len(data) if rng.random() < 0.25 else min(len(data), 200))
        match rng.randrange(9):
            case 0:
                del data[place:]
            case 1:
                data[place] ^= 1 << rng.randrange(8)
            case 2:
                data[place] = rng.randrange(256)
            case 3:
                form = rng.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
                number = rng.choice(HOSTILE_NUMBERS) % 2 ** (8 * struct.calcsize(form))
                data[place : place + struct.calcsize(form)] = struct.pack(form, number)
            case 4:
                del data[place : place + rng.randrange(1, 64)]
            case 5:
                data[place:place] = rng.randbytes(rng.randrange(1, 64))
            case 6:
                data[place:place] = data[place : place + rng.randrange(1, 4096)]
            case 7:
                data += bytes(rng.choice((1, 100, 100_000)))
            case 8:
                end = place + rng.randrange(1, 32)
                data[place:end] = bytes([rng.choice((0, 0xFF, 0x20))]) * (end - place)
    return bytes(data)


def mutate_value(rng: random.Random, value: Any) -> Any:
    """Change one part of a value of JSON: another value, removed, repeated, renamed or put into another."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.08:
        return _replace(rng, value)
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    key = rng.choice(list(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))
    action = rng.random()
    if action < 0.8:
        copy[key] = mutate_value(rng, copy[key])
    elif action < 0.87:
        del copy[key]
    elif isinstance(copy, list):
        copy[key:key] = [copy[key]] * rng.choice((1, 3, 1000))
    else:
        copy[rng.choice(("", "x", "__class__", str(key) * 2, "\ud800"))] = copy.pop(key)
    return copy


def _replace(rng: random.Random, value: Any) -> Any:
    action = rng.random()
    if action < 0.1 and isinstance(value, int | float) and not isinstance(value, bool):
        return rng.choice((-value, value + 1, value * 1000, value // 2, [value]))
    if action < 0.2 and isinstance(value, str):
        return rng.choice((value * 2, value[: len(value) // 2], value.upper(), [value]))
    if action < 0.25:
        return [value]
    return rng.choice(HOSTILE_VALUES)


def mutate_json(rng: random.Random, content: bytes) -> bytes:
    """Change a JSON text: one to three of its parts, its depth, or its bytes."""
    action = rng.random()
    if action < 0.2:
        return mutate_bytes(rng, content)
    if action < 0.25:
        depth = rng.choice(DEPTHS)
        deep = rng.choice((b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth))
        places = [place for place, byte in enumerate(content) if byte in b":,["]
        place = rng.choice(places) + 1 if places else 0
        return content[:place] + deep + content[place:] if rng.random() < 0.5 else deep
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = mutate_value(rng, value)
    return json.dumps(value).encode()


def mutate_safetensors(rng: random.Random, content: bytes) -> bytes:
    """Change a safetensors file: its header, the JSON that it holds as text, or its bytes."""
    action = rng.random()
    if action < 0.3:
        return mutate_bytes(rng, content)
    length = struct.unpack("<Q", content[:8])[0]
    header: Any = json.loads(content[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    if action < 0.7 and "extremal" in metadata:
        text = mutate_json(rng, metadata["extremal"].encode())
        metadata["extremal"] = text.decode("utf-8", "replace")
    else:
        header = mutate_value(rng, header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def mutate_zip(rng: random.Random, content: bytes) -> bytes:
    """Change a zip archive: one entry, the JSON in it, how it is stored, or its bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(rng, content)
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        names = source.namelist()
        entries = {name: source.read(name) for name in names}
    texts = [name for name in names if name.endswith(".json")]
    chosen = rng.choice(texts if texts and rng.random() < 0.8 else names)
    compression = zipfile.ZIP_STORED
    action = rng.random()
    if action < 0.05:
        del entries[chosen]
    elif action < 0.1:
        compression = zipfile.ZIP_DEFLATED
    elif action < 0.15:
        entries[chosen] = bytes(rng.choice((0, 1, 10_000_000)))
    elif chosen.endswith(".json"):
        entries[chosen] = mutate_json(rng, entries[chosen])
    else:
        entries[chosen] = mutate_bytes(rng, entries[chosen])
    with zipfile.ZipFile(result, "w", compression) as sink:
        for name, entry in entries.items():
            sink.writestr(name, entry)
    return result.getvalue()


def mutate_text(rng: random.Random, content: bytes) -> bytes:
    """Change a text: lines, separators, numbers and bytes."""
    text = content.decode("utf-8", "surrogateescape")
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(text) + 1)
        match rng.randrange(6):
            case 0:
                text = text[:place]
            case 1:
                value = rng.choice(HOSTILE_VALUES)
                text = text[:place] + (value if isinstance(value, str) else format_value(value)) + text[place:]
            case 2:
                text = text[:place] + rng.choice(SEPARATORS) + text[place:]
            case 3:
                text = text[:place] + text[place : place + 40] * rng.choice((2, 500)) + text[place + 40 :]
            case 4:
                text = text[:place] + text[place + rng.randrange(1, 30) :]
            case 5:
                text = text[:place] + rng.choice(CHARACTERS) + text[place:]
    return text.encode("utf-8", "surrogatepass")


def format_value(value: Any) -> str:
    """Return a value as text, however many digits it has."""
    return "9" * 5000 if isinstance(value, int) and abs(value) > 10**300 else str(value)
