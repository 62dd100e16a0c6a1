"""Kernels in channels-last layout: the same numbers without copies, and the model restored."""

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from extremal.networks.acceleration import accelerated
from extremal.networks.acceleration.kernel_layout import channels_last_kernels
from extremal.networks.same_padding import SamePaddedConv2d
from support.gradients import output_and_gradient

X = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)


def is_channels_last(kernel: Tensor) -> bool:
    return kernel.is_contiguous(memory_format=torch.channels_last)


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), SamePaddedConv2d(8, 4, 3, stride=2), nn.Flatten()
    return nn.Sequential(*layers).eval().requires_grad_(False)


def count_kernel_copies(model: nn.Module, x: Tensor) -> int:
    """Return how often a pass copies a kernel of 3 x 3."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as record:
        model(x)
    copies = (event for event in record.events() if event.name == "aten::copy_" and event.input_shapes)
    return sum(event.input_shapes[0][2:] == [3, 3] for event in copies)


def test_a_pass_copies_no_kernel_and_gives_the_same_numbers() -> None:
    model = convolutions()
    kernels = [model[0].weight, model[3].weight]
    expected = output_and_gradient(model, X)
    assert count_kernel_copies(model, X) == 2
    with channels_last_kernels(model):
        assert all(is_channels_last(model[k].weight) for k in (0, 3))
        assert count_kernel_copies(model, X) == 0
        assert all(map(torch.equal, output_and_gradient(model, X), expected))
    assert all(now is before for now, before in zip([model[0].weight, model[3].weight], kernels, strict=True))


def test_an_accelerated_network_has_folded_kernels_in_this_layout() -> None:
    model = convolutions()
    kernels = dict(model.named_parameters())
    with accelerated(model, model, X[:1]):
        assert not isinstance(model[1], nn.BatchNorm2d)
        assert all(is_channels_last(model[k].weight) for k in (0, 3))
    assert all(value is kernels[name] for name, value in model.named_parameters())
    assert list(dict(model.named_parameters())) == list(kernels)


def test_the_model_is_restored_after_an_exception() -> None:
    model = convolutions()
    kernel = model[0].weight
    with pytest.raises(KeyError), channels_last_kernels(model):
        raise KeyError
    assert model[0].weight is kernel


class Subclass(nn.Conv2d):
    """May use its kernel in any way."""


@pytest.mark.parametrize("other", [Subclass(3, 4, 3), nn.Conv1d(3, 4, 3), nn.Linear(3, 4), nn.Conv2d(3, 4, 1)])
def test_other_modules_keep_their_weights(other: nn.Module) -> None:
    other.requires_grad_(False)
    weight = other.weight
    with channels_last_kernels(nn.Sequential(other)):
        assert other.weight is weight


class ReadsKernel(nn.Module):
    """Takes a view of a kernel, which other layouts do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).mean((2, 3)) + self.conv.weight.view(4, -1).mean(1)


def test_a_model_that_needs_a_kernel_in_its_own_layout_keeps_it() -> None:
    torch.manual_seed(0)
    model = ReadsKernel().eval().requires_grad_(False)
    kernel, expected = model.conv.weight, model(X)
    with accelerated(model, model, X[:1]):
        assert model.conv.weight is kernel  # and its batch norm stays: folding would change the output
        assert torch.equal(model(X), expected)
    assert model.conv.weight is kernel
