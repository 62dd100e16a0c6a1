"""Columns of rows, as pandas and DuckDB read them, and the size of a row."""

import hashlib
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from skimage import data

import extremal
from extremal import explain
from extremal.files import content_hash
from extremal.jobs.restore import rebuild
from extremal.jobs.rows import SCHEMA, build_failed_row, build_row
from extremal.jobs.store import open_store
from extremal.masking.solvers import Path as PathSolver
from support.errors import message_of
from support.made_explanations import explanation as make_explanation
from support.restored import assert_exact, make_network, write_and_read, write_images
from support.runs import run_settings

AREAS = (0.1, 0.3)
TINY = PathSolver(steps=4, polish=3, rounds=2, draws=1, search=2)
COUNTS = {"gradients": 7, "forwards": 8, "evidence_gradients": 0, "evidence_forwards": 5}


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return write_images(tmp_path)


class TestColumns:
    def make_row(self, **changes: object) -> dict[str, Any]:
        settings = {"seed": 3, "mirror": False, "evaluations": COUNTS}
        return build_row(
            make_explanation(settings=settings, **changes), 0, key="7/cat", path="cat.png", digest="ab", seconds=2.5
        )

    def test_are_read_with_pandas_alone(self, tmp_path) -> None:
        with open_store(tmp_path, {"seed": 3}, SCHEMA) as store:
            store.write("a", [self.make_row()])
            store.write("b", [build_failed_row("8/dog", "dog.png", "cd", "an image must be a file", 0.25)])
        table = pd.read_parquet(tmp_path / "parts")
        assert list(table.columns) == SCHEMA.names
        cat, dog = table.iloc[0], table.iloc[1]
        assert cat[["key", "path", "content_hash", "status", "seconds"]].tolist() == [
            "7/cat",
            "cat.png",
            "ab",
            "done",
            2.5,
        ]
        assert (cat.target, cat.target_name) == (3, "tabby, tabby cat")
        assert (cat.score_full, cat.score_blank) == (10.0, 2.0)
        assert cat.areas.tolist() == [0.25, 0.5]
        assert cat.binary_scores.tolist() == pytest.approx([4.0, 9.6])
        assert [line.tolist() for line in cat.unseen_scores] == [[3.0, 5.0, 4.0], [9.0, 10.0, 4.0]]
        assert cat.unseen_names.tolist() == ["fade", "constant", "noise"]
        assert [line.tolist() for line in cat.control_scores] == [
            pytest.approx([2.0, 3.2, 2.8]),
            pytest.approx([3.6, 2.0, 1.2]),
        ]
        assert cat.verdicts.tolist() == ["insufficient", "sufficient"]
        assert cat.verdict == "sufficient"
        assert cat.statuses.tolist() == ["converged", "stuck"]
        assert (cat.evaluations, cat.counts) == (20, COUNTS)
        assert dog[["key", "status", "error", "seconds"]].tolist() == [
            "8/dog",
            "failed",
            "an image must be a file",
            0.25,
        ]
        assert dog.drop(["key", "path", "content_hash", "status", "error", "seconds"]).isna().all()

    def test_names_that_are_no_utf_8_are_written_out(self, tmp_path) -> None:
        row = self.make_row(target_names=("caf\udce9",))
        with open_store(tmp_path, {}, SCHEMA) as store:
            store.write("a", [row, build_failed_row("8/dog", "dog.png", "cd", "no caf\udce9", 0.25)])
            assert store.read_all()["target_name"].to_pylist() == ["caf\\udce9", None]
            assert store.read_all()["error"].to_pylist() == [None, "no caf\\udce9"]

    def test_the_smallest_area_that_is_enough(self) -> None:
        row = self.make_row()
        assert (row["verdict"], row["smallest_area"]) == ("sufficient", 0.5)
        assert row["smallest_effect"] == pytest.approx(0.95)  # (9.6 − 2) / 8
        assert row["unseen_effect"] == pytest.approx(0.875)  # the median of 7/8, 1 and 0
        assert row["reasons"][1] == "95 % of the effect, at best 20 % by chance"

    def test_one_that_chance_reaches(self) -> None:
        row = self.make_row(control_scores=torch.tensor([[[2.0], [9.9]]]))
        assert (row["verdict"], row["smallest_area"]) == ("chance is enough", 0.5)
        assert row["reasons"][1] == "a random region of this size reaches 99 % of the effect, this one 95 %"

    def test_none(self) -> None:
        row = self.make_row(binary_scores=torch.tensor([[4.0, 5.0]]))
        assert row["verdict"] == "insufficient"
        assert row["smallest_area"] is row["smallest_effect"] is row["unseen_effect"] is None

    def test_perturbations_that_tell_nothing_tell_null(self) -> None:
        assert self.make_row(unseen_blank=torch.full((1, 3), 10.0))["unseen_effect"] is None

    def test_what_all_rows_share(self) -> None:
        settings = {"seed": 3, "mirror": False, "evaluations": COUNTS}
        assert run_settings(make_explanation(settings=settings)) == {"seed": 3}

    def test_the_hash_is_of_the_bytes(self, tmp_path) -> None:
        (tmp_path / "a").write_bytes(b"picture")
        assert content_hash(tmp_path / "a") == hashlib.sha256(b"picture").hexdigest()

    def test_alternatives_make_rows_of_their_own(self) -> None:
        message = (
            "a row must hold one explanation, got one with 1 alternatives; build a row for each: "
            "dataclasses.replace(explanation, alternatives=()) and explanation.alternatives"
        )
        assert message_of(self.make_row, alternatives=(make_explanation(),)) == message


