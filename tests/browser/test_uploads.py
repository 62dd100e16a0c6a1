"""Uploads that the app rejects: each one has a message, and the page remains usable."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from browser.steps import open_options, save_screenshot, take_example

pytestmark = pytest.mark.browser


def write_truncated(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 100)


def write_text(path: Path) -> None:
    path.write_text("not an image\n")


def write_large(path: Path) -> None:
    Image.new("1", (8000, 6000)).save(path)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (
            write_truncated,
            "an image must be readable to its end, got 'holiday.png': Truncated File Read; copy or convert it again",
        ),
        (write_text, "an image must be in a format that Pillow reads, got 'holiday.png'; convert it to PNG or JPEG"),
        (write_large, "an image must have at most 40 megapixels, got 8000×6000 in 'holiday.png'; shrink it first"),
    ],
)
def test_invalid_images(page: Page, tmp_path: Path, write: Callable[[Path], None], sentence: str) -> None:
    write(tmp_path / "holiday.png")
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "holiday.png")
    expect(page.locator("#status").get_by_role("alert")).to_have_text(sentence)
    save_screenshot(page, f"rejected-{write.__name__.removeprefix('write_')}")
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#status").get_by_role("alert")).to_have_text(
        "an image and a class must be chosen first; drop one, or choose an example"
    )
    take_example(page)
    expect(page.locator("#status").get_by_role("status")).to_have_text("Choose a class, and press Explain.")


def test_a_file_that_is_too_large(page: Page, tmp_path: Path, expected: list[str]) -> None:
    # Gradio requests the progress of an upload that it has not started, and logs the response to the console.
    expected += ["the server responded with a status of 404", "Response"]
    (tmp_path / "large.png").write_bytes(bytes(21 * 10**6))
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "large.png")
    expect(page.get_by_text('File(s) exceed the maximum allowed size of 20.0 Mb: "large.png"')).to_be_visible()
    save_screenshot(page, "rejected-size")
    take_example(page)


def test_invalid_areas(page: Page) -> None:
    take_example(page)
    open_options(page, "0.05, 3")
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#status").get_by_role("alert")).to_have_text(
        "areas must lie in (0, 1), got 3; an area is the share of places kept, e.g. 0.05"
    )
