"""`--device` of every command that asks a network."""

import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from extremal import Explanation
from extremal.cli.main import app
from extremal.networks import devices

COMMANDS = {
    "explain": ["explain", "IMAGE", "--out", "OUT"],
    "sets": ["sets", "IMAGE", "--areas", "0.2", "--out", "OUT"],
    "contrast": ["contrast", "IMAGE", "--areas", "0.2", "--out", "OUT"],
    "channels": ["channels", "IMAGE", "--layer", "2", "--counts", "1,2", "--out", "OUT"],
    "class-channels": ["class-channels", "FOLDER", "--layer", "2", "--target", "0", "--out", "OUT"],
    "layers": ["layers"],
    "doctor": ["doctor", "NETWORK", "IMAGE"],
    "run": ["run", "IMAGE", "--out", "OUT", "--workers", "0"],
    "bench": ["bench", "stability", "--methods", "gradient", "--limit", "1", "--out", "OUT"],
    "figures methods": ["figures", "methods", "IMAGE", "--methods", "gradient", "--out", "OUT.png"],
    "figures areas": ["figures", "areas", "IMAGE", "--areas", "0.1,0.3", "--out", "OUT.png"],
}
SLOW = ("explain", "sets", "contrast", "channels", "class-channels", "run", "bench", "figures areas")
NETWORK = "users_device_network:build"
CODE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    return nn.Sequential(*layers)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "users_device_network.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_device_network", raising=False)
    (tmp_path / "images").mkdir()
    image = Image.effect_noise((32, 32), 80).convert("RGB")
    image.save(tmp_path / "images" / "noise.png")
    return tmp_path


def run_command(name: str, folder: Path, device: str) -> tuple[int, str, str]:
    places = {
        "IMAGE": str(folder / "images" / "noise.png"),
        "FOLDER": str(folder / "images"),
        "OUT": str(folder / "out"),
        "OUT.png": str(folder / "out.png"),
        "NETWORK": NETWORK,
    }
    arguments = [places.get(argument, argument) for argument in COMMANDS[name]]
    network = [] if name == "doctor" else ["--network", NETWORK]
    result = CliRunner().invoke(app, [*arguments, *network, "--device", device])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.slow) for name in SLOW), "layers", "doctor"])
def test_every_command_computes_on_the_processor(name: str, folder: Path) -> None:
    code, stdout, stderr = run_command(name, folder, "cpu")
    assert code in ((0, 1) if name == "doctor" else (0,)), stderr
    assert stdout
    assert "device:" not in stderr  # nothing was chosen


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_what_is_no_device(name: str, folder: Path) -> None:
    code, stdout, stderr = run_command(name, folder, "gpu")
    assert (code, stdout) == (2, "")
    assert stderr == "error: device must be auto, cpu, cuda, cuda:N, mps or xpu, got 'gpu'\n"
    assert not (folder / "out").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_a_device_that_is_not_there(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "count_devices", lambda kind: 2 if kind == "cuda" else 0)
    code, stdout, stderr = run_command(name, folder, "cuda:7")
    assert (code, stdout) == (2, "")
    assert stderr.endswith(
        "error: device must be one that this machine has, got 'cuda:7'; there are: cuda:0, cuda:1, cpu\n"
    )


def test_the_app_refuses_devices() -> None:
    result = CliRunner().invoke(app, ["app", "--device", "gpu"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: device must be auto, cpu, cuda, cuda:N, mps or xpu, got 'gpu'\n"


def test_the_chosen_device_is_told_if_there_are_several(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extremal.cli.networks.list_devices", lambda: ["mps", "cpu"])
    code, stdout, stderr = run_command("layers", folder, "auto")
    assert code == 0, stderr
    assert stderr == "device: cpu; others by --device: mps\n"
    assert "Conv2d" in stdout


@pytest.mark.slow
def test_results_store_the_device(folder: Path) -> None:
    run_command("explain", folder, "cpu")
    (path,) = (folder / "out").rglob("*.safetensors")
    assert Explanation.load(path).settings["device"] == "cpu"
