"""What the README says runs, and what it points to exists."""

import re
from pathlib import Path

import pytest

from extremal import ChannelExplanation, solvers
from extremal.explanation import Explanation

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


CHANNELS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "channels.md").read_text(encoding="utf-8"), re.DOTALL)
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter run of the same solver, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(solvers.SOLVERS, "path", solvers.Path(steps=4, polish=2, draws=1, search=2))


def test_the_python_example(capsys: pytest.CaptureFixture[str]) -> None:
    """As it stands."""
    exec(compile(EXAMPLES[0], "README.md", "exec"), {})
    saved = Explanation.load("cat.safetensors")
    assert saved.areas == (0.05, 0.1, 0.2, 0.4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(saved.areas) + 1
    assert lines[0].startswith("('tiger cat',)")


@pytest.mark.parametrize("text", [EXAMPLES[1], *CHANNELS])
def test_the_examples_of_channels(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(compile(text, "example", "exec"), names)
    found = names["found"]
    assert isinstance(found, ChannelExplanation)
    assert found.counts == (4, 8, 16)
    assert len(capsys.readouterr().out.splitlines()) == 2


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
