"""Several devices that share the images of a benchmark run: the rows of one device."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from extremal import Network, zoo
from extremal.benchmark.baselines import Maps
from extremal.benchmark.metrics import reinitialise
from extremal.benchmark.runner import run
from extremal.benchmark.tasks.task import Item, TableColumn, attribute_items
from extremal.networks.randomness import seeded
from support.fake_device import fake_device
from support.terminal import call
from support.toys import Colours

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@dataclass(frozen=True)
class Mean:
    """The mean of each input as a map; fails on the item that it is told."""

    failing: int = -1
    name: str = "mean"
    smooth: float = 0.0

    def settings(self) -> dict[str, Any]:
        return {}

    def __call__(self, network: Network, x: Tensor, target: Any) -> Maps:
        if self.failing in target:
            raise RuntimeError("no map")
        return Maps(x.mean((1, 2, 3), keepdim=True).expand(-1, 1, *x.shape[2:]), len(x))


@dataclass(eq=False)
class Numbers:
    """Items 0 .. 9, one for each key."""

    broken: str = ""
    network: Network = field(default_factory=lambda: Network(nn.Identity()))
    read: list[str] = field(default_factory=list)

    name = "numbers"
    row_columns = {"value": pa.float64()}  # noqa: RUF012
    table_columns = (TableColumn("value", "value"),)

    def settings(self) -> dict[str, Any]:
        return {}

    def plan(self, store: object, on_progress: object) -> list[str]:
        return [f"{index:03d}" for index in range(10)]

    def items(self, key: str) -> list[Item]:
        if key == self.broken:
            raise OSError("the disk is gone")
        self.read.append(key)
        return [Item(key, "number", int(key), torch.full((1, 1, 4, 4), float(key)))]

    def measure(self, method: Any, items: Any) -> list[list[dict[str, Any]]]:
        results = attribute_items(method, self.network, items)
        return [[{**result.cost(), "value": float(result.map.mean())}] for result in results]


METHODS = [Mean(), Mean(4, "failing")]


def rows_in(folder: Path) -> list[dict[str, Any]]:
    rows = pq.read_table(folder / "parts").drop_columns(["seconds"])
    return rows.sort_by([("method", "ascending"), ("key", "ascending")]).to_pylist()


def test_rows_are_those_of_one_device_and_each_image_is_read_once(tmp_path: Path) -> None:
    tasks, seen = [Numbers(), Numbers(), Numbers()], list[tuple[int, int]]()
    shared = run(
        *(tasks[0], METHODS, tmp_path / "shared"),
        batch=2,
        copies=tasks[1:],
        on_progress=lambda _, done, total: seen.append((done, total)),
    )
    alone = run(Numbers(), METHODS, tmp_path / "alone", batch=2)
    assert rows_in(tmp_path / "shared") == rows_in(tmp_path / "alone")
    assert [line.values for line in shared.methods] == [line.values for line in alone.methods]
    assert sorted(key for task in tasks for key in task.read) == tasks[0].plan(None, None)
    assert seen == [(index + 1, 10) for index in range(10)] + [(10, 10)]


def test_an_error_of_one_device_is_raised_and_the_run_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the disk is gone"):
        run(Numbers("005"), METHODS, tmp_path / "out", batch=1, copies=[Numbers("005")])
    assert "005" not in {row["key"] for row in rows_in(tmp_path / "out")}
    tasks = [Numbers(), Numbers()]
    run(tasks[0], METHODS, tmp_path / "out", batch=1, copies=tasks[1:])
    assert len(rows_in(tmp_path / "out")) == 20
    read = {*tasks[0].read, *tasks[1].read}
    assert "005" in read
    assert "000" not in read  # its units were begun first, and written


def test_new_weights_are_the_same_in_several_threads() -> None:
    network = Network(nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40)))
    expected = [reinitialise(network, count).weight_hash() for count in (1, 2)]

    def find_hash(count: int) -> str:
        with seeded(count):
            return reinitialise(network, count).weight_hash()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(find_hash, (1, 2) * 20)) == expected * 20


def prepare(image: Image.Image) -> Tensor:
    pixels = np.array(image.resize((16, 16), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).movedim(-1, 0).float() / 127.5 - 1


@pytest.mark.slow
@pytest.mark.parametrize("task", ["pointing", "faithfulness"])
def test_the_command_shares_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    (tmp_path / "images").mkdir()
    for name, colour in COLOURS.items():
        picture = Image.new("RGBA", (64, 64))
        ImageDraw.Draw(picture).ellipse((4, 4, 60, 60), fill=(*colour, 255))
        picture.save(tmp_path / "images" / f"{name}.png")
    torch.manual_seed(0)
    labels = (*COLOURS, "yellow")
    data = f"scenes:{tmp_path / 'images'}" if task == "pointing" else f"folder:{tmp_path / 'images'}"
    monkeypatch.setattr("extremal.cli.networks.describe_device", str)  # the fake devices have no hardware
    shared = []
    with fake_device("cuda:0", "cuda:1"):
        monkeypatch.setattr(zoo, "load", lambda *_: Network(Colours(), prepare, labels, "colours").to("cuda:0"))
        for device in ("auto", "cuda:0"):
            options = ["--data", data, "--methods", "centre,gradient", "--device", device, "--json", "--batch", 1]
            options += ["--count", 3] if task == "pointing" else ["--confidence", 0]
            code, output, error = call("bench", task, "--out", tmp_path / device, *options)
            assert code == 0, error
            assert [entry["method"] for entry in json.loads(output)["methods"]] == ["centre", "gradient"]
            shared.append(rows_in(tmp_path / device))
    for first, second in zip(*shared, strict=True):
        assert first["status"] == "ok"
        for name, value in first.items():
            assert value == pytest.approx(second[name], abs=1e-5) if isinstance(value, float) else value == second[name]
