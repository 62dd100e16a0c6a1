"""The commands, queries and code of the data-set page run and return the stated results."""

import re
import shlex
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from extremal import jobs, zoo
from extremal.cli import main
from extremal.jobs.rows import SCHEMA
from support.datasets import write_images
from support.fake_network import fake_network

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the page's commands with a tiny network and images; return the run's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: fake_network())
    write_images(tmp_path / "photos", 5, broken=(3,))
    for line in "".join(blocks("console")).splitlines():
        program, *words = shlex.split(line, comments=True)
        more = ["--workers", "0", "--threads", "1"] if words[0] == "run" else []
        if program == "extremal":
            result = CliRunner().invoke(main.app, [*words, *more])
            assert result.exit_code == (1 if words[0] == "run" else 0), result.output  # an image is broken
    return tmp_path / "run"


def test_the_folder_contains_the_listed_files(run: Path) -> None:
    listed = re.findall(r"^run/(\S+)", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(
        str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and path.name != "00000001.parquet"
    )


def test_every_column_is_listed() -> None:
    cells = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    assert sorted(re.findall(r"`([a-z_]+)`", " ".join(cells))) == sorted(SCHEMA.names)


def test_queries_return_the_rows(run: Path) -> None:
    answers = [duckdb.sql(text).fetchall() for text in blocks("sql")]
    rows = [row for row in jobs.table(run).to_pylist() if row["status"] == "done"]
    verdicts = sorted({row["verdict"] for row in rows})
    assert [(verdict, count) for verdict, count, _ in answers[0]] == [
        (verdict, sum(row["verdict"] == verdict for row in rows)) for verdict in verdicts
    ]
    enough = [row for row in rows if row["smallest_area"] is not None]
    assert sum(count for _, count, _ in answers[1]) == len(enough)
    assert answers[2] == [
        (row["key"], area, score, verdict)
        for row in rows
        for area, score, verdict in zip(row["areas"], row["binary_scores"], row["verdicts"], strict=True)
    ]
    ((key, error),) = answers[3]
    assert key == "picture-003.png"
    assert error.startswith("an image must be readable to its end, got 'photos/picture-003.png'")
    expected = [
        (row["key"], *entry)
        for row in rows
        for entry in zip(row["trace_step"], row["trace_area"], row["trace_reward"], strict=True)
    ]
    assert sorted(answers[4]) == sorted(expected)


@pytest.mark.usefixtures("run")
def test_code_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in blocks("python"):
        names: dict[str, Any] = {}
        exec(compile(text, "datasets.md", "exec"), names)
    assert (tmp_path / "first.html").exists()
    printed = capsys.readouterr().out
    assert "5 of 5 failed 1" in printed
    assert "{'sufficient': " in printed
