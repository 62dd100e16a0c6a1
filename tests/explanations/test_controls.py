"""Controls: random masks of exact areas, of which some are scored only where the first ones leave a question."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from extremal import Explanation, explain, judge
from extremal.explanations import effort
from extremal.explanations.controls import UNDECIDED_EFFECTS, Controls, random_masks
from extremal.masking.area import count_kept
from extremal.masking.domain import Domain
from support.made_explanations import explanation
from support.toys import texture

N_CONTROLS = 8  # random masks per area
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("shape", [(40,), (21, 34), (8, 9, 10)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_controls_have_exactly_their_area_and_are_seeded(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    areas = (0.05, 0.1, 0.33)
    like = torch.zeros(1, dtype=dtype)
    controls = random_masks(Domain(shape), areas, N_CONTROLS, 7, like)
    assert controls.shape == (1, 3, N_CONTROLS, *shape)
    assert controls.dtype == dtype
    assert set(controls.unique().tolist()) == {0.0, 1.0}
    total = controls[0, 0, 0].numel()
    for column, area in enumerate(areas):
        assert controls[0, column].flatten(1).sum(1).tolist() == [count_kept(area, total)] * N_CONTROLS
    assert torch.equal(controls, random_masks(Domain(shape), areas, N_CONTROLS, 7, like))
    assert not torch.equal(controls, random_masks(Domain(shape), areas, N_CONTROLS, 8, like))
    rows = controls[0, 2].flatten(1)
    assert len(rows.unique(dim=0)) == N_CONTROLS  # they differ from each other


def test_controls_are_smooth() -> None:
    # of the neighbours of a place inside, most are inside: a salt-and-pepper mask of a fifth would have a fifth
    controls = random_masks(Domain((64, 64)), (0.2,), N_CONTROLS, 0, torch.zeros(1))[0, 0]
    both = (controls[:, 1:] * controls[:, :-1]).sum()
    assert float(both / controls.sum()) > 0.8


class Scored:
    """Scores of made-up controls, whose mask holds the score, and a record of those that were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float]] = []

    def __call__(self, masks: Tensor, numbers: Sequence[int], wanted: Tensor | None) -> Tensor:
        scores = masks[..., 0]
        assert len(numbers) == scores.shape[1]
        for n, row in enumerate(scores.tolist()):
            self.asked += [(n, value) for k, value in enumerate(row) if wanted is None or wanted[n, k]]
        return scores if wanted is None else scores.where(wanted, NAN)


# two inputs, two areas, four controls
MADE = torch.tensor([[[0.1, 0.3, 0.5, 0.9], [0.0, 0.1, NAN, 0.2]], [[0.0, 0.0, 0.7, 0.7], [0.6, 0.0, NAN, 0.4]]])


def test_later_controls_are_scored_where_the_first_leave_a_question() -> None:
    score = Scored()
    controls = Controls(MADE.unsqueeze(3), 2, lambda scores: scores.amax(2) >= 0.3)
    found = controls.score(score)
    expected = torch.tensor(
        [[[0.1, 0.3, 0.5, 0.9], [0.0, 0.1, NAN, NAN]], [[0.0, 0.0, NAN, NAN], [0.6, 0.0, INF, 0.4]]]
    )
    assert torch.equal(found.nan_to_num(-1.0), expected.nan_to_num(-1.0))
    assert len(score.asked) == 2 * 2 * 2 + 2 * 2


@pytest.mark.parametrize("controls", [Controls(MADE.unsqueeze(3)), Controls(MADE.unsqueeze(3), 4, lambda _: 1 / 0)])
def test_all_are_scored_where_none_may_be_left_out(controls: Controls) -> None:
    assert torch.equal(controls.score(Scored()), MADE.nan_to_num(INF))


def test_nothing_more_is_asked_where_no_area_is_undecided() -> None:
    score = Scored()
    found = Controls(MADE.unsqueeze(3), 1, lambda scores: scores[..., 0] > 9).score(score)
    assert found[..., 1:].isnan().all()
    assert len(score.asked) == 4


class Middle(nn.Module):
    """The share of the middle that is bright: random masks have any effect."""

    def forward(self, x: Tensor) -> Tensor:
        value = x[:, :, 8:24, 8:24].mean((1, 2, 3))[:, None]
        return torch.cat([value, -value], 1)


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    x = texture(3, 3, 32, 32)
    x[:, :, 8:24, 8:24] += torch.tensor([1.0, 3.0, 9.0]).view(-1, 1, 1, 1)
    return x


@pytest.fixture
def with_all(inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> Explanation:
    """The explanation in which all controls are scored."""
    normal = effort.EFFORTS["normal"]
    monkeypatch.setitem(effort.EFFORTS, "normal", replace(normal, first_controls=normal.controls))
    result = explain(Middle(), inputs, 0)
    monkeypatch.undo()
    return result


def test_those_left_out_are_the_only_difference(inputs: Tensor, with_all: Explanation) -> None:
    result = explain(Middle(), inputs, 0)
    scored = ~result.control_scores.isnan()
    assert bool(scored[:, :, :4].all())
    assert 0 < int(scored[:, :, 4:].sum()) < scored[:, :, 4:].numel()
    torch.testing.assert_close(result.control_scores[scored], with_all.control_scores[scored])
    best = with_all.effects(with_all.control_scores[:, :, :4]).amax(2)
    low, high = UNDECIDED_EFFECTS
    assert torch.equal(scored[:, :, 7], (best >= low) & (best < high))
    saved = with_all.settings["evaluations"]["evidence_forwards"] - result.settings["evaluations"]["evidence_forwards"]
    assert saved == int((~scored).sum())
    assert [list(result.count_controls(n)) for n in range(3)] == scored.sum(2).tolist()


def test_a_batch_and_each_input_alone_leave_out_the_same(inputs: Tensor) -> None:
    together = explain(Middle(), inputs, 0)
    for n in range(3):
        alone = explain(Middle(), inputs[n : n + 1], 0)
        assert torch.equal(alone.control_scores.isnan(), together.control_scores[n : n + 1].isnan())


@pytest.mark.parametrize("game", ["preserve", "delete", "dual"])
def test_a_file_keeps_what_was_left_out(inputs: Tensor, game: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    result = explain(Middle(), inputs, 0, game=game, areas=(0.1, 0.3))
    path = tmp_path_factory.mktemp("file") / "result.safetensors"
    result.save(path)
    again = Explanation.load(path)
    assert again == result
    assert again.verdict == result.verdict
    judged = judge(Middle(), inputs, result.masks, 0, game=game, areas=(0.1, 0.3))
    assert torch.equal(judged.control_scores.isnan(), result.control_scores.isnan())


def test_verdict_and_curve_are_of_the_controls_that_were_scored() -> None:
    # the whole scores 10, nothing 2
    some = explanation(control_scores=torch.tensor([[[2.0, 2.8, NAN, NAN], [2.0, 2.8, 9.6, 3.6]]]))
    assert some.curve().control_best == pytest.approx((0.1, 0.95))
    assert some.curve().control == pytest.approx((0.0, 0.1))
    assert some.count_controls() == (2, 4)
    assert [str(verdict) for verdict in some.verdict[0]] == ["insufficient", "chance is enough"]
    broken = explanation(control_scores=torch.tensor([[[2.0, INF, NAN, NAN], [2.0, 2.8, 3.6, 3.6]]]))
    assert broken.verdict[0][0].reason == "a score is not finite"
