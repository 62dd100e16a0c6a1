"""Field of the page for images, which leaves decoding to this library."""

from typing import Any

import gradio as gr


def image_field(label: str, *, height: int, elem_id: str) -> gr.Image:
    """Build a field for an image; its value is the path of the uploaded file.

    It is not a subclass of `gr.Image`: gradio writes a stub file next to the source of each subclass.
    """
    return gr.Image(
        label=label,
        type="filepath",
        sources=["upload", "clipboard"],
        buttons=[],
        height=height,
        elem_id=elem_id,
    )


def upload_path(value: Any) -> str:
    """Return the path in the value of an image field, or an empty text.

    >>> upload_path({"path": "/uploads/cat.png"}), upload_path(None)
    ('/uploads/cat.png', '')
    """
    path = value.get("path") if isinstance(value, dict) else value
    return path if isinstance(path, str) else ""
