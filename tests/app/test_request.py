"""Requests of the app: a view for each network and game, on a network with a known response."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from extremal.app.job_queue import JobCancelled, JobProgress, JobQueue, JobState, OnProgress
from extremal.app.networks import ServedNetwork
from extremal.app.request import Request, Response
from extremal.app.request_run import run_request
from extremal.app.view_run import Preview
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.explanation import Explanation
from extremal.explanations.settings import Settings
from extremal.masking.solvers import SOLVERS
from extremal.networks.network import Network
from support.app_toys import LABELS, PATCH, SIDE, colour_network, save_colour_image
from support.errors import message_of
from support.toys import Boxes, box_mask, overlap, texture

AREAS = (0.12, 0.3)
PERMUTED_LABELS = ("yellow", "blue, sky", "green", "red")  # the same names as LABELS, for other classes

pytestmark = pytest.mark.usefixtures("fast_runs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "response").mkdir()
    return tmp_path / "response"


def build_request(areas: tuple[float, ...] = AREAS, **options: object) -> Request:
    """Build a request; options are fields of `Request` or of its `Settings`."""
    names = ("perturbation", "alternatives")
    settings = Settings(
        areas=areas, solver=SOLVERS["consensus"], **{name: options.pop(name) for name in names if name in options}
    )  # type: ignore[misc]
    values = {"digest": "d", "title": "my cat.png", "target": 0, "networks": ("toy",), "settings": settings}
    return Request(**{**values, **options})  # type: ignore[arg-type]


def run(
    request: Request,
    folder: Path,
    networks: dict[str, ServedNetwork] | None = None,
    on_progress: OnProgress = lambda progress: None,
    colour: str = "red",
) -> Response:
    """Run a request on the image of a patch of this colour."""
    path = save_colour_image(folder.parent / "upload.png", colour)
    return run_request(request, path, networks or serve(toy=colour_network()), folder, on_progress)


def serve(**networks: Network) -> dict[str, ServedNetwork]:
    return {name: ServedNetwork(name, network) for name, network in networks.items()}


def load(response: Response, view: int = 0) -> Explanation:
    """Load the explanation of a view."""
    return Explanation.load(response.views[view].folder / "explanation.safetensors")


def test_one_view(folder: Path) -> None:
    response = run(build_request(), folder)
    (view,) = response.views
    assert view.heading == "red – preserve game, toy"
    assert re.match(
        "12\u00a0% of the image keeps (9\\d|100)\u00a0% of the score; random regions of that size", view.sentence
    )
    assert sorted(entry.name for entry in view.folder.iterdir()) == [
        *("explanation.safetensors", "mask-0.12.png", "mask-0.3.png", "report.html"),
    ]
    assert view.draws_figure
    assert "my cat.png" in (view.folder / "report.html").read_text(encoding="utf-8")
    assert response.overlaps == ()
    explanation = load(response)
    assert (explanation.areas, explanation.target) == (AREAS, (0,))
    assert overlap(explanation.binary(0.12)[0, 0], box_mask(PATCH, (SIDE, SIDE))) > 0.8


def test_a_view_for_each_network_and_game(folder: Path) -> None:
    networks = serve(one=colour_network(), two=colour_network())
    response = run(build_request(networks=("one", "two"), questions=("preserve", "delete")), folder, networks)
    assert [view.heading for view in response.views] == [
        "red – preserve game, one",
        "red – delete game, one",
        "red – preserve game, two",
        "red – delete game, two",
    ]
    assert [load(response, number).settings["game"] for number in range(4)] == ["preserve", "delete"] * 2
    assert len({view.folder for view in response.views}) == 4


def test_overlaps_are_those_of_the_first_two_views(folder: Path) -> None:
    response = run(build_request(questions=("preserve", "delete")), folder)
    a, b = load(response, 0), load(response, 1)
    assert [item.area for item in response.overlaps] == list(AREAS)
    for item in response.overlaps:
        assert item.iou == pytest.approx(overlap(a.binary(item.area)[0], b.binary(item.area)[0]))
    assert response.overlaps[0].iou > 0.6  # both depend on the patch


def test_no_overlaps_of_unequal_shapes(folder: Path) -> None:
    def preprocess(image: Image.Image) -> torch.Tensor:
        return colour_network().preprocess(image)[:, ::2, ::2]  # type: ignore[misc]

    half = Network(colour_network().model, preprocess, LABELS, "half", [0.5] * 3, [0.5] * 3)
    networks = serve(toy=colour_network(), half=half)
    response = run(build_request(networks=("toy", "half")), folder, networks)
    assert (len(response.views), response.overlaps) == (2, ())


@pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
def test_each_game(folder: Path, game: str) -> None:
    response = run(build_request(questions=(game,)), folder)
    assert response.views[0].heading == f"red – {game} game, toy"
    assert load(response).settings["game"] == game


def test_alternatives_and_perturbation_reach_the_result(folder: Path) -> None:
    explanation = load(run(build_request(alternatives=2, perturbation="fade"), folder))
    assert len(explanation.alternatives) == 1
    assert explanation.settings["perturbation"] == "Fade()"


def test_stability_reaches_the_result(folder: Path) -> None:
    stages = []
    response = run(build_request(stability=True), folder, on_progress=lambda progress: stages.append(progress.stage))
    saved = Explanation.load(response.views[0].folder / "explanation.safetensors")
    assert saved.stability is not None
    assert saved.stability.copies == 4
    assert "copies, evidence" in stages


def test_refinement_reaches_the_result(folder: Path) -> None:
    response = run(build_request(refine=True), folder)
    masks = [float(entry.stem.removeprefix("mask-")) for entry in response.views[0].folder.glob("mask-*.png")]
    (certified,) = set(masks) - set(AREAS)
    assert 0.06 < certified < 0.12  # a ninth of the image is red, and a part of that suffices


def test_channels(folder: Path) -> None:
    (view,) = run(build_request(layer="features"), folder).views
    assert view.heading == "red – channels of features, preserve game, toy"
    assert view.sentence.startswith("1 of 4 channels of features keep 100\u00a0% of the score")
    assert sorted(entry.name for entry in view.folder.iterdir()) == [
        "channels.safetensors",
        "figure.png",
        "report.html",
    ]
    explanation = ChannelExplanation.load(view.folder / "channels.safetensors")
    assert explanation.smallest().channels == (0,)  # the one that sees red


def test_an_unknown_layer(folder: Path) -> None:
    message = message_of(run, build_request(layer="nowhere"), folder)
    assert message == (
        "a layer must be the name of a module in colours, got 'nowhere'; did you mean features? "
        "extremal.layers(network) or `extremal layers` lists them"
    )


class TestMatchingClasses:
    def test_by_name(self, folder: Path) -> None:
        networks = serve(toy=colour_network(), other=colour_network(PERMUTED_LABELS))
        response = run(build_request(networks=("toy", "other")), folder, networks)
        assert [view.heading for view in response.views] == ["red – preserve game, toy", "red – preserve game, other"]
        assert [load(response, number).target for number in (0, 1)] == [(0,), (3,)]

    @pytest.mark.parametrize("labels", [("grey", "green", "sky", "yellow"), ("sky", "a", "b", "c")])
    def test_by_one_of_several_synonyms(self, labels: tuple[str, ...]) -> None:
        a, b = ServedNetwork("one", colour_network()), ServedNetwork("other", colour_network(labels))
        assert b.matching_class(a, 2) == labels.index("sky")

    def test_a_repeated_name_matches_the_same_index(self) -> None:
        a = ServedNetwork("one", colour_network(("crane, bird", "green", "crane, machine", "yellow")))
        b = ServedNetwork("other", colour_network(("crane", "green", "crane", "red")))
        assert [b.matching_class(a, index) for index in range(3)] == [0, 1, 2]

    def test_without_a_match(self, folder: Path) -> None:
        networks = serve(toy=colour_network(), other=colour_network(("cat", "dog", "cow", "hen")))
        message = message_of(run, build_request(networks=("toy", "other")), folder, networks)
        assert message == "target must be a class of colours, got 'red'"

    def test_networks_without_labels(self) -> None:
        a, b = ServedNetwork("one", colour_network(())), ServedNetwork("other", colour_network(()))
        assert b.matching_class(a, 3) == 3
        message = message_of(b.matching_class, ServedNetwork("named", colour_network()), 3)
        assert message == "colours has no class names, got 'yellow'; give the class as an index"


class TestProgress:
    def test_each_view_reports_its_number(self, folder: Path) -> None:
        stages = list[str]()
        run(
            build_request(questions=("preserve", "delete")),
            folder,
            on_progress=lambda progress: stages.append(progress.stage),
        )
        assert stages[0] == "view 1 of 2: start"
        assert stages[-1] == "view 2 of 2: writing"
        for view in ("view 1 of 2: ", "view 2 of 2: "):
            for stage in ("start", "descent", "evidence", "writing"):
                assert view + stage in stages

    @pytest.mark.parametrize("game", ["preserve", "delete"])
    def test_previews_show_what_is_left_of_the_image(self, folder: Path, game: str) -> None:
        reports = list[JobProgress]()
        run(build_request(questions=(game,), areas=(0.12,)), folder, on_progress=reports.append)
        steps = [progress for progress in reports if isinstance(progress.preview, Preview)]
        assert all(progress.done <= progress.total for progress in steps)
        last = steps[-1].preview
        assert last.image.shape == (SIDE, SIDE, 3)
        assert last.image[16, 28].tolist() == [255, 0, 0]
        assert float(last.masks[0].mean()) == pytest.approx(0.12 if game == "preserve" else 0.88, abs=0.02)

    def test_reports_with_equal_counts_differ(self) -> None:
        image, masks = torch.zeros(2, 2, 3), torch.zeros(1, 2, 2)
        a, b = (JobProgress("sweep", 1, 2, Preview(image, masks.clone())) for _ in range(2))
        assert a != b

    def test_inputs_that_are_not_images_have_no_preview(self, folder: Path) -> None:
        def preprocess(image: Image.Image) -> torch.Tensor:
            return texture(5, SIDE, SIDE)

        net = Network(Boxes(texture(1, 5, SIDE, SIDE), [PATCH]), preprocess, ("box", "none"), "five")
        reports = list[JobProgress]()
        (view,) = run(build_request(), folder, serve(toy=net), on_progress=reports.append).views
        assert all(progress.preview is None for progress in reports)
        assert view.heading == "box – preserve game, toy"


class TestEndings:
    @pytest.mark.parametrize(
        "stage", ["start", "descent", "evidence", "smallest area", "copies, descent", "copies, evidence", "writing"]
    )
    def test_a_cancelled_run_restores_the_network(self, folder: Path, stage: str) -> None:
        served = ServedNetwork("toy", colour_network())
        before = {name: tensor.clone() for name, tensor in served.network.model.state_dict().items()}
        modules = list(served.network.model.modules())

        def on_progress(progress: JobProgress) -> None:
            if progress.stage == stage:
                raise JobCancelled

        with pytest.raises(JobCancelled):
            run(build_request(refine=True, stability=True), folder, {"toy": served}, on_progress)
        assert list(folder.iterdir()) == []
        assert list(served.network.model.modules()) == modules
        assert not served.network.model.training
        for name, tensor in served.network.model.state_dict().items():
            assert torch.equal(tensor, before[name])
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
        assert run(build_request(), folder, {"toy": served}).views

    def test_the_queue_cancels_a_run(self, folder: Path) -> None:
        reports: list[JobProgress] = []

        with JobQueue() as queue:

            def work(on_progress: OnProgress) -> Response:
                def cancel_in_descent(progress: JobProgress) -> None:
                    reports.append(progress)
                    if progress.stage == "descent":
                        queue.cancel("anna")
                    on_progress(progress)

                return run(build_request(), folder, on_progress=cancel_in_descent)

            job = queue.submit("anna", work)
            job.wait(20)
            assert job.state is JobState.CANCELLED
        assert reports[-1].stage == "descent"
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize("target", [-1, 4, 10**9])
    def test_an_unknown_class(self, folder: Path, target: int) -> None:
        message = message_of(run, build_request(target=target), folder)
        assert message == f"target must lie in 0..3 for colours, got {target}; classes are counted from 0"
        assert list(folder.iterdir()) == []

    def test_scores_that_are_not_finite(self, folder: Path) -> None:
        served = ServedNetwork("toy", colour_network())
        served.network.model.head.bias.data.fill_(torch.nan)  # type: ignore[union-attr]
        message = message_of(run, build_request(), folder, {"toy": served})
        assert "finite" in message
        assert list(folder.iterdir()) == []
