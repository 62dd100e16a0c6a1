"""Questions whose whole effect is too small to divide by, and regions that chance finds as well."""

import math

import pytest
import torch
from torch import Tensor, nn

from extremal import Explanation, explain, explain_channels, judge, minimal, smallest_area, stability
from extremal.jobs.rows import build_row
from extremal.masking.solvers import Consensus, Path
from extremal.report.text import summarise
from support.errors import message_of
from support.made_explanations import explanation
from support.toys import texture

FAST = Path(steps=8, polish=4, draws=2)
X = torch.ones(1, 3, 32, 32)
TEXTURE = texture(1, 3, 32, 32) + 1
FIRST, SECOND = (slice(8, 16), slice(16, 24)), (slice(20, 28), slice(4, 12))  # 6.25 % of the places each
OPTIONS = {"areas": (0.05, 0.2), "score": "logit", "solver": FAST}


class Opposed(nn.Module):
    """One square speaks for class 0 and another almost as much against it: together they hardly do anything."""

    def __init__(self, against: float = 9.6) -> None:
        super().__init__()
        self.scale, self.against = nn.Identity(), against

    def forward(self, x: Tensor) -> Tensor:
        first, second = (x[(..., *square)].mean((1, 2, 3)) for square in (FIRST, SECOND))
        scores = self.scale(torch.stack([10 * first, self.against * second], 1))
        score = scores[:, 0] - scores[:, 1]
        return torch.stack([score, torch.zeros_like(score)], 1)


def square_mask() -> Tensor:
    mask = torch.zeros(1, 1, 1, 32, 32)
    mask[(..., *FIRST)] = 1
    return mask


@pytest.fixture(scope="module", params=["fade", ("fade", "black")])
def opposed(request: pytest.FixtureRequest) -> Explanation:
    perturbation = request.param if isinstance(request.param, str) else ("fade", lambda x: lambda m: m * x[:, None])
    return explain(Opposed(), X, 0, perturbation=perturbation, **OPTIONS)


class Against(nn.Module):
    """One square speaks against class 0, and nothing for it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        score = -self.scale(x[(..., *FIRST)]).square().mean((1, 2, 3))
        return torch.stack([score, torch.zeros_like(score)], 1)


@pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
def test_there_is_nothing_to_keep_where_destroying_raises_the_score(game: str) -> None:
    torch.manual_seed(0)
    network, reason = (
        Against().eval(),
        "destroying the whole input raises the score, so that a region has no effect to keep",
    )
    result = explain(network, TEXTURE, 0, perturbation="fade", game=game, **OPTIONS)
    assert not result.has_effect().any()
    assert {(str(verdict), verdict.reason) for verdict in result.verdict[0]} == {("suspect", reason)}
    assert result.smallest() is None
    assert smallest_area(network, result) == (None,)
    assert minimal(network, result) == (None,)
    assert build_row(result, 0, key="a", path=None, digest=None, seconds=1.0)["verdict"] == "suspect"
    assert summarise(result).headline == f"None of the computed areas is enough: {reason}."
    channels = explain_channels(network, TEXTURE, "scale", 0, counts=(1, 2), game=game, score="logit", solver=FAST)
    assert len(channels.smallest().channels) == 4
    reason = "destroying all channels raises the score, so that a set has no effect to keep"
    assert {(str(verdict), verdict.reason) for verdict in channels.verdict[0]} == {("suspect", reason)}


def test_the_verdict_says_it_at_every_area(opposed: Explanation) -> None:
    times = float(opposed.largest_effects()[0])
    assert times > 20
    assert {(str(verdict), verdict.reason) for verdict in opposed.verdict[0]} == {
        (
            "suspect",
            f"the effect is too small to divide by: a mask changes the score {times:.0f} times as much as destroying "
            "the whole input does",
        )
    }


class Loud(nn.Module):
    """The mean of a square as the score, times a large number."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        square = x[(..., *FIRST)].mean((1, 2, 3))
        return torch.stack([self.scale * square, 0 * square], 1)


