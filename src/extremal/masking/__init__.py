"""Masks, perturbations, games and solvers: functions of tensors, without a network."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["games", "perturbations", "solvers"])
