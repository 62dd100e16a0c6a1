"""Counting evaluations inside a `with`."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from extremal import Network
from extremal.networks.counting import EvaluationCount
from extremal.networks.run import Run
from extremal.networks.split import split

X = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def run() -> Iterator[Run]:
    with Network(nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(48, 2))).frozen() as run:
        yield run


def as_pair(count: EvaluationCount | Run) -> tuple[int, int]:
    return count.gradients, count.forwards


def test_rows_with_and_without_gradient(run: Run) -> None:
    run(X)
    with run.counted() as cost:
        run(X[:2])
        assert as_pair(cost) == (0, 2)  # up to date inside
        run(X.clone().requires_grad_())
    run(X)
    assert as_pair(cost) == (3, 2)  # final after it
    assert as_pair(run) == (3, 8)


def test_nested_and_consecutive_counts(run: Run) -> None:
    with run.counted() as outer:
        run(X)
        with run.counted() as first:
            run(X[:1])
        with run.counted() as second:
            pass
        run(X[:2])
    assert [as_pair(count) for count in (outer, first, second)] == [(0, 6), (0, 1), (0, 0)]


def test_an_exception_ends_a_count(run: Run) -> None:
    counts = []

    def interrupt() -> None:
        with run.counted() as cost:
            counts.append(cost)
            run(X)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    run(X)
    assert as_pair(counts[0]) == (0, 3)


def test_the_set_up_is_counted(run: Run) -> None:
    with run.counted() as cost:
        run.accelerate(X)
        run.max_batch_size(X)
    assert as_pair(cost) == (0, 2)


def test_a_split_counts_its_own_evaluations(run: Run) -> None:
    part = split(run, "0", X)
    assert as_pair(part) == (0, 0)  # its check does not count
    with run.counted() as whole, part.counted() as cost:
        part(part.activations, torch.arange(3))
        part(part.activations.clone().requires_grad_(), torch.arange(3))
    assert as_pair(cost) == (3, 3)
    assert as_pair(whole) == (0, 0)


def test_the_output_that_the_set_up_evaluated_is_used_once(run: Run) -> None:
    run.max_batch_size(X)
    with run.counted() as cost:
        known = run.score_whole(X[:1])
        assert as_pair(cost) == (0, 0)
        again = run.score_whole(X[:1])
    assert as_pair(cost) == (0, 1)
    assert not known.requires_grad
    torch.testing.assert_close(known, again)


def test_other_inputs_are_evaluated(run: Run) -> None:
    x = X.clone()
    for change in (lambda: x, lambda: x[1:2], x[:1].clone, lambda: x[:1].mul_(2)):
        run.max_batch_size(x)
        other = change()
        with run.counted() as cost:
            scores = run.score_whole(other)
        assert as_pair(cost) == (0, len(other))
        torch.testing.assert_close(scores, run(other))


def test_the_output_of_a_network_that_returns_several_tensors_is_not_kept() -> None:
    class Answers(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": x.flatten(1)[:, :5]}

    with Network(Answers()).frozen() as run:
        run.max_batch_size(X)
        with run.counted() as cost:
            assert torch.equal(run.score_whole(X[:1]), X[:1].flatten(1)[:, :5])
        assert as_pair(cost) == (0, 1)
