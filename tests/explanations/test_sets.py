"""Sets of regions and contrasts of networks whose sufficient and necessary regions are known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extremal import Contrast, Network, RegionSets, Settings, contrast, explain_sets
from extremal.explanations.sets.region_sets import join_verdicts, judge_smallest
from extremal.explanations.verdict import Verdict, VerdictLabel
from extremal.masking.solvers import Path as Solver
from extremal.scores import Classes
from extremal.tensor_files import read_tensors, write_tensors
from support.errors import message_of
from support.made_explanations import explanation
from support.toys import box_mask, overlap

A, B = (slice(4, 12), slice(4, 12)), (slice(20, 28), slice(16, 24))
ONE, BOTH = 64 / 1024, 128 / 1024  # areas of a square, and of two
X = torch.ones(1, 3, 32, 32)
SOLVER = Solver(steps=24, polish=6, draws=2, search=4)
OPTIONS: dict[str, Any] = {"areas": (ONE, BOTH), "perturbation": "fade", "solver": SOLVER}
SHORT: dict[str, Any] = {**OPTIONS, "solver": Solver(steps=3, polish=1, draws=1, search=0)}


def squares(*places: tuple[slice, slice]) -> Tensor:
    return sum(box_mask(place, (32, 32)) for place in places)  # type: ignore[return-value]


class Light(nn.Module):
    """Class 0 by the light of two squares joined in some way; class 1 has none."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        first, second = (x[(..., *place)].mean((1, 2, 3)) for place in (A, B))
        return torch.stack([8 * self.join(first, second), 0 * first], 1)


