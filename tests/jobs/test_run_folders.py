"""Run folders that are damaged or written by somebody else: one sentence, and nothing is written or called."""

import json
import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extremal import jobs
from extremal.errors import ExtremalError
from extremal.jobs.plan import PLAN_FILE, PLAN_SCHEMA
from extremal.jobs.runner import run
from support import runs
from support.datasets import comparable_rows, sound, write_images
from support.errors import message_of
from support.terminal import call

QUICK: dict[str, Any] = {"areas": (0.1, 0.2), "perturbation": "fade", "threads": 1}
KEY = "picture-00000.jpg"


@pytest.fixture(scope="module")
def rows() -> list[runs.Row]:
    return runs.make_rows(8)


@pytest.fixture
def folder(tmp_path: Path, rows: list[runs.Row]) -> Path:
    return runs.write_run(tmp_path / "run", rows)


def rewrite_part(folder: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    part = folder / "parts" / "00000000.parquet"
    pq.write_table(change(pq.read_table(part)), part)
    return part


def change_settings(folder: Path, *names: str, value: Any) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    inner = manifest["settings"]
    for name in names[:-1]:
        inner = inner[name]
    inner[names[-1]] = value
    path.write_text(json.dumps(manifest))


def refuse_everywhere(folder: Path, other: Path, out: Path) -> str:
    """Expect that all readers of tables refuse a folder with one sentence and write nothing; return it."""
    message = message_of(jobs.compare, folder, other)
    for arguments in (("compare", folder, other), ("compare", other, folder)):
        code, text, messages = call(*arguments, "--out", out, columns=200)
        assert (code, text, messages.count("\n")) == (2, "", 1)
        assert not out.exists()
    return message


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("key", None, "key of row 'None' in {folder} is missing"),
        ("status", "fine", "status of row {key} in {folder} is neither done nor failed"),
        ("verdict", "excellent", "verdict of row {key} in {folder} is not one of its words"),
        ("reasons", ["why"] * 4, "reasons of row {key} in {folder} is not of length 5"),
        ("areas", [0.025, 0.05, 0.1, 0.2, math.nan], "areas of row {key} in {folder} is not that of the run"),
        ("smallest_area", math.nan, "smallest_area of row {key} in {folder} is not finite"),
        ("smallest_area", 0.07, "smallest_area of row {key} in {folder} is not an area of the run"),
        ("smallest_effect", None, "smallest_effect of row {key} in {folder} is there without smallest_area, or the "),
        ("score_full", math.inf, "score_full of row {key} in {folder} is not finite"),
        ("target_name", None, "target_name of row {key} in {folder} is missing"),
        ("alternative", -1, "alternative of row {key} in {folder} is negative"),
        ("input_shape", [24, 0], "input_shape of row {key} in {folder} is not one to three sides"),
        ("input_shape", [2**31 - 1] * 3, "input_shape of row {key} in {folder} is not one to three sides"),
        ("parameters", [0.5], "parameters of row {key} in {folder} is not of its shape"),
        ("parameters", [math.nan] * 3840, "parameters of row {key} in {folder} is not finite"),
        ("parameters_shape", [5, 1, 768], "parameters of row {key} in {folder} is not of its shape"),
        ("mask_areas", [None] * 5, "mask_areas of row {key} in {folder} is missing in part"),
    ],
)
def test_rows_that_a_run_does_not_write_are_refused(
    tmp_path: Path, folder: Path, rows: list[runs.Row], column: str, value: Any, problem: str
) -> None:
    other = runs.write_run(tmp_path / "other", rows)
    changed = [{**rows[0], column: value}, *rows[1:]]
    rewrite_part(folder, lambda _: runs.make_table(changed))
    message = refuse_everywhere(folder, other, tmp_path / "out")
    expected = problem.format(key=repr(KEY), folder=repr(str(folder)))
    assert message.startswith(f"a row of a run must be complete, {expected}")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda table: table.drop_columns(["verdict"]), "has 0 columns 'verdict'"),
        (lambda table: table.append_column("key", table["key"]), "has 2 columns 'key'"),
        (
            lambda table: table.set_column(0, "key", pa.array(range(len(table)))),
            "has 'key' of type int64 instead of string",
        ),
    ],
)
def test_other_columns_are_refused(
    tmp_path: Path, folder: Path, rows: list[runs.Row], change: Callable[[pa.Table], pa.Table], problem: str
) -> None:
    other = runs.write_run(tmp_path / "other", rows)
    part = rewrite_part(folder, change)
    assert refuse_everywhere(folder, other, tmp_path / "out") == (
        f"a part of a run must have the columns of this version, {str(part)!r} {problem}; delete it and run again: "
        "only its unit is computed again"
    )


def test_a_row_that_is_there_twice_is_refused(tmp_path: Path, folder: Path) -> None:
    shutil.copy(folder / "parts" / "00000000.parquet", folder / "parts" / "00000001.parquet")
    assert message_of(jobs.summary, folder) == (
        f"an image of a run must have one row for each alternative, {KEY!r} in {str(folder)!r} has two; delete one of "
        "their parts and run again"
    )


