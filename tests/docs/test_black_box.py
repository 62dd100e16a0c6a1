"""The recipes for black boxes run as shown and print the stated results."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "black_box.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)
RECIPES = {
    name: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name, text in zip(SECTIONS[1::2], SECTIONS[2::2], strict=True)
}


def run(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    (recipe,) = RECIPES[name]
    exec(compile(recipe, name, "exec"), {})
    return capsys.readouterr().out.strip()


def test_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    inside, verdict, gradients = run("An endpoint", capsys).split()
    assert (verdict, gradients) == ("sufficient", "0")
    assert float(inside) > 0.7


@pytest.mark.filterwarnings("ignore")
def test_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    inside, verdict = run("ONNX in onnxruntime", capsys).split()
    assert verdict == "sufficient"
    assert float(inside) > 0.7
