"""If memory runs out, batches are halved and the run continues; only a single row that does not fit ends it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import extremal
from extremal import Network, solvers
from extremal.networks.memory import RowLimit
from support.errors import message_of

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
OPTIONS: dict[str, Any] = {"areas": (0.1, 0.3), "solver": solvers.Path(steps=4, polish=2, rounds=1, search=2)}


class Limited(nn.Module):
    """Raises the error of a GPU without memory for more rows than a limit."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
        self.limit, self.largest, self.failures = limit, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        if self.limit is not None and len(features) > self.limit:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.largest = max(self.largest, len(features))
        return self.head(features)


def explain(net: Network) -> Tensor:
    return extremal.explain(net, X, **OPTIONS).masks


def explain_consensus(net: Network) -> Tensor:
    return extremal.explain(net, X, areas=(0.1, 0.3), solver=solvers.Consensus(steps=2, least=4)).masks


def judge(net: Network) -> Tensor:
    masks = torch.rand(2, 2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    found = extremal.judge(net, X, masks, areas=(0.1, 0.3))
    controls = found.control_scores.nan_to_num(0.0)
    return torch.cat([found.unseen_scores.flatten(), controls.flatten(), found.agreement.flatten()])


def channels(net: Network) -> Tensor:
    return extremal.explain_channels(net, X[:1], "features", counts=(1, 2), solver=OPTIONS["solver"]).ranked_scores


def gradient_map(net: Network) -> Tensor:
    return extremal.baselines.METHODS["gradient"](net, X, [0, 1]).values


CALLS = {
    "explain": explain,
    "explain consensus": explain_consensus,
    "judge": judge,
    "channels": channels,
    "gradient": gradient_map,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("limit", [2, 3])  # a network is checked on two rows
def test_batches_are_halved(name: str, limit: int) -> None:
    call: Callable[[Network], Tensor] = CALLS[name]
    model = Limited(limit)
    found = call(Network(model, name="limited"))
    assert (model.failures > 0) == (name != "gradient")  # which evaluates no more rows than inputs
    assert model.largest <= limit
    torch.testing.assert_close(found, call(Network(Limited(), name="limited")), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", CALLS)
def test_a_single_input_that_does_not_fit_ends_the_run(name: str) -> None:
    assert "must fit in memory" in message_of(CALLS[name], Network(Limited(0), name="limited"))


def test_the_limit_is_kept_and_halved_again() -> None:
    limit, tried, count = RowLimit(), list[int](), 10

    def evaluate(rows: slice) -> Tensor:
        part = torch.arange(count)[rows]
        tried.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return part

    assert torch.equal(limit.evaluate(evaluate, count), torch.arange(count))  # type: ignore[arg-type]
    assert tried == [10, 5, 2, 2, 2, 2, 2]
    assert limit.rows == 2
    tried.clear()
    count = 3
    limit.evaluate(evaluate, count)
    assert tried == [2, 1]


def test_other_errors_are_not_taken_for_missing_memory() -> None:
    def fail(_: slice) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        RowLimit().evaluate(fail, 4)
