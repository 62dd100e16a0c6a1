"""Limits on requests: size and duration of bodies, calls per second of an address, and length of paths."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from starlette.types import Message, Receive

MAX_ADDRESSES = 4096  # that are remembered
MAX_SEGMENT_BYTES, MAX_PATH_BYTES = 255, 2048  # of a path


class BodyTooLarge(Exception):
    """Stops the app from reading a body that exceeds its limit."""


class BodyTooSlow(Exception):
    """Stops the app from waiting for a body that does not arrive."""


@dataclass
class BodyLimit:
    """Maximum size of the body of one request, and the time in which it must arrive.

    Oversized body, undeclared: the bytes are counted while they arrive, since Content-Length may be absent.
    Slow body: a request that is never completed would keep its connection and its part of a file.
    """

    max_bytes: int
    max_seconds: float = 60.0
    max_pause: float = 15.0  # s between two parts
    exceeded: bool = False
    too_slow: bool = False

    @property
    def is_broken(self) -> bool:
        """Whether the body was too large or too slow."""
        return self.exceeded or self.too_slow

    def rejection(self) -> tuple[int, str]:
        """Return status and message for a body that broke a limit."""
        if self.exceeded:
            return 413, f"a request must have at most {self.max_bytes // 10**6} MB; shrink it first"
        return 408, f"a request must arrive within {self.max_seconds:g} s, without long pauses; send it again"

    def limit(self, receive: Receive) -> Receive:
        """Return a `receive` that raises `BodyTooLarge` or `BodyTooSlow` when a limit is exceeded."""
        n_bytes, deadline, is_complete = 0, time.monotonic() + self.max_seconds, False

        async def receive_within_limit() -> Message:
            nonlocal n_bytes, is_complete
            if is_complete:  # the app waits for the client to leave
                return await receive()
            try:
                pause = min(self.max_pause, deadline - time.monotonic())
                message = await asyncio.wait_for(receive(), max(0.001, pause))
            except TimeoutError:
                self.too_slow = True
                raise BodyTooSlow from None
            n_bytes += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if n_bytes > self.max_bytes:
                self.exceeded = True
                raise BodyTooLarge
            return message

        return receive_within_limit


class RateLimit:
    """Calls of each address per second, on average (a token bucket).

    >>> limit = RateLimit(per_second=1, burst=2)
    >>> [limit.allow("192.0.2.7", now=0.0) for _ in range(3)], limit.allow("192.0.2.8", now=0.0)
    ([True, True, False], True)
    >>> limit.allow("192.0.2.7", now=1.0)
    True

    Args:
        per_second: calls that an address may send again each second.
        burst: calls that it may send at once.
    """

    def __init__(self, per_second: float = 20.0, burst: float = 200.0) -> None:
        self.per_second, self.burst = per_second, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # calls left, and when

    def allow(self, address: str, now: float | None = None) -> bool:
        """Count a call, and return whether it is allowed."""
        now = time.monotonic() if now is None else now
        left, since = self._left.pop(address, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.per_second)
        self._left[address] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > MAX_ADDRESSES:
            self._left.popitem(last=False)
        return left >= 1


def is_possible_path(path: str) -> bool:
    r"""Return whether a path can be a file's: without control characters, and no part longer than file systems allow.

    >>> is_possible_path("/assets/index.js"), is_possible_path("/assets/" + "a" * 300), is_possible_path("/a\0")
    (True, False, False)
    """
    parts = path.encode(errors="replace").split(b"/")
    is_short = sum(map(len, parts)) <= MAX_PATH_BYTES and max(map(len, parts)) <= MAX_SEGMENT_BYTES
    return is_short and path.isprintable()
