"""What a check found, and all that was found together."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  # worth knowing; explanations can be made
    PROBLEM = "problem"  # explanations cannot be made, or would be worth nothing


@dataclass(frozen=True)
class Finding:
    """What one check measured."""

    name: str  # what should be so
    level: Level
    measured: str
    remedy: str = ""  # what to do; empty where all is right

    @property
    def ok(self) -> bool:
        """Whether all is right."""
        return self.level is Level.OK


@dataclass(frozen=True)
class Findings:
    """All that was found about a network, an input and a question."""

    network: str
    target: str  # what was asked about; empty where it did not come to that
    findings: tuple[Finding, ...]  # in the order of the checks
    skipped: tuple[str, ...]  # names of the checks that a problem made pointless

    @property
    def ok(self) -> bool:
        """Whether there is no problem; there may be warnings."""
        return not any(finding.level is Level.PROBLEM for finding in self.findings)

    @property
    def issues(self) -> tuple[Finding, ...]:
        """The problems and warnings."""
        return tuple(finding for finding in self.findings if not finding.ok)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        findings = [{**asdict(finding), "ok": finding.ok} for finding in self.findings]
        return {**asdict(self), "findings": findings, "ok": self.ok}


def one_line(error: Exception) -> str:
    """An exception on one line.

    >>> one_line(ValueError("two\\n lines"))
    'ValueError: two lines'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
