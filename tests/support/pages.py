"""Parsing and checking of HTML pages."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

NASTY = "</script><script>alert(1)</script> & \"'\u2028{{ 7 * 7 }}<img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Elements with their attributes, and the text of each script and style."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, dict[str, str | None], str]] = []
        self.text: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style") and self.cdata_elem:
            self.raw.append((*self.elements[-1], data))
        else:
            self.text.append(data)

    @property
    def data(self) -> dict[str, Any]:
        (text,) = [text for tag, attrs, text in self.raw if attrs.get("id") == "data"]
        return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in the data"))

    @property
    def words(self) -> str:
        return re.sub(r"[ \n]+", " ", "".join(self.text))


def check_nothing_from_elsewhere(source: str, result: Page, own: str = "") -> None:
    """Check that a page loads nothing, has no foreign scripts, and uses `url()` only for `own`, a part of itself."""
    assert "http:" not in source
    assert "https:" not in source
    assert "@import" not in source
    assert "url(" not in (source.replace(own, "") if own else source)
    for tag, attributes in result.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form", "video")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in ("src", "href", "srcset", "data", "action"):
                assert str(value).startswith("data:")


def check_self_contained(source: str, result: Page) -> None:
    """Check that a page is self-contained and that its policy allows nothing else."""
    check_nothing_from_elsewhere(source, result)
    (policy,) = [a["content"] for _, a in result.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'sha256-[^' ]+'; script-src 'sha256-[^' ]+'; "
        r"base-uri 'none'; form-action 'none'",
        str(policy),
    )
