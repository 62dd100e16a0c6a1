"""The language of the project: plain professional English, and one name for one thing."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from extremal.cli import main

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "extremal"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = {"api.md"}  # from docstrings, which are tested themselves
BANNED = {  # phrase -> alternative
    r"tell|tells|told|telling": "describe, report, print, show",
    r"beside": "next to, in addition to",
    r"heed|heeds|heeded": "respect, follow",
    r"whoever|whomever|whosoever": "the user, the caller",
    r"whatever|whichever": "any, every",
    r"anybody|nobody|somebody": "any process, no one; name the actor",
    r"goes on|go on|going on|went on": "continue, resume",
    r"no more": "no longer, at most",
    r"as (it|the [a-z]+) (has|have) it": "as in",
    r"whole or not at all": "atomically",
    r"(?<!each )(?<!all )(?<!some )(?<!one )of which": "two sentences",
    r"worthless|worth nothing": "meaningless",
    r"is paid|are paid|was paid|were paid|pays": "reward",
    r"hands? (in|out|on|over|back)": "pass, return",
    r"ours": "name the owner",
    r"wishes|wish": "request",
    r"a house|the house|the shelf|the guard|the crew": "the technical term",
    r"photographs? of yours|pictures? of yours|networks? of yours": "your photograph",
    r"stands? (in|on|at|for|where|there|beside)": "is in, means",
    r"as (it|they) stands?": "as shown",
    r"to be had": "available",
}
PATTERN = re.compile("|".join(rf"\b(?:{phrase})\b" for phrase in BANNED), re.IGNORECASE)
OPENING = re.compile(r"^(What|How|Where|Whether|Which|Who|Why)\b")  # "Whether" may open a property


def find_banned(text: str) -> list[str]:
    """Return the banned phrases of a text, without those in quotations and code."""
    prose = re.sub(r"``.*?``|`[^`]*`|\"[^\"\n]*\"|“[^”]*”|https?://\S+", "", text, flags=re.DOTALL)
    return [match.group() for match in PATTERN.finditer(prose)]


def source_files() -> list[Path]:
    """Return all Python files of the package."""
    return sorted(SOURCE.rglob("*.py"))


def is_property(node: ast.AST) -> bool:
    """Return whether a node is a property, whose docstring may start with Whether."""
    return any("property" in ast.unparse(decorator) for decorator in getattr(node, "decorator_list", ()))


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of all docstrings of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text.removeprefix("Whether ") if is_property(node) else text


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of all comments of a module."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def without_doctests(text: str) -> str:
    """Remove the lines of examples, which are code."""
    return re.sub(r"^ *>>> .*\n(?:(?! *$)(?! *Args:).*\n?)*", "", text, flags=re.MULTILINE)


def prose_of(page: str) -> str:
    """Return a page without code blocks, tables, picture links, and comments."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->|!\[[^\]]*\]\([^)]*\)|\]\([^)]*\)", "", text, flags=re.DOTALL)
    return re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)


def help_texts() -> list[tuple[str, str]]:
    """Return command and text of all helps of the command line."""
    texts: list[tuple[str, str]] = []

    def collect(name: str, command: Any) -> None:
        texts.append((name, command.help or ""))
        texts.extend((f"{name} {parameter.name}", getattr(parameter, "help", "") or "") for parameter in command.params)
        for child, subcommand in getattr(command, "commands", {}).items():
            collect(f"{name} {child}", subcommand)

    collect("extremal", typer.main.get_command(main.app))
    return texts


@pytest.mark.parametrize("folder", sorted({path.parent for path in source_files()}), ids=lambda path: path.name)
def test_docstrings_and_comments_are_plain_english(folder: Path) -> None:
    hits = []
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        for line, part in [*docstrings(ast.parse(text)), *comments(text)]:
            hits += [f"{path.relative_to(ROOT)}:{line}: {phrase}" for phrase in find_banned(without_doctests(part))]
    assert not hits, "\n".join(hits)


@pytest.mark.parametrize("folder", sorted({path.parent for path in source_files()}), ids=lambda path: path.name)
def test_docstrings_start_with_a_verb_or_a_noun(folder: Path) -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in sorted(folder.glob("*.py"))
        for line, text in docstrings(ast.parse(path.read_text(encoding="utf-8")))
        if OPENING.match(text)
    ]
    assert not hits, "\n".join(hits)


def test_help_is_plain_english() -> None:
    hits = [f"{name}: {phrase}" for name, text in help_texts() for phrase in find_banned(text)]
    assert not hits, "\n".join(hits)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in GENERATED], ids=lambda page: page.name)
def test_pages_are_plain_english(page: Path) -> None:
    prose = prose_of(page.read_text(encoding="utf-8"))
    assert find_banned(prose) == []
    headings = [line.lstrip("# ") for line in prose.splitlines() if line.startswith("#")]
    assert [heading for heading in headings if OPENING.match(heading)] == []


def test_public_class_names_are_unique() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in source_files():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(SOURCE)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_the_search_finds_banned_phrases() -> None:
    assert find_banned('It tells whoever asks; `told` and "beside" are quoted.') == ["tells", "whoever"]
    assert prose_of("text\n```python\ntold\n```\n| told |\n![told](told.png)").strip() == "text"
    assert without_doctests("Sum.\n\n>>> told = 1\nbeside\n\nArgs:\n    x: a").split() == ["Sum.", "Args:", "x:", "a"]


def test_help_needs_no_torch() -> None:
    """The texts above are collected with torch loaded; a user's `--help` must not load it."""
    program = "import sys; from extremal.cli import main; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
