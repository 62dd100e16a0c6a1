"""Fixtures of the tests of attribution methods."""

import pytest
import torch
from torch import Tensor

from support.residual import Residual


@pytest.fixture
def residual() -> Residual:
    torch.manual_seed(0)
    return Residual().double()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 12, 14, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
