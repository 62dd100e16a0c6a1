"""EfficientNet-Lite without timm: the same layers, images and class names as timm's."""

import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo, create_transform, resolve_data_config
from torch import nn

from extremal.networks.imagenet import find_imagenet_labels
from extremal.networks.same_padding import SamePaddedConv2d, same_padding
from extremal.networks.zoo.efficientnet_lite import VARIANTS, EfficientNetLite
from extremal.networks.zoo.packaged import MEAN, STD
from extremal.networks.zoo.preprocessing import ShortSideCrop

SIZES = [(640, 480), (481, 333), (224, 224), (256, 256), (257, 999), (100, 37), (37, 1001)]  # width, height


def timm_model(name: str) -> nn.Module:
    model: nn.Module = timm.create_model(f"tf_efficientnet_{name}", pretrained=False)
    return model.eval()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_network_is_that_of_timm(name: str) -> None:
    torch.manual_seed(0)
    own, expected, side = EfficientNetLite(VARIANTS[name]).eval(), timm_model(name), VARIANTS[name].side
    own.load_state_dict(expected.state_dict())
    assert list(own.state_dict()) == list(expected.state_dict())
    for height, width in ((side, side), (side // 2 + 1, side // 3)):  # "same" pads odd sizes differently
        x = torch.randn(1, 3, height, width)
        with torch.no_grad():
            assert torch.equal(own(x), expected(x))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_images_are_prepared_as_by_timm(name: str, size: tuple[int, int]) -> None:
    variant = VARIANTS[name]
    transform = create_transform(**resolve_data_config({}, model=timm_model(name)), is_training=False)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    assert torch.equal(ShortSideCrop(variant.resized_side, variant.side, MEAN, STD)(image), transform(image))


def test_class_names_are_those_of_timm() -> None:
    info = ImageNetInfo()
    assert find_imagenet_labels(1000) == tuple(info.index_to_description(index) for index in range(1000))
    assert find_imagenet_labels(10) == ()


@pytest.mark.parametrize(("size", "kernel", "stride", "dilation"), [(224, 3, 2, 1), (15, 5, 2, 1), (9, 3, 1, 2)])
def test_same_padding_gives_as_many_outputs_as_strides(size: int, kernel: int, stride: int, dilation: int) -> None:
    module = SamePaddedConv2d(1, 1, kernel, stride, dilation=dilation)
    assert module(torch.zeros(1, 1, size, 7)).shape[2] == -(-size // stride)
    before, after = same_padding(size, kernel, stride, dilation)
    assert after - before in (0, 1)


def test_the_embedded_network_needs_neither_timm_nor_torchvision() -> None:
    code = (
        "import sys, extremal; extremal.zoo.load('embedded'); "
        "print(sorted({'timm', 'torchvision', 'torch._dynamo', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
