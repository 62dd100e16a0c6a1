"""Questions about boxes and instances of detectors whose evidence is known: found at its own area, and refused else."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from extremal import Network, explain, explain_channels, judge
from extremal.masking.solvers import Path
from extremal.scores import Box, Instance, Query
from extremal.scores.detections import read_detections
from support.detectors import (
    CAT,
    CAT_CORNERS,
    DOG,
    DOG_CORNERS,
    LABELS,
    STOP,
    AnchorDetector,
    At,
    MaskMappings,
    PlantedMasks,
    PlantedQueries,
    Promptable,
)
from support.errors import message_of
from support.query_toys import Detector, looks
from support.toys import box_mask, overlap

X = torch.ones(1, 3, 32, 32)
AREA = 64 / 1024  # of a square
QUICK = Path(steps=24, polish=6, draws=2, search=4)


def prompted(point: tuple[float, float]) -> Network:
    points = torch.tensor(point).view(1, 1, 1, 2)
    return Network(
        Promptable(), inputs=lambda x: {"pixel_values": x, "input_points": points.expand(len(x), -1, -1, -1)}
    )


def labelled(model: nn.Module) -> Network:
    return Network(model, labels=LABELS)


def region(place: At) -> Tensor:
    return box_mask(place, (32, 32)) > 0


def worth(net: Network, query: Query, inputs: Tensor = X, unperturbed: Tensor = X) -> Tensor:
    """Return the scores of inputs for a query that is bound to the unperturbed input."""
    with net.frozen() as run, torch.no_grad():
        return query.bind(run, unperturbed)(inputs, torch.zeros(len(inputs), dtype=torch.int64))


CASES: dict[str, tuple[Callable[[], Network], Query, At]] = {
    "query 2 of DETR": (lambda: labelled(PlantedQueries()), Box(CAT_CORNERS, "cat"), CAT),
    "another query": (lambda: labelled(PlantedQueries()), Box(label="dog"), DOG),
    "not another class": (lambda: labelled(PlantedQueries()), Box(DOG_CORNERS, against="cat"), DOG),
    "no box": (lambda: labelled(PlantedQueries(stops=True)), Box(CAT_CORNERS, "cat", absent=True), STOP),
    "anchors": (lambda: labelled(AnchorDetector()), Box(label="cat"), CAT),
    "an anchor's box": (lambda: labelled(AnchorDetector()), Box(DOG_CORNERS), DOG),
    "instance": (lambda: labelled(PlantedMasks()), Instance(label="dog"), DOG),
    "instance of a region": (lambda: labelled(PlantedMasks()), Instance(region(CAT)), CAT),
    "instance of a mapping": (lambda: labelled(MaskMappings()), Instance(label="dog"), DOG),
    "prompted by a point": (lambda: prompted((20.0, 24.0)), Instance(), DOG),
    "prompted by another": (lambda: prompted((8.0, 8.0)), Instance(label=0), CAT),
}


@pytest.mark.parametrize("case", CASES)
def test_the_evidence_is_found_at_its_own_area(case: str) -> None:
    build, query, place = CASES[case]
    result = explain(build(), X, query, areas=(AREA,), perturbation="fade", solver=QUICK)
    assert result.target_names == (query.name,)
    assert overlap(result.binary(AREA)[0, 0], box_mask(place, (32, 32))) >= 0.6
    (verdict,) = result.verdict[0]
    assert verdict.label == "sufficient", verdict.reason


@pytest.mark.parametrize("case", CASES)
def test_the_region_of_something_else_is_insufficient(case: str) -> None:
    build, query, place = CASES[case]
    other = box_mask(DOG if place == CAT else CAT, (32, 32))
    result = judge(build(), X, other[None, None, None], query, areas=(AREA,), perturbation="fade")
    assert result.verdict[0][0].label == "insufficient"


class TestValues:
    def test_boxes_of_queries(self) -> None:
        net = labelled(PlantedQueries())
        (found,) = read_detections(net.model(X), X, net)
        assert found.boxes.tolist() == [list(CAT_CORNERS), list(DOG_CORNERS)]
        chance = torch.tensor([4.0, -8.0, 0.0]).softmax(0)[0]
        dark, torn = torch.zeros_like(X), torch.tensor([-4.0, 4.0, 0.0]).softmax(0)
        assert float(worth(net, Box(CAT_CORNERS, 0))) == pytest.approx(float(chance), rel=1e-5)
        against = Box(DOG_CORNERS, 1, against=0)
        assert float(worth(net, against)) == pytest.approx(float(torn[1] - torn[0]), rel=1e-5)
        assert float(worth(net, against, dark)) == pytest.approx(float(torn[0] - torn[1]), rel=1e-5)

    def test_the_absence_of_a_box_is_its_log_odds(self) -> None:
        net = labelled(PlantedQueries(stops=True))
        chance = torch.tensor([-8.0, -8.0, 0.0]).softmax(0)[0] / 16  # of the queries that see the whole input
        absent = float(worth(net, Box(CAT_CORNERS, 0, absent=True)))
        assert absent == pytest.approx(-float(chance.logit()), rel=1e-4)

    def test_a_detector_without_any_box_is_certain_of_the_absence(self) -> None:
        dim = Network(Detector(X, looks()), labels=("background", "dog", "car"))
        assert float(worth(dim, Box((4, 4, 12, 12), 1, absent=True), 0 * X, 0 * X)) == pytest.approx(4.8, rel=1e-4)
        none = Network(Silent(), labels=LABELS)
        assert float(worth(none, Box(CAT_CORNERS, 0, absent=True))) == pytest.approx(13.8155, rel=1e-4)

    def test_anchors_are_suppressed_only_to_be_counted(self) -> None:
        net = labelled(AnchorDetector())
        (found,) = read_detections(net.model(X), X, net)
        assert found.labels.tolist() == [0, 1]
        assert found.boxes.tolist() == [list(CAT_CORNERS), list(DOG_CORNERS)]
        seen = float(torch.tensor(4.0).sigmoid())
        assert float(worth(net, Box(DOG_CORNERS, 1))) == pytest.approx(seen, rel=1e-5)
        half = Box((16, 20, 24, 24.5), 1)
        assert float(worth(net, half)) == pytest.approx(seen * 4.5 / 8, rel=1e-5)

    def test_masks_are_matched_softly(self) -> None:
        net, left = labelled(MaskMappings()), box_mask((slice(20, 28), slice(16, 21)), (32, 32)) > 0
        seen = float(torch.tensor(4.0).sigmoid())
        assert float(worth(net, Instance(left))) == pytest.approx(seen * 5 / 8, rel=1e-5)
        faint = X * (1 - 0.9 * box_mask(DOG, (32, 32)))  # below the threshold of the model, which is lowered
        assert float(worth(net, Instance(left), faint)) == pytest.approx(
            5 / 8 * float(torch.tensor(0.8 - 4.0).sigmoid()), rel=1e-4
        )
        assert net.model.score_thresh == 0.05

    def test_channels_ask_about_places_of_the_input(self) -> None:
        model = nn.Sequential(nn.Sequential(nn.AvgPool2d(1)), PlantedQueries())
        result = explain_channels(labelled(model), X, "0", Box(CAT_CORNERS), counts=(2,), solver=Path(steps=2))
        assert float(result.score_full) == pytest.approx(float(torch.tensor([4.0, -8.0, 0.0]).softmax(0)[0]), rel=1e-5)


def without_labels() -> Network:
    """A model of transformers without names of classes, whose kind says that the last one is that of no object."""
    model = PlantedQueries()
    model.config = SimpleNamespace(model_type="detr")  # type: ignore[assignment]
    return Network(model)


class Silent(nn.Module):
    """Finds nothing."""

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        empty = torch.zeros(0)
        return [{"boxes": torch.zeros(0, 4), "labels": empty.long(), "scores": empty} for _ in x]


@pytest.mark.parametrize(
    ("net", "query", "message"),
    [
        (
            labelled(PlantedQueries()),
            lambda: Box(CAT_CORNERS, "cat", absent=True),
            "an absent box must not be found on the unperturbed input, PlantedQueries finds one of cat on input 0 with "
            "a score of 0.98 and an IoU of 1.00; leave absent out to explain it",
        ),
        (
            labelled(PlantedQueries()),
            lambda: Box(CAT_CORNERS, absent=True),
            "an absent box must be given by its corners and its class alone, got box=(4.0, 4.0, 12.0, 12.0), "
            "label=None, against=None; e.g. Box((40, 30, 200, 180), 'cat', absent=True)",
        ),
        (
            labelled(PlantedQueries()),
            lambda: Box(CAT_CORNERS, against="cat"),
            "against must be another class than the box has, got cat for a box of it on input 0; name another class",
        ),
        (
            without_labels(),
            lambda: Box(CAT_CORNERS, against=5),
            "a class must lie in 0..1 for PlantedQueries, got 5; classes are counted from 0",
        ),
        (
            labelled(PlantedQueries()),
            lambda: Box(CAT_CORNERS, "dog"),
            "a detector must find the box on the unperturbed input with an IoU of at least 0.5, the best box of dog "
            "that PlantedQueries finds on input 0 has 0.00, of 1 cat, 1 dog; box=None selects the best",
        ),
        (
            labelled(PlantedMasks()),
            lambda: Instance(region(STOP)),
            "a network must find the instance on the unperturbed input with an IoU of at least 0.5, the best that "
            "PlantedMasks finds on input 0 has 0.00, of 1 cat, 1 dog; region=None selects the best",
        ),
        (
            labelled(PlantedMasks()),
            lambda: Instance(torch.ones(16, 16) > 0),
            "a region must have the shape (32, 32) of the input, got (16, 16)",
        ),
        (
            labelled(PlantedMasks()),
            lambda: Instance(torch.ones(32, 32)),
            "a region must be a bool tensor (*S), got torch.float32; e.g. mask > 0.5",
        ),
        (
            labelled(Silent()),
            Instance,
            "a network must return masks of instances, as Mask R-CNN, MaskFormer, DETR or SAM do, Silent returned a "
            "list of 1 dict with the keys boxes, labels, scores; ask for scores.Box or scores.Segment, or wrap the "
            "network",
        ),
        (
            prompted((8.0, 8.0)),
            lambda: Instance(label=1),
            "a network must find an instance of class 1 on the unperturbed input, Promptable finds none on input 0 but "
            "1 class 0; choose one of these",
        ),
    ],
)
def test_wrong_questions_are_refused(net: Network, query: Callable[[], Query], message: str) -> None:
    assert message_of(lambda: explain(net, X, query(), areas=(0.1,))) == message


def test_nothing_found() -> None:
    net = labelled(PlantedMasks())
    assert message_of(lambda: explain(net, 0 * X, Instance(), areas=(0.1,))) == (
        "a network must find an instance on the unperturbed input, PlantedMasks finds none on input 0; choose another "
        "input"
    )


def test_an_absence_that_nothing_causes_is_refused() -> None:
    net = labelled(PlantedQueries())
    assert "a score must change when the input is destroyed" in message_of(
        lambda: explain(net, X * (1 - box_mask(CAT, (32, 32))), Box(CAT_CORNERS, 0, absent=True), perturbation="fade")
    )


@pytest.mark.parametrize(
    ("query", "name"),
    [
        (Box(label="cat", against="dog"), "best box of cat rather than dog"),
        (Box((1, 2, 3, 4), against=0), "box rather than class 0 at 1, 2, 3, 4"),
        (Box((1, 2, 3, 4), "cat", absent=True), "no box of cat at 1, 2, 3, 4"),
        (Instance(), "best instance"),
        (Instance(label="cat"), "best instance of cat"),
        (Instance(region(CAT), 1), "instance of class 1 over the region"),
    ],
)
def test_names(query: Query, name: str) -> None:
    assert query.name == name
    assert query.depends_on_position
