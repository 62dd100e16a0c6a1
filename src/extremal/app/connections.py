"""HTTP connections: a bounded number for each address, and a time limit for the head of a request."""

import asyncio
from collections import Counter

from uvicorn.protocols.http.h11_impl import H11Protocol

from extremal.app.clients import shorten_address

MAX_HEAD_SECONDS = 10.0  # in which a connection must send the head of its first request
MAX_CONNECTIONS, MAX_ADDRESS_CONNECTIONS = 1000, 200  # in all, and from one address


class Connections:
    """Open connections of all addresses.

    Args:
        proxy: address whose connections are not counted, since they are those of many visitors; empty: none.
    """

    def __init__(self, proxy: str = "") -> None:
        self.proxy = proxy
        self._counts: Counter[str] = Counter()

    def add(self, address: str) -> bool:
        """Count a connection, and return whether it is allowed."""
        self._counts[address] += 1
        is_many = address != self.proxy and self._counts[address] > MAX_ADDRESS_CONNECTIONS
        return not is_many and self._counts.total() <= MAX_CONNECTIONS

    def remove(self, address: str) -> None:
        """Count the end of a connection."""
        self._counts[address] -= 1
        if self._counts[address] <= 0:
            del self._counts[address]


def build_protocol(connections: Connections) -> type[asyncio.Protocol]:
    """Build uvicorn's protocol class with limits on connections."""

    class LimitedProtocol(H11Protocol):
        """Closes connections that are too many, or that do not send the head of a request in time."""

        _address = ""
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._address = shorten_address(self.client[0] if self.client else "")
            if connections.add(self._address):
                self._wait_for_head()
            else:
                transport.abort()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait_for_head()

        def _wait_for_head(self) -> None:
            """Start the timer if the head of a request is incomplete, and stop it once it is complete."""
            is_waiting = self.cycle is None or self.cycle.response_complete
            if is_waiting and self._head_timer is None:
                self._head_timer = self.loop.call_later(MAX_HEAD_SECONDS, self.transport.abort)
            elif not is_waiting and self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            connections.remove(self._address)
            if self._head_timer is not None:
                self._head_timer.cancel()

        def _unsupported_upgrade_warning(self) -> None:
            """Ignore requests to upgrade; uvicorn would log each."""

    return LimitedProtocol
