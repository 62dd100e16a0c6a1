"""The pages of runs over data sets: ten thousand rows that are sorted, searched and scrolled without waiting."""

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from playwright.sync_api import Locator, Page, expect

from browser.conftest import PHONE
from browser.steps import grave, shot
from extremal import jobs
from extremal.jobs.rows import SCHEMA
from extremal.jobs.run_summary import COLUMNS, image_summaries, summarise
from extremal.report import comparison_page
from extremal.report import run_page as report
from support import runs

COUNT = 10_000
SORTED = 1000  # ms within which a column is sorted, on a busy machine
FRAME = 100  # ms that a frame takes on the median while the rows pass
SMALL = pa.schema([SCHEMA.field(name) for name in COLUMNS])
SORT = """async (place) => {
  const times = [];
  for (const button of place.querySelectorAll(".head button")) {
    const begin = performance.now();
    button.click();
    place.querySelector(".body").offsetHeight;
    times.push(performance.now() - begin);
  }
  return times;
}"""
SCROLL = """async (place) => {
  const view = place.querySelector(".view"), times = [];
  view.scrollTop = 0;
  const frame = () => new Promise(requestAnimationFrame);
  let last = await frame(), least = Infinity;
  for (let k = 0; k < 60; k++) {
    view.scrollTop += 1000;
    const now = await frame();
    times.push(now - last);
    last = now;
    least = Math.min(least, place.querySelectorAll(".body .row").length);
  }
  times.sort((a, b) => a - b);
  return { frame: times[30], least };
}"""


