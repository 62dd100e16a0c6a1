"""Networks that take views of their activations, which images in channels-last layout do not have."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from extremal import explain, explain_channels, judge
from extremal.networks.layers import trace_layers
from extremal.networks.network import Network

SIDE = 32
X = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
AREAS = (0.1, 0.3)


class Classifier(nn.Module):
    """Convolutions and a linear layer; `join` makes rows (N, K) of maps (N, C, H, W)."""

    def __init__(self, join: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.join, self.pool = join, nn.MaxPool2d(2)
        self.first, self.norm, self.second = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 4, 3, padding=1),
        )
        self.linear = nn.Linear(4 * (SIDE // 4) ** 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(self.first(x)).relu())
        return self.linear(self.join(self.pool(self.second(x))))


def viewing() -> Network:
    return Network(Classifier(lambda maps: maps.view(-1, 4 * (SIDE // 4) ** 2)), random_weights=True)


def flattening() -> Network:
    return Network(Classifier(lambda maps: maps.flatten(1)), random_weights=True)


def count_rows(net: Network, evaluate: Callable[[Network], object]) -> list[int]:
    """Return the numbers of rows of all evaluations."""
    rows = list[int]()
    with net.model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0]))):
        evaluate(net)
    return rows


def test_an_explanation_is_that_of_a_network_without_views() -> None:
    found, expected = (explain(net, X, 1, areas=AREAS) for net in (viewing(), flattening()))
    torch.testing.assert_close(found.score_full, expected.score_full)
    torch.testing.assert_close(found.score_blank, expected.score_blank)
    assert found.settings["evaluations"]["gradients"] == expected.settings["evaluations"]["gradients"]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inputs_of_any_layout_which_the_network_changes_in_place(layout: torch.memory_format) -> None:
    x = X.contiguous(memory_format=layout)
    before, net = x.clone(), viewing()

    def subtract(_: nn.Module, args: tuple[Tensor]) -> None:
        args[0].sub_(0.5)

    net.model.register_forward_pre_hook(subtract)
    found, expected = explain(net, x, 1, areas=AREAS), explain(flattening(), x - 0.5, 1, areas=AREAS)
    torch.testing.assert_close(found.score_full, expected.score_full)
    assert torch.equal(x, before)


def test_rows_are_evaluated_together() -> None:
    viewed, flat = (
        count_rows(net, lambda net: explain(net, X[:1], 1, areas=AREAS)) for net in (viewing(), flattening())
    )
    assert len(viewed) == len(flat) + 2  # the first evaluation in the other layout, and again for its record
    assert sum(rows > 1 for rows in viewed) == sum(rows > 1 for rows in flat)


def test_layers_are_those_of_a_network_without_views() -> None:
    layers = []
    for net in (viewing(), flattening()):
        with net.frozen() as run:
            layers.append(trace_layers(run, X[:1]))
    assert layers[0] == layers[1]
    assert {"first", "norm", "second"} <= {layer.name for layer in layers[0] if layer.can_split_cleanly}


def test_norms_are_folded_and_kernels_stay() -> None:
    net = viewing()
    kernels = net.model.first.weight, net.model.second.weight
    with net.frozen() as run:
        trace_layers(run, X[:1])
        run.accelerate(X)
        assert not isinstance(net.model.norm, nn.BatchNorm2d)
        assert net.model.second.weight is kernels[1]
        torch.testing.assert_close(run(X), flattening().model.eval()(X), atol=1e-5, rtol=1e-4)
    assert net.model.first.weight is kernels[0]


def test_kernels_stay_where_inputs_are_no_images() -> None:
    class Spectrum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:  # signals (N, C, T)
            return self.conv(x.unflatten(2, (8, 8))).mean((2, 3))

    net, signals = Network(Spectrum(), random_weights=True), X.flatten(2)[..., :64]
    kernel = net.model.conv.weight
    with net.frozen() as run:
        run.accelerate(signals)
        assert net.model.conv.weight is kernel


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_given_masks_of_inputs_of_any_layout(layout: torch.memory_format) -> None:
    masks = torch.zeros(2, 1, 1, SIDE, SIDE)
    masks[..., :16, :] = 1
    x = X.contiguous(memory_format=layout)
    judged = [judge(net, x, masks, 1, areas=(0.5,)).binary_scores for net in (viewing(), flattening())]
    torch.testing.assert_close(*judged)


@pytest.mark.parametrize("rows", [1, 2])
def test_given_masks_and_channels(rows: int) -> None:
    x = X[:rows]
    masks = torch.zeros(rows, 1, 1, SIDE, SIDE)
    masks[..., :16, :] = 1
    judged = [judge(net, x, masks, 1, areas=(0.5,)).binary_scores for net in (viewing(), flattening())]
    torch.testing.assert_close(*judged)
    channels = [explain_channels(net, x, "second", 1, areas=(0.5,)).binary_scores for net in (viewing(), flattening())]
    torch.testing.assert_close(*channels)


def test_an_error_of_another_kind_is_told_once() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("sizes do not match")

    with Network(Fails()).frozen() as run, pytest.raises(ValueError, match="sizes do not match"):
        run.evaluate(X[:1])
