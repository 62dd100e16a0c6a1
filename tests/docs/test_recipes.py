"""Each recipe runs as shown and prints the stated results."""

import glob
import json
import re
import shlex
from pathlib import Path

import pytest
import skimage.data
from PIL import Image
from typer.testing import CliRunner

import extremal
from extremal import solvers
from extremal.cli import main

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
NUMBER = r"(-?\d+\.\d+(?:e-\d+)?)"


def _sections() -> dict[str, str]:
    parts = re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def blocks(kind: str) -> dict[str, str]:
    """Return the first block of this kind of each recipe that has one, by the recipe's heading."""
    texts_by_recipe = {name: re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for name, text in _sections().items()}
    return {name: texts[0] for name, texts in texts_by_recipe.items() if texts}


RECIPES = blocks("python")

# recipe -> pattern of its output, and minimum and maximum of each number in it
OUTPUTS = {
    "Your own network and preprocessing": (rf"\('red',\) {NUMBER}", [(0.9, 1.0)]),
    "A Vision Transformer, patches as units": (r"\[(?:\d+, ){9}\d+\] 30 of 100", []),
    "A volume with thick slices": (rf"torch.Size\(\[10, 32, 32\]\) {NUMBER}", [(0.6, 1.0)]),
    "A detector's box": (rf"box of class 2 at 40, 36, 56, 52 {NUMBER}", [(0.7, 1.0)]),
    "A box that a detector does not find": (rf"no box of cat at 8, 8, 24, 24 {NUMBER} sufficient", [(0.7, 1.0)]),
    "A segmenter's class over a region": (rf"texture over the region {NUMBER}", [(0.7, 1.0)]),
    "Similarity of two images": (
        rf"similarity to the reference at global_pool {NUMBER} \['{NUMBER}', '{NUMBER}'\]",
        [(0.7, 1.0), (0.1, 1.0), (0.3, 1.0)],
    ),
    "A unit of a hidden layer": (rf"\('0', 'Conv2d', \(6, 8, 8\)\)\n2, 5 {NUMBER}", [(0.35, 1.0)]),
    "Channels of a hidden layer": (r"\(2, 5\) \(2, 5\) 1", []),
    "Several images, several targets": (
        r"torch.Size\(\[2, 2, 1, 32, 32\]\) \('upper left', 'upper left'\) \('upper left', 'lower right'\)\n"
        rf"\[{NUMBER}, {NUMBER}\]",
        [(0.0, 0.2), (0.7, 1.0)],
    ),
    "A group of classes": (
        r"\('tabby', 'cat \(2 classes\)'\) \(1, \(0, 1\)\)\n"
        rf"\[{NUMBER}, {NUMBER}\]\n\({NUMBER},\)",
        [(0.0, 1.0), (0.9, 1.0), (0.9, 1.1)],
    ),
    "Evidence against a class": (
        rf"margin left {NUMBER} right {NUMBER}\nnegative left {NUMBER} right {NUMBER}",
        [(0.6, 1.0), (0.0, 0.2), (0.0, 0.2), (0.6, 1.0)],
    ),
    "Deletion instead of preservation": (
        rf"preserve \['{NUMBER}', '{NUMBER}', '{NUMBER}'\] 0.07\ndelete \['{NUMBER}', '{NUMBER}', '{NUMBER}'\] .*",
        [(0.9, 1.2), (0.9, 1.2), (0.9, 1.2), (-0.2, 0.6), (0.4, 1.2), (0.8, 1.2)],
    ),
    "Judging the masks of another method": (
        rf"occlusion \['{NUMBER}', '{NUMBER}'\] \['sufficient', 'sufficient'\]\n"
        rf"random \['{NUMBER}', '{NUMBER}'\] \['insufficient', 'insufficient'\]",
        [(0.9, 1.1), (0.9, 1.1), (-0.1, 0.4), (-0.1, 0.4)],
    ),
    "Saving, loading and exporting masks": (r"128 True", []),
    "With captum and Quantus": (
        r"torch.Size\(\[2, 1, 32, 32\]\) \[\['sufficient', 'sufficient'\], \['sufficient', 'sufficient'\]\]",
        [],
    ),
    "The paper's evaluation": (
        rf"pointing_game {NUMBER}\nenergy {NUMBER}\niou {NUMBER}\naverage_precision {NUMBER}",
        [(1.0, 1.0), (0.4, 0.7), (0.7, 0.9), (0.9, 1.0)],
    ),
}
FOLDER = "A folder of photographs"


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten one solver, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(solvers.SOLVERS, "path", solvers.Path(steps=4, polish=2, draws=1, search=2))


def test_no_recipe_is_left_out() -> None:
    assert [*RECIPES] == [*_sections()]
    assert {*RECIPES} == {*OUTPUTS, FOLDER}
    assert PAGE.count("```python") == len(RECIPES)


@pytest.mark.parametrize("name", [*OUTPUTS])
def test_a_recipe_prints_the_stated_results(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(RECIPES[name], name, "exec"), {})
    pattern, ranges = OUTPUTS[name]
    text = capsys.readouterr().out.strip()
    match = re.fullmatch(pattern, text)
    assert match, text
    for number, (minimum, maximum) in zip(map(float, match.groups()), ranges, strict=True):
        assert minimum <= number <= maximum, text


def test_exported_masks_are_read_back_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    from pycocotools import mask as coco

    exec(compile(RECIPES["Saving, loading and exporting masks"], "export", "exec"), {})
    mask = extremal.Explanation.load("square.safetensors").binary(0.125)[0, 0].numpy().astype(np.uint8)
    annotation = json.loads(Path("square.json").read_text())
    assert (np.asarray(Image.open("square.png")) == 255 * mask).all()
    assert (coco.decode(annotation["segmentation"]) == mask).all()
    assert len(annotation["polygons"]) >= 1
    assert annotation["area"] == mask.sum() == 128


def test_a_folder_is_explained_by_the_command_and_read_by_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    for name in ("chelsea", "coffee"):
        Image.fromarray(getattr(skimage.data, name)()).resize((96, 96)).save(f"photos/{name}.png")
    line, _, target = blocks("console")[FOLDER].strip().partition(" > ")
    words = [part for word in shlex.split(line)[1:] for part in (sorted(glob.glob(word)) if "*" in word else [word])]
    ended = CliRunner().invoke(main.app, words)
    assert ended.exit_code == 0, ended.stderr
    Path(target).write_text(ended.stdout)
    exec(compile(RECIPES[FOLDER], FOLDER, "exec"), {})
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[0] for line in lines] == ["photos/chelsea.png", "photos/coffee.png"]
    assert all(line.endswith("torch.Size([1, 1, 224, 224])") for line in lines)
    assert [len(re.findall(r"'(?:sufficient|insufficient|suspect)'", line)) for line in lines] == [3, 3]
