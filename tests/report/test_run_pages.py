"""Pages of a run's images: names that are safe for any key, made of rows alone, linked by the summary."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from extremal import ExtremalValueError, Network, jobs
from extremal.report import run_pages
from extremal.report.run_folder import write_summary
from support.pages import NASTY, Page

KEYS = ("cat.jpg", "../../up.jpg", "/etc/passwd", NASTY, "a\nb", "x" * 500, "", ".", "ä/ö 100%#?.png", "CON")


class Middle(nn.Module):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Middle.calls += 1
        lit = x[:, :, 8:16, 8:16].mean((1, 2, 3))
        return torch.stack([lit, -lit], 1)


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.resize((32, 32)), dtype=np.float32)).movedim(-1, 0) / 255


def network() -> Network:
    return Network(Middle(), to_tensor, labels=("middle", "rest"), name="toy")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(3):
        draw = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(number))
        Image.fromarray((255 * draw).byte().numpy()).save(tmp_path / "images" / f"{number} <b>.png")
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    options: dict[str, Any] = {"areas": (0.1, 0.3), "perturbation": "fade", "solver": "path", "score": "logit"}
    jobs.run(tmp_path / "images", tmp_path / "run", network=network(), target="0", workers=0, alternatives=2, **options)
    return tmp_path / "run"


def test_names_are_safe_and_differ() -> None:
    paths = [run_pages.page_path("run", key) for key in KEYS]
    assert len({path.name.lower() for path in paths}) == len(KEYS)
    for path in paths:
        assert path.parent == Path("run/pages")
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}-[0-9a-f]{16}\.html", path.name)


def test_a_finished_run_gets_its_pages_without_an_evaluation(run: Path) -> None:
    Middle.calls = 0
    assert run_pages.count_missing(run) == 3
    assert run_pages.write_missing(run, network()) == (3, [])
    assert Middle.calls == 0
    assert run_pages.count_missing(run) == 0
    page = Page(run_pages.page_path(run, "0 <b>.png").read_text(encoding="utf-8"))
    row = next(row for row in jobs.table(run).to_pylist() if row["key"] == "0 <b>.png" and not row["alternative"])
    assert "0 <b>.png" in page.words
    assert "middle" in page.words
    assert "Alternative regions" in page.words
    measured = [area["score"] for area in page.data["areas"]]
    assert measured == pytest.approx(row["binary_scores"], abs=1e-6)
    assert [area["verdict"] for area in page.data["areas"]] == row["verdicts"]


def test_only_missing_pages_are_written(run: Path) -> None:
    run_pages.write_missing(run, network())
    kept, removed = (run_pages.page_path(run, f"{number} <b>.png") for number in (0, 1))
    kept.write_text("mine")
    removed.unlink()
    assert run_pages.write_missing(run, network()) == (1, [])
    assert kept.read_text() == "mine"
    assert removed.is_file()


def test_an_image_that_is_gone_or_changed_is_named(run: Path) -> None:
    (run.parent / "images" / "0 <b>.png").unlink()
    Image.new("RGB", (32, 32)).save(run.parent / "images" / "1 <b>.png")
    written, problems = run_pages.write_missing(run, network())
    assert written == 1
    assert [problem.split(":")[0] for problem in problems] == ["'0 <b>.png'", "'1 <b>.png'"]


def test_links_of_the_summary_lead_to_the_pages(run: Path, tmp_path: Path) -> None:
    run_pages.write_missing(run, network())
    run_pages.page_path(run, "2 <b>.png").unlink()
    (tmp_path / "a folder").mkdir()
    _, files = write_summary(run, tmp_path / "a folder" / "summary")
    page = Path(files["page"])
    (text,) = re.findall(r'id="images-data">(.*?)</script>', page.read_text(encoding="utf-8"))
    column = json.loads(text)["columns"][0]
    links = dict(zip(column["values"], column["links"], strict=True))
    assert [key for key, link in links.items() if link is None] == ["2 <b>.png", "broken.png"]
    for key, link in links.items():
        if link is not None:
            assert (page.parent / unquote(link)).resolve() == run_pages.page_path(run, key).resolve()


def test_pages_do_not_leave_the_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run / "pages").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExtremalValueError, match=r"the pages of a run must be in its own folder.*is a link"):
        run_pages.write_missing(run, network())
    assert not list((tmp_path / "elsewhere").iterdir())
