"""Findings of checks."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from extremal.errors import ExtremalError
from extremal.file_checks import shorten
from extremal.networks.reading import Reading

MAX_LINE = 160  # characters of another library's message


class Level(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARNING = "warning"  # worth knowing; explanations can be made
    PROBLEM = "problem"  # explanations cannot be made, or would be meaningless


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str  # of the check
    level: Level
    measured: str
    remedy: str = ""  # what to do; empty if the check passed

    @property
    def ok(self) -> bool:
        """Whether the check passed."""
        return self.level is Level.OK


@dataclass(frozen=True)
class Findings:
    """All findings about a network, an input and a target."""

    network: str
    target: str  # empty if a problem prevented the target from being resolved
    findings: tuple[Finding, ...]  # in the order of the checks
    skipped: tuple[str, ...]  # names of the checks that a problem made pointless
    reading: Reading | None = None  # how input and output are understood; None if a problem came before

    @property
    def ok(self) -> bool:
        """Whether there is no problem; there may be warnings."""
        return not any(finding.level is Level.PROBLEM for finding in self.findings)

    @property
    def issues(self) -> tuple[Finding, ...]:
        """The problems and warnings."""
        return tuple(finding for finding in self.findings if not finding.ok)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        findings = [{**asdict(finding), "ok": finding.ok} for finding in self.findings]
        return {**asdict(self), "findings": findings, "ok": self.ok}


def one_line(error: BaseException) -> str:
    r"""Return an exception's type and message on one line; of an error of a network, what the network raised.

    >>> one_line(ValueError("two\n lines"))
    'ValueError: two lines'
    """
    cause = error.__cause__ if isinstance(error, ExtremalError) and error.__cause__ is not None else error
    try:
        text = " ".join(str(cause).split())
    except Exception:  # an error may be unable to describe itself
        text = ""
    return f"{type(cause).__name__}: {shorten(text, MAX_LINE)}"
