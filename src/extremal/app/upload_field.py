"""Fields of the page for images, clips and volumes, which leave decoding to this library."""

from typing import Any

import gradio as gr

from extremal.networks.stacks.paths import CLIP_SUFFIXES, NIFTI_SUFFIXES, StackKind


def input_field(kind: StackKind | None, *, height: int, elem_id: str) -> gr.Image | gr.File:
    """Build a field for an image, a clip or a volume; its value is the path of the uploaded file."""
    if kind is None:
        return _image_field("Image", height=height, elem_id=elem_id)
    suffixes = CLIP_SUFFIXES if kind is StackKind.CLIP else NIFTI_SUFFIXES
    label = "Clip" if kind is StackKind.CLIP else "Volume (NIfTI)"
    types = sorted({f".{suffix.rpartition('.')[2]}" for suffix in suffixes})  # browsers know the last suffix only
    return gr.File(label=label, type="filepath", file_types=types, buttons=[], height=height, elem_id=elem_id)


def _image_field(label: str, *, height: int, elem_id: str) -> gr.Image:
    """Build a field for an image.

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
