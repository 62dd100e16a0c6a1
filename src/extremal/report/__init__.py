"""Results as self-contained HTML pages, figures and files; takes values, never networks.

>>> from extremal import report
>>> report.write(explanation, "report.html")  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["export", "plots"], submod_attrs={"explanation_page": ["render", "write"]}
)
