"""Reports opened from disk: they request nothing, work on a phone, and are accessible."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

from browser.conftest import PHONE, serving
from browser.steps import accessibility_problems, click_settled, explain_coffee, no_requests, save_screenshot
from extremal import class_channels, explain_channels, report
from extremal.report import channel_page, class_page, tokens_page
from support import synthetic
from support.made_tokens import answer_tokens
from support.toys import Carriers

pytestmark = pytest.mark.browser

X = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 0.2


def check_slider(page: Page) -> None:
    """Check that the canvas changes with the slider, without requests."""
    page.locator("#controls").wait_for()
    slider, canvas = page.locator("#area"), page.locator("#canvas")
    slider.press("Home")
    with no_requests(page):
        before = canvas.screenshot()
        slider.press("PageUp")
        assert canvas.screenshot() != before


def write_explanation(path: Path) -> None:
    report.write(synthetic.explanation((0.05, 0.1, 0.2, 0.4), (96, 96)), path)


def write_channels(path: Path) -> None:
    channel_page.write(explain_channels(Carriers([3], seed=1), X[:1], "features", 0, score="logit"), path)


def write_classes(path: Path) -> None:
    class_page.write(class_channels(Carriers([3], seed=1), X, "features", 0, score="logit"), path)


def write_answer_tokens(path: Path) -> None:
    path.write_text(tokens_page.render(answer_tokens(shape=(96, 96)), source="bus.png"))


WRITERS = [write_explanation, write_channels, write_classes, write_answer_tokens]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("write", WRITERS)
def test_a_report_is_accessible(
    opened: Callable[..., Page], tmp_path: Path, write: Callable[[Path], None], scheme: str
) -> None:
    write(tmp_path / "report.html")
    page = opened((tmp_path / "report.html").as_uri(), color_scheme=scheme)
    page.get_by_text("All settings, as stored").click()
    save_screenshot(page, f"{write.__name__.replace('write_', 'report-')}-{scheme}")
    assert accessibility_problems(page) == []


@pytest.mark.parametrize("write", WRITERS)
def test_a_report_on_a_phone(opened: Callable[..., Page], tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "report.html")
    page = opened((tmp_path / "report.html").as_uri(), **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 390, "height": 2600})
    save_screenshot(page, f"{write.__name__.replace('write_', 'report-')}-phone")
    assert accessibility_problems(page) == []


def test_a_report_outlives_the_app(opened: Callable[..., Page], tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    with serving(tmp_path / "app") as served:
        page = opened(served.address)
        explain_coffee(page)
        with page.expect_download() as download:
            click_settled(page, page.get_by_role("link", name="Report (HTML)"))
        download.value.save_as(tmp_path / "saved.html")
        page.close()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
        assert list((tmp_path / "app").iterdir()) == [], "the app removes its files"
        saved = opened((tmp_path / "saved.html").as_uri())
        check_slider(saved)
        expect(saved.locator(".kind")).to_contain_text("coffee.jpg")
        save_screenshot(saved, "saved")


def test_the_slider_without_a_network(opened: Callable[..., Page], tmp_path: Path) -> None:
    write_explanation(tmp_path / "report.html")
    page = opened((tmp_path / "report.html").as_uri(), offline=True)
    check_slider(page)


def test_the_views_of_an_image(opened: Callable[..., Page], tmp_path: Path) -> None:
    write_explanation(tmp_path / "report.html")
    page = opened((tmp_path / "report.html").as_uri())
    page.locator("#controls").wait_for()
    stage, canvas = page.locator("#stage"), page.locator("#canvas")
    pictures = {}
    with no_requests(page):
        for name in ("Rest dimmed", "Cut out", "Heat map", "Photograph"):
            page.get_by_role("radio", name=name).check()
            expect(page.locator("#heat-note")).to_be_visible(visible=name == "Heat map")
            expect(canvas).to_be_visible(visible=name != "Photograph")
            pictures[name] = stage.screenshot()
    assert len(set(pictures.values())) == 4
    page.get_by_role("radio", name="Heat map").check()
    expect(canvas).to_have_attribute("aria-label", "The image, coloured by the order of importance of its places")
    page.locator("#area").press("Home")
    assert stage.screenshot() == pictures["Heat map"], "it shows all areas at once"


def test_it_opens_at_the_area_of_its_headline(opened: Callable[..., Page], tmp_path: Path) -> None:
    result = synthetic.explanation((0.05, 0.1, 0.2, 0.4), (96, 96))
    weak = replace(result, binary_scores=result.binary_scores * torch.tensor([[0.3, 0.6, 0.5, 0.4]]))
    report.write(weak, tmp_path / "report.html")
    page = opened((tmp_path / "report.html").as_uri())
    headline = page.locator(".headline").inner_text()
    label = page.locator(".tick[aria-pressed=true]").inner_text()
    assert headline.startswith(f"None of the computed areas is enough. The best of them: {label} of the image")


def test_the_region_of_a_token_is_shown_under_the_pointer(opened: Callable[..., Page], tmp_path: Path) -> None:
    write_answer_tokens(tmp_path / "report.html")
    page = opened((tmp_path / "report.html").as_uri())
    caption = page.locator(".token-view:visible figcaption")
    expect(caption).to_contain_text("The whole answer")
    page.locator("label", has_text="bus").hover()
    expect(caption).to_contain_text("bus:")
    page.mouse.move(0, 0)
    expect(caption).to_contain_text("The whole answer")
    page.get_by_role("radio", name="whole answer").press("ArrowRight")
    expect(caption).to_have_text("a: Its probability is the same without the picture.")
    expect(page.locator("#live")).to_have_text("a: Its probability is the same without the picture.")
