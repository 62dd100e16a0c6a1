"""Work through a batch a few inputs at a time: memory grows with the inputs in flight, not with the batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.evidence import Progress
from extremal.explanations.explanation import Explanation
from extremal.explanations.objective import Question, pose
from extremal.explanations.settings import Terms
from extremal.masking.solvers import OnStep, Step
from extremal.networks.network import Network, Run
from extremal.networks.split import Split, split
from extremal.scores.target import Target, listed, looked_at

Answer = TypeVar("Answer", Explanation, ChannelExplanation)


@dataclass(frozen=True)
class Block:
    """Inputs first .. last − 1 of a batch, and where in the whole work they stand."""

    first: int
    last: int
    index: int
    count: int  # of blocks
    rows: int  # of the network that fit into its memory at once

    def part(self, index: int, count: int) -> "Block":
        """One of so many equal parts of this block's work."""
        return replace(self, index=self.index * count + index, count=self.count * count)

    def steps(self, on_step: OnStep | None) -> OnStep | None:
        """Tells of steps as steps of the whole batch."""
        if on_step is None:
            return None

        def tell(step: Step) -> None:
            on_step(replace(step, index=self.index * step.total + step.index, total=self.count * step.total))

        return tell

    def evidence(self, on_evidence: Progress | None) -> Progress | None:
        """Tells of evidence as part of that of the whole batch."""
        if on_evidence is None:
            return None
        return lambda done, total: on_evidence(self.index * total + done, self.count * total)


def in_blocks(
    net: Network,
    x: Tensor,
    target: Target,
    terms: Terms,
    answered: Callable[[Any, Question, Block], Answer],
    layer: str = "",
) -> Answer:
    """Pose the question about each block of the prepared inputs x (N, C, *S), and join the answers.

    Args:
        answered: takes the run, or the `Split` where there is a layer; the question; and the block.
        layer: where the network is split; empty: the question is about the inputs themselves.
    """
    each = listed(target, len(x))
    whole = looked_at(net, target)
    with net.frozen(terms.seed) as run:
        x = x.clone()  # a clone made here may be saved for backward whatever the caller's mode
        rows = run.settle(x, *whole, *([layer] if layer else []))
        spent = run.forwards
        size = min(rows, len(x))
        starts = range(0, len(x), size)
        answers = []
        for index, first in enumerate(starts):
            block = Block(first, min(first + size, len(x)), index, len(starts), rows)
            here = slice(block.first, block.last)
            run.gradients, run.forwards = 0, spent if index == 0 else 0
            asked: Run | Split = run
            part = x[here]
            if layer:
                asked = split(run, layer, part)
                part, block = asked.activations, replace(block, rows=asked.rows())
            question = pose(net, asked, part, target if each is None else each[here], terms)
            answers.append(answered(asked, question, block))
    return joined(answers)


def joined(answers: Sequence[Answer]) -> Answer:
    """Explanations of the same terms for different inputs as one."""
    if len(answers) == 1:
        return answers[0]
    longest = max((answer.trace_step for answer in answers), key=len)
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(answers[0])):
        parts = [getattr(answer, name) for answer in answers]
        if name == "trace_step":
            values[name] = longest
        elif name in ("trace_area", "trace_reward", "trace_grey"):  # a run that ended early has fewer
            padded = [F.pad(part, (0, len(longest) - part.shape[1]), value=torch.nan) for part in parts]
            values[name] = torch.cat(padded)
        elif name in ("within", "units"):
            values[name] = parts[0]
        elif isinstance(parts[0], Tensor):
            values[name] = torch.cat(parts)
        elif name == "alternatives":
            values[name] = tuple(joined(several) for several in zip(*parts, strict=True))
        elif name in ("target", "target_names", "status"):
            values[name] = sum(parts, ())
        else:
            values[name] = parts[0]
    counts = [answer.settings["evaluations"] for answer in answers]
    evaluations = {name: sum(count[name] for count in counts) for name in counts[0]}
    return type(answers[0])(**{**values, "settings": {**values["settings"], "evaluations": evaluations}})
