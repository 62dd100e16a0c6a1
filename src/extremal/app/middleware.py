"""The guard at the door: who may come in, what may be asked for, and what a page may load."""

import asyncio
import hmac
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "extremal-token"
ASKED = 2**20  # bytes of a request that is no upload

# What the page needs of gradio's server; whatever else that offers is not there.
OPEN = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json)/?|/(assets|static|svelte|results)/.*"
    r"|/gradio_api/(run/predict|queue/(join|data)|upload|upload_progress|cancel|reset|startup-events|info|app_id|theme\.css"
    r"|heartbeat/\w+|file=(?!\w+:).*)/?"
)
QUESTIONS = ("/gradio_api/queue/join", "/gradio_api/run/predict")
# Inline scripts and styles are how gradio's page is made; the reports' own policies are stricter.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
RESULT_POLICY = "sandbox allow-scripts; frame-ancestors 'self'"
HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


class _TooLarge(Exception):  # ends a request, no more
    pass


class _Refused(Exception):  # with the sentence that is told
    pass


class Guard:
    """Stands before the server of the app.

    Args:
        app: that it guards.
        hosts: names by which the server may be called, without ports; empty: any.
        token: without which nobody comes in, by a cookie or by `?token=` once; empty: everybody does.
        megabytes: that an upload may have.
        uploads: folder of what was uploaded; no question may name a file elsewhere.
    """

    def __init__(self, app: App, *, hosts: frozenset[str], token: str, megabytes: int, uploads: Path) -> None:
        self.app, self.hosts, self.token, self.uploads = app, hosts, token, uploads
        self.most = megabytes * 10**6 + 10**5  # what stands around a file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it here."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal:
            await _answer(send, *refusal)
            return
        if self.token and self._known(_token(scope)):
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(send, 303, "", [(b"location", b"/"), (b"set-cookie", cookie.encode("latin-1"))])
            return
        await self._passed(scope, receive, send)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Why a request is not let in: status and sentence."""
        return self._stranger(scope, headers) or self._unwanted(scope, headers)

    def _stranger(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Why whoever asks is not let in."""
        host = headers.get("host", "")
        if self.hosts and _name(host) not in self.hosts:  # another site's name that leads here
            return 403, f"this app must be called by one of {', '.join(sorted(self.hosts))}, got {host!r}"
        origin = headers.get("origin", "")
        if origin not in ("", "null") and urlsplit(origin).netloc != host:
            return 403, f"this app answers its own pages, got a request from {origin!r}"
        if origin == "null" and scope["method"] != "GET":
            return 403, "this app answers its own pages, got a request from a page without a name"
        if self.token and not (self._known(_token(scope)) or self._known(_cookie(headers.get("cookie", "")))):
            return 401, "this app asks for its token: open the address that it told when it was started"
        return None

    def _unwanted(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Why what is asked is not answered."""
        if not OPEN.fullmatch(scope["path"]):
            return 404, "there is no such page here"
        if _uploads(scope) and "transfer-encoding" in headers:  # of what is cut off, gradio would leave a part
            return 411, "an upload must tell its length; send it with Content-Length"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._allowed(scope):
            return (
                413,
                f"an upload must have at most {self.most // 10**6} MB, got {length} bytes; shrink the photograph",
            )
        return None

    def _known(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())

    def _allowed(self, scope: Scope) -> int:
        return self.most if _uploads(scope) else ASKED

    async def _passed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request to the app, no longer than it may be; the answer with the headers of this house."""
        result = scope["path"].startswith("/results/")
        policy = RESULT_POLICY if result else POLICY
        most, begun = _Most(self._allowed(scope)), False

        async def sending(message: Message) -> None:
            nonlocal begun
            if most.passed and not begun:
                return  # the server's own words for an error; ours follow
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [
                    *message.get("headers", []),
                    *HEADERS,
                    (b"content-security-policy", policy.encode("latin-1")),
                ]
            await send(message)

        try:
            heard = most.counted(receive)
            if scope["path"].startswith(QUESTIONS):
                heard = await _read(heard, self.uploads)
            await self.app(scope, heard, sending)
        except asyncio.CancelledError:  # the server ends while a page listens
            with suppress(Exception):
                await (send({"type": "http.response.body"}) if begun else _answer(send, 503, "this app is being ended"))
        except _Refused as why:
            await _answer(send, 400, str(why))
        except Exception:  # whatever the server made of a request that is cut off
            if not most.passed:
                raise
        if most.passed and not begun:
            await _answer(send, 413, f"a request must have at most {most.bytes // 10**6} MB; shrink it first")


@dataclass
class _Most:
    """How long a request may be, and whether it was longer."""

    bytes: int
    passed: bool = False

    def counted(self, receive: Receive) -> Receive:
        """The same, but it ends where more comes."""
        heard = 0

        async def counting() -> Message:
            nonlocal heard
            message = await receive()
            heard += len(message.get("body", b""))
            if heard > self.bytes:
                self.passed = True
                raise _TooLarge
            return message

        return counting


async def _read(receive: Receive, uploads: Path) -> Receive:
    """A question's body whole, once it is known to name uploaded files only: gradio would fetch or read any other."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return receive
        body += message.get("body", b"")
        more = message.get("more_body", False)
    try:
        foreign = next((path for path in _paths(json.loads(body or b"null")) if not _within(uploads, path)), None)
    except ValueError:
        foreign = None  # gradio tells what is wrong with it
    except RecursionError:
        raise _Refused("a question must not be nested so deeply") from None
    if foreign is not None:
        raise _Refused(f"a file must be uploaded, got {foreign!r}")
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _paths(question: object) -> Iterator[str]:
    """Every path that is named in a question, however deep."""
    left = [question]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(value.get("path"), str):
                yield value["path"]
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _within(folder: Path, path: str) -> bool:
    """Whether this is the path of a file in a folder, whatever dots and links it has."""
    if "://" in path:
        return False
    try:
        return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents
    except ValueError:  # e.g. a zero byte
        return False


def _uploads(scope: Scope) -> bool:
    return bool(scope["path"].rstrip("/") == "/gradio_api/upload")


def _name(host: str) -> str:
    """A host without its port.

    >>> _name("localhost:7860"), _name("[::1]:7860"), _name("::1")
    ('localhost', '[::1]', '::1')
    """
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d+)?", host)
    return (found[1] if found else host).lower()


def _token(scope: Scope) -> str:
    """What a request's address gives as the token; empty: nothing."""
    given: str = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
    return given


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


async def _answer(send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    kind = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": [*kind, *(headers or [])]})
    await send({"type": "http.response.body", "body": text.encode()})
