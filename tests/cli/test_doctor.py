"""The command `extremal doctor`."""

import json
from pathlib import Path

import pytest

from extremal import zoo
from extremal.explanations.preflight.doctor import CHECK_NAMES
from support import terminal
from support.fake_network import fake_network, save_image
from support.faulty import Faulty


@pytest.fixture(autouse=True)
def _image(fake_commands: None, tmp_path: Path) -> None:
    save_image(tmp_path / "cat.png")


def call(*arguments: str) -> tuple[int, str, str]:
    return terminal.call("doctor", *arguments)


def test_no_issues() -> None:
    code, out, err = call("embedded", "cat.png")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "cat.png: fake, target tabby, tabby cat"
    assert [line.split(" (")[0] for line in lines[1:3]] == ["  input", "  output"]
    assert lines.pop(2) == "  output (1, 2): classes on axis 1; 2 labels; logits"
    assert [line.split(":")[0] for line in lines[2:-1]] == [f"  ok       {name}" for name in CHECK_NAMES]
    assert lines[-1] == "problems: 0, warnings: 0"


def test_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = fake_network()
    faulty.model = Faulty(after=lambda out, x: 0 * out)
    monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: faulty)
    code, out, err = call("embedded", "cat.png")
    skipped = ", ".join(CHECK_NAMES[1 + CHECK_NAMES.index("depends on the input") :])
    assert (code, err) == (1, "")
    assert out.splitlines()[-4:] == [
        "  problem  depends on the input: the input, noise, zeros and ones all score 0",
        "           to do: look for weights of zero or a constant output",
        f"skipped because of a problem: {skipped}",
        "problems: 1, warnings: 0",
    ]


def test_json() -> None:
    code, out, err = call("embedded", "cat.png", "--json", "--target", "tiger cat", "--score", "probability")
    document = json.loads(out)
    assert (code, err) == (1, "")
    assert list(document) == ["path", "network", "target", "findings", "skipped", "reading", "ok"]
    assert (document["path"], document["network"], document["target"], document["ok"]) == (
        "cat.png",
        "fake",
        "tiger cat",
        False,
    )
    finding = next(item for item in document["findings"] if item["name"] == "destruction lowers score")
    assert (finding["level"], finding["ok"]) == ("problem", False)
    assert list(finding) == ["name", "level", "measured", "remedy", "ok"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embedded", "no.png"], "an image must be an existing file, got 'no.png'; check the path"),
        (
            ["embedded", "cat.png", "--target", "9"],
            "target must lie in 0..1 for fake, got 9; classes are counted from 0",
        ),
        (
            ["embedded", "cat.png", "--perturbation", "x"],
            "perturbation must be one of mixed, blur, fade, constant, noise, got 'x'",
        ),
    ],
)
def test_bad_input(arguments: list[str], message: str) -> None:
    assert call(*arguments) == (2, "", f"error: {message}\n")
