"""Gradio's image field without its decoding: uploaded files are passed on unchanged, and read by this library."""

from typing import Any

import gradio as gr


def image_field(label: str, *, height: int, elem_id: str) -> gr.Image:
    """Build a field for an image; its value is the path of the uploaded file.

    It is not a subclass of `gr.Image`: gradio writes a stub file next to the source of each subclass.
    """
    field = gr.Image(
        label=label,
        type="filepath",
        sources=["upload", "clipboard"],
        buttons=[],
        height=height,
        elem_id=elem_id,
    )
    field.preprocess = _file_path  # type: ignore[method-assign]
    return field


def _file_path(payload: Any) -> str | None:
    """Return the path of an uploaded file, without decoding it."""
    return None if payload is None else str(payload.path)
