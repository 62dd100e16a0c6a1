"""Classifiers of all kinds, signals, volumes and videos: a run leaves everything as it was, also an interrupted one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from extremal import Network, zoo
from support.families import assert_explains_and_restores

MAKERS: dict[str, tuple[Callable[[], Network], tuple[int, ...]]] = {
    "embedded": (lambda: zoo.load("embedded"), (3, 64, 64)),
    "torchvision CNN": (lambda: zoo.load("torchvision:resnet18", "random"), (3, 64, 64)),
    "timm ViT": (lambda: zoo.load("timm:test_vit", "random"), (3, 160, 160)),
    "timm ConvNeXt": (lambda: zoo.load("timm:test_convnext", "random"), (3, 64, 64)),
    "signals": (
        lambda: Network(nn.Sequential(nn.Conv1d(2, 8, 5), nn.BatchNorm1d(8), nn.AdaptiveAvgPool1d(1), nn.Flatten())),
        (2, 80),
    ),
    "volumes": (
        lambda: Network(nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.AdaptiveAvgPool3d(1), nn.Flatten())),
        (1, 10, 12, 14),
    ),
    "video": (
        lambda: Network(
            nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()), spacing=(4, 1, 1)
        ),
        (3, 4, 16, 20),
    ),
    "recurrent": (lambda: Network(Recurrent()), (6, 40)),
}


class Recurrent(nn.Module):
    """A GRU over a sequence (B, C, T), the last state's scores; dropout between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 8, num_layers=2, dropout=0.5, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.gru(x.transpose(1, 2))[0][:, -1])


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("family", list(MAKERS))
def test_a_run_restores_everything(family: str, training: bool) -> None:
    torch.manual_seed(0)
    make, shape = MAKERS[family]
    net = make()
    net.model.train(training)
    assert_explains_and_restores(net, torch.rand(1, *shape, generator=torch.Generator().manual_seed(1)))