@pytest.mark.parametrize(
    ("names", "value", "problem"),
    [
        (("areas",), [0.1, "x"], "areas"),
        (("areas",), [], "areas"),
        (("areas",), [0.2, 0.1], "areas"),
        (("batch",), None, "batch"),
        (("alternatives",), "1", "alternatives"),
        (("explain", "network"), 5, "target, ask, prompt, network and weights"),
        (("explain", "spacing"), [0], "spacing"),
        (("explain", "dtype"), "torch.load", "dtype"),
        (("explain", "solver"), "path", "solver"),
    ],
)
def test_settings_that_a_run_does_not_write_are_refused(
    folder: Path, names: tuple[str, ...], value: Any, problem: str
) -> None:
    change_settings(folder, *names, value=value)
    for read in (jobs.settings, jobs.summary, jobs.table):
        assert message_of(read, folder) == (
            f"the settings of a run must be as `extremal run` writes them, {problem} in {str(folder)!r} is not; run "
            "again into another folder"
        )


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": 2, "settings": {"x": NaN}}', "[]", "null", '{"format": 2}']
)
def test_manifests_that_are_none_are_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    path = str(folder / "manifest.json")
    for read in (jobs.settings, jobs.status, jobs.summary):
        assert message_of(read, folder) == f"a run must have a manifest, {path!r} is none; name the folder of a run"


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "{}", '{"state": "running", "items": "x"}', "NaN"])
def test_a_status_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "status.json").write_text(text)
    assert message_of(jobs.status, folder).startswith("the status of a run must be ")


class TestHostile:
    def test_a_unit_does_not_lead_out_of_the_folder(self, tmp_path: Path) -> None:
        pictures, out = write_images(tmp_path / "pictures", 2), tmp_path / "deep" / "out"
        run(pictures, out, network=sound(), **QUICK)
        shutil.rmtree(out / "parts")
        plan = pq.read_table(out / PLAN_FILE).to_pylist()
        for name in ("../../evil", "", "1", "0000000x"):
            changed = [{**row, "unit": name} for row in plan]
            pq.write_table(pa.Table.from_pylist(changed, PLAN_SCHEMA), out / PLAN_FILE)
            assert message_of(run, pictures, out, network=sound(), **QUICK) == (
                "a unit in the plan of a run must have a name of eight digits and complete items, "
                f"{str(out / PLAN_FILE)!r} has {name!r}; run again into another folder"
            )
        assert not list(tmp_path.rglob("evil*"))

    def test_code_that_a_manifest_names_is_called_only_if_the_caller_names_it(self, tmp_path: Path) -> None:
        pictures, out = write_images(tmp_path / "pictures", 1), tmp_path / "out"
        run(pictures, out, network="support.datasets:sound", workers=0, **QUICK)
        change_settings(out, "explain", "network", value="support.datasets:unloadable")
        assert message_of(jobs.explanation, out, "picture-000.png") == (
            f"a network that is code must be passed, {str(out)!r} names 'support.datasets:unloadable'; pass this name, "
            "or the network itself, as network if you trust it"
        )
        assert jobs.explanation(out, "picture-000.png", "support.datasets:sound").areas == (0.1, 0.2)

    def test_a_lock_that_is_a_link_is_not_opened(self, tmp_path: Path, folder: Path) -> None:
        (tmp_path / "thesis.tex").write_text("mine")
        (folder / "lock").unlink(missing_ok=True)
        (folder / "lock").symlink_to(tmp_path / "thesis.tex")
        status = {"state": "running", "items": 1, "done": 0, "failed": 0, "rate": 0, "seconds_left": None, "updated": 0}
        (folder / "status.json").write_text(json.dumps(status))
        assert message_of(jobs.status, folder).startswith("the lock of a run must be a file in its folder, ")
        assert (tmp_path / "thesis.tex").read_text() == "mine"

    def test_a_damaged_part_ends_a_resumed_run_with_its_name(self, tmp_path: Path) -> None:
        pictures, out = write_images(tmp_path / "pictures", 2), tmp_path / "out"
        run(pictures, out, network=sound(), **QUICK)
        before, part = comparable_rows(jobs.table(out)), out / "parts" / "00000000.parquet"
        part.write_bytes(part.read_bytes()[:-100])
        assert message_of(run, pictures, out, network=sound(), **QUICK).startswith(
            f"a part of a run must be a complete parquet file, {str(part)!r} is not "
        )
        part.unlink()
        run(pictures, out, network=sound(), **QUICK)
        assert comparable_rows(jobs.table(out)) == before


def test_any_truncation_of_any_file_is_read_or_refused(tmp_path: Path, folder: Path) -> None:
    readers = (jobs.summary, lambda run: jobs.explanation(run, KEY, sound()), lambda run: jobs.compare(run, run))
    for name in ("manifest.json", PLAN_FILE, "parts/00000000.parquet"):
        content = (folder / name).read_bytes()
        for part in range(20):
            (folder / name).write_bytes(content[: len(content) * part // 20])
            for read in readers:
                with suppress(ExtremalError):
                    read(folder)
        (folder / name).write_bytes(content)


def test_columns_of_a_table(folder: Path) -> None:
    assert jobs.table(folder, ["status", "key"]).column_names == ["status", "key"]
    assert jobs.table(folder, "key").column_names == ["key"]
    assert jobs.table(folder, ["key", "status", "key"]).column_names == ["key", "status"]
    wrong = [(["kez"], "'kez'; nearest: key"), ([3], "3; e.g. key"), (3, "3; e.g."), ([None], "None"), (["a"], "'a'")]
    for columns, got in wrong:
        assert message_of(jobs.table, folder, columns).startswith(f"columns must be those of a run, got {got}")
