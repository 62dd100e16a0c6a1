"""Groups of classes in the rows of data-set runs."""

from pathlib import Path

import pandas as pd
import pytest

from extremal import explain
from extremal.explanations.settings import Settings
from extremal.files import content_hash
from extremal.jobs.items import find_items
from extremal.jobs.restore import rebuild
from extremal.jobs.rows import build_row
from extremal.jobs.run_summary import image_summaries, summarise
from extremal.jobs.worker import Worker, WorkerConfig
from extremal.masking.solvers import Path as PathSolver
from support.restored import assert_same, make_network, write_and_read, write_images
from support.runs import make_table, run_settings

TINY = PathSolver(steps=4, polish=3, rounds=2, draws=1, search=2)
AREAS = (0.1, 0.3)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return write_images(tmp_path)


def test_rows_are_restored_without_the_query(paths: list[str], tmp_path: Path) -> None:
    net = make_network(groups={"ends": (0, 3)})
    explanation = explain(net, paths, [1, ["a", "c"], ["d", "a"]], areas=AREAS, solver=TINY)
    rows = write_and_read(explanation, paths, tmp_path)
    assert [(row["target"], row["group"], row["target_name"]) for row in rows] == [
        (1, None, "b"),
        (None, [0, 2], "a | c"),
        (None, [0, 3], "ends (2 classes)"),
    ]
    for image, row in enumerate(rows):
        assert_same(rebuild(row, net, settings=run_settings(explanation)), explanation, image)
    frame = pd.read_parquet(tmp_path / "run" / "parts")
    restored = rebuild(frame.iloc[2].to_dict(), net, settings=run_settings(explanation))
    assert restored.target == ((0, 3),)


def test_rows_of_runs_without_the_column_are_restored(paths: list[str]) -> None:
    net = make_network()
    explanation = explain(net, paths[0], 1, areas=AREAS, solver=TINY)
    row = build_row(explanation, 0, key="a", path=paths[0], digest=content_hash(paths[0]), seconds=0.0)
    del row["group"]
    assert rebuild(row, net, settings=run_settings(explanation)).target == (1,)


def test_a_summary_counts_each_group_by_itself(paths: list[str], tmp_path: Path) -> None:
    net = make_network()
    explanation = explain(net, paths, [["a", "c"], ["d", "a"], ["c", "a"]], areas=AREAS, solver=TINY)
    rows = write_and_read(explanation, paths, tmp_path)
    assert [image.target for image in image_summaries(rows)] == [(0, 2), (0, 3), (0, 2)]
    summary = summarise(make_table(rows), {"areas": list(AREAS)})
    assert [(entry.target, entry.name, entry.images) for entry in summary.classes] == [
        ((0, 2), "a | c", 2),
        ((0, 3), "a | d", 1),
    ]


def test_a_manifest_names_groups(tmp_path: Path) -> None:
    (path, *_) = write_images(tmp_path)
    manifest = tmp_path / "images.csv"
    manifest.write_text(f"path,target\n{path},ends\n{path},b\n{path},0|c\n{path},b|owl\n", encoding="utf-8")
    settings = {"areas": AREAS, "perturbation": "fade", "solver": TINY}
    worker = Worker(
        WorkerConfig("", settings=Settings(**settings).as_dict(), refine=True), make_network(groups={"ends": (0, 3)})
    )
    rows = worker.explain(worker.prepare(find_items([str(manifest)])))
    assert [row["status"] for row in rows] == ["done", "done", "done", "failed"]
    assert [(row["target"], row["group"]) for row in rows[:3]] == [(None, [0, 3]), (1, None), (None, [0, 2])]
    assert rows[3]["error"].startswith("target must be a class of Switchable, got 'owl'")
