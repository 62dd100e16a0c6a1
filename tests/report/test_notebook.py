"""Results in notebooks: figures that are displayed, and fragments without scripts."""

import re
from pathlib import Path

import nbformat
import pytest
import torch
from matplotlib.figure import Figure
from nbclient import NotebookClient

from extremal import ChannelExplanation, ExtremalValueError, Network, explain_channels
from extremal.explanations.explanation import Explanation
from extremal.report.notebook import MAX_INPUTS
from support import synthetic
from support.pages import Page
from support.toys import Carriers

NASTY = "</div><script>alert(1)</script>"


@pytest.fixture(scope="module")
def channels() -> ChannelExplanation:
    x = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    return explain_channels(Network(Carriers([3], seed=1), name="toy"), x, "features", 0, counts=(2, 3, 12))


class TestFragments:
    def test_show_the_headline_and_every_area(self) -> None:
        page = Page(synthetic.explanation((0.1, 0.2, 0.4))._repr_html_())
        words = re.sub(r"\s+", " ", page.words)
        for label in ("10 %", "20 %", "40 %"):
            assert label in words.replace("\xa0", " ")
        assert sum(tag == "img" for tag, _ in page.elements) == 4  # the input, and one for each area
        assert not [tag for tag, _ in page.elements if tag in ("script", "style", "link", "iframe")]
        assert all(value["src"].startswith("data:") for tag, value in page.elements if tag == "img")

    def test_escape_names(self) -> None:
        page = Page(synthetic.explanation((0.1,), target_names=(NASTY,))._repr_html_())
        assert not [tag for tag, _ in page.elements if tag == "script"]
        assert NASTY in page.words

    def test_show_the_first_inputs_of_many(self) -> None:
        one = synthetic.explanation((0.1,))
        page = Page(Explanation.concatenate([one] * (MAX_INPUTS + 3))._repr_html_())
        assert sum(tag == "img" for tag, _ in page.elements) == 2 * MAX_INPUTS
        assert "3 more inputs not shown" in re.sub(r"\s+", " ", page.words)

    def test_of_channels(self, channels: ChannelExplanation) -> None:
        page = Page(channels._repr_html_())
        assert "3 channels" in page.words
        assert sum(tag == "img" for tag, _ in page.elements) == 4

    def test_of_an_input_that_is_no_image_have_the_figure(self) -> None:
        page = Page(synthetic.explanation((0.1, 0.2), shape=(64,))._repr_html_())
        assert [value["src"][:14] for tag, value in page.elements if tag == "img"] == ["data:image/png"]


class TestFigures:
    def test_are_matplotlib_figures(self, channels: ChannelExplanation) -> None:
        assert isinstance(synthetic.explanation((0.1,)).plot(), Figure)
        assert isinstance(channels.plot(), Figure)

    def test_without_a_display_are_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("matplotlib.get_backend", lambda: "agg")
        with pytest.raises(ExtremalValueError, match=r"show must have a display.*use \.plot\(\)\.savefig"):
            synthetic.explanation((0.1,)).show()

    def test_reports_are_written(self, tmp_path: Path, channels: ChannelExplanation) -> None:
        synthetic.explanation((0.1,)).report(tmp_path / "a.html")
        channels.report(tmp_path / "b.html")
        for name in ("a.html", "b.html"):
            assert (tmp_path / name).read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.slow
def test_a_cell_displays_the_result_and_its_figure_once(tmp_path: Path) -> None:
    synthetic.explanation((0.1, 0.2)).save(tmp_path / "a.safetensors")
    cells = [f"import extremal\nresult = extremal.Explanation.load({str(tmp_path / 'a.safetensors')!r})\nresult",
             "result.plot()", "result.show()", "result.overlay()"]  # fmt: skip
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, kernel_name="python3", timeout=300).execute()
    outputs = [[set(output["data"]) for output in cell.outputs] for cell in notebook.cells]
    assert outputs[0] == [{"text/plain", "text/html"}]
    assert all(len(kinds) == 1 and "image/png" in kinds[0] for kinds in outputs[1:])


@pytest.mark.slow
def test_a_run_in_a_notebook_shows_its_progress() -> None:
    code = (
        "import extremal, torch\n"
        "network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 2))\n"
        "result = extremal.explain(network, torch.rand(1, 3, 16, 16), areas=(0.1,))"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name="python3", timeout=300).execute()
    text = "".join(output.get("text", "") for output in notebook.cells[0].outputs)
    assert "search, start" in text
    assert {output["name"] for output in notebook.cells[0].outputs} == {"stdout"}
