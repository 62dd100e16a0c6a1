"""Networks, inputs and options for which the tasks have no number, with a remedy; and the search for images."""

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from extremal import zoo
from extremal.benchmark.baselines import METHODS
from extremal.benchmark.data import Folder
from extremal.benchmark.runner import run
from extremal.benchmark.tasks.faithfulness import Faithfulness
from extremal.benchmark.tasks.grid import Grid
from extremal.benchmark.tasks.pointing import Pointing
from extremal.errors import ExtremalValueError
from extremal.networks.network import Network
from support.errors import message_of
from support.terminal import call
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


class TestNumbers:
    @pytest.mark.parametrize("value", [math.inf, math.nan, -1.0, "1"])
    @pytest.mark.parametrize("name", ["tolerance", "smooth"])
    def test_of_the_pointing_game(self, name: str, value: float) -> None:
        data = Folder.__new__(Folder)
        data.has_regions, data.classes = True, ()
        assert message_of(Pointing, make_network(), data, **{name: value}).startswith(f"{name} must ")

    @pytest.mark.parametrize("task", [Grid, Faithfulness])
    def test_of_confidence(self, pictures: Path, task: type[Grid]) -> None:
        message = message_of(task, make_network(), Folder(pictures), confidence=math.nan)
        assert message == "confidence must lie in [0, 1], got nan; it is a probability, e.g. 0.9"


def test_one_output_is_never_confident(pictures: Path, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 1))
    network = Network(model, to_tensor, ("red",), "one")
    assert message_of(run, Faithfulness(network, Folder(pictures)), [METHODS["centre"]], tmp_path / "out") == (
        "a network must distinguish two classes or more to be confident of one, one has 1 output; wrap it so that it "
        "has an output for each class"
    )


def test_the_search_for_confident_images_reports_each(pictures: Path, tmp_path: Path) -> None:
    reported: list[tuple[str, int, int]] = []
    task = Grid(make_network(), Folder(pictures), count=1, cell=20)
    run(task, [METHODS["centre"]], tmp_path / "out", on_progress=lambda *stage: reported.append(stage))
    assert reported[:4] == [("confidence", index, 4) for index in range(4)]
    assert {stage for stage, _, _ in reported[4:]} == {"centre", "table"}


class TestUnreadableImages:
    def test_are_counted_with_the_reason(self, pictures: Path, tmp_path: Path) -> None:
        (pictures / "broken.png").write_bytes(b"no picture")
        for _ in range(2):  # the second run reads what the first one found
            table = run(Faithfulness(make_network(), Folder(pictures)), [METHODS["centre"]], tmp_path / "out")
            assert (table.methods[0].judged, table.methods[0].failed) == (4, 1)
            ((reason, count),) = table.reasons
            assert "broken.png" in reason
            assert count == 1

    def test_are_in_no_mosaic(self, pictures: Path, tmp_path: Path) -> None:
        (pictures / "broken.png").write_bytes(b"no picture")
        grid = Grid(make_network(), Folder(pictures), count=1, cell=20)
        with pytest.warns(UserWarning, match=r"^1 image that cannot be read is in no mosaic: .*broken\.png"):
            run(grid, [METHODS["centre"]], tmp_path / "out")

    def test_that_were_readable_before(self, pictures: Path, tmp_path: Path) -> None:
        data = Folder(pictures)
        task = Faithfulness(make_network(), data)

        def remove(stage: str, *_: int) -> None:
            if stage == "centre":
                (pictures / "red.png").unlink(missing_ok=True)

        table = run(task, [METHODS["centre"]], tmp_path / "out", on_progress=remove)
        assert (table.methods[0].judged, table.methods[0].failed) == (3, 1)

    def test_only(self, pictures: Path, tmp_path: Path) -> None:
        for file in pictures.iterdir():
            file.write_bytes(b"no picture")
        message = message_of(run, Faithfulness(make_network(), Folder(pictures)), [METHODS["centre"]], tmp_path / "out")
        assert "finds none among 4, of which 4 cannot be read; lower --confidence" in message


def test_a_replaced_image_makes_another_run(pictures: Path, tmp_path: Path) -> None:
    run(Faithfulness(make_network(), Folder(pictures)), [METHODS["centre"]], tmp_path / "out")
    Image.new("RGB", (90, 80), "red").save(pictures / "red.png")
    task = Faithfulness(make_network(), Folder(pictures))
    assert "digest" in message_of(run, task, [METHODS["centre"]], tmp_path / "out")


def test_classes_that_the_data_do_not_have(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> Network:
        raise ExtremalValueError("all other options are right")

    monkeypatch.setattr(zoo, "load", load)
    for name in COLOURS:
        (pictures / name).mkdir()
        (pictures / f"{name}.png").rename(pictures / name / "a.png")
    names = tmp_path / "classes.json"
    arguments = ["bench", "stability", "--data", f"folder:{pictures}", "--out", tmp_path / "out", "--classes", names]
    unknown = "--classes must name classes of the data set, got 'gren'; nearest: "
    for name, limit, message in (("gren", 0, unknown), ("gren", 1, unknown), ("green", 1, "all other options")):
        names.write_text(f'{{"{name}": 1}}')
        code, _, error = call(*arguments, "--limit", limit, columns=200)
        assert code == 2
        assert error.startswith(f"error: {message}")
