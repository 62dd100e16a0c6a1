"""Count the evaluations of a network: in total, and inside a `with`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class EvaluationCount:
    """Numbers of evaluated rows; one row is one input with one mask."""

    gradients: int = 0  # evaluated with gradient: forward-backward passes
    forwards: int = 0  # evaluated without gradient


@dataclass(eq=False)
class EvaluationCounter:
    """A base class that counts evaluations.

    >>> counter = EvaluationCounter()
    >>> with counter.counted() as cost:
    ...     counter.count_evaluations(4, with_gradient=True)
    ...     with counter.counted() as inner:
    ...         counter.count_evaluations(1, with_gradient=False)
    >>> cost, inner, counter.gradients
    (EvaluationCount(gradients=4, forwards=1), EvaluationCount(gradients=0, forwards=1), 4)
    """

    forwards: int = field(default=0, init=False)  # rows evaluated without gradient
    gradients: int = field(default=0, init=False)  # rows evaluated with gradient: forward-backward passes
    _open_counts: list[EvaluationCount] = field(default_factory=list, init=False, repr=False)

    def count_evaluations(self, rows: int, *, with_gradient: bool) -> None:
        """Add evaluated rows to the totals and to every open count."""
        counts: list[EvaluationCounter | EvaluationCount] = [self, *self._open_counts]
        for count in counts:
            if with_gradient:
                count.gradients += rows
            else:
                count.forwards += rows

    @contextmanager
    def counted(self) -> Iterator[EvaluationCount]:
        """Count the evaluations made inside the `with`; counts may be nested.

        Yields:
            The count, up to date inside the `with` and final after it.
        """
        count = EvaluationCount()
        self._open_counts.append(count)
        try:
            yield count
        finally:
            self._open_counts.remove(count)  # compared by identity
