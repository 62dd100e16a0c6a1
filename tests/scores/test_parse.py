"""The option --ask: questions of other kinds than a class from the command line."""

import json
from pathlib import Path

import pytest

from extremal import Network, plots, report, zoo
from extremal.errors import ExtremalValueError
from extremal.masking.solvers import SOLVERS
from extremal.masking.solvers import Path as PathSolver
from extremal.scores import Box, Segment, Similarity, Unit
from extremal.scores.parse import parse_query
from support.answering import Detector, Segmenter
from support.fake_network import BOX, SIDE, TEXTURE, fake_network, photo
from support.terminal import call

CORNERS = (6.0, 4.0, 16.0, 14.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cheap solver, and reports that are drawn in no time; a photo in an otherwise empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SOLVERS, "path", PathSolver(steps=12, polish=4, draws=2))
    monkeypatch.setattr(plots, "write_figure", lambda _, path, image=0: Path(path).write_bytes(b"figure"))
    monkeypatch.setattr(
        report, "write", lambda _, path, image=0, title=None, certificate=None: Path(path).write_text(title)
    )
    photo(tmp_path / "cat.png")


def detector() -> Network:
    fake = fake_network()
    labels = ("background", "cat", "dog")
    return Network(Detector(TEXTURE, [(BOX, CORNERS, 1)]), fake.preprocess, labels, "seer", fake.mean, fake.std)


def told(
    net: Network, monkeypatch: pytest.MonkeyPatch, *arguments: str, command: str = "explain"
) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    monkeypatch.setattr(zoo, "load", lambda name, weights=None: net)
    given = [command, "cat.png"] if command == "explain" else [command, "seer", "cat.png"]
    return call(*given, *arguments, columns=140)


class TestWords:
    def test_nothing_asks_about_a_class(self) -> None:
        assert parse_query(fake_network(), "", "") is None
        assert parse_query(fake_network(), "tiger cat", "") == 1
        assert parse_query(fake_network(), "1", "") == 1

    def test_boxes(self) -> None:
        best, placed = parse_query(detector(), "", "box"), parse_query(detector(), "cat", "box:6,4,16,14")
        assert isinstance(best, Box)
        assert isinstance(placed, Box)
        assert (best.box, best.label) == (None, None)
        assert (placed.box, placed.label) == (CORNERS, 1)

    def test_segments_units_and_likeness(self) -> None:
        segment, unit = parse_query(fake_network(), "1", "segment"), parse_query(fake_network(), "", "unit:blocks.3:5")
        like = parse_query(fake_network(), "", "like:cat.png")
        assert isinstance(segment, Segment)
        assert isinstance(unit, Unit)
        assert isinstance(like, Similarity)
        assert segment.label == 1
        assert (unit.layer, unit.channel) == ("blocks.3", 5)
        assert like.reference.shape == (1, 3, SIDE, SIDE)

    @pytest.mark.parametrize(
        ("target", "ask", "message"),
        [
            (
                "",
                "boxes",
                "--ask must be box, box:X1,Y1,X2,Y2, segment, unit:LAYER:CHANNEL or like:IMAGE, got 'boxes'",
            ),
            ("", "like:", "--ask must be box, box:X1,Y1,X2,Y2, segment, unit:LAYER:CHANNEL or like:IMAGE, got 'like:'"),
            (
                "",
                "box:1,2,3",
                "--ask box must have four numbers X1,Y1,X2,Y2 in pixels of the network's input, got '1,2,3'; "
                "e.g. box:40,30,200,180",
            ),
            ("", "box:5,5,1,9", "a box must have x1 < x2 and y1 < y2, got 5, 5, 1, 9"),
            ("", "segment", "--ask segment must be about a class, got none; name it with --target"),
            ("1", "unit:a:1", "--ask unit must be used without a class, got --target 1; leave one of them out"),
            (
                "",
                "unit:blocks",
                "--ask unit must name a layer and a channel number, got 'unit:blocks'; e.g. unit:blocks.3:5, "
                "`extremal layers` lists the layers",
            ),
            ("", "like:dog.png", "an image must be an existing file, got 'dog.png'; check the path"),
        ],
    )
    def test_what_is_no_question(self, target: str, ask: str, message: str) -> None:
        with pytest.raises(ExtremalValueError) as caught:
            parse_query(fake_network(), target, ask)
        assert str(caught.value) == message


class TestCommands:
    def test_a_box_is_explained_and_certified(self, monkeypatch: pytest.MonkeyPatch) -> None:
        areas = "0.1,0.1736,0.4"  # the box has 100 of 576 places
        code, out, err = told(detector(), monkeypatch, "--ask", "box", "--areas", areas, "--json", "--refine")
        assert (code, err) == (0, "")
        (record,) = json.loads(out)
        assert (record["target"], record["target_name"]) == (None, "best box")
        assert record["effects"]["binary"][1] >= 0.9
        assert record["certificate"]["area"] <= 0.1737

    def test_it_is_told_without_the_number_of_a_class(self, monkeypatch: pytest.MonkeyPatch) -> None:
        code, out, _ = told(detector(), monkeypatch, "--ask", "box", "--target", "cat", "--areas", "0.2")
        assert code == 0
        assert out.startswith("cat.png: best box of class 1, score ")

    @pytest.mark.parametrize("arguments", [("--dry-run", "--areas", "0.2"), ()])
    def test_guidance_takes_it_too(self, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        command = "explain" if arguments else "doctor"
        code, out, err = told(detector(), monkeypatch, "--ask", "box", *arguments, command=command)
        assert (code, err) == (0, "")
        assert "best box" in out

    def test_a_detector_must_be_asked_about_a_box(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert told(detector(), monkeypatch, "--areas", "0.2") == (
            2,
            "",
            "error: a detector must be asked about a box, seer returns boxes and no classes; pass scores.Box() as "
            "target, or --ask box\n",
        )

    def test_a_segment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        net = Network(Segmenter(TEXTURE), fake_network().preprocess, name="parts")
        code, out, err = told(net, monkeypatch, "--ask", "segment", "--target", "1", "--areas", "0.2", "--json")
        assert (code, err) == (0, "")
        (record,) = json.loads(out)
        assert (record["target"], record["target_name"]) == (None, Segment(1).name)
