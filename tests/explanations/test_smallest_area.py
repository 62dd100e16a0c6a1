"""The smallest sufficient area: known answers, certificates that hold, and what breaks a rule."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal import Explanation, explain, judge, smallest_area
from extremal.errors import ExtremalValueError
from extremal.explanations.certificate import Certificate
from extremal.masking.area import count_kept
from extremal.masking.games import preserve
from extremal.masking.solvers import Path
from extremal.report.text import summarise

SIZE = 40
AREAS = (0.02, 0.1, 0.4)
SHORT = Path(steps=30, polish=6, draws=2, search=4)


class Block(nn.Module):
    """For each class the mean over a block of places, then its negative: with `fade` each place counts alike."""

    def __init__(self, *sides: int) -> None:
        super().__init__()
        inside = torch.zeros(len(sides), 1, SIZE, SIZE)
        for row, side in zip(inside, sides, strict=True):
            row[:, 5 : 5 + side, 8 : 8 + side] = 1 / side**2
        self.register_buffer("inside", inside)

    def forward(self, x: Tensor) -> Tensor:
        scores = x.flatten(1) @ self.inside.flatten(1).T
        return torch.cat([scores, -scores], 1)


def found(model: nn.Module, count: int = 1, **options: Any) -> Explanation:
    x = torch.ones(count, 1, SIZE, SIZE)
    options = {"areas": AREAS, "perturbation": "fade", "score": "logit", "solver": SHORT, **options}
    return explain(model, x, options.pop("target", list(range(count))), **options)


def holds(certificate: Certificate | None, share: float, tolerance: float = 0.02) -> Certificate:
    """What every certificate says of itself."""
    assert certificate is not None
    assert certificate.effect >= share == certificate.share
    assert certificate.below_effect < share or math.isnan(certificate.below_effect)
    assert certificate.below_area < certificate.area
    assert int(certificate.mask.sum()) == count_kept(certificate.area, SIZE * SIZE)
    assert set(certificate.mask.unique().tolist()) == {0.0, 1.0}
    one_place = 1.5 / (SIZE * SIZE)
    assert certificate.area <= certificate.below_area * (1 + tolerance) + one_place or certificate.below_area == 0
    return certificate


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("side", [10, 18])
def test_the_smallest_part_of_a_block(side: int, share: float) -> None:
    model = Block(side)
    (certificate,) = smallest_area(model, found(model), share=share)
    exact = share * side**2 / SIZE**2
    assert exact - 1e-3 <= holds(certificate, share).area <= 1.1 * exact
    assert certificate is not None
    covered = float((certificate.mask * model.inside[0]).sum())
    assert certificate.effect == pytest.approx(covered, abs=1e-6)


def test_delete_agrees_with_preserve_on_a_block() -> None:
    model = Block(14)
    (kept,), (deleted,) = (smallest_area(model, found(model, game=game)) for game in ("preserve", "delete"))
    assert holds(deleted, 0.9).area == pytest.approx(holds(kept, 0.9).area, rel=0.1)


def test_each_input_of_a_batch_has_its_own_area() -> None:
    model = Block(8, 16)
    small, large = smallest_area(model, found(model, 2))
    assert holds(large, 0.9).area == pytest.approx(4 * holds(small, 0.9).area, rel=0.2)


def test_an_input_of_a_batch_has_the_area_that_it_has_alone() -> None:
    model = Block(8, 16, 27)
    for game in ("preserve", "delete"):
        result = found(model, 3, game=game)
        together = smallest_area(model, result)
        for n, certificate in enumerate(together):
            (alone,) = smallest_area(model, found(model, 1, target=[n], game=game))
            assert certificate is not None
            assert alone is not None
            assert (certificate.area, certificate.below_area) == (alone.area, alone.below_area)
            assert torch.equal(certificate.mask, alone.mask)


def test_above_the_computed_areas_the_search_goes_on() -> None:
    model = Block(6, 30)
    small, large = smallest_area(model, found(model, 2, areas=(0.05, 0.1)))
    holds(small, 0.9)
    assert holds(large, 0.9).area == pytest.approx(0.9 * 900 / SIZE**2, rel=0.1)


def test_all_places_are_the_largest_area() -> None:
    (certificate,) = smallest_area(Block(SIZE - 8), found(Block(SIZE - 8), areas=(0.05,)), share=1.0)
    assert holds(certificate, 1.0).area <= 1
    corner = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    corner[:20, :20] = True  # a part of the block: not even all of it has the share
    assert smallest_area(Block(30), found(Block(30), areas=(0.05,), within=corner)) == (None,)


def test_an_area_below_the_computed_ones_is_found() -> None:
    model = Block(8)
    result = found(model, areas=(0.1, 0.2))
    assert float(result.effects(result.binary_scores)[0, 0]) >= 0.9, "the smallest computed area is already enough"
    (certificate,) = smallest_area(model, result)
    assert holds(certificate, 0.9).area == pytest.approx(0.9 * 64 / SIZE**2, rel=0.1)


def test_areas_of_whole_units_are_those_of_their_places() -> None:
    """Units of 4 % each, of which the block has four: areas in between have no mask of their own."""
    model, units = Block(16), torch.arange(SIZE)[:, None] // 8 * 5 + torch.arange(SIZE) // 8
    result = found(model, areas=(0.05, 0.3, 0.5), units=units)
    region = result.smallest()
    assert region is not None
    assert region.coverage == pytest.approx(float(region.mask.mean()))
    assert region.coverage == pytest.approx(0.28)
    assert region.area == 0.3
    (certificate,) = smallest_area(model, result)
    assert certificate is not None
    assert certificate.area == pytest.approx(float(certificate.mask.mean()))
    assert certificate.below_area / 0.04 == pytest.approx(round(certificate.below_area / 0.04))
    assert certificate.below_area < certificate.area
    assert summarise(result).headline.startswith("28\N{NO-BREAK SPACE}% of the image keeps")


def test_a_looser_tolerance_takes_fewer_passes() -> None:
    model = Block(14)
    result = found(model)
    rows = []
    for tolerance in (0.02, 0.3):
        count = 0

        def seen(*_: object) -> None:
            nonlocal count
            count += 1

        with model.register_forward_hook(seen):
            (certificate,) = smallest_area(model, result, tolerance=tolerance)
        holds(certificate, 0.9, tolerance)
        rows.append(count)
    assert rows[1] < rows[0]


@pytest.mark.parametrize("solver", ["search", "penalty", "consensus", SHORT])
def test_masks_of_every_solver_are_bisected(solver: Any) -> None:
    result = found(Block(14), solver=solver, effort="fast")
    (certificate,) = smallest_area(Block(14), result)
    assert holds(certificate, 0.9).area < 0.5


def test_fields_of_another_lattice_are_left_out() -> None:
    result = found(Block(14))
    other = replace(result, fields=torch.rand(1, len(AREAS), 1, 3, 3))
    (certificate,) = smallest_area(Block(14), other)
    (without,) = smallest_area(Block(14), replace(result, fields=None))
    assert torch.equal(holds(certificate, 0.9).mask, holds(without, 0.9).mask)


def test_the_same_again() -> None:
    model = Block(11)
    result = found(model)
    (first,), (second,) = smallest_area(model, result), smallest_area(model, result)
    assert first is not None
    assert second is not None
    assert torch.equal(first.mask, second.mask)


class TestBadInput:
    def refused(self, *args: Any, **options: Any) -> str:
        with pytest.raises(ExtremalValueError) as error:
            smallest_area(*args, **options)
        return str(error.value)

    def test_other_weights(self) -> None:
        result = found(Block(10))
        assert self.refused(Block(11), result) == (
            "a network must be the one that was explained, Block's weights are not those of the explanation; "
            "load the same weights, or explain again"
        )

    def test_a_callable_target_must_be_given_again(self) -> None:
        model = Block(10)
        first = lambda output: output[:, 0]  # noqa: E731
        result = found(model, target=first)
        assert self.refused(model, result) == "the target of the explanation was not a class: pass it as target"
        assert smallest_area(model, result, first)[0] is not None

    def test_a_callable_game_must_be_given_again(self) -> None:
        model = Block(10)

        def mine(evaluate: Any, mask: Tensor) -> Tensor:
            return preserve(evaluate, mask)

        result = found(model, game=mine)
        assert self.refused(model, result) == (
            "the game of the explanation was 'mine', which has no short name: pass it as game"
        )
        assert smallest_area(model, result, game=mine)[0] is not None

    @pytest.mark.parametrize("options", [{"share": 0.0}, {"tolerance": 0.0}, {"tolerance": -1.0}])
    def test_shares_and_tolerances(self, options: dict[str, float]) -> None:
        model = Block(10)
        ((name, value),) = options.items()
        message = self.refused(model, found(model), **options)
        assert message.startswith(f"{name} must be above 0 and finite, got {value:g}; ")

    def test_an_explanation_of_broken_scores_has_no_certificate(self) -> None:
        model = Block(10)
        result = found(model)
        broken = replace(result, binary_scores=result.binary_scores * math.nan)
        assert smallest_area(model, broken) == (None,)

    def test_an_infinite_score_between_the_areas_is_not_sufficient(self) -> None:
        class Infinite(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                share = x.mean((1, 2, 3))
                score = torch.where((share > 0.2) & (share < 0.3), math.inf * share, (2 * share).clamp(max=1.0))
                return torch.stack([score, 0 * share], 1)

        masks = torch.zeros(1, 2, 1, SIZE, SIZE)
        masks[:, 0, 0, :5], masks[:, 1, 0, :25] = 1, 1
        x = torch.ones(1, 1, SIZE, SIZE)
        result = judge(Infinite(), x, masks, 0, areas=(0.125, 0.625), perturbation="fade", score="logit")
        (certificate,) = smallest_area(Infinite(), result)
        assert holds(certificate, 0.9).area == pytest.approx(0.45, rel=0.02)


class TestProgress:
    def test_each_pass_is_reported(self) -> None:
        model, passes = Block(12), list[tuple[int, int]]()
        smallest_area(model, found(model), on_progress=lambda done, total: passes.append((done, total)))
        assert [done for done, _ in passes] == [*range(len(passes))]
        assert len({total for _, total in passes}) == 1
        assert len(passes) <= passes[0][1]

    def test_an_exception_ends_the_search(self) -> None:
        model, passes = Block(12), list[int]()

        def stop(done: int, total: int) -> None:
            passes.append(done)
            if done == 3:
                raise KeyboardInterrupt

        result = found(model)
        with pytest.raises(KeyboardInterrupt):
            smallest_area(model, result, on_progress=stop)
        assert passes == [0, 1, 2, 3]
        assert model.training  # restored
