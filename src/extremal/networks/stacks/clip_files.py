"""Read frames of video files by PyAV; nothing here imports torch."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from extremal.errors import ExtremalValueError, check_installed
from extremal.file_checks import quote
from extremal.networks.file_opening import opening

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_FILE_BYTES = 4_000_000_000  # of a video file
MAX_FRAMES = 20_000  # of a clip, decoded one after another: 11 minutes at 30 frames per second
MAX_FRAME_PIXELS = 40_000_000  # 8K has 33 megapixels
MAX_CLIP_BYTES = 2_000_000_000  # of the frames that are kept, 3 bytes per pixel
DECODING_FACTOR = 20  # by which all frames that are decoded may exceed the bytes that may be kept
# demuxers of single files; playlists name other files and addresses, and are not opened
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,ogg,asf,flv"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of a clip.

    Attributes:
        frames: (T, H, W, 3) uint8, RGB, upright.
        times: (T,) seconds from the start of the clip.
    """

    frames: np.ndarray[Any, np.dtype[np.uint8]]
    times: tuple[float, ...]


def read_clip_file(
    path: str | os.PathLike[str],
    frames: int | None = None,
    rate: float | None = None,
    *,
    max_bytes: int | None = None,
) -> Clip:
    """Read frames of a video file.

    Args:
        path: of the file.
        frames: number of frames T; None: all.
        rate: frames per second: T frames at this rate from the middle of the clip; None, and if the clip is shorter
            than that: evenly over the whole clip.
        max_bytes: of the frames that are kept; None: 2 GB. All frames together may have 20 times as many.

    Raises:
        ExtremalValueError: the file is missing, empty, damaged, not a video, too large, or has fewer frames than T.
    """
    name, max_bytes = quote(path), max_bytes or MAX_CLIP_BYTES
    count = _count_frames(path, name, max_bytes)
    for _ in range(2):  # damaged files, and some codecs, give another number of frames than the container states
        if frames is not None and count < frames:
            raise ExtremalValueError(
                f"a clip must have at least {frames} frames for this network, got {count} in {name}; choose a longer "
                "clip, or a reader of fewer frames"
            )
        with _open_clip(path, name) as (container, stream):
            decoded, times, total = _decode(container, stream, count, frames, rate, name, max_bytes)
        if total == count:
            break
        count = total
    _check_count(total, name)
    return Clip(np.stack(decoded), times)


def check_clip_file(path: str | os.PathLike[str]) -> None:
    """Check that a file has a video, by its header; no frame is decoded.

    Raises:
        ExtremalValueError: as `read_clip_file`, as far as the header shows.
    """
    with _open_clip(path, quote(path)):
        pass


def choose_frames(times: Sequence[float], count: int, rate: float | None = None) -> list[int]:
    """Choose frames by their rising times: evenly over the clip, or at a rate from its middle.

    >>> times = [k / 10 for k in range(100)]
    >>> choose_frames(times, 4), choose_frames(times, 4, rate=5), choose_frames(times, 4, rate=0.1)
    ([12, 37, 62, 87], [46, 48, 50, 52], [12, 37, 62, 87])
    """
    length = (count - 1) / rate if rate else 0.0
    if rate and length <= times[-1] - times[0]:
        start = (times[0] + times[-1] - length) / 2
        wanted = start + np.arange(count) / rate
        return [int(np.abs(np.asarray(times) - time).argmin()) for time in wanted - 1e-6]  # of two, the earlier
    return [int((k + 0.5) * len(times) / count) for k in range(count)]


