"""What tests of several modules share."""

import os
from collections.abc import Iterator

import pytest
import torch

from support.isolation import ISOLATED_VARIABLE, end_with_parent, run_isolated


def pytest_configure() -> None:
    """Let no process of an isolated test outlive the tests."""
    if ISOLATED_VARIABLE in os.environ:
        end_with_parent()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run tests that start a cluster in processes of their own: Ray may end the process that started it."""
    if pyfuncitem.get_closest_marker("cluster") is None or ISOLATED_VARIABLE in os.environ:
        return None
    run_isolated(pyfuncitem.nodeid, pyfuncitem.config.rootpath)
    return True


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a worker of a data loader; tiny tensors are slower on several, by how much depends on what else runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
