"""Commands about a function on pictures that a user's module names."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from extremal.cli import main

MODULE = """
import numpy as np
import extremal

def predict(pictures):
    values = pictures.astype(float) / 255
    red = (values[..., 0] - values[..., 1]).clip(0)[:, 4:14, 6:16].mean((1, 2))
    return np.stack([8 * red, 0 * red], 1)

def load():
    return extremal.BlackBox(predict, size=(32, 32), labels=("red", "other"))
"""


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module and an image, and go there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "opaque_service", raising=False)
    Path("opaque_service.py").write_text(MODULE, encoding="utf-8")
    pixels = np.full((32, 32, 3), 60, np.uint8)
    pixels[4:14, 6:16] = 240, 20, 20
    Image.fromarray(pixels).save("red.png")
    return "red.png"


def run(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(main.app, arguments, env={"COLUMNS": "200"})
    return ended.exit_code, ended.stdout + ended.stderr


EXPLAIN = ("explain", "red.png", "--network", "opaque_service:load", "--target", "red", "--areas", "0.1,0.3")


def test_explain(image: str) -> None:
    code, text = run(*EXPLAIN, "--solver", "search", "--score", "logit", "--out", "out")
    assert code == 0, text
    assert "smallest sufficient area: 10 %" in text
    assert list(Path("out").rglob("report.html"))


def test_dry_run_and_doctor_say_that_it_is_a_black_box(image: str) -> None:
    code, text = run(*EXPLAIN, "--solver", "search", "--dry-run")
    assert code == 0, text
    assert "no gradient: black box" in text
    assert "evaluations: 0 forward and backward" in text
    code, text = run("doctor", "opaque_service:load", image, "--target", "red")
    assert code == 0, text
    assert "no gradient: black box" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "the solver consensus needs a gradient, predict is a black box without one; pass solver='search', or"),
        (
            ("--solver", "search", "--refine"),
            "the search for the smallest area needs a gradient, predict is a black",
        ),
        (("--solver", "search", "--refine", "--dry-run"), "the search for the smallest area needs a gradient, pred"),
    ],
)
def test_what_needs_a_gradient_is_refused_in_one_line(image: str, options: tuple[str, ...], message: str) -> None:
    code, text = run(*EXPLAIN, *options, "--out", "out")
    assert code == 2
    assert f"error: {message}" in text
    assert "Traceback" not in text
    assert not Path("out").exists() or not list(Path("out").rglob("*.html"))
