"""The code of the README and of some pages runs, links resolve, and commands have the options shown."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from extremal import ChannelExplanation, solvers
from extremal.cli import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


CHANNELS, NETWORKS = (
    re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    for page in ("channels.md", "networks.md")
)
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
    )
}
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the default solver, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(solvers.SOLVERS, "path", solvers.Path(steps=4, polish=2, draws=1, search=2))
    monkeypatch.setitem(solvers.SOLVERS, "consensus", solvers.Consensus(steps=1, draws=1, least=1))


def test_the_python_example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the default solver, since the example needs a sufficient region."""
    monkeypatch.setitem(solvers.SOLVERS, "consensus", solvers.Consensus())
    names: dict[str, Any] = {}
    exec(compile(EXAMPLES[0], "README.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Explanation of tripod by embedded, preserve game"
    assert names["result"].smallest().area == 0.1
    assert Path("tripod.png").read_bytes().startswith(b"\x89PNG")
    assert "<h1>tripod</h1>" in Path("tripod.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [EXAMPLES[1], *CHANNELS])
def test_the_examples_of_channels(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(compile(text, "example", "exec"), names)
    result = names["result"]
    assert isinstance(result, ChannelExplanation)
    assert result.counts == (4, 8, 16)
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        *zip(
            NETWORKS,
            [
                r"True thing 3",
                r"tabby \+ .* · blocks.3 channel 5 · blocks.3 channel 5 at 7, 7 · .* · .* · .*",
                r"\('tiger cat', 'tabby, tabby cat'\) \(.*\)",
                r"\(.*, .*\) \(.*, .*\)",
            ],
            strict=True,
        )
    ],
)
def test_the_examples_of_networks(text: str, pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(text, "networks.md", "exec"), {})
    assert re.fullmatch(pattern, capsys.readouterr().out.strip())


@pytest.mark.parametrize("page", [*PAGES])
def test_links_resolve(page: str) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", PAGES[page], flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https://)([^)#]+)\)", prose):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", [*PAGES])
def test_commands_have_the_options_shown(page: str) -> None:
    app = typer.main.get_command(main.app)
    blocks = "".join(re.findall(r"```console\n(.*?)```", PAGES[page], re.DOTALL)).replace("\\\n", " ")
    for line in re.sub(r"\n +", " ", blocks).splitlines():
        if line.startswith("extremal "):
            words = line.partition("#")[0].split()[1:]
            command: Any = app
            while words and words[0].partition("|")[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0).partition("|")[0]]
            known = {name for parameter in command.params for name in parameter.opts}
            assert set(re.findall(r"--[a-z-]+", " ".join(words))) <= known, line


def test_the_commands_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
