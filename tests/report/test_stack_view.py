"""The viewer of clips and volumes: its frames, masks and shares are those of the result, and its size is bounded."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from extremal import Explanation, plots
from extremal.report import explanation_page, stack_view
from extremal.report.result_files import RESULT_FILES, write_result
from extremal.report.stack_frames import build_frames, find_peak, is_stack
from extremal.report.text import summarise
from support import synthetic
from support.pages import Page, check_nothing_from_elsewhere

AREAS = (0.05, 0.1, 0.2)


def stack(shape: tuple[int, int, int] = (12, 30, 40), **changes: Any) -> Explanation:
    """An explanation of a clip."""
    made = synthetic.explanation(AREAS, shape, **changes)
    settings = {**made.settings, "stack": {"kind": "clip", "times": [0.5 * k for k in range(shape[0])]}}
    return type(made)(**{**made.__dict__, "settings": settings})


def read_runs(runs: list[int], grid: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Invert the run lengths as the script does."""
    values = np.repeat(np.arange(len(runs)) % 2, runs)
    return values.reshape(grid[1], grid[0])


def test_masks_and_shares_are_those_of_the_result() -> None:
    result = stack()
    view = stack_view.build_view(result, 1)
    assert (view.count, view.noun, view.hidden) == (12, "frame", "")
    assert view.data["grid"] == (40, 30)
    for column, area in enumerate(AREAS):
        cut = result.binary(area)[0, 0]
        for frame in range(12):
            shown = read_runs(view.data["runs"][column][frame], view.data["grid"])
            np.testing.assert_array_equal(shown, cut[frame].numpy())
        np.testing.assert_allclose(view.data["shares"][column], cut.flatten(1).mean(1).numpy(), atol=1e-5)
    assert view.first == find_peak(result, 1) == int(result.binary(0.1)[0, 0].flatten(1).sum(1).argmax())
    assert view.name == f"frame {view.first + 1} of 12, {0.5 * view.first:.2f} s"


def test_frames_are_those_of_the_input_in_its_colours() -> None:
    result = stack()
    ramps = [torch.linspace(0, 1, size).view(view) for size, view in ((12, (-1, 1, 1)), (30, (-1, 1)), (40, (-1,)))]
    colours = torch.stack([ramp.expand(12, 30, 40) for ramp in ramps])[None]
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
    inputs = (colours - torch.tensor(mean).view(1, 3, 1, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1, 1)
    settings = {**result.settings, "stack": {"kind": "clip", "mean": mean, "std": std}}
    known = type(result)(**{**result.__dict__, "inputs": inputs, "settings": settings})
    expected = (255 * colours[0]).round().permute(1, 2, 3, 0)
    difference = (build_frames(known).pictures.float() - expected).abs().max()
    assert float(difference) <= 1
    uri = stack_view.build_view(known, 0).data["frames"][3].partition(",")[2]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).resize((40, 30)), float)
    assert abs(shown - expected[3].numpy()).mean() < 6


def test_a_volume_is_grey_with_its_depth_and_directions() -> None:
    result = stack()
    settings = {**result.settings, "spacing": [2.5, 1.0, 2.0], "stack": {"kind": "volume", "orientation": "SPL"}}
    volume = type(result)(**{**result.__dict__, "inputs": 1000 * result.inputs[:, :1] - 500, "settings": settings})
    frames = build_frames(volume)
    assert frames.noun == "slice"
    assert frames.places[:3] == ("0.0 mm", "2.5 mm", "5.0 mm")
    assert (frames.pictures[..., 0] == frames.pictures[..., 2]).all()
    assert (int(frames.pictures.min()), int(frames.pictures.max())) == (0, 255)
    view = stack_view.build_view(volume, 0)
    assert view.width / view.height == pytest.approx(2 * 40 / 30, rel=0.02)
    assert view.orientation == "Slices go towards superior, rows towards posterior, columns towards left."
    assert "% of the volume" in explanation_page.render(volume).replace("\xa0", "")


def test_the_size_of_the_page_is_bounded() -> None:
    view = stack_view.build_view(stack((90, 300, 400)), 1)
    assert view.count == len(view.data["frames"]) == stack_view.MAX_SHOWN
    assert max(view.width, view.height) == stack_view.MAX_SIDE
    assert view.hidden == "32 of 90 frames are in this page; the masks cover all."
    assert len(view.data["shares"][0]) == 90
    assert all(sum(runs) == np.prod(view.data["grid"]) for row in view.data["runs"] for runs in row)


def test_the_page_has_both_sliders_and_loads_nothing() -> None:
    page = explanation_page.render(stack())
    check_nothing_from_elsewhere(page, Page(page), "url(#plot-area)")
    assert 'id="frame"' in page
    assert 'id="area"' in page
    assert "of the clip" in page
    assert "The input is not an image" not in page


@pytest.mark.parametrize("settings", [{}, {"kind": "clip", "times": [1.0]}, {"kind": "other", "mean": [1.0]}])
def test_a_stack_with_little_known_about_it_is_shown(settings: dict[str, Any]) -> None:
    result = stack()
    bare = type(result)(**{**result.__dict__, "settings": {**result.settings, "stack": settings}})
    assert build_frames(bare).places == ("",) * 12
    assert 'id="frame"' in explanation_page.render(bare)


def test_broken_descriptions_in_files_are_refused(tmp_path: Path) -> None:
    for broken in ({"kind": 3}, {"times": "1"}, {"other": 1}, {"mean": ["a"]}, [1]):
        result = stack()
        wrong = type(result)(**{**result.__dict__, "settings": {**result.settings, "stack": broken}})
        wrong.save(tmp_path / "a")
        with pytest.raises(ValueError, match="stack must be an object"):
            Explanation.load(tmp_path / "a")


def test_a_result_folder_has_masks_as_arrays(tmp_path: Path) -> None:
    result = stack()
    files = write_result(result, tmp_path / "out", "clip.mp4")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert all(RESULT_FILES.fullmatch(name) for name in names)
    mask = np.load(files["masks"][0], allow_pickle=False)
    np.testing.assert_array_equal(mask, result.binary(0.05)[0, 0].numpy())
    write_result(result, tmp_path / "out", "clip.mp4")  # replaced


@pytest.mark.parametrize("keeps", [True, False])
def test_a_figure_has_a_strip_of_frames(keeps: bool) -> None:
    result = stack(keeps=keeps)
    figure = plots.figure(result)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    strip = [int(title.split()[1]) for title in titles if title.startswith("frame ")]
    assert len(strip) == 8 == len(set(strip))
    assert find_peak(result, summarise(result).headline_row) + 1 in strip
    assert titles[0].startswith("input, frame ")
    assert "data:image/png" in result._repr_html_(), "the figure stands in notebooks"


def test_pictures_are_no_stacks() -> None:
    assert not is_stack(synthetic.explanation())
    assert is_stack(stack())
