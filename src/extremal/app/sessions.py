"""Sessions of the page: each belongs to the client that opened it, and each client has a bounded number of them."""

import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from extremal.app.clients import Client

if TYPE_CHECKING:
    from gradio import Blocks

MAX_SESSIONS = 1000  # in all
MAX_CLIENT_SESSIONS = 32  # open pages of one client
SESSION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SessionStore(Protocol):
    """State of sessions."""

    def exists(self, session: str) -> bool:
        """Return whether there are, or will be, messages for a session."""

    async def forget(self, session: str) -> None:
        """End the events of a session and drop what is kept for it."""


class GradioSessions:
    """State that gradio keeps for sessions.

    Args:
        page: whose sessions these are.
    """

    def __init__(self, page: "Blocks") -> None:
        self.page = page

    def exists(self, session: str) -> bool:
        """Return whether a session has sent a call."""
        return session in self.page._queue.pending_messages_per_session

    def count_unread(self, session: str) -> int:
        """Return the number of messages that a session has not fetched."""
        messages = self.page._queue.pending_messages_per_session.get(session)
        return 0 if messages is None else messages.qsize()

    async def forget(self, session: str) -> None:
        """End the events of a session, and drop its messages and fields."""
        queue = self.page._queue
        await queue.clean_events(session_hash=session)
        queue.pending_messages_per_session.pop(session, None)
        queue.pending_event_ids_session.pop(session, None)
        states = self.page.state_holder
        states.session_data.pop(session, None)
        states.time_last_used.pop(session, None)


class Sessions:
    """Owners of sessions.

    Args:
        store: of their state.
    """

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self._owners: OrderedDict[str, Client] = OrderedDict()  # the least recently used first

    async def claim(self, session: object, client: Client) -> bool:
        """Return whether a client may use a session; a new one is its own, and replaces an old one if it has many."""
        if not isinstance(session, str) or not SESSION_NAME.fullmatch(session):
            return False
        if not _is_same_visitor(self._owners.get(session, client), client):
            return False
        self._owners[session] = client
        self._owners.move_to_end(session)
        own = [name for name, other in self._owners.items() if other == client]
        removed = own[: max(0, len(own) - MAX_CLIENT_SESSIONS)]
        removed += [name for name in self._owners if name not in removed][: max(0, len(self._owners) - MAX_SESSIONS)]
        for name in removed:
            if self._owners.pop(name, None):
                await self.store.forget(name)
        return True

    def is_open(self, session: str, client: Client) -> bool:
        """Return whether a client has sent calls in a session."""
        owner = self._owners.get(session)
        return owner is not None and _is_same_visitor(owner, client) and self.store.exists(session)


def _is_same_visitor(a: Client, b: Client) -> bool:
    """Return whether both have the same cookie, from any address, or none and the same address."""
    return a.visitor == b.visitor and (a.visitor != "" or a.address == b.address)
