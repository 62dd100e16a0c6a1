"""Delta debugging of regions: 1-minimality by brute force, several ways of destroying, budgets."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from extremal.explanations.piece_removal import PieceRemoval, Reduced, SufficiencyTest, Way
from extremal.explanations.verdict import MIN_UNSEEN_EFFECT
from extremal.masking.games import GAMES

SHARE = 0.9
PLACES = 12
Effect = Callable[[Tensor], Tensor]  # masks (K, PLACES) -> effects (K,)


def as_way(name: str, effect: Effect) -> Way:
    return Way(name, lambda masks: effect(masks[0, :, 0]).unsqueeze(0), torch.tensor(0.0, dtype=torch.float64))


def build_test(*used: Effect, unseen: tuple[Effect, ...] = (), game: str = "preserve", budget: int = 10_000,
               max_rows: int = 5) -> SufficiencyTest:  # fmt: skip
    ways = [as_way(f"way {k}", effect) for k, effect in enumerate(used)]
    others = [as_way(f"other {k}", effect) for k, effect in enumerate(unseen)]
    whole = torch.tensor(1.0, dtype=torch.float64)
    return SufficiencyTest(ways, others, GAMES[game], whole, (PLACES,), SHARE, max_rows, budget)


def remove_places(test: SufficiencyTest, start: Tensor | None = None, halves: bool = False) -> Reduced:
    """Remove single places, or first halves of the region."""
    places = torch.arange(PLACES) if start is None else start
    pieces = [places] if halves else list(places.split(1))

    def refine(pieces: list[Tensor]) -> list[Tensor]:
        return [half for piece in pieces for half in piece.tensor_split(2) if len(half)]

    judged = test.judge([places])
    assert judged is not None
    assert test.is_sufficient(judged[0])
    return PieceRemoval(test, pieces, judged[0]).run(refine)


def places_of(reduced: Reduced) -> set[int]:
    return {place for piece in reduced.pieces for place in piece.tolist()}


def needs(*groups: tuple[int, ...]) -> Effect:
    """Return the effect 1 if any of the groups is completely there, and otherwise the largest fraction of one."""
    return lambda masks: torch.stack([masks[:, list(group)].mean(1) for group in groups]).amax(0)


@pytest.mark.parametrize("halves", [False, True])
def test_exactly_what_is_needed_remains(halves: bool) -> None:
    reduced = remove_places(build_test(needs((2, 3, 9))), halves=halves)
    assert places_of(reduced) == {2, 3, 9}
    assert [len(piece) for piece in reduced.pieces] == [1, 1, 1]
    assert reduced.is_minimal
    assert reduced.is_finest
    assert [judged and judged.effect for judged in reduced.without] == pytest.approx([2 / 3] * 3)


def test_one_of_two_sufficient_groups_remains() -> None:
    assert places_of(remove_places(build_test(needs((1, 2), (7, 8))))) in ({1, 2}, {7, 8})


def test_all_ways_that_the_run_used_must_keep_the_effect() -> None:
    reduced = remove_places(build_test(needs((1,)), needs((4, 5)), needs((5, 8))))
    assert places_of(reduced) == {1, 4, 5, 8}
    assert reduced.judgement.effects == (1.0, 1.0, 1.0)


def test_other_ways_must_keep_half_of_it_in_the_median() -> None:
    others = (needs((3,)), needs((3, 4)), lambda masks: masks.prod(1))  # 3 alone: 1, ½, 0
    reduced = remove_places(build_test(needs((1,)), unseen=others))
    assert places_of(reduced) == {1, 3}
    assert reduced.judgement.unseen == 0.5 >= MIN_UNSEEN_EFFECT * SHARE


def test_the_delete_game_keeps_what_must_go() -> None:
    assert places_of(remove_places(build_test(needs((2,), (6,)), game="delete"))) == {2, 6}
    assert len(places_of(remove_places(build_test(lambda m: m[:, 2] * m[:, 6], game="delete")))) == 1


def test_scores_that_are_not_finite_are_not_sufficient() -> None:
    def effect(masks: Tensor) -> Tensor:
        return torch.where(masks[:, 4] > 0, needs((1,))(masks), torch.nan)

    assert places_of(remove_places(build_test(effect))) == {1, 4}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("halves", [False, True])
def test_the_result_is_1_minimal_by_brute_force(seed: int, halves: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    linear = torch.rand(PLACES, generator=generator, dtype=torch.float64)
    pairs = torch.randn(PLACES, PLACES, generator=generator, dtype=torch.float64)  # effects rise and fall

    def effect(masks: Tensor) -> Tensor:
        rows = masks.double()
        return (rows @ linear + torch.einsum("ki,ij,kj->k", rows, pairs, rows)) / whole

    ones = torch.ones(1, PLACES, dtype=torch.float64)
    whole = float((ones @ linear + torch.einsum("ki,ij,kj->k", ones, pairs, ones))[0])
    reduced = remove_places(build_test(effect), halves=halves)

    def measure(places: set[int]) -> float:
        row = torch.zeros(1, PLACES, dtype=torch.float64)
        row[0, sorted(places)] = 1
        return float(effect(row)[0])

    region = places_of(reduced)
    assert reduced.is_minimal
    assert measure(region) == pytest.approx(reduced.judgement.effect)
    assert measure(region) >= SHARE
    for piece, judged in zip(reduced.pieces, reduced.without, strict=True):
        assert judged is not None
        assert measure(region - set(piece.tolist())) == pytest.approx(judged.effect)
        assert judged.effect < SHARE


class TestBudget:
    def test_it_is_never_exceeded(self) -> None:
        for budget in range(1, 60):
            rows = 0

            def effect(masks: Tensor) -> Tensor:
                nonlocal rows
                rows += len(masks)
                return needs((2, 3, 9))(masks)

            test = build_test(effect, unseen=(effect,), budget=budget + 1)
            reduced = remove_places(test, halves=True)
            assert rows == test.evaluations <= budget + 1
            tried = all(judged is not None for judged in reduced.without)
            assert reduced.is_minimal <= tried
            assert {2, 3, 9} <= places_of(reduced)
            if reduced.is_finest:
                assert reduced.is_minimal
                assert places_of(reduced) == {2, 3, 9}

    def test_it_ends_the_search(self) -> None:
        reduced = remove_places(build_test(needs((2,)), budget=PLACES))
        assert not reduced.is_minimal
        assert len(reduced.pieces) == PLACES
        assert reduced.without == (None,) * PLACES

    def test_larger_pieces_count_if_smaller_ones_cannot_be_tried(self) -> None:
        test = build_test(needs((0, 11)), budget=5)  # the region, one piece, halves; four quarters are too many
        reduced = remove_places(test, halves=True)
        assert [len(piece) for piece in reduced.pieces] == [6, 6]
        assert reduced.is_minimal
        assert not reduced.is_finest

    def test_many_pieces_go_at_once(self) -> None:
        test = build_test(needs((2,)))
        remove_places(test)
        assert test.evaluations < 3 * PLACES
