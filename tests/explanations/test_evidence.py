"""Verdicts, statuses, and the scores that go with them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from extremal.explanations.controls import Controls, random_masks
from extremal.explanations.evidence import agreement, collect_evidence, unseen_perturbations
from extremal.explanations.verdict import Status, VerdictLabel, assign_status, reach_verdict
from extremal.masking.area import cut_one
from extremal.masking.domain import Domain
from extremal.masking.games import GAMES, Evaluate
from extremal.masking.level_set import LevelSet
from extremal.masking.perturbations import (
    PERTURBATIONS,
    Blur,
    Constant,
    Extreme,
    Fade,
    Mix,
    Mosaic,
    Noise,
    split_ways,
    with_spacing,
)

NAN, INF = float("nan"), float("inf")
TIMES = "a mask changes the score 24 times as much as destroying the whole input does"

CHANCE = VerdictLabel.CHANCE


@pytest.mark.parametrize(
    ("soft", "cut", "unseen", "control", "word", "reason"),
    [
        (1.0, 0.95, [0.9, 0.8, 0.9], [0.1, 0.2], "sufficient", "95 % of the effect, at best 20 % by chance"),
        (0.2, 0.9, [0.9], [0.0], "sufficient", "90 % of the effect, at best 0 % by chance"),  # 0.9 is enough
        (1.0, 0.95, [], [], "sufficient", "95 % of the effect, at best 0 % by chance"),
        (1.0, 1.3, [0.46], [-0.3], "sufficient", "130 % of the effect, at best −30 % by chance"),
        (0.8, 0.5, [0.9], [0.1], "insufficient", "50 % of the effect, wanted 90 %"),
        (
            1.0,
            0.89,
            [0.9],
            [0.95],
            CHANCE,
            "a random region of this size reaches 95 % of the effect, this one 89 %",
        ),
        (0.9, 0.8961, [0.9], [0.1], "insufficient", "89.6 % of the effect, wanted 90 %"),
        (0.9, 0.90001, [0.9], [0.899996], "sufficient", "90 % of the effect, at best 89.9996 % by chance"),
        (0.9, 0.95, [0.4499], [0.1], "suspect", "only 44.99 % of the effect under perturbations it was not made for"),
        (1.0, 0.5, [0.9], [0.1], "insufficient", "50 % of the effect, wanted 90 %"),  # grey carries half: not more
        (0.5, -0.2, [0.0], [0.1], "insufficient", "−20 % of the effect, wanted 90 %"),
        (
            1.1,
            0.2,
            [0.9],
            [0.0],
            "suspect",
            "grey values carry it: 110 % of the effect as found, 20 % cut to black and white",
        ),
        (
            1.0,
            0.95,
            [0.9],
            [0.1, 0.97],
            CHANCE,
            "a random region of this size reaches 97 % of the effect, this one 95 %",
        ),
        (
            1.0,
            0.95,
            [0.9],
            [0.95],
            CHANCE,
            "a random region of this size reaches 95 % of the effect, this one 95 %",
        ),
        (
            1.0,
            0.95,
            [0.1, 0.2, 0.9],
            [0.1],
            "suspect",
            "only 20 % of the effect under perturbations it was not made for",
        ),
        (1.0, 0.95, [0.44], [0.1], "suspect", "only 44 % of the effect under perturbations it was not made for"),
        (
            1.0,
            2.56,
            [0.9],
            [0.1, 1.44],
            "chance is enough",
            "a random region of this size reaches 144 % of the effect, this one 256 %",
        ),
        (
            1.0,
            2.56,
            [0.44],
            [1.44],
            CHANCE,
            "a random region of this size reaches 144 % of the effect, this one 256 %",
        ),
        (
            0.9,
            0.4,
            [0.4],
            [0.9],
            CHANCE,
            "a random region of this size reaches 90 % of the effect, this one 40 %",
        ),
        (1.0, 0.95, [0.9], [0.89], "sufficient", "95 % of the effect, at best 89 % by chance"),
        (4.9, 5.0, [0.9], [0.1], "sufficient", "500 % of the effect, at best 10 % by chance"),
        *(
            (*effects, [0.9], [control], "suspect", f"the effect is too small to divide by: {TIMES}")
            for *effects, control in ((1.0, 23.91, 0.1), (23.91, 0.1, 0.0), (0.5, 0.95, 24.2))
        ),
        (NAN, 0.95, [0.9], [0.1], "suspect", "a score is not finite"),
        (1.0, NAN, [0.9], [0.1], "suspect", "a score is not finite"),
        (1.0, 0.95, [-INF], [0.1], "suspect", "a score is not finite"),
        (1.0, 0.95, [NAN, 0.9], [0.1], "sufficient", "95 % of the effect, at best 10 % by chance"),
        (1.0, 0.95, [0.9], [0.1, NAN], "suspect", "a score is not finite"),
        (INF, INF, [0.9], [0.1], "suspect", "a score is not finite"),
    ],
)
def test_verdict(*, soft: float, cut: float, unseen: list[float], control: list[float], word: str, reason: str) -> None:
    found = reach_verdict(soft, cut, unseen, control)
    assert (str(found), found.reason) == (word, reason)


def test_the_share_that_is_enough_is_the_callers() -> None:
    assert str(reach_verdict(0.6, 0.5, [0.5], [0.1])) == "insufficient"
    assert str(reach_verdict(0.6, 0.5, [0.5], [0.1], share=0.5)) == "sufficient"


def test_a_falling_curve_is_stuck() -> None:
    effects = torch.tensor([[0.2, 0.5, 0.4, 0.46, 0.6], [0.9, 0.1, 0.95, 0.91, 0.8], [0.1, 0.2, 0.3, 0.4, 0.5]])
    found = assign_status(effects, torch.tensor([True, True, False]))
    good, stuck, broken = Status.CONVERGED, Status.STUCK, Status.NOT_FINITE
    assert found == ((good, good, stuck, good, good), (good, stuck, good, good, stuck), (broken,) * 5)


def test_effects_above_the_whole_count_as_the_whole() -> None:
    (found,) = assign_status(torch.tensor([[0.8, 1.6, 1.1, 0.97, 0.9]]), torch.tensor([True]))
    assert found == (Status.CONVERGED,) * 4 + (Status.STUCK,)


def test_a_score_that_is_not_finite_is_told_where_it_is() -> None:
    (found,) = assign_status(torch.tensor([[0.5, NAN, 0.9]]), torch.tensor([True]))
    assert found == (Status.CONVERGED, Status.NOT_FINITE, Status.NOT_FINITE)


def test_a_fall_is_measured_from_the_best_smaller_area() -> None:
    # each single fall is within the slack; together they are not
    (found,) = assign_status(torch.tensor([[0.5, 0.46, 0.42]]), torch.tensor([True]))
    assert found == (Status.CONVERGED, Status.CONVERGED, Status.STUCK)


@pytest.mark.parametrize(
    ("used", "wanted"),
    [
        (PERTURBATIONS["mixed"], ["black", "white", "wide blur", "mosaic"]),
        (Blur(), ["black", "white", "wide blur", "mosaic"]),
        (lambda x: lambda mask: mask * x[:, None], ["black", "white", "wide blur", "mosaic"]),
        (Extreme(), ["white", "wide blur", "mosaic", "half blur"]),
        (Blur(sigma=30.0), ["black", "white", "mosaic", "half blur"]),
        (Mix((Mosaic(20.0), Blur(2, 11.0), Blur(2, 41.0))), ["black", "white", "fade", "noise"]),
        (Mix((Mosaic(20.0), Blur(2, 11.0), Blur(2, 41.0), Constant(0.1))), ["black", "white", "noise"]),
        (
            Mix((Mosaic(), Blur(2, 10.0), Blur(2, 40.0), Fade(), Noise(7), Extreme())),
            ["white", "noise"],  # of another seed, as too few others remain
        ),
    ],
)
def test_unseen_perturbations_are_no_near_copies_of_those_used(used: Any, wanted: list[str]) -> None:
    found = unseen_perturbations(used, 0)
    assert list(found) == wanted
    assert not set(map(repr, found.values())) & set(map(repr, split_ways(used).values()))
    assert unseen_perturbations(with_spacing(used, (2.0, 1.0)), 0) == found


WEIGHTS = torch.rand(2, 1, 1, 6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MASKS = torch.rand(2, 3, 1, 6, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
N_CONTROLS = 8  # random masks per area
AREAS = (0.1, 0.3, 0.6)


def squares(mask: Tensor) -> Tensor:
    return (WEIGHTS * mask.square()).flatten(2).sum(2)


def cubes(mask: Tensor) -> Tensor:
    return (WEIGHTS * mask**3).flatten(2).sum(2) - 1


@pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
def test_gathered_scores_are_those_of_each_mask(game: str) -> None:
    shown = (lambda mask: 1 - mask) if game == "delete" else (lambda mask: mask)
    calls: list[tuple[int, int]] = []
    controls = random_masks(Domain((6, 7)), AREAS, N_CONTROLS, 5, MASKS)
    found = collect_evidence(
        squares,
        lambda masks: torch.stack([squares(masks), cubes(masks)], 2),
        2,
        GAMES[game],
        MASKS,
        AREAS,
        LevelSet((6, 7)),
        Controls(controls),
        lambda *done: calls.append(done),
    )
    torch.testing.assert_close(found.scores, squares(shown(MASKS)))
    for column, area in enumerate(AREAS):
        cut = cut_one(MASKS[:, column], area)[:, None]
        torch.testing.assert_close(found.binary_scores[:, column], squares(shown(cut))[:, 0])
        torch.testing.assert_close(found.unseen_scores[:, column, 0], squares(shown(cut))[:, 0])
        torch.testing.assert_close(found.unseen_scores[:, column, 1], cubes(shown(cut))[:, 0])
        random = controls[:, column].unsqueeze(2).expand(2, -1, -1, -1, -1)
        torch.testing.assert_close(found.control_scores[:, column], squares(shown(random)))
    torch.testing.assert_close(found.unseen_blank, torch.tensor([[0.0, -1.0]] * 2, dtype=torch.float64))
    done, totals = zip(*calls, strict=True)
    assert set(totals) == {3 * (2 + 2 + N_CONTROLS) + 2}
    assert list(done) == sorted(set(done))
    assert done[-1] == totals[0]


def each(asked: dict[str, Evaluate]) -> list[list[Evaluate]]:
    """One orientation of each perturbation."""
    return [[evaluate] for evaluate in asked.values()]


class TestAgreement:
    LIKE = torch.zeros(2, 3, 1, 32, 32, dtype=torch.float64)

    def asked(self, *where: tuple[int, slice, slice]) -> dict[str, Evaluate]:
        """Scores that rise with the mask inside a block, one block an input, by very different amounts."""
        inside = torch.zeros(2, 1, 1, 32, 32, dtype=torch.float64)
        for image, rows, columns in where:
            inside[image, 0, 0, rows, columns] = 1

        def evaluate(mask: Tensor) -> Tensor:
            return ((inside - 0.2) * mask.square()).flatten(2).sum(2)

        return {"weak": lambda mask: 1e-3 * evaluate(mask), "strong": lambda mask: 1e3 * evaluate(mask)}

    def test_it_is_high_where_a_place_helps_and_zero_where_it_harms(self) -> None:
        left, right = (0, slice(4, 14), slice(4, 14)), (1, slice(16, 30), slice(18, 30))
        found = agreement(each(self.asked(left, right)), self.LIKE)
        assert found.shape == (2, 1, 32, 32)
        assert float(found.min()) == 0.0
        for image, rows, columns in (left, right):
            share = found[image, 0, rows, columns].sum() / found[image].sum()
            assert float(share) > 0.85
        assert found[0, 0, 9, 9] > 0
        assert found[0, 0, 24, 24] == 0

    def test_every_perturbation_counts_alike(self) -> None:
        block = (0, slice(4, 14), slice(4, 14))
        asked = self.asked(block)
        alone = agreement([[asked["weak"]]], self.LIKE)
        torch.testing.assert_close(agreement(each(asked), self.LIKE)[0], 2 * alone[0])

    def test_harm_under_one_perturbation_takes_nothing_from_another(self) -> None:
        block = (0, slice(4, 14), slice(4, 14))
        asked = self.asked(block)
        harmful: list[Evaluate] = [lambda mask: -asked["strong"](mask)]
        alone = agreement([[asked["weak"]]], self.LIKE)
        both = agreement([[asked["weak"]], harmful], self.LIKE)
        torch.testing.assert_close(both[0, 0, 6:12, 6:12], alone[0, 0, 6:12, 6:12])

    @pytest.mark.parametrize("rows", [2, 5, 100])
    def test_several_masks_at_once_change_nothing(self, rows: int) -> None:
        asked = each(self.asked((0, slice(4, 14), slice(4, 14)), (1, slice(16, 30), slice(18, 30))))
        torch.testing.assert_close(agreement(asked, self.LIKE, rows), agreement(asked, self.LIKE))

    def test_orientations_are_summed_before_they_are_judged(self) -> None:
        """What one of them says against a place takes from what another says for it."""
        asked = self.asked((0, slice(4, 14), slice(4, 14)))
        weaker: list[Evaluate] = [asked["weak"], lambda mask: -0.5 * asked["weak"](mask)]
        opposite: list[Evaluate] = [asked["weak"], lambda mask: -1.5 * asked["weak"](mask)]
        alone = agreement([[asked["weak"]]], self.LIKE)
        torch.testing.assert_close(agreement([weaker], self.LIKE)[0], alone[0])
        assert float(agreement([opposite], self.LIKE)[0, 0, 6:12, 6:12].max()) == 0.0

    def test_scores_without_gradient_agree_with_everything(self) -> None:
        found = agreement([[lambda mask: mask.detach().flatten(2).sum(2)]], self.LIKE)
        assert torch.equal(found, torch.ones(2, 1, 32, 32, dtype=torch.float64))

    def test_gradients_that_are_not_finite_are_left_out(self) -> None:
        broken = {"broken": lambda mask: (mask - 0.5).sqrt().flatten(2).sum(2)}  # not finite at half and below
        block = (0, slice(4, 14), slice(4, 14))
        assert bool(agreement(each(self.asked(block) | broken), self.LIKE).isfinite().all())
