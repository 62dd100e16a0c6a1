"""Scores of classes, row by row."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.scores import SCORES, contrastive, get_score, logit, margin, probability
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
