"""What the README says runs, and what it points to exists."""

import re
from pathlib import Path

import pytest

from extremal import solvers
from extremal.explanation import Explanation

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands, with a shorter run of the same solver."""
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(solvers.SOLVERS, "path", solvers.Path(steps=4, polish=2, draws=1))
    exec(compile(example, "README.md", "exec"), {})
    saved = Explanation.load("cat.safetensors")
    assert saved.areas == (0.05, 0.1, 0.2, 0.4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(saved.areas) + 1
    assert lines[0].startswith("('tiger cat',)")


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_the_commands_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
