"""Files that a release needs agree with the package, and the guide lists all its pages."""

import re
import tomllib
from pathlib import Path

import yaml

from extremal import __version__

ROOT = Path(__file__).parents[2]


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("nav:\n")[1]
    listed = re.findall(r": ([a-z_]+\.md)$", navigation, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    assert [author["family-names"] for author in citation["preferred-citation"]["authors"]] == [
        "Fong",
        "Patrick",
        "Vedaldi",
    ]


def test_the_changes_describe_this_version() -> None:
    for name in ("CHANGELOG.md", "UPGRADING.md"):
        assert f"## {__version__}" in (ROOT / name).read_text(encoding="utf-8")


def test_issue_templates_are_valid() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert path.name == "config.yml" or {"name", "description", "body"} <= set(form)
