"""Steps of a user on the page of the app; screenshots are saved in artefacts/browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Frame, FrameLocator, Locator, Page, expect

SCREENSHOTS = Path(__file__).parents[2] / "artefacts" / "browser"
FRAME = "iframe.extremal-view"
SERIOUS_IMPACTS = ("serious", "critical")


def save_screenshot(page: Page, name: str) -> None:
    """Save a screenshot of the visible part of the page."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def take_example(page: Page, example: str = "coffee") -> None:
    """Select an example image, and wait for its classes."""
    page.get_by_role("button", name=example, exact=True).click()
    expect(page.locator("#target input")).to_have_count(5)


def open_options(page: Page, areas: str = "0.1", effort: str = "fast") -> None:
    """Open the advanced options, enter areas, and choose an effort."""
    page.get_by_role("button", name="More").click()
    page.locator("#areas").get_by_role("textbox").wait_for()
    page.wait_for_timeout(300)  # gradio ignores what is typed before it is ready
    page.locator("#areas").get_by_role("textbox").fill(areas)
    page.locator("#effort").get_by_label(effort, exact=True).check()


def explain(page: Page) -> FrameLocator:
    """Start an explanation, and wait for its report."""
    answers = page.locator(".extremal-answer").evaluate_all("all => all.map(one => one.dataset.answer)")
    page.get_by_role("button", name="Explain").click()
    page.locator("".join([".extremal-answer", *(f":not([data-answer='{name}'])" for name in answers)])).wait_for()
    page.locator("#status [role=status]:not(.extremal-example) strong").first.wait_for()
    return find_report(page)


def click_settled(page: Page, place: Locator) -> None:
    """Click what is below a report: a frame reports its height when it comes into view, and moves what follows."""
    place.scroll_into_view_if_needed()
    page.wait_for_timeout(800)
    place.click()


def explain_coffee(page: Page, areas: str = "0.1") -> FrameLocator:
    """Explain the example coffee at these areas; repeated requests are answered from the cache."""
    take_example(page)
    open_options(page, areas)
    return explain(page)


def wait_for_preview(page: Page) -> None:
    """Wait for the first preview of a running explanation."""
    page.locator("#status .extremal-tiles").wait_for()


def find_report(page: Page, number: int = 0) -> FrameLocator:
    """Find a report on the page, and wait for its slider."""
    view = page.frame_locator(FRAME).nth(number)
    view.locator("#controls").wait_for()
    return view


def slider_position(view: FrameLocator) -> int:
    """Return the position of the slider of a report."""
    return int(view.locator("#area").input_value())


def expect_slider_at(view: FrameLocator, position: int) -> None:
    """Wait until the slider of a report has a position: keys reach a frame with a delay."""
    expect(view.locator("#area")).to_have_value(str(position))


def choose_option(page: Page, field: str, part: str, option: str) -> None:
    """Choose an option in a field with a list, by typing a part of it."""
    page.locator(f"{field} input").click()
    page.keyboard.press("Control+A")
    page.locator(f"{field} input").press_sequentially(part)
    page.get_by_role("option", name=option, exact=True).click()
    expect(page.locator(f"{field} input")).to_have_value(option)


def report_frames(page: Page) -> list[Frame]:
    """Return the frames of the page."""
    return page.frames[1:]


@contextmanager
def no_requests(page: Page) -> Iterator[None]:
    """Fail if the page requests anything in this context."""
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    yield
    page.wait_for_timeout(300)
    assert requests == []


def accessibility_problems(view: Page | Frame) -> list[str]:
    """Return the serious accessibility problems that axe finds, one line each."""
    violations = Axe().run(view).response["violations"]  # type: ignore[arg-type]  # a frame has all that axe needs
    return [
        f"{violation['id']}: {violation['help']}: {[node['target'] for node in violation['nodes']]}"
        for violation in violations
        if violation["impact"] in SERIOUS_IMPACTS
    ]
