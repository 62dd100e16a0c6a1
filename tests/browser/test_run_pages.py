"""Pages of runs over data sets: sorting, filters, and scrolling through ten thousand rows."""

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from playwright.sync_api import Locator, Page, expect

from browser.conftest import PHONE
from browser.steps import accessibility_problems, save_screenshot
from extremal import jobs
from extremal.jobs.rows import SCHEMA
from extremal.jobs.run_summary import COLUMNS, image_summaries, summarise
from extremal.report import comparison_page, run_page
from support import runs

pytestmark = pytest.mark.browser

COUNT = 10_000
MAX_SORT_MS = 1000  # on a busy machine
MAX_FRAME_MS = 100  # median over the frames while the table scrolls
SUMMARY_SCHEMA = pa.schema([SCHEMA.field(name) for name in COLUMNS])
SORT_SCRIPT = """async (section) => {
  const times = [];
  for (const button of section.querySelectorAll(".head button")) {
    const begin = performance.now();
    button.click();
    section.querySelector(".body").offsetHeight;
    times.push(performance.now() - begin);
  }
  return times;
}"""
SCROLL_SCRIPT = """async (section) => {
  const view = section.querySelector(".view"), times = [];
  view.scrollTop = 0;
  const frame = () => new Promise(requestAnimationFrame);
  let last = await frame(), minRows = Infinity;
  for (let k = 0; k < 60; k++) {
    view.scrollTop += 1000;
    const now = await frame();
    times.push(now - last);
    last = now;
    minRows = Math.min(minRows, section.querySelectorAll(".body .row").length);
  }
  times.sort((a, b) => a - b);
  return { frame: times[30], minRows };
}"""


