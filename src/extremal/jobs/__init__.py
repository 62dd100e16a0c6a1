"""Explanations of whole data sets: a resumable run, its table, and explanations restored from its rows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
