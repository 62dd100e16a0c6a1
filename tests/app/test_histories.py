"""Histories: each visitor's own results, the last first, and nobody else's."""

from pathlib import Path

import pytest

from extremal.app import histories
from extremal.app.clients import Client
from extremal.app.histories import Histories
from extremal.app.request import Request, Response, ResultView
from extremal.app.result_cache import CachedResult, ResultCache

ANNA, BEN, NOBODY = Client("192.0.2.7", "anna"), Client("192.0.2.7", "ben"), Client("192.0.2.7")


@pytest.fixture
def shared(tmp_path: Path) -> Histories:
    return Histories(ResultCache(tmp_path, max_results=4))


def put(shared: Histories, digest: str, label: str = "cat", game: str = "preserve") -> CachedResult:
    with shared.cache.new_folder() as folder:
        request = Request(digest, "cat.jpg", 0, ("toy",), (game,))
        return shared.cache.put(request, folder, Response((ResultView("cat", folder, "sentence", game, label),)))


def test_results_of_one_visitor_the_last_first(shared: Histories) -> None:
    a, b = put(shared, "a"), put(shared, "b")
    for result in (a, b, a):
        shared.add(ANNA, result)
    assert shared.results(ANNA) == [a, b]
    assert shared.find(ANNA, b.name) == b


def test_another_visitor_sees_none_of_them(shared: Histories) -> None:
    result = put(shared, "a")
    shared.add(ANNA, result)
    assert shared.results(BEN) == shared.results(NOBODY) == []
    assert shared.find(BEN, result.name) is None
    assert shared.find(NOBODY, result.name) is None


def test_visitors_without_a_cookie_have_no_history(shared: Histories) -> None:
    result = put(shared, "a")
    shared.add(NOBODY, result)
    assert shared.results(NOBODY) == []
    assert shared.related(NOBODY, result) == [result]


def test_removed_results_are_left_out(shared: Histories) -> None:
    results = [put(shared, str(number)) for number in range(6)]
    for result in results:
        shared.add(ANNA, result)
    assert shared.results(ANNA) == results[:1:-1]
    assert shared.find(ANNA, results[0].name) is None


def test_examples_are_everybodys(shared: Histories) -> None:
    with shared.cache.new_folder() as folder:
        example = shared.cache.put_example(Request("e", "e.jpg", -1, ("toy",)), folder, Response(()))
    assert shared.find(BEN, example.name) == shared.find(NOBODY, example.name) == example
    for number in range(6):
        put(shared, str(number))
    assert shared.find(BEN, example.name) == example
    assert folder.is_dir()


def test_related_results_are_about_the_same_class_of_the_same_image(shared: Histories) -> None:
    first, other_image = put(shared, "a"), put(shared, "b")
    other_class, other_game = put(shared, "a", "dog", "dual"), put(shared, "a", game="delete")
    for result in (first, other_image, other_class, other_game):
        shared.add(ANNA, result)
    assert shared.related(ANNA, first) == shared.related(ANNA, other_game) == [first, other_game]


def test_results_and_visitors_are_bounded(shared: Histories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "MAX_RESULTS", 2)
    monkeypatch.setattr(histories, "MAX_VISITORS", 1)
    a, b, c = (put(shared, digest) for digest in "abc")
    for result in (a, b, c):
        shared.add(ANNA, result)
    assert shared.results(ANNA) == [c, b]
    shared.add(BEN, a)
    assert (shared.results(ANNA), shared.results(BEN)) == ([], [a])
