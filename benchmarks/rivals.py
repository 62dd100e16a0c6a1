"""Maps of other methods, to be cut to the same areas: Grad-CAM (captum) and RISE."""

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from extremal.network import Network

RISE_MASKS, RISE_GRID, RISE_SHARE = 2000, 7, 0.5


def last_convolution(model: nn.Module) -> nn.Module:
    """The module whose output is the last one with spatial extent before the pooling: of timm's EfficientNets, bn2."""
    return model.bn2 if hasattr(model, "bn2") and hasattr(model, "conv_head") else model.layer4  # type: ignore[return-value]


def grad_cam(network: Network, x: Tensor, target: int) -> tuple[Tensor, int]:
    """Grad-CAM at the last convolution, upsampled: (1, 1, H, W), and the forward-backward passes it took."""
    with network.frozen():
        cam = LayerGradCam(network.model, last_convolution(network.model))
        small = cam.attribute(x.clone().requires_grad_(), target=target, relu_attributions=True)
        assert isinstance(small, Tensor)
        return nn.functional.interpolate(small.detach(), x.shape[2:], mode="bilinear", align_corners=False), 1


def rise(network: Network, x: Tensor, target: int, seed: int = 0) -> tuple[Tensor, int]:
    """RISE (Petsiuk, Das, Saenko, 2018): the mean of random masks, weighted by the probability that they leave."""
    generator = torch.Generator().manual_seed(seed)
    height, width = x.shape[2:]
    cell = [-(-n // RISE_GRID) for n in (height, width)]
    total, batch = torch.zeros(1, 1, height, width), 40
    with network.frozen() as run, torch.no_grad():
        for _ in range(RISE_MASKS // batch):
            grid = (torch.rand(batch, 1, RISE_GRID, RISE_GRID, generator=generator) < RISE_SHARE).float()
            size = [(RISE_GRID + 1) * c for c in cell]
            wide = nn.functional.interpolate(grid, size, mode="bilinear", align_corners=False)
            tops, lefts = (torch.randint(c, (batch,), generator=generator).tolist() for c in cell)
            masks = torch.stack(
                [m[:, t : t + height, left : left + width] for m, t, left in zip(wide, tops, lefts, strict=True)]
            )
            weights = run(x * masks).softmax(1)[:, target]
            total += (weights.view(-1, 1, 1, 1) * masks).sum(0, keepdim=True)
    return total / (RISE_MASKS * RISE_SHARE), RISE_MASKS
