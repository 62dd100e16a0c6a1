"""The solver of one field: its start, its cost, and its masks."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.masking.area import cut
from extremal.masking.domain import Domain
from extremal.masking.solvers import Consensus, Problem
from extremal.masking.solvers.consensus import count_consensus_passes
from extremal.masking.solvers.problem import Attribution, Orientation, WayIndex
from extremal.masking.solvers.start import find_start

SHAPE = (16, 20)
AREAS = (0.05, 0.1, 0.3)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Ways:
    """For each way the mean of w·m; counts the masks by whether they need a gradient."""

    def __init__(self, w: Tensor) -> None:
        self.w = w  # (N, W, *S)
        self.counts = {True: 0, False: 0}
        self.calls: list[tuple[list[int], list[bool]]] = []

    def __call__(self, masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        count = masks.shape[1]
        self.counts[masks.requires_grad] += count * (self.w.shape[1] if way is None else 1)
        if way is None:
            return (self.w.mean(1)[:, None, None] * masks).flatten(2).mean(2)
        ways = [way] * count if isinstance(way, int) else list(way)
        flips = [mirrored] * count if isinstance(mirrored, bool) else list(mirrored)
        self.calls.append((ways, flips))
        return (self.w[:, ways].unsqueeze(2) * masks).flatten(2).mean(2)


def problem(reward: Ways, **options: object) -> Problem:
    count, ways = reward.w.shape[:2]
    return Problem(reward, count, Domain(SHAPE), True, torch.float32, torch.device("cpu"), ways=ways, **options)


@pytest.mark.parametrize(
    "settings",
    [
        Consensus(),
        Consensus(steps=3, least=3, draws=1, candidates=4),
        Consensus(steps=1, least=0, draws=1, candidates=1, repair_steps=0),
    ],
)
@pytest.mark.parametrize("ways", [1, 3])
@pytest.mark.parametrize("knows_whole", [True, False])
def test_it_takes_the_passes_that_are_counted(settings: Consensus, ways: int, knows_whole: bool) -> None:
    reward = Ways(seeded(2, ways, *SHAPE).abs())  # so that no effect falls
    options = {"differences": seeded(2, 1, *SHAPE).abs(), "spans": torch.ones(2)}
    if knows_whole:
        options["whole_rewards"] = reward.w.mean((1, 2, 3))
    settings.solve(problem(reward, **options), AREAS)
    gradients, forwards, *_ = count_consensus_passes(settings, len(AREAS), True, ways)
    if settings.checks_falls(len(AREAS)) and not knows_whole:
        forwards += ways
    assert (reward.counts[True], reward.counts[False]) == (gradients, forwards)


@pytest.mark.parametrize("areas", [(0.2,), AREAS, (0.02, 0.05, 0.1, 0.2, 0.4)])
def test_each_area_takes_all_ways_and_orientations_in_turn(areas: tuple[float, ...]) -> None:
    reward = Ways(seeded(1, 3, *SHAPE))
    schedule = Consensus().schedule(len(areas))
    assert schedule[0] > schedule[-1]
    Consensus().solve(problem(reward), areas)
    starts = next(k for k, call in enumerate(reward.calls) if len(call[0]) == schedule[0] * len(areas))
    calls = reward.calls[starts : starts + len(schedule)]
    assert [len(ways) for ways, _ in calls] == [masks * len(areas) for masks in schedule]
    for column in range(schedule[0] * len(areas)):
        turns = [(ways[column], flips[column]) for ways, flips in calls if column < len(ways)]
        assert set(turns) == set(itertools.product(range(3), (False, True)))


def test_the_start_does_not_depend_on_the_scale_of_a_map() -> None:
    w = seeded(2, 2, *SHAPE)

    def ranks(scale: float) -> Tensor:
        problem_ = problem(Ways(w * torch.tensor([1.0, scale]).view(1, 2, 1, 1)))
        return find_start(problem_, 2).ranks

    assert torch.allclose(ranks(1.0), ranks(30.0), atol=1e-4)
    only_second = find_start(problem(Ways(w * torch.tensor([0.0, 1.0]).view(1, 2, 1, 1))), 2).ranks
    assert torch.allclose(ranks(1e7), only_second, atol=1e-2)  # what is next to nothing is not enlarged


def test_maps_of_layers_count_as_much_as_the_gradient() -> None:
    place = torch.zeros(1, 1, 1, 4, 5)
    place[..., 2, 3] = 1.0  # a cell of 4 × 4 places around (9.5, 13.5)
    reward = Ways(torch.zeros(1, 1, *SHAPE))

    def attribute(masks: Tensor, mirrored: Orientation, way: WayIndex) -> Attribution:
        maps = place.expand(1, masks.shape[1], -1, -1, -1)
        return Attribution(reward(masks, mirrored, way), torch.zeros_like(masks), (maps,))

    problem_ = problem(reward, attribute=attribute)
    highest = divmod(int(find_start(problem_, 2).ranks.argmax()), SHAPE[1])
    assert highest in list(itertools.product((9, 10), (13, 14)))
    masks = Consensus().solve(problem_, (0.05,)).masks
    assert float(masks[0, 0, 0, 8:12, 12:16].mean()) > 0.7


def test_smaller_masks_lie_within_larger_ones_where_that_costs_nothing() -> None:
    masks = cut(Consensus().solve(problem(Ways(seeded(3, 3, *SHAPE))), AREAS).masks, AREAS)
    for smaller, larger in itertools.pairwise(masks.unbind(1)):
        assert float((smaller * larger).sum() / smaller.sum()) > 0.8


def test_masks_reach_what_the_linear_reward_allows() -> None:
    w = torch.nn.functional.avg_pool2d(seeded(3, 1, *SHAPE), 7, 1, 3)
    found = cut(Consensus().solve(problem(Ways(w)), AREAS).masks, AREAS)
    best = cut(w.unsqueeze(1).expand(-1, len(AREAS), -1, -1, -1), AREAS)
    reached, most = ((w[:, None] * masks).flatten(2).sum(2) for masks in (found, best))
    assert bool((reached > 0.75 * most).all())


def test_masks_of_a_strong_start_change_less_when_the_reward_changes() -> None:
    w, noise = seeded(6, 3, *SHAPE), 0.5 * seeded(6, 3, *SHAPE, seed=1)

    def overlap(settings: Consensus) -> float:
        a, b = (settings.solve(problem(Ways(values)), (0.2,)).masks for values in (w, w + noise))
        return float(torch.minimum(a, b).sum() / torch.maximum(a, b).sum())

    assert overlap(Consensus(start=2.0)) > overlap(Consensus(start=0.1)) + 0.02


@pytest.mark.parametrize("name", ["start", "rate", "temperature", "tolerance", "repair_rate", "smooth", "width"])
def test_factors_are_positive(name: str) -> None:
    with pytest.raises(ExtremalValueError) as error:
        replace(Consensus(), **{name: 0.0})
    assert str(error.value) == f"{name} of consensus must be above 0 and finite, got 0"


@pytest.mark.parametrize("name", ["columns", "steps", "draws"])
def test_numbers_have_a_minimum(name: str) -> None:
    with pytest.raises(ExtremalValueError) as error:
        replace(Consensus(), **{name: 0})
    assert str(error.value) == f"{name} of consensus must be at least 1, got 0"
