"""The page of the app in a browser: from an image to its results, and all other interactions."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Frame, Page, expect

from browser.conftest import PHONE, Served
from browser.steps import (
    choose_option,
    click_settled,
    expect_slider_at,
    explain,
    explain_coffee,
    find_report,
    no_requests,
    open_options,
    save_screenshot,
    slider_position,
    take_example,
    wait_for_preview,
)
from extremal.explanations.explanation import Explanation

pytestmark = pytest.mark.browser

EXAMPLES = Path(__file__).parents[2] / "src" / "extremal" / "app" / "photographs"
# Records the previews that are shown during a run: stage, image, and area.
RECORD_PREVIEWS = """() => {
  window.shown = [];
  const status = document.querySelector("#status");
  const everything = { subtree: true, childList: true, attributes: true, characterData: true };
  new MutationObserver(() => {
    const tiles = [...status.querySelectorAll(".extremal-tiles li")];
    const label = status.querySelector("label")?.innerText ?? "";
    if (tiles.length) window.shown.push([label, tiles[0].querySelector("img").src, parseFloat(tiles[0].innerText)]);
  }).observe(status, everything);
}"""

ANSWER_OPACITY = """() => {
  let opacity = 1;
  for (let node = document.querySelector("#results iframe"); node; node = node.parentElement)
    opacity *= parseFloat(getComputedStyle(node).opacity);
  return opacity;
}"""


def test_from_an_image_to_its_results(page: Page) -> None:
    save_screenshot(page, "start")
    page.locator("#photo input[type=file]").set_input_files(EXAMPLES / "coffee.jpg")
    options = page.locator("#target label")
    expect(options).to_have_count(5)
    labels = options.all_inner_texts()
    assert all(re.fullmatch(r".+ – (under 1|\d+) %", label) for label in labels), labels
    save_screenshot(page, "image")

    page.locator("#other input").click()
    page.locator("#other input").press_sequentially("espresso")
    suggestions = page.get_by_role("option")
    expect(suggestions).to_have_count(2)
    assert [option.get_attribute("aria-label") for option in suggestions.all()] == ["espresso", "espresso maker"]
    save_screenshot(page, "other-class")
    page.get_by_role("option", name="espresso", exact=True).click()
    expect(options).to_have_text(["espresso"])
    expect(page.get_by_role("radio", name="espresso")).to_be_checked()

    page.evaluate(RECORD_PREVIEWS)
    page.get_by_role("button", name="Explain").click()
    wait_for_preview(page)
    page.wait_for_timeout(1500)
    save_screenshot(page, "running")
    page.locator("#status strong").wait_for()  # the first answer, after few steps, is replaced by the careful one
    view = find_report(page)
    searched = [preview for preview in page.evaluate("window.shown") if preview[0].startswith("Searching")]
    assert len({image for _, image, _ in searched}) >= 3, "the regions change"
    assert {area for _, _, area in searched} == {2.5}, "the first shown is that of the smallest area"

    verdict = page.locator("#status").get_by_role("status").inner_text()
    heading, _, sentence = verdict.partition("embedded. ")
    assert heading == "espresso – preserve game, "
    assert re.search(
        r"[\d.]+\s% of the image keeps −?\d+\s% of the score.*; random regions of that size keep", sentence
    )
    assert sentence.startswith(view.locator(".headline").inner_text())
    save_screenshot(page, "answer")
    page.set_viewport_size({"width": 1280, "height": 2400})
    page.wait_for_timeout(300)
    save_screenshot(page, "answer-whole")


def test_the_slider_needs_no_request(page: Page) -> None:
    view = explain_coffee(page, "0.1, 0.5")
    canvas, marker, slider = view.locator("#canvas"), view.locator("#marker"), view.locator("#area")
    with no_requests(page):
        slider.focus()
        slider.press("Home")
        slider.press("PageUp")
        expect_slider_at(view, 40)
        screenshot, x = canvas.screenshot(), float(marker.get_attribute("x1") or "nan")
        slider.press("PageUp")
        expect_slider_at(view, 80)
        assert canvas.screenshot() != screenshot
        assert float(marker.get_attribute("x1") or "nan") > x + 20
        slider.press("ArrowLeft")
        expect(view.locator("#readout")).to_contain_text("no score was measured here")
        save_screenshot(page, "between")
        slider.press("PageDown")
        view.get_by_role("button", name="Area 10 %, measured").click()
        expect_slider_at(view, 40)
        assert canvas.screenshot() == screenshot
        assert view.locator("#readout").inner_text().startswith("Measured. 10")
        slider.press("Home")
        view.locator("#smallest").click()
        area = "10" if slider_position(view) == 40 else "50"
        assert re.search(rf" {area}\s%$", view.locator("#smallest").inner_text())
        assert view.get_by_role("button", pressed=True).count() == 1


def test_a_repeated_request_is_answered_at_once(page: Page) -> None:
    first = explain_coffee(page)
    address = page.frames[1].url
    first.locator("#area").press("Home")
    page.reload()
    take_example(page)
    open_options(page)
    begin = time.monotonic()
    explain(page)
    assert time.monotonic() - begin < 4  # including the time to load the report
    assert page.frames[1].url == address


def test_a_first_answer_is_not_dimmed_while_it_is_refined(page: Page) -> None:
    take_example(page, "tripod")
    open_options(page, "0.05, 0.1, 0.15, 0.2, 0.3, 0.4", effort="normal")
    page.get_by_role("button", name="Explain").click()
    page.locator("#status .extremal-refining progress").wait_for()
    page.locator("#results iframe").wait_for()
    page.wait_for_timeout(300)  # for gradio's transitions
    opacity = page.evaluate(ANSWER_OPACITY)
    is_refining = page.locator("#status .extremal-refining").count() == 1
    save_screenshot(page, "refining")
    assert (opacity, is_refining) == (1, True)
    page.locator("#status strong").wait_for()
    page.locator("#target label").nth(1).click()
    page.get_by_role("button", name="Explain").click()
    page.locator("#status .extremal-busy:not(.extremal-refining) progress").wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate(ANSWER_OPACITY) < 1, "an answer to another question is dimmed"
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_contain_text("Cancelled")


def test_a_run_is_cancelled(page: Page) -> None:
    take_example(page, "tripod")
    open_options(page, "0.05, 0.1, 0.2, 0.4", effort="thorough")  # takes many seconds, and has no first answer
    page.get_by_role("button", name="Explain").click()
    wait_for_preview(page)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status").get_by_role("status")).to_have_text("Cancelled; nothing was saved.")
    save_screenshot(page, "cancelled")
    assert page.locator("iframe").count() == 0
    page.locator("#effort").get_by_label("fast", exact=True).check()
    explain(page)
    expect(page.locator("iframe")).to_have_count(1)


def test_closing_the_page_cancels_the_request(opened: Callable[..., Page], served: Served) -> None:
    first, second = opened(served.address), opened(served.address)
    take_example(first, "tripod")
    open_options(first, "0.02, 0.05, 0.1, 0.2, 0.4, 0.6", effort="thorough")
    first.locator("#answers input[type=number]").fill("3")  # takes at least half a minute
    first.get_by_role("button", name="Explain").click()
    wait_for_preview(first)
    take_example(second)
    open_options(second, "0.15")
    second.get_by_role("button", name="Explain").click()
    expect(second.locator("#status")).to_have_text("1 job is ahead of yours. It starts automatically.")
    save_screenshot(second, "waiting")
    first.close()
    second.locator("#status progress").wait_for(timeout=8000)
    find_report(second)


def test_two_views_move_together(opened: Callable[..., Page], served: Served) -> None:
    page = opened(served.address, viewport={"width": 1700, "height": 1000})
    take_example(page)
    page.get_by_label("Both, side by side").check()
    open_options(page)
    explain(page)
    left, right = find_report(page, 0), find_report(page, 1)
    assert page.locator("#status strong").all_inner_texts() == [
        "espresso – preserve game, embedded.",
        "espresso – delete game, embedded.",
    ]
    expect(page.locator(".extremal-note").first).to_contain_text(
        "Overlap of the regions of the first two views (intersection over union): "
    )
    left.locator("#area").press("Home")
    left.locator("#area").press("PageUp")
    expect_slider_at(right, 40)
    right.locator("#area").press("ArrowLeft")
    expect_slider_at(left, 39)
    assert right.locator("#readout").inner_text() == left.locator("#readout").inner_text()
    save_screenshot(page, "two-views")


def test_channels_of_a_layer(page: Page) -> None:
    take_example(page)
    open_options(page)
    choose_option(page, "#layer", "blocks.5", "blocks.5")
    page.get_by_role("button", name="Explain").click()
    page.locator("#status strong").wait_for()
    assert page.locator("#status strong").inner_text() == "espresso – channels of blocks.5, preserve game, embedded."
    view = page.frame_locator("iframe")
    expect(view.get_by_role("heading", name="Where the kept channels are active")).to_be_visible()
    expect(page.get_by_role("link")).to_have_text(["Report (HTML)", "Figure (PNG)", "Explanation (safetensors)"])
    save_screenshot(page, "channels")


def test_downloads(page: Page, tmp_path: Path) -> None:
    explain_coffee(page)
    downloads = {}
    for link in page.locator(".extremal-files").get_by_role("link").all():
        with page.expect_download() as download:
            click_settled(page, link)
        kind = download.value.suggested_filename.removeprefix("coffee-espresso-preserve-game-embedded-")
        downloads[kind] = tmp_path / kind
        download.value.save_as(downloads[kind])
    assert set(downloads) == {"report.html", "figure.png", "explanation.safetensors"}
    assert downloads["figure.png"].read_bytes().startswith(b"\x89PNG")
    explanation = Explanation.load(downloads["explanation.safetensors"])
    assert (explanation.areas, explanation.target_names) == ((0.1,), ("espresso",))


def test_a_phone(opened: Callable[..., Page], served: Served) -> None:
    page = opened(served.address, **PHONE)
    save_screenshot(page, "phone-start")
    page.get_by_role("button", name="tripod").tap()  # not yet explained at these areas, hence with previews
    expect(page.locator("#target input")).to_have_count(5)
    page.get_by_role("button", name="More").tap()
    page.wait_for_timeout(300)
    page.locator("#areas").get_by_role("textbox").fill("0.1, 0.3")
    save_screenshot(page, "phone-more")
    page.get_by_role("button", name="Explain").tap()
    wait_for_preview(page)
    page.wait_for_timeout(800)
    save_screenshot(page, "phone-running")
    page.wait_for_function("document.querySelector('#status').getBoundingClientRect().top < 844 / 3")
    page.locator("#status strong").wait_for()
    page.wait_for_timeout(500)
    expect(page.locator("#status strong")).to_be_in_viewport()
    expect(page.locator("iframe")).to_be_in_viewport()
    view = find_report(page)
    page.wait_for_timeout(500)
    save_screenshot(page, "phone-answer")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.frames[1].evaluate("document.documentElement.scrollWidth <= innerWidth")
    view.get_by_role("button", name="Area 30 %, measured").tap()
    view.get_by_role("button", name="Area 10 %, measured").tap()
    view.locator("#area").press("PageUp")
    expect_slider_at(view, 80)
    view.locator("#canvas").scroll_into_view_if_needed()
    save_screenshot(page, "phone-slider")


def test_keyboard_only(page: Page) -> None:
    def go_to(selector: str, frame: Page | Frame = page, key: str = "Tab") -> None:
        for _ in range(60):
            if frame is not page:
                page.wait_for_timeout(300)  # a key reaches a frame with a delay
            if frame.evaluate("selector => document.hasFocus() && document.activeElement.matches(selector)", selector):
                return
            page.keyboard.press(key)
        raise AssertionError(f"{key} does not lead to {selector}")

    go_to("#photo button")
    save_screenshot(page, "keyboard-upload")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(EXAMPLES / "coffee.jpg")
    expect(page.locator("#target input")).to_have_count(5)
    go_to("#target input")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#target input").nth(1)).to_be_checked()
    go_to("#explain")
    page.keyboard.press("Shift+Tab")
    go_to("#explain")
    go_to("#more button")
    page.keyboard.press("Enter")
    go_to("#areas input, #areas textarea")
    page.keyboard.press("Control+A")
    page.keyboard.type("0.1")
    go_to("#explain", key="Shift+Tab")
    expect(page.locator(".options")).to_have_count(0)  # no list stays open
    page.keyboard.press("Space")
    view = find_report(page)
    assert "cup" in page.locator("#status strong").inner_text()
    go_to("iframe")
    before = slider_position(view)
    go_to("#area", page.frames[1])
    page.keyboard.press("ArrowLeft")
    expect_slider_at(view, before - 1)
    save_screenshot(page, "keyboard-slider")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1024, 768), (390, 844)])
def test_explain_is_in_sight_and_cancel_when_there_is_something_to_cancel(
    opened: Callable[..., Page], served: Served, width: int, height: int
) -> None:
    page = opened(served.address, viewport={"width": width, "height": height})
    start, stop = page.locator("#explain"), page.locator("#cancel")
    for step in (lambda: None, lambda: take_example(page, "tripod")):
        step()
        expect(start).to_be_in_viewport(ratio=1)
        expect(stop).to_be_hidden()
        box = start.bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        on_top = "([x, y]) => document.elementFromPoint(x, y).closest('#explain') !== null"
        assert page.evaluate(on_top, list(middle)), "nothing covers it"
    save_screenshot(page, f"in-sight-{width}")
    start.click()
    expect(stop).to_be_visible()
    stop.click()
    expect(stop).to_be_hidden()
