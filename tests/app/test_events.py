"""Event handlers of the page: image, network, class, request, queue, and messages after errors."""

import asyncio
import inspect
import re
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from extremal.app import events, views
from extremal.app.choices import REGIONS
from extremal.app.clients import SCOPE_KEY, Client
from extremal.app.events import POLL_INTERVAL, QUESTION_CHOICES, Events
from extremal.app.job_queue import JobQueue, OnProgress
from extremal.app.networks import ServedNetwork
from extremal.app.page import build_page
from extremal.app.request import Request, Response
from extremal.app.result_cache import ResultCache
from support.app_toys import LABELS, colour_network, save_colour_image

FIRST, SECOND = "toy", "other"
OPTIONS = {
    "network": FIRST,
    "target": 0,
    "prompt": "",
    "answer": "",
    "question": "What is enough (preserve)",
    "layer": REGIONS,
    "second_network": None,
    "areas": "0.12, 0.3",
    "perturbation": "blur",
    "effort": "normal",
    "alternatives": 1,
    "refine": False,
    "stability": False,
}

pytestmark = pytest.mark.usefixtures("fast_runs")


@dataclass
class Scoped:
    """A request that the middleware has accepted."""

    scope: dict[str, Client]


class HttpRequest:
    """The part of a request that identifies the visitor and the page."""

    def __init__(self, visitor: str, session: str = "", address: str = "192.0.2.7") -> None:
        self.session_hash = session or visitor
        self.request = Scoped({SCOPE_KEY: Client(address, visitor)})


@pytest.fixture(autouse=True)
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL_INTERVAL", POLL_INTERVAL / 10)


@pytest.fixture(scope="module")
def networks() -> dict[str, ServedNetwork]:
    return {
        FIRST: ServedNetwork(FIRST, colour_network()),
        SECOND: ServedNetwork(SECOND, colour_network(("hen", "red", "cow", "dog"))),
    }


@pytest.fixture
def page(networks: dict[str, ServedNetwork], tmp_path: Path) -> Iterator[Events]:
    (tmp_path / "cache").mkdir()
    with JobQueue(length=2) as queue, JobQueue(length=2) as previews:
        yield Events(networks, queue, previews, ResultCache(tmp_path / "cache"))


@pytest.fixture
def cat(tmp_path: Path) -> str:
    return str(save_colour_image(tmp_path / "cat.png"))


def classify(
    page: Events, photo: str | None, network: object = FIRST, visitor: str = "anna"
) -> tuple[Any, Any, str, str]:
    """Return the updates of the page after an image was chosen."""
    return asyncio.run(page.on_photo(photo, network, HttpRequest(visitor)))  # type: ignore[arg-type]


def explain(page: Events, cat: str | None, visitor: str = "anna", **changes: object) -> AsyncIterator[tuple[Any, Any]]:
    """Submit a request with some options changed."""
    return page.on_explain(cat, **{**OPTIONS, **changes}, http_request=HttpRequest(visitor))  # type: ignore[arg-type]


def updates(page: Events, cat: str | None, visitor: str = "anna", **changes: object) -> list[tuple[Any, Any]]:
    """Return all updates of the page until the request is finished."""

    async def collect() -> list[tuple[Any, Any]]:
        return [update async for update in explain(page, cat, visitor, **changes)]

    return asyncio.run(collect())


def alert(message: str) -> str:
    return views.render_message(message, alert=True)


def is_skipped(value: object) -> bool:
    return value == events.gr.skip()


class TestImage:
    def test_the_most_probable_classes(self, page: Events, cat: str) -> None:
        target, other_class, status, results = classify(page, cat)
        assert target["value"] == 0
        assert target["choices"][0] == ("red – 100 %", 0)
        assert [name for name, _ in target["choices"][1:]] == [
            f"{LABELS[index]} – under 1 %" for _, index in target["choices"][1:]
        ]
        assert (other_class, status, results) == (
            "",
            views.render_message("Choose a class, and press Explain."),
            "",
        )

    @pytest.mark.parametrize("missing", [None, ""])
    def test_no_image(self, page: Events, missing: str | None) -> None:
        target, other_class, status, results = classify(page, missing)
        assert (target["choices"], target["value"], other_class, results) == ([], None, "", "")
        assert status == views.render_message("Drop an image, or choose an example.")

    def test_other_files_are_reported_by_name(self, page: Events, tmp_path: Path) -> None:
        path = tmp_path / "<b>cat.png"
        path.write_bytes(b"not an image")
        target, _, status, _ = classify(page, str(path))
        assert (target["choices"], target["value"]) == ([], None)
        assert str(tmp_path) not in status
        assert "<b>" not in status
        message = "is not an image that can be read here. Choose a photograph in JPEG or PNG format."
        assert status == alert(f"“<b>cat.png” {message}")

    def test_while_a_job_is_running(self, page: Events, cat: str) -> None:
        started, released = threading.Event(), threading.Event()

        def work(on_progress: OnProgress) -> None:
            started.set()
            released.wait(10)

        page.queue.submit("ben", work)
        assert started.wait(10)
        assert classify(page, cat)[0]["value"] == 0
        released.set()


