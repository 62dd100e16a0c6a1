"""Scores and queries: the number to explain, a score of a class or another query about a network."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
