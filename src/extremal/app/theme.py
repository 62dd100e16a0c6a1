"""Theme of the page: colours and fonts of the reports, and the script that sizes their frames."""

from importlib.resources import files
from typing import Any

import gradio as gr

from extremal.report.html import read_asset


def _app_asset(name: str) -> str:
    return (files("extremal.app") / name).read_text(encoding="utf-8")


# Not passed as gradio's `css`, which drops the rules for light and dark colour schemes.
HEAD = f"<style>{read_asset('palette.css')}{_app_asset('page.css')}</style>\n<script>{_app_asset('page.js')}</script>"


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
