"""Clips: frames, their times, and what is refused in one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extremal import ClipReader, ExtremalTypeError, ExtremalValueError, Network, VolumeReader, zoo
from extremal.errors import MissingDependencyError
from extremal.networks.inputs import prepare
from extremal.networks.stacks import clip_files
from extremal.networks.stacks.clip_files import check_clip_file, read_clip_file
from extremal.networks.zoo.torchvision import CLIP_FRAMES
from support.stack_files import write_clip, write_sound

LEVELS = 6 * np.arange(40)  # grey levels of the frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of 40 grey frames at 10 per second, whose left half is black."""
    found = tmp_path_factory.mktemp("clips")
    frames = np.zeros((40, 32, 48, 3), np.uint8)
    frames[:, :, 24:] = LEVELS[:, None, None, None]
    for name, codec in (("a.mp4", "libx264"), ("b.webm", "libvpx-vp9"), ("c.mkv", "libx264"), ("d.avi", "mpeg4")):
        write_clip(found / name, frames, rate=10, codec=codec)
    return found


@pytest.mark.parametrize("name", ["a.mp4", "b.webm", "c.mkv", "d.avi"])
def test_frames_are_chosen_evenly_with_their_times(folder: Path, name: str) -> None:
    clip = read_clip_file(folder / name, 8)
    chosen = [2, 7, 12, 17, 22, 27, 32, 37]
    assert clip.frames.shape == (8, 32, 48, 3)
    np.testing.assert_allclose(clip.frames[:, 16, 36, 0], LEVELS[chosen], atol=5)
    np.testing.assert_allclose(clip.frames[:, 16, 12, 1], 0, atol=5)
    np.testing.assert_allclose(clip.times, np.array(chosen) / 10, atol=0.011)


def test_frames_at_a_rate_are_from_the_middle(folder: Path) -> None:
    clip = read_clip_file(folder / "a.mp4", 4, rate=5)
    np.testing.assert_allclose(np.diff(clip.times), 0.2, atol=1e-3)
    np.testing.assert_allclose(np.mean(clip.times), 1.95, atol=0.06)


def test_all_frames(folder: Path) -> None:
    assert len(read_clip_file(folder / "d.avi").frames) == 40


def test_a_clip_turned_by_its_matrix_is_upright(folder: Path, tmp_path: Path) -> None:
    """As phones write them: the matrix of the track turns by 90 degrees, clockwise."""
    content = bytearray((folder / "a.mp4").read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # version, times and layer come before the matrix
    numbers = np.frombuffer(bytes(content[start : start + 36]), ">i4")
    assert numbers.tolist() == [65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30]
    content[start : start + 36] = np.array([0, 65536, 0, -65536, 0, 0, 32 << 16, 0, 1 << 30], ">i4").tobytes()
    (tmp_path / "turned.mp4").write_bytes(content)
    turned, plain = (read_clip_file(path, 1).frames[0] for path in (tmp_path / "turned.mp4", folder / "a.mp4"))
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


def test_what_is_no_clip_is_refused(folder: Path, tmp_path: Path) -> None:
    content = (folder / "d.avi").read_bytes()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{folder / 'a.mp4'}\n")
    (tmp_path / "list.ts").write_text(f"ffconcat version 1.0\nfile {folder / 'a.mp4'}\n")
    (tmp_path / "header.avi").write_bytes(content[: content.index(b"movi") + 4])
    write_sound(tmp_path / "sound.mp4")
    rules = {
        "missing.mp4": "must be an existing file",
        "empty.mp4": "must not be empty",
        "text.mp4": "must be readable",
        "list.mp4": "must be readable",
        "list.ts": "must be readable",
        "header.avi": "must have frames",
        "sound.mp4": "must have a video",
    }
    for name, rule in rules.items():
        with pytest.raises(ExtremalValueError, match=rule) as raised:
            read_clip_file(tmp_path / name, 4)
        assert "\n" not in str(raised.value)
        assert name in str(raised.value)


def test_a_short_clip_is_refused(folder: Path) -> None:
    with pytest.raises(ExtremalValueError, match="must have at least 64 frames for this network, got 40 in"):
        read_clip_file(folder / "a.mp4", 64)


@pytest.mark.parametrize(
    ("name", "limit", "rule"),
    [
        ("MAX_FRAMES", 20, "at most 20 frames"),
        ("DECODING_FACTOR", 0, "at most 0 frames"),
        ("MAX_FRAME_PIXELS", 1000, "million pixels, got 48×32"),
        ("MAX_CLIP_BYTES", 9000, "must have at most"),
        ("MAX_FILE_BYTES", 100, "at most 0 MB"),
    ],
)
def test_limits(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, rule: str) -> None:
    monkeypatch.setattr(clip_files, name, limit)
    with pytest.raises(ExtremalValueError, match=rule):
        read_clip_file(folder / "a.mp4", 8)


def test_a_missing_extra_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extremal.errors.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"av is not installed; pip install 'extremal\[video\]'"):
        check_clip_file(folder / "a.mp4")


