"""Stored answers: the example equals what the solver computes, and saved files are opened or refused."""

import dataclasses
from functools import cache as cache_results
from pathlib import Path

import pytest
import torch

pytest.importorskip("gradio")

import extremal
from extremal.app import answers
from extremal.app.answer_events import _split_names
from extremal.app.answers import add_example, example_path, open_answer
from extremal.app.networks import load_networks
from extremal.app.page import EXAMPLES, example_photograph
from extremal.app.result_cache import CachedResult, ResultCache
from extremal.explanations.explanation import Explanation
from extremal.explanations.regions import iou
from extremal.explanations.verdict import MIN_STABLE_IOU
from extremal.networks.image_files import read_image_file
from extremal.report.text import summarise
from support import made_explanations
from support.errors import message_of
from support.toys import Carriers

MAX_MOVED = 0.15  # of the IoU, by which masks of two machines may differ more than those of copies with noise
MIN_STABLE_AREA = 0.1  # from which on the masks of the example share more than they do not


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    (tmp_path / "cache").mkdir()
    return ResultCache(tmp_path / "cache")


def load(result: CachedResult) -> Explanation:
    return Explanation.load(result.response.views[0].folder / "explanation.safetensors")


@cache_results
def explain_example(name: str) -> Explanation:
    """Explain the most probable class of an example, as the app does."""
    photograph = read_image_file(example_photograph(name))
    (served,) = load_networks([]).values()
    return extremal.explain(served.network, photograph, served.top_classes(photograph)[0].index)


def test_the_example_is_small_and_sufficient(cache: ResultCache) -> None:
    assert example_path().stat().st_size < 600_000
    result = add_example(cache)
    (view,) = result.response.views
    assert (view.label, view.tab) == ("tripod", "What is enough")
    assert (result.request.title, result.request.networks) == ("tripod.jpg", ("embedded",))
    assert (view.folder / "report.html").is_file()
    summary = summarise(load(result))
    assert summary.smallest is not None
    assert summary.rows[summary.smallest].verdict.label == "sufficient"
    assert view.sentence == summary.headline
    assert str(Path(__file__).parents[2]) not in (view.folder / "report.html").read_text()


@pytest.mark.slow
def test_the_example_is_what_the_solver_computes(cache: ResultCache) -> None:
    """Rounding differs between machines and moves masks, as noise does (docs/solver_experiments.md)."""
    stored, computed = load(add_example(cache)), explain_example("tripod")
    first, second = summarise(stored), summarise(computed)
    assert [row.label for row in first.rows] == [row.label for row in second.rows]
    assert first.smallest == second.smallest
    assert [row.verdict.label for row in first.rows] == [row.verdict.label for row in second.rows]
    photograph = read_image_file(example_photograph("tripod"))
    copies = extremal.stability("embedded", photograph, computed, copies=3)
    for area, ious in zip(stored.areas, copies.ious[0], strict=True):
        overlap = iou(stored.binary(area)[0], computed.binary(area)[0])
        assert overlap >= float(ious.min()) - MAX_MOVED
        assert overlap >= MIN_STABLE_IOU or area < MIN_STABLE_AREA
    for name in ("network", "weights", "game", "perturbation", "score", "seed", "solver"):
        assert stored.settings[name] == computed.settings[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_has_a_sufficient_region(name: str) -> None:
    summary = summarise(explain_example(name))
    assert summary.smallest is not None
    assert summary.rows[summary.smallest].verdict.label == "sufficient"


def test_a_saved_answer_is_opened(cache: ResultCache, tmp_path: Path) -> None:
    explanation = made_explanations.explanation()
    explanation.save(tmp_path / "a.safetensors")
    result = open_answer(tmp_path / "a.safetensors", "my <b>.safetensors", cache)
    (view,) = result.response.views
    assert load(result) == explanation
    assert "my &lt;b&gt;.safetensors" in (view.folder / "report.html").read_text()
    assert open_answer(tmp_path / "a.safetensors", "my <b>.safetensors", cache) is result


def test_a_saved_answer_by_channels_is_opened(cache: ResultCache, tmp_path: Path) -> None:
    explanation = extremal.explain_channels(Carriers([3], seed=1), torch.rand(1, 3, 8, 8), "features", 0, counts=(3, 5))
    explanation.save(tmp_path / "a.safetensors")
    (view,) = open_answer(tmp_path / "a.safetensors", "a.safetensors", cache).response.views
    assert view.tab == f"Channels of {explanation.layer}: what is enough"
    assert (view.folder / "channels.safetensors").is_file()


def test_other_files_are_refused(cache: ResultCache, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for content in (b"", b"not an explanation", example_path().read_bytes()):
        path.write_bytes(content)
        assert message_of(open_answer, path, "a.txt", cache) == (
            "a saved answer must be an explanation file of this app or of the library, got 'a.txt'; "
            "save an answer under its report, and open that file"
        )
    assert list(cache.folder.iterdir()) == []


def test_answers_that_are_too_large_are_refused(
    cache: ResultCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    made_explanations.explanation().save(path)
    monkeypatch.setattr(answers, "MAX_OPENED_SIDE", 3)
    assert "a saved answer must have at most 100 areas and 3 px" in message_of(open_answer, path, "a", cache)


def test_damaged_answers_leave_nothing(cache: ResultCache, tmp_path: Path) -> None:
    explanation = made_explanations.explanation()
    broken = dataclasses.replace(explanation, control_scores=torch.zeros(1, 0, 0))
    broken.save(tmp_path / "a.safetensors")
    assert "must be an explanation file" in message_of(open_answer, tmp_path / "a.safetensors", "a", cache)
    assert list(cache.folder.iterdir()) == []


@pytest.mark.parametrize("text", ["", "a+b+c", "+", "a+", None, 3])
def test_other_texts_name_no_answers(text: object) -> None:
    assert "one answer, or two to compare, must be chosen" in message_of(_split_names, text)
