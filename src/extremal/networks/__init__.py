"""Any `nn.Module` with its preprocessing: loaded, frozen, split at a layer, accelerated."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["zoo"])
