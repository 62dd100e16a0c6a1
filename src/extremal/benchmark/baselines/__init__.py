"""Attribution methods behind one signature: `method(network, x, target)` returns maps (N, 1, *S) and their cost.

>>> import torch
>>> from extremal import Network
>>> toy = Network(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
>>> maps = get_method("gradient")(toy, torch.rand(2, 3, 16, 16), [0, 1])
>>> maps.values.shape, maps.evaluations
(torch.Size([2, 1, 16, 16]), 2)
"""

from difflib import get_close_matches

from extremal.benchmark.baselines.excitation import ExcitationBackprop
from extremal.benchmark.baselines.grad_cam import GradCam
from extremal.benchmark.baselines.gradients import Deconvnet, Gradient, GuidedBackprop, IntegratedGradients
from extremal.benchmark.baselines.method import AreaMasks, Maps, Method
from extremal.benchmark.baselines.occlusion import Occlusion
from extremal.benchmark.baselines.ours import ExplanationMap, MaskGradient, PenaltyMap
from extremal.benchmark.baselines.rise import Rise
from extremal.benchmark.baselines.trivial import Centre, Random
from extremal.errors import ExtremalValueError

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
        ExplanationMap(solver="path", perturbation="blur", name="path"),
        ExplanationMap(),
    )
}


def get_method(method: str | Method) -> Method:
    """Return the method of this short name, or the method itself.

    Raises:
        ExtremalValueError: no method has this name.
    """
    if not isinstance(method, str):
        return method
    if method in METHODS:
        return METHODS[method]
    suggestions = get_close_matches(method, METHODS, n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(suggestions)}?" if suggestions else ""
    raise ExtremalValueError(f"a method must be one of {', '.join(METHODS)}, got {method!r}{hint}")


__all__ = [
    "METHODS",
    "AreaMasks",
    "Centre",
    "Deconvnet",
    "ExcitationBackprop",
    "ExplanationMap",
    "GradCam",
    "Gradient",
    "GuidedBackprop",
    "IntegratedGradients",
    "Maps",
    "MaskGradient",
    "Method",
    "Occlusion",
    "PenaltyMap",
    "Random",
    "Rise",
    "get_method",
]
