"""The page and the figure of two runs: every pair with both images, and safety against any label."""

import dataclasses
import re
from pathlib import Path

import pytest

from extremal import jobs
from extremal.report import comparison_page
from extremal.report.run_plots import comparison_figure
from support import run_pairs, runs
from support.pages import NASTY, Page, check_self_contained
from support.run_pages import draw, read_data


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return run_pairs.write_run_pair(tmp_path_factory.mktemp("runs"), run_pairs.make_explanation_pairs())


@pytest.fixture(scope="module")
def comparison(folders: list[Path]) -> jobs.Comparison:
    return jobs.compare(*folders)


def render(comparison: jobs.Comparison, folders: list[Path]) -> tuple[str, Page]:
    thumbnails = [
        dict(zip(*(jobs.table(folder)[name].to_pylist() for name in ("key", "thumbnail")), strict=True))
        for folder in folders
    ]
    text = comparison_page.render(comparison, *thumbnails)
    return text, Page(text)


def test_nothing_is_loaded_from_elsewhere(comparison: jobs.Comparison, folders: list[Path]) -> None:
    check_self_contained(*render(comparison, folders))


def test_rows_are_the_pairs_with_both_images(comparison: jobs.Comparison, folders: list[Path]) -> None:
    _, page = render(comparison, folders)
    data = read_data(page, "images-data")
    columns = {column["label"]: column for column in data["columns"]}
    assert columns["IoU"]["values"] == [pair.mean for pair in comparison.pairs]
    assert columns["Image"]["values"] == [pair.first.key for pair in comparison.pairs]
    assert data["sort"] == {"column": list(columns).index("IoU"), "down": False}
    changes = [pair for pair in comparison.pairs if pair.first.verdict != pair.second.verdict]
    assert changes
    shown = dict(zip(columns["Image"]["values"], columns["Verdict"]["values"], strict=True))
    assert shown[changes[0].first.key] == f"{changes[0].first.verdict} → {changes[0].second.verdict}"
    pictures = read_data(page, "images-pictures-0")
    assert len(pictures) == len(comparison.pairs)
    assert {len(both) for both in pictures} == {2}
    assert pictures[0][0] != pictures[0][1]


def test_sentences(comparison: jobs.Comparison, folders: list[Path]) -> None:
    words = render(comparison, folders)[1].words.replace("\xa0", " ")
    fraction = f"{100 * comparison.moved / 11:.0f} %"
    assert f"{comparison.moved} of 11 explanations moved ({fraction}); the median of the mean IoU is" in words
    assert "1 image failed in at least one of the runs; 2 images in one run only." in words
    assert "Only in the second run: 1 only after" in re.sub(r"\s+", " ", words)
    assert "0.05 at 10 %, 0.11 at 20 %, 0.25 at 40 %" in words, "IoU of random masks: a / (2 − a)"
    assert "1" * 64 in words


def test_settings_that_differ_are_described(comparison: jobs.Comparison, folders: list[Path]) -> None:
    first, second = comparison.settings
    explain = {**first["explain"], "network": "embedded", "score": "margin", "seed": 0}
    runs_settings = ({**first, "explain": explain}, {**second, "explain": {**explain, "network": "resnet", "seed": 7}})
    _, page = render(dataclasses.replace(comparison, settings=runs_settings), folders)
    words = page.words
    assert "Networkembeddedresnet" in words
    assert "Random seed07" in words
    assert words.count("how far the class is ahead") == 1, "equal ones are listed once"


def test_labels_may_contain_anything(comparison: jobs.Comparison, folders: list[Path]) -> None:
    _, clean = render(comparison, folders)
    image = dataclasses.replace(comparison.pairs[0].first, key=NASTY, name=NASTY)
    dirty_pairs = (dataclasses.replace(comparison.pairs[0], first=image, mean=0.0), *comparison.pairs[1:])
    classes = (dataclasses.replace(comparison.classes[0], name=NASTY), *comparison.classes[1:])
    differences = (("weights", NASTY, "1"), ("seed", "0", NASTY))
    changes = {"pairs": dirty_pairs, "classes": classes, "differences": differences}
    changed = dataclasses.replace(comparison, first=NASTY, only_first=(NASTY,), **changes)
    _, dirty = render(changed, folders)
    missing = [tag for tag, _ in clean.elements].count("img") - [tag for tag, _ in dirty.elements].count("img")
    assert missing == 2, "there are no thumbnails for that key"
    assert [tag for tag, _ in dirty.elements if tag != "img"] == [tag for tag, _ in clean.elements if tag != "img"]
    assert NASTY in dirty.words


def test_runs_without_an_image_explained_in_both(tmp_path: Path) -> None:
    row = runs.make_row(runs.make_explanation(), "a")
    folders = [
        runs.write_run(tmp_path / "first", [row]),
        runs.write_run(tmp_path / "second", [{**row, "status": "failed", "error": "it broke"}]),
    ]
    comparison = jobs.compare(*folders)
    assert "No image was explained in both runs." in render(comparison, folders)[1].words
    draw(comparison_figure(comparison))


def test_the_figure_shows_the_numbers(comparison: jobs.Comparison) -> None:
    axes = draw(comparison_figure(comparison))
    assert [patch.get_width() for patch in axes[2].patches] == [count for *_, count in comparison.verdicts]
    legend = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert legend == ["2.5 %", "5 %", "10 %", "20 %", "40 %"]
