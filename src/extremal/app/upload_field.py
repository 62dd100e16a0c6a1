"""Gradio's picture field, which hands the uploaded file on as it is: this library reads pictures itself."""

from typing import Any

import gradio as gr


def photograph_field(label: str, *, height: int, elem_id: str) -> gr.Image:
    """A field to drop a photograph into; its value is the path of the uploaded file.

    No class of its own: gradio writes a stub beside the source of each class that is made of one of its components.
    """
    field = gr.Image(
        label=label,
        type="filepath",
        sources=["upload", "clipboard"],
        buttons=[],
        height=height,
        elem_id=elem_id,
    )
    field.preprocess = _path  # type: ignore[method-assign]
    return field


def _path(payload: Any) -> str | None:
    """The path of the file, which lies among the uploads; nothing is decoded here."""
    return None if payload is None else str(payload.path)
