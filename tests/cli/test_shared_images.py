"""Several images on several devices: results in the order of the images, each written once."""

import json
import sys
import threading
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from extremal import Explanation
from extremal.cli.batch import ImageBatch, ImageOutcome, OnStage, ProcessImage
from extremal.cli.main import app
from extremal.errors import ExtremalValueError
from extremal.networks import zoo
from support.datasets import write_images
from support.fake_device import fake_device
from support.fake_network import fake_network

NAMES = ("one", "two", "three", "four")


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / f"{name}.png") for name in NAMES]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    return paths


class Processes:
    """Two functions that process images at the same time; the first image is finished last."""

    def __init__(self, failing: str = "", last: str = "one") -> None:
        self.failing, self.last, self.threads = failing, last, set[int]()
        self._others, self._lock, self._done = 3, threading.Lock(), threading.Event()

    def __call__(self, image: str, folder: Path, on_stage: OnStage) -> ImageOutcome:
        on_stage("search", 1, 2)
        self.threads.add(threading.get_ident())
        name = Path(image).stem
        print(f"the network saw {name}")  # noqa: T201
        if name == self.last:
            assert self._done.wait(30)
        with self._lock:
            self._others -= name != self.last
            if not self._others:
                self._done.set()
        if name == self.failing:
            raise ExtremalValueError(f"{name} must be an image")
        return ImageOutcome({"name": name}, lambda: typer.echo(f"result of {name}"))

    def both(self) -> list[ProcessImage]:
        return [self, self.__call__]


def process(batch: ImageBatch, processes: Processes) -> int:
    try:
        batch.process(lambda: None, processes.both)
    except typer.Exit as end:
        return end.exit_code
    return 0


def test_results_are_printed_in_order_and_what_networks_print_goes_to_stderr(
    images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    processes = Processes()
    assert process(ImageBatch(tmp_path / "out", images, False), processes) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"result of {name}" for name in NAMES]
    assert sorted(line for line in err.splitlines() if "saw" in line) == sorted(f"the network saw {n}" for n in NAMES)
    assert len(processes.threads) == 2
    assert threading.main_thread().ident not in processes.threads
    assert sys.stdout.write  # of this thread again


def test_an_image_that_fails_leaves_the_others(
    images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert process(ImageBatch(tmp_path / "out", images, True), Processes(failing="two")) == 1
    out, err = capsys.readouterr()
    assert [record["name"] for record in json.loads(out)] == ["one", "three", "four"]
    assert f"error: {images[1]}: two must be an image" in err.splitlines()


@pytest.mark.parametrize(("kind", "code"), [(KeyboardInterrupt, 130), (RuntimeError, None)])
def test_what_ends_one_device_ends_the_others(
    images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: type[BaseException], code: int | None
) -> None:
    begun = list[str]()

    def explain(image: str, folder: Path, on_stage: OnStage) -> ImageOutcome:
        begun.append(Path(image).stem)
        if begun[-1] == "two":
            raise kind
        while True:
            on_stage("search", 0, 1)

    batch = ImageBatch(tmp_path / "out", images, False)
    with pytest.raises(typer.Exit if code else kind) as end:
        batch.process(lambda: None, lambda: [explain, explain])
    assert getattr(end.value, "exit_code", None) == code
    assert sorted(begun) == ["one", "two"]
    assert ("interrupted: 0 of 4 images written" in capsys.readouterr().err) is bool(code)


@pytest.mark.slow
@pytest.mark.usefixtures("fake_commands")
def test_the_command_shares_images_and_finds_what_one_device_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [str(write_images(tmp_path / "images", 3)), "--areas", "0.1,0.3", "--json"]
    monkeypatch.setattr("extremal.masking.area.MAX_SECTIONS", 16)  # 256 are slow without a GPU
    monkeypatch.setattr("extremal.cli.networks.describe_device", str)  # the fake devices have no hardware
    with fake_device("cuda:0", "cuda:1"):
        monkeypatch.setattr(zoo, "load", lambda *_: fake_network().to("cuda:0"))
        shared = CliRunner().invoke(app, ["explain", *options, "--out", "shared"])
        alone = CliRunner().invoke(app, ["explain", *options, "--out", "alone", "--device", "cuda:0"])
    assert (shared.exit_code, alone.exit_code) == (0, 0), shared.output + alone.output
    records, expected = json.loads(shared.stdout), json.loads(alone.stdout)
    for key in ("path", "target", "verdict", "status"):
        assert [record.get(key) for record in records] == [record.get(key) for record in expected]
    used = {Explanation.load(path).settings["device"] for path in Path("shared").rglob("*.safetensors")}
    assert used == {"cuda:0", "cuda:1"}