class TestChoices:
    def test_of_another_network(self, page: Events) -> None:
        other_class, layer, second_network = page.on_network(SECOND)
        assert (other_class, layer) == ("", REGIONS)
        assert (second_network["choices"], second_network["value"]) == ([FIRST], None)

    def test_a_class_by_name(self, page: Events) -> None:
        update = page.on_class("sky", FIRST)
        assert (update["choices"], update["value"]) == ([("blue, sky", 2)], 2)
        assert is_skipped(page.on_class("", FIRST))

    def test_an_unknown_name_is_reported(self, page: Events) -> None:
        with pytest.raises(events.gr.Error, match="target must be a class of colours, got 'gren'; nearest: green"):
            page.on_class("gren", FIRST)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests that are run; none is answered."""
    received: list[Request] = []

    def record(request: Request, *_: object) -> Response:
        received.append(request)
        return Response(())

    monkeypatch.setattr(events, "run_request", record)
    return received


class TestExplain:
    def test_the_fields_of_the_page_are_in_the_order_of_the_parameters(self, page: Events) -> None:
        blocks = build_page(page.networks, page.queue, page.previews, page.cache)
        (fields,) = [event.inputs for event in blocks.fns.values() if event.name == "on_explain"]
        names = {"rival": "second_network", "instead": "perturbation", "answers": "alternatives", "said": "answer"}
        parameters = [*inspect.signature(page.on_explain).parameters]
        assert [names.get(field.elem_id, field.elem_id) for field in fields] == parameters[:-1]  # last: the request

    @pytest.mark.parametrize("chosen", [(), ("refine",), ("stability",)])
    def test_boxes_reach_the_request(
        self, page: Events, cat: str, requests: list[Request], chosen: tuple[str, ...]
    ) -> None:
        updates(page, cat, **dict.fromkeys(chosen, True))
        first, request = requests
        assert [name for name in ("refine", "stability") if getattr(request, name)] == [*chosen]
        assert (first.settings.effort, first.refine, first.stability) == ("fast", False, False)

    @pytest.mark.parametrize("effort", ["fast", "thorough"])
    def test_another_effort_is_answered_once(
        self, page: Events, cat: str, requests: list[Request], effort: str
    ) -> None:
        updates(page, cat, effort=effort)
        assert [request.settings.effort for request in requests] == [effort]
        *_, (status, _) = updates(page, cat, effort="most")
        assert "The effort must be one of those offered" in status

    def test_from_the_queue_to_the_results(self, page: Events, cat: str) -> None:
        all_updates = updates(page, cat)
        shown = [index for index, (_, results) in enumerate(all_updates) if not is_skipped(results)]
        first, last = shown
        assert last == len(all_updates) - 1
        assert all(
            (events.FIRST_ANSWER in status) == (index >= first) for index, (status, _) in enumerate(all_updates[:-1])
        )
        status, results = all_updates[-1]
        assert re.search(
            "<strong>red – preserve game, toy.</strong> 12\u00a0% of the image keeps (9\\d|100)\u00a0%", status
        )
        (name,) = (result.name for result in page.histories.results(HttpRequest("anna").request.scope[SCOPE_KEY]))
        assert f'src="/results/{name}/0/report.html" sandbox="allow-scripts"' in results
        assert name not in all_updates[first][1]
        for file, label in (
            ("report.html", "Report (HTML)"),
            ("figure.png", "Figure (PNG)"),
            ("explanation.safetensors", "Explanation (safetensors)"),
        ):
            assert (
                f'<a href="/results/{name}/0/{file}" download="cat-red-preserve-game-toy-{file}">{label}</a>' in results
            )
            path = page.cache.file_path(name, 0, file)
            assert path is not None
            assert path.is_file()

    @pytest.mark.parametrize("question", list(QUESTION_CHOICES)[:-1])  # no other class is in this image
    def test_each_question(self, page: Events, cat: str, question: str) -> None:
        status, results = updates(page, cat, question=question, areas="0.12")[-1]
        assert status.count("<strong>") == results.count("<iframe") == len(QUESTION_CHOICES[question])
        assert ("Overlap of the regions" in results) == (len(QUESTION_CHOICES[question]) > 1)

    @pytest.mark.parametrize(
        ("option", "words"),
        [
            ({"layer": "features"}, "channels of a layer"),
            ({"refine": True}, "the smallest area"),
            ({"stability": True, "alternatives": 2}, "copies with noise and no alternatives"),
        ],
    )
    def test_options_that_questions_about_several_regions_do_not_have(
        self, page: Events, cat: str, option: dict[str, Any], words: str
    ) -> None:
        for question in list(QUESTION_CHOICES)[-2:]:
            status, results = updates(page, cat, question=question, **option)[-1]
            remedy = "choose another question, or leave the option out"
            assert status == alert(f"a question about several regions at once has no {words}; {remedy}")
            assert is_skipped(results)

    def test_a_second_network(self, page: Events, cat: str) -> None:
        status, _ = updates(page, cat, second_network=SECOND, areas="0.12")[-1]
        assert "red – preserve game, toy." in status
        assert "red – preserve game, other." in status

    def test_a_class_that_the_second_network_lacks(self, page: Events, cat: str) -> None:
        status, results = updates(page, cat, second_network=SECOND, target=3, areas="0.12")[-1]
        assert status == alert("target must be a class of colours, got 'yellow'")
        assert is_skipped(results)
        assert list(page.cache.folder.iterdir()) == []

    def test_the_first_answer_stays_if_the_careful_one_is_cancelled(self, page: Events, cat: str) -> None:
        async def cancel_after_the_first() -> list[tuple[Any, Any]]:
            seen = []
            async for update in explain(page, cat):
                seen.append(update)
                if events.FIRST_ANSWER in update[0]:
                    page.on_cancel(HttpRequest("anna"))  # type: ignore[arg-type]
            return seen

        seen = asyncio.run(cancel_after_the_first())
        assert seen[-1][0] == views.render_message("Cancelled; the first answer stays.")
        assert is_skipped(seen[-1][1])
        (result,) = page.histories.results(HttpRequest("anna").request.scope[SCOPE_KEY])
        assert result.request.settings.effort == "fast"
        assert result.response.views[0].tab.endswith("fast, at 12\u00a0%, 30\u00a0%, replaced by blur")

    def test_a_fast_answer_that_was_requested_before_stays(self, page: Events, cat: str) -> None:
        updates(page, cat, effort="fast")
        updates(page, cat)
        found = page.histories.results(HttpRequest("anna").request.scope[SCOPE_KEY])
        assert [result.request.settings.effort for result in found] == ["normal", "fast"]

    def test_channels(self, page: Events, cat: str) -> None:
        status, results = updates(page, cat, layer="features")[-1]
        assert "red – channels of features, preserve game, toy." in status
        assert "/0/channels.safetensors" in results

    def test_an_unknown_layer(self, page: Events, cat: str) -> None:
        ((status, _),) = updates(page, cat, layer="feature")
        assert status == alert("the layer must be one of those offered, got 'feature'; nearest: features")

    @pytest.mark.parametrize("missing", [{"cat": None}, {"cat": ""}, {"target": None}])
    def test_no_image_or_no_class(self, page: Events, cat: str, missing: dict[str, Any]) -> None:
        ((status, results),) = updates(page, **{"cat": cat, **missing})
        assert status == alert("an image and a class must be chosen first; drop one, or choose an example")
        assert is_skipped(results)

    @pytest.mark.parametrize(
        ("areas", "message"),
        [
            ("5", "areas must lie in (0, 1), got 5; an area is the share of places kept, e.g. 0.05 or 5%"),
            ("0.1, 0", "areas must lie in (0, 1), got 0; an area is the share of places kept, e.g. 0.05 or 5%"),
            ("0.1,, 0.2", "areas must be numbers separated by commas, got ''; e.g. 0.05, 0.1"),
            ("a lot", "areas must be numbers separated by commas, got 'a lot'; e.g. 0.05, 0.1"),
            ("0.1, 0.1", "areas must be distinct, got 0.1 twice; leave one out"),
            ("nan", "areas must lie in (0, 1), got nan; an area is the share of places kept, e.g. 0.05 or 5%"),
        ],
    )
    def test_bad_areas(self, page: Events, cat: str, areas: str, message: str) -> None:
        assert [status for status, _ in updates(page, cat, areas=areas)] == [alert(message)]

    def test_the_order_of_areas_does_not_matter(self, page: Events, cat: str) -> None:
        assert len(updates(page, cat, areas="0.12, 0.3")) > 1
        assert len(updates(page, cat, areas=".3,12e-2")) == 1

    def test_a_deleted_image(self, page: Events, cat: str) -> None:
        Path(cat).unlink()
        message = "the image is no longer available; drop it again"
        assert [status for status, _ in updates(page, cat)] == [alert(message)]

    def test_errors_in_a_job_are_shown(self, page: Events, cat: str) -> None:
        status, results = updates(page, cat, target=77)[-1]
        assert status == alert("target must lie in 0..3 for colours, got 77; classes are counted from 0")
        assert is_skipped(results)


class TestCache:
    def test_an_equal_request_needs_no_job(self, page: Events, cat: str, monkeypatch: pytest.MonkeyPatch) -> None:
        first = updates(page, cat)
        monkeypatch.setattr(page.queue, "submit", lambda *_: pytest.fail("a job was submitted"))
        assert updates(page, cat, visitor="ben", areas="0.12,0.3") == [first[-1]]

    def test_concurrent_equal_requests_share_a_result(self, page: Events, cat: str) -> None:
        async def both() -> list[Any]:
            async def last(visitor: str) -> Any:
                return [update async for update in explain(page, cat, visitor)][-1]

            return await asyncio.gather(last("anna"), last("ben"))

        first, second = asyncio.run(both())
        assert first == second
        assert len(list(page.cache.folder.iterdir())) == 2  # the first answer, and the careful one

    def test_the_same_image_under_another_name_is_a_different_request(self, page: Events, cat: str) -> None:
        updates(page, cat)
        renamed = str(save_colour_image(Path(cat).with_name("dog.png")))
        assert len(updates(page, renamed)) > 1


class TestQueue:
    def test_the_position_is_shown_while_waiting(self, page: Events, cat: str) -> None:
        started, released = threading.Event(), threading.Event()

        def work(on_progress: OnProgress) -> None:
            started.set()
            released.wait(10)

        async def wait() -> list[str]:
            messages = []
            async for status, _ in explain(page, cat, "anna", areas="0.12"):
                messages.append(status)
                if len(messages) == 1:
                    released.set()
            return messages

        page.queue.submit("ben", work)
        assert started.wait(10)
        messages = asyncio.run(wait())
        assert messages[0] == views.render_position(1)
        assert "<strong>" in messages[-1]

    def test_one_request_at_a_time(self, page: Events, cat: str) -> None:
        released = threading.Event()
        page.queue.submit(Client("192.0.2.7", "anna").name, lambda on_progress: released.wait(10))
        message = "each person may have one job at a time, yours has not finished; wait for it or cancel it"
        assert [status for status, _ in updates(page, cat)] == [alert(message)]
        released.set()

    @pytest.mark.parametrize("handler", ["on_cancel", "on_unload"])
    def test_cancelled(self, page: Events, cat: str, handler: str) -> None:
        async def cancel() -> list[str]:
            messages, areas = [], ", ".join(f"{0.05 * step:.2f}" for step in range(1, 13))  # a run that takes a while
            async for status, _ in explain(page, cat, areas=areas, alternatives=3, refine=True):
                messages.append(status)
                if len(messages) == 2:
                    getattr(page, handler)(HttpRequest("ben"))  # another visitor: no effect
                    getattr(page, handler)(HttpRequest("anna"))
            return messages

        assert asyncio.run(cancel())[-1] == views.render_message("Cancelled; nothing was saved.")
        assert list(page.cache.folder.iterdir()) == []

    def test_a_closed_connection_cancels_the_job(self, page: Events, cat: str) -> None:
        async def disconnect() -> None:
            stream = explain(page, cat)
            await stream.__anext__()
            await stream.aclose()

        asyncio.run(disconnect())
        assert page.queue.submit("anna", lambda on_progress: "next").wait(10) == "next"
        assert list(page.cache.folder.iterdir()) == []
