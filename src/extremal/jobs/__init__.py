"""Explanations of whole data sets: a resumable run, its table, and explanations restored from its rows."""

import lazy_loader

from extremal.errors import check_installed

check_installed("pyarrow", "filelock", purpose="data-set runs", extra="jobs")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
