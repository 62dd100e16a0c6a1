"""HTML fragments of the page: position, progress, previews and results, with all text escaped."""

from pathlib import Path

import numpy as np
import pytest
import torch

from extremal.app import answer_views, views
from extremal.app.job_queue import JobProgress
from extremal.app.request import RegionOverlap, Request, Response, ResultView
from extremal.app.result_cache import CachedResult
from extremal.app.view_run import Preview
from support.app_toys import colour_image


@pytest.mark.parametrize(
    ("position", "sentence"),
    [(0, "No job is"), (1, "1 job is"), (2, "2 jobs are"), (31, "31 jobs are")],
)
def test_a_position(position: int, sentence: str) -> None:
    assert f"<p>{sentence} ahead of yours. It starts automatically.</p>" in views.render_progress(position)


def test_progress() -> None:
    html = views.render_progress(JobProgress("sweep", 2, 5, seconds_left=7.4))
    assert ">Searching, about 7\u00a0s left</label>" in html
    assert 'max="5" value="2"' in html
    unknown = views.render_progress(JobProgress("writing"))
    assert ">Writing the report</label>" in unknown
    assert "value=" not in unknown


def test_previews() -> None:
    image = torch.from_numpy(np.array(colour_image()))
    html = views.render_progress(JobProgress("sweep", 1, 5, Preview(image, torch.full((7, 48, 48), 0.5))))
    assert html.count("data:image/jpeg;base64,") == views.MAX_PREVIEWS == 5
    assert html.count("<span>50\u00a0%</span>") == 5


def test_messages_are_escaped() -> None:
    markup = "<img src=x onerror=alert(1)>"
    assert markup not in views.render_message(markup) + views.render_progress(JobProgress(markup))


def test_results_are_escaped(tmp_path: Path) -> None:
    markup = '"><script>alert(1)</script>'
    (tmp_path / "report.html").touch()
    response = Response((ResultView(markup, tmp_path, markup),), (RegionOverlap(0.1, 0.5),))
    result = CachedResult("name", Request("digest", "cat.png", 0, ("toy",)), response)
    html = answer_views.render_summary(result) + answer_views.render_results(result)
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") == 4
    assert "Overlap of the regions of the first two views (intersection over union): 0.50 at 10\u00a0%." in html
