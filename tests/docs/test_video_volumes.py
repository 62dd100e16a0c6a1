"""The examples of the page on clips and volumes run as shown, one after another."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.stack_files import write_clip, write_nifti

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

PAGE = (Path(__file__).parents[2] / "docs" / "video_volumes.md").read_text(encoding="utf-8")
OUTPUTS = (
    r"\(1, 3, 1, 12, 48, 64\) 12",
    r"\(1, 2, 1, 12, 40, 40\) \[2.5, 1.0, 1.0\] {'kind': 'volume', 'orientation': 'SPL'}",
    r"\('lesion over the region',\) \(1, 2, 1, 16, 32, 32\)",
)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of MONAI
def test_the_examples_print_the_stated_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_clip(tmp_path / "clip.mp4", rng.integers(0, 256, (24, 48, 64, 3)).astype(np.uint8))
    write_nifti(tmp_path / "scan.nii.gz", rng.normal(0, 500, (40, 40, 10)).astype(np.float32), (1.0, 1.0, 3.0))
    names: dict[str, Any] = {}
    for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(text, "video_volumes.md", "exec"), names)
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == len(OUTPUTS)
    for pattern, line in zip(OUTPUTS, lines, strict=True):
        assert re.fullmatch(pattern, line), line
    assert (tmp_path / "report.html").stat().st_size > 10_000