@pytest.fixture(scope="module")
def rows() -> list[runs.Row]:
    return list(runs.make_many_rows(COUNT, distinct=35))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, rows: list[runs.Row]) -> str:
    """The page of a large run."""
    path = tmp_path_factory.mktemp("page") / "summary.html"
    small = [{name: row[name] for name in COLUMNS} for row in rows]
    found = summarise(pa.Table.from_pylist(small, SMALL), runs.make_settings())
    thumbnails = {row["key"]: row["thumbnail"] for row in rows}
    path.write_text(report.render(found, image_summaries(small), thumbnails, title="run"), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def compared_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of two runs."""
    folder = tmp_path_factory.mktemp("compared")
    made, others = runs.make_rows(30), runs.make_rows(30, 100)
    same = [{**row, "content_hash": one["content_hash"]} for row, one in zip(others, made, strict=True)]
    one, other = runs.write_run(folder / "one", made), runs.write_run(folder / "other", same)
    found = jobs.compare(one, other)
    thumbnails = {row["key"]: row["thumbnail"] for row in made}
    (folder / "compare.html").write_text(comparison_page.render(found, thumbnails, thumbnails), encoding="utf-8")
    return (folder / "compare.html").as_uri()


def images(page: Page) -> Locator:
    """The table of all images, in sight."""
    place = page.locator("[data-rows=images]")
    place.locator(".body .row").first.wait_for()
    place.evaluate("(place) => place.scrollIntoView()")
    return place


def keys(place: Locator) -> list[str]:
    """The images in the document, from the top."""
    return place.locator(".body [role=rowheader]").all_inner_texts()


def column(rows: list[runs.Row], name: str, down: bool = False) -> list[str]:
    """Keys in the order of a column, those without a value last, as they came where values are equal."""
    known = [row for row in rows if row[name] is not None]
    known.sort(key=lambda row: -row[name] if down else row[name])
    return [row["key"] for row in [*known, *(row for row in rows if row[name] is None)]]


def test_only_what_is_in_sight_is_in_the_document(
    opened: Callable[..., Page], address: str, rows: list[runs.Row]
) -> None:
    place = images(opened(address))
    expect(place.get_by_role("status")).to_have_text("10,000 images")
    assert keys(place)[:5] == [row["key"] for row in rows[:5]]
    assert place.locator(".body .row").count() < 40
    table = place.get_by_role("table")
    expect(table).to_have_attribute("aria-rowcount", "10001")
    table.focus()
    table.press("End")
    place.get_by_text(rows[-1]["key"]).wait_for()
    assert keys(place)[-3:] == [row["key"] for row in rows[-3:]]
    last = place.locator(".body .row").last
    expect(last).to_have_attribute("aria-rowindex", "10001")
    assert place.locator(".body .row").count() < 40
    middle = place.get_by_role("row").filter(has_text=rows[-2]["key"])
    assert middle.locator("img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 24


def test_sorted_by_mouse_and_keyboard(opened: Callable[..., Page], address: str, rows: list[runs.Row]) -> None:
    place = images(opened(address))
    place.get_by_role("button", name="Score").click()
    header = place.get_by_role("columnheader", name="Score")
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert keys(place)[:8] == column(rows, "score_full")[:8]
    place.get_by_role("button", name="Score").press("Enter")
    expect(header).to_have_attribute("aria-sort", "descending")
    assert keys(place)[:8] == column(rows, "score_full", down=True)[:8]
    place.get_by_role("button", name="Smallest area").press("Space")
    expect(header).to_have_attribute("aria-sort", "none")
    assert keys(place)[:8] == column(rows, "smallest_area")[:8]
    place.get_by_role("table").press("End")
    place.get_by_text(column(rows, "smallest_area")[-1]).wait_for()


def test_chosen_by_verdict_class_and_text(opened: Callable[..., Page], address: str, rows: list[runs.Row]) -> None:
    place = images(opened(address))
    count = place.get_by_role("status")
    suspect = [row["key"] for row in rows if row["verdict"] == "suspect"]
    place.get_by_role("combobox", name="Verdict").select_option("suspect")
    expect(count).to_have_text(f"{len(suspect):,} of 10,000 images")
    assert keys(place)[:5] == suspect[:5]
    place.get_by_role("combobox", name="Verdict").select_option("All")
    name = rows[0]["target_name"]
    mine = [row["key"] for row in rows if row["target_name"] == name]
    place.get_by_role("combobox", name="Class").select_option(name)
    expect(count).to_have_text(f"{len(mine)} of 10,000 images")
    assert keys(place) == mine[: len(keys(place))]
    place.get_by_role("combobox", name="Class").select_option("All")
    place.get_by_role("searchbox", name="Search").fill("PICTURE-0123")
    expect(count).to_have_text("10 of 10,000 images")
    assert keys(place) == [row["key"] for row in rows[1230:1240]]
    expect(place.get_by_role("table")).to_have_attribute("aria-rowcount", "11")
    place.get_by_role("searchbox", name="Search").fill("readable, error 1")
    failed = sum((row["error"] or "").endswith("readable, error 1") for row in rows)
    expect(count).to_have_text(f"{failed:,} of 10,000 images")
    place.get_by_role("searchbox", name="Search").fill("no such thing")
    expect(count).to_have_text("0 of 10,000 images")
    assert keys(place) == []


def test_nobody_waits(opened: Callable[..., Page], address: str) -> None:
    place = images(opened(address))
    times: list[float] = place.evaluate(SORT)
    assert len(times) == 8
    assert max(times) < SORTED
    passed: dict[str, Any] = place.evaluate(SCROLL)
    assert passed["frame"] < FRAME
    assert passed["least"] >= 10, "there are rows in every frame"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["summary", "compare"])
def test_open_to_all(opened: Callable[..., Page], address: str, compared_address: str, kind: str, scheme: str) -> None:
    page = opened({"summary": address, "compare": compared_address}[kind], color_scheme=scheme)
    shot(page, f"{kind}-{scheme}")
    images(page)
    shot(page, f"{kind}-rows-{scheme}")
    assert grave(page) == []


@pytest.mark.parametrize("kind", ["summary", "compare"])
def test_on_a_phone(opened: Callable[..., Page], address: str, compared_address: str, kind: str) -> None:
    page = opened({"summary": address, "compare": compared_address}[kind], **PHONE)
    place = images(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    first = keys(place)[0]
    place.get_by_role("combobox", name="Sort by").select_option("Score, descending")
    assert keys(place)[0] != first
    shot(page, f"{kind}-phone")
    assert grave(page) == []


def test_two_runs_begin_with_what_moved_most(opened: Callable[..., Page], compared_address: str) -> None:
    place = images(opened(compared_address))
    expect(place.get_by_role("columnheader", name="IoU")).to_have_attribute("aria-sort", "ascending")
    told = place.locator(".body .row > [data-label=IoU] > span").all_inner_texts()
    assert told == sorted(told, key=float)
    assert place.locator(".body .row").first.locator("img").count() == 2
    verdict = place.locator(".body .row > [data-label=Verdict]").all_inner_texts()
    assert any(re.fullmatch(r"\w+ → \w+", one.strip()) for one in verdict)
