"""The code of the guide runs, its tables match the code, and its script makes its figures."""

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from extremal import solvers
from extremal.explanations.evidence import N_UNSEEN
from extremal.explanations.verdict import NOTHING_TO_KEEP, Status, reach_verdict
from extremal.masking.games import GAMES
from extremal.masking.perturbations import PERTURBATIONS
from extremal.networks.network import Network
from extremal.scores import SCORES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GUIDE = {
    page: (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for page in ("index", "theory", "choosing", "evidence")
}
SCRIPT = ROOT / "examples" / "guide_figures.py"


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the default solver, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(solvers.SOLVERS, "path", solvers.Path(steps=4, polish=2, draws=1, search=2))
    monkeypatch.setitem(solvers.SOLVERS, "consensus", solvers.Consensus(steps=1, draws=1, least=1))


def blocks(page: str, language: str = "python") -> list[str]:
    """Return the code blocks of one page, in order."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE[page], re.DOTALL)


def run(page: str) -> dict[str, Any]:
    """Run the examples of a page in one namespace, as a reader would."""
    names: dict[str, Any] = {}
    for text in blocks(page):
        exec(compile(text, f"{page}.md", "exec"), names)
    return names


def first_column(page: str, heading: str) -> list[str]:
    """Return the names in code type that start the rows of the first table after a heading."""
    section = GUIDE[page].split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([a-z -]+)`", section, re.MULTILINE)


@pytest.mark.usefixtures("quick")
def test_the_first_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("index")
    assert (tmp_path / "tripod.safetensors").exists()
    printed, shown = capsys.readouterr().out.splitlines(), blocks("index", "text")[0].splitlines()
    assert len(printed) == len(shown)
    numbers = re.compile(r"-?\d+(\.\d+)?( %)?")
    assert numbers.sub("n", printed[0]) == numbers.sub("n", shown[0])
    assert [line.split()[0] for line in printed[1:5]] == [line.split()[0] for line in shown[1:5]]


def test_the_first_page_starts_as_the_readme_does() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    start = blocks("index")[0].partition(", areas")[0]
    assert start.endswith("skimage.data.camera()")
    assert start in readme
    (demo,) = re.findall(r"^make demo.*$", GUIDE["index"], re.MULTILINE)
    assert demo in readme


def test_choosing_finds_the_stated_results(capsys: pytest.CaptureFixture[str]) -> None:
    """With the default solver: the network is small."""
    names = run("choosing")
    assert min(names["kept"].curve().binary) > 0.99
    small, large = names["gone"].curve().binary
    assert 0.54 < small < 0.66  # at best 0.64: 82 of the 128 places of both squares
    assert large > 0.99
    sets = [names["sets"].smallest(kind) for kind in ("sufficient", "necessary", "complete")]
    assert [(found.region.area, found.verdict.label) for found in sets] == [
        (0.07, "sufficient"),
        (0.14, "sufficient"),
        (0.14, "sufficient"),
    ]
    assert names["difference"].names == ("cat", "dog")
    assert names["turning"].region.area == 0.07
    assert names["difference"].overlap() < 0.1
    full, blank = float(names["weaker"].score_full[0]), float(names["weaker"].score_blank[0])
    assert full - blank == pytest.approx(3)
    assert names["between"].area == pytest.approx(0.7 * 0.0625, rel=0.15)
    assert names["second"].settings["seed"] == 1
    assert "enough at" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_the_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    names = run("evidence")
    assert names["centred"].settings["solver"] == {"name": "given"}
    printed = capsys.readouterr().out
    section = GUIDE["evidence"].split("\n| unseen | leaves |")[1].split("\n\n")[0]
    unseen = ", ".join(re.findall(r"^\| ([a-z, ]+) \|", section, re.MULTILINE)).split(", ")
    assert re.findall(r"^([a-z ]+): -?\d+\.\d\d$", printed, re.MULTILINE) == unseen[:N_UNSEEN]


def test_verdicts_are_worded_as_in_the_code() -> None:
    """One mask for each row of the table, in its order."""
    section = GUIDE["evidence"].split("## Verdicts\n")[1]
    rows = re.findall(r"^\| ([\w ]+) \| [^|]+ \| ([^|]+) \|$", section, re.MULTILINE)[1:]
    verdicts = [
        NOTHING_TO_KEEP,
        reach_verdict(float("nan"), 0.95, [0.9], [0.1]),
        reach_verdict(24.3, 23.91, [0.1], [0.0]),
        reach_verdict(1.3, 1.59, [0.8], [0.96]),
        reach_verdict(1.1, 0.2, [0.1], [0.0]),
        reach_verdict(0.7, 0.37, [0.1], [0.0]),
        reach_verdict(1.0, 0.93, [], [0.5], noun="set", rivals=[0.95]),
        reach_verdict(1.3, 1.17, [0.01], [0.28]),
        reach_verdict(1.0, 0.94, [0.65], [0.36], stable_iou=0.23),
        reach_verdict(1.0, 0.94, [0.65], [0.36]),
    ]
    assert rows == [(verdict.label, verdict.reason) for verdict in verdicts]


def test_tables_have_every_name() -> None:
    assert first_column("theory", "Games") == [*GAMES]
    assert first_column("choosing", "Score") == [
        "margin",
        "logit",
        "contrastive",
        "probability",
        "log-probability",
        "negative",
        "sigmoid",
    ]
    assert {*first_column("choosing", "Score")} == {*SCORES}
    assert first_column("choosing", "Perturbation") == [*PERTURBATIONS]
    assert first_column("evidence", "Status") == [str(status) for status in Status]


def test_pictures_are_small_and_used() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    for picture in (ROOT / "docs" / "figures").iterdir():
        assert picture.stat().st_size < 150_000, picture.name
        assert f"(figures/{picture.name})" in pages, picture.name


def test_the_script_makes_the_figures(tmp_path: Path) -> None:
    """The figures that need no run."""
    script = runpy.run_path(str(SCRIPT))
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net = Network(torch.nn.Flatten(), mean=[0.0] * 3, std=[1.0] * 3)
    for name in ("pyramid", "destroyed"):
        script[name](net, x, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 10
    of_pages = {"app.png", "viewer.png"}  # examples/app_figure.py and viewer_figure.py, which need a browser
    assert set(re.findall(r'"(\w+\.(?:jpg|png))"', SCRIPT.read_text(encoding="utf-8"))) | of_pages == {
        picture.name for picture in (ROOT / "docs" / "figures").iterdir()
    }