def test_a_reader_prepares_for_the_network(folder: Path) -> None:
    net = Network(
        torch.nn.Flatten(), reader=ClipReader(4, preprocess=lambda frames: frames.movedim(1, 0).double() / 51)
    )
    x = prepare(net, folder / "a.mp4")
    assert x.shape == (1, 3, 4, 32, 48)
    assert x.dtype == torch.float32
    assert 4.0 < float(x.max()) < 5.0
    assert prepare(net, [folder / "a.mp4", str(folder / "c.mkv")]).shape == (2, 3, 4, 32, 48)


@pytest.mark.parametrize(
    ("preprocess", "error", "rule"),
    [
        (lambda frames: 1 / 0, ExtremalValueError, "it raised ZeroDivisionError"),
        (lambda frames: None, ExtremalTypeError, "it returned NoneType"),
        (lambda frames: frames, ExtremalTypeError, r"it returned torch.uint8 \(4, 3, 32, 48\)"),
    ],
)
def test_a_broken_preprocess(folder: Path, preprocess: Any, error: type[Exception], rule: str) -> None:
    with pytest.raises(error, match=rule):
        ClipReader(4, preprocess=preprocess).read(folder / "a.mp4")


def test_wrong_readers_are_refused(folder: Path) -> None:
    with pytest.raises(ExtremalTypeError, match="must be a SoundReader, a ClipReader or a VolumeReader, got str"):
        Network(torch.nn.Flatten(), reader="clips")  # type: ignore[arg-type]
    for options in ({"frames": 0}, {"rate": 0.0}):
        with pytest.raises(ExtremalValueError, match=f"{next(iter(options))} must be"):
            ClipReader(**options)  # type: ignore[arg-type]
    with pytest.raises(ExtremalValueError, match=r"must take clips to read .*, toy takes pictures"):
        prepare(Network(torch.nn.Flatten(), name="toy"), folder / "a.mp4")


def test_torchvision_states_the_same_frames() -> None:
    from torchvision import models

    names = [name for name in zoo.names("torchvision:") if name.removeprefix("torchvision:") in CLIP_FRAMES]
    assert {name.removeprefix("torchvision:") for name in names} == set(models.list_models(models.video))
    for name, (frames, rate) in CLIP_FRAMES.items():
        stated = models.get_model_weights(name).DEFAULT.meta["_docs"]
        assert f"`clip_len={frames}`" in stated
        assert f"`frame_rate={rate:g}`" in stated


def test_a_network_of_torchvision_takes_clips(folder: Path) -> None:
    net = zoo.load("torchvision:mc3_18", "random")
    x = prepare(net, folder / "a.mp4")
    assert x.shape == (1, 3, 16, 112, 112)
    assert len(net.labels) == 400
    with net.frozen() as run:
        assert run(x).shape == (1, 400)
    with pytest.raises(ExtremalValueError, match="takes clips, got a picture"):
        net.example_input()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ClipReader(rate="15"), "rate must be a number, got str; it is in frames per second"),  # type: ignore[arg-type]
        (lambda: ClipReader(True), "frames must be a whole number, got True"),
        (lambda: ClipReader(preprocess="scale"), "preprocess must be a function, got 'scale'; leave it out"),  # type: ignore[arg-type]
        (lambda: VolumeReader(3), "orientation must be three letters as text, got 3; e.g. 'RAS'"),  # type: ignore[arg-type]
    ],
)
def test_options_of_the_wrong_kind(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ExtremalTypeError, match=message):
        build()
