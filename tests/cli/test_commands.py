"""The guide's commands: how they are found and run, and that each names a subcommand and options that exist."""

import importlib
import json
import re
import shlex
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from extremal.cli import main

ROOT = Path(__file__).parents[2]
KNOWN = {"sql", "console", "bash", "sh", "python", "text"}  # the languages of fences


def _script() -> ModuleType:
    """benchmarks/commands.py, which imports from its own folder."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("commands")
    finally:
        sys.path.pop(0)


script = _script()
PAGES: dict[str, str] = script.pages()
COMMANDS = [command for page, text in PAGES.items() for command in script.commands(page, text)]
TREE: Any = typer.main.get_command(main.app)


def _find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and the words after its name; of `a|b` the first counts."""
    command = TREE
    while words and (name := words[0].partition("|")[0]) in getattr(command, "commands", {}):
        command, words = command.commands[name], words[1:]
    return command, words


def _guide_commands() -> list[str]:
    """Every `extremal SUBCOMMAND ...` in a fence of any language, with the lines that go on below it."""
    bodies = [fence.body for text in PAGES.values() for fence in script.fences(text)]
    joined = [re.sub(r"\\?\n +", " ", body) for body in bodies]
    return [line for body in joined for line in re.findall(r"^(?:\$ )?(extremal [a-z].*)", body, re.MULTILINE)]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("ls\n\npwd\n", ["ls", "pwd"]),
        ("ls    # all of them\n# nothing\n#\n", ["ls"]),
        ("cp a \\\n    b  # two lines\nls\n", ["cp a b", "ls"]),
        ("echo 'a  # b' \"c  #  'd\" e#f \\# g # h's\n", ["echo 'a  # b' \"c  #  'd\" e#f \\# g"]),
        ("$ ls  # asked\na.png\n$ pwd\n/home\n", ["ls", "pwd"]),
        ("for a in b c; do ls $a; done > all\n", ["for a in b c; do ls $a; done > all"]),
        ("", []),
    ],
)
def test_lines_are_commands(body: str, found: list[str]) -> None:
    assert script.lines(body) == found


def test_only_fences_of_a_shell_are_read() -> None:
    text = "```console\nls\n```\n```python\nprint()\n```\n```text\nls [-a]\n```\n"
    text += "1. so:\n   ```sh\n   pwd\n   ```\n```bash\ntop\n```\n"
    assert [fence.language for fence in script.fences(text)] == ["console", "python", "text", "sh", "bash"]
    assert [(one.page, one.text) for one in script.commands("a.md", text)] == [
        ("a.md", "ls"),
        ("a.md", "pwd"),
        ("a.md", "top"),
    ]


@pytest.mark.parametrize("page", [*PAGES])
def test_every_fence_has_a_known_language_and_an_end(page: str) -> None:
    found = script.fences(PAGES[page])
    assert {fence.language for fence in found} <= KNOWN
    assert len(re.findall(r"^ *```", PAGES[page], re.MULTILINE)) == 2 * len(found)


def test_what_is_not_run_is_on_a_page() -> None:
    assert script.stale(COMMANDS) == []
    assert script.stale(COMMANDS[:0]) == [*script.NOT_RUN]
    reasons = {command.text: command.reason for command in COMMANDS}
    assert reasons["make test"] == "runs all tests, which takes many minutes"
    assert reasons["make demo"] is None


def test_installing_and_serving_are_not_run() -> None:
    text = "```sh\npip install 'extremal[demo]'\npython -m pip install extremal\nextremal app --port 8000\npipx\n```\n"
    lines = script.lines(script.fences(text)[0].body)
    assert [script.Command("a.md", line).reason for line in lines] == [
        "installs",
        "installs",
        "serves until it is stopped",
        None,
    ]


def test_fences_name_subcommands_and_options_that_exist() -> None:
    commands = _guide_commands()
    assert len(commands) > 30
    for line in commands:
        words = line.partition(" #")[0].split()[1:]
        command, rest = _find_command(words)
        assert command is not TREE, line
        known = {name for parameter in command.params for name in parameter.opts}
        assert {*re.findall(r"(?<![\w-])--[a-z-]+", " ".join(rest))} <= known | {"--help"}, line


