"""The report of a sound, opened from disk: the player plays the region that the slider shows."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from browser.conftest import PHONE
from browser.steps import accessibility_problems, no_requests
from extremal import explain, report
from support.sounds import RATE, planted_tone, tone_network

pytestmark = pytest.mark.browser

AREAS = (0.05, 0.15)
LOUDNESS = """async (id) => {
  const bytes = Uint8Array.from(atob(document.getElementById(id).src.split(",")[1]), (c) => c.charCodeAt(0));
  return [...new Int16Array(bytes.buffer, 44)].map((value) => value !== 0);
}"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sound") / "report.html"
    result = explain(tone_network(), planted_tone()[None], "440 Hz", score="logit", areas=AREAS, solver="path")
    report.write(result, file)
    return file


def test_the_player_follows_the_slider(opened: Callable[..., Page], page_file: Path) -> None:
    page = opened(page_file.as_uri())
    page.locator("#region-player").wait_for()
    for sound in ("whole-sound", "region-sound"):
        page.wait_for_function(f"document.getElementById('{sound}').readyState > 0")
        assert page.evaluate(f"document.getElementById('{sound}').duration") == pytest.approx(2.0)
    with no_requests(page):
        for k, area in enumerate(AREAS):
            before = page.locator("#region-sound").get_attribute("src")
            page.locator(".tick").nth(1 - k).click()  # another one first, so that the sound changes
            page.locator(".tick").nth(k).click()
            page.wait_for_timeout(500)
            assert page.locator("#region-sound").get_attribute("src") != "" != before
            heard = page.evaluate(LOUDNESS, "region-sound")
            assert len(heard) == 2 * RATE
            assert sum(heard) / len(heard) == pytest.approx(area, abs=0.01)
    assert sum(page.evaluate(LOUDNESS, "whole-sound")) > 1.9 * RATE


def test_on_a_phone_and_accessible(opened: Callable[..., Page], page_file: Path) -> None:
    page = opened(page_file.as_uri(), **PHONE)
    page.locator("#region-player").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert accessibility_problems(page) == []
