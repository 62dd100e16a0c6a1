"""Segmenters of MONAI and nnU-Net, with random weights: a run asks about a region, and leaves everything as it was."""

import pytest
import torch
from torch import Tensor, nn

import extremal
from extremal import Network, scores
from extremal.networks.weight_hash import hash_weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

X = torch.randn(1, 1, 16, 32, 32, generator=torch.Generator().manual_seed(0))
REGION = torch.zeros(16, 32, 32, dtype=torch.bool)
REGION[6:10, 12:20, 12:20] = True


class Windows(nn.Module):
    """A segmenter in sliding windows, with the number of windows that it ran."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        from monai.inferers import SlidingWindowInferer

        self.model, self.windows = model, 0
        self.inferer = SlidingWindowInferer(roi_size=(16, 16, 16), overlap=0.25, sw_batch_size=9)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, D, H, W) -> (B, 2, D, H, W)."""
        return self.inferer(x, self._count)

    def _count(self, window: Tensor) -> Tensor:
        self.windows += len(window)
        return self.model(window)


def build_monai() -> nn.Module:
    """The UNet of MONAI."""
    monai = pytest.importorskip("monai")
    return monai.networks.nets.UNet(3, 1, 2, channels=(4, 8, 16), strides=(2, 2), norm="batch")


def build_nnunet() -> nn.Module:
    """The network of nnU-Net's plans."""
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    norm = {"norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU}
    sizes = (1, 2, (4, 8), nn.Conv3d, 3, (1, 2), (1, 1), 2, (1,))
    return unet.PlainConvUNet(*sizes, conv_bias=True, **norm, deep_supervision=False)


@pytest.mark.parametrize("build", [build_monai, build_nnunet])
def test_a_region_of_a_segmentation(build: object) -> None:
    torch.manual_seed(0)
    model = build().train()  # type: ignore[operator]
    before = hash_weights(model)
    net = Network(model, spacing=(2.0, 1.0, 1.0), labels=("background", "lesion"))
    result = extremal.explain(net, X, scores.Segment("lesion", REGION), areas=(0.05, 0.2))
    assert result.masks.shape == (1, 2, 1, 16, 32, 32)
    assert result.target_names == ("lesion over the region",)
    with torch.no_grad():
        output = model.eval()(X)
    margin = (output[:, 1] - output[:, 0])[:, REGION].mean()
    torch.testing.assert_close(result.score_full[0], margin, atol=1e-4, rtol=1e-4)
    assert hash_weights(model) == before
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_mask_acts_before_the_windows_are_cut() -> None:
    torch.manual_seed(0)
    windows = Windows(build_monai())
    net = Network(windows, spacing=(2.0, 1.0, 1.0))
    with net.frozen() as run, torch.no_grad():
        run(X)
    assert windows.windows == 9, "3 × 3 windows of one evaluation"
    masks = torch.zeros(1, 1, 1, 16, 32, 32)
    masks[..., 8:24, 8:24] = 1
    judged = extremal.judge(net, X, masks, scores.Segment(1, REGION), areas=(float(masks.mean()),), perturbation="fade")
    with torch.no_grad():
        output = windows.eval()(X * masks[:, 0])
    margin = (output[:, 1] - output[:, 0])[:, REGION].mean()
    torch.testing.assert_close(judged.binary_scores[0, 0], margin, atol=1e-4, rtol=1e-4)
