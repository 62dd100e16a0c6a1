"""Gradio's picture field, which hands the uploaded file on as it is: this library reads pictures itself."""

from typing import Any

import gradio as gr

class Photograph(gr.Image):
    """A field to drop a photograph into; its value is the path of the uploaded file."""

    is_template = True  # to the page it is gradio's own

    def preprocess(self, payload: Any) -> str | None:
        """The path of the file, which lies among the uploads; nothing is decoded here."""
        return None if payload is None else payload.path
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component
