"""Uploads that the app rejects: each one has a message, and the page remains usable."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from browser.steps import accessibility_problems, open_options, save_screenshot, take_example

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
            "“holiday.png” is damaged: only a part of it can be read. Copy it again, or save it again as JPEG or PNG.",
        ),
        (
            write_text,
            "“holiday.png” is not an image that can be read here. Choose a photograph in JPEG or PNG format.",
        ),
        (
            write_large,
            "“holiday.png” has 48 megapixels (8000 × 6000); up to 40 can be explained here. Make it smaller first.",
        ),
    ],
)
def test_invalid_images(page: Page, tmp_path: Path, write: Callable[[Path], None], sentence: str) -> None:
    write(tmp_path / "holiday.png")
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "holiday.png")
    expect(page.locator("#status").get_by_role("alert")).to_have_text(sentence)
    save_screenshot(page, f"rejected-{write.__name__.removeprefix('write_')}")
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#status").get_by_role("alert")).to_have_text(
        "An image and a class must be chosen first; drop one, or choose an example."
    )
    take_example(page)
    expect(page.locator("#status").get_by_role("status")).to_have_text("Choose a class, and press Explain.")


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        (
            "large.png",
            21 * 10**6,
            "“large.png” has 21 MB; up to 20 MB can be sent. Make it smaller, and drop it again.",
        ),
        ("notes.pdf", 1000, "“notes.pdf” is not a photograph. Choose one in JPEG or PNG format."),
    ],
)
def test_files_that_are_not_sent(page: Page, tmp_path: Path, name: str, size: int, sentence: str) -> None:
    (tmp_path / name).write_bytes(bytes(size))
    page.locator("#photo input[type=file]").set_input_files(tmp_path / name)
    notice = page.locator("#notice")
    expect(notice).to_have_text(sentence)
    save_screenshot(page, f"rejected-{Path(name).stem}")
    assert accessibility_problems(page) == []
    take_example(page)
    expect(notice).to_have_text("")


def test_dropped_files_are_counted(page: Page) -> None:
    drop = """count => {
        const data = new DataTransfer();
        for (let k = 0; k < count; k += 1) data.items.add(new File(["x"], `photo-${k}.png`, { type: "image/png" }));
        const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
        document.querySelector("#photo button").dispatchEvent(event);
        return document.querySelector("#notice").textContent;
    }"""
    assert page.evaluate(drop, 0) == (
        "The browser provided no file. Save the photograph on your device first, and drop that file."
    )
    assert page.evaluate(drop, 2) == (
        "2 files were dropped, but one photograph is explained at a time. Drop one of them."
    )


def test_invalid_areas(page: Page) -> None:
    take_example(page)
    open_options(page, "0.05, 3")
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#status").get_by_role("alert")).to_have_text(
        "Areas must lie in (0, 1), got 3; an area is the share of places kept, e.g. 0.05 or 5%."
    )
