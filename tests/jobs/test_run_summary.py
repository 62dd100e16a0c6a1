"""Looking back at a run: numbers as pandas has them, a page that holds any label, and the command."""

import base64
import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extremal import jobs
from extremal.errors import ExtremalValueError
from extremal.jobs.rows import SCHEMA
from extremal.jobs.run_summary import COLUMNS, VERDICTS, image_summaries, quantiles, summarise
from extremal.report import run_page as report
from extremal.report import run_plots
from extremal.report.table_widget import ROWS_PER_CHUNK
from support import runs, synthetic
from support.pages import NASTY, Page, check_self_contained
from support.run_pages import read_data, draw
from support.terminal import call

QUARTILES = ("min", "q25", "median", "q75", "max")


def table(rows: list[runs.Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


@pytest.fixture(scope="module")
def rows() -> list[runs.Row]:
    return runs.make_rows(70)


@pytest.fixture(scope="module")
def found(rows: list[runs.Row]) -> jobs.Summary:
    return summarise(table(rows), runs.make_settings())


def naive(values: pd.Series) -> list[float | None]:
    """Quartiles by their definition: the least value that so many are not above."""
    ordered = sorted(values)
    ranks = [max(0, math.ceil(share * len(ordered)) - 1) for share in (0, 0.25, 0.5, 0.75, 1)]
    return [None if math.isinf(ordered[rank]) else ordered[rank] for rank in ranks]


class TestNumbers:
    def test_counts(self, rows: list[runs.Row], found: jobs.Summary) -> None:
        frame = pd.DataFrame(rows)
        words = frame["verdict"].fillna("failed")
        assert found.verdicts == {word: int((words == word).sum()) for word in VERDICTS}
        assert min(found.verdicts.values()) > 0, "there is something of every kind"
        assert (found.images, found.explained, found.planned) == (70, 60, 70)
        assert found.failures == tuple(frame["error"].value_counts(sort=False).items())
        assert found.evaluations == frame["evaluations"].sum()
        assert found.seconds == pytest.approx(frame["seconds"].sum())
        areas = frame["smallest_area"].value_counts()
        assert found.smallest_counts == tuple((area, areas.get(area, 0)) for area in synthetic.AREAS)

    def test_spreads(self, rows: list[runs.Row], found: jobs.Summary) -> None:
        done = pd.DataFrame([row for row in rows if row["status"] == "done"])
        areas = done["smallest_area"].fillna(math.inf)
        assert [getattr(found.areas, name) for name in QUARTILES] == naive(areas)
        assert found.areas.max is None, "an image for which no area is enough needs more than all"
        assert found.areas.count == 60
        unseen = done["unseen_effect"].dropna()
        assert [getattr(found.unseen, name) for name in QUARTILES] == naive(unseen)
        lost = (done["smallest_effect"] - done["unseen_effect"]).dropna()
        assert [getattr(found.loss, name) for name in QUARTILES] == naive(lost)

    def test_classes(self, rows: list[runs.Row], found: jobs.Summary) -> None:
        done = pd.DataFrame([row for row in rows if row["status"] == "done"])
        assert len(found.classes) == len(runs.CLASSES)
        assert [one.images for one in found.classes] == sorted(done["target"].value_counts(), reverse=True)
        for one in found.classes:
            mine = done[done["target"] == one.target]
            assert one.name == runs.CLASSES[one.target]
            assert one.images == len(mine)
            for word in ("sufficient", "suspect", "insufficient"):
                assert getattr(one, word) == (mine["verdict"] == word).sum()
            assert [getattr(one.areas, name) for name in QUARTILES] == naive(mine["smallest_area"].fillna(math.inf))

    def test_extremes_and_suspects(self, rows: list[runs.Row], found: jobs.Summary) -> None:
        known = pd.DataFrame([row for row in rows if row["smallest_area"] is not None])
        rising = known.sort_values(["smallest_area", "smallest_effect"], ascending=[True, False])
        assert [image.key for image in found.smallest] == rising["key"].tolist()[:8]
        assert [image.key for image in found.largest] == rising["key"].tolist()[::-1][:8]
        suspect = [row for row in rows if row["verdict"] == "suspect"]
        told = [row["reasons"][row["areas"].index(row["smallest_area"])] for row in suspect]
        assert [(image.key, image.reason) for image in found.suspects] == [
            (row["key"], reason) for row, reason in zip(suspect, told, strict=True)
        ]
        assert all("a random region of this size reaches" in reason for reason in told)

    def test_no_image_is_at_both_ends(self, rows: list[runs.Row]) -> None:
        few = [row for row in rows if row["smallest_area"] is not None][:5]
        found = summarise(table(few), runs.make_settings())
        assert (len(found.smallest), len(found.largest)) == (3, 2)
        assert not {image.key for image in found.smallest} & {image.key for image in found.largest}

    def test_reasons_are_of_the_area_that_decides(self, rows: list[runs.Row]) -> None:
        for row, image in zip(rows, image_summaries(rows), strict=True):
            if row["verdict"] == "insufficient":
                assert image.reason == row["reasons"][-1]
            if row["status"] == "failed":
                assert (image.reason, image.target, image.area) == (row["error"], None, None)

    def test_what_bisection_found_counts(self) -> None:
        row = runs.make_row(runs.make_explanation(effect_factor=2.0), "a", certified_area=0.031, certified_effect=0.91)
        assert row["smallest_area"] == 0.05
        found = summarise(table([row]), runs.make_settings())
        assert (found.areas.median, found.smallest[0].effect) == (0.031, 0.91)
        assert found.loss.median == row["smallest_effect"] - row["unseen_effect"]
        assert found.smallest_counts[1] == (0.05, 1)

    def test_other_answers_are_left_out_and_counted(self, rows: list[runs.Row], found: jobs.Summary) -> None:
        others = [{**rows[0], "alternative": 1}, {**rows[1], "alternative": 2}]
        again = summarise(table([*rows, *others]), runs.make_settings())
        assert again.alternative_rows == 2
        more = sum(row["evaluations"] for row in others)
        assert again == dataclasses.replace(
            found, alternative_rows=2, evaluations=found.evaluations + more, seconds=again.seconds
        )
        assert again.seconds == pytest.approx(found.seconds + 1.0)

    def test_unseen_perturbations_that_tell_nothing_are_counted(self) -> None:
        row = runs.make_row(runs.make_explanation(effect_factor=2.0), "a")
        found = summarise(table([row, {**row, "key": "b", "unseen_effect": None}]), runs.make_settings())
        assert (found.untested, found.unseen.count, found.loss.count) == (1, 1, 1)

    def test_spread_leaves_out_what_is_not_finite(self) -> None:
        assert dataclasses.astuple(quantiles([-math.inf, math.nan, 0.5, None])) == (1, *(0.5,) * 5)
        assert dataclasses.astuple(quantiles([])) == (0, *(None,) * 5)


class TestFolder:
    def test_a_run_that_is_not_done_is_told(self, tmp_path: Path, rows: list[runs.Row], found: jobs.Summary) -> None:
        folder = runs.write_run(tmp_path / "run", rows, planned=1100)
        assert jobs.summary(folder) == dataclasses.replace(found, planned=1100)
        assert report.caution(jobs.summary(folder)) == (
            "The run is not done: 1,030 of 1,100 images have no row yet. 10 of 70 images failed."
        )

    def test_large_columns_are_not_read(
        self, tmp_path: Path, rows: list[runs.Row], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, known, read = runs.write_run(tmp_path / "run", rows), pq.read_table, set[str]()

        def watched(path: Any, **options: Any) -> Any:
            read.update(options["schema"].names)
            return known(path, **options)

        monkeypatch.setattr(pq, "read_table", watched)
        jobs.summary(folder)
        assert read == set(COLUMNS)
        assert not read & {"fields", "thumbnail", "trace_reward"}

    def test_it_must_be_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(ExtremalValueError) as raised:
            jobs.summary(tmp_path)
        assert str(raised.value) == (
            f"a run must have a manifest, {str(tmp_path / 'manifest.json')!r} is none; "
            "name the folder of a run"
        )
        other = runs.write_run(tmp_path / "bench", [], {"task": "pointing"})
        with pytest.raises(ExtremalValueError) as raised:
            jobs.summary(other)
        assert str(raised.value) == (
            f"a run must be one of `extremal run`, {str(other)!r} is not; name the folder of such a run"
        )


def page(rows: list[runs.Row], **options: Any) -> tuple[str, Page]:
    """The page of a run with these rows."""
    thumbnails = {row["key"]: row["thumbnail"] for row in rows}
    found = summarise(table(rows), runs.make_settings())
    text = report.render(found, image_summaries(rows), thumbnails, **options)
    return text, Page(text)


class TestPage:
    def test_nothing_is_loaded_from_elsewhere(self, rows: list[runs.Row]) -> None:
        check_self_contained(*page(rows))

    def test_labels_may_hold_anything(self, rows: list[runs.Row]) -> None:
        _, clean = page(rows[:7])
        names = {"target_name": NASTY, "error": NASTY, "reasons": [NASTY] * 5}
        dirty_rows = [{**row, **{name: names[name] for name in names if row[name]}} for row in rows[:7]]
        dirty_rows[0]["key"] = NASTY
        _, dirty = page(dirty_rows, title=NASTY)
        assert [tag for tag, _ in dirty.elements] == [tag for tag, _ in clean.elements]
        assert NASTY in dirty.words
        columns = read_data(dirty, "images-data")["columns"]
        assert columns[0]["values"][0] == NASTY
        assert columns[1]["values"][1] == NASTY

    def test_rows_are_the_images(self, rows: list[runs.Row]) -> None:
        _, result = page(rows)
        told = read_data(result, "images-data")
        columns = {column["label"]: column for column in told["columns"]}
        assert told["count"] == 70
        assert columns["Image"]["values"] == [row["key"] for row in rows]
        assert columns["Smallest area"]["values"] == [row["smallest_area"] for row in rows]
        assert columns["Unseen"]["values"] == [row["unseen_effect"] for row in rows]
        assert columns["Score"]["values"] == [row["score_full"] for row in rows]
        assert columns["Verdict"]["shown"] == [row["verdict"] or "failed" for row in rows]
        shown = dict(zip(columns["Smallest area"]["values"], columns["Smallest area"]["shown"], strict=True))
        assert shown[0.025] == "2.5\xa0%"
        assert shown[None] == "–"

    def test_thumbnails_are_those_of_the_rows(self, rows: list[runs.Row]) -> None:
        _, result = page(rows)
        parts = [read_data(result, f"images-pictures-{part}") for part in range(math.ceil(70 / ROWS_PER_CHUNK))]
        pictures = [base64.b64decode(one) for part in parts for (one,) in part]
        assert pictures == [row["thumbnail"] or b"" for row in rows]

    def test_what_it_comes_to_stands_on_top(self, rows: list[runs.Row], found: jobs.Summary) -> None:
        _, result = page(rows)
        words = result.words.replace("\xa0", " ")
        count = found.verdicts["sufficient"]
        assert (
            f"{count} of 60 explained images ({100 * count / 60:.0f} %) have a sufficient region; half of the" in words
        )
        assert "10 of 70 images failed." in words
        assert f"{found.suspects[0].reason}" in words
        assert "an image must be readable, error 0" in words
        assert f"{found.evaluations:,} evaluations of the network" in words

    def test_scores_that_are_not_finite_have_no_place_in_the_order(self, rows: list[runs.Row]) -> None:
        _, result = page([{**rows[0], "score_full": math.nan, "unseen_effect": -math.inf}])
        columns = {column["label"]: column for column in read_data(result, "images-data")["columns"]}
        assert columns["Score"]["values"] == [None]
        assert columns["Unseen"] | {"shown": ["not finite"], "values": [None]} == columns["Unseen"]

    @pytest.mark.parametrize("kept", ["nothing", "failed", "insufficient"])
    def test_runs_without_an_answer(self, rows: list[runs.Row], kept: str) -> None:
        chosen = [row for row in rows if (row["verdict"] or "failed") == kept]
        _, result = page(chosen)
        words = result.words
        told = {
            "nothing": "No image was explained.",
            "failed": "No image was explained.",
            "insufficient": "for half of the images none of the computed areas is enough.",
        }
        assert told[kept] in words
        found = summarise(table(chosen), runs.make_settings())
        draw(run_plots.summary_figure(found, image_summaries(chosen)))

    def test_the_figure_is_drawn(self, rows: list[runs.Row], found: jobs.Summary) -> None:
        axes = draw(run_plots.summary_figure(found, image_summaries(rows)))
        bars = [patch.get_width() for patch in axes[0].patches]
        assert bars == list(found.verdicts.values())
        heights = [patch.get_height() * 60 for patch in axes[1].patches]
        assert heights == pytest.approx([*(count for _, count in found.smallest_counts), found.verdicts["insufficient"]])
        points = sum(len(one.get_offsets()) for one in axes[2].collections)
        assert points == found.unseen.count


class TestCommand:
    def test_table_page_and_figure(self, tmp_path: Path, rows: list[runs.Row]) -> None:
        folder, out = runs.write_run(tmp_path / "run", rows), tmp_path / "out"
        before = sorted(folder.iterdir())
        code, told, _ = call("summary", str(folder), "--out", str(out), columns=160)
        assert code == 0
        assert sorted(folder.iterdir()) == before, "nothing is written into the run"
        assert sorted(path.name for path in (out / "run-summary").iterdir()) == ["summary.html", "summary.png"]
        assert told.endswith(f"written:\n  {out}/run-summary/summary.html\n  {out}/run-summary/summary.png\n")
        assert "failed: 5 images: an image must be readable, error 0\n" in told
        assert re.search(r"│ sufficient +│ +\d+ │ +\d+\s% │", told)
        assert re.search(r"│ smallest area │ +60 │", told)
        code, *_ = call("summary", str(folder), "--out", str(out), columns=160)
        assert code == 0, "a former result is replaced"

    def test_json_is_the_summary(self, tmp_path: Path, rows: list[runs.Row], found: jobs.Summary) -> None:
        folder = runs.write_run(tmp_path / "run", rows)
        code, told, _ = call("summary", str(folder), "--out", str(tmp_path / "out"), "--json", columns=160)
        values = json.loads(told)
        files = values.pop("files")
        assert code == 0
        assert values == json.loads(json.dumps(dataclasses.asdict(found)))
        assert Path(files["page"]).is_file()
        assert Path(files["figure"]).is_file()

    def test_nobody_s_folder_is_replaced(self, tmp_path: Path, rows: list[runs.Row]) -> None:
        folder, goal = runs.write_run(tmp_path / "run", rows[:3]), tmp_path / "out" / "run-summary"
        goal.mkdir(parents=True)
        (goal / "thesis.tex").touch()
        code, _, told = call("summary", str(folder), "--out", str(tmp_path / "out"), columns=160)
        assert code == 2
        assert told == (
            f"error: a result must be a new folder or replace a previous result, got {str(goal)!r} with 'thesis.tex' in "
            "it; choose another folder for the results\n"
        )
        assert [path.name for path in goal.iterdir()] == ["thesis.tex"]

    def test_what_is_no_run_is_told(self, tmp_path: Path) -> None:
        code, _, told = call("summary", str(tmp_path), "--out", str(tmp_path / "out"), columns=160)
        assert code == 2
        assert told == (
            f"error: a run must have a manifest, {str(tmp_path / 'manifest.json')!r} is none; "
            "name the folder of a run\n"
        )
        assert not (tmp_path / "out" / f"{tmp_path.name}-summary").exists()
