"""Networks, inputs and options for which the tasks have no number: refused, with a remedy."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from extremal.benchmark.baselines import METHODS
from extremal.benchmark.data import Folder
from extremal.benchmark.runner import run
from extremal.benchmark.tasks.grid import Grid
from extremal.networks.network import Network
from support.errors import message_of
from support.toys import Colours

COLOURS = {"red": "red", "green": "lime", "blue": "blue", "yellow": "yellow"}  # classes and Pillow's names


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image of its own size."""
    return torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 127.5 - 1


def make_network(labels: tuple[str, ...] = tuple(COLOURS)) -> Network:
    return Network(Colours(), to_tensor, labels, "colours", [0.5] * 3, [0.5] * 3)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """One image of each colour, three of them of one size."""
    (tmp_path / "pictures").mkdir()
    for index, name in enumerate(COLOURS):
        Image.new("RGB", (40 + index // 3, 40), COLOURS[name]).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path / "pictures"


class TestGrid:
    def test_inputs_of_several_sizes_need_cells_of_one(self, pictures: Path, tmp_path: Path) -> None:
        message = message_of(run, Grid(make_network(), Folder(pictures)), [METHODS["centre"]], tmp_path / "out")
        assert message.startswith("a mosaic must have inputs of one size, got 40 × 4")
        assert message.endswith(" px; choose --cell, e.g. 224")
        grid = Grid(make_network(), Folder(pictures), count=1, cell=20)
        assert run(grid, [METHODS["centre"]], tmp_path / "cells").methods[0].judged == 4

    def test_classes_of_one_name_are_distinct(self, pictures: Path, tmp_path: Path) -> None:
        network = make_network(("crane", "crane", "blue", "yellow"))
        run(Grid(network, Folder(pictures), count=1, cell=20), [METHODS["centre"]], tmp_path / "out")
        assert sorted(row["cell"] for row in pq.read_table(tmp_path / "out" / "parts").to_pylist()) == [0, 1, 2, 3]
