"""Sounds on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from support import terminal
from support.commands import list_names
from support.sounds import write_planted_tone

NETWORK = ("--network", "support.sounds:tone_network")


@pytest.fixture
def tone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a sound, and go there."""
    monkeypatch.chdir(tmp_path)
    return write_planted_tone(Path("tone.wav")).name


def test_explain(tone: str) -> None:
    options = ("--target", "440 Hz", "--score", "logit", "--areas", "0.05,0.15", "--out", "out", "--json")
    code, stdout, _ = terminal.call("explain", tone, *NETWORK, *options)
    assert code == 0
    (record,) = json.loads(stdout)
    assert [verdict["word"] for verdict in record["verdicts"]] == ["insufficient", "sufficient"]
    assert record["smallest"]["area"] == 0.15
    names = ["explanation.safetensors", "figure.png", "mask-0.05.wav", "mask-0.15.wav", "report.html"]
    assert list_names(Path("out/tone-440-Hz")) == names


@pytest.mark.parametrize("question", [("sets", "--target", "440 Hz", "--score", "logit"), ("contrast",)])
def test_regions_are_written_as_arrays(tone: str, question: tuple[str, ...]) -> None:
    command, *target = question
    options = ("--areas", "0.15,0.3", "--perturbation", "fade", "--solver", "path", "--out", "out", "--json")
    for force in ((), ("--force",)):  # a previous result is known by its files
        code, stdout, stderr = terminal.call(command, tone, *target, *NETWORK, *options, *force)
        assert (code, stderr) == (0, "")
    (record,) = json.loads(stdout)
    assert record["files"]["masks"]
    for kind, path in record["files"]["masks"].items():
        mask = np.load(path, allow_pickle=False)
        assert Path(path).name == f"region-{kind}.npy"
        assert mask.shape == (16000,)
        assert mask.mean() == pytest.approx(record["regions"][kind]["area"])


def test_plan(tone: str) -> None:
    code, stdout, _ = terminal.call("explain", tone, *NETWORK, "--dry-run", "--areas", "0.1")
    assert code == 0
    assert "1 × 16000 as input of tone meter" in stdout
    assert list_names(Path()) == ["tone.wav"]


def test_what_is_refused(tone: str) -> None:
    code, _, stderr = terminal.call("explain", tone)
    assert code == 2
    assert stderr.startswith("error: embedded does not say that it takes sounds, got the sound 'tone.wav'; return ")
    Path("cut.wav").write_bytes(Path(tone).read_bytes()[:1000])
    code, _, stderr = terminal.call("explain", "cut.wav", *NETWORK)
    assert code == 2
    assert stderr == (
        "error: a sound must be readable to its end, got 'cut.wav': it ends after 478 of 16,000 samples; copy or "
        "convert it again\n"
    )
    code, _, stderr = terminal.call("explain", "none.wav", *NETWORK)
    assert (code, stderr) == (2, "error: a sound must be an existing file, got 'none.wav'; check the path\n")