@pytest.mark.slow
def test_the_size_of_a_row_of_the_embedded_network(tmp_path) -> None:
    net, path = extremal.zoo.load("embedded"), str(tmp_path / "cat.png")
    Image.fromarray(data.chelsea()).save(path)
    explanation = explain(net, path, solver=PathSolver(steps=2, polish=1, rounds=1, draws=1, search=0))
    (row,) = write_and_read(explanation, [path], tmp_path)
    assert_exact(rebuild(row, net, settings=run_settings(explanation)), explanation)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(3, 104, generator=generator).tolist()  # as long as the default solver's trace
    traces = dict(zip(("trace_area", "trace_grey", "trace_reward"), noise, strict=True))
    noisy_parameters = torch.randn(5 * 32 * 32, generator=generator).tolist()  # parameters are no worse than noise
    sizes = []
    for folder, changes in (("traces", traces), ("noise", traces | {"parameters": noisy_parameters})):
        with open_store(tmp_path / folder, {}, SCHEMA) as store:
            store.write("a", [row | changes])
        sizes.append((tmp_path / folder / "parts" / "a.parquet").stat().st_size)
    assert sizes[0] <= 40_000  # including the metadata of the file
    assert sizes[0] <= sizes[1] + 200


def test_values_are_stored_exactly_and_read_without_this_library(paths, tmp_path) -> None:
    region = torch.zeros(24, 32, dtype=torch.bool)
    region[2:20, 3:30] = True
    explanation = explain(make_network(), paths[0], areas=AREAS, solver=TINY, within=region)
    write_and_read(explanation, paths[:1], tmp_path)
    part = str(tmp_path / "run" / "parts" / "a.parquet")
    columns = ("parameters", "trace_step", "trace_area", "trace_reward", "trace_grey", "within")
    expected = [
        explanation.fields[0],
        explanation.trace_step,
        *(getattr(explanation, name)[0] for name in columns[2:5]),
        region,
    ]
    by_duckdb = duckdb.sql(f"SELECT {', '.join(columns)} FROM '{part}'").fetchall()[0]
    by_pandas = pd.read_parquet(part).iloc[0]
    for name, value, tensor in zip(columns, by_duckdb, expected, strict=True):
        assert list(value) == tensor.flatten().tolist()
        assert by_pandas[name].tolist() == tensor.flatten().tolist()
    assert by_pandas.parameters_shape.tolist() == list(explanation.fields.shape[1:])
    assert by_pandas.input_shape.tolist() == [24, 32]


def test_units_are_stored_as_labels(paths, tmp_path) -> None:
    labels = torch.arange(24 * 32).view(24, 32) // 32 // 2 - 1
    explanation = explain(make_network(), paths[0], areas=AREAS, solver=TINY, units=labels)
    write_and_read(explanation, paths[:1], tmp_path)
    part = tmp_path / "run" / "parts" / "a.parquet"
    assert pq.read_table(part)["units"].to_pylist() == [labels.flatten().tolist()]
    assert pq.read_schema(part).equals(SCHEMA)


def test_numbers_are_encoded_by_their_type(paths, tmp_path) -> None:
    explanation = explain(make_network(), paths[0], areas=AREAS, solver=TINY)
    write_and_read(explanation, paths[:1], tmp_path)
    group = pq.ParquetFile(tmp_path / "run" / "parts" / "a.parquet").metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    encodings = {column.path_in_schema: column.encodings for column in columns}
    assert "BYTE_STREAM_SPLIT" in encodings["parameters.list.element"]
    assert "BYTE_STREAM_SPLIT" in encodings["smallest_effect"]
    assert "DELTA_BINARY_PACKED" in encodings["trace_step.list.element"]
    assert "RLE_DICTIONARY" in encodings["verdicts.list.element"]
    assert {column.compression for column in columns} == {"ZSTD"}
