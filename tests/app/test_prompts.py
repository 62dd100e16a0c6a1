"""The app with a model of images and text: a prompt and an answer in place of a class."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from app.test_events import OPTIONS, HttpRequest
from extremal import Explanation, zoo
from extremal.app import events, views
from extremal.app.events import POLL_INTERVAL, Events
from extremal.app.form_values import MAX_TEXT
from extremal.app.job_queue import JobQueue
from extremal.app.networks import ServedNetwork, load_networks
from extremal.app.page import build_page
from extremal.app.result_cache import ResultCache
from support.errors import message_of
from support.toys import overlap
from support.vlm_toys import ANSWER, BUS_AT, PROMPT, place_mask, planted_network, planted_picture

NAME = "planted"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def networks() -> dict[str, ServedNetwork]:
    return {NAME: ServedNetwork(NAME, planted_network())}


@pytest.fixture
def page(networks: dict[str, ServedNetwork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Events]:
    monkeypatch.setattr(events, "POLL_INTERVAL", POLL_INTERVAL / 10)
    (tmp_path / "cache").mkdir()
    with JobQueue(length=2) as queue, JobQueue(length=2) as previews:
        yield Events(networks, queue, previews, ResultCache(tmp_path / "cache"))


@pytest.fixture
def photo(tmp_path: Path) -> str:
    planted_picture().save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def updates(page: Events, photo: str, **changes: object) -> list[tuple[Any, Any]]:
    """Return all updates of the page until the request is finished."""
    options = {**OPTIONS, "network": NAME, "target": None, "areas": "0.06, 0.13", "perturbation": "mixed", **changes}

    async def collect() -> list[tuple[Any, Any]]:
        return [update async for update in page.on_explain(photo, **options, http_request=HttpRequest("anna"))]  # type: ignore[arg-type]

    return asyncio.run(collect())


def test_the_page_asks_for_a_prompt_in_place_of_a_class(page: Events) -> None:
    blocks = build_page(page.networks, page.queue, page.previews, page.cache)
    visible = {field.elem_id: field.visible for field in blocks.blocks.values() if field.elem_id}
    assert (visible["prompt"], visible["said"], visible["target"], visible["other"]) == (True, True, False, False)


def test_an_image_is_not_classified(page: Events, photo: str) -> None:
    target, _, status, _ = asyncio.run(page.on_photo(photo, NAME, HttpRequest("anna")))  # type: ignore[arg-type]
    assert target["choices"] == []
    assert status == views.render_message("Type a prompt, and press Explain.")


def test_the_models_own_answer_is_explained(page: Events, photo: str) -> None:
    status, results = updates(page, photo, prompt=PROMPT)[-1]
    assert ANSWER in results
    assert ANSWER in status
    (request,) = page.cache._results
    assert (request.prompt, request.target) == (PROMPT, "")
    (path,) = Path(page.cache.folder).rglob("explanation.safetensors")
    explanation = Explanation.load(path)
    assert explanation.target_names == (f'answer "{ANSWER}" to "{PROMPT}"',)
    smallest = explanation.smallest()
    assert smallest is not None
    assert overlap(smallest.mask[0], place_mask(BUS_AT)) > 0.3


def test_another_answer_is_another_request(page: Events, photo: str) -> None:
    updates(page, photo, prompt=PROMPT, answer="a blue cat", refine=True, areas="0.13, 0.3")
    (path,) = Path(page.cache.folder).rglob("explanation.safetensors")
    assert Explanation.load(path).target_names == (f'answer "a blue cat" to "{PROMPT}"',)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ""}, "a prompt must be given for planted"),
        ({"prompt": PROMPT, "answer": "a green bus"}, "an answer must consist of tokens that the model knows"),
        (
            {"prompt": "x" * (MAX_TEXT + 1)},
            f"a prompt must be a text of at most {MAX_TEXT} characters, got {MAX_TEXT + 1} characters; shorten it",
        ),
        ({"prompt": 5}, f"a prompt must be a text of at most {MAX_TEXT} characters, got 5; shorten it"),
    ],
)
def test_mistakes_are_reported(page: Events, photo: str, changes: dict[str, object], message: str) -> None:
    status, _ = updates(page, photo, **changes)[-1]
    assert message[1:50] in status
    assert 'role="alert"' in status


def test_it_is_served_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "load", lambda name, weights=None, *_: planted_network())
    assert list(load_networks(["hf:model"])) == ["hf:model"]
    assert message_of(load_networks, ["hf:model", "hf:other"]) == (
        "a model of images and text must be served alone, got 'hf:model' and 1 more; start one app for each"
    )
