"""The local engine in worker processes: equal rows, crashes, and networks that cannot be loaded."""

from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from extremal import jobs
from extremal.explanations.settings import Settings
from extremal.jobs.engines import processes
from extremal.jobs.items import find_items
from extremal.jobs.plan import WorkUnit
from extremal.jobs.runner import run
from extremal.jobs.stop import StopRequest
from extremal.jobs.worker import WorkerConfig
from support.datasets import DEADLY, NETWORK, comparable_rows, write_black_image, write_images
from support.errors import message_of

QUICK: dict[str, Any] = {"areas": (0.1, 0.2), "perturbation": "fade", "threads": 1}
CONFIG = WorkerConfig(NETWORK, settings=Settings(areas=(0.1,), perturbation="fade").as_dict())


@pytest.mark.slow
class TestInProcesses:
    def test_rows_equal_those_of_one_process(self, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "seven", 7, broken=(3,))
        done = run(folder, tmp_path / "many", network=NETWORK, batch=2, workers=2, **QUICK)
        assert (done.done, done.failed) == (7, 1)
        run(folder, tmp_path / "one", network=NETWORK, batch=2, workers=0, **QUICK)
        assert comparable_rows(jobs.table(tmp_path / "many")) == comparable_rows(jobs.table(tmp_path / "one"))

    @pytest.mark.parametrize(
        ("units", "expected"), [(2, "0 1"), (3, "0,1 2"), (4, "0,1 2"), (5, "0,1 2,3"), (9, "0,1 2,3"), (1, "0 ")]
    )
    def test_the_last_units_go_to_the_first_idle_worker(self, units: int, expected: str) -> None:
        pool = processes._WorkerPool(CONFIG, 1, deque(WorkUnit(str(number), ()) for number in range(units)))
        for number in range(2):
            pool.workers.append(processes._WorkerProcess(number, Mock(), Mock()))
        pool.dispatch()
        assert " ".join(",".join(unit.name for unit in worker.units) for worker in pool.workers) == expected
        pool.workers[1].units.clear()  # it has finished
        pool.dispatch()
        assert bool(pool.workers[1].units) == (units > 3)

    def test_an_image_that_crashes_its_workers_fails_with_its_batch(self, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "five", 5)
        write_black_image(folder / "picture-002.png")
        done = run(folder, tmp_path / "out", network=DEADLY, batch=2, workers=2, **QUICK)
        assert (done.state, done.done, done.failed) == ("done", 5, 2)
        table = jobs.table(tmp_path / "out")
        assert table["status"].to_pylist() == ["done", "done", "failed", "failed", "done"]
        assert table["error"][2].as_py() == (
            "several workers crashed on its batch, the last with exit code -9; run again with --retry, and with fewer "
            "--workers if memory is short"
        )

    def test_a_network_that_workers_cannot_load_is_reported(self, tmp_path: Path) -> None:
        folder = write_images(tmp_path / "one", 1)
        config = replace(CONFIG, network="nowhere:nothing")
        unit = WorkUnit("0", tuple(find_items([str(folder)])))
        error = message_of(list, processes.run_in_processes(config, [unit], StopRequest(), count=1, threads=1))
        assert error.startswith("a network must be 'embedded', ")
        assert "there is no module 'nowhere'" in error
