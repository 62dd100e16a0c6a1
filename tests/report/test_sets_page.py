"""The report of several regions: every number of its parts, safe against any label, nothing from elsewhere."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from extremal import Contrast, RegionSets
from extremal.report.sets_page import headline, list_parts, render, sets_record, write_sets
from extremal.report.text import RANDOM_WEIGHTS
from support import synthetic
from support.pages import NASTY, Page, check_self_contained


def region_sets(**options: object) -> RegionSets:
    kept, lost = synthetic.explanation(**options), synthetic.explanation(keeps=False, **options)  # type: ignore[arg-type]
    return RegionSets(kept, lost, kept, lost)


def class_contrast(first: str = "cat", second: str = "dog", **options: object) -> Contrast:
    kept, lost = synthetic.explanation(**options), synthetic.explanation(keeps=False, **options)  # type: ignore[arg-type]
    answers = ((first, first), (first, first), (first, second), (second, first), (second, second))
    return Contrast(lost, kept, kept, (first, second), ("fade", "unseen black"), 1, answers)


@pytest.mark.parametrize("pictures", [True, False])
@pytest.mark.parametrize("make", [region_sets, class_contrast])
def test_the_page_is_self_contained(make: type, pictures: bool) -> None:
    result = make(pictures=pictures)
    source = render(result, source="cat.png")
    page = Page(source)
    check_self_contained(source, page)
    found = [part for part in list_parts(result) if part.found]
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == (1 + len(found) if pictures else 0)
    assert all(attributes["alt"] for attributes in images)
    assert len([tag for tag, _ in page.elements if tag == "table"]) == 4


def test_all_parts_are_told() -> None:
    sets = region_sets()
    words = Page(render(sets)).words
    assert headline(sets) in words
    for part in list_parts(sets):
        assert part.heading in words
        assert part.sentence in words
        for row in (row for table in part.tables for row in table.rows):
            assert f"{row.verdict.label}: {row.reason}" in words


def test_the_verdicts_of_a_contrast_are_on_the_share_that_turns_it() -> None:
    result = class_contrast()
    lower = replace(result, loss=replace(result.loss, score_blank=result.loss.score_full - 2 * result.loss.score_full))
    assert lower.share == pytest.approx(0.5)
    (table,) = list_parts(lower)[0].tables
    assert [row.verdict for row in table.rows] == list(lower.loss.verdicts(0, lower.share))
    assert sets_record("cat.png", lower, {})["verdicts"]["loss"] == [asdict(row.verdict) for row in table.rows]
    assert [part.tables[0].keeps for part in list_parts(lower)] == [False, True, True]
    assert [table.keeps for table in list_parts(region_sets())[2].tables] == [True, False]


def test_the_answers_without_a_region_decide() -> None:
    result = class_contrast()
    assert result.share == pytest.approx(1.0)
    turning = result.turning()
    assert turning
    assert turning.region.area == 0.4  # the only one that is enough and turns the answer under the run's perturbation
    assert headline(result).startswith("Without 40\xa0% of the image, cat becomes dog; ")
    never = class_contrast(second="fox")
    assert "of 2 perturbations" in list_parts(never)[0].sentence
    same = Contrast(result.loss, result.first, result.second, ("cat", "bird"), result.ways, 1, result.answers)
    assert same.turning() is None
    assert headline(same).startswith("No computed region turns cat into bird by its loss; ")
    assert list_parts(same)[0].sentence == "None of the computed areas up to 40\xa0% of the image is enough."


def test_labels_may_contain_anything() -> None:
    source = render(class_contrast(NASTY, "dog"), source=NASTY)
    check_self_contained(source, Page(source))
    assert "alert(1)" not in "".join(text for tag, _, text in Page(source).raw if tag == "script")


def test_files_and_records(tmp_path: Path) -> None:
    for result in (region_sets(), class_contrast()):
        folder = tmp_path / type(result).__name__
        files = write_sets(result, folder, "cat.png")
        found = {part.kind for part in list_parts(result) if part.found}
        assert set(files["masks"]) == found
        assert all(Path(path).is_file() for path in (files["explanation"], files["report"], *files["masks"].values()))
        record = json.loads(json.dumps(sets_record("cat.png", result, files), allow_nan=False))
        assert record["headline"] == headline(result)
        assert {kind for kind, region in record["regions"].items() if region} == found
        assert type(result).load(files["explanation"]) == result
        write_sets(result, folder, "cat.png")  # a previous result is replaced


@pytest.mark.parametrize("make", [region_sets, class_contrast])
def test_random_weights_are_named(make: type) -> None:
    result = make()
    assert RANDOM_WEIGHTS not in Page(render(result)).words
    first = result.parts[0]
    part = getattr(result, first)
    untrained = replace(result, **{first: replace(part, settings={**part.settings, "random_weights": True})})
    words = Page(render(untrained)).words
    assert RANDOM_WEIGHTS in words
    assert "(random weights)" in words
