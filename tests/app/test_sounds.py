"""The app with a network on sounds: the upload, the request, the page, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest

from extremal import Network
from extremal.app import networks as app_networks
from extremal.app import reader_uploads
from extremal.app.answers import open_answer
from extremal.app.image_messages import read_visitors_file
from extremal.app.job_queue import JobQueue
from extremal.app.networks import ServedNetwork, load_networks
from extremal.app.page import build_page
from extremal.app.request import Request
from extremal.app.request_run import run_request
from extremal.app.result_cache import ResultCache
from extremal.explanations.explanation import Explanation
from extremal.explanations.settings import Settings
from extremal.report.signal_view import encode_wave
from support.app_toys import colour_network
from support.errors import message_of
from support.sounds import RATE, planted_tone, tone_network, write_planted_tone
from support.stack_toys import clip_network

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_request_about_a_sound(tmp_path: Path) -> None:
    path, served = write_planted_tone(tmp_path / "tone.wav"), ServedNetwork("toy", tone_network())
    assert (served.kind, served.layers) == ("sound", {})
    classes = served.top_classes(read_visitors_file(path, path.name, served))
    assert classes[0].label in ("440 Hz", "660 Hz")
    settings = Settings(areas=(0.15, 0.3), perturbation="fade")
    request = Request("digest", path.name, 0, ("toy",), refine=True, stability=True, settings=settings)
    (tmp_path / "out").mkdir()
    response = run_request(request, path, {"toy": served}, tmp_path / "out", lambda progress: None)
    (view,) = response.views
    assert view.heading == "440 Hz – preserve game, toy"
    result = Explanation.load(view.folder / "explanation.safetensors")
    heard = result.binary(0.15)[0, 0].numpy()
    assert float(heard[round(0.5 * RATE) : round(0.8 * RATE)].mean()) > 0.8  # where the tone is
    assert "<audio" in (view.folder / "report.html").read_text(encoding="utf-8")
    assert response.thumbnail == b""
    (tmp_path / "cache").mkdir()
    opened = open_answer(view.folder / "explanation.safetensors", "tone", ResultCache(tmp_path / "cache"))
    assert opened.response.views[0].sentence == view.sentence


def test_the_page_asks_for_a_sound(tmp_path: Path) -> None:
    with JobQueue(10) as queue, JobQueue(10) as previews:
        page = build_page({"toy": ServedNetwork("toy", tone_network())}, queue, previews, ResultCache(tmp_path))
    fields = {getattr(block, "elem_id", None): block for block in page.blocks.values()}
    assert fields["photo"].label == "Sound"
    assert ".wav" in fields["photo"].file_types
    assert not fields["layer"].visible
    texts = [block.value for block in page.blocks.values() if isinstance(getattr(block, "value", None), str)]
    assert any(re.search(r"Drop a sound\.", text) for text in texts)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = ServedNetwork("toy", tone_network())
    path = write_planted_tone(tmp_path / "tone.wav")
    monkeypatch.setattr(reader_uploads, "MAX_SAMPLES", RATE)
    message = message_of(read_visitors_file, path, path.name, served)
    assert message == "a sound must have at most 1 seconds here, got 2 in 'tone.wav'; cut it"
    monkeypatch.setattr(reader_uploads, "MAX_DECODED_SAMPLES", RATE)
    message = message_of(read_visitors_file, path, path.name, served)
    assert message == "a sound must have at most 8,000 samples, got 1 × 16,000 in 'tone.wav'; cut it"
    (tmp_path / "cut.wav").write_bytes(encode_wave(np.asarray(planted_tone()), RATE)[:9000])
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    for name in ("cut.wav", "photo.png", "missing.wav"):
        message = message_of(read_visitors_file, tmp_path / name, name, served)
        assert str(tmp_path) not in message
        assert name in message or "no longer stored" in message


def test_sounds_and_other_files_need_an_app_each(monkeypatch: pytest.MonkeyPatch) -> None:
    makers = {"sounds": tone_network, "clips": clip_network, "pictures": colour_network}

    def load(name: str, weights: str, device: object) -> Network:
        return makers[name]()

    monkeypatch.setattr(app_networks, "load_network", load)
    assert load_networks(["sounds"])["sounds"].kind == "sound"
    for other in ("clips", "pictures"):
        assert message_of(load_networks, ["sounds", other]).startswith(
            f"the networks of an app must take the same kind of files, got sounds sounds, {other} {other}; start"
        )
