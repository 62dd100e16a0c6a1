"""Gradio's fields without their decoding and checks: values are passed on unchanged, and checked by this library."""

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


def pass_values(field: Any) -> None:
    """Let a field pass on its values unchecked; gradio would log a traceback for each that is not offered."""
    if isinstance(field, gr.Dataset):
        preprocess = field.preprocess
        field.preprocess = lambda payload: _find_example(preprocess, payload)  # type: ignore[method-assign]
    elif not isinstance(field, gr.Image):
        field.preprocess = lambda payload: payload


def _find_example(preprocess: Any, number: Any) -> Any:
    """Return an example by its number."""
    try:
        return preprocess(number)
    except Exception:
        raise gr.Error("an example must be one of those offered; reload the page", print_exception=False) from None
