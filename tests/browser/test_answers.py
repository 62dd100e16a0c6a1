"""Answers that are stored: the example, the history, tabs, two side by side, links and files."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import PATIENCE, Served
from browser.steps import (
    FRAME,
    accessibility_problems,
    choose_option,
    click_settled,
    explain,
    explain_coffee,
    find_report,
    open_options,
    save_screenshot,
    slider_position,
    take_example,
)
from support import made_explanations

pytestmark = pytest.mark.browser


def open_saved(page: Page, path: Path) -> None:
    """Open a saved answer."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open a saved answer").click()
    chooser.value.set_files(path)


def test_an_example_is_answered_when_the_page_opens(page: Page) -> None:
    view = find_report(page)
    expect(page.locator("#status")).to_contain_text("Example: tripod.")
    expect(page.locator("#status")).to_contain_text("Computed beforehand with the embedded network")
    expect(view.locator("h1")).to_have_text("tripod")
    assert slider_position(view) > 0
    expect(page.get_by_role("heading", name="Answers from this visit")).to_have_count(0)
    assert "#" not in page.url
    assert page.evaluate("scrollY") == 0


def test_answers_are_listed_and_those_of_one_class_are_tabs(opened: Callable[..., Page], served: Served) -> None:
    page = opened(served.address)
    page.locator("#photo").wait_for()
    explain_coffee(page)
    entries, tabs = page.locator("#history li"), page.get_by_role("tab")
    expect(entries).to_have_count(1)
    expect(entries.locator("strong")).to_have_text("espresso")
    expect(entries.locator("img")).to_be_visible()
    expect(tabs).to_have_count(0)
    first = page.url
    assert "#answer=" in first
    page.get_by_label("What the answer depends on (delete)").check()
    explain(page)
    expect(entries).to_have_count(2)
    expect(tabs).to_have_text(["What is enough, fast, at 10\u00a0%", "What the answer depends on, fast, at 10\u00a0%"])
    expect(page.get_by_role("tab", selected=True)).to_have_text("What the answer depends on, fast, at 10\u00a0%")
    save_screenshot(page, "tabs")
    tabs.first.click()
    expect(page.locator("#status strong")).to_have_text("espresso – preserve game, embedded.")
    expect(page).to_have_url(first)


def test_two_answers_are_compared_and_found_again(opened: Callable[..., Page], served: Served, tmp_path: Path) -> None:
    page = opened(served.address)
    find_report(page)
    for number, name in enumerate(("first", "second"), start=1):
        explanation = made_explanations.explanation(target_names=(name,))
        explanation.save(tmp_path / f"{name}.safetensors")
        open_saved(page, tmp_path / f"{name}.safetensors")
        expect(page.locator("#history li")).to_have_count(number)
    expect(page.locator("#history strong")).to_have_text(["second", "first"])
    expect(page.locator("#compare")).to_be_disabled()
    boxes = page.locator("#history input")
    for number in range(2):
        click_settled(page, boxes.nth(number))
        expect(boxes.nth(number)).to_be_checked()
    page.locator("#compare").click()
    expect(page.locator("iframe")).to_have_count(2)
    expect(page.locator("#results .extremal-note").first).to_contain_text("Overlap of the regions")
    find_report(page, 1)
    left, right = (frame.bounding_box() for frame in page.locator("iframe").all())
    assert left is not None
    assert right is not None
    assert abs(left["y"] - right["y"]) < 2, "side by side at 1280 px"
    save_screenshot(page, "compared")
    assert accessibility_problems(page) == []

    pair = page.url
    assert len(pair.partition("#answer=")[2].split("+")) == 2
    page.reload()
    expect(page.locator("#history li")).to_have_count(2)
    expect(page.locator("iframe")).to_have_count(2)
    page.locator("#history [data-show]").last.click()
    expect(page.locator("iframe")).to_have_count(1)
    expect(page.locator("#status strong")).to_have_text("first – preserve game, unnamed network.")
    expect(page.locator("#history [aria-current=true] strong")).to_have_text("first")
    assert page.url != pair

    stranger = opened(pair)
    expect(stranger.locator("#status").get_by_role("alert")).to_contain_text("This answer is not from this visit")
    expect(stranger.locator("#history li")).to_have_count(0)
    save_screenshot(stranger, "stranger")