def test_commands_are_complete() -> None:
    """The command line's own parser takes them: required options are there, and values of the right type."""
    parsed = 0
    for one in COMMANDS:
        words = shlex.split(re.split(r" (?:>|\||&&) ", one.text)[0])
        if words[0] == "extremal":
            command, rest = _find_command(words[1:])
            command.make_context(one.text, rest)
            parsed += 1
    assert parsed > 20


def test_a_command_that_is_wrong_is_noticed() -> None:
    command, rest = _find_command(["channels", "cat.png", "--counts", "4,8"])
    with pytest.raises(Exception, match="Missing parameter: layer"):
        command.make_context("channels", rest)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout of nothing, and one command that is not run."""
    monkeypatch.setattr(script, "copy_checkout", lambda folder: (folder / "made").mkdir())
    monkeypatch.setattr(script, "NOT_RUN", {"make test": "takes long"})


@pytest.mark.usefixtures("small")
def test_a_page_runs_in_order_in_one_folder_and_is_remembered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("echo one > made/one  # first", "make test", "cat made/one", "cat two", 'test ! -e "$TORCH_HOME"')
    text = "\n".join(("```sh", *lines, "```"))
    found, rows = script.commands("a.md", text), tmp_path / "rows.jsonl"
    assert [*script.run(found, "s", rows)] == [0, 0, 1, 0]
    assert not script.is_current(found, "s", script.records.read(rows))
    out = capsys.readouterr().out
    assert "  not run: takes long: make test\n" in out
    assert re.search(r"^    0 +\d+\.\d s  cat made/one$", out, re.MULTILINE)
    assert re.search(r"^    1 +\d+\.\d s  cat two\n +cat: two: No such file", out, re.MULTILINE)
    kept = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(row["page"], row["command"], row["code"], row["settings"]) for row in kept[:2]] == [
        ("a.md", "echo one > made/one", 0, "s"),
        ("a.md", "cat made/one", 0, "s"),
    ]


@pytest.mark.usefixtures("small")
def test_a_page_stands_until_a_command_or_the_package_changes(tmp_path: Path) -> None:
    found, rows = script.commands("a.md", "```sh\ntrue\nmake test\n```\n"), tmp_path / "rows.jsonl"
    assert [*script.run(found, "s", rows)] == [0]
    kept = script.records.read(rows)
    assert script.is_current(found, "s", kept)
    assert not script.is_current(found, "t", kept)
    more = script.commands("a.md", "```sh\ntrue\nmake test\nls\n```\n")
    assert not script.is_current(more, "s", kept)
    assert script.digest(found) != script.digest(more)


def test_what_takes_too_long_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "TIMEOUT", 0.2)
    begin = time.perf_counter()
    outcome = script.run_command("for a in 1 2; do sleep 30; done", tmp_path, {"PATH": "/usr/bin:/bin"})
    assert outcome == (124, "stopped after 0.2 s")
    assert time.perf_counter() - begin < 10  # what it had started was stopped, too


@pytest.mark.usefixtures("small")
def test_main_tells_failure_and_what_is_listed_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "RESULTS", tmp_path / "rows.jsonl")
    monkeypatch.setattr(sys, "argv", ["commands.py"])
    monkeypatch.setattr(script, "pages", lambda: {"a.md": "```sh\nmake test\nfalse\n```\n", "b.md": "none\n"})
    assert script.main() == 1
    monkeypatch.setattr(script, "pages", lambda: {"a.md": "```sh\nmake test\ntrue\n```\n"})
    assert script.main() == 0
    monkeypatch.setattr(script, "pages", lambda: {"a.md": "```sh\ntrue\n```\n"})
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == "listed in NOT_RUN, and on no page:\nmake test"


def test_make_runs_the_script() -> None:
    assert "\t$(BIN)/python benchmarks/commands.py\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