@contextmanager
def _open_clip(path: str | os.PathLike[str], name: str) -> "Iterator[tuple[InputContainer, VideoStream]]":
    """Yield an open clip and its first video; errors of PyAV, also later ones, become one sentence."""
    with opening(path, "a clip", max_bytes=MAX_FILE_BYTES, folder_remedy="name a clip in it", name=name):
        check_installed("av", purpose="reading clips", extra="video")
        import av

        with av.open(f"file:{os.fspath(path)}", options=_OPTIONS) as container:
            if not container.streams.video:
                raise ExtremalValueError(
                    f"a clip must have a video, got {name} with {len(container.streams)} streams of other kinds; check "
                    "that it is the right file"
                )
            stream = container.streams.video[0]
            _check_size(stream.codec_context.width, stream.codec_context.height, name)
            yield container, stream


def _count_frames(path: str | os.PathLike[str], name: str, max_bytes: int) -> int:
    """Return the number of the packets of the video: one per frame, which are not decoded."""
    count = 0
    with _open_clip(path, name) as (container, stream):
        n_pixels = stream.codec_context.width * stream.codec_context.height
        for packet in container.demux(stream):
            count += packet.size > 0
            _check_limit(count, n_pixels, name, max_bytes)
    _check_count(count, name)
    return count


def _decode(
    container: "InputContainer",
    stream: "VideoStream",
    count: int,
    frames: int | None,
    rate: float | None,
    name: str,
    max_bytes: int,
) -> tuple[list[np.ndarray[Any, np.dtype[np.uint8]]], tuple[float, ...], int]:
    """Decode a clip of `count` frames; return the chosen frames, their times, and the number that was decoded."""
    interval = 1 / float(stream.average_rate or stream.guessed_rate or 25)
    chosen = choose_frames([k * interval for k in range(count)], frames, rate) if frames else list(range(count))
    is_chosen = set(chosen)
    found, kept, total, n_bytes = dict[int, tuple[np.ndarray[Any, np.dtype[np.uint8]], float]](), None, 0, 0
    start: float | None = None
    for frame in container.decode(stream):
        _check_limit(total + 1, frame.width * frame.height, name, max_bytes)
        _check_size(frame.width, frame.height, name)
        if start is None and frame.time is not None:
            start = float(frame.time)
        if total in is_chosen:
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(getattr(frame, "rotation", 0) / 90))
            if kept is not None and pixels.shape != kept:
                raise ExtremalValueError(
                    f"the frames of a clip must have one size, got {kept[1]}×{kept[0]} and {pixels.shape[1]}×"
                    f"{pixels.shape[0]} in {name}; convert it to one size"
                )
            kept, n_bytes = pixels.shape, n_bytes + pixels.size
            if n_bytes > max_bytes:
                raise ExtremalValueError(
                    f"the frames of a clip must have at most {max_bytes / 1e9:g} GB, got more in {name}; choose "
                    "fewer frames, or shrink it first"
                )
            time = total * interval if frame.time is None or start is None else float(frame.time) - start
            found[total] = np.ascontiguousarray(pixels), time
        total += 1
    present = [k for k in chosen if k in found]
    return [found[k][0] for k in present], tuple(round(found[k][1], 4) for k in present), total


def _check_size(width: int, height: int, name: str) -> None:
    if not 0 < width * height <= MAX_FRAME_PIXELS:
        raise ExtremalValueError(
            f"a frame must have 1 to {MAX_FRAME_PIXELS / 1e6:g} million pixels, got {width}×{height} in {name}; "
            "convert it to a smaller size"
        )


def _check_limit(count: int, n_pixels: int, name: str, max_bytes: int) -> None:
    if count > MAX_FRAMES or 3 * n_pixels * count > DECODING_FACTOR * max_bytes:
        limit = min(MAX_FRAMES, DECODING_FACTOR * max_bytes // max(1, 3 * n_pixels))
        raise ExtremalValueError(
            f"a clip of this size must have at most {limit:,} frames, got more in {name}; cut out the part to "
            "explain, or shrink it first"
        )


def _check_count(count: int, name: str) -> None:
    if count == 0:
        raise ExtremalValueError(f"a clip must have frames, got {name} without any; record or convert it again")
