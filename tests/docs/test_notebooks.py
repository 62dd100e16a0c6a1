"""The notebooks run from start to end, and are kept without outputs."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
PAGE = (Path(__file__).parents[2] / "docs" / "notebooks.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# notebook -> patterns of what it prints
PRINTED = {
    "first_steps.ipynb": [r"10% sufficient", r"\(224, 224\) float32 1\.0 bool 0\.100", r"10%: IoU 0\.\d\d, \d+% of"],
    "own_network.ipynb": [
        r"9\d% of the red square",
        r"10 of 100 patches",
        r"(9\d|100)% of the object is inside the mask",
    ],
    "channels.ipynb": [r"blocks\.5 \(192, 7, 7\)", r"of 192 channels have \d+% of the effect", r"kept correlation 0\."],
}


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_is_valid_and_has_no_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


def test_each_is_listed() -> None:
    assert (
        set(re.findall(r"^- `(\w+\.ipynb)`", PAGE, re.MULTILINE)) == {path.name for path in NOTEBOOKS} == set(PRINTED)
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_runs_from_start_to_end(path: Path, tmp_path: Path) -> None:
    notebook = read(path)
    resources = {"metadata": {"path": str(tmp_path)}}  # it writes its files here
    NotebookClient(notebook, kernel_name="python3", timeout=600, resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    for pattern in PRINTED[path.name]:
        assert re.search(pattern, printed), pattern
    assert sum("text/html" in output.get("data", {}) for output in outputs) >= 1


@pytest.mark.slow
def test_the_code_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(text, "notebooks.md", "exec"), names)
    assert capsys.readouterr().out.startswith("Explanation of class 0 by Square, preserve game\n  areas")
    assert names["figure"].axes
