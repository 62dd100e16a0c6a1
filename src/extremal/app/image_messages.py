"""Messages about images that cannot be explained, in the words of a visitor: what the file is, and what to do."""

import re
from pathlib import Path

from PIL import Image

from extremal.app.networks import ServedNetwork, Upload
from extremal.app.reader_uploads import read_upload
from extremal.app.request_run import MAX_PIXELS, read_image
from extremal.errors import ExtremalValueError

HEAD_BYTES = 512  # that show what a file is
MAX_NAME_LETTERS = 60
KINDS = (  # by a pattern at the start of the file
    (rb"....ftyp(heic|heix|heif|hevc|mif1|msf1)", "an HEIC photograph, a format of phones that cannot be read here"),
    (rb"%PDF-", "a PDF document, not a photograph"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg|<svg)", "a drawing (SVG), not a photograph"),
    (rb"\s*<(!DOCTYPE html|html|head)", "a web page, not a photograph"),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", "a video, not a photograph"),
    (rb"PK\x03\x04|\xd0\xcf\x11\xe0|7z\xbc\xaf|\x1f\x8b|Rar!", "a document or an archive, not a photograph"),
)
REMEDY = "Save it as JPEG or PNG, and drop that file."


def read_photograph(path: Path, name: str) -> Image.Image:
    """Read and check an uploaded image.

    Raises:
        ExtremalValueError: it cannot be explained; the message is in the words of a visitor.
    """
    try:
        return read_image(path, name)
    except ExtremalValueError as error:
        raise ExtremalValueError(describe_rejected_image(path, name, str(error))) from None


def read_visitors_file(path: Path, name: str, network: ServedNetwork) -> Upload:
    """Read and check an uploaded image, clip, volume or sound, as the network takes it.

    Raises:
        ExtremalValueError: it cannot be explained; the message is in the words of a visitor.
    """
    return read_upload(path, network) if network.kind else read_photograph(path, name)


def describe_rejected_image(path: Path, name: str, error: str) -> str:
    """Describe why a file cannot be explained, and what its user can do.

    Args:
        path: of the file.
        name: of the file, as its user calls it.
        error: of the reader.
    """
    shown = f"“{name if len(name) <= MAX_NAME_LETTERS else f'{name[: MAX_NAME_LETTERS - 1]}…'}”"
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return f"{shown} is no longer stored here. Drop it again."
    if not head:
        return f"{shown} is empty: it has 0 bytes. Copy it again from where it came from."
    kind = next((kind for pattern, kind in KINDS if re.match(pattern, head, re.DOTALL | re.IGNORECASE)), "")
    return f"{shown} is {kind}. {REMEDY}" if kind else f"{shown} {_describe_error(error)}"


def _describe_error(error: str) -> str:
    """Describe an error of the reader, after the name of the file."""
    if "megapixels" in error:
        size, limit = re.search(r"(\d+)×(\d+)", error), MAX_PIXELS // 10**6
        pixels = f"{round(int(size[1]) * int(size[2]) / 10**6)}" if size else f"more than {limit}"
        shape = f" ({size[1]} × {size[2]})" if size else ""
        return f"has {pixels} megapixels{shape}; up to {limit} can be explained here. Make it smaller first."
    if "readable to its end" in error:
        return "is damaged: only a part of it can be read. Copy it again, or save it again as JPEG or PNG."
    if "in a format" in error:
        return "is not an image that can be read here. Choose a photograph in JPEG or PNG format."
    return f"cannot be explained: {error}."
