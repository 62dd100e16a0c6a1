"""The look of the page: the colours and letters of the reports, and the script that holds its frames."""

from importlib.resources import files
from typing import Any

import gradio as gr

from extremal.report.html import source


def _own(name: str) -> str:
    return (files("extremal.app") / name).read_text(encoding="utf-8")


# In the head and not as gradio's own css, which loses what depends on light and dark.
HEAD = f"<style>{source('palette.css')}{_own('page.css')}</style>\n<script>{_own('page.js')}</script>"


def theme() -> Any:
    """The colours and letters of the reports; none is fetched from elsewhere."""
    letters = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
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
    of_both = {f"{name}{dark}": value for name, value in colours.items() for dark in ("", "_dark")}
    known = vars(gr.themes.Base())
    plain = gr.themes.Base(font=letters, font_mono=("ui-monospace", "monospace"))
    return plain.set(**{name: value for name, value in of_both.items() if name in known})
