"""What happens on the page: a look, other networks, a place in the line, an answer, and what is told where it fails."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from extremal import plots
from extremal.app import events, views
from extremal.app.events import GAMES, REGIONS, TICK, Events
from extremal.app.job_queue import Line, Progress, Report
from extremal.app.networks import Offered
from extremal.app.request import Seen
from extremal.app.result_cache import Shelf
from extremal.masking.solvers import SOLVERS
from extremal.masking.solvers import Path as PathSolver
from support.app_toys import LABELS, colours, photo, picture

ONE, OTHER = "toy", "other"
ASKED = {
    "network": ONE,
    "target": 0,
    "game": "What is enough (preserve)",
    "layer": REGIONS,
    "rival": None,
    "areas": "0.12, 0.3",
    "perturbation": "blur",
    "answers": 1,
    "refine": False,
}


@dataclass
class Request:
    """All that is known of who asks."""

    session_hash: str


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, "path", PathSolver(steps=12, polish=4, draws=2, search=3))
    monkeypatch.setattr(plots, "write_figure", lambda _, path, image=0: Path(path).write_bytes(b"figure"))
    monkeypatch.setattr(events, "TICK", TICK / 10)


@pytest.fixture(scope="module")
def offered() -> dict[str, Offered]:
    return {ONE: Offered(ONE, colours()), OTHER: Offered(OTHER, colours(("hen", "red", "cow", "dog")))}


@pytest.fixture
def page(offered: dict[str, Offered], tmp_path: Path) -> Iterator[Events]:
    (tmp_path / "shelf").mkdir()
    with Line(length=2) as line:
        yield Events(offered, line, Shelf(tmp_path / "shelf"))


@pytest.fixture
def cat(tmp_path: Path) -> str:
    return str(photo(tmp_path / "cat.png"))


def asking(page: Events, cat: str | None, who: str = "anna", **changed: object) -> AsyncIterator[tuple[Any, Any]]:
    return page.explain(cat, **{**ASKED, **changed}, request=Request(who))  # type: ignore[arg-type]


def asked(page: Events, cat: str | None, who: str = "anna", **changed: object) -> list[tuple[Any, Any]]:
    """All that is told, to the end."""

    async def hear() -> list[tuple[Any, Any]]:
        return [told async for told in asking(page, cat, who, **changed)]

    return asyncio.run(hear())


def alert(message: str) -> str:
    return views.told(message, alert=True)


def skipped(value: object) -> bool:
    return value == events.gr.skip()


class TestLook:
    def test_the_most_probable_classes(self, page: Events, cat: str) -> None:
        target, other, told, results = page.look(cat, ONE)
        assert target["value"] == 0
        assert target["choices"][0] == ("red – 100 %", 0)
        assert [name for name, _ in target["choices"][1:]] == [
            f"{LABELS[index]} – under 1 %" for _, index in target["choices"][1:]
        ]
        assert (other["value"], told, results) == (None, views.told("Choose a class, and explain it."), "")

    @pytest.mark.parametrize("nothing", [None, ""])
    def test_no_photograph(self, page: Events, nothing: str | None) -> None:
        target, other, told, results = page.look(nothing, ONE)
        assert (target["choices"], target["value"], other["value"], results) == ([], None, None, "")
        assert told == views.told("Drop a photograph, or take an example.")

    def test_what_is_none_is_told_by_its_own_name(self, page: Events, tmp_path: Path) -> None:
        path = tmp_path / "<b>cat.png"
        path.write_bytes(b"no picture at all")
        target, _, told, _ = page.look(str(path), ONE)
        assert (target["choices"], target["value"]) == ([], None)
        assert str(tmp_path) not in told
        assert "<b>" not in told
        assert told == alert(
            "an image must be in a format that Pillow reads, got '<b>cat.png'; convert it to PNG or JPEG"
        )

    def test_while_a_job_runs(self, page: Events, cat: str) -> None:
        begun, free = threading.Event(), threading.Event()

        def work(report: Report) -> None:
            begun.set()
            free.wait(10)

        page.line.join("ben", work)
        assert begun.wait(10)
        assert page.look(cat, ONE)[0]["value"] == 0
        free.set()


class TestChoices:
    def test_of_another_network(self, page: Events) -> None:
        other, layer, rival = page.offers(OTHER)
        assert other["choices"] == [("hen", 0), ("red", 1), ("cow", 2), ("dog", 3)]
        assert other["value"] is None
        assert layer["choices"] == [REGIONS, "features", "act", "head"]
        assert layer["value"] == REGIONS
        assert (rival["choices"], rival["value"]) == ([ONE], None)

    def test_a_class_by_name(self, page: Events) -> None:
        found = page.named(2, ONE)
        assert (found["choices"], found["value"]) == ([("blue, sky", 2)], 2)
        assert skipped(page.named(None, ONE))


class TestExplain:
    def test_from_the_line_to_the_answer(self, page: Events, cat: str) -> None:
        told = asked(page, cat)
        assert all(skipped(results) for _, results in told[:-1])
        status, results = told[-1]
        assert "<strong>red – preserve game, toy.</strong> 12\u00a0% of the image keeps 100\u00a0%" in status
        (name,) = (entry.name for entry in page.shelf.folder.iterdir())
        assert f'src="/results/{name}/0/report.html" sandbox="allow-scripts"' in results
        for file, label in (
            ("report.html", "Report (HTML)"),
            ("figure.png", "Figure (PNG)"),
            ("explanation.safetensors", "Explanation (safetensors)"),
        ):
            assert f'<a href="/results/{name}/0/{file}" download>{label}</a>' in results
            assert page.shelf.file(name, 0, file) is not None

    @pytest.mark.parametrize("game", GAMES)
    def test_every_question(self, page: Events, cat: str, game: str) -> None:
        status, results = asked(page, cat, game=game, areas="0.12")[-1]
        assert status.count("<strong>") == results.count("<iframe") == len(GAMES[game])
        assert ("have this much in common" in results) == (len(GAMES[game]) > 1)

    def test_another_network_beside_it(self, page: Events, cat: str) -> None:
        status, _ = asked(page, cat, rival=OTHER, areas="0.12")[-1]
        assert "red – preserve game, toy." in status
        assert "red – preserve game, other." in status

    def test_a_class_that_the_other_does_not_have(self, page: Events, cat: str) -> None:
        status, results = asked(page, cat, rival=OTHER, target=3, areas="0.12")[-1]
        assert status == alert("target must be a class of colours, got 'yellow'")
        assert skipped(results)
        assert list(page.shelf.folder.iterdir()) == []

    def test_channels(self, page: Events, cat: str) -> None:
        status, results = asked(page, cat, layer="features")[-1]
        assert "red – channels of features, preserve game, toy." in status
        assert "/0/channels.safetensors" in results

    @pytest.mark.parametrize("missing", [{"cat": None}, {"cat": ""}, {"target": None}])
    def test_no_photograph_or_no_class(self, page: Events, cat: str, missing: dict[str, Any]) -> None:
        told = asked(page, **{"cat": cat, **missing})
        message = "a photograph and a class must be chosen first; drop one, or take an example"
        assert [status for status, _ in told] == [alert(message)]
        assert skipped(told[0][1])

    @pytest.mark.parametrize(
        ("areas", "message"),
        [
            ("5", "areas must lie in (0, 1), got 5; an area is the share of places kept, e.g. 0.05"),
            ("0.1, 0", "areas must lie in (0, 1), got 0; an area is the share of places kept, e.g. 0.05"),
            ("0.1,, 0.2", "areas must be numbers with commas between them, got ''; e.g. 0.05, 0.1"),
            ("a lot", "areas must be numbers with commas between them, got 'a lot'; e.g. 0.05, 0.1"),
            ("0.1, 0.1", "areas must be distinct, got 0.1 twice; leave one out"),
            ("nan", "areas must lie in (0, 1), got nan; an area is the share of places kept, e.g. 0.05"),
        ],
    )
    def test_bad_areas(self, page: Events, cat: str, areas: str, message: str) -> None:
        assert [status for status, _ in asked(page, cat, areas=areas)] == [alert(message)]

    def test_areas_in_any_order_are_one_question(self, page: Events, cat: str) -> None:
        assert len(asked(page, cat, areas="0.12, 0.3")) > 1
        assert len(asked(page, cat, areas=".3,12e-2")) == 1

    def test_a_photograph_that_is_gone(self, page: Events, cat: str) -> None:
        Path(cat).unlink()
        message = "the photograph is no longer here; drop it again"
        assert [status for status, _ in asked(page, cat)] == [alert(message)]

    def test_what_goes_wrong_in_a_job_is_told(self, page: Events, cat: str) -> None:
        status, results = asked(page, cat, target=77)[-1]
        assert status == alert("target must lie in 0..3 for colours, got 77")
        assert skipped(results)


class TestShelf:
    def test_the_same_question_is_answered_without_a_job(
        self, page: Events, cat: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = asked(page, cat)
        monkeypatch.setattr(page.line, "join", lambda *_: pytest.fail("nobody needs to stand in line"))
        assert asked(page, cat, who="ben", areas="0.12,0.3") == [first[-1]]

    def test_who_asks_the_same_meanwhile_shares_the_answer(self, page: Events, cat: str) -> None:
        async def both() -> list[Any]:
            async def one(who: str) -> Any:
                return [told async for told in asking(page, cat, who)][-1]

            return await asyncio.gather(one("anna"), one("ben"))

        first, second = asyncio.run(both())
        assert first == second
        assert len(list(page.shelf.folder.iterdir())) == 1

    def test_the_same_picture_under_another_name_is_another_question(self, page: Events, cat: str) -> None:
        asked(page, cat)
        again = str(photo(Path(cat).with_name("dog.png")))
        assert len(asked(page, again)) > 1


class TestLine:
    def test_who_waits_is_told_how_many_come_before(self, page: Events, cat: str) -> None:
        begun, free = threading.Event(), threading.Event()

        def work(report: Report) -> None:
            begun.set()
            free.wait(10)

        async def wait() -> list[str]:
            heard = []
            async for status, _ in asking(page, cat, "anna", areas="0.12"):
                heard.append(status)
                if len(heard) == 1:
                    free.set()
            return heard

        page.line.join("ben", work)
        assert begun.wait(10)
        heard = asyncio.run(wait())
        assert heard[0] == views.waiting(1)
        assert "<strong>" in heard[-1]

    def test_one_question_at_a_time(self, page: Events, cat: str) -> None:
        free = threading.Event()
        page.line.join("anna", lambda report: free.wait(10))
        message = "one person must have one job at a time, yours is not done yet; wait for it or cancel it"
        assert [status for status, _ in asked(page, cat)] == [alert(message)]
        free.set()

    @pytest.mark.parametrize("how", ["cancel", "left"])
    def test_called_off(self, page: Events, cat: str, how: str) -> None:
        async def call_off() -> list[str]:
            heard = []
            async for status, _ in asking(page, cat):
                heard.append(status)
                if len(heard) == 2:
                    getattr(page, how)(Request("ben"))  # somebody else's does nothing
                    getattr(page, how)(Request("anna"))
            return heard

        assert asyncio.run(call_off())[-1] == views.told("Cancelled; nothing was kept.")
        assert list(page.shelf.folder.iterdir()) == []

    def test_who_does_not_listen_any_more_leaves_the_line(self, page: Events, cat: str) -> None:
        async def leave() -> None:
            told = asking(page, cat)
            await told.__anext__()
            await told.aclose()

        asyncio.run(leave())
        done = page.line.join("anna", lambda report: "next")
        assert done.wait(10) == "next"
        assert list(page.shelf.folder.iterdir()) == []


class TestDrawn:
    @pytest.mark.parametrize(
        ("place", "told"), [(0, "No job comes"), (1, "1 job comes"), (2, "2 jobs come"), (31, "31 jobs come")]
    )
    def test_a_place(self, place: int, told: str) -> None:
        assert f"<p>{told} before yours. It starts by itself.</p>" in views.on_the_way(place)

    def test_progress(self) -> None:
        told = views.on_the_way(Progress("sweep", 2, 5))
        assert ">sweep, 2 of 5</label>" in told
        assert 'max="5" value="2"' in told
        unknown = views.on_the_way(Progress("writing"))
        assert ">writing</label>" in unknown
        assert "value=" not in unknown

    def test_what_is_left_of_the_photograph(self) -> None:
        import numpy as np
        import torch

        shown = torch.from_numpy(np.array(picture()))
        masks = torch.full((7, 48, 48), 0.5)
        told = views.on_the_way(Progress("sweep", 1, 5, Seen(shown, masks)))
        assert told.count("data:image/jpeg;base64,") == views.TOGETHER == 5
        assert told.count("<span>50\u00a0%</span>") == 5

    def test_every_text_is_escaped(self) -> None:
        evil = "<img src=x onerror=alert(1)>"
        assert evil not in views.told(evil) + views.on_the_way(Progress(evil))

    def test_also_those_of_an_answer(self, page: Events, cat: str) -> None:
        asked(page, cat)
        (kept,) = page.shelf._kept.values()
        (view,) = kept.answer.views
        evil = '"><script>alert(1)</script>'
        forged = replace(kept, answer=replace(kept.answer, views=(replace(view, heading=evil, sentence=evil),)))
        assert "<script>" not in views.done(forged) + views.answered(forged)
