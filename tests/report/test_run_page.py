"""The page and the figure of a run: every number and image of the rows, and safety against any label."""

import base64
import math
from typing import Any

import pytest

from extremal import jobs
from extremal.jobs.run_summary import image_summaries, summarise
from extremal.report import run_page
from extremal.report.run_plots import summary_figure
from extremal.report.table_widget import ROWS_PER_CHUNK
from support import runs
from support.pages import NASTY, Page, check_self_contained
from support.run_pages import draw, read_data


def summarise_rows(rows: list[runs.Row]) -> jobs.Summary:
    return summarise(runs.make_table(rows), runs.make_settings())


def render(rows: list[runs.Row], **options: Any) -> tuple[str, Page]:
    """The page of a run with these rows."""
    thumbnails = {row["key"]: row["thumbnail"] for row in rows}
    text = run_page.render(summarise_rows(rows), image_summaries(rows), thumbnails, **options)
    return text, Page(text)


@pytest.fixture(scope="module")
def rows() -> list[runs.Row]:
    return runs.make_rows(70)


@pytest.fixture(scope="module")
def summary(rows: list[runs.Row]) -> jobs.Summary:
    return summarise_rows(rows)


def test_nothing_is_loaded_from_elsewhere(rows: list[runs.Row]) -> None:
    check_self_contained(*render(rows))


def test_labels_may_contain_anything(rows: list[runs.Row]) -> None:
    _, clean = render(rows[:7])
    names = {"target_name": NASTY, "error": NASTY, "reasons": [NASTY] * 5}
    dirty_rows = [{**row, **{name: names[name] for name in names if row[name]}} for row in rows[:7]]
    dirty_rows[0]["key"] = NASTY
    _, dirty = render(dirty_rows, title=NASTY)
    assert [tag for tag, _ in dirty.elements] == [tag for tag, _ in clean.elements]
    assert NASTY in dirty.words
    columns = read_data(dirty, "images-data")["columns"]
    assert columns[0]["values"][0] == NASTY
    assert columns[1]["values"][1] == NASTY


def test_rows_are_the_images(rows: list[runs.Row]) -> None:
    _, page = render(rows)
    data = read_data(page, "images-data")
    columns = {column["label"]: column for column in data["columns"]}
    assert data["count"] == 70
    assert columns["Image"]["values"] == [row["key"] for row in rows]
    assert columns["Smallest area"]["values"] == [row["smallest_area"] for row in rows]
    assert columns["Unseen"]["values"] == [row["unseen_effect"] for row in rows]
    assert columns["Score"]["values"] == [row["score_full"] for row in rows]
    assert columns["Verdict"]["shown"] == [row["verdict"] or "failed" for row in rows]
    shown = dict(zip(columns["Smallest area"]["values"], columns["Smallest area"]["shown"], strict=True))
    assert shown[0.025] == "2.5\xa0%"
    assert shown[None] == "–"


def test_quartiles_of_a_class_are_those_of_the_summary(rows: list[runs.Row], summary: jobs.Summary) -> None:
    _, page = render(rows)
    columns = {column["label"]: column for column in read_data(page, "classes-data")["columns"]}
    for label, name in (("Lower quartile", "q25"), ("Median area", "median"), ("Upper quartile", "q75")):
        areas = [getattr(entry.areas, name) for entry in summary.classes]
        assert columns[label]["values"] == [2.0 if area is None else area for area in areas]
        assert columns[label]["shown"] == ["over\xa040\xa0%" if a is None else f"{100 * a:.3g}\xa0%" for a in areas]


def test_thumbnails_are_those_of_the_rows(rows: list[runs.Row]) -> None:
    _, page = render(rows)
    chunks = [read_data(page, f"images-pictures-{chunk}") for chunk in range(math.ceil(70 / ROWS_PER_CHUNK))]
    pictures = [base64.b64decode(picture) for chunk in chunks for (picture,) in chunk]
    assert pictures == [row["thumbnail"] or b"" for row in rows]


def test_the_summary_is_at_the_top(rows: list[runs.Row], summary: jobs.Summary) -> None:
    _, page = render(rows)
    words = page.words.replace("\xa0", " ")
    count = summary.verdicts["sufficient"]
    assert f"{count} of 60 explained images ({100 * count / 60:.0f} %) have a sufficient region; half of the" in words
    assert "10 of 70 images failed." in words
    assert f"{summary.suspects[0].reason}" in words
    assert "an image must be readable, error 0" in words
    assert f"{summary.evaluations:,} evaluations of the network" in words


def test_scores_that_are_not_finite_are_sorted_last(rows: list[runs.Row]) -> None:
    _, page = render([{**rows[0], "score_full": math.nan, "unseen_effect": -math.inf}])
    columns = {column["label"]: column for column in read_data(page, "images-data")["columns"]}
    assert columns["Score"]["values"] == [None]
    assert columns["Unseen"] | {"shown": ["not finite"], "values": [None]} == columns["Unseen"]


@pytest.mark.parametrize("verdict", ["nothing", "failed", "insufficient"])
def test_runs_without_a_sufficient_region(rows: list[runs.Row], verdict: str) -> None:
    selection = [row for row in rows if (row["verdict"] or "failed") == verdict]
    _, page = render(selection)
    sentences = {
        "nothing": "No image was explained.",
        "failed": "No image was explained.",
        "insufficient": "for half of the images none of the computed areas is enough.",
    }
    assert sentences[verdict] in page.words
    draw(summary_figure(summarise_rows(selection), image_summaries(selection)))


def test_the_figure_shows_the_numbers(rows: list[runs.Row], summary: jobs.Summary) -> None:
    axes = draw(summary_figure(summary, image_summaries(rows)))
    bars = [patch.get_width() for patch in axes[0].patches]
    assert bars == list(summary.verdicts.values())
    heights = [patch.get_height() * 60 for patch in axes[1].patches]
    counts = [*(count for _, count in summary.smallest_counts), summary.verdicts["insufficient"]]
    assert heights == pytest.approx(counts)
    points = sum(len(collection.get_offsets()) for collection in axes[2].collections)
    assert points == summary.unseen.count
