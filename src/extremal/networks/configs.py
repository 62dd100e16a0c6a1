"""Configurations of the models of transformers in a network."""

from torch import nn


def find_configs(model: nn.Module) -> list[object]:
    """Return the `config` of each module that has one, from the outermost module inwards."""
    configs = (getattr(module, "config", None) for module in model.modules())
    return [config for config in configs if config is not None]
