"""What a person does on the page, step by step; each step can be looked at afterwards in artefacts/browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Frame, FrameLocator, Page, expect

SHOTS = Path(__file__).parents[2] / "artefacts" / "browser"
FRAME = "iframe.extremal-view"
GRAVE = ("serious", "critical")


def shot(page: Page, name: str) -> None:
    """Keep what is to be seen."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def take(page: Page, example: str = "cat") -> None:
    """Take one of the photographs of the page."""
    page.get_by_role("button", name=example, exact=True).click()
    expect(page.locator("#target input")).to_have_count(5)


def more(page: Page, areas: str = "0.1") -> None:
    """Open what some choose, and ask for these areas: one is the quickest."""
    page.get_by_role("button", name="More").click()
    page.locator("#areas").get_by_role("textbox").wait_for()
    page.wait_for_timeout(300)  # what is typed before gradio is ready stays in the field, unheard
    page.locator("#areas").get_by_role("textbox").fill(areas)


def explain(page: Page) -> FrameLocator:
    """Ask, and wait for the report of the answer."""
    page.get_by_role("button", name="Explain").click()
    page.locator("#status [role=status] strong").first.wait_for()
    return report(page)


def answer(page: Page, areas: str = "0.1") -> FrameLocator:
    """The report of the cat at these areas; who asks for the second time gets it at once."""
    take(page)
    more(page, areas)
    return explain(page)


def running(page: Page) -> None:
    """Wait until there is something to see of the run."""
    page.locator("#status .extremal-tiles").wait_for()


def report(page: Page, number: int = 0) -> FrameLocator:
    """A report on the page, with its slider at hand."""
    found = page.frame_locator(FRAME).nth(number)
    found.locator("#controls").wait_for()
    return found


def at(view: FrameLocator) -> int:
    """Where the slider of a report stands."""
    return int(view.locator("#area").input_value())


def stands_at(view: FrameLocator, place: int) -> None:
    """Wait until the slider of a report stands there: a key reaches a frame a little after it was pressed."""
    expect(view.locator("#area")).to_have_value(str(place))


def choose(page: Page, field: str, part: str, option: str) -> None:
    """Choose in a field with a list, by a part of what is wanted."""
    page.locator(f"{field} input").click()
    page.keyboard.press("Control+A")
    page.locator(f"{field} input").press_sequentially(part)
    page.get_by_role("option", name=option, exact=True).click()


def inner(page: Page) -> list[Frame]:
    """The frames on the page."""
    return page.frames[1:]


@contextmanager
def asking_nothing(page: Page) -> Iterator[None]:
    """Within this, nothing may be requested."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    yield
    page.wait_for_timeout(300)
    assert asked == []


def grave(place: Page | Frame) -> list[str]:
    """What axe finds here that keeps people out, as lines to be read."""
    found = Axe().run(place).response["violations"]  # type: ignore[arg-type]  # a frame has what it needs of a page
    return [
        f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']]}"
        for one in found
        if one["impact"] in GRAVE
    ]
