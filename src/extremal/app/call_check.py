"""Calls of the page: the body is read and checked before gradio sees it."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from starlette.types import Message, Receive, Scope

from extremal.app.clients import SCOPE_KEY, Client
from extremal.app.path_alias import PathAlias
from extremal.app.sessions import Sessions

CANCEL_PATH = "/gradio_api/cancel"
CALL_PATHS = ("/gradio_api/queue/join", "/gradio_api/run/predict")  # call a function of the page
MAX_TEXT = 2000  # characters of a value

InputKind = Literal["file", "value"] | int  # of a value of an event; a number: one of so many examples
Events = dict[int, tuple[InputKind, ...]]  # of the page, by number


class Rejected(Exception):
    """Rejects a request; its text is the message of the response."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class CallCheck:
    """Checks calls: their files, events and sessions.

    Args:
        uploads: folder of uploaded files; calls may refer to files in this folder only.
        sessions: their owners; None: sessions are not checked.
        events: of the page; None: they are not checked.
    """

    def __init__(self, uploads: Path, sessions: Sessions | None, events: Events | None) -> None:
        self.uploads, self.alias, self.sessions, self.events = uploads, PathAlias(uploads), sessions, events

    async def read(self, scope: Scope, receive: Receive) -> Receive:
        """Read the body of a call, check it, and return a `receive` that replays it; other requests are not read.

        Raises:
            Rejected: the call refers to a file that was not uploaded, is not one of the page, or cannot be checked.
        """
        is_call = scope["path"].startswith(CALL_PATHS)
        if not is_call and not scope["path"].startswith(CANCEL_PATH):
            return receive
        body = await _read_body(receive)
        if body is None:
            return receive
        try:
            call = json.loads(body or b"null")
        except ValueError:
            if self.events is not None:
                raise Rejected("a call must be JSON; reload the page") from None
            return _replay(body, receive)
        except RecursionError:
            # Parser exhaustion: a body that is nested too deeply to be checked.
            raise Rejected("a call must not be nested so deeply") from None
        changed = self._translate_paths(call)
        await self._check_session(call, scope[SCOPE_KEY])
        if self.events is not None:
            call, changed = (clean_call(call, self.events) if is_call else clean_cancellation(call)), True
        if changed:
            body = json.dumps(call).encode()
            scope["headers"] = [
                (name, str(len(body)).encode() if name == b"content-length" else value)
                for name, value in scope["headers"]
            ]
        return _replay(body, receive)

    def _translate_paths(self, call: object) -> bool:
        """Replace the aliases of files by their paths, and return whether there are any.

        Path traversal and server-side request forgery: gradio would read local files, and fetch URLs.

        Raises:
            Rejected: a file was not uploaded.
        """
        changed = False
        for value in list(_find_file_values(call)):
            real = self.alias.to_real(value["path"])
            if not _is_inside(self.uploads, real):
                raise Rejected(f"a file must be uploaded, got {value['path']!r}")
            changed = changed or real != value["path"]
            value["path"] = real
        return changed

    async def _check_session(self, call: object, client: Client) -> None:
        session = call.get("session_hash") if isinstance(call, dict) else None
        if self.sessions is not None and not await self.sessions.claim(session, client):
            raise Rejected("this session belongs to another visitor; reload the page", 403)


async def _read_body(receive: Receive) -> bytes | None:
    """Read a body to its end; None if the client leaves before."""
    body, more_body = b"", True
    while more_body:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        more_body = message.get("more_body", False)
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that returns a body that was read already, and then what follows."""
    replayed = False

    async def replay() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _find_file_values(call: object) -> Iterator[dict[str, Any]]:
    """Yield each object with a key `path` in the JSON of a call, at any depth."""
    pending = [call]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if isinstance(value.get("path"), str):
                yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _is_inside(folder: Path, path: str) -> bool:
    """Return whether a path, with its `..` and symbolic links resolved, lies inside a folder."""
    if "://" in path:
        return False
    try:
        return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents
    except ValueError:  # e.g. a null byte
        return False


def clean_call(call: object, events: Events) -> dict[str, Any]:
    """Return the parts of a call that the page uses.

    >>> clean_call({"fn_index": 3, "data": ["a", 1], "session_hash": "x1", "batched": True}, {3: ("value", "value")})
    {'fn_index': 3, 'data': ['a', 1], 'session_hash': 'x1', 'trigger_id': None, 'event_data': None}

    Args:
        call: the parsed body.
        events: of the page.

    Raises:
        Rejected: the event is not one of the page, or has other values.
    """
    if not isinstance(call, dict):
        raise Rejected("a call must be a JSON object; reload the page")
    event, data, trigger = call.get("fn_index"), call.get("data"), call.get("trigger_id")
    if not isinstance(event, int) or isinstance(event, bool) or event not in events:
        raise Rejected("a call must name an event of the page; reload the page")
    kinds = events[event]
    if not isinstance(data, list) or len(data) != len(kinds):
        raise Rejected(f"a call of this event must have {len(kinds)} values; reload the page")
    return {
        "fn_index": event,
        "data": [_clean_value(value, kind) for value, kind in zip(data, kinds, strict=True)],
        "session_hash": call.get("session_hash"),
        "trigger_id": trigger if isinstance(trigger, int) and _is_plain(trigger) else None,
        "event_data": None,
    }


def clean_cancellation(call: object) -> dict[str, Any]:
    """Return the parts of a cancellation of an event.

    Raises:
        Rejected: it does not name an event.
    """
    session, event, number = (
        (call.get("session_hash"), call.get("event_id"), call.get("fn_index")) if isinstance(call, dict) else [None] * 3
    )
    if not isinstance(event, str) or not isinstance(number, int) or not (_is_plain(event) and _is_plain(number)):
        raise Rejected("a cancellation must name an event; reload the page")
    return {"session_hash": session, "event_id": event, "fn_index": number}


def _clean_value(value: Any, kind: InputKind) -> Any:
    """Return a value of an event, of a file only its path.

    Raises:
        Rejected: the value is of another kind.
    """
    if isinstance(kind, int):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < kind:
            raise Rejected(f"an example must lie in 0..{kind - 1}; reload the page")
        return value
    if value is None:
        return None
    if kind == "file":
        if not isinstance(value, dict) or not isinstance(value.get("path"), str) or not _is_plain(value["path"]):
            raise Rejected("a value of this call must be an uploaded file; reload the page")
        return {"path": value["path"], "meta": {"_type": "gradio.FileData"}}
    if not _is_plain(value):
        raise Rejected(
            f"a value of this call must be a number, or a text of at most {MAX_TEXT} characters, got another"
        )
    return value


def _is_plain(value: object) -> bool:
    """Return whether a value is a number or a text of bounded size, which can be written as UTF-8."""
    if isinstance(value, int):
        return abs(value) < 2**63
    if isinstance(value, str):
        return len(value) <= MAX_TEXT and not any("\ud800" <= letter <= "\udfff" for letter in value)
    return isinstance(value, float) and math.isfinite(value)
