"""Uploaded images of the app: checks before they are used, and messages without paths of the server."""

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from extremal.app.request_run import read_image
from support.errors import message_of
from support.toys import texture

NAME = "my cat.png"


def message(path: Path) -> str:
    """Return the message of the error that an image raises."""
    text = message_of(read_image, path, NAME)
    assert str(path.parent) not in text  # the place where the server keeps it
    return text


def test_the_largest_image(tmp_path: Path) -> None:
    Image.new("1", (8000, 5000)).save(tmp_path / "large.png")
    assert read_image(tmp_path / "large.png", "large").size == (8000, 5000)


@pytest.mark.parametrize("size", [(8001, 5000), (15000, 14000)])
def test_too_many_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("1", size).save(tmp_path / "a.png")
    width, height = size
    problem = f"got {width}×{height} in" if width * height < 2 * Image.MAX_IMAGE_PIXELS else "got a larger one in"
    assert message(tmp_path / "a.png") == (
        f"an image must have at most 40 megapixels, {problem} 'my cat.png'; shrink it first"
    )


def test_a_decompression_bomb_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (8, 8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = struct.pack(">II", 60000, 60000)  # the size that its header declares
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    assert message(tmp_path / "a.png") == (
        "an image must have at most 40 megapixels, got a larger one in 'my cat.png'; shrink it first"
    )


@pytest.mark.parametrize("content", [b"<svg onload=alert(1)></svg>", b"GIF89a", b"%PDF-1.7", b"\x00" * 999])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    text = message(tmp_path / "a.png")
    assert text in (
        "an image must be in a format that Pillow reads, got 'my cat.png'; convert it to PNG or JPEG",
        "an image must be readable to its end, got 'my cat.png': not a GIF file; copy or convert it again",
    )


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert message(tmp_path / "a.png") == ("an image must not be empty, got 'my cat.png' with 0 bytes; copy it again")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = texture(64, 64, 3).add(1).mul(127).byte().numpy()
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    text = message(path)
    assert "'my cat.png'" in text
    assert text.endswith(("; copy or convert it again", "; convert it to PNG or JPEG"))


def test_a_missing_file(tmp_path: Path) -> None:
    assert message(tmp_path / "a.png") == "an image must be an existing file, got 'my cat.png'; check the path"