class Rivals(nn.Module):
    """Class 0 by the light of one square and of both, class 1 by that of the other, class 2 by none."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = (x[(..., *place)].mean((1, 2, 3)) for place in (A, B))
        return torch.stack([8 * first, 5 * second, 0 * first + 1], 1)


@pytest.fixture(scope="module")
def either() -> RegionSets:
    return explain_sets(Light(torch.maximum), X, 0, **OPTIONS)


@pytest.fixture(scope="module")
def rivals() -> Contrast:
    return contrast(Network(Rivals(), labels=("cat", "dog", "none")), X, **OPTIONS)


class TestRegionSets:
    def test_if_one_of_two_is_enough_both_are_necessary(self, either: RegionSets) -> None:
        sufficient, necessary, complete = (either.smallest(kind) for kind in ("sufficient", "necessary", "complete"))
        assert sufficient
        assert necessary
        assert complete
        assert (sufficient.region.area, necessary.region.area, complete.region.area) == (ONE, BOTH, BOTH)
        assert max(overlap(sufficient.region.mask[0], squares(place)) for place in (A, B)) >= 0.6
        for found in (necessary, complete):
            assert overlap(found.region.mask[0], squares(A, B)) >= 0.6
        assert [found.verdict.label for found in (sufficient, necessary, complete)] == ["sufficient"] * 3
        assert either.overlap() == pytest.approx(0.5, abs=0.05)

    def test_if_both_are_needed_one_is_necessary(self) -> None:
        sets = explain_sets(Light(torch.minimum), X, 0, **OPTIONS)
        sufficient, necessary, complete = (sets.smallest(kind) for kind in ("sufficient", "necessary", "complete"))
        assert sufficient
        assert necessary
        assert complete
        assert (sufficient.region.area, necessary.region.area, complete.region.area) == (BOTH, ONE, BOTH)
        for found in (sufficient, complete):
            assert overlap(found.region.mask[0], squares(A, B)) >= 0.6
        assert max(overlap(necessary.region.mask[0], squares(place)) for place in (A, B)) >= 0.6

    def test_a_region_that_is_not_both_is_not_complete(self, either: RegionSets) -> None:
        """A mask of one square keeps the answer and does not break it."""
        assert either.complete_loss.curve().binary[0] < 0.9
        broken = replace(
            either, complete_loss=replace(either.complete_loss, binary_scores=either.complete.score_full.expand(1, 2))
        )
        assert broken.smallest("complete") is None

    def test_the_same_masks_are_judged_twice(self, either: RegionSets) -> None:
        assert torch.equal(either.complete.masks, either.complete_loss.masks)
        assert (either.complete.keeps, either.complete_loss.keeps) == (True, False)

    def test_saved_and_loaded(self, either: RegionSets, tmp_path: Path) -> None:
        either.save(tmp_path / "sets.safetensors")
        assert RegionSets.load(tmp_path / "sets.safetensors") == either

    def test_a_share_that_nothing_has(self, either: RegionSets) -> None:
        assert [either.smallest(kind, 3.0) for kind in ("sufficient", "necessary", "complete")] == [None] * 3
        assert either.overlap(3.0) is None
        assert message_of(either.smallest, "enough") == (
            "kind must be one of sufficient, necessary, complete, got 'enough'"
        )


class TestContrast:
    def test_the_loss_of_one_square_turns_the_answer(self, rivals: Contrast) -> None:
        assert rivals.names == ("cat", "dog")
        turning = rivals.turning()
        assert turning
        assert turning.region.area == ONE
        assert overlap(turning.region.mask[0], squares(A)) >= 0.6
        assert turning.verdict.label == "sufficient", turning.verdict.reason
        assert rivals.share == pytest.approx(3 / 3)  # 8 − 5 of 3 − 0
        assert rivals.answers[0][0] == "dog"
        turned, total = rivals.count_turned(ONE)
        assert total == len(rivals.ways) == rivals.n_used + len(rivals.loss.unseen_names)
        assert turned >= 1
        assert message_of(rivals.count_turned, 0.3).startswith("area must be one of the computed areas 0.0625, 0.125, ")

    def test_the_pair_of_regions(self, rivals: Contrast) -> None:
        first, second = rivals.pair()
        assert first
        assert second
        assert overlap(first.region.mask[0], squares(A)) >= 0.6
        assert overlap(second.region.mask[0], squares(B)) >= 0.6
        assert (first.verdict.label, second.verdict.label) == ("sufficient", "sufficient")
        assert rivals.overlap() == pytest.approx(0.0, abs=0.1)
        assert [part.target_names for part in (rivals.loss, rivals.first, rivals.second)] == [
            ("cat rather than dog",),
            ("cat",),
            ("dog",),
        ]

    def test_another_class_than_the_runner_up(self) -> None:
        found = contrast(Network(Rivals(), labels=("cat", "dog", "none")), X, "cat", "none", **SHORT)
        assert found.names == ("cat", "none")
        assert found.turning() is None  # a dog remains
        assert found.pair(9.0) == (None, None)
        assert found.overlap(9.0) is None

    def test_classes_of_one_name_are_told_apart(self) -> None:
        def third(x: Tensor) -> Tensor:  # without the first square, the answer is class 2
            scores = Rivals()(x)
            return torch.cat([scores[:, :2], 0 * scores[:, 2:] + 6], 1)

        found = contrast(Network(third, labels=("cat", "crane", "crane")), X, 0, 1, **SHORT)
        assert found.names == ("cat", "crane (1)")
        assert found.answers[0][0] == "crane (2)"
        assert found.turning() is None
        assert found.first.target_names == ("cat",)

    def test_two_classes(self) -> None:
        found = contrast(lambda x: Rivals()(x)[:, :2], X, **SHORT)
        assert found.names == ("class 0", "class 1")
        assert (float(found.first.score_full), float(found.second.score_full)) == pytest.approx((8.0, 5.0))

    def test_saved_and_loaded(self, rivals: Contrast, tmp_path: Path) -> None:
        rivals.save(tmp_path / "contrast.safetensors")
        assert Contrast.load(tmp_path / "contrast.safetensors") == rivals
        assert "must be a file written by its save" in message_of(RegionSets.load, tmp_path / "contrast.safetensors")

    @pytest.mark.parametrize(
        "change",
        [{"names": ["cat"]}, {"answers": []}, {"answers": [["cat"], ["dog"]]}, {"n_used": 0}, {"ways": None}, {}],
    )
    def test_damaged_values(self, change: dict[str, Any], rivals: Contrast, tmp_path: Path) -> None:
        path = tmp_path / "contrast.safetensors"
        rivals.save(path)
        tensors, head = read_tensors(path, "a contrast")
        head["values"] = {**head["values"], **change} if change else {}
        write_tensors(path, tensors, head)
        assert message_of(Contrast.load, path).startswith("a contrast must be a file written by its save, ")

    def test_the_network_and_its_modes_are_restored(self) -> None:
        model = Rivals().train()
        before = torch.get_rng_state()
        contrast(model, X, **SHORT)
        assert model.training
        assert torch.equal(torch.get_rng_state(), before)


def test_progress_is_reported_by_part() -> None:
    stages: list[str] = []
    explain_sets(Light(torch.maximum), X, 0, **SHORT, on_part=lambda name, done, total: stages.append(name))
    named = list(dict.fromkeys(stage.split(", ")[0] for stage in stages))
    assert named == ["sufficient", "necessary", "complete"]
    assert "complete, lost, evidence" in stages


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: explain_sets(Rivals(), X, 0, game="delete"),
            "sets of regions choose their games themselves, got game='delete'; leave it out",
        ),
        (
            lambda: explain_sets(Rivals(), X, 0, settings=Settings(alternatives=2)),
            "sets of regions are one answer, got alternatives=2; leave it out, or use explain",
        ),
        (
            lambda: explain_sets(Rivals(), X.expand(2, -1, -1, -1), 0),
            "sets of regions must be of one image, got 2; call it for each",
        ),
        (
            lambda: explain_sets(Rivals(), X, [0, 1]),
            "sets of regions must be of one target, got 2; call it for each",
        ),
        (
            lambda: explain_sets(Rivals(), X, [Classes({0: 1}), Classes({1: 1})]),
            "sets of regions must be of one target, got 2; call it for each",
        ),
        (
            lambda: explain_sets(Rivals(), X, []),
            "sets of regions must be of one target, got 0; call it for each",
        ),
        (
            lambda: contrast(Rivals(), X, score="logit"),
            "contrasts choose their scores themselves, got another score; leave it out",
        ),
        (
            lambda: contrast(Rivals(), X, 1),
            "a contrast must be with a class that scores lower on the whole input, class 1 scores 3 below class 0; "
            "swap them",
        ),
        (
            lambda: contrast(Rivals(), X, 0, 0),
            "other must be another class than the target, got class 0 for both",
        ),
        (lambda: contrast(Rivals(), X, 0, 7), "other must lie in 0..2 for Rivals, got 7; classes are counted from 0"),
        (
            lambda: contrast(lambda x: x.mean((1, 2, 3))[:, None], X),
            "a contrast must be between two classes, <lambda> has 1; use explain",
        ),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    assert message_of(call) == message


@pytest.mark.parametrize("target", [[0], [[0, 1]]], ids=["class", "group"])
def test_a_list_of_one_target_is_saved_and_loaded(target: Any, tmp_path: Path) -> None:
    sets = explain_sets(Rivals(), X, target, **SHORT)
    sets.save(tmp_path / "sets.safetensors")
    assert RegionSets.load(tmp_path / "sets.safetensors") == sets


def test_verdicts_name_both_sides() -> None:
    joined = join_verdicts(Verdict(VerdictLabel.SUFFICIENT, "kept"), Verdict(VerdictLabel.INSUFFICIENT, "little"))
    assert (joined.label, joined.reason) == ("insufficient", "kept alone: kept; lost: little")
    assert join_verdicts(Verdict(VerdictLabel.SUSPECT, "a"), Verdict(VerdictLabel.SUFFICIENT, "b")).label == "suspect"


def test_a_sufficient_region_comes_before_a_smaller_suspect_one() -> None:
    unseen = torch.tensor([[[2.0, 0.0, 4.0], [9.0, 10.0, 8.0]]])  # nothing of the smaller one holds
    found = explanation(binary_scores=torch.tensor([[9.9, 10.0]]), unseen_scores=unseen)
    assert [verdict.label for verdict in found.verdicts(0, 0.9)] == ["suspect", "sufficient"]
    judged = judge_smallest(found, 0.9)
    assert judged is not None
    assert (judged.region.area, judged.verdict.label, judged.region.effect) == (0.5, "sufficient", 1.0)
    assert torch.equal(judged.region.mask, found.binary(0.5)[0])
    suspect = judge_smallest(explanation(binary_scores=torch.tensor([[9.9, 10.0]]), unseen_scores=0 * unseen), 0.9)
    assert suspect is not None
    assert (suspect.region.area, suspect.verdict.label) == (0.25, "suspect")
    assert judge_smallest(explanation(binary_scores=torch.tensor([[3.0, 4.0]])), 0.9) is None
