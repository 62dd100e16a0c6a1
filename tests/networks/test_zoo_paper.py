"""VGG-16 and ResNet-50 of the paper's evaluation: built, filled from a local file, and fully convolutional."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

from extremal import zoo
from extremal.errors import ExtremalValueError


@pytest.fixture(scope="module")
def resnet():
    return zoo.load("voc:resnet50", "random")


class TestResNet:
    def test_classes_and_shapes(self, resnet):
        assert len(resnet.labels) == 20
        x = resnet.prepare(Image.new("RGB", (300, 224)))
        assert x.shape == (1, 3, 224, 300)  # whole, whatever its shape
        with resnet.frozen() as run, torch.no_grad():
            assert run(x).shape == (1, 20)

    def test_caffe_weights_take_bgr_bytes(self, tmp_path):
        torch.manual_seed(0)
        plain = get_model("resnet50", weights=None, num_classes=80).eval()
        torch.save(plain.state_dict(), tmp_path / "weights.pt")
        net = zoo.load("coco:resnet50-caffe", str(tmp_path / "weights.pt"))
        assert len(net.labels) == 80
        picture = Image.effect_noise((224, 224), 90).convert("RGB")
        picture.paste((200, 30, 10), (50, 50, 150, 200))
        x = net.prepare(picture)
        assert net.to_images_or_empty(x)[0, 100, 100].tolist() == [200, 30, 10]
        pixels = torch.from_numpy(np.array(picture)).movedim(-1, 0)[None].float()
        blue_first = (pixels - torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)).flip(1)
        with net.frozen() as run, torch.no_grad():
            torch.testing.assert_close(run(x), plain(blue_first), atol=1e-3, rtol=1e-3)

    def test_weights_of_another_size_raise_an_error(self, tmp_path):
        torch.save(get_model("resnet50", weights=None, num_classes=80).state_dict(), tmp_path / "coco.pt")
        with pytest.raises(ExtremalValueError, match=r"coco\.pt"):
            zoo.load("voc:resnet50", str(tmp_path / "coco.pt"))


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_linear_layers_are_the_convolutions(name, tmp_path):
    """Torchvision's own network with its weights in the same file answers the same on one window."""
    torch.manual_seed(0)
    plain = get_model(name, weights=None, num_classes=20).eval()
    torch.save(plain.state_dict(), tmp_path / "weights.pt")
    net = zoo.load(f"voc:{name}", str(tmp_path / "weights.pt"))
    x = torch.rand(1, 3, 224, 224)
    with net.frozen() as run, torch.no_grad():
        torch.testing.assert_close(run(x), plain(x), atol=1e-4, rtol=1e-4)


def test_names_are_checked():
    with pytest.raises(ExtremalValueError) as error:
        zoo.load("voc:vgg19", "random")
    assert str(error.value) == (
        "a network tuned to voc must be one of vgg16, resnet50, vgg16-caffe, resnet50-caffe, got 'vgg19'"
    )
    with pytest.raises(ExtremalValueError) as error:
        zoo.load("voc:vgg16")
    assert str(error.value) == (
        "weights of voc:vgg16 must be a local file, none was given; pass --weights FILE, or --weights random"
    )
