"""Questions of the app that one region does not answer: sets of regions, and a class rather than another."""

from pathlib import Path

import pytest

from extremal.app.answers import open_answer
from extremal.app.job_queue import JobProgress
from extremal.app.networks import ServedNetwork
from extremal.app.request import CONTRAST, SETS, Request, Response
from extremal.app.request_run import run_request
from extremal.app.result_cache import ResultCache
from extremal.explanations.sets.class_contrast import Contrast
from extremal.explanations.sets.region_sets import RegionSets
from extremal.explanations.settings import Settings
from extremal.files import SET_KINDS
from extremal.masking.solvers import SOLVERS
from support.app_toys import PATCH, SIDE, colour_image, colour_network
from support.errors import message_of
from support.toys import box_mask, overlap

AREAS = (0.12, 0.3)
stages: list[JobProgress] = []

pytestmark = pytest.mark.usefixtures("fast_runs")


def ask(folder: Path, question: str, target: int | str = 0, served: ServedNetwork | None = None) -> Response:
    """Ask a question about a patch of red, and a smaller one of green."""
    settings = Settings(areas=AREAS, solver=SOLVERS["consensus"])
    request = Request("d", "my cat.png", target, ("toy",), (question,), settings=settings)
    image = colour_image("red")
    image.paste("lime", (4, 36, 10, 42))
    image.save(folder / "upload.png")
    stages.clear()
    (folder / "response").mkdir()
    networks = {"toy": served or ServedNetwork("toy", colour_network())}
    return run_request(request, folder / "upload.png", networks, folder / "response", stages.append)


def test_the_sets_are_found_and_written(tmp_path: Path) -> None:
    (view,) = ask(tmp_path, SETS).views
    assert view.heading == "red – sufficient, necessary and complete regions, toy"
    assert view.tab == "Sufficient, necessary, complete, at 12\u00a0%, 30\u00a0%"
    assert view.sentence.startswith("Smallest regions: sufficient 12\u00a0%, necessary 12\u00a0%, complete 12\u00a0%.")
    sets = RegionSets.load(view.folder / "sets.safetensors")
    for kind in SET_KINDS:
        found = sets.smallest(kind)
        assert found is not None
        assert overlap(found.region.mask, box_mask(PATCH, (SIDE, SIDE))) > 0.7
    assert {"necessary: descent", "complete, lost: evidence", "writing"} <= {progress.stage for progress in stages}


@pytest.mark.parametrize(("target", "names"), [(0, ("red", "green")), (1, ("red", "green"))])
def test_a_class_is_contrasted_with_the_runner_up_and_another_one_with_the_top_class(
    tmp_path: Path, target: int, names: tuple[str, str]
) -> None:
    (view,) = ask(tmp_path, CONTRAST, target).views
    found = Contrast.load(view.folder / "contrast.safetensors")
    assert found.names == names
    assert view.tab.startswith("Rather than another class")
    assert view.sentence.startswith(("Without", "No computed region turns red into green"))


@pytest.mark.parametrize("question", [SETS, CONTRAST])
def test_a_saved_answer_is_opened_again(tmp_path: Path, question: str) -> None:
    (view,) = ask(tmp_path, question).views
    (tmp_path / "cache").mkdir()
    (path,) = view.folder.glob("*.safetensors")
    opened = open_answer(path, path.name, ResultCache(tmp_path / "cache"))
    (again,) = opened.response.views
    assert (again.heading.rpartition(",")[0], again.sentence) == (view.heading.rpartition(",")[0], view.sentence)
    assert (again.tab, again.label) == (view.tab.partition(", at")[0], view.label)
    assert opened.response.thumbnail


def test_a_group_of_classes_has_no_contrast(tmp_path: Path) -> None:
    served = ServedNetwork("toy", colour_network())
    served.network.groups = {"warm": (0, 3)}
    message = message_of(ask, tmp_path, CONTRAST, "warm", served)
    assert message.startswith("a contrast must be between two classes, got warm (2 classes); choose a single class")
