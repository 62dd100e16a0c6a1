"""Theme of the page: colours and fonts of the reports, its own styles and scripts."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from extremal.explanations.overlay import encode_jpeg
from extremal.report.html import read_asset
from extremal.report.table_widget import jpeg_uri

STYLES, SCRIPTS = ("page.css", "answers.css"), ("page.js", "search.js", "answers.js", "uploads.js")
THUMBNAIL_SIZE = 160  # px, longer side at most


def _app_asset(name: str) -> str:
    return (files("extremal.app") / name).read_text(encoding="utf-8")


def build_head(examples: Mapping[str, Path]) -> str:
    """Build the styles and scripts of the page.

    They are not passed as gradio's `css`, which drops the rules for light and dark colour schemes.

    Args:
        examples: photographs by name, in the order in which the page offers them.
    """
    styles = read_asset("palette.css") + "".join(map(_app_asset, STYLES)) + _style_thumbnails(examples.values())
    scripts = "".join(f"\n<script>{_app_asset(name)}</script>" for name in SCRIPTS)
    return f"<style>{styles}</style>{scripts}"


def _style_thumbnails(photographs: Iterable[Path]) -> str:
    """Return rules that draw the photographs of the examples on their buttons."""
    rules = list[str]()
    for number, path in enumerate(photographs, start=1):
        with Image.open(path) as image:
            uri = jpeg_uri(encode_jpeg(np.asarray(image.convert("RGB")), THUMBNAIL_SIZE, quality=80))
        rules.append(f'#examples button:nth-of-type({number})::before {{ background-image: url("{uri}"); }}\n')
    return "".join(rules)


def build_theme() -> Any:
    """Build a theme with the colours and fonts of the reports; no font is loaded from other hosts."""
    fonts = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
    colours = {
        "body_background_fill": "var(--page)",
        "body_text_color": "var(--text)",
        "body_text_color_subdued": "var(--soft-text)",
        "background_fill_primary": "var(--panel)",
        "background_fill_secondary": "var(--panel)",
        "block_background_fill": "var(--panel)",
        "block_border_color": "var(--line)",
        "block_label_text_color": "var(--text)",
        "block_label_background_fill": "var(--panel)",
        "block_title_text_color": "var(--text)",
        "block_info_text_color": "var(--soft-text)",
        "border_color_primary": "var(--control)",
        "color_accent": "var(--accent)",
        "link_text_color": "var(--accent)",
        "input_background_fill": "var(--panel)",
        "input_border_color": "var(--control)",
        "input_border_width": "1px",
        "input_placeholder_color": "var(--soft-text)",
        "button_primary_background_fill": "var(--accent)",
        "button_primary_background_fill_hover": "var(--accent)",
        "button_primary_text_color": "var(--on-accent)",
        "button_secondary_background_fill": "var(--panel)",
        "button_secondary_text_color": "var(--text)",
        "button_secondary_border_color": "var(--control)",
        "button_border_width": "1px",
        "checkbox_label_background_fill": "var(--panel)",
        "checkbox_label_background_fill_selected": "var(--panel)",
        "checkbox_label_text_color": "var(--text)",
        "checkbox_label_text_color_selected": "var(--text)",
        "checkbox_background_color_selected": "var(--accent)",
        "checkbox_border_color": "var(--control)",
        "slider_color": "var(--accent)",
    }
    variables = {f"{name}{dark}": value for name, value in colours.items() for dark in ("", "_dark")}
    known = vars(gr.themes.Base())
    base = gr.themes.Base(font=fonts, font_mono=("ui-monospace", "monospace"))
    return base.set(**{name: value for name, value in variables.items() if name in known})
