"""Fields of the page for images, clips, volumes and sounds, which leave decoding to this library."""

from typing import Any

import gradio as gr

from extremal.networks.sounds.sound_files import SOUND_SUFFIXES
from extremal.networks.stacks.paths import CLIP_SUFFIXES, NIFTI_SUFFIXES

FIELDS = {  # by the kind of file: the label, and the suffixes
    "clip": ("Clip", CLIP_SUFFIXES),
    "volume": ("Volume (NIfTI)", NIFTI_SUFFIXES),
    "sound": ("Sound", SOUND_SUFFIXES),
}


def input_field(kind: str | None, *, height: int, elem_id: str) -> gr.Image | gr.File:
    """Build a field for an image, a clip, a volume or a sound; its value is the path of the uploaded file."""
    if kind is None:
        return _image_field("Image", height=height, elem_id=elem_id)
    label, suffixes = FIELDS[kind]
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
