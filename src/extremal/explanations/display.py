"""Views of results at a prompt and in a notebook: short text, pictures, maps, and views of the report.

Results do not depend on the report; it is imported when a view is requested.
"""

import importlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VIEWS = "extremal.report.views"  # imported by name, since the report imports the results
MAX_LISTED = 8  # areas, inputs or names in a line of `repr`
MAX_NAME_LENGTH = 40  # of a class in a line of `repr`

FloatMap = np.ndarray[Any, np.dtype[np.float32]]
BoolMap = np.ndarray[Any, np.dtype[np.bool_]]


class Displayed(ABC):
    """The views of a result of N inputs."""

    @abstractmethod
    def _describe(self) -> Sequence[str]:
        """Return the lines of `repr`."""

    def __repr__(self) -> str:
        return "\n".join(self._describe())

    def _repr_html_(self) -> str:
        html: str = _views().render_notebook(self)
        return html

    def plot(self, image: int = 0) -> "Figure":
        """Draw the figure of one input: save it with `.savefig("figure.png")`, or end a notebook cell with it.

        Args:
            image: index of the input, 0..N − 1.

        Raises:
            ExtremalValueError: there is no such input.
        """
        figure: Figure = _views().draw(self, image)
        return figure

    def show(self, image: int = 0) -> None:
        """Show the figure of one input in a window, or below a notebook cell.

        Args:
            image: index of the input, 0..N − 1.

        Raises:
            ExtremalValueError: there is no such input, or there is no display.
        """
        _views().show(self, image)

    def report(self, path: str | os.PathLike[str], image: int = 0) -> None:
        """Write the report of one input as one HTML file that works offline.

        Args:
            path: of the file; an existing one is replaced.
            image: index of the input, 0..N − 1.

        Raises:
            ExtremalValueError: there is no such input, or the file cannot be written.
        """
        _views().write_report(self, path, image)


def _views() -> Any:
    return importlib.import_module(VIEWS)


def to_unit_range(values: Tensor, keep_zero: bool) -> FloatMap:
    """Scale a map (*S) to [0, 1]: by its maximum, or from its minimum to its maximum; a constant map is 0.

    >>> import torch
    >>> to_unit_range(torch.tensor([0.0, 1.0, 4.0]), keep_zero=True).tolist()
    [0.0, 0.25, 1.0]
    """
    numbers = np.nan_to_num(values.detach().cpu().numpy().astype(np.float32))
    low = np.float32(0) if keep_zero else numbers.min()
    span = numbers.max() - low
    scaled: FloatMap = np.clip((numbers - low) / span, 0, 1) if span > 0 else np.zeros_like(numbers)
    return scaled


def choose_column(effects: Sequence[float], share: float) -> int:
    """Return the column of the smallest sufficient size, else that of the largest effect.

    >>> choose_column([0.2, 0.95, 1.2], 0.9), choose_column([0.2, 0.5, 0.4], 0.9), choose_column([math.nan], 0.9)
    (1, 1, 0)
    """
    enough = next((k for k, effect in enumerate(effects) if effect >= share), None)
    if enough is not None:
        return enough
    return max(range(len(effects)), key=lambda k: effects[k] if math.isfinite(effects[k]) else -math.inf)


def join_listed(texts: Sequence[str]) -> str:
    """Join texts by commas, at most `MAX_LISTED` of them.

    >>> join_listed(["a", "b"]), join_listed([str(k) for k in range(20)])
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7, … (20)')
    """
    listed = list(texts[:MAX_LISTED])
    return ", ".join(listed if len(texts) <= MAX_LISTED else [*listed, f"… ({len(texts)})"])


def shorten_name(name: str) -> str:
    """Return a name in one line of at most `MAX_NAME_LENGTH` characters.

    >>> shorten_name("tabby"), len(shorten_name("a" * 100))
    ('tabby', 40)
    """
    line = " ".join(name.split())
    return line if len(line) <= MAX_NAME_LENGTH else f"{line[: MAX_NAME_LENGTH - 1]}…"


def has_random_weights(settings: Mapping[str, Any]) -> bool:
    """Return whether the settings of a result say that its network was untrained; older results do not say it."""
    return settings.get("random_weights") is True


def network_text(settings: Mapping[str, Any]) -> str:
    """Return the name of a result's network, and whether its weights are random.

    >>> network_text({"network": "embedded", "random_weights": True}), network_text({})
    ('embedded (random weights)', 'unnamed network')
    """
    name = str(settings.get("network", "unnamed network"))
    return f"{name} (random weights)" if has_random_weights(settings) else name
