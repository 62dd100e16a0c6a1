"""Clips and volumes on the command line: explained, planned, examined; wrong ones are one line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from extremal import Explanation
from support import terminal
from support.stack_files import write_clip, write_series
from support.stack_toys import CLIP_SHAPE, VOLUME_SHAPE, draw_scene

pytestmark = pytest.mark.usefixtures("one_thread")

CLIPS, VOLUMES = "support.stack_toys:clip_network", "support.stack_toys:volume_network"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a clip and a series, in which commands run."""
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", np.stack([draw_scene(CLIP_SHAPE)] * 3, -1))
    write_series(tmp_path / "series", 4 * draw_scene(VOLUME_SHAPE).astype(int), range(0, 40, 4))
    return tmp_path


def test_a_clip_and_its_result_folder(folder: Path) -> None:
    code, stdout, stderr = terminal.call(
        "explain", "clip.mp4", "--network", CLIPS, "--target", "texture", "--areas", "0.03,0.066"
    )
    assert code == 0, stderr
    assert "sufficient" in stdout
    out = folder / "extremal-out" / "clip-texture"
    names = {path.name for path in out.iterdir()}
    assert names == {"explanation.safetensors", "figure.png", "report.html", "mask-0.03.npy", "mask-0.066.npy"}
    result = Explanation.load(out / "explanation.safetensors")
    assert np.load(out / "mask-0.03.npy", allow_pickle=False).shape == result.masks.shape[3:] == CLIP_SHAPE
    assert "frame 1 of 16" in (out / "report.html").read_text(encoding="utf-8")
    code, _, stderr = terminal.call(
        "explain", "clip.mp4", "--network", CLIPS, "--target", "texture", "--areas", "0.05", "--force"
    )
    assert code == 0, stderr
    assert not (out / "mask-0.03.npy").exists(), "it is replaced"


def test_a_series_with_all_measurements(folder: Path) -> None:
    options = ("--areas", "0.03,0.066", "--refine", "--minimal", "--stability", "--alternatives", "2", "--json")
    code, stdout, stderr = terminal.call("explain", "series", "--network", VOLUMES, *options)
    assert code == 0, stderr
    (record,) = json.loads(stdout)
    assert record["settings"]["spacing"] == pytest.approx([4, 1, 1])
    assert record["settings"]["stack"] == {"kind": "volume", "orientation": "SPL"}
    assert record["certificate"]["area"] <= 0.03
    assert record["minimal"]["area"] <= 0.066
    assert all(Path(path).suffix == ".npy" and Path(path).exists() for path in record["files"]["masks"])


def test_plans_and_examinations() -> None:
    code, stdout, stderr = terminal.call("explain", "series", "--network", VOLUMES, "--dry-run")
    assert code == 0, stderr
    assert "1 × 10 × 36 × 44 as input of volume toy" in stdout
    code, stdout, stderr = terminal.call("doctor", CLIPS, "clip.mp4")
    assert code == 0, stderr
    assert "problems: 0" in stdout


def test_errors_are_one_line(folder: Path) -> None:
    (folder / "text.mp4").write_text("no video")
    (folder / "text.nii.gz").write_text("no volume" * 100)
    (folder / "photo.png").write_bytes((Path(__file__).parents[2] / "docs" / "tripod.jpg").read_bytes())
    next((folder / "series").iterdir()).write_bytes(b"")
    rules = {
        ("missing.mp4", CLIPS): "a clip must be an existing file",
        ("text.mp4", CLIPS): "a clip must be readable to its end",
        ("text.nii.gz", VOLUMES): "a volume must be readable to its end",
        ("series", VOLUMES): "a slice must be readable DICOM",
        ("clip.mp4", VOLUMES): "a network must take clips to read 'clip.mp4', volume toy takes volumes",
        ("clip.mp4", "embedded"): "a network must take clips to read 'clip.mp4', embedded takes pictures",
        ("photo.png", CLIPS): "clip toy takes clips, got a picture",
    }
    for (path, network), rule in rules.items():
        code, stdout, stderr = terminal.call("explain", path, "--network", network)
        assert code == 2, stdout
        assert stderr.count("\n") == 1
        assert rule in stderr
    assert not (folder / "extremal-out").exists()


@pytest.mark.parametrize("name", ["missing.mp4", "empty.nii", "series"])
def test_files_are_checked_before_torch_is_imported(folder: Path, name: str) -> None:
    (folder / "empty.nii").touch()
    for path in (folder / "series").iterdir():
        path.write_bytes(b"")
    script = (
        "import sys\nfrom extremal.cli.input_checks import find_image_errors\n"
        f"print(len(find_image_errors([{name!r}])), 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["0" if name == "series" else "1", "False"]
