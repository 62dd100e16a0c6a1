"""Text of `--target` and `--ask` parsed into targets."""

from pathlib import Path

import pytest

from extremal import Network
from extremal.errors import ExtremalValueError
from extremal.scores import Answer, Box, Instance, Segment, Similarity, Text, Unit
from extremal.scores.parse import ASK_SYNTAX, parse_query
from support.errors import message_of
from support.fake_network import BOX, SIDE, TEXTURE, fake_network, save_image
from support.query_toys import Detector

CORNERS = (6.0, 4.0, 16.0, 14.0)


@pytest.fixture(autouse=True)
def _image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in a folder with one image."""
    monkeypatch.chdir(tmp_path)
    save_image(tmp_path / "cat.png")


def detector() -> Network:
    fake = fake_network()
    labels = ("background", "cat", "dog")
    return Network(Detector(TEXTURE, [(BOX, CORNERS, 1)]), fake.preprocess, labels, "seer", fake.mean, fake.std)


def test_without_a_query_the_target_is_a_class() -> None:
    assert parse_query(fake_network(), "", "") is None
    assert parse_query(fake_network(), "tiger cat", "") == 1
    assert parse_query(fake_network(), "1", "") == 1


def test_boxes() -> None:
    best, placed = parse_query(detector(), "", "box"), parse_query(detector(), "cat", "box:6,4,16,14")
    assert isinstance(best, Box)
    assert isinstance(placed, Box)
    assert (best.box, best.label) == (None, None)
    assert (placed.box, placed.label) == (CORNERS, 1)


def test_boxes_of_another_class_or_of_none() -> None:
    rather = parse_query(detector(), "cat", "box:not:dog")
    placed = parse_query(detector(), "", "box:6,4,16,14:not:2")
    absent = parse_query(detector(), "dog", "no-box:6,4,16,14")
    instance = parse_query(detector(), "dog", "instance")
    assert isinstance(rather, Box)
    assert isinstance(placed, Box)
    assert isinstance(absent, Box)
    assert isinstance(instance, Instance)
    assert (rather.box, rather.label, rather.against, rather.absent) == (None, 1, 2, False)
    assert (placed.box, placed.label, placed.against, placed.absent) == (CORNERS, None, 2, False)
    assert (absent.box, absent.label, absent.against, absent.absent) == (CORNERS, 2, None, True)
    assert (instance.region, instance.label) == (None, 2)


def test_segments_units_and_similarity() -> None:
    segment, unit = parse_query(fake_network(), "1", "segment"), parse_query(fake_network(), "", "unit:blocks.3:5")
    similarity = parse_query(fake_network(), "", "like:cat.png")
    assert isinstance(segment, Segment)
    assert isinstance(unit, Unit)
    assert isinstance(similarity, Similarity)
    assert segment.label == 1
    assert (unit.layer, unit.channel) == ("blocks.3", 5)
    assert similarity.reference.shape == (1, 3, SIDE, SIDE)


def test_answers_and_texts() -> None:
    answer = parse_query(fake_network(), "", "answer:a red bus: 3", "What?")
    own, token = (
        parse_query(fake_network(), "", "answer", "What?"),
        parse_query(fake_network(), "", "token:2:a bus", "?"),
    )
    assert isinstance(answer, Answer)
    assert isinstance(own, Answer)
    assert isinstance(token, Answer)
    assert (answer.text, answer.prompt, answer.token) == ("a red bus: 3", "What?", None)
    assert (own.text, own.prompt, own.token) == (None, "What?", None)
    assert (token.text, token.token) == ("a bus", 2)
    text = parse_query(fake_network(), "", "text:a cat| a dog|a car")
    assert isinstance(text, Text)
    assert (text.text, text.others) == ("a cat", ("a dog", "a car"))


@pytest.mark.parametrize(
    ("target", "ask", "prompt", "message"),
    [
        (
            "",
            "box",
            "What?",
            "--prompt must be used with --ask answer or token, got 'What?' without; e.g. --ask answer",
        ),
        (
            "cat",
            "answer",
            "What?",
            "--ask answer must be used without a class, got --target cat; leave one of them out",
        ),
        (
            "",
            "token:x:a bus",
            "What?",
            "--ask token must name a token by its index, 0 or above, got 'token:x:a bus'; e.g. token:2:a red bus",
        ),
        (
            "",
            "answer: ",
            "What?",
            "an answer must have tokens, got 'answer: ' with an empty text; leave out the last colon for the "
            "model's own answer",
        ),
    ],
)
def test_wrong_prompts_and_answers(target: str, ask: str, prompt: str, message: str) -> None:
    with pytest.raises(ExtremalValueError) as error:
        parse_query(fake_network(), target, ask, prompt)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("target", "ask", "message"),
    [
        ("", "boxes", f"--ask must be {ASK_SYNTAX}, got 'boxes'"),
        ("", "like:", f"--ask must be {ASK_SYNTAX}, got 'like:'"),
        ("", "instance:1", f"--ask must be {ASK_SYNTAX}, got 'instance:1'"),
        ("", "box:not:", "--ask box must name a class after :not:, got 'box:not:'; e.g. box:not:dog"),
        ("", "no-box:1,2,3,4", "--ask no-box must be about a class, got none; name it with --target"),
        (
            "1",
            "no-box",
            "--ask no-box must have four numbers X1,Y1,X2,Y2 in pixels of the network's input, got ''; "
            "e.g. no-box:40,30,200,180",
        ),
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
def test_invalid_text(target: str, ask: str, message: str) -> None:
    assert message_of(parse_query, fake_network(), target, ask) == message
