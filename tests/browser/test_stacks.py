"""The viewer of clips and volumes in a browser: keyboard, views, phone, accessibility; nothing is requested."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import PHONE
from browser.steps import accessibility_problems, no_requests, save_screenshot
from extremal import report
from support import synthetic

pytestmark = pytest.mark.browser

KINDS = {
    "clip": {"kind": "clip", "times": [0.25 * k for k in range(40)]},
    "volume": {"kind": "volume", "orientation": "SPL"},
}


def write(path: Path, kind: str) -> None:
    made = synthetic.explanation((0.05, 0.1, 0.2, 0.4), (40, 48, 64))
    settings = {**made.settings, "spacing": [2.5, 1.0, 1.0], "stack": KINDS[kind]}
    report.write(replace(made, settings=settings), path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["light", "dark", "phone"])
def test_the_viewer_is_accessible(opened: Callable[..., Page], tmp_path: Path, kind: str, scheme: str) -> None:
    write(tmp_path / "report.html", kind)
    options = PHONE if scheme == "phone" else {"color_scheme": scheme}
    page = opened((tmp_path / "report.html").as_uri(), **options)
    page.locator("#controls").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    save_screenshot(page, f"report-{kind}-{scheme}")
    assert accessibility_problems(page) == []


def test_sliders_and_views(opened: Callable[..., Page], tmp_path: Path) -> None:
    write(tmp_path / "report.html", "clip")
    page = opened((tmp_path / "report.html").as_uri())
    page.locator("#controls").wait_for()
    frame, area, stage = page.locator("#frame"), page.locator("#area"), page.locator("#stage")
    with no_requests(page):
        frame.press("Home")
        expect(page.locator("#place")).to_contain_text("Frame 1 of 40, 0.00 s")
        first, marker = stage.screenshot(), page.locator("#frame-marker").get_attribute("x1")
        frame.press("ArrowRight")
        expect(page.locator("#place")).to_contain_text("Frame 2 of 40, 0.25 s")
        assert stage.screenshot() != first
        assert page.locator("#frame-marker").get_attribute("x1") != marker
        frame.press("End")
        expect(page.locator("#place")).to_contain_text("Frame 40 of 40")
        area.press("Home")
        expect(page.locator("#readout")).to_contain_text("5\u00a0% of the clip")
        shares = page.locator("#shares").get_attribute("points")
        page.get_by_role("button", name="Area 40\u00a0%, measured").click()
        expect(page.locator("#readout")).to_contain_text("40\u00a0% of the clip")
        assert page.locator("#shares").get_attribute("points") != shares
        seen = set()
        for view in ("Rest dimmed", "Cut out", "Heat map", "Frame"):
            page.get_by_role("radio", name=view, exact=True).check()
            seen.add(stage.screenshot())
        assert len(seen) == 4


def test_the_canvas_shows_the_mask_of_the_result(opened: Callable[..., Page], tmp_path: Path) -> None:
    """Cut out, exactly the places of the mask are opaque; the grid is enlarged to the canvas."""
    made = synthetic.explanation((0.2,), (4, 64, 128))
    report.write(replace(made, settings={**made.settings, "stack": {"kind": "clip"}}), tmp_path / "report.html")
    page = opened((tmp_path / "report.html").as_uri())
    page.locator("#controls").wait_for()
    page.locator("#frame").press("Home")
    page.get_by_role("radio", name="Cut out").check()
    script = """() => { const c = document.getElementById('canvas');
      return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]
        .filter((_, k) => k % 4 === 3)] }"""
    width, height, alpha = page.evaluate(script)
    assert (width, height) == (128, 64)
    assert [value > 0 for value in alpha] == made.binary(0.2)[0, 0, 0].bool().flatten().tolist()
