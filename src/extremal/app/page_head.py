"""Head of the page: its own title, description and icon, in place of those of gradio."""

import re
from html import escape
from importlib.resources import files
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

TITLE = "extremal – What did the network need?"
DESCRIPTION = (
    "The smallest part of a photograph that a network's answer needs, with the evidence: how much of the score that "
    "part keeps, and how much random parts of the same size keep."
)
THEME_COLOURS = {"light": "#f6f7f8", "dark": "#14171a"}  # of `palette.css`
FOREIGN_TAGS = re.compile(
    rb'<meta\s+(?:property="og:|name="twitter:)[^>]*>|<link\s+rel="(?:manifest|icon)"[^>]*>|<title>[^<]*</title>'
)


def read_icon() -> str:
    """Read the icon of the page (SVG)."""
    return (files("extremal.app") / "icon.svg").read_text(encoding="utf-8")


def build_tags() -> str:
    """Build the tags that describe the page; nothing in them refers to another host."""
    metas = {
        'name="description"': DESCRIPTION,
        'name="color-scheme"': "light dark",
        **{f'name="theme-color" media="(prefers-color-scheme: {name})"': THEME_COLOURS[name] for name in THEME_COLOURS},
        'property="og:type"': "website",
        'property="og:site_name"': "extremal",
        'property="og:title"': TITLE,
        'property="og:description"': DESCRIPTION,
        'name="twitter:card"': "summary",
    }
    lines = [f'<meta {name} content="{escape(content)}">' for name, content in metas.items()]
    icon = f'<link rel="icon" type="image/svg+xml" href="data:image/svg+xml,{quote(read_icon())}">'
    return "\n".join([f"<title>{escape(TITLE)}</title>", *lines, icon])


def replace_tags(page: bytes) -> bytes:
    """Replace the tags that describe the page.

    >>> replace_tags(b'<head><meta property="og:title" content="Gradio"></head>').count(b"Gradio")
    0
    """
    return FOREIGN_TAGS.sub(b"", page).replace(b"<head>", b"<head>\n" + build_tags().encode(), 1)


def with_own_tags(app: ASGIApp) -> ASGIApp:
    """Wrap an ASGI application, so that the page has its own tags."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def send_replaced(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body", False):
                return
            page = replace_tags(body) if start["status"] == 200 else body
            headers = [item for item in start["headers"] if item[0].lower() != b"content-length"]
            await send({**start, "headers": [*headers, (b"content-length", str(len(page)).encode())]})
            await send({"type": "http.response.body", "body": page})

        await app(scope, receive, send_replaced)

    return run
