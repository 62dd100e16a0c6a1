"""`minimal` on networks whose minimal regions are known; what it leaves as it was; what breaks a rule."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal import Explanation, MinimalRegion, explain, explain_channels, judge, minimal
from extremal.errors import ExtremalValueError
from extremal.explanations.verdict import MIN_UNSEEN_EFFECT, compute_effects
from extremal.masking.games import preserve
from extremal.masking.solvers import Path
from support.toys import Box, Carriers, Switchable, box_mask, texture

SIDE = 32
SHAPE = (SIDE, SIDE)
FIRST, SECOND = (slice(4, 8), slice(4, 8)), (slice(20, 24), slice(22, 26))
IDLE = ((slice(4, 10), slice(22, 28)), (slice(26, 31), slice(3, 6)))  # regions that the answer ignores
SHORT = Path(steps=12, polish=4, draws=2, search=4)


class Visible(nn.Module):
    """y_0 = gain · the least (or largest) share of a box in which the input is its template; y_1 = 0."""

    template: Tensor

    def __init__(self, template: Tensor, boxes: list[Box], *, any_box: bool = False) -> None:
        super().__init__()
        self.register_buffer("template", template[:1].clone())
        self.boxes, self.any_box = boxes, any_box

    def forward(self, x: Tensor) -> Tensor:
        close = ((x - self.template).abs().amax(1) < 0.1).to(x.dtype)
        correlation = close + 0 * x.sum(1)  # a gradient, which `explain` checks
        shares = torch.stack([correlation[(..., *box)].flatten(1).mean(1) for box in self.boxes])
        score = 5 * (shares.amax(0) if self.any_box else shares.amin(0))
        return torch.stack([score, torch.zeros_like(score)], 1)


def cover(*boxes: Box) -> Tensor:
    return torch.stack([box_mask(box, SHAPE) for box in boxes]).amax(0)


def judged(model: nn.Module, mask: Tensor, **options: Any) -> Explanation:
    """Return the explanation whose only mask is this one (*S)."""
    options = {"perturbation": "fade", "score": "logit", **options}
    x = options.pop("x", texture(1, 3, *SHAPE))
    masks = mask.expand(len(x), 1, 1, *mask.shape)
    return judge(model, x, masks, options.pop("target", 0), areas=(float(mask.mean()),), **options)


def reduce_one(model: nn.Module, result: Explanation, **options: Any) -> MinimalRegion:
    (region,) = minimal(model, result, **options)
    assert region is not None
    check(region)
    return region


def check(region: MinimalRegion) -> None:
    """What every result says of itself."""
    assert set(region.mask.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(region.mask[0] > 0, region.pieces > 0)
    assert region.pieces.unique().tolist()[-region.count :] == list(range(1, region.count + 1))
    assert region.area == pytest.approx(float(region.mask.mean()))
    assert region.area <= region.start_area + 1e-9
    assert region.effect >= region.share
    assert region.evaluations <= region.budget
    known = [value for value in region.without if not math.isnan(value)]
    assert known == sorted(known)


def boxes(**options: Any) -> Visible:
    return Visible(texture(1, 3, *SHAPE), [FIRST, SECOND], **options)


class TestKnownRegions:
    def test_exactly_the_parts_that_the_answer_needs_remain(self) -> None:
        model = boxes()
        region = reduce_one(model, judged(model, cover(FIRST, SECOND, *IDLE)), smallest_piece=1.0)
        assert torch.equal(region.mask[0], cover(FIRST, SECOND))
        assert (region.count, region.is_minimal, region.is_finest) == (2, True, True)
        assert region.without == (0.0, 0.0)
        assert region.effects == {"fade": 1.0}
        assert region.unseen_effect == 1.0
        assert region.reason == f"1-minimal: none of its 2 pieces can go ({region.evaluations} evaluations)"

    def test_parts_are_halved(self) -> None:
        model, wide = boxes(), (slice(2, 12), slice(3, 14))
        region = reduce_one(model, judged(model, cover(wide, SECOND)), smallest_piece=1 / SIDE**2, share=1.0)
        assert torch.equal(region.mask[0], cover(FIRST, SECOND))
        assert region.count == 32, "single places"

    def test_one_of_two_parts_that_suffice_remains(self) -> None:
        model = boxes(any_box=True)
        region = reduce_one(model, judged(model, cover(FIRST, SECOND, *IDLE)), smallest_piece=1.0)
        assert torch.equal(region.mask[0], cover(FIRST)) or torch.equal(region.mask[0], cover(SECOND))
        assert region.reason.startswith("1-minimal: its only piece cannot go (")

    @pytest.mark.parametrize("any_box", [False, True])
    def test_delete(self, any_box: bool) -> None:
        model = boxes(any_box=any_box)
        result = judged(model, cover(FIRST, SECOND, *IDLE), game="delete")
        region = reduce_one(model, result, smallest_piece=1.0)
        if any_box:
            assert torch.equal(region.mask[0], cover(FIRST, SECOND))
        else:
            assert region.count == 1

    def test_single_removals_by_brute_force(self) -> None:
        """Every piece is tried again, by evaluating the network itself."""
        weights = torch.rand(*SHAPE, generator=torch.Generator().manual_seed(1))

        class Uneven(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.tanh((x * weights).flatten(1).mean(1) * 9)[:, None] * torch.tensor([[4.0, 0.0]])

        model, x = Uneven(), torch.ones(1, 1, *SHAPE)
        result = judged(model, cover((slice(2, 20), slice(2, 20)), (slice(22, 30), slice(12, 30))), x=x)
        share = 0.5
        region = reduce_one(model, result, share=share)
        assert region.is_minimal
        assert region.area < region.start_area

        def effect(mask: Tensor, destroyed: float = 0.0) -> float:
            rows = torch.stack([mask, torch.zeros(SHAPE), torch.ones(SHAPE)])[:, None]
            score, blank, full = model(rows + (1 - rows) * destroyed)[:, 0]
            return float(compute_effects(score, blank, full, True))

        assert effect(region.mask[0]) == pytest.approx(region.effect, abs=1e-6)
        for number, without in enumerate(region.without, start=1):
            rest = region.mask[0] * (region.pieces != number)
            assert effect(rest) == pytest.approx(without, abs=1e-6)
            assert without < share or effect(rest, -1.0) < MIN_UNSEEN_EFFECT * share  # `constant` is unseen


def test_units_are_the_pieces() -> None:
    model = boxes()
    rows = torch.arange(SIDE).div(4, rounding_mode="floor")
    units = rows[:, None] * 8 + rows[None]  # 4 × 4 px
    result = judged(model, cover(FIRST, (slice(20, 24), slice(20, 28)), IDLE[0]), units=units)
    region = reduce_one(model, result)
    kept = sorted(set(units[region.pieces > 0].tolist()))
    assert kept == [9, 45, 46]
    assert region.count == 3
    assert all(len(region.pieces[units == unit].unique()) == 1 for unit in range(64))


def test_the_smallest_area_that_is_sufficient_is_reduced() -> None:
    model, x = boxes(), texture(1, 3, *SHAPE)
    masks = torch.stack([cover(FIRST), cover(FIRST, SECOND), cover(FIRST, SECOND, *IDLE)])[None, :, None]
    areas = tuple(masks[0].flatten(1).mean(1).tolist())
    result = judge(model, x, masks, 0, areas=areas, perturbation="fade", score="logit")
    assert reduce_one(model, result, smallest_piece=1.0).start_area == pytest.approx(areas[1])


def test_nothing_is_sufficient() -> None:
    model = boxes()
    assert minimal(model, judged(model, cover(FIRST, *IDLE))) == (None,)


def test_each_input_has_its_own_region() -> None:
    class Both(nn.Module):
        """One class for each box."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[(..., *box)].flatten(1).mean(1) for box in (FIRST, SECOND)], 1)

    result = judged(Both(), cover(FIRST, SECOND, *IDLE), x=torch.ones(2, 1, *SHAPE), target=[0, 1])
    for region, box in zip(minimal(Both(), result, smallest_piece=1.0), (FIRST, SECOND), strict=True):
        assert region is not None
        check(region)
        assert torch.equal(region.mask[0], cover(box))
        assert region.evaluations < 30, "each input has its own budget"


