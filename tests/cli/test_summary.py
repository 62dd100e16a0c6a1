"""The commands `summary` and `compare`."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from extremal import jobs
from extremal.jobs.run_summary import summarise
from support import runs
from support.run_pairs import image_key, make_explanation_pairs, write_run_pair
from support.terminal import call


@pytest.fixture(scope="module")
def rows() -> list[runs.Row]:
    return runs.make_rows(70)


@pytest.fixture(scope="module")
def run_summary(rows: list[runs.Row]) -> jobs.Summary:
    return summarise(runs.make_table(rows), runs.make_settings())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_run_pair(tmp_path_factory.mktemp("runs"), make_explanation_pairs())


@pytest.fixture(scope="module")
def comparison(folders: list[Path]) -> jobs.Comparison:
    return jobs.compare(*folders)


class TestSummary:
    def test_table_page_and_figure(self, tmp_path: Path, rows: list[runs.Row]) -> None:
        folder, out = runs.write_run(tmp_path / "run", rows), tmp_path / "out"
        before = sorted(folder.iterdir())
        code, output, _ = call("summary", str(folder), "--out", str(out), columns=160)
        assert code == 0
        assert sorted(folder.iterdir()) == before, "nothing is written into the run"
        assert sorted(path.name for path in (out / "run-summary").iterdir()) == ["summary.html", "summary.png"]
        assert output.endswith(f"written:\n  {out}/run-summary/summary.html\n  {out}/run-summary/summary.png\n")
        assert "failed: 5 images: an image must be readable, error 0\n" in output
        assert re.search(r"│ sufficient +│ +\d+ │ +\d+\s% │", output)
        assert re.search(r"│ smallest area │ +60 │", output)
        code, *_ = call("summary", str(folder), "--out", str(out), columns=160)
        assert code == 0, "an earlier result is replaced"

    def test_json_is_the_summary(self, tmp_path: Path, rows: list[runs.Row], run_summary: jobs.Summary) -> None:
        folder = runs.write_run(tmp_path / "run", rows)
        code, output, _ = call("summary", str(folder), "--out", str(tmp_path / "out"), "--json", columns=160)
        values = json.loads(output)
        files = values.pop("files")
        assert code == 0
        assert values == json.loads(json.dumps(dataclasses.asdict(run_summary)))
        assert Path(files["page"]).is_file()
        assert Path(files["figure"]).is_file()

    def test_nobody_s_folder_is_replaced(self, tmp_path: Path, rows: list[runs.Row]) -> None:
        run_folder, folder = runs.write_run(tmp_path / "run", rows[:3]), tmp_path / "out" / "run-summary"
        folder.mkdir(parents=True)
        (folder / "thesis.tex").touch()
        code, _, output = call("summary", str(run_folder), "--out", str(tmp_path / "out"), "--force", columns=160)
        assert code == 2
        assert output == (
            f"error: a result must be a new folder or replace a previous result, got {str(folder)!r} with 'thesis.tex' "
            "in it; choose another folder for the results\n"
        )
        assert [path.name for path in folder.iterdir()] == ["thesis.tex"]

    def test_what_is_no_run_is_told(self, tmp_path: Path) -> None:
        code, _, output = call("summary", str(tmp_path), "--out", str(tmp_path / "out"), columns=160)
        assert code == 2
        assert output == (
            f"error: a run must have a manifest, {str(tmp_path / 'manifest.json')!r} is none; "
            "name the folder of a run\n"
        )
        assert not (tmp_path / "out" / f"{tmp_path.name}-summary").exists()


class TestCompare:
    def test_table_page_and_figure(self, tmp_path: Path, folders: list[Path], comparison: jobs.Comparison) -> None:
        code, output, _ = call("compare", *map(str, folders), "--out", str(tmp_path), columns=160)
        assert code == 0
        folder = tmp_path / "before-after-compare"
        assert sorted(path.name for path in folder.iterdir()) == ["compare.html", "compare.png"]
        assert f"{comparison.moved} of 11 explanations moved" in output
        assert f"differs: weights: {'0' * 64} / {'1' * 64}\n" in output
        assert f"failed in at least one of them: 1: {image_key(5)}\nonly in the first: 1: only before\n" in output
        assert output.endswith(f"written:\n  {folder}/compare.html\n  {folder}/compare.png\n")

    def test_json_is_the_comparison(self, tmp_path: Path, folders: list[Path], comparison: jobs.Comparison) -> None:
        code, output, _ = call("compare", *map(str, folders), "--out", str(tmp_path), "--json", columns=160)
        values = json.loads(output)
        files = values.pop("files")
        assert code == 0
        assert values == json.loads(json.dumps(dataclasses.asdict(comparison)))
        assert {Path(path).name for path in files.values()} == {"compare.html", "compare.png"}

    def test_a_refusal_writes_nothing(self, tmp_path: Path, folders: list[Path]) -> None:
        code, _, output = call("compare", str(folders[0]), str(tmp_path), "--out", str(tmp_path / "out"), columns=160)
        assert code == 2
        assert output.startswith("error: a run must have a manifest, ")
        assert not (tmp_path / "out").exists()
