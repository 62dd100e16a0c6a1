"""Grad-CAM against its formula, and the layers that methods choose by rule."""

import torch
import torch.nn.functional as F
from torch import nn

from extremal import Network
from extremal.benchmark.baselines import GradCam
from extremal.networks.attribution_layers import excitation_layer, grad_cam_layer
from support.residual import ResidualWithLastMaps


def test_grad_cam_equals_its_formula(residual, x):
    maps = GradCam("rectifier_out")(Network(ResidualWithLastMaps(residual)), x, [1, 2])
    with torch.no_grad():
        h = residual.a(x).clamp_min(0)
        y = (residual.b(h) + h).clamp_min(0)
        weights = residual.classes.weight[[1, 2]] / y[0, 0].numel()
        expected = torch.einsum("nk,nkhw->nhw", weights, y).clamp_min(0)[:, None]
    torch.testing.assert_close(maps.values, expected)
    assert maps.evaluations == 2


def test_grad_cam_of_tokens_uses_the_last_layer_where_more_than_the_class_token_counts():
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, depth=3)
    nn.init.normal_(model.head.weight)
    network, x = Network(model), torch.rand(2, 3, 64, 64)
    layer = grad_cam_layer(network, x)
    assert (layer.name, layer.lattice, layer.tokens) == ("blocks.1", (8, 8), True)
    maps = GradCam()(network, x, [3, 5])
    outputs = []
    handle = model.blocks[1].register_forward_hook(lambda _, __, output: outputs.append(output))
    model.eval()
    top = model(x)[[0, 1], [3, 5]].sum()
    handle.remove()
    gradient = torch.autograd.grad(top, outputs[0])[0][:, 1:]
    coarse = (gradient.mean(1, keepdim=True) * outputs[0][:, 1:]).sum(2).clamp_min(0).view(2, 1, 8, 8)
    expected = F.interpolate(coarse, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(maps.values, expected.detach(), rtol=1e-3, atol=1e-5)


def test_layers_by_rule():
    import torchvision

    x = torch.rand(1, 3, 64, 64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cases = {
            "resnet18": ("layer4", "layer3.0"),
            "vgg11": ("features.19", "features.15"),
            "mobilenet_v2": ("features", "features.7.conv.1.2"),
        }
        for name, (deep, coarse) in cases.items():
            network = Network(torchvision.models.get_model(name, weights=None), name=name)
            assert grad_cam_layer(network, x).name == deep, name
            assert excitation_layer(network, x).name == coarse, name
