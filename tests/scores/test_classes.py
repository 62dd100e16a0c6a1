"""Scores of classes, row by row."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.scores import SCORES, contrastive, get_score, logit, margin, probability, sigmoid
from support import oracles

OUTPUT = 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor([0, 1, 2, 3, 4, 2])


@pytest.mark.parametrize("name", list(SCORES))
def test_a_score_equals_its_formula_in_every_row(name: str) -> None:
    scores = SCORES[name](OUTPUT, TARGET)
    assert scores.shape == (6,)
    expected = [oracles.SCORES[name](row, target) for row, target in zip(OUTPUT.numpy(), TARGET.tolist(), strict=True)]
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("name", list(SCORES))
def test_rows_do_not_mix(name: str) -> None:
    # the reference package lets the rows of a batch mix in the contrastive score
    together = SCORES[name](OUTPUT, TARGET)
    alone = torch.cat([SCORES[name](OUTPUT[i : i + 1], TARGET[i : i + 1]) for i in range(6)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("name", list(SCORES))
def test_a_score_has_its_gradient_and_only_in_its_row(name: str) -> None:
    output = OUTPUT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: SCORES[name](y, TARGET), output)
    (grad,) = torch.autograd.grad(SCORES[name](output, TARGET)[2], output)
    assert float(grad[2, 2]) * (-1 if name == "negative" else 1) > 0
    assert float(grad[[0, 1, 3, 4, 5]].abs().max()) == 0.0


@given(st.lists(st.floats(-200, 200), min_size=2, max_size=8), st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_margin_is_the_log_odds_of_the_probability(values: list[float], data: st.DataObject) -> None:
    output = torch.tensor([values], dtype=torch.float64)
    target = torch.tensor([data.draw(st.integers(0, len(values) - 1))])
    scores = float(margin(output, target))
    assert scores == pytest.approx(oracles.margin(np.array(values), int(target)), abs=1e-9)
    assert scores <= float(contrastive(output, target)) + 1e-9  # the log-sum-exp is above the maximum
    assert float(torch.sigmoid(torch.tensor(scores, dtype=torch.float64))) == pytest.approx(
        float(probability(output, target)), abs=1e-12
    )


def test_one_output_is_its_own_margin() -> None:
    output, target = torch.tensor([[2.5], [-1.0]]), torch.tensor([0, 0])
    assert margin(output, target).tolist() == contrastive(output, target).tolist() == [2.5, -1.0]


def test_one_output_is_a_sigmoid() -> None:
    output, target = torch.tensor([[2.5], [-1.0]], dtype=torch.float64), torch.tensor([0, 0])
    chances = [1 / (1 + math.exp(-2.5)), 1 / (1 + math.exp(1.0))]
    assert SCORES["probability"](output, target).tolist() == pytest.approx(chances, abs=1e-12)
    assert SCORES["log-probability"](output, target).tolist() == pytest.approx(list(map(math.log, chances)), abs=1e-12)
    assert SCORES["sigmoid"](output, target).tolist() == [2.5, -1.0]
    assert SCORES["negative"](output, target).tolist() == [-2.5, 1.0]


@given(st.lists(st.floats(-60, 20), min_size=2, max_size=6), st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_group_of_labels_has_the_log_odds_of_any_of_them(values: list[float], data: st.DataObject) -> None:
    members = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)).filter(any))
    log_absent = -math.fsum(math.log1p(math.exp(y)) for y, member in zip(values, members, strict=True) if member)
    expected = math.log(-math.expm1(log_absent)) - log_absent
    output = torch.tensor([values], dtype=torch.float64, requires_grad=True)
    score = sigmoid(output, torch.tensor([members]))
    assert float(score.detach()) == pytest.approx(expected, abs=1e-6)
    (grad,) = torch.autograd.grad(score.sum(), output)
    assert bool(grad.isfinite().all())
    assert float(grad[0][~torch.tensor(members)].abs().sum()) == 0.0


@pytest.mark.parametrize("name", list(SCORES))
@pytest.mark.parametrize("target", [torch.tensor([1]), torch.tensor([[False, True, False, True]])])
def test_masked_classes_count_for_nothing(name: str, target: Tensor) -> None:
    output = torch.tensor([[1.0, 2.0, -torch.inf, 0.5, -torch.inf]], dtype=torch.float64, requires_grad=True)
    if target.ndim == 2:
        target = torch.cat([target, torch.tensor([[False]])], 1)
    finite = torch.tensor([0, 1, 3])
    score = SCORES[name](output, target)
    same = SCORES[name](output[:, finite], target if target.ndim == 1 else target[:, finite])
    assert float(score.detach()) == pytest.approx(float(same.detach()), abs=1e-12)
    (grad,) = torch.autograd.grad(score.sum(), output)
    assert bool(grad.isfinite().all())
    assert grad[0, [2, 4]].tolist() == [0.0, 0.0]


def test_names() -> None:
    assert (get_score("margin"), get_score("logit")) == (margin, logit)

    def own(output: Tensor, target: Tensor) -> Tensor:
        return output[:, 0]

    assert get_score(own) is own
    with pytest.raises(ExtremalValueError) as unknown:
        get_score("loss")
    assert str(unknown.value) == (f"score must be one of {', '.join(SCORES)} or a callable, got 'loss'")
    with pytest.raises(ExtremalTypeError) as wrong:
        get_score(1.0)  # type: ignore[arg-type]
    assert str(wrong.value) == (
        f"score must be one of {', '.join(SCORES)} or a callable (output, target) -> (B,), got float"
    )
