"""Accessibility of the page and its reports, as far as axe can check it."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from browser.conftest import Served
from browser.steps import accessibility_problems, explain_coffee, save_screenshot

pytestmark = pytest.mark.browser

SCHEMES = ("light", "dark")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_is_accessible(opened: Callable[..., Page], served: Served, scheme: str) -> None:
    page = opened(served.address, color_scheme=scheme)
    page.locator("#photo").wait_for()
    save_screenshot(page, f"start-{scheme}")
    assert accessibility_problems(page) == []
    view = explain_coffee(page, "0.1, 0.3")
    assert accessibility_problems(page) == []
    assert accessibility_problems(page.frames[1]) == []
    view.locator("#area").press("ArrowLeft")
    page.locator("#areas").get_by_role("textbox").fill("none")
    page.set_viewport_size({"width": 1280, "height": 2200})
    page.wait_for_timeout(500)
    save_screenshot(page, f"answer-{scheme}")
    page.get_by_role("button", name="Explain").click()
    page.locator("#status").get_by_role("alert").wait_for()
    assert accessibility_problems(page) == []
    page.locator("#other input").click()
    page.get_by_role("option").first.wait_for()
    page.wait_for_timeout(500)
    save_screenshot(page, f"list-{scheme}")
    assert accessibility_problems(page) == []
