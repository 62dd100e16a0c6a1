"""Report the progress of a run by its stages."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:  # the command line imports this module, and torch only in commands
    from extremal.explanations.evidence import OnEvidence
    from extremal.masking.solvers import OnStep

OnStage = Callable[[str, int, int], None]  # stage, number of steps or masks done, and of all


class StageCallbacks(TypedDict, total=False):
    """The callbacks of `explain`."""

    on_step: "OnStep"
    on_evidence: "OnEvidence"


def report_stages(on_stage: OnStage | None, part: str = "") -> StageCallbacks:
    """Return the callbacks of `explain` that report its stages; none if `on_stage` is None.

    Args:
        on_stage: called with the stage, and the number of steps or masks done and of all.
        part: of a longer run, written before the stage.
    """
    if on_stage is None:
        return {}
    report, prefix = on_stage, f"{part}, " if part else ""
    return {
        "on_step": lambda step: report(f"{prefix}{step.stage}", step.index + 1, step.total),
        "on_evidence": lambda done, total: report(f"{prefix}evidence", done, total),
    }