def test_a_saved_answer_is_opened_again(opened: Callable[..., Page], served: Served, tmp_path: Path) -> None:
    page = opened(served.address)
    find_report(page)
    with page.expect_download() as download:
        click_settled(page, page.get_by_role("link", name="Explanation (safetensors)"))
    assert download.value.suggested_filename == "tripod-tripod-preserve-game-embedded-explanation.safetensors"
    download.value.save_as(tmp_path / "my tripod.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not an explanation")

    stranger = opened(served.address)
    find_report(stranger)
    open_saved(stranger, tmp_path / "my tripod.safetensors")
    expect(stranger.locator("#history li")).to_have_count(1)
    expect(stranger.locator("#status strong")).to_have_text("tripod – preserve game, embedded.")
    expect(find_report(stranger).locator(".kind")).to_contain_text("my tripod.safetensors")
    open_saved(stranger, tmp_path / "broken.safetensors")
    expect(stranger.locator("#status").get_by_role("alert")).to_contain_text("must be an explanation file")
    expect(stranger.locator("#history li")).to_have_count(1)


def test_names_are_searched_with_the_exact_one_first(page: Page) -> None:
    page.get_by_role("button", name="More").click()
    layer = page.locator("#layer input")
    layer.click()
    options = page.get_by_role("option")
    expect(options.first).to_have_text("Regions of the image")
    expect(page.get_by_role("option", name="blocks.5", exact=True)).to_contain_text("stage, Sequential, 192×7×7")
    expect(page.get_by_role("option", name="blocks.5.0.conv_pw", exact=True)).to_have_count(0)
    save_screenshot(page, "stages")
    page.keyboard.type("blocks.5")
    page.keyboard.press("Enter")
    expect(layer).to_have_value("blocks.5")
    expect(options).to_have_count(0)
    choose_option(page, "#layer", "5.0.conv_pwl", "blocks.5.0.conv_pwl")
    layer.click()
    page.keyboard.type("zzzz")
    expect(page.get_by_text("No similar name was found.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".extremal-options")).to_have_count(0)
    page.locator("#other input").click()
    page.keyboard.type("cup")
    expect(options.first).to_have_text("cup")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#target label")).to_have_text(["measuring cup"])


def test_form_and_answer_stand_side_by_side_from_1024_pixels_on(page: Page) -> None:
    def boxes(width: int) -> tuple[dict[str, float], dict[str, float]]:
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(300)
        form, answer = (page.locator(name).bounding_box() for name in ("#photo", "#answer"))
        assert form is not None
        assert answer is not None
        return form, answer  # type: ignore[return-value]

    for width in (1024, 1280, 1920):
        form, answer = boxes(width)
        assert answer["x"] >= form["x"] + form["width"] + 16
        assert abs(answer["y"] - form["y"]) < 24
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    form, answer = boxes(1000)
    assert answer["y"] > form["y"] + form["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000


def test_the_page_describes_itself(page: Page) -> None:
    assert page.title() == "extremal – What did the network need?"
    tags = page.evaluate("[...document.querySelectorAll('meta, link[rel=icon]')].map((tag) => tag.outerHTML).join('')")
    assert "radio" not in tags
    assert 'property="og:title" content="extremal – What did the network need?"' in tags
    assert tags.count('name="theme-color"') == 2
    assert tags.count('rel="icon"') == 1


def test_one_answer_has_several_regions(opened: Callable[..., Page], served: Served) -> None:
    page = opened(served.address)
    page.locator("#photo").wait_for()
    take_example(page)
    open_options(page, "0.4")
    page.get_by_label("Three regions: sufficient, necessary, both").check()
    page.get_by_role("button", name="Explain").click()
    summary = page.locator("#status [role=status]:not(.extremal-example) strong")
    expect(summary).to_have_text("espresso – sufficient, necessary and complete regions, embedded.", timeout=PATIENCE)
    view = page.frame_locator(FRAME)
    expect(view.locator("h1")).to_have_text("espresso")
    expect(view.locator(".tiles li")).to_have_count(4)
    expect(view.locator(".tiles")).to_contain_text("Sufficient: kept alone, it keeps the answer")
    assert accessibility_problems(page.frames[-1]) == []
    save_screenshot(page, "several-regions")
    link = page.get_by_role("link", name="Explanation (safetensors)")
    assert str(link.get_attribute("href")).endswith("/0/sets.safetensors")
    assert str(link.get_attribute("download")).endswith("sets.safetensors")
