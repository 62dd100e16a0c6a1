"""Ranks: the order of values, and the mean rank of equal ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extremal.masking.scaling import rank_shares

VALUES = [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 3e38, -3e38, float("inf"), float("-inf"), 0.5, 0.25]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(rows=st.integers(1, 3), values=st.lists(st.sampled_from(VALUES), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_ranks_are_those_of_the_values(dtype: torch.dtype, rows: int, values: list[float]) -> None:
    x = torch.stack([torch.tensor(values, dtype=dtype).roll(row) for row in range(rows)])
    shares = rank_shares(x)
    assert shares.dtype == dtype
    array = x.numpy()[:, None]  # (rows, 1, values)
    smaller, equal = (array < x.numpy()[..., None]).sum(2), (array == x.numpy()[..., None]).sum(2)
    np.testing.assert_allclose(shares.numpy(), (smaller + equal / 2) / len(values), rtol=1e-6)


def test_ranks_of_many_values_are_even() -> None:
    x = torch.randn(2, 1, 300, 200, generator=torch.Generator().manual_seed(0))
    shares = rank_shares(x)
    assert shares.shape == x.shape
    ordered = shares.flatten(1).sort(1).values
    torch.testing.assert_close(ordered, ((torch.arange(60_000) + 0.5) / 60_000).expand(2, -1))
    order = x.flatten(1).argsort(1)
    torch.testing.assert_close(shares.flatten(1).gather(1, order), ordered)
