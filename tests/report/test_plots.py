"""Figures: all parts are present for every game and dimension, and matplotlib's global state is untouched."""

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from extremal import ExtremalValueError, plots
from support import synthetic

AREAS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.7)


def draw(figure: Figure) -> Figure:
    """The figure after drawing, with every warning an error."""
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    return figure


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def words(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def curve(figure: Figure) -> Axes:
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left") == "evidence"]
    return axes


def boxes(figure: Figure) -> list[tuple[float, float, float, float]]:
    renderer = figure.canvas.get_renderer()
    return [axes.get_tightbbox(renderer).extents for axes in figure.axes]


@pytest.mark.parametrize("count", range(1, 9))
def test_one_tile_per_area_without_overlap(count: int) -> None:
    figure = draw(plots.figure(synthetic.explanation(AREAS[:count])))
    assert len(figure.axes) == 3 + count
    assert titles(figure)[:3] == ["input", "saliency", "evidence"]
    extents = boxes(figure)
    for k, (left, bottom, right, top) in enumerate(extents):
        assert min(left, bottom) >= 0
        assert right <= figure.bbox.width
        assert top <= figure.bbox.height
        for box in extents[:k]:
            separate = left >= box[2] or right <= box[0] or bottom >= box[3] or top <= box[1]
            assert separate, f"{titles(figure)[k]} overlaps"


def test_curve_draws_the_measured_effects() -> None:
    result = synthetic.explanation()
    known = result.curve()
    lines = {line.get_label(): line for line in curve(plots.figure(result)).lines}
    for label, effects in (("cut", known.binary), ("as found", known.soft), ("unseen", known.unseen)):
        assert tuple(lines[label].get_xdata()) == known.areas
        assert tuple(lines[label].get_ydata()) == effects
    assert list(lines["enough, 90\xa0%"].get_ydata()) == [0.9, 0.9]


def test_heading_names_class_network_game_and_the_smallest_sufficient_area() -> None:
    figure = plots.figure(synthetic.explanation())
    assert "tabby cat – toy" in words(figure)
    assert "preserve game" in words(figure)
    assert "40\xa0% of the image keeps 105\xa0% of the score" in words(figure)
    bold = [axes.title.get_text() or axes._left_title.get_text() for axes in figure.axes[3:]]
    assert bold[-1] == "40\xa0% kept – sufficient"


def test_heading_reports_that_no_area_is_enough() -> None:
    result = synthetic.explanation()
    weak = replace(result, binary_scores=result.binary_scores * 0.5)
    assert "None of the computed areas is enough" in words(plots.figure(weak))


def test_delete_game_removes_the_region_where_preserve_keeps_it() -> None:
    kept, removed = synthetic.explanation(), synthetic.explanation(keeps=False)
    assert torch.equal(kept.masks, removed.masks)
    cut = kept.binary(0.4)[0, 0].numpy() > 0
    picture = kept.pictures[0].numpy()
    for result, full in ((kept, cut), (removed, ~cut)):
        image = np.asarray(plots.figure(result).axes[-1].images[0].get_array())
        assert (image[full] == picture[full]).all()
        assert (image[~full][:, 0] == image[~full][:, 1]).all()
    assert "Removing" in words(plots.figure(removed))
    assert titles(plots.figure(removed))[-1].startswith("40\xa0% removed")


@pytest.mark.parametrize("shape", [(200,), (32, 40), (12, 16, 20)])
@pytest.mark.parametrize("keeps", [True, False])
def test_masks_are_drawn_if_there_are_no_images(shape: tuple[int, ...], keeps: bool) -> None:
    figure = draw(plots.figure(synthetic.explanation((0.1, 0.3), shape, pictures=False, keeps=keeps)))
    assert len(figure.axes) == 5 + 8 * (len(shape) == 3), "and a strip of frames"
    assert f"of the {'signal' if len(shape) == 1 else 'input'}" in words(figure)


def test_scores_that_are_not_finite() -> None:
    result = synthetic.explanation()
    broken = replace(result, binary_scores=result.binary_scores * torch.nan, masks=torch.zeros_like(result.masks))
    assert "no score is finite" in words(draw(plots.figure(broken)))


def test_names_are_not_parsed_as_mathematics_and_are_shortened() -> None:
    named = synthetic.explanation(target_names=("$\\frac$ <b> " + "cat " * 60,))
    assert "$\\frac$ <b>" in words(draw(plots.figure(named)))


def test_image_must_exist() -> None:
    with pytest.raises(ExtremalValueError, match=r"^image must lie in 0\.\.1 for 2 inputs, got 2$"):
        plots.figure(synthetic.explanation(count=2), image=2)


def test_write_replaces_the_file_and_leaves_no_others(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    path.write_text("old")
    plots.write_figure(synthetic.explanation(), path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 500
    assert path.stat().st_size < 1_500_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["figure.png"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "figure.png"
    path.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plots.write_figure(synthetic.explanation(), path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_no_global_state() -> None:
    before = "matplotlib.pyplot" in sys.modules
    plots.figure(synthetic.explanation())
    assert ("matplotlib.pyplot" in sys.modules) == before


@pytest.mark.parametrize("shape", [(48, 64), (60,), (8, 12, 16)])
def test_core_and_iou_are_drawn_where_stability_was_measured(shape: tuple[int, ...]) -> None:
    plain = synthetic.explanation(shape=shape)
    measured = replace(plain, stability=synthetic.stability(shape=shape))
    for result, drawn in ((plain, False), (measured, True)):
        figure = draw(plots.figure(result))
        captions = [axes.get_xaxis().get_label().get_text() for axes in figure.axes[3:8]]
        assert all(("\nstable IoU 0.80, core 72\xa0% (dashed)" in caption) == drawn for caption in captions)
    extents = boxes(figure)
    assert max(top for *_, top in extents) <= figure.bbox.height
    assert min(bottom for _, bottom, *_ in extents) >= 0


@pytest.mark.parametrize("count", [5, 8])
def test_captions_with_stability_do_not_overlap(count: int) -> None:
    areas = AREAS[:count]
    figure = draw(plots.figure(replace(synthetic.explanation(areas), stability=synthetic.stability(areas))))
    extents = boxes(figure)
    for k, (left, bottom, right, top) in enumerate(extents):
        for box in extents[:k]:
            assert left >= box[2] or right <= box[0] or bottom >= box[3] or top <= box[1]