@pytest.fixture(scope="module")
def rows() -> list[runs.Row]:
    return list(runs.make_many_rows(COUNT, distinct=35))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, rows: list[runs.Row]) -> str:
    """The page of a large run."""
    path = tmp_path_factory.mktemp("page") / "summary.html"
    small = [{name: row[name] for name in COLUMNS} for row in rows]
    summary = summarise(pa.Table.from_pylist(small, SUMMARY_SCHEMA), runs.make_settings())
    thumbnails = {row["key"]: row["thumbnail"] for row in rows}
    path.write_text(run_page.render(summary, image_summaries(small), thumbnails, title="run"), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def compared_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of two runs."""
    folder = tmp_path_factory.mktemp("compared")
    first, others = runs.make_rows(30), runs.make_rows(30, 100)
    second = [{**b, "content_hash": a["content_hash"]} for a, b in zip(first, others, strict=True)]
    comparison = jobs.compare(runs.write_run(folder / "first", first), runs.write_run(folder / "second", second))
    thumbnails = {row["key"]: row["thumbnail"] for row in first}
    path = folder / "compare.html"
    path.write_text(comparison_page.render(comparison, thumbnails, thumbnails), encoding="utf-8")
    return path.as_uri()


def find_image_table(page: Page) -> Locator:
    """Scroll to the table of all images."""
    section = page.locator("[data-rows=images]")
    section.locator(".body .row").first.wait_for()
    section.evaluate("(section) => section.scrollIntoView()")
    return section


def visible_keys(section: Locator) -> list[str]:
    """Return the keys of the rows in the document, from the top."""
    return section.locator(".body [role=rowheader]").all_inner_texts()


def keys_by_column(rows: list[runs.Row], name: str, down: bool = False) -> list[str]:
    """Sort keys by a column: missing values last, equal values in their original order."""
    known = [row for row in rows if row[name] is not None]
    known.sort(key=lambda row: -row[name] if down else row[name])
    return [row["key"] for row in [*known, *(row for row in rows if row[name] is None)]]


def test_only_visible_rows_are_in_the_document(opened: Callable[..., Page], address: str, rows: list[runs.Row]) -> None:
    section = find_image_table(opened(address))
    expect(section.get_by_role("status")).to_have_text("10,000 images")
    assert visible_keys(section)[:5] == [row["key"] for row in rows[:5]]
    assert section.locator(".body .row").count() < 40
    table = section.get_by_role("table")
    expect(table).to_have_attribute("aria-rowcount", "10001")
    table.focus()
    table.press("End")
    section.get_by_text(rows[-1]["key"]).wait_for()
    assert visible_keys(section)[-3:] == [row["key"] for row in rows[-3:]]
    last = section.locator(".body .row").last
    expect(last).to_have_attribute("aria-rowindex", "10001")
    assert section.locator(".body .row").count() < 40
    middle = section.get_by_role("row").filter(has_text=rows[-2]["key"])
    assert middle.locator("img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 24


def test_sorted_by_mouse_and_keyboard(opened: Callable[..., Page], address: str, rows: list[runs.Row]) -> None:
    section = find_image_table(opened(address))
    section.get_by_role("button", name="Score").click()
    header = section.get_by_role("columnheader", name="Score")
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert visible_keys(section)[:8] == keys_by_column(rows, "score_full")[:8]
    section.get_by_role("button", name="Score").press("Enter")
    expect(header).to_have_attribute("aria-sort", "descending")
    assert visible_keys(section)[:8] == keys_by_column(rows, "score_full", down=True)[:8]
    section.get_by_role("button", name="Smallest area").press("Space")
    expect(header).to_have_attribute("aria-sort", "none")
    assert visible_keys(section)[:8] == keys_by_column(rows, "smallest_area")[:8]
    section.get_by_role("table").press("End")
    section.get_by_text(keys_by_column(rows, "smallest_area")[-1]).wait_for()


def test_filters_by_verdict_class_and_text(opened: Callable[..., Page], address: str, rows: list[runs.Row]) -> None:
    section = find_image_table(opened(address))
    count = section.get_by_role("status")
    suspect = [row["key"] for row in rows if row["verdict"] == "suspect"]
    section.get_by_role("combobox", name="Verdict").select_option("suspect")
    expect(count).to_have_text(f"{len(suspect):,} of 10,000 images")
    assert visible_keys(section)[:5] == suspect[:5]
    section.get_by_role("combobox", name="Verdict").select_option("All")
    name = rows[0]["target_name"]
    mine = [row["key"] for row in rows if row["target_name"] == name]
    section.get_by_role("combobox", name="Class").select_option(name)
    expect(count).to_have_text(f"{len(mine)} of 10,000 images")
    assert visible_keys(section) == mine[: len(visible_keys(section))]
    section.get_by_role("combobox", name="Class").select_option("All")
    section.get_by_role("searchbox", name="Search").fill("PICTURE-0123")
    expect(count).to_have_text("10 of 10,000 images")
    assert visible_keys(section) == [row["key"] for row in rows[1230:1240]]
    expect(section.get_by_role("table")).to_have_attribute("aria-rowcount", "11")
    section.get_by_role("searchbox", name="Search").fill("readable, error 1")
    failed = sum((row["error"] or "").endswith("readable, error 1") for row in rows)
    expect(count).to_have_text(f"{failed:,} of 10,000 images")
    section.get_by_role("searchbox", name="Search").fill("no such thing")
    expect(count).to_have_text("0 of 10,000 images")
    assert visible_keys(section) == []


def test_sorting_and_scrolling_are_fast(opened: Callable[..., Page], address: str) -> None:
    section = find_image_table(opened(address))
    times: list[float] = section.evaluate(SORT_SCRIPT)
    assert len(times) == 8
    assert max(times) < MAX_SORT_MS
    result: dict[str, Any] = section.evaluate(SCROLL_SCRIPT)
    assert result["frame"] < MAX_FRAME_MS
    assert result["minRows"] >= 10, "every frame shows rows"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["summary", "compare"])
def test_pages_are_accessible(
    opened: Callable[..., Page], address: str, compared_address: str, kind: str, scheme: str
) -> None:
    page = opened({"summary": address, "compare": compared_address}[kind], color_scheme=scheme)
    save_screenshot(page, f"{kind}-{scheme}")
    find_image_table(page)
    save_screenshot(page, f"{kind}-rows-{scheme}")
    assert accessibility_problems(page) == []


@pytest.mark.parametrize("kind", ["summary", "compare"])
def test_on_a_phone(opened: Callable[..., Page], address: str, compared_address: str, kind: str) -> None:
    page = opened({"summary": address, "compare": compared_address}[kind], **PHONE)
    section = find_image_table(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    first = visible_keys(section)[0]
    section.get_by_role("combobox", name="Sort by").select_option("Score, descending")
    assert visible_keys(section)[0] != first
    save_screenshot(page, f"{kind}-phone")
    assert accessibility_problems(page) == []


def test_two_runs_are_sorted_by_overlap(opened: Callable[..., Page], compared_address: str) -> None:
    section = find_image_table(opened(compared_address))
    expect(section.get_by_role("columnheader", name="IoU")).to_have_attribute("aria-sort", "ascending")
    ious = section.locator(".body .row > [data-label=IoU] > span").all_inner_texts()
    assert ious == sorted(ious, key=float)
    assert section.locator(".body .row").first.locator("img").count() == 2
    verdicts = section.locator(".body .row > [data-label=Verdict]").all_inner_texts()
    assert any(re.fullmatch(r"\w+ → \w+", text.strip()) for text in verdicts)
