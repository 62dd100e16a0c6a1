"""Units that are run again: what was found about an image is not lost."""

from pathlib import Path
from typing import Any

from extremal import jobs
from extremal.jobs.finished import keep_explained
from extremal.jobs.rows import DONE, FAILED
from extremal.jobs.runner import run
from support.datasets import comparable_rows, sound, write_images

QUICK: dict[str, Any] = {"areas": (0.1, 0.2), "perturbation": "fade", "threads": 1}


def test_a_repeated_unit_keeps_the_rows_of_images_that_are_gone(tmp_path: Path) -> None:
    folder, out = write_images(tmp_path / "three", 3, broken=(2,)), tmp_path / "out"
    options: dict[str, Any] = {"network": sound(), "batch": 3, **QUICK}
    run(folder, out, **options)
    before = comparable_rows(jobs.table(out))
    (folder / "picture-000.png").unlink()
    done = run(folder, out, retry=True, **options)
    after = comparable_rows(jobs.table(out))
    assert (done.done, done.failed) == (3, 1)
    assert [row["status"] for row in after] == [DONE, DONE, FAILED]
    assert after[0] == before[0]


def test_rows_of_the_repetition_replace_all_others() -> None:
    def row(key: str, status: str, digest: str | None, alternative: int = 0, error: str = "") -> dict[str, Any]:
        return {"key": key, "status": status, "content_hash": digest, "alternative": alternative, "error": error}

    stored = [row("a", DONE, "1"), row("a", DONE, "1", 1), row("b", DONE, "2"), row("c", FAILED, "3", error="before")]
    rows = [row("a", FAILED, None), row("b", FAILED, "4"), row("c", FAILED, "3", error="now")]
    assert keep_explained(stored, rows) == [*stored[:2], *rows[1:]]
    assert keep_explained(stored, [row("a", FAILED, "1")]) == stored[:2]
    assert keep_explained(stored, [row("c", DONE, "3")]) == [row("c", DONE, "3")]
