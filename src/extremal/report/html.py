"""A page: one HTML file with its style, script and pictures in it, and a policy that forbids it to load anything."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from extremal.explanations.settings import flattened
from extremal.files import replacing
from extremal.report.text import decimal, percent


def filled(template: str, script: str = "", style: str = "", *, settings: Mapping[str, Any], **values: Any) -> str:
    """A template of this folder as the text of an HTML file.

    Args:
        template: its name; it extends base.html.j2.
        script: of this template, run before that of every page; the policy lets no other run.
        style: of this template, after that of every page.
        settings: of the run, nested.
        values: what the template tells.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    style, script = source("palette.css") + source("style.css") + style, script + source("frame.js")
    environment = Environment(
        loader=FunctionLoader(source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, decimal=decimal)
    return environment.get_template(template).render(
        **values,
        settings=list(flattened(settings)),
        script=Markup(script),
        style=Markup(style),
        style_hash=digest(style),
        script_hash=digest(script),
    )


def write_page(text: str, path: Path) -> None:
    """Write a page; the file appears whole or not at all."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def embedded(data: object) -> str:
    """JSON that can stand inside a script element: no character in it ends the element or a line of script.

    >>> embedded({"a": "</script>\\u2028"})
    '{"a":"\\\\u003c/script\\\\u003e\\\\u2028"}'
    """
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def digest(source: str) -> str:
    """The hash by which a content security policy knows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode("ascii")


def source(name: str) -> str:
    """The text of a file of this folder."""
    return (files("extremal.report") / name).read_text(encoding="utf-8")