@pytest.mark.parametrize("solver", [Consensus(), FAST], ids=["consensus", "path"])
@pytest.mark.parametrize("scale", [1.0, 1e15, 1e25, 1e35])
def test_large_scores_are_explained_as_others(scale: float, solver: Consensus | Path) -> None:
    result = explain(Loud(scale), TEXTURE, 0, areas=(0.0625,), score="logit", solver=solver)
    assert float(result.binary(0.0625)[0][(..., *FIRST)].mean()) > 0.9
    assert float(result.curve().binary[0]) == pytest.approx(1.0, abs=0.05)


def test_scores_near_the_largest_number_are_refused() -> None:
    message = message_of(explain, Loud(3e38), X, 0, score="logit")
    assert message == (
        "a score must be at most 1e+36 in magnitude, so that its changes can be represented, got 3e+38 of Loud; divide "
        "its output by a constant"
    )


def test_no_region_is_sufficient(opposed: Explanation) -> None:
    assert opposed.smallest() is None
    assert opposed.regions() == ()
    row = build_row(opposed, 0, key="a", path="a", digest="", seconds=0.1, thumbnail=b"")
    assert (row["verdict"], row["smallest_area"]) == ("suspect", None)


def test_it_is_not_told_as_a_percentage(opposed: Explanation) -> None:
    assert "times as much as destroying the whole image does" in summarise(opposed).headline
    assert "%" not in summarise(opposed).headline.split("of the image", 1)[1]


def test_all_views_show_the_same_region_and_say_that_it_means_nothing() -> None:
    """Both areas have above 90 % of an effect that is a twelfth of that of another mask."""
    scores = torch.tensor([[9.6, 9.7]])
    made = explanation(scores=scores, binary_scores=scores, control_scores=torch.tensor([[[100.0] * 3, [2.0] * 3]]))
    summary = summarise(made)
    assert summary.rows[summary.headline_row].area == 0.5
    assert summary.headline.startswith("None of the computed areas is enough. The best of them: 50\xa0% of the image")
    assert summary.caution.startswith("This mask is suspect: the effect is too small to divide by: ")
    assert torch.equal(torch.from_numpy(made.mask()), made.binary(0.5)[0, 0] > 0)
    assert "best      50 %: 96.2 % of the effect, suspect" in repr(made)


class TestOtherMeasurements:
    found = explain(Opposed(), X, 0, perturbation="fade", **OPTIONS)

    def test_smallest_area(self) -> None:
        assert smallest_area(Opposed(), self.found) == (None,)

    def test_minimal(self) -> None:
        assert minimal(Opposed(), self.found) == (None,)

    def test_stability(self) -> None:
        measured = stability(Opposed(), X, self.found, copies=1)
        assert math.isnan(float(measured.smallest_areas))

    def test_judge(self) -> None:
        judged = judge(Opposed(), X, square_mask(), 0, areas=(0.0625,), perturbation="fade", score="logit")
        (verdict,) = judged.verdict[0]
        assert str(verdict) == "suspect"
        assert verdict.reason.startswith("the effect is too small to divide by: a mask changes the score 25 times")

    def test_channels(self) -> None:
        found = explain_channels(Opposed(), X, "scale", 0, counts=(1,), score="logit")
        (verdict,) = found.verdict[0]
        assert verdict.reason.startswith("the effect is too small to divide by: a mask changes the score 25 times")
        assert float(found.largest_effects()[0]) == pytest.approx(25)
        smallest = found.smallest()
        assert (smallest.channels, smallest.effect, smallest.below_count) == ((0, 1), 1.0, 0)
        assert minimal(Opposed(), found) == (None,)


def test_an_effect_that_is_large_enough() -> None:
    found = explain(Opposed(against=5.0), X, 0, perturbation="fade", **OPTIONS)
    assert 1.5 < float(found.largest_effects()[0]) <= 2.01
    smallest = found.smallest()
    assert smallest is not None
    assert smallest.area == 0.05


def test_chance_is_enough() -> None:
    """Any tenth of the places is enough: the score is their number, up to a tenth."""

    class Anywhere(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            lit = 10 * torch.tanh(15 * x.mean((1, 2, 3))) + 5 * x[(..., *FIRST)].mean((1, 2, 3))
            return torch.stack([lit, torch.zeros_like(lit)], 1)

    found = explain(Anywhere(), X, 0, perturbation="fade", areas=(0.02, 0.5), score="logit", solver=FAST)
    few, many = found.verdict[0]
    assert str(few) == "insufficient"
    assert str(many) == "chance is enough"
