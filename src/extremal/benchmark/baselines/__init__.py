"""Attribution methods behind one signature: `method(network, x, target)` gives maps (N, 1, *S) and what they took.

>>> import torch
>>> from extremal import Network
>>> toy = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
>>> maps = get_method("gradient")(toy, torch.rand(2, 3, 16, 16), [0, 1])
>>> maps.values.shape, maps.evaluations
(torch.Size([2, 1, 16, 16]), 2)
"""

from extremal.benchmark.baselines.excitation import ExcitationBackprop
from extremal.benchmark.baselines.grad_cam import GradCam
from extremal.benchmark.baselines.gradients import Deconvnet, Gradient, GuidedBackprop, IntegratedGradients
from extremal.benchmark.baselines.method import Maps, Method, named
from extremal.benchmark.baselines.occlusion import Occlusion
from extremal.benchmark.baselines.ours import MaskGradient, PathMap, PenaltyMap
from extremal.benchmark.baselines.rise import Rise
from extremal.benchmark.baselines.trivial import Centre, Random

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Centre(),
        Random(),
        Gradient(),
        Deconvnet(),
        GuidedBackprop(),
        IntegratedGradients(),
        GradCam(),
        Occlusion(),
        ExcitationBackprop(),
        ExcitationBackprop(contrastive=True),
        Rise(),
        MaskGradient(),
        PenaltyMap(),
        PathMap(),
    )
}


def get_method(method: str | Method) -> Method:
    """A method of this short name, or as given.

    Raises:
        ExtremalValueError: there is none of this name.
    """
    return named(method, METHODS) if isinstance(method, str) else method


__all__ = [
    "METHODS",
    "Centre",
    "Deconvnet",
    "ExcitationBackprop",
    "GradCam",
    "Gradient",
    "GuidedBackprop",
    "IntegratedGradients",
    "Maps",
    "MaskGradient",
    "Method",
    "Occlusion",
    "PathMap",
    "PenaltyMap",
    "Random",
    "Rise",
    "get_method",
]
