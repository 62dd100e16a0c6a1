"""Networks by name on the command line: what is said about them, and refusals in one line."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support import terminal
from support.hub import Hub, serve_hub
from support.onnx_files import SmallClassifier, export_onnx

pytest.importorskip("onnx2pytorch")
pytest.importorskip("onnxruntime")
pytest.importorskip("huggingface_hub")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "cat.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return str(path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve_hub(monkeypatch, tmp_path / "cache") as served:
        yield served


@pytest.mark.parametrize("command", [["doctor"], ["explain", "--dry-run", "--network"]])
def test_an_onnx_file(command: list[str], image: str, tmp_path: Path) -> None:
    name = f"onnx:{export_onnx(SmallClassifier(), tmp_path / 'net.onnx')}"
    arguments = ["doctor", name, image] if command == ["doctor"] else [*command, name, image, "--areas", "0.2"]
    code, out, err = terminal.call(*arguments)
    assert code in (0, 1)
    assert "output (1, 3): classes on axis 1" in " ".join(out.split())
    assert err.startswith(f"note: {name} does not describe its preprocessing: ")
    assert len(err.splitlines()) == 1


def test_a_missing_onnx_file(image: str, tmp_path: Path) -> None:
    code, out, err = terminal.call("explain", image, "--network", f"onnx:{tmp_path / 'no.onnx'}")
    assert (code, out) == (2, "")
    assert err == f"error: an ONNX network must be an existing file, got '{tmp_path / 'no.onnx'}'; check the path\n"


def test_a_repository_that_does_not_exist(hub: Hub, image: str) -> None:
    code, out, err = terminal.call("explain", image, "--network", "hf:owner/nothing")
    assert (code, out) == (2, "")
    assert "got 'hf:owner/nothing', which does not exist there or is private; check the name" in err
    assert len(err.splitlines()) == 1
