"""What a worker makes of pictures: a row for each, whatever they are."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from extremal import explain
from extremal.explanations.options import Options
from extremal.files import content_hash
from extremal.jobs.plan import RunItem
from extremal.jobs.rows import SCHEMA
from extremal.jobs.runner import auto_batch_size
from extremal.jobs.worker import ItemResult, Worker, device_of
from extremal.networks.network import Network
from support.datasets import write_images, sound

AREAS = "0.1,0.2"


def worker(network: Network | None = None, **changes: Any) -> Worker:
    values = {
        "network": "",
        "weights": "",
        "target": "",
        "ask": "",
        "areas": AREAS,
        "game": "preserve",
        "perturbation": "fade",
        "solver": "path",
        "score": "margin",
        "seed": 0,
        "alternatives": 1,
        "refine": False,
        **changes,
    }
    return Worker(Options(**values), network or sound())


def items(folder: Path, *targets: str) -> list[RunItem]:
    paths = sorted(folder.iterdir())
    return [RunItem(path.name, str(path), target) for path, target in zip(paths, targets, strict=True)]


@pytest.mark.usefixtures("one_thread")
class TestRows:
    def test_they_are_those_of_explain(self, tmp_path: Path) -> None:
        folder, one = write_images(tmp_path / "two", 2), worker()
        told = one.rows(one.prepare(items(folder, "", "")))
        paths = sorted(folder.iterdir())
        wanted = explain(sound(), list(paths), areas=(0.1, 0.2), perturbation="fade", score="margin")
        for n, row in enumerate(told):
            assert set(row) == set(SCHEMA.names)
            assert row["scores"] == wanted.scores[n].tolist()
            assert row["binary_scores"] == wanted.binary_scores[n].tolist()
            assert (row["target"], row["target_name"]) == (wanted.target[n], wanted.target_names[n])
            assert row["content_hash"] == content_hash(paths[n])
            assert (row["status"], row["alternative"]) == ("done", 0)
            assert row["thumbnail"][:2] == b"\xff\xd8"  # a JPEG
            assert len(row["thumbnail"]) < 4000

    def test_a_bad_picture_and_a_bad_class_cost_their_own_rows(self, tmp_path: Path) -> None:
        folder, one = write_images(tmp_path / "four", 4, broken=(1,)), worker()
        told = one.rows(one.prepare([*items(folder, "", "", "tiger cta", "tiger cat"), RunItem("no", "no.png")]))
        assert [row["status"] for row in told] == ["done", "failed", "failed", "done", "failed"]
        assert told[1]["error"].startswith("an image must be readable to its end, got ")
        assert told[2]["error"] == "target must be a class of fake, got 'tiger cta'; nearest: tiger cat"
        assert told[4]["error"] == "an image must be an existing file, got 'no.png'; check the path"
        assert told[3]["target_name"] == "tiger cat"
        assert told[0]["target_name"] == "tabby, tabby cat"

    def test_a_preprocessing_may_raise_anything(self, tmp_path: Path) -> None:
        def prepare(picture: object) -> Tensor:
            raise KeyError("no such thing")

        one = worker(Network(sound().model, prepare))
        (told,) = one.rows(one.prepare(items(write_images(tmp_path / "one", 1), "")))
        assert (told["status"], told["error"]) == ("failed", "KeyError: 'no such thing'")

    def test_where_one_spoils_the_batch_each_is_explained_alone(self, tmp_path: Path) -> None:
        folder, one = write_images(tmp_path / "three", 3), worker()
        prepared = one.prepare(items(folder, "", "", ""))
        assert prepared[1].x is not None
        prepared[1].x.fill_(torch.nan)
        told = one.rows(prepared)
        assert [row["status"] for row in told] == ["done", "failed", "done"]
        assert told[1]["error"] == "a prepared tensor must be finite, got 1728 NaN or infinite values; clean it"

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory"),
            MemoryError(),
            RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        ],
    )
    def test_without_memory_the_batch_is_halved(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        one, sizes = worker(), list[int]()
        known = Worker._explain

        def scarce(self: Worker, group: Any, targets: Any) -> Any:
            sizes.append(len(group))
            if len(group) > 2:
                raise error
            return known(self, group, targets)

        monkeypatch.setattr(Worker, "_explain", scarce)
        told = one.rows(one.prepare(items(write_images(tmp_path / "five", 5), *[""] * 5)))
        assert [row["status"] for row in told] == ["done"] * 5
        assert sizes == [5, 3, 2, 1, 2]

    def test_too_little_memory_for_one_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def scarce(self: Worker, group: Any, targets: Any) -> Any:
            raise MemoryError("cannot allocate")

        monkeypatch.setattr(Worker, "_explain", scarce)
        one = worker()
        (told,) = one.rows(one.prepare(items(write_images(tmp_path / "one", 1), "")))
        assert (told["status"], told["error"]) == ("failed", "MemoryError: cannot allocate")

    def test_alternatives_have_rows_of_their_own_and_certificates_stand_with_the_first(self, tmp_path: Path) -> None:
        one = worker(alternatives=2, refine=True)
        told = one.rows(one.prepare(items(write_images(tmp_path / "one", 1), "")))
        assert [row["alternative"] for row in told] == [0, 1]
        if told[0]["smallest_area"] is not None:
            assert told[0]["below_area"] < told[0]["certified_area"] <= told[0]["smallest_area"]
        assert told[1]["certified_area"] is None

    def test_other_questions_are_asked_as_on_the_command_line(self, tmp_path: Path) -> None:
        network = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3)), sound().preprocess)
        one = worker(network, ask="unit:0:0")
        (told,) = one.rows(one.prepare(items(write_images(tmp_path / "one", 1), "")))
        assert told["target"] == -1


@pytest.mark.parametrize(
    ("pictures", "workers", "size"), [(100, 1, 8), (5, 1, 5), (64, 2, 8), (57, 2, 8), (56, 2, 7), (10, 2, 2), (3, 2, 1)]
)
def test_batches_leave_work_for_all_workers(pictures: int, workers: int, size: int) -> None:
    assert auto_batch_size(worker(), pictures, workers) == size


def test_workers_take_turns_on_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(device_of(3)) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(device_of(number)) for number in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]


def test_what_failed_is_no_more_than_its_reason() -> None:
    assert ItemResult(error="why").explanation is None
