"""Result cache of the app: the last responses, by unguessable names, and nothing left of the others."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extremal.app.request import Request, Response, ResultView
from extremal.app.result_cache import DOWNLOADS, ResultCache
from extremal.explanations.settings import Settings


def build_request(number: int = 0) -> Request:
    return Request(f"digest-{number}", "cat.jpg", 0, ("toy",))


def put(cache: ResultCache, request: Request, n_views: int = 1) -> str:
    """Add a response with a report in each view, and return its name."""
    with cache.new_folder() as folder:
        views = []
        for number in range(n_views):
            view = folder / f"view-{number}"
            view.mkdir()
            (view / "report.html").write_text(f"{request.digest} {number}")
            (view / "secret.txt").write_text("private")
            views.append(ResultView(f"view {number}", view, "sentence"))
        return cache.put(request, folder, Response(tuple(views))).name


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    (tmp_path / "cache").mkdir()
    (tmp_path / "report.html").write_text("outside")
    return ResultCache(tmp_path / "cache", max_results=3)


def folder_names(cache: ResultCache) -> set[str]:
    return {entry.name for entry in cache.folder.iterdir()}


def test_a_response_is_found_by_an_equal_request_and_by_name(cache: ResultCache) -> None:
    name = put(cache, build_request(), n_views=2)
    result = cache.get(Request("digest-0", "cat.jpg", 0, ("toy",)))
    assert result is not None
    assert result.name == name
    path = cache.file_path(name, 1, "report.html")
    assert path is not None
    assert path.read_text() == "digest-0 1"
    assert cache.get(build_request(1)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"title": "dog.jpg"},
        {"target": 1},
        {"questions": ("delete",)},
        {"layer": "features"},
        {"refine": True},
        {"stability": True},
        {"settings": Settings(areas=(0.1,))},
        {"settings": Settings(perturbation="fade")},
        {"settings": Settings(alternatives=2)},
    ],
)
def test_a_different_request_has_a_different_response(cache: ResultCache, change: dict[str, object]) -> None:
    put(cache, build_request())
    assert cache.get(replace(build_request(), **change)) is None  # type: ignore[arg-type]


def test_equal_settings_make_equal_requests() -> None:
    a, b = (replace(build_request(), settings=Settings(areas=(0.1, 0.2), game="dual")) for _ in range(2))
    assert (a, hash(a)) == (b, hash(b))


def test_the_oldest_is_removed_first_with_its_folder(cache: ResultCache) -> None:
    names = [put(cache, build_request(number)) for number in range(3)]
    assert cache.get(build_request(0)) is not None  # used again, so it is no longer the oldest
    names.append(put(cache, build_request(3)))
    assert [cache.get(build_request(number)) is not None for number in range(4)] == [True, False, True, True]
    assert folder_names(cache) == {names[0], names[2], names[3]}
    assert cache.file_path(names[1], 0, "report.html") is None


def test_a_second_response_replaces_the_first(cache: ResultCache) -> None:
    first, second = put(cache, build_request()), put(cache, build_request())
    assert first != second
    assert folder_names(cache) == {second}
    assert cache.file_path(first, 0, "report.html") is None


def test_names_are_random_and_folders_are_private(cache: ResultCache) -> None:
    names = {put(cache, build_request(number)) for number in range(50)}
    assert len(names) == 50
    assert all(len(name) >= 22 for name in names)  # 128 bits
    assert all(entry.stat().st_mode & 0o777 == 0o700 for entry in cache.folder.iterdir())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_exception(cache: ResultCache, error: type[BaseException]) -> None:
    def fail() -> None:
        with cache.new_folder() as folder:
            (folder / "view-0").mkdir()
            (folder / "view-0" / "report.html").write_text("incomplete")
            assert folder_names(cache) == {folder.name}
            raise error

    with pytest.raises(error):
        fail()
    assert folder_names(cache) == set()


@pytest.mark.parametrize("view", [-1, 1, 10**9])
def test_views_that_do_not_exist(cache: ResultCache, view: int) -> None:
    assert cache.file_path(put(cache, build_request()), view, "report.html") is None


@pytest.mark.parametrize(
    "file", ["secret.txt", "../report.html", "../../report.html", "/etc/passwd", "report.html/", "REPORT.HTML", "", "."]
)
def test_only_known_files_are_served(cache: ResultCache, file: str) -> None:
    assert cache.file_path(put(cache, build_request()), 0, file) is None


def test_a_known_file_that_does_not_exist(cache: ResultCache) -> None:
    name = put(cache, build_request())
    assert [cache.file_path(name, 0, file) is not None for file in DOWNLOADS] == [
        file == "report.html" for file in DOWNLOADS
    ]


@given(st.one_of(st.text(alphabet="./\\%0abc~-_\0", max_size=12), st.text(max_size=12).filter(str.isascii)))
@settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_guessed_names_are_not_found(cache: ResultCache, guess: str) -> None:
    name = put(cache, build_request())  # replaces the response of the previous guess
    for forged in (guess, f"{guess}/{name}", f"{name}/{guess}", f"../{cache.folder.name}/{name}", name[:-1]):
        assert cache.file_path(forged, 0, "report.html") is None


def test_names_that_are_not_ascii_are_not_found(cache: ResultCache) -> None:
    put(cache, build_request())
    assert cache.file_path("é…😀", 0, "report.html") is None


def test_the_bytes_of_all_responses_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    cache = ResultCache(tmp_path / "cache", max_bytes=40)  # a view has 17
    first, second = put(cache, build_request(1)), put(cache, build_request(2))
    assert folder_names(cache) == {first, second}
    third = put(cache, build_request(3))
    assert folder_names(cache) == {second, third}
    large = put(cache, build_request(4), n_views=5)
    assert folder_names(cache) == {large}  # the last one is kept


def test_a_figure_is_drawn_once_when_it_is_first_asked_for(cache: ResultCache, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []

    def draw(explanation: object, path: Path, image: int) -> None:
        drawn.append(path)
        path.write_bytes(b"figure")

    monkeypatch.setattr("extremal.app.result_figure.write_figure", draw)
    monkeypatch.setattr("extremal.app.result_figure.Explanation.load", lambda path: None)
    with cache.new_folder() as folder:
        views = [folder / "view-0", folder / "view-1"]
        for view in views:
            view.mkdir()
        drawing, other = (ResultView("cat", view, "sentence", draws_figure=view is views[0]) for view in views)
        cache.put(build_request(), folder, Response((drawing, other)))
    assert drawn == []
    assert [cache.file_path(folder.name, 0, "figure.png") for _ in range(2)] == [views[0] / "figure.png"] * 2
    assert cache.file_path(folder.name, 1, "figure.png") is None
    assert drawn == [views[0] / "figure.png"]


def test_the_figure_of_a_view_that_is_being_removed(cache: ResultCache) -> None:
    with cache.new_folder() as folder:
        cache.put(
            build_request(), folder, Response((ResultView("cat", folder / "gone", "", draws_figure=True),), (), b"")
        )
    assert cache.file_path(folder.name, 0, "figure.png") is None
