"""Divide a batch into parts that fit the network's memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from extremal.explanations.evidence import OnEvidence
from extremal.masking.solvers import OnStep, Step
from extremal.networks.run import Run


@dataclass(frozen=True)
class Batch:
    """Inputs that are explained together, and their place in the whole work."""

    inputs: slice  # of the prepared inputs (N, C, *S)
    index: int
    count: int  # of batches
    max_rows: int  # of the network that fit into its memory at once

    def subdivide(self, index: int, count: int) -> "Batch":
        """Return one of `count` equal parts of this batch's work."""
        return replace(self, index=self.index * count + index, count=self.count * count)

    @property
    def size(self) -> int:
        """Number of inputs."""
        return int(self.inputs.stop - self.inputs.start)

    def halve(self) -> list["Batch"]:
        """Return two batches of half the inputs each."""
        middle = self.inputs.start + -(-self.size // 2)
        parts = slice(self.inputs.start, middle), slice(middle, self.inputs.stop)
        return [replace(self.subdivide(index, 2), inputs=part) for index, part in enumerate(parts)]

    def report_steps(self, on_step: OnStep | None) -> OnStep | None:
        """Return a callback that reports steps as steps of the whole work."""
        if on_step is None:
            return None

        def report(step: Step) -> None:
            on_step(replace(step, index=self.index * step.total + step.index, total=self.count * step.total))

        return report

    def report_evidence(self, on_evidence: OnEvidence | None) -> OnEvidence | None:
        """Return a callback that reports evidence as part of that of the whole work."""
        if on_evidence is None:
            return None
        return lambda done, total: on_evidence(self.index * total + done, self.count * total)


def plan_batches(run: Run, x: Tensor, keep: Sequence[str] = ()) -> list[Batch]:
    """Accelerate a frozen network for inputs x (N, C, *S), and divide them into batches that fit its memory.

    Args:
        run: the frozen network.
        x: prepared inputs.
        keep: names of layers whose output must stay unmodified.
    """
    run.accelerate(x, keep)
    max_rows = run.max_batch_size(x)
    size = min(max_rows, len(x))
    starts = range(0, len(x), size)
    return [
        Batch(slice(first, min(first + size, len(x))), index, len(starts), max_rows)
        for index, first in enumerate(starts)
    ]
