"""Sounds from files: their samples, rates and channels, and one sentence for each kind of damage."""

import math
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

import extremal
from extremal import ExtremalError, ExtremalTypeError, ExtremalValueError, Network, SoundReader
from extremal.networks.inputs import prepare
from extremal.networks.noise import prepare_noisy
from extremal.networks.sounds.sound_files import check_sound_file, is_sound, read_sound_file
from support.sounds import RATE, planted_tone, tone_network, write_planted_tone


def write_wave(path: Path, data: bytes, width: int, channels: int = 1, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(data)
    return path


@pytest.mark.parametrize(
    ("width", "data", "expected"),
    [
        (1, bytes([0, 128, 192]), [-1, 0, 0.5]),
        (2, np.array([-32768, 0, 16384], "<i2").tobytes(), [-1, 0, 0.5]),
        (3, b"\x00\x00\x80\x00\x00\x00\x00\x00\x40", [-1, 0, 0.5]),
        (4, np.array([-(2**31), 0, 2**30], "<i4").tobytes(), [-1, 0, 0.5]),
    ],
)
def test_samples_of_each_width(tmp_path: Path, width: int, data: bytes, expected: list[float]) -> None:
    sound = read_sound_file(write_wave(tmp_path / "a.wav", data, width))
    assert sound.rate == RATE
    assert sound.samples.tolist() == [expected]


def test_channels_are_mixed_or_kept(tmp_path: Path) -> None:
    stereo = np.array([[16384, 0], [0, -16384], [8192, 8192]], "<i2")
    path = write_wave(tmp_path / "a.wav", stereo.tobytes(), 2, channels=2)
    assert SoundReader(RATE).read(path).tolist() == [[[0.25, -0.25, 0.25]]]
    assert SoundReader(RATE, channels=2).read(path).tolist() == [[[0.5, 0, 0.25], [0, -0.5, 0.25]]]
    mono = write_wave(tmp_path / "b.wav", stereo[:, 0].tobytes(), 2)
    assert SoundReader(RATE, channels=2).read(mono).tolist() == [[[0.5, 0, 0.25]] * 2]
    three = write_wave(tmp_path / "c.wav", stereo.tobytes(), 2, channels=3)
    with pytest.raises(
        ExtremalValueError, match=r"must have 1 or 2 channels for this network, got 3 in '.*'; mix them"
    ):
        SoundReader(RATE, channels=2).read(three)


def test_a_tone_is_the_same_at_another_rate(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    moments = torch.arange(2 * 48_000, dtype=torch.float64) / 48_000
    tone = (0.5 * torch.sin(2 * math.pi * 440 * moments) * 32767).round().numpy().astype("<i2")
    x = SoundReader(16_000).read(write_wave(tmp_path / "a.wav", tone.tobytes(), 2, rate=48_000))
    expected = 0.5 * torch.sin(2 * math.pi * 440 * torch.arange(2 * 16_000, dtype=torch.float64) / 16_000)
    assert x.shape == (1, 1, 32_000)
    assert (x[0, 0, 500:-500] - expected[500:-500]).abs().max() < 2e-3  # the ends lack neighbours


def test_without_a_library_that_resamples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extremal.networks.sounds.reader.find_spec", lambda name: None)
    path = write_planted_tone(tmp_path / "a.wav")
    assert SoundReader(RATE).read(path).shape == (1, 1, 2 * RATE)
    with pytest.raises(ExtremalValueError, match=r"the 16,000 samples per second that the network takes, got 8,000 in"):
        SoundReader(16_000).read(path)


def test_other_formats_need_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile = pytest.importorskip("soundfile")
    samples = planted_tone()[0].numpy()
    for name, subtype in (("a.flac", "PCM_24"), ("a.wav", "FLOAT")):
        soundfile.write(tmp_path / name, samples, RATE, subtype=subtype)
        assert np.abs(read_sound_file(tmp_path / name).samples - samples).max() < 1e-6
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan]), RATE, subtype="FLOAT")
    with pytest.raises(ExtremalValueError, match="a sound must be finite, got NaN or infinity"):
        read_sound_file(tmp_path / "nan.wav")
    monkeypatch.setattr("extremal.errors.find_spec", lambda name: None)
    with pytest.raises(ExtremalError, match=r"soundfile is not installed; pip install 'extremal\[audio\]'"):
        read_sound_file(tmp_path / "a.flac")


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    path = write_planted_tone(tmp_path / "a.wav")
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    with pytest.raises(ExtremalValueError, match="it ends after 478 of 16,000 samples; copy or convert it again"):
        read_sound_file(path)
    path.write_bytes(b"")
    with pytest.raises(ExtremalValueError, match="must not be empty"):
        check_sound_file(path)
    with pytest.raises(ExtremalValueError, match="without any; record it again"):
        read_sound_file(write_wave(path, b"", 2))
    path.write_bytes(content)
    with pytest.raises(ExtremalValueError, match=r"at most 1,000 samples, got 1 × 16,000 in '.*'; cut it"):
        read_sound_file(path, max_samples=1000)
    with pytest.raises(ExtremalValueError, match="a sound must be an existing file"):
        check_sound_file(tmp_path / "other.wav")
    with pytest.raises(ExtremalValueError, match=r"a sound must be a file, got the folder .*; name the sounds in it"):
        check_sound_file(tmp_path)


