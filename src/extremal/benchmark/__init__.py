"""Evaluation of attribution methods: data sets, tasks, metrics, and the methods."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["baselines", "data", "metrics"])
