"""Groups of classes on the page of the app."""

from pathlib import Path

import pytest

from extremal import Explanation
from extremal.app.choices import Choice, choose_class, search_choices
from extremal.app.networks import ServedNetwork
from extremal.app.request import Request
from extremal.app.request_run import run_request
from extremal.explanations.settings import Settings
from extremal.report.result_files import EXPLANATION_FILE
from support.app_toys import LABELS, colour_network, save_colour_image
from support.errors import message_of

pytestmark = pytest.mark.usefixtures("fast_runs", "one_thread")


def serve(labels: tuple[str, ...] = LABELS, **groups: tuple[int, ...]) -> ServedNetwork:
    network = colour_network(labels)
    network.groups = groups
    return ServedNetwork("toy", network)


def test_groups_are_offered_before_the_classes() -> None:
    served = serve(warm=(0, 3))
    assert search_choices("classes", served, "")[:2] == [Choice("warm", "group of 2 classes"), Choice("red")]
    assert (choose_class(served, "warm"), choose_class(served, "red")) == ("warm", 0)
    assert (served.label("warm"), served.label(2)) == ("warm (2 classes)", "blue, sky")


def test_a_group_is_explained_in_each_network(tmp_path: Path) -> None:
    path = save_colour_image(tmp_path / "cat.png")
    networks = {"toy": serve(warm=(0, 3)), "other": serve(LABELS[::-1], warm=(0, 3))}
    request = Request("d", "cat.png", "warm", ("toy", "other"), settings=Settings(areas=(0.12,)))
    (tmp_path / "out").mkdir()
    response = run_request(request, path, networks, tmp_path / "out", lambda progress: None)
    assert [view.heading for view in response.views] == ["warm (2 classes) – preserve game, toy"] * 2
    loaded = Explanation.load(response.views[0].folder / EXPLANATION_FILE)
    assert (loaded.target, loaded.target_names) == (((0, 3),), ("warm (2 classes)",))


def test_a_network_without_the_group() -> None:
    message = message_of(serve().matching_class, serve(warm=(0, 3)), "warm")
    assert message == "target must be a class of colours, got 'warm'"
