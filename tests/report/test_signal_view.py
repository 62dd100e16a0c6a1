"""Signals in a report: the picture, the order of its columns, and the sound that the player plays."""

import base64
import io
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from extremal import Explanation, Network, explain, report
from extremal.report import signal_view
from extremal.report.result_files import RESULT_FILES, write_result
from extremal.report.signal_view import (
    WIDTH,
    build_signal_view,
    column_places,
    draw_spectrogram,
    draw_waveforms,
    encode_player,
    encode_wave,
    has_signal,
)
from support import synthetic
from support.pages import Page, check_nothing_from_elsewhere
from support.sounds import RATE, planted_tone, tone_network

AREAS = (0.05, 0.15)


@pytest.fixture(scope="module")
def sound() -> Explanation:
    return explain(tone_network(), planted_tone()[None], "440 Hz", score="logit", areas=AREAS, solver="path")


def decode(uri: str) -> tuple[int, np.ndarray]:
    header, content = uri.split(",")
    assert header == "data:audio/wav;base64"
    with wave.open(io.BytesIO(base64.b64decode(content))) as file:
        return file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767


def test_page_has_picture_and_player(sound: Explanation) -> None:
    source = report.render(sound)
    page = Page(source)
    check_nothing_from_elsewhere(source, page, own="url(#plot-area)")
    (player,) = [a for tag, a in page.elements if tag == "audio" and "src" in a]
    rate, samples = decode(str(player["src"]))
    assert rate == RATE
    assert np.abs(samples - planted_tone()[0].numpy()).max() < 1e-4
    assert "media-src data:" in source
    assert "from left to right 0 to 2 s" in source
    assert "15 % of the signal" in source.replace("\u00a0", " ")


def test_columns_are_revealed_with_their_places(sound: Explanation) -> None:
    view = build_signal_view(sound)
    assert view.picture.shape == (signal_view.WAVE_HEIGHT + signal_view.SPECTRUM_HEIGHT, WIDTH, 3)
    for k, area in enumerate(AREAS):
        cut = torch.from_numpy(sound.mask(area))[torch.from_numpy(column_places(2 * RATE))]
        assert torch.equal(view.levels[k] <= 254, cut)


def test_a_signal_without_a_rate_has_no_player() -> None:
    net = Network(torch.nn.Sequential(torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2)))
    x = torch.rand(1, 3, 64, generator=torch.Generator().manual_seed(0))
    result = explain(net, x, 0, areas=(0.2,), solver="path")
    assert has_signal(result)
    source = report.render(result)
    check_nothing_from_elsewhere(source, Page(source), own="url(#plot-area)")
    assert "<audio" not in source
    assert "media-src" not in source
    assert "channels 1 to 3 of 3" in source
    assert "from left to right 64 places" in source


def test_images_are_no_signals() -> None:
    result = synthetic.explanation()
    assert not has_signal(result)
    assert "<audio" not in report.render(result)


def test_waveforms_reach_from_the_smallest_to_the_largest_sample() -> None:
    ramp = np.linspace(-1, 1, 5 * WIDTH)[None]
    rows = np.where((draw_waveforms(ramp) == signal_view.WAVE_COLOUR).all(2))[0]
    assert rows.max() - rows.min() > 0.9 * signal_view.WAVE_HEIGHT
    constant = draw_waveforms(np.zeros((40, 10)))
    assert constant.shape == (signal_view.MAX_STRIPS * signal_view.MIN_STRIP_HEIGHT, WIDTH, 3)
    assert (constant == signal_view.WAVE_COLOUR).all(2).any(0).all()  # a line in every column


def test_the_loudest_row_of_a_spectrogram_is_the_tone() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    picture = draw_spectrogram(tone, 256).astype(int).sum(2)
    row = int(picture[:, WIDTH // 2].argmin())  # the darkest
    height = signal_view.SPECTRUM_HEIGHT
    assert abs((height - row - 0.5) / height * RATE / 2 - 1000) < 40


def test_the_player_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_view, "MAX_PLAYED_SAMPLES", RATE)
    uri, note = encode_player(np.full((1, 3 * RATE), 2.0), RATE)
    assert note.startswith("The player has the first 1 s of 3 s. The player's volume is 0.5 of the sound's")
    assert decode(uri)[1].shape == (RATE,)
    assert encode_player(np.zeros((1, 10)), 0) == ("", "")
    assert encode_player(np.zeros((3, 10)), RATE) == ("", "")
    assert encode_player(np.zeros((1, 10)), 1_000_000) == ("", "")


def test_stereo_is_interleaved() -> None:
    with wave.open(io.BytesIO(encode_wave(np.array([[0.5, 0.25], [-1.0, 1.0]]), RATE))) as file:
        assert file.getnchannels() == 2
        values = np.frombuffer(file.readframes(2), "<i2")
    assert values.tolist() == [16384, -32767, 8192, 32767]


def test_files_of_a_sound(sound: Explanation, tmp_path: Path) -> None:
    files = write_result(sound, tmp_path / "out", "tone.wav")
    assert [Path(mask).name for mask in files["masks"]] == ["mask-0.05.wav", "mask-0.15.wav"]
    assert all(RESULT_FILES.fullmatch(path.name) for path in (tmp_path / "out").iterdir())
    with wave.open(files["masks"][1]) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert (samples[~sound.mask(0.15)] == 0).all()
    assert np.abs(samples[sound.mask(0.15)]).max() > 10_000


def test_what_is_removed_is_silent(sound: Explanation, tmp_path: Path) -> None:
    signal_view.write_region(replace(sound, keeps=False), sound.binary(0.15)[0], tmp_path / "a.wav")
    with wave.open(str(tmp_path / "a.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert (samples[sound.mask(0.15)] == 0).all()
