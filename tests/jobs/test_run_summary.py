"""Summary of a run: numbers recomputed with pandas, and what is read from the folder."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extremal import jobs
from extremal.jobs.row_checks import update_verdicts
from extremal.jobs.rows import SCHEMA
from extremal.jobs.run_summary import COLUMNS, VERDICTS, image_summaries, quantiles, summarise
from extremal.report import run_page as report
from support import runs, synthetic
from support.errors import message_of

QUARTILES = ("min", "q25", "median", "q75", "max")


@pytest.fixture(scope="module")
def rows() -> list[runs.Row]:
    return runs.make_rows(70)


@pytest.fixture(scope="module")
def summary(rows: list[runs.Row]) -> jobs.Summary:
    return summarise(runs.make_table(rows), runs.make_settings())


def naive(values: pd.Series) -> list[float | None]:
    """Quartiles by their definition: the least value that so many are not above."""
    ordered = sorted(values)
    ranks = [max(0, math.ceil(share * len(ordered)) - 1) for share in (0, 0.25, 0.5, 0.75, 1)]
    return [None if math.isinf(ordered[rank]) else ordered[rank] for rank in ranks]


class TestNumbers:
    def test_counts(self, rows: list[runs.Row], summary: jobs.Summary) -> None:
        frame = pd.DataFrame(rows)
        words = frame["verdict"].fillna("failed")
        assert summary.verdicts == {word: int((words == word).sum()) for word in VERDICTS}
        assert min(summary.verdicts.values()) > 0, "there is something of every kind"
        assert (summary.images, summary.explained, summary.planned) == (70, 60, 70)
        assert summary.failures == tuple(frame["error"].value_counts(sort=False).items())
        assert summary.evaluations == frame["evaluations"].sum()
        assert summary.seconds == pytest.approx(frame["seconds"].sum())
        areas = frame["smallest_area"].value_counts()
        assert summary.smallest_counts == tuple((area, areas.get(area, 0)) for area in synthetic.AREAS)

    def test_spreads(self, rows: list[runs.Row], summary: jobs.Summary) -> None:
        done = pd.DataFrame([row for row in rows if row["status"] == "done"])
        areas = done["smallest_area"].fillna(math.inf)
        assert [getattr(summary.areas, name) for name in QUARTILES] == naive(areas)
        assert summary.areas.max is None, "an image for which no area is enough needs more than all"
        assert summary.areas.count == 60
        unseen = done["unseen_effect"].dropna()
        assert [getattr(summary.unseen, name) for name in QUARTILES] == naive(unseen)
        lost = (done["smallest_effect"] - done["unseen_effect"]).dropna()
        assert [getattr(summary.loss, name) for name in QUARTILES] == naive(lost)

    def test_classes(self, rows: list[runs.Row], summary: jobs.Summary) -> None:
        done = pd.DataFrame([row for row in rows if row["status"] == "done"])
        assert len(summary.classes) == len(runs.CLASSES)
        assert [group.images for group in summary.classes] == sorted(done["target"].value_counts(), reverse=True)
        for group in summary.classes:
            rows_of_class = done[done["target"] == group.target]
            assert group.name == runs.CLASSES[group.target]
            assert group.images == len(rows_of_class)
            for word in ("sufficient", "suspect", "insufficient"):
                assert getattr(group, word) == (rows_of_class["verdict"] == word).sum()
            assert [getattr(group.areas, name) for name in QUARTILES] == naive(
                rows_of_class["smallest_area"].fillna(math.inf)
            )

    def test_extremes_and_suspects(self, rows: list[runs.Row], summary: jobs.Summary) -> None:
        known = pd.DataFrame([row for row in rows if row["smallest_area"] is not None])
        rising = known.sort_values(["smallest_area", "smallest_effect"], ascending=[True, False])
        assert [image.key for image in summary.smallest] == rising["key"].tolist()[:8]
        assert [image.key for image in summary.largest] == rising["key"].tolist()[::-1][:8]
        suspect = [row for row in rows if row["verdict"] == "suspect"]
        reasons = [row["reasons"][row["areas"].index(row["smallest_area"])] for row in suspect]
        assert [(image.key, image.reason) for image in summary.suspects] == [
            (row["key"], reason) for row, reason in zip(suspect, reasons, strict=True)
        ]

    def test_no_image_is_at_both_ends(self, rows: list[runs.Row]) -> None:
        few = [row for row in rows if row["smallest_area"] is not None][:5]
        summary = summarise(runs.make_table(few), runs.make_settings())
        assert (len(summary.smallest), len(summary.largest)) == (3, 2)
        assert not {image.key for image in summary.smallest} & {image.key for image in summary.largest}

    def test_reasons_are_of_the_area_that_decides(self, rows: list[runs.Row]) -> None:
        for row, image in zip(rows, image_summaries(rows), strict=True):
            if row["verdict"] == "insufficient":
                assert image.reason == row["reasons"][-1]
            if row["status"] == "failed":
                assert (image.reason, image.target, image.area) == (row["error"], None, None)

    def test_what_bisection_found_counts(self) -> None:
        row = runs.make_row(runs.make_explanation(effect_factor=2.0), "a", certified_area=0.031, certified_effect=0.91)
        assert row["smallest_area"] == 0.05
        summary = summarise(runs.make_table([row]), runs.make_settings())
        assert (summary.areas.median, summary.smallest[0].effect) == (0.031, 0.91)
        assert summary.loss.median == row["smallest_effect"] - row["unseen_effect"]
        assert summary.smallest_counts[1] == (0.05, 1)

    def test_other_answers_are_left_out_and_counted(self, rows: list[runs.Row], summary: jobs.Summary) -> None:
        others = [{**rows[0], "alternative": 1}, {**rows[1], "alternative": 2}]
        again = summarise(runs.make_table([*rows, *others]), runs.make_settings())
        assert again.alternative_rows == 2
        more = sum(row["evaluations"] for row in others)
        assert again == dataclasses.replace(
            summary, alternative_rows=2, evaluations=summary.evaluations + more, seconds=again.seconds
        )
        assert again.seconds == pytest.approx(summary.seconds + 1.0)

    def test_unseen_perturbations_that_tell_nothing_are_counted(self) -> None:
        row = runs.make_row(runs.make_explanation(effect_factor=2.0), "a")
        summary = summarise(runs.make_table([row, {**row, "key": "b", "unseen_effect": None}]), runs.make_settings())
        assert (summary.untested, summary.unseen.count, summary.loss.count) == (1, 1, 1)

    def test_spread_leaves_out_what_is_not_finite(self) -> None:
        assert dataclasses.astuple(quantiles([-math.inf, math.nan, 0.5, None])) == (1, *(0.5,) * 5)
        assert dataclasses.astuple(quantiles([])) == (0, *(None,) * 5)


class TestFolder:
    def test_a_run_that_is_not_done_is_told(self, tmp_path: Path, rows: list[runs.Row], summary: jobs.Summary) -> None:
        folder = runs.write_run(tmp_path / "run", rows, planned=1100)
        assert jobs.summary(folder) == dataclasses.replace(summary, planned=1100)
        assert report.caution(jobs.summary(folder)) == (
            "The run is not finished: 1,030 of 1,100 images have no row yet. 10 of 70 images failed."
        )

    def test_large_columns_are_not_read(
        self, tmp_path: Path, rows: list[runs.Row], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, known, read = runs.write_run(tmp_path / "run", rows), pq.ParquetFile.read, set[str]()

        def watched(file: Any, columns: list[str], **options: Any) -> Any:
            read.update(columns)
            return known(file, columns, **options)

        monkeypatch.setattr(pq.ParquetFile, "read", watched)
        jobs.summary(folder)
        assert read == set(COLUMNS)
        assert not read & {"fields", "thumbnail", "trace_reward"}

    def test_it_must_be_a_run(self, tmp_path: Path) -> None:
        assert message_of(jobs.summary, tmp_path) == (
            f"a run must have a manifest, {str(tmp_path / 'manifest.json')!r} is none; name the folder of a run"
        )
        bench = runs.write_run(tmp_path / "bench", [], {"task": "pointing"})
        assert message_of(jobs.summary, bench) == (
            f"a run must be one of `extremal run`, {str(bench)!r} is not; name the folder of such a run"
        )


def test_the_former_word_for_chance_is_read() -> None:
    schema = pa.schema([SCHEMA.field(name) for name in ("verdict", "verdicts")])
    former = pa.Table.from_pylist(
        [
            {"verdict": "unspecific", "verdicts": ["insufficient", "unspecific"]},
            {"verdict": "suspect", "verdicts": None},
        ],
        schema,
    )
    read = update_verdicts(former)
    assert read["verdict"].to_pylist() == ["chance is enough", "suspect"]
    assert read["verdicts"].to_pylist() == [["insufficient", "chance is enough"], None]
    assert read.schema == schema
    assert update_verdicts(read) is read