class TestOfExplain:
    """Of results of `explain`, with options."""

    @staticmethod
    def found(model: nn.Module, **options: Any) -> Explanation:
        options = {"areas": (0.2, 0.5), "perturbation": "fade", "score": "logit", "solver": SHORT, **options}
        return explain(model, torch.ones(1, 1, *SHAPE), options.pop("target", 0), **options)

    class Mean(nn.Module):
        """y_0 is the mean of a square, y_1 its negative."""

        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 6:16, 6:16].mean((1, 2, 3))[:, None] * torch.tensor([[1.0, -1.0]])

    def test_the_region_lies_within(self) -> None:
        within = cover((slice(0, 32), slice(0, 26))) > 0
        result = self.found(self.Mean(), within=within)
        region = reduce_one(self.Mean(), result, share=0.5)
        assert not bool((region.mask[0] > 0)[~within].any())

    def test_it_is_part_of_the_mask(self) -> None:
        result = self.found(self.Mean(), alternatives=2)
        for one in (result, *result.alternatives):
            for region in minimal(self.Mean(), one, share=0.4):
                if region is not None:
                    check(region)
                    (start,) = one.binary(one.smallest(0.4).area)  # type: ignore[union-attr]
                    assert bool((region.mask <= start).all())

    def test_the_same_again(self) -> None:
        result = self.found(self.Mean())
        first, second = (reduce_one(self.Mean(), result) for _ in range(2))
        assert torch.equal(first.pieces, second.pieces)
        assert (first.without, first.evaluations) == (second.without, second.evaluations)

    def test_a_budget_ends_it(self) -> None:
        result = self.found(self.Mean())
        region = reduce_one(self.Mean(), result, budget=6)
        assert not region.is_minimal
        assert region.reason.startswith("not shown to be 1-minimal: the budget of 6 evaluations ended with ")
        assert all(math.isnan(value) for value in region.without)

    def test_progress_is_reported(self) -> None:
        steps: list[tuple[int, int]] = []
        result = self.found(self.Mean())
        (region,) = minimal(self.Mean(), result, on_evaluations=lambda *step: steps.append(step))
        assert region is not None
        assert steps[-1] == (region.evaluations, region.budget)
        assert steps == sorted(steps)

    def test_callables_must_be_given_again(self) -> None:
        def mine(evaluate: Any, mask: Tensor) -> Tensor:
            return preserve(evaluate, mask)

        result = self.found(self.Mean(), game=mine, target=lambda output: output[:, 0])
        with pytest.raises(ExtremalValueError, match="the game of the explanation was 'mine'"):
            minimal(self.Mean(), result)
        with pytest.raises(ExtremalValueError, match="was not a class: pass it as target"):
            minimal(self.Mean(), result, game=mine)
        (region,) = minimal(self.Mean(), result, lambda output: output[:, 0], game=mine)
        assert region is not None


