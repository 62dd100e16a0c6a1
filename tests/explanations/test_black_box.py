"""Explanations of networks without a gradient: nothing asks for one, and what needs one says so."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import extremal
from extremal.errors import ExtremalValueError
from extremal.explanations.verdict import Status
from extremal.masking.solvers import Search
from extremal.networks.black_box import BlackBox
from extremal.networks.network import Network
from support.toys import Boxes, overlap, texture

SIDE = 32
BOX = (slice(8, 18), slice(12, 22))  # 10 % of the places
AREAS = (0.1, 0.3)
QUICK = Search(evaluations=150)


class WithoutGradient(nn.Module):
    """A module that refuses to be asked for a gradient."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        assert not (x.requires_grad and torch.is_grad_enabled())
        output: Tensor = self.inner(x)
        return output


def picture() -> np.ndarray[Any, Any]:
    pixels = np.full((SIDE, SIDE, 3), 60, np.uint8)
    pixels[BOX] = 240, 20, 20
    return pixels


def redness(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Scores of red and of other: the red in the box."""
    values = pictures.astype(np.float64) / 255
    red = (values[..., 0] - values[..., 1]).clip(0)[:, *BOX].mean((1, 2))
    return np.stack([8 * red, np.zeros_like(red)], 1)


def opaque(**options: Any) -> tuple[Network, Tensor]:
    x = texture(1, 3, SIDE, SIDE)
    return Network(WithoutGradient(Boxes(x, [BOX])), gradient=False, **options), x


def message_of(call: Any) -> str:
    with pytest.raises(ExtremalValueError) as error:
        call()
    return str(error.value)


def test_the_region_of_a_function_on_pictures_is_found() -> None:
    result = extremal.explain(redness, picture(), 0, areas=AREAS, solver="search", score="logit")
    mask = result.binary(0.1)[0, 0]
    assert float(mask[BOX].mean()) > 0.85
    assert result.status == ((Status.CONVERGED, Status.CONVERGED),)
    assert str(result.verdict[0][1]) == "sufficient"
    assert result.mask_areas[0].tolist() == pytest.approx(AREAS, abs=1e-4)
    place = int(result.saliency().flatten().argmax())
    assert bool((torch.from_numpy(picture()[..., 0]) > 100).flatten()[place])
    assert np.array_equal(result.pictures[0].numpy(), picture())
    counts = result.settings["evaluations"]
    assert (counts["gradients"], counts["evidence_gradients"]) == (0, 0)
    assert 0 <= counts["forwards"] - Search().evaluations <= 12  # of the set-up and its checks


def test_a_function_is_asked_about_pictures_by_what_follows_a_search_and_by_sets() -> None:
    options: dict[str, Any] = {"areas": AREAS, "solver": "search", "score": "logit"}
    result = extremal.explain(redness, picture(), 0, **options)
    assert extremal.minimal(redness, result)[0] is not None
    assert extremal.stability(redness, picture(), result, copies=1).ious.shape == (1, 2, 1)
    sets = extremal.explain_sets(redness, picture(), 0, **options)
    assert torch.equal(sets.sufficient.score_full, result.score_full)
    colours = lambda pictures: pictures.mean((1, 2)) / 32  # noqa: E731
    difference = extremal.contrast(colours, picture(), 0, 1, areas=AREAS, solver=QUICK)
    red, green, _ = picture().mean((0, 1)) / 32
    assert float(difference.loss.score_full) == pytest.approx(float(red - green), rel=1e-3)


def test_no_gradient_is_asked_of_a_network_without_one() -> None:
    net, x = opaque(mirror=False)
    result = extremal.explain(net, x, 0, areas=AREAS, solver=QUICK, perturbation="blur")
    found = torch.zeros(SIDE, SIDE)
    found[BOX] = 1.0
    assert overlap(result.binary(0.1)[0, 0], found) > 0.5
    judged = extremal.judge(net, x, result.masks, 0, areas=AREAS, perturbation="blur")
    assert torch.allclose(judged.binary_scores, result.binary_scores, atol=1e-5)
    assert bool((judged.agreement == 1).all())
    assert extremal.examine(net, x, 0, perturbation="blur").ok
    (region,) = extremal.minimal(net, result, budget=60)
    assert region is None or region.area <= 0.3


def test_search_and_plan_do_without_gradients_for_any_network() -> None:
    x = texture(1, 3, SIDE, SIDE)
    net = Network(Boxes(x, [BOX]))
    result = extremal.explain(net, x, 0, areas=AREAS, solver=QUICK)
    assert result.settings["evaluations"]["gradients"] == 0
    black_box, _ = opaque()
    planned = extremal.plan(black_box, x, 0, areas=AREAS, solver=QUICK)
    spent = extremal.explain(black_box, x, 0, areas=AREAS, solver=QUICK).settings["evaluations"]
    assert planned.as_dict()["evaluations"] == spent
    assert planned.reading.sentences[1].endswith("; no gradient: black box")
    assert planned.row_bytes == 0


def test_several_pictures_and_alternatives() -> None:
    images = [picture(), picture()[::-1].copy()]
    box = BlackBox(redness, labels=("red", "other"))
    result = extremal.explain(box, images, "red", areas=AREAS, solver=QUICK, score="logit", alternatives=2)
    assert result.masks.shape == (2, 2, 1, SIDE, SIDE)
    assert len(result.alternatives) == 1
    alone = extremal.explain(box, images[0], "red", areas=AREAS, solver=QUICK, score="logit")
    assert torch.allclose(result.masks[:1], alone.masks, atol=1e-3)


def test_the_doctor_says_that_there_is_no_gradient() -> None:
    findings = {finding.name: finding for finding in extremal.examine(BlackBox(redness), picture(), 0).findings}
    assert findings["gradient"].measured == "no gradient: black box, to be explained with the solver search"


class TestWhatNeedsAGradient:
    def test_other_solvers(self) -> None:
        for solver in ("consensus", "path", "penalty"):
            assert message_of(lambda solver=solver: extremal.explain(BlackBox(redness), picture(), solver=solver)) == (
                f"the solver {solver} needs a gradient, redness is a black box without one; pass solver='search', or "
                "--solver search"
            )

    def test_the_smallest_area_and_channels(self) -> None:
        net, x = opaque()
        result = extremal.explain(net, x, 0, areas=AREAS, solver=QUICK)
        name = "WithoutGradient is a black box without one"
        assert message_of(lambda: extremal.smallest_area(net, result)) == (
            f"the search for the smallest area needs a gradient, {name}; explain more areas, or reduce the region "
            "with minimal (--minimal)"
        )
        assert message_of(lambda: extremal.explain_channels(net, x, "inner")) == (
            f"an explanation by channels needs a gradient, {name}; pass the module itself, or explain places"
        )


class TestAnswersThatCannotBeExplained:
    def test_noise(self) -> None:
        rng = np.random.default_rng(0)
        message = message_of(lambda: extremal.explain(lambda p: rng.random((len(p), 2)), picture(), solver="search"))
        assert message.startswith(
            "a black box must give the same answer for the same input, black box's scores changed"
        )

    def test_nan(self) -> None:
        message = message_of(
            lambda: extremal.explain(lambda p: np.full((len(p), 2), np.nan), picture(), solver="search")
        )
        assert message.startswith("a network must return finite scores, black box returned")

    def test_constant_scores(self) -> None:
        message = message_of(lambda: extremal.explain(lambda p: np.ones((len(p), 2)), picture(), 0, solver="search"))
        assert message.startswith("a score must change when the input is destroyed")
