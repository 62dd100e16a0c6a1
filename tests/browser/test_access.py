"""The page and the reports for people who see, hear or move otherwise, as far as axe can tell."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from browser.conftest import Served
from browser.steps import answer, grave, shot

SCHEMES = ("light", "dark")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page(opened: Callable[..., Page], served: Served, scheme: str) -> None:
    page = opened(served.address, color_scheme=scheme)
    page.locator("#photo").wait_for()
    shot(page, f"start-{scheme}")
    assert grave(page) == []
    view = answer(page, "0.1, 0.3")
    assert grave(page) == []
    assert grave(page.frames[1]) == []
    view.locator("#area").press("ArrowLeft")
    page.locator("#areas").get_by_role("textbox").fill("none")
    page.set_viewport_size({"width": 1280, "height": 2200})
    page.wait_for_timeout(500)
    shot(page, f"answer-{scheme}")
    page.get_by_role("button", name="Explain").click()
    page.locator("#status").get_by_role("alert").wait_for()
    assert grave(page) == []
    page.locator("#other input").click()
    page.get_by_role("option").first.wait_for()
    page.wait_for_timeout(500)
    shot(page, f"list-{scheme}")
    assert grave(page) == []
