"""What tests of several modules share."""

from collections.abc import Iterator

import pytest
import torch

torch.manual_seed(0)  # for values that test modules draw when they are imported


@pytest.fixture(autouse=True)
def seed_torch() -> None:
    """Draw the same values in each run of a test."""
    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a worker of a data loader; tiny tensors are slower on several, by how much depends on what else runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
