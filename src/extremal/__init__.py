"""Extremal perturbations: the smallest part of an input that a network's answer needs.

>>> import extremal
>>> result = extremal.explain("embedded", "photo.png")  # doctest: +SKIP
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extremal import zoo as zoo
    from extremal.channels.attribution import explain_channels as explain_channels
    from extremal.channels.classes import class_channels as class_channels
    from extremal.channels.explanation import ChannelExplanation as ChannelExplanation
    from extremal.channels.inversion import invert as invert
    from extremal.channels.maximisation import visualise as visualise
    from extremal.checks.finding import Finding as Finding
    from extremal.checks.finding import Findings as Findings
    from extremal.doctor import examine as examine
    from extremal.dry_run import Plan as Plan
    from extremal.dry_run import plan as plan
    from extremal.errors import ExtremalError as ExtremalError
    from extremal.errors import ExtremalTypeError as ExtremalTypeError
    from extremal.errors import ExtremalValueError as ExtremalValueError
    from extremal.explain import explain as explain
    from extremal.explanation import Explanation as Explanation
    from extremal.judge import judge as judge
    from extremal.layers import Layer as Layer
    from extremal.layers import layers as layers
    from extremal.memory import keep_freed_memory as keep_freed_memory
    from extremal.network import Network as Network
    from extremal.smallest import smallest_area as smallest_area

__version__ = "0.1.0"

_HOMES = {  # public name -> module; imported on first use, so that `extremal --help` need not wait for torch
    "ChannelExplanation": "channels.explanation",
    "ExtremalError": "errors",
    "ExtremalTypeError": "errors",
    "ExtremalValueError": "errors",
    "Explanation": "explanation",
    "Finding": "checks.finding",
    "Findings": "checks.finding",
    "Layer": "layers",
    "Network": "network",
    "Plan": "dry_run",
    "class_channels": "channels.classes",
    "examine": "doctor",
    "explain": "explain",
    "explain_channels": "channels.attribution",
    "judge": "judge",
    "invert": "channels.inversion",
    "keep_freed_memory": "memory",
    "layers": "layers",
    "plan": "dry_run",
    "smallest_area": "smallest",
    "visualise": "channels.maximisation",
}
__all__ = [*_HOMES, "zoo"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"extremal.{_HOMES[name]}"), name)
    elif name == "zoo":
        value = import_module("extremal.zoo")
    else:
        raise AttributeError(f"module 'extremal' has no attribute {name!r}")
    globals()[name] = value
    return value


class _Package(ModuleType):
    """Keeps `extremal.explain` the function: importing the submodule of that name would put the module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
