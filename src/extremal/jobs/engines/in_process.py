"""The engine of a single process: the calling one."""

import queue
import threading
from collections.abc import Iterator, Sequence

from extremal.jobs.plan import WorkUnit
from extremal.jobs.rows import Row, build_failed_row
from extremal.jobs.stop import StopNow, StopRequest
from extremal.jobs.worker import DecodedItem, Worker, WorkerConfig, describe_failure

PREFETCH = 2  # units of a worker of any engine: one that it explains, one that it decodes
MIN_LOAD_TIMEOUT = 600.0  # s in which it must have loaded its network, if units have a time limit
POLL_INTERVAL = 0.2  # s between checks whether to stop, and for units that take too long

Results = Iterator[tuple[WorkUnit, list[Row]]]
Decoded = list[DecodedItem] | BaseException  # or why a unit cannot be decoded


def run_in_process(worker: Worker, units: Sequence[WorkUnit], stop: StopRequest) -> Results:
    """Run units in this process; the next one is decoded in another thread.

    Args:
        worker: that explains.
        units: in order.
        stop: once it is set, no further unit is started; once it is urgent, the current one is given up.
    """
    following = [_decode_later(worker, unit) for unit in units[:1]]
    for index, unit in enumerate(units):
        if stop.is_set():
            return
        try:
            with stop.interruptible():
                decoded = following.pop().get()
                following += [_decode_later(worker, unit) for unit in units[index + 1 : index + 2]]
                rows = explain_decoded(worker, unit, decoded)
        except StopNow:
            return
        yield unit, rows


def load_worker(config: WorkerConfig, number: int = 0) -> Worker | str:
    """Return a worker with its network, or why there is none, in one line of text.

    Args:
        config: of the run.
        number: of the worker, which decides its device.
    """
    try:
        return Worker(config, number=number)
    except BaseException as error:
        return describe_failure(error, f"loading {config.network}")


def decode_unit(worker: Worker, unit: WorkUnit) -> Decoded:
    """Return the decoded items of a unit, or the error that would end the thread unheard."""
    try:
        return worker.prepare(unit.items)
    except BaseException as error:
        return error


def _decode_later(worker: Worker, unit: WorkUnit) -> "queue.SimpleQueue[Decoded]":
    """Decode a unit in another thread, which does not keep the process alive; return where the result will be."""
    result: queue.SimpleQueue[Decoded] = queue.SimpleQueue()

    def decode() -> None:
        result.put(decode_unit(worker, unit))

    threading.Thread(target=decode, name="extremal-decode", daemon=True).start()
    return result


def explain_decoded(worker: Worker, unit: WorkUnit, decoded: Decoded) -> list[Row]:
    """Return the rows of a unit."""
    if isinstance(decoded, BaseException):
        error = describe_failure(decoded, "reading images")
        return [build_failed_row(item.key, item.path, None, error, 0.0) for item in unit.items]
    return worker.explain(decoded)