def test_reader_options() -> None:
    with pytest.raises(ExtremalTypeError, match=r"rate must be a whole number, got 44\.1; it is in samples per second"):
        SoundReader(44.1)  # type: ignore[arg-type]
    with pytest.raises(ExtremalValueError, match="rate must be at least 1, got 0; it is in samples per second"):
        SoundReader(0)
    with pytest.raises(ExtremalValueError, match="channels must be 1 or 2, got 6"):
        SoundReader(RATE, channels=6)
    with pytest.raises(ExtremalValueError, match=r"channels must be 1 or 2, got array\(\[1, 2\]\); e.g. 1"):
        SoundReader(RATE, np.array([1, 2]))  # type: ignore[arg-type]
    assert SoundReader(np.int64(RATE)) == SoundReader(RATE)  # type: ignore[arg-type]
    with pytest.raises(ExtremalTypeError, match="must be a SoundReader, a ClipReader or a VolumeReader, got int"):
        Network(torch.nn.Identity(), reader=8000)  # type: ignore[arg-type]


def test_which_network_takes_sounds(tmp_path: Path) -> None:
    path = write_planted_tone(tmp_path / "a.wav")
    assert is_sound(path)
    assert prepare(tone_network(), path).shape == (1, 1, 2 * RATE)
    noisy = prepare_noisy(tone_network(), path, 0)
    assert 0 < (noisy - prepare(tone_network(), path)).abs().max() < 0.01
    with pytest.raises(
        ExtremalValueError, match=r"Identity does not say that it takes sounds, got the sound '.*a.wav'"
    ):
        prepare(Network(torch.nn.Identity()), path)
    with pytest.raises(ExtremalValueError, match="tone meter takes sounds, got a picture"):
        prepare(tone_network(), np.zeros((8, 8, 3), np.uint8))


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> extremal.Explanation:
    path = write_planted_tone(tmp_path_factory.mktemp("sounds") / "a.wav")
    return extremal.explain(tone_network(), path, "440 Hz", score="logit", areas=(0.05, 0.15))


def test_a_planted_tone_is_found(explained: extremal.Explanation) -> None:
    planted = torch.zeros(2 * RATE, dtype=torch.bool)
    planted[int(0.5 * RATE) : int(0.8 * RATE)] = True  # 15 % of the sound
    mask = torch.from_numpy(explained.mask(0.15))
    assert (mask & planted).sum() / (mask | planted).sum() > 0.9
    assert [str(verdict) for verdict in explained.verdict[0]] == ["insufficient", "sufficient"]
    curve = explained.curve()
    assert curve.binary[1] > 0.95
    assert curve.unseen[1] > 0.9
    assert curve.control_best[1] < 0.9
    assert explained.settings["sample_rate"] == RATE


def test_a_tone_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write_planted_tone(tmp_path / "a.wav")
    result = extremal.explain(tone_network(), path, "990 Hz", score="logit", areas=(0.05, 0.15, 0.4))
    assert "sufficient" not in [str(verdict) for verdict in result.verdict[0]]
    assert result.smallest() is None
