"""The option `--ask`: queries other than a class, from the command line."""

import json
from pathlib import Path

import pytest

from extremal import Network, zoo
from extremal.scores import Segment
from support.fake_network import BOX, TEXTURE, fake_network, save_image
from support.query_toys import Detector, Segmenter
from support.terminal import call

CORNERS = (6.0, 4.0, 16.0, 14.0)


@pytest.fixture(autouse=True)
def _image(fake_commands: None, tmp_path: Path) -> None:
    save_image(tmp_path / "cat.png")


def detector() -> Network:
    fake = fake_network()
    labels = ("background", "cat", "dog")
    return Network(Detector(TEXTURE, [(BOX, CORNERS, 1)]), fake.preprocess, labels, "seer", fake.mean, fake.std)


def call_with(
    net: Network, monkeypatch: pytest.MonkeyPatch, *arguments: str, command: str = "explain"
) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr."""
    monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: net)
    positional = [command, "cat.png"] if command == "explain" else [command, "embedded", "cat.png"]
    return call(*positional, *arguments, columns=140)


def test_a_box_is_explained_and_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    areas = "0.1,0.1736,0.4"  # the box has 100 of 576 places
    code, out, err = call_with(detector(), monkeypatch, "--ask", "box", "--areas", areas, "--json", "--refine")
    assert (code, err) == (0, "")
    (record,) = json.loads(out)
    assert (record["target"], record["target_name"]) == (None, "best box")
    assert record["effects"]["binary"][1] >= 0.9
    assert record["certificate"]["area"] <= 0.1737


def test_it_is_printed_without_a_class_index(monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = call_with(detector(), monkeypatch, "--ask", "box", "--target", "cat", "--areas", "0.2")
    assert code == 0
    assert out.startswith("cat.png: best box of class 1, score ")


@pytest.mark.parametrize("arguments", [("--dry-run", "--areas", "0.2"), ()])
def test_dry_run_and_doctor_accept_it(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    command = "explain" if arguments else "doctor"
    code, out, err = call_with(detector(), monkeypatch, "--ask", "box", *arguments, command=command)
    assert (code, err) == (0, "")
    assert "best box" in out


def test_a_detector_must_be_asked_about_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    assert call_with(detector(), monkeypatch, "--areas", "0.2") == (
        2,
        "",
        "error: a detector must be asked about a box, seer returns boxes and no classes; pass scores.Box() as "
        "target, or --ask box\n",
    )


def test_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Network(Segmenter(TEXTURE), fake_network().preprocess, name="parts")
    code, out, err = call_with(net, monkeypatch, "--ask", "segment", "--target", "1", "--areas", "0.2", "--json")
    assert (code, err) == (0, "")
    (record,) = json.loads(out)
    assert (record["target"], record["target_name"]) == (None, Segment(1).name)
