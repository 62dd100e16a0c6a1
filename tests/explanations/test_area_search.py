"""Where the masks of an area that a search tries may start."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from extremal import Explanation, judge, smallest_area
from extremal.explanations import area_search
from extremal.explanations.candidates import Rankings
from extremal.masking.domain import Domain

SIZE = 32
AREAS = (0.05, 0.5)


X = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) + 0.5


class Block(nn.Module):
    """The mean over a block of places, and its negative."""

    def forward(self, x: Tensor) -> Tensor:
        score = x[:, 0, 8:16, 4:12].mean((1, 2), keepdim=True).flatten(1)
        return torch.cat([score, -score], 1)


def judged(rows: int = 2, columns: int = 26) -> Explanation:
    """Judge a mask that misses the block, and one that is the half of the places that holds it."""
    masks = torch.zeros(1, 2, 1, SIZE, SIZE)
    masks[0, 0, 0, :rows, -columns:] = 1
    masks[0, 1, 0, :, :16] = 1
    areas = (round(rows * columns / SIZE**2, 2), AREAS[1])
    return judge(Block(), X, masks, 0, areas=areas, perturbation="fade", score="logit")


def test_the_best_of_several_starts_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(area_search, "STEPS_PER_AREA", 0)
    block = 64 / SIZE**2
    (found,) = smallest_area(Block(), judged())
    assert found is not None
    assert found.area < 1.5 * block, "the map shows the block"
    monkeypatch.setattr(Rankings, "find_starts", lambda *_: [])
    (without,) = smallest_area(Block(), judged())
    assert without is not None
    assert without.area > 2 * block


def test_the_number_of_starts_is_what_plans_count(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, find = list[int](), area_search.AreaSearch._find_starts

    def note(self: area_search.AreaSearch, areas: list[float]) -> Tensor:
        starts = find(self, areas)
        counts.append(starts.shape[1])
        return starts

    monkeypatch.setattr(area_search.AreaSearch, "_find_starts", note)
    result = judged()
    smallest_area(Block(), result)
    assert set(counts) == {area_search.MAX_STARTS - 2}, "given masks have no fields"
    counts.clear()
    family = Domain((SIZE, SIZE)).exact_area_family(result.masks)
    fields = torch.stack([family.fit(masks) for masks in result.masks.unbind(1)], 1)
    result = replace(result, fields=fields)
    smallest_area(Block(), result)
    assert set(counts) == {area_search.MAX_STARTS - 1}, "with the field of the last mask"


def test_fields_are_interpolated_between_the_computed_areas() -> None:
    domain = Domain((SIZE, SIZE))
    family = domain.exact_area_family(torch.empty(0))
    fields = torch.randn(1, 2, 1, *family.parameter_shape, generator=torch.Generator().manual_seed(0))
    rankings = Rankings(fields[:, 0], (0.1, 0.4), fields)
    for area, share in ((0.05, 0.0), (0.1, 0.0), (0.2, 0.5), (0.4, 1.0), (0.7, 1.0)):
        _, between = rankings.find_starts([area])
        torch.testing.assert_close(between[0], torch.lerp(fields[0, 0], fields[0, 1], share))


def test_a_computed_area_that_is_not_enough_may_be_larger_than_what_is_found() -> None:
    (found,) = smallest_area(Block(), judged(8, 16))
    assert found is not None
    assert found.area < 0.1 < 128 / SIZE**2
    assert found.below_area < found.area <= 1.02 * found.below_area + 1.5 / SIZE**2


def test_a_search_that_ends_early_states_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(area_search, "MAX_AREAS", 3)
    (found,) = smallest_area(Block(), judged())
    assert found is not None
    assert found.effect >= 0.9
    assert 0.2 < found.area < 0.5
    assert found.below_area == 0.05, "the computed one"


def test_steps_grow_where_the_field_needs_none_and_are_halved_where_nothing_is_found() -> None:
    tried, search = list[float](), area_search.AreaSearch.step

    def note(self: area_search.AreaSearch) -> None:
        tried.append(self._steps[0] / math.log1p(0.02))
        search(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(area_search.AreaSearch, "step", note)
        smallest_area(Block(), judged())
    assert tried[0] == pytest.approx(4)
    assert max(tried) == pytest.approx(8), "half of all places hold the block"
    assert min(tried) == pytest.approx(1) == tried[-1]
    ratios = [second / first for first, second in itertools.pairwise(tried)]
    assert all(round(ratio, 3) in (0.5, 1, 2) for ratio in ratios)


@pytest.mark.parametrize(("effort", "count"), [("fast", 1), ("normal", 1), ("thorough", 3)])
def test_thorough_searches_begin_with_several_masks(effort: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.zeros(2, 5, 1, SIZE, SIZE)
    for column, side in enumerate((2, 8, 12, 16, 20)):  # the first one has too little of the block
        masks[:, column, 0, 8 : 8 + side, 4 : 4 + side] = 1
    masks[1, 1] = masks[1, 0].flip(-1)  # also too little
    areas = [side**2 / SIZE**2 for side in (2, 8, 12, 16, 20)]
    result = judge(
        Block(), X.expand(2, -1, -1, -1), masks, 0, areas=areas, perturbation="fade", score="logit", effort=effort
    )
    begun, begin = list[list[float]](), area_search.AreaSearch._begin

    def note(self: area_search.AreaSearch, k: int) -> None:
        begin(self, k)
        begun.append([one.area for one in self.sufficient])

    monkeypatch.setattr(area_search.AreaSearch, "_begin", note)
    smallest_area(Block(), result)
    expected = [[areas[1 + k], areas[2 + k]] for k in range(count)]
    torch.testing.assert_close(torch.tensor(begun), torch.tensor(expected))


def test_the_smallest_area_of_several_searches_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.zeros(1, 3, 1, SIZE, SIZE)
    masks[:, 0, 0, 6:18, 2:14] = masks[:, 1, 0, 6:22, 2:18] = masks[:, 2, 0, :24, :24] = 1
    areas = [side**2 / SIZE**2 for side in (12, 16, 24)]
    options = {"areas": areas, "perturbation": "fade", "score": "logit", "effort": "thorough"}
    result = judge(Block(), X, masks, 0, **options)
    ends, begin = list[float](), area_search.AreaSearch._begin

    def close(self: area_search.AreaSearch, k: int) -> None:
        begin(self, k)
        if k != 1:  # only the second one searches
            self.is_open = [False]
        ends.append(self.sufficient[0].area)

    monkeypatch.setattr(area_search.AreaSearch, "_begin", close)
    (found,) = smallest_area(Block(), result)
    assert found is not None
    assert found.area < min(ends)
