"""The runner: complete rows after failures and kills, and the table built from them."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from extremal.benchmark.baselines import Maps
from extremal.benchmark.runner import run
from extremal.benchmark.table import build_table
from extremal.benchmark.tasks.task import Item, TableColumn, attribute_items, row_schema
from extremal.errors import ExtremalValueError
from extremal.networks.network import Network


@dataclass(frozen=True)
class Constant:
    """A method that returns a constant map, and fails on negative inputs."""

    value: float = 1.0
    name: str = "constant"
    smooth: float = 0.0

    def settings(self) -> dict[str, Any]:
        return {"value": self.value}

    def __call__(self, network, x, target):
        if bool((x < 0).any()):
            raise RuntimeError("a negative\ninput")
        return Maps(torch.full((len(x), 1, *x.shape[2:]), self.value), 3 * len(x))


@dataclass(eq=False)
class Numbers:
    """Items 0 .. count − 1; the measure is the map's value times the item's number."""

    count: int = 10
    negative: tuple[int, ...] = ()
    skipped: tuple[int, ...] = ()
    asked_for: list[str] = field(default_factory=list)
    network: Network = field(default_factory=lambda: Network(torch.nn.Identity()))

    name = "numbers"
    row_columns = {"product": pa.float64(), "large": pa.bool_()}  # noqa: RUF012
    table_columns = (
        TableColumn("product", "product", by_class=True),
        TableColumn("product", "large only", only="large"),
    )

    def settings(self) -> dict[str, Any]:
        return {"count": self.count}

    def plan(self, store, on_progress):
        return [f"{index:03d}" for index in range(self.count)]

    def items(self, key):
        self.asked_for.append(key)
        number = int(key)
        x = torch.full((1, 1, 4, 4 + number % 2), -1.0 if number in self.negative else float(number))
        skip = "empty region" if number in self.skipped else ""
        return [Item(key, f"class {number % 3}", number, x, skip=skip)]

    def measure(self, method, items):
        results = attribute_items(method, self.network, items)
        return [
            [{**result.cost(), "product": float(result.map.mean()) * item.target, "large": item.target > 5}]
            for result, item in zip(results, items, strict=True)
        ]


def rows_in(folder):
    return pq.read_table(folder / "parts").sort_by([("method", "ascending"), ("key", "ascending")]).to_pylist()


def test_every_item_has_one_row_per_method(tmp_path):
    methods = [Constant(), Constant(2.0, "double")]
    table = run(Numbers(), methods, tmp_path, batch=3)
    rows = rows_in(tmp_path)
    assert [(row["method"], row["key"]) for row in rows] == [
        (method, f"{index:03d}") for method in ("constant", "double") for index in range(10)
    ]
    assert [row["product"] for row in rows] == [float(i) for i in range(10)] + [2.0 * i for i in range(10)]
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["evaluations"] for row in rows} == {3.0}
    values = [[estimate.value for estimate in line.values] for line in table.methods]
    by_class = np.mean([np.mean([0, 3, 6, 9]), np.mean([1, 4, 7]), np.mean([2, 5, 8])])
    np.testing.assert_allclose(values, [[by_class, 7.5], [2 * by_class, 15]])
    assert [line.judged for line in table.methods] == [10, 10]


def test_a_method_that_fails_on_one_item_costs_that_row_only(tmp_path):
    table = run(Numbers(negative=(4, 5)), [Constant()], tmp_path, batch=4)
    rows = rows_in(tmp_path)
    assert [row["status"] for row in rows] == ["error" if index in (4, 5) else "ok" for index in range(10)]
    assert rows[4]["reason"] == "RuntimeError: a negative input"
    assert rows[4]["product"] is None
    (line,) = table.methods
    assert (line.judged, line.failed, line.skipped) == (8, 2, 0)
    assert table.reasons == (("error, RuntimeError: a negative input", 2),)
    assert "Not judged, 2 rows: error, RuntimeError: a negative input." in table.markdown()


def test_items_that_cannot_be_judged_are_counted_but_not_scored(tmp_path):
    table = run(Numbers(skipped=(9,)), [Constant()], tmp_path)
    (line,) = table.methods
    assert (line.judged, line.failed, line.skipped) == (9, 0, 1)
    assert line.values[1].value == pytest.approx(7.0)  # of 6, 7, 8
    assert rows_in(tmp_path)[9]["reason"] == "empty region"


def test_finished_work_is_not_done_again(tmp_path):
    first = run(Numbers(), [Constant()], tmp_path)
    again = Numbers()
    assert run(again, [Constant()], tmp_path).json() == first.json()
    assert again.asked_for == []


def test_other_settings_are_refused(tmp_path):
    run(Numbers(), [Constant()], tmp_path)
    with pytest.raises(ExtremalValueError, match="count: 10 there, 4 now"):
        run(Numbers(count=4), [Constant()], tmp_path)
    with pytest.raises(ExtremalValueError, match=r"methods.constant.value: 1.0 there, 3.0 now"):
        run(Numbers(), [Constant(3.0)], tmp_path)
    with pytest.raises(ExtremalValueError, match="batch must be at least 1, got 0"):
        run(Numbers(), [Constant()], tmp_path, batch=0)


def test_a_task_without_anything_to_judge_is_refused(tmp_path):
    with pytest.raises(ExtremalValueError, match="a run must have at least one image to judge, the data set has none"):
        run(Numbers(count=0), [Constant()], tmp_path)


def test_a_map_that_is_not_finite_is_an_error_of_its_row(tmp_path):
    table = run(Numbers(count=2), [Constant(math.nan)], tmp_path)
    assert table.methods[0].failed == 2
    assert rows_in(tmp_path)[0]["reason"].startswith("ValueError: a map must be finite and of shape (1, 1, 4, 4), ")


def test_progress_reports_finished_units(tmp_path):
    reports = []
    run(Numbers(), [Constant()], tmp_path, batch=5, on_progress=lambda *args: reports.append(args))
    assert reports == [("constant", 0, 2), ("constant", 1, 2), ("table", 2, 2)]


def test_the_table_marks_the_best_method_and_json_has_no_nan(tmp_path):
    table = run(Numbers(), [Constant(), Constant(2.0, "double")], tmp_path)
    text = table.markdown().splitlines()
    assert text[0] == "| method | product | large only | items | evaluations |"
    assert text[3].startswith("| double | **9.0")
    assert "**" not in text[2]
    empty = build_table(Numbers.table_columns, ["nobody"], row_schema(Numbers()).empty_table())
    assert json.loads(empty.json())["methods"][0]["values"]["product"]["value"] is None
    assert empty.markdown().splitlines()[2] == "| nobody | – | – | 0 | 0 |"


# Runs into each folder that it reads, in a process of its own that is forked from this one: it has imported all.
SCRIPT = textwrap.dedent("""
    import os, sys, time
    from pathlib import Path
    from test_runner import Constant, Numbers
    from extremal.benchmark.runner import run

    class Slow(Constant):
        def __call__(self, network, x, target):
            time.sleep(0.01)
            return super().__call__(network, x, target)

    for line in sys.stdin:
        child = os.fork()
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        print(os.getpid(), flush=True)
        folder = Path(line.strip())
        table = run(Numbers(count=60, negative=(7,)), [Slow(), Slow(2.0, "double")], folder, batch=2)
        (folder / "table.json").write_text(table.json())
        (folder / "table.md").write_text(table.markdown())
        os._exit(0)
""")


@pytest.mark.slow
def test_killed_ten_times_it_comes_to_the_same_table_to_the_byte(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, **pipes) as server:

        def start(folder):
            server.stdin.write(f"{folder}\n")
            return int(server.stdout.readline())

        def wait():
            return int(server.stdout.readline())

        start(tmp_path / "whole")
        assert wait() == 0
        draw, kills = np.random.default_rng(0), 0
        while kills < 10:
            process = start(tmp_path / "killed")
            time.sleep(float(draw.uniform(0.02, 0.12)))
            with suppress(ProcessLookupError):  # it has ended
                os.kill(process, signal.SIGKILL)
            code = wait()
            kills += code == -signal.SIGKILL
            if code == 0:
                break
        start(tmp_path / "killed")
        assert wait() == 0
        server.stdin.close()
    assert kills >= 5
    for name in ("table.json", "table.md"):
        digests = [hashlib.sha256((tmp_path / run_ / name).read_bytes()).hexdigest() for run_ in ("whole", "killed")]
        assert digests[0] == digests[1]
    keys = [(row["method"], row["key"]) for row in rows_in(tmp_path / "killed")]
    assert len(keys) == len(set(keys)) == 120
