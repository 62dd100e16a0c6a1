"""Self-contained pages: one HTML file with its script and style, and a policy that forbids it to load anything."""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extremal.explanations.settings import flatten_settings
from extremal.files import atomic_file
from extremal.report.text import decimal, percent, unseen_percent

if TYPE_CHECKING:
    from jinja2 import Environment


def render_template(
    template: str,
    script: str = "",
    style: str = "",
    *,
    settings: Mapping[str, Any],
    described: Sequence[tuple[str, str]] = (),
    **values: Any,
) -> str:
    """Render a template of this package as the text of an HTML file.

    Args:
        template: its file name; it extends base.html.j2.
        script: of this page, run before the script of every page; the policy allows no other.
        style: of this page, after the style of every page.
        settings: of the run, nested.
        described: the settings in words.
        values: variables of the template.
    """
    from markupsafe import Markup

    style = read_asset("palette.css") + read_asset("style.css") + style
    script = script + read_asset("frame.js")
    return render_fragment(
        template,
        **values,
        settings=list(flatten_settings(settings)),
        described=described,
        script=Markup(script),
        style=Markup(style),
        style_hash=csp_hash(style),
        script_hash=csp_hash(script),
    )


def render_fragment(template: str, **values: Any) -> str:
    """Render a template of this package as HTML; all values are escaped, except `Markup`.

    Args:
        template: its file name.
        values: variables of the template.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> "Environment":
    """Return the environment of all templates, which keeps them compiled."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(read_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, unseen_percent=unseen_percent, decimal=decimal)
    return environment


def write_page(text: str, path: Path) -> None:
    """Write a page atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")  # names need not be UTF-8


def json_for_script(data: object) -> str:
    r"""Serialise data as JSON without any character that could end a script element or a line of script.

    >>> json_for_script({"a": "</script>\u2028"})
    '{"a":"\\u003c/script\\u003e\\u2028"}'
    """
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def finite_or_none(value: float) -> float | None:
    """Return the number, or None if it is not finite, which JSON cannot express."""
    return value if math.isfinite(value) else None


def csp_hash(source: str) -> str:
    """Hash an inline script or style for a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode("ascii")


def read_asset(name: str) -> str:
    """Read a template, script or style of this package."""
    return (files("extremal.report") / name).read_text(encoding="utf-8")
