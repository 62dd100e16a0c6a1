"""Data and figures of pages about runs."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from support.pages import Page


def read_data(result: Page, name: str) -> Any:
    (text,) = [text for _, attrs, text in result.raw if attrs.get("id") == name]
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in the data"))


def draw(figure: Any) -> list[Any]:
    """The axes of a figure that draws without complaint."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert np.asarray(Picture.open(buffer)).std() > 10
    axes: list[Any] = figure.axes
    return axes
