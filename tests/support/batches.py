"""Checks that a batch equals its inputs one by one."""

import torch
from torch import Tensor, nn

from extremal import Network, explain
from extremal.masking.solvers import Solver


def assert_batch_is_its_singles(net: Network | nn.Module, x: Tensor, areas: tuple[float, ...], solver: Solver) -> None:
    targets = [0] * len(x)
    together = explain(net, x, targets, areas=areas, solver=solver)
    for n in range(len(x)):
        alone = explain(net, x[n : n + 1], targets[:1], areas=areas, solver=solver)
        for name in ("masks", "scores", "binary_scores", "unseen_scores", "control_scores", "trace_reward"):
            torch.testing.assert_close(
                getattr(together, name)[n],
                getattr(alone, name)[0],
                atol=1e-4,
                rtol=1e-4,
                equal_nan=True,
                msg=lambda m, n=name: f"{n}: {m}",
            )
