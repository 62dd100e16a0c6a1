"""Extremal perturbations: the smallest part of an input that a network's answer needs.

The public names are those of `__init__.pyi`. Each is imported on first use, so that `extremal --help` need not wait
for torch.

>>> import extremal
>>> result = extremal.explain("embedded", "photo.png")  # doctest: +SKIP
"""

import lazy_loader

from extremal._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
