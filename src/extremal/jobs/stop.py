"""Stop a run on signals: first after the units in progress, then at once."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRACE = 2.5  # s for units in progress; a signal must end a run within five, with the time to end its workers
RAY_GRACE = 1.0  # s; ending a cluster takes longer
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_HANGUP = getattr(signal, "SIGHUP", None)


class StopNow(KeyboardInterrupt):
    """Ends what the main thread waits for, so that a run can end at once."""


class StopRequest:
    """A request that a run stops.

    >>> stop = StopRequest(grace=60)
    >>> stop.set()
    >>> stop.is_set(), stop.is_urgent()
    (True, False)
    >>> stop.hurry()
    >>> stop.is_urgent()
    True

    Args:
        grace: seconds in which units in progress are finished.
    """

    def __init__(self, grace: float = GRACE) -> None:
        self.grace = grace
        self.is_interruptible = False  # whether the main thread waits for something
        self._event, self._deadline = threading.Event(), float("inf")

    def set(self) -> None:
        """Start no further unit; finish those in progress until the grace is over."""
        if not self._event.is_set():
            self._deadline = time.monotonic() + self.grace
            self._event.set()

    def hurry(self) -> None:
        """Finish nothing any more."""
        self._deadline = 0.0
        self._event.set()

    def is_set(self) -> bool:
        """Return whether no further unit is to be started."""
        return self._event.is_set()

    def is_urgent(self) -> bool:
        """Return whether units in progress are to be given up; they are run again on resuming."""
        return time.monotonic() >= self._deadline

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let signals raise `StopNow` in this block, once the request is urgent; for waits that cannot check."""
        self.is_interruptible = True
        try:
            if self.is_urgent():
                raise StopNow
            yield
        finally:
            self.is_interruptible = False

    def interrupt(self) -> None:
        """Raise `StopNow` if the request is urgent and the main thread is in an interruptible block."""
        if self.is_interruptible and self.is_urgent():
            self.is_interruptible = False
            raise StopNow


@contextmanager
def stop_on_signals(grace: float = GRACE) -> Iterator[StopRequest]:
    """Yield a request that is set by the first signal, and urgent after the second or after the grace.

    Signals are SIGINT, SIGTERM, and SIGHUP unless it is ignored, as under nohup. In another thread than the main one,
    which alone receives signals, the request is never set.
    """
    stop, ended, lock = StopRequest(grace), threading.Event(), threading.Lock()
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield stop
        return

    def remind(number: int) -> None:
        while not ended.wait(max(0.2, stop.grace)):  # again, in case that code of others catches everything
            stop.hurry()
            with lock:  # not after the handlers are restored, here or by Ray when it ends
                if main.ident is not None and stop.is_interruptible and not ended.is_set():
                    signal.pthread_kill(main.ident, number)

    def handle(number: int, _: Any) -> None:
        if stop.is_set():
            stop.hurry()
        else:
            stop.set()
            threading.Thread(target=remind, args=(number,), name="extremal-stop", daemon=True).start()
        stop.interrupt()

    numbers = [number for number in SIGNALS if number != _HANGUP or signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        with lock:
            ended.set()
        for number, handler in previous.items():
            signal.signal(number, handler)
