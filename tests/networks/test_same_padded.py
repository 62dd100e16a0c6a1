"""TensorFlow's padding without a copy of the input: the same numbers, less memory."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from extremal.networks.acceleration import accelerated
from extremal.networks.memory import activation_bytes
from extremal.networks.same_padding import SamePaddedConv2d
from support.gradients import assert_equal_to_rounding, output_and_gradient, patched_modules

DEPTHWISE = [(3, {"stride": 2}), (5, {"stride": 2}), ((5, 2), {"stride": (2, 3)}), (3, {})]
OTHERS = [(3, {"stride": 2, "groups": 1}), (3, {"stride": 2, "groups": 3}), (3, {"stride": 2, "dilation": 2})]


def layers(size: object, options: dict[str, object]) -> tuple[nn.Module, nn.Module]:
    """Return a layer of this project and timm's with the same weights, depthwise by default."""
    torch.manual_seed(0)
    options = {"groups": 6, **options}
    own, timms = SamePaddedConv2d(6, 6, size, **options), Conv2dSame(6, 6, size, **options)
    timms.load_state_dict(own.state_dict())
    return own.requires_grad_(False), timms.requires_grad_(False)


@pytest.mark.parametrize(("size", "options"), DEPTHWISE + OTHERS)
@pytest.mark.parametrize("shape", [(12, 12), (13, 9)], ids=["even", "odd"])
def test_outputs_and_gradients_are_those_of_timm(size: object, options: dict[str, object], shape: object) -> None:
    own, timms = layers(size, options)
    x = torch.randn(3, 6, *shape, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
    expected = output_and_gradient(timms, x)
    assert_equal_to_rounding(output_and_gradient(own, x), expected)
    model = nn.Sequential(timms)
    with accelerated(model, model, x[:1]):
        assert patched_modules(model) == [timms]
        assert_equal_to_rounding(output_and_gradient(model, x), expected)
    assert patched_modules(model) == []


@pytest.mark.parametrize(("size", "options"), DEPTHWISE[:2])
def test_depthwise_layers_save_no_copy_of_their_input(size: object, options: dict[str, object]) -> None:
    own, timms = layers(size, options)
    x = torch.randn(3, 6, 12, 12, requires_grad=True)

    def count_bytes(layer: nn.Module) -> int:
        return activation_bytes(lambda: layer(x), tuple(layer.parameters()))

    kernel = own.weight.numel() // own.kernel_size[0] ** 2 * (own.kernel_size[0] + 1) ** 2 * 4
    assert count_bytes(own) == x.nbytes + kernel
    assert count_bytes(timms) > x.nbytes * 1.1


def test_a_layer_whose_forward_was_replaced_stays() -> None:
    _, timms = layers(3, {"stride": 2})
    timms.forward = lambda x: x
    model = nn.Sequential(timms)
    with accelerated(model, model, torch.randn(1, 6, 12, 12)):
        assert torch.equal(model(torch.ones(2, 6, 4, 4)), torch.ones(2, 6, 4, 4))
