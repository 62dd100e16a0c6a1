"""Explanations in bfloat16 are close to those in float32; docs/devices.md states by how much."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import extremal
from extremal import Network, solvers
from extremal.masking.area import cut
from extremal.networks import outputs
from support.toys import texture

AREAS = (0.1, 0.3)
X = texture(2, 3, 32, 32)


def make_network() -> Network:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Conv2d(8, 8, 3), nn.ReLU())
    return Network(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)), mirror=True)


def test_scores_of_the_same_masks() -> None:
    net = make_network()
    masks = torch.rand(2, 2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    single, half = (extremal.judge(replace(net, precision=p), X, masks, areas=AREAS) for p in ("float32", "bfloat16"))
    span = (single.score_full - single.score_blank).abs().view(-1, 1)
    assert not torch.equal(single.scores, half.scores)  # it was computed in bfloat16
    assert half.scores.dtype == torch.float32
    assert float(((single.scores - half.scores).abs() / span).max()) < 0.05
    assert float(((single.binary_scores - half.binary_scores).abs() / span).max()) < 0.05


def test_masks_that_are_found() -> None:
    net, solver = make_network(), solvers.Consensus(steps=3, least=6)
    found = [
        cut(extremal.explain(replace(net, precision=p), X, areas=AREAS, solver=solver).masks, AREAS) > 0.5
        for p in ("float32", "bfloat16")
    ]
    iou = (found[0] & found[1]).sum((2, 3, 4)) / (found[0] | found[1]).sum((2, 3, 4))
    assert float(iou.min()) > 0.6


@pytest.mark.parametrize("supported", [True, False])
def test_auto_is_bfloat16_where_the_hardware_has_it(supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extremal.networks.run.has_bfloat16", lambda device: supported)
    net = make_network()
    with torch.no_grad():
        results = []
        for precision in ("auto", "bfloat16" if supported else "float32"):
            with replace(net, precision=precision).frozen() as run:
                run.accelerate(X)
                results.append(run(X))
    assert torch.equal(*results)
    assert outputs.has_bfloat16(torch.device("mps")) is False
