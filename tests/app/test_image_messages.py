"""Messages about files that are not images: what the file is, and what to do, without the words of a library."""

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from extremal.app.image_messages import describe_rejected_image, read_photograph
from support.errors import message_of


def png_header(width: int, height: int) -> bytes:
    """Return the start of a PNG of this size, without pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    parts = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


SAVE_ANEW = "Save it as JPEG or PNG, and drop that file."
CASES = {
    b"": "is empty: it has 0 bytes. Copy it again from where it came from.",
    b"\0\0\0\x18ftypheic\0\0\0\0": f"is an HEIC photograph, a format of phones that cannot be read here. {SAVE_ANEW}",
    b"%PDF-1.7\n": f"is a PDF document, not a photograph. {SAVE_ANEW}",
    b'<?xml version="1.0"?>\n<svg xmlns="x"/>': f"is a drawing (SVG), not a photograph. {SAVE_ANEW}",
    b"<!doctype html><title>Cat</title>": f"is a web page, not a photograph. {SAVE_ANEW}",
    b"\0\0\0\x18ftypisom": f"is a video, not a photograph. {SAVE_ANEW}",
    b"PK\x03\x04word/document.xml": f"is a document or an archive, not a photograph. {SAVE_ANEW}",
    b"not an image\n": "is not an image that can be read here. Choose a photograph in JPEG or PNG format.",
    b"\x89PNG\r\n\x1a\n" + b"x" * 100: (
        "is damaged: only a part of it can be read. Copy it again, or save it again as JPEG or PNG."
    ),
    png_header(8000, 6000): ("has 48 megapixels (8000 × 6000); up to 40 can be explained here. Make it smaller first."),
    png_header(60000, 60000): ("has more than 40 megapixels; up to 40 can be explained here. Make it smaller first."),
}


@pytest.mark.parametrize("content", CASES)
def test_each_kind_of_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "stored"
    path.write_bytes(content)
    assert message_of(read_photograph, path, "holiday.png") == f"“holiday.png” {CASES[content]}"


def test_a_half_of_a_photograph(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    Image.effect_noise((200, 200), 60).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "is damaged" in message_of(read_photograph, path, "half.jpg")


def test_a_photograph_is_returned(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "cat.png")
    assert read_photograph(tmp_path / "cat.png", "cat.png").size == (30, 20)


def test_other_errors_and_names_are_shown_in_short(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"pixels")
    message = describe_rejected_image(tmp_path / "cat.png", "a" * 100, "an image must be finite, got 3 NaN; clean it")
    assert message == f"“{'a' * 59}…” cannot be explained: an image must be finite, got 3 NaN; clean it."
    assert describe_rejected_image(tmp_path / "gone.png", "gone.png", "") == (
        "“gone.png” is no longer stored here. Drop it again."
    )
