"""Head of the page: its own tags only, and nothing that refers to another host."""

import re

import pytest

pytest.importorskip("gradio")

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from extremal.app.page_head import DESCRIPTION, THEME_COLOURS, TITLE, build_tags, with_own_tags
from extremal.report.html import read_asset

FOREIGN = """<!doctype html><html><head><meta charset="utf-8" />
<meta property="og:title" content="Gradio" /><meta
  property="og:image"
  content="https://raw.githubusercontent.com/a.jpg"
/>
<meta name="twitter:creator" content="@Gradio" /><link rel="manifest" href="/manifest.json" />
<script src="./assets/index.js"></script></head><body>é</body></html>"""


def test_own_tags_replace_those_of_gradio() -> None:
    routes = [Route("/", lambda _: HTMLResponse(FOREIGN)), Route("/other", lambda _: PlainTextResponse("<head>"))]
    client = TestClient(with_own_tags(Starlette(routes=routes)))
    response = client.get("/")
    assert int(response.headers["content-length"]) == len(response.content)
    assert "Gradio" not in response.text
    assert "githubusercontent" not in response.text
    assert "manifest" not in response.text
    assert 'src="./assets/index.js"' in response.text
    assert "<body>é</body>" in response.text
    assert response.text.count("<title>") == response.text.count('property="og:title"') == 1
    assert client.get("/other").text == "<head>"
    assert client.post("/").status_code == 405


def test_the_tags() -> None:
    tags = build_tags()
    assert f"<title>{TITLE}</title>" in tags
    assert tags.count(DESCRIPTION.replace("'", "&#x27;")) == 2
    assert 50 < len(DESCRIPTION) < 250
    assert "data:image/svg+xml,%3Csvg" in tags
    assert re.findall(r"https?://(?!www\.w3\.org)", tags) == []


@pytest.mark.parametrize("colour", THEME_COLOURS.values())
def test_the_theme_colours_are_those_of_the_palette(colour: str) -> None:
    assert f"--page: {colour};" in read_asset("palette.css")
