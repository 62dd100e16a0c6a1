"""Rows that a worker returns for images, valid or not."""

from pathlib import Path
from typing import Any, Unpack

import pytest
import torch
from torch import Tensor

import extremal
from extremal import explain
from extremal.explanations.settings import Settings, SettingsOptions
from extremal.files import content_hash
from extremal.jobs.batch_size import auto_batch_size
from extremal.jobs.items import RunItem
from extremal.jobs.rows import SCHEMA
from extremal.jobs.worker import ItemResult, Worker, WorkerConfig
from extremal.networks.network import Network
from support.datasets import sound, write_images


def make_worker(
    network: Network | None = None,
    ask: str = "",
    refine: bool = False,
    stability: bool = False,
    **options: Unpack[SettingsOptions],
) -> Worker:
    settings = Settings(**{"areas": (0.1, 0.2), "perturbation": "fade", **options})
    return Worker(
        WorkerConfig("", ask=ask, settings=settings.as_dict(), refine=refine, stability=stability), network or sound()
    )


def make_items(folder: Path, *targets: str) -> list[RunItem]:
    paths = sorted(folder.iterdir())
    return [RunItem(path.name, str(path), target) for path, target in zip(paths, targets, strict=True)]


@pytest.mark.usefixtures("one_thread")
class TestRows:
    def test_rows_equal_those_of_explain(self, tmp_path: Path) -> None:
        folder, worker = write_images(tmp_path / "two", 2), make_worker()
        rows = worker.explain(worker.prepare(make_items(folder, "", "")))
        paths = sorted(folder.iterdir())
        expected = explain(sound(), list(paths), areas=(0.1, 0.2), perturbation="fade", score="margin")
        for n, row in enumerate(rows):
            assert set(row) == set(SCHEMA.names)
            assert row["scores"] == expected.scores[n].tolist()
            assert row["binary_scores"] == expected.binary_scores[n].tolist()
            assert (row["target"], row["target_name"]) == (expected.target[n], expected.target_names[n])
            assert row["content_hash"] == content_hash(paths[n])
            assert (row["status"], row["alternative"]) == ("done", 0)
            assert row["thumbnail"][:2] == b"\xff\xd8"  # a JPEG
            assert len(row["thumbnail"]) < 4000

    def test_a_bad_image_and_a_bad_class_fail_in_their_own_rows(self, tmp_path: Path) -> None:
        folder, worker = write_images(tmp_path / "four", 4, broken=(1,)), make_worker()
        rows = worker.explain(
            worker.prepare([*make_items(folder, "", "", "tiger cta", "tiger cat"), RunItem("no", "no.png")])
        )
        assert [row["status"] for row in rows] == ["done", "failed", "failed", "done", "failed"]
        assert rows[1]["error"].startswith("an image must be readable to its end, got ")
        assert rows[2]["error"] == "target must be a class of fake, got 'tiger cta'; nearest: tiger cat"
        assert rows[4]["error"] == "an image must be an existing file, got 'no.png'; check the path"
        assert rows[3]["target_name"] == "tiger cat"
        assert rows[0]["target_name"] == "tabby, tabby cat"

    def test_a_preprocessing_may_raise_anything(self, tmp_path: Path) -> None:
        def prepare(picture: object) -> Tensor:
            raise KeyError("no such thing")

        worker = make_worker(Network(sound().model, prepare))
        (row,) = worker.explain(worker.prepare(make_items(write_images(tmp_path / "one", 1), "")))
        assert (row["status"], row["error"]) == (
            "failed",
            "preprocess must turn an RGB image into a tensor (C, H, W), that of Boxes raised KeyError: 'no such "
            "thing'; correct it, or leave the image out",
        )

    def test_after_an_error_each_image_of_the_batch_is_explained_alone(self, tmp_path: Path) -> None:
        folder, worker = write_images(tmp_path / "three", 3), make_worker()
        prepared = worker.prepare(make_items(folder, "", "", ""))
        assert prepared[1].x is not None
        prepared[1].x.fill_(torch.nan)
        rows = worker.explain(prepared)
        assert [row["status"] for row in rows] == ["done", "failed", "done"]
        assert rows[1]["error"] == "a prepared tensor must be finite, got 1728 NaN or infinite values; clean it"

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory"),
            MemoryError(),
            RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        ],
    )
    def test_the_batch_is_halved_if_memory_is_short(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        worker, sizes = make_worker(), list[int]()
        explain_batch = Worker._explain_batch

        def scarce(self: Worker, group: Any, targets: Any) -> Any:
            sizes.append(len(group))
            if len(group) > 2:
                raise error
            return explain_batch(self, group, targets)

        monkeypatch.setattr(Worker, "_explain_batch", scarce)
        rows = worker.explain(worker.prepare(make_items(write_images(tmp_path / "five", 5), *[""] * 5)))
        assert [row["status"] for row in rows] == ["done"] * 5
        assert sizes == [5, 3, 2, 1, 2]

    def test_too_little_memory_for_one_image_is_reported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def scarce(self: Worker, group: Any, targets: Any) -> Any:
            raise MemoryError("cannot allocate")

        monkeypatch.setattr(Worker, "_explain_batch", scarce)
        worker = make_worker()
        (row,) = worker.explain(worker.prepare(make_items(write_images(tmp_path / "one", 1), "")))
        assert (row["status"], row["error"]) == (
            "failed",
            "an image must fit into memory, MemoryError: cannot allocate; use fewer workers, or a smaller image",
        )

    def test_stability_is_that_of_the_images_alone(self, tmp_path: Path) -> None:
        worker = make_worker(areas=(0.1, 0.3), stability=True)
        items = make_items(write_images(tmp_path / "two", 2), "", "")
        rows = worker.explain(worker.prepare(items))
        for item, row in zip(items, rows, strict=True):
            result = explain(worker.network, item.path, settings=worker.settings)
            measured = extremal.stability(worker.network, item.path, result)
            assert row["stable_ious"] == pytest.approx(measured.median_iou[0].tolist(), abs=0.02)  # batches round
            assert row["core_shares"] == pytest.approx(measured.core_shares[0].tolist(), abs=0.02)
            assert row["evaluations"] > sum(row["counts"].values())

    def test_alternatives_have_their_own_rows_and_the_first_has_the_certificate(self, tmp_path: Path) -> None:
        worker = make_worker(alternatives=2, refine=True)
        rows = worker.explain(worker.prepare(make_items(write_images(tmp_path / "one", 1), "")))
        assert [row["alternative"] for row in rows] == [0, 1]
        if rows[0]["smallest_area"] is not None:
            assert rows[0]["below_area"] < rows[0]["certified_area"] <= rows[0]["smallest_area"]
        assert rows[1]["certified_area"] is None

    def test_other_queries_are_parsed_as_on_the_command_line(self, tmp_path: Path) -> None:
        network = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3)), sound().preprocess)
        worker = make_worker(network, ask="unit:0:0")
        (row,) = worker.explain(worker.prepare(make_items(write_images(tmp_path / "one", 1), "")))
        assert row["target"] is None


@pytest.mark.parametrize(
    ("pictures", "workers", "size"), [(100, 1, 8), (5, 1, 5), (64, 2, 8), (57, 2, 8), (56, 2, 7), (10, 2, 2), (3, 2, 1)]
)
def test_batches_leave_units_for_all_workers(pictures: int, workers: int, size: int) -> None:
    assert auto_batch_size(make_worker(), [RunItem("a", "a.png")] * pictures, workers) == size


def test_the_result_of_a_failed_item_has_no_explanation() -> None:
    assert ItemResult(error="why").explanation is None
