"""The command `run` over clips, volumes and sounds, with pages, status and summary."""

import json
from pathlib import Path

import numpy as np
import pytest

from extremal.masking.solvers import SOLVERS, Consensus
from support.sounds import write_planted_tone
from support.stack_files import write_clip, write_series
from support.stack_toys import CLIP_SHAPE, VOLUME_SHAPE, draw_scene
from support.terminal import call

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = {
    "clips": "support.stack_toys:clip_network",
    "volumes": "support.stack_toys:volume_network",
    "sounds": "support.sounds:tone_network",
}
PAGE_WORDS = {"clips": "frame 1 of 16, ", "volumes": "slice 1 of 10, ", "sounds": "<audio"}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with inputs of each kind, beside which the runs are written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SOLVERS, "consensus", Consensus(steps=2, draws=2))
    Path("data").mkdir()
    write_clip(Path("data/clip.mp4"), np.stack([draw_scene(CLIP_SHAPE)] * 3, -1))
    write_series(Path("data/series"), 4 * draw_scene(VOLUME_SHAPE).astype(int), range(0, 40, 4))
    write_planted_tone(Path("data/tone.wav"))


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_run_with_pages(kind: str) -> None:
    command = ("run", "data", "--out", "run", "--network", NETWORKS[kind], "--areas", "10%", "--workers", "0")
    code, output, stderr = call(*command, "--pages", "--json")
    assert code == 0, stderr
    status = json.loads(output)
    assert (status["items"], status["failed"], status["state"]) == (1, 0, "done")
    assert f"takes {kind}, " in stderr
    (page,) = Path("run/pages").iterdir()
    assert PAGE_WORDS[kind] in page.read_text(encoding="utf-8")
    page.unlink()
    assert call(*command, "--pages")[0] == 0
    assert page.exists(), "it is written again without a new row"
    code, _, stderr = call("summary", "run", "--out", "out")
    assert code == 0, stderr
    assert f"pages/{page.name}" in Path("out/run-summary/summary.html").read_text(encoding="utf-8")


def test_what_is_refused() -> None:
    Path("data/clip.mp4").rename("clip.mp4")
    code, _, stderr = call("run", "data", "--out", "run", "--network", NETWORKS["clips"])
    assert code == 2
    assert stderr.startswith("error: a run of clip toy must have clips (.mp4")
    assert "got only 1 sound and 1 volume; " in stderr
    code, _, stderr = call("run", "clip.mp4", "--out", "run", "--workers", "0")
    assert code == 2
    assert "failed: clip.mp4: a network must take clips to read 'clip.mp4', embedded takes pictures" in stderr
    code, _, stderr = call("run", "missing.mp4", "--out", "other", "--network", NETWORKS["clips"])
    assert (code, stderr) == (2, "error: an image must be an existing file, got 'missing.mp4'; check the path\n")
