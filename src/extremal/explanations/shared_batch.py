"""Share the inputs of a batch among devices: a part for each, explained by a thread of its own."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from torch import nn

from extremal.explanations.evidence import OnEvidence
from extremal.explanations.preparation import PreparedRun
from extremal.masking.solvers import OnStep, Step
from extremal.networks.devices import AUTO
from extremal.networks.network import Network
from extremal.networks.replicas import CheckStop, Devices, find_devices, find_shared_devices, replicate, share_work
from extremal.scores.class_query import ClassQuery
from extremal.scores.target import select_inputs

R = TypeVar("R")
ExplainPart = Callable[[PreparedRun, OnStep | None, OnEvidence | None], R]


def share_batch(
    prepared: PreparedRun, network: Network | nn.Module | str, devices: Devices | None
) -> list[PreparedRun]:
    """Return a part of a batch for each device: consecutive inputs with a copy of the network.

    Args:
        prepared: the whole batch.
        network: as the user passed it.
        devices: that share the batch; None: all of the fastest kind for a network passed by its name that is asked
            about classes (other targets may hold tensors of one device), else the network's own.

    Raises:
        ExtremalValueError, ExtremalTypeError: there is no such device, or the network cannot be copied to it.
    """
    if devices is not None:
        names = find_devices(devices)
    elif isinstance(network, str) and isinstance(prepared.query, ClassQuery):
        names = find_shared_devices(prepared.net, AUTO)
    else:
        return [prepared]
    count = len(prepared.x)
    names = names[:count] or names
    networks = replicate(prepared.net, names)
    if networks == [prepared.net]:
        return [prepared]
    provenance = {**prepared.provenance, "device": ", ".join(names)}
    bounds = [count * number // len(names) for number in range(len(names) + 1)]
    parts = []
    for net, first, last in zip(networks, bounds, bounds[1:], strict=False):
        inputs = slice(first, last)
        query = select_inputs(prepared.query, inputs)
        x = prepared.x[inputs].to(net.anchor.device)
        parts.append(replace(prepared, net=net, x=x, query=query, provenance=provenance))
    return parts


def explain_parts(
    parts: list[PreparedRun], explain_part: ExplainPart[R], on_step: OnStep | None, on_evidence: OnEvidence | None
) -> list[R]:
    """Explain all parts at once, and return their results in order.

    Raises:
        Exception: the first that a part raised; the others end at their next step.
    """
    if len(parts) == 1:
        return [explain_part(parts[0], on_step, on_evidence)]
    progress = _JointProgress(len(parts), on_step, on_evidence)

    def explain_numbered(_: int, task: tuple[int, PreparedRun], check_stop: CheckStop) -> R:
        number, part = task
        return explain_part(part, *progress.callbacks(number, check_stop))

    found = dict(share_work(range(len(parts)), list(enumerate(parts)), explain_numbered))
    return [found[number] for number in range(len(parts))]


class _JointProgress:
    """Reports the progress of several parts as that of the whole batch, from one thread at a time."""

    def __init__(self, count: int, on_step: OnStep | None, on_evidence: OnEvidence | None) -> None:
        self._on_step, self._on_evidence = on_step, on_evidence
        self._lock, self._steps, self._masks = threading.Lock(), [0.0] * count, [0.0] * count

    def callbacks(self, number: int, check_stop: CheckStop) -> tuple[OnStep, OnEvidence]:
        """Return the callbacks of one part, which end it if the work is to stop."""

        def report_step(step: Step) -> None:
            check_stop()
            if self._on_step is not None:
                with self._lock:
                    self._steps[number] = (step.index + 1) / step.total
                    done, total = _add_up(self._steps, step.total)
                    self._on_step(replace(step, index=done - 1, total=total))

        def report_evidence(done: int, total: int) -> None:
            check_stop()
            if self._on_evidence is not None:
                with self._lock:
                    self._masks[number] = done / total
                    self._on_evidence(*_add_up(self._masks, total))

        return report_step, report_evidence


def _add_up(shares: list[float], total: int) -> tuple[int, int]:
    """Return the steps done of the whole, and all steps, if each part has `total`.

    >>> _add_up([0.5, 0.25], 8)
    (6, 16)
    """
    return max(1, round(total * sum(shares))), total * len(shares)
