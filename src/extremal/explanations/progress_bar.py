"""A progress bar for Python: text in a terminal, a widget in a notebook."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from extremal.explanations.evidence import OnEvidence
from extremal.masking.solvers import OnStep, Step
from extremal.number_checks import validate_bool, validate_callbacks


def validate_progress(enabled: object, on_step: object, on_evidence: object) -> None:
    """Check the arguments of `progress_bar` before anything is computed.

    Raises:
        ExtremalTypeError: a callback cannot be called, or `enabled` is neither true, false nor None.
    """
    validate_callbacks(on_step=on_step, on_evidence=on_evidence)
    if enabled is not None:
        validate_bool(enabled, "progress")


@contextmanager
def progress_bar(
    enabled: bool | None, on_step: OnStep | None, on_evidence: OnEvidence | None
) -> Iterator[tuple[OnStep | None, OnEvidence | None]]:
    """Yield callbacks that show a bar of the search and one of the evidence, and call those given.

    Args:
        enabled: None: in a notebook only.
        on_step: called after each step of the solver, or None.
        on_evidence: called with the number of masks done and of all masks, or None.
    """
    if not (in_notebook() if enabled is None else enabled):
        yield on_step, on_evidence
        return
    bar = _Bar()

    def report_step(step: Step) -> None:
        bar.update(f"search, {step.stage}", "step", step.index + 1, step.total)
        if on_step is not None:
            on_step(step)

    def report_evidence(done: int, total: int) -> None:
        bar.update("evidence", "mask", done, total)
        if on_evidence is not None:
            on_evidence(done, total)

    try:
        yield report_step, report_evidence
    finally:
        bar.close()


class _Bar:
    """One bar at a time, opened again when the unit changes: two would be lines that overwrite each other."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._unit = ""

    def update(self, stage: str, unit: str, done: int, total: int) -> None:
        if unit != self._unit:
            self.close()
            self._bar, self._unit = _open_bar(stage, unit, done - 1, total), unit
        self._bar.set_description(stage, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")  # imported by every kernel
    get_ipython: Callable[[], Any] = getattr(ipython, "get_ipython", lambda: None)
    return hasattr(get_ipython(), "kernel")


def _open_bar(stage: str, unit: str, done: int, total: int) -> Any:
    from importlib.util import find_spec

    if in_notebook() and find_spec("ipywidgets"):  # without it, tqdm's widget is an error
        from tqdm.notebook import tqdm
    else:
        from tqdm import tqdm
    stream = sys.stdout if in_notebook() else sys.stderr  # notebooks show the latter as an error
    return tqdm(desc=stage, initial=done, total=total, leave=False, unit=unit, file=stream)