def test_the_network_is_as_it_was() -> None:
    model = Switchable().train()
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    result = explain(model, x, 0, areas=(0.3, 0.6), solver=SHORT)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    minimal(model, result, share=0.1)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


class TestChannels:
    @pytest.mark.parametrize("game", ["preserve", "delete"])
    def test_exactly_the_channels_that_the_answer_needs_remain(self, game: str) -> None:
        model = Carriers([5], seed=2)
        x = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)) + 0.5
        result = explain_channels(model, x, "features", 0, counts=(8,), game=game, solver=SHORT, score="logit")
        larger = result.binary(8)
        larger[0, list(model.sets[0])] = 1
        (region,) = minimal(model, replace(result, smallest_mask=larger))
        assert region is not None
        check(region)
        assert region.mask.shape == (1, 64)
        kept = tuple(region.mask[0].nonzero()[:, 0].tolist())
        assert set(kept) <= set(model.sets[0])
        assert region.count == len(kept)
        assert region.is_minimal
        assert region.is_finest
        assert region.unseen_effect is None
        if game == "preserve":
            assert kept == model.sets[0]

    def test_all_channels_are_halved(self) -> None:
        model = Carriers([3, 4], seed=0)
        x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.5
        result = explain_channels(model, x, "features", 0, counts=(4,), solver=SHORT, score="logit")
        (region,) = minimal(model, replace(result, smallest_mask=torch.ones(1, 64)))
        assert region is not None
        assert tuple(region.mask[0].nonzero()[:, 0].tolist()) in model.sets
        assert region.evaluations < 100

    def test_larger_sets_are_tried_for_a_larger_share(self) -> None:
        class Weighted(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.features = nn.Conv2d(3, 8, 1, bias=False)
                self.features.weight.data.fill_(1 / 3)
                self.weights = torch.tensor([60.0, 32, 2, 2, 1, 1, 1, 1]) / 100

            def forward(self, x: Tensor) -> Tensor:
                score = self.features(x).mean((2, 3)) @ self.weights
                return torch.stack([score, 0 * score], 1)

        model, x = Weighted(), torch.ones(1, 3, 4, 4)
        result = explain_channels(model, x, "features", 0, counts=(2, 4), solver=SHORT, score="logit")
        assert result.smallest().channels == (0, 1)
        for share, count, start in ((0.9, 2, 2), (0.95, 4, 4), (0.97, 5, 8)):
            (region,) = minimal(model, result, share=share)
            assert region is not None
            assert (int(region.mask.sum()), region.start_area) == (count, start / 8)
        assert minimal(model, result, share=1.1) == (None,)


class TestBadInput:
    def refused(self, *args: Any, **options: Any) -> str:
        with pytest.raises(ExtremalValueError) as error:
            minimal(*args, **options)
        return str(error.value)

    def test_other_weights(self) -> None:
        result = judged(boxes(), cover(FIRST, SECOND))
        other = Visible(texture(1, 3, *SHAPE, seed=1), [FIRST])
        assert self.refused(other, result).startswith("a network must be the one that was explained, Visible's weights")

    @pytest.mark.parametrize("budget", [1, 4])
    def test_a_budget_that_ends_before_a_region_is_judged(self, budget: int) -> None:
        """There are five ways: the perturbation of the run, and four others."""
        model = boxes()
        message = self.refused(model, judged(model, cover(FIRST, SECOND)), budget=budget)
        assert message == (
            "budget must suffice to judge the computed regions until one is sufficient, at 5 evaluations each, got "
            f"{budget}; e.g. 1000"
        )

    def test_a_budget_that_ends_early_leaves_the_other_inputs(self) -> None:
        model, x = boxes(), texture(1, 3, *SHAPE).expand(2, -1, -1, -1)
        with pytest.warns(RuntimeWarning, match=r"^input [01] has no region: budget must suffice to judge") as warned:
            assert minimal(model, judged(model, cover(FIRST, SECOND), x=x), budget=4) == (None, None)
        assert [str(entry.message)[:7] for entry in warned] == ["input 0", "input 1"]
        assert {entry.filename for entry in warned} == {__file__}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"share": 0.0}, "share must be above 0 and finite, got 0; it is a fraction of the effect, e.g. 0.9"),
            ({"budget": 0}, "budget must be at least 1 evaluation, got 0; e.g. 1000"),
            (
                {"smallest_piece": 0.0},
                "smallest_piece must lie in (0, 1], got 0; it is a share of all places, e.g. 1/256",
            ),
        ],
    )
    def test_options(self, options: dict[str, Any], message: str) -> None:
        assert self.refused(boxes(), judged(boxes(), cover(FIRST, SECOND)), **options) == message
