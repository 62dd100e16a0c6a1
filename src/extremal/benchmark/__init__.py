"""Evaluation of attribution methods: data sets, tasks, measures, and the methods themselves."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["baselines", "data", "metrics"])
