"""The commands `extremal sets` and `extremal contrast`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from extremal import Contrast, RegionSets, zoo
from support.fake_network import BOX, SIDE, TEXTURE, fake_network, save_image
from support.terminal import call

OTHER = (slice(16, 22), slice(4, 10))
AREA = 100 / SIDE**2  # of the box


class Rivals(nn.Module):
    """Class 0 by the texture of one box, class 1 by that of another, class 2 by none."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = ((x * TEXTURE)[(..., *place)].mean((1, 2, 3)) for place in (BOX, OTHER))
        return torch.stack([8 * first, 5 * second, 0 * first + 1], 1)


@pytest.fixture(autouse=True)
def _image(fake_commands: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "cat.png")
    net = replace(fake_network(), model=Rivals(), labels=("cat", "dog", "none"), groups={"pets": (0, 1)})
    monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: net)


def test_sets_are_written_and_printed() -> None:
    code, out, err = call("sets", "cat.png", "--areas", f"{AREA},0.4", "--perturbation", "fade", columns=140)
    assert (code, err) == (0, "")
    folder = Path("extremal-out/cat-sets")
    assert {"sets.safetensors", "report.html"} <= {file.name for file in folder.iterdir()}
    sets = RegionSets.load(folder / "sets.safetensors")
    assert sets.sufficient.target_names == ("cat",)
    assert "Smallest regions: sufficient " in out
    assert "Complete: sufficient and necessary at once" in out


def test_a_contrast_as_json() -> None:
    code, out, err = call(
        *("contrast", "cat.png", "--areas", f"{AREA},0.4", "--perturbation", "fade", "--solver", "path", "--json")
    )
    assert (code, err) == (0, "")
    (record,) = json.loads(out)
    assert record["names"] == ["cat", "dog"]
    assert record["target_name"] == "cat rather than dog"
    assert record["regions"]["loss"]["area"] == pytest.approx(AREA)
    assert len(record["answers"]) == 2
    found = Contrast.load(record["files"]["explanation"])
    assert [list(row) for row in found.answers] == record["answers"]
    assert Path(record["files"]["masks"]["loss"]).name == "region-loss.png"
    page = Path(record["files"]["report"]).read_text()
    assert "Answer without the region" in page
    assert record["headline"].split(";")[0].replace("’", "'") in page


def test_results_are_replaced_only_with_force() -> None:
    options = ("--areas", "0.2", "--target", "cat", "--other", "none", "--solver", "path")
    assert call("contrast", "cat.png", *options)[0] == 0
    assert call("contrast", "cat.png", *options)[0] == 0
    assert call("contrast", "cat.png", *options, "--force")[0] == 0
    names = sorted(folder.name for folder in Path("extremal-out").iterdir())
    assert names == ["cat-contrast-cat-none", "cat-contrast-cat-none-2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("contrast", "--target", "pets"),
            "--target must be a single class for a contrast, got a group; name a class",
        ),
        (
            ("contrast", "--other", "cat|dog"),
            "--other must be a single class for a contrast, got a group; name a class",
        ),
        (
            ("contrast", "--target", "dog"),
            "a contrast must be with a class that scores lower on the whole input, dog scores 3 below cat; swap them",
        ),
        (("contrast", "--other", "cats"), "target must be a class of fake, got 'cats'; nearest: cat"),
        (("sets", "--areas", "5,x"), "--areas must be numbers separated by commas, got '5,x'; "),
        (
            ("sets", "--solver", "pat"),
            "solver must be one of consensus, path, penalty, search, got 'pat'; nearest: path",
        ),
    ],
)
def test_mistakes(arguments: tuple[str, ...], message: str) -> None:
    command, *options = arguments
    code, out, err = call(command, "cat.png", *options, columns=200)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert not Path("extremal-out").exists()


@pytest.mark.parametrize(("command", "runs"), [("sets", "sufficient"), ("contrast", "cat rather than dog")])
def test_a_plan_is_printed_and_nothing_is_written(command: str, runs: str, tmp_path: Path) -> None:
    options = ("cat.png", "--areas", f"{AREA},0.4", "--perturbation", "fade", "--dry-run")
    code, out, err = call(command, *options, columns=140)
    assert (code, err) == (0, "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.png"]
    assert runs in out
    assert "besides these runs: " in out
    assert out.endswith(f"nothing was written; the results would be in {Path(f'extremal-out/cat-{command}')}\n")
    code, out, err = call(command, *options, "--json")
    assert (code, err) == (0, "")
    (record,) = json.loads(out)
    counts = record["evaluations"]
    line = f"evaluations: {counts['gradients']} forward and backward, {counts['forwards']} forward; "
    assert line in call(command, *options, columns=140)[1]
    assert next(iter(record["parts"])) == runs
