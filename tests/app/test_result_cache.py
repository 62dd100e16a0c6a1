"""The shelf of the app: the last answers, by names that nobody guesses, and nothing left of the others."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extremal.app.request import Answer, View, Wish
from extremal.app.result_cache import FILES, Shelf


def wish(number: int = 0) -> Wish:
    return Wish(f"digest-{number}", "cat.jpg", 0, ("toy",))


def put(shelf: Shelf, wanted: Wish, views: int = 1) -> str:
    """An answer with a report in each view; its name."""
    with shelf.new_folder() as folder:
        found = []
        for number in range(views):
            place = folder / f"view-{number}"
            place.mkdir()
            (place / "report.html").write_text(f"{wanted.digest} {number}")
            (place / "secret.txt").write_text("not for anybody")
            found.append(View(f"view {number}", place, "sentence"))
        return shelf.keep(wanted, folder, Answer(tuple(found))).name


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "report.html").write_text("outside")
    return Shelf(tmp_path / "shelf", most=3)


def standing(shelf: Shelf) -> set[str]:
    return {entry.name for entry in shelf.folder.iterdir()}


def test_an_answer_is_found_by_an_equal_wish_and_by_name(shelf: Shelf) -> None:
    name = put(shelf, wish(), views=2)
    kept = shelf.find(Wish("digest-0", "cat.jpg", 0, ("toy",)))
    assert kept is not None
    assert kept.name == name
    path = shelf.file(name, 1, "report.html")
    assert path is not None
    assert path.read_text() == "digest-0 1"
    assert shelf.find(wish(1)) is None


@pytest.mark.parametrize("change", [{"title": "dog.jpg"}, {"target": 1}, {"areas": (0.1,)}, {"refine": True}])
def test_another_wish_has_another_answer(shelf: Shelf, change: dict[str, object]) -> None:
    put(shelf, wish())
    assert shelf.find(Wish(**{**vars(wish()), **change})) is None  # type: ignore[arg-type]


def test_the_oldest_goes_first_with_its_folder(shelf: Shelf) -> None:
    names = [put(shelf, wish(number)) for number in range(3)]
    assert shelf.find(wish(0)) is not None  # looked at again: it is not the oldest any more
    names.append(put(shelf, wish(3)))
    assert [shelf.find(wish(number)) is not None for number in range(4)] == [True, False, True, True]
    assert standing(shelf) == {names[0], names[2], names[3]}
    assert shelf.file(names[1], 0, "report.html") is None


def test_a_second_answer_takes_the_place_of_the_first(shelf: Shelf) -> None:
    first, second = put(shelf, wish()), put(shelf, wish())
    assert first != second
    assert standing(shelf) == {second}
    assert shelf.file(first, 0, "report.html") is None


def test_names_are_drawn_and_folders_are_private(shelf: Shelf) -> None:
    names = {put(shelf, wish(number)) for number in range(50)}
    assert len(names) == 50
    assert all(len(name) >= 22 for name in names)  # 128 bits
    assert all(entry.stat().st_mode & 0o777 == 0o700 for entry in shelf.folder.iterdir())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_exception(shelf: Shelf, error: type[BaseException]) -> None:
    def fail() -> None:
        with shelf.new_folder() as folder:
            (folder / "view-0").mkdir()
            (folder / "view-0" / "report.html").write_text("half")
            assert standing(shelf) == {folder.name}
            raise error

    with pytest.raises(error):
        fail()
    assert standing(shelf) == set()


@pytest.mark.parametrize("view", [-1, 1, 10**9])
def test_no_such_view(shelf: Shelf, view: int) -> None:
    assert shelf.file(put(shelf, wish()), view, "report.html") is None


@pytest.mark.parametrize(
    "file", ["secret.txt", "../report.html", "../../report.html", "/etc/passwd", "report.html/", "REPORT.HTML", "", "."]
)
def test_only_the_known_files_may_be_had(shelf: Shelf, file: str) -> None:
    assert shelf.file(put(shelf, wish()), 0, file) is None


def test_a_known_file_that_is_not_there(shelf: Shelf) -> None:
    name = put(shelf, wish())
    assert [shelf.file(name, 0, file) is not None for file in FILES] == [file == "report.html" for file in FILES]


@given(st.one_of(st.text(alphabet="./\\%0abc~-_\0", max_size=12), st.text(max_size=12).filter(str.isascii)))
@settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_guessed_name_leads_nowhere(shelf: Shelf, guess: str) -> None:
    name = put(shelf, wish())  # for each guess anew, the former goes
    for forged in (guess, f"{guess}/{name}", f"{name}/{guess}", f"../{shelf.folder.name}/{name}", name[:-1]):
        assert shelf.file(forged, 0, "report.html") is None


def test_a_name_of_other_letters_leads_nowhere_too(shelf: Shelf) -> None:
    put(shelf, wish())
    assert shelf.file("é…😀", 0, "report.html") is None
