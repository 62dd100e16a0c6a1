"""The command `run` with pages: one report an image, also of a run that was stopped, and again after `--retry`."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from extremal.cli.batch import EXIT_SOME_FAILED
from extremal.masking.solvers import SOLVERS, Consensus
from support.fake_network import save_image
from support.terminal import call

RUN = ("run", "photos", "--out", "run", "--network", "support.fake_network:fake_network", "--areas", "10%,30%")
HERE = ("--workers", "0", "--batch", "1")


@pytest.fixture(autouse=True)
def photos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with two images and one broken file, beside which the run is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SOLVERS, "consensus", Consensus(steps=2, draws=2, least=2))
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        save_image(folder / name)
    (folder / "broken.png").write_text("no image")
    return folder


def pages() -> dict[str, str]:
    return {path.name.split(".png")[0]: path.read_text() for path in sorted(Path("run/pages").glob("*.html"))}


def test_pages_are_written_and_linked_from_the_summary() -> None:
    code, output, _ = call(*RUN, *HERE, "--pages")
    assert code == EXIT_SOME_FAILED
    assert "3 of 3 images, 1 of them failed" in output
    written = pages()
    assert sorted(written) == ["a", "b"], "no page for the broken one"
    assert "tabby" in written["a"]
    assert call("summary", "run", "--out", "out")[0] == 0
    summary = Path("out/run-summary/summary.html")
    links = re.findall(r'run/pages/[^"\\]+\.html', summary.read_text())
    assert len(set(links)) == 2
    for link in re.findall(r'(?:\.\./)+run/pages/[^"\\]+\.html', summary.read_text()):
        assert (summary.parent / unquote(link)).resolve().is_file(), link


def test_a_finished_run_gets_its_pages_without_a_new_row() -> None:
    call(*RUN, *HERE)
    assert not Path("run/pages").exists()
    rows = {path: path.stat().st_mtime_ns for path in Path("run/parts").iterdir()}
    code, *_ = call(*RUN, *HERE, "--pages")
    assert code == EXIT_SOME_FAILED
    assert sorted(pages()) == ["a", "b"]
    assert {path: path.stat().st_mtime_ns for path in Path("run/parts").iterdir()} == rows


def test_a_retried_image_gets_a_page_and_others_keep_theirs(photos: Path) -> None:
    call(*RUN, *HERE, "--pages")
    before = pages()
    save_image(photos / "broken.png")
    code, *_ = call(*RUN, *HERE, "--pages", "--retry")
    assert code == 0
    after = pages()
    assert sorted(after) == ["a", "b", "broken"]
    assert after["a"] == before["a"]
    pages_folder = {path: path.stat().st_mtime_ns for path in Path("run/pages").glob("a*.html")}
    call(*RUN, *HERE, "--pages", "--retry")
    assert {path: path.stat().st_mtime_ns for path in Path("run/pages").glob("a*.html")} == pages_folder
