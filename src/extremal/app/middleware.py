"""ASGI middleware: host, origin and token checks, limits on requests, and a content security policy."""

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
Rejection = tuple[int, str]  # status and message

TOKEN_COOKIE = "extremal-token"
MAX_REQUEST_BYTES = 2**20  # of a request that is not an upload

# The only paths that are served: those that the page needs, no other endpoint of gradio.
ALLOWED_PATHS = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json)/?|/(assets|static|svelte|results)/.*"
    r"|/gradio_api/(run/predict|queue/(join|data)|upload|upload_progress|cancel|reset|startup-events|info|app_id|theme\.css"
    r"|heartbeat/\w+|file=(?!\w+:).*)/?"
)
UPLOAD_PATH = "/gradio_api/upload"
CALL_PATHS = ("/gradio_api/queue/join", "/gradio_api/run/predict")  # call a function of the page

# Script injection and clickjacking: nothing is loaded from other hosts, and no other site may frame the page.
# Gradio's page needs inline scripts and styles; the policies inside the reports are stricter.
PAGE_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
# Script injection by a report: it runs in a sandbox without an origin, and cannot call the app.
RESULT_POLICY = "sandbox allow-scripts; frame-ancestors 'self'"
# Content sniffing, and leaks of the addresses of results to other sites.
SECURITY_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


class _BodyTooLarge(Exception):
    """Stops the app from reading a body that exceeds its limit."""


class _Rejected(Exception):
    """Rejects a request; its text is the message of the response."""


class AccessMiddleware:
    """Checks each request before it reaches the app, and adds security headers to each response.

    Args:
        app: application to protect.
        hosts: host names, without ports, under which the server may be called; empty: any.
        token: secret that each caller must present, as a cookie or once as `?token=`; empty: none.
        max_upload_mb: maximum size of an upload, in MB.
        uploads: folder of uploaded files; calls may refer to files in this folder only.
    """

    def __init__(self, app: App, *, hosts: frozenset[str], token: str, max_upload_mb: int, uploads: Path) -> None:
        self.app, self.hosts, self.token, self.uploads = app, hosts, token, uploads
        self.max_upload_bytes = max_upload_mb * 10**6 + 10**5  # the form around the file needs some bytes, too

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request, exchange a token for a cookie, or forward the request to the app."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":  # the page uses no websockets: do not serve any
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        rejection = self._check_caller(scope, headers) or self._check_request(scope, headers)
        if rejection:
            await _respond(send, *rejection)
        elif self.token and self._token_matches(_query_token(scope)):
            # Token leak: move the token from the address, which logs and histories keep, to a cookie that neither
            # scripts nor other sites can use.
            cookie = f"{TOKEN_COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            await _respond(send, 303, "", [(b"location", b"/"), (b"set-cookie", cookie.encode("latin-1"))])
        else:
            await self._forward(scope, receive, send)

    def _check_caller(self, scope: Scope, headers: dict[str, str]) -> Rejection | None:
        """Check who calls: by which host name, from which page, and with which token."""
        # DNS rebinding: a foreign domain that resolves to this machine would share an origin with the app.
        host = headers.get("host", "")
        if self.hosts and _host_name(host) not in self.hosts:
            return 403, f"this app must be called by one of {', '.join(sorted(self.hosts))}, got {host!r}"
        # CSRF: pages of other sites must not send requests to the app.
        origin = headers.get("origin", "")
        if origin not in ("", "null") and urlsplit(origin).netloc != host:
            return 403, f"this app answers requests from its own pages only, got one from {origin!r}"
        # CSRF from a sandboxed or local page: those have the origin "null", as the reports have, which only read.
        if origin == "null" and scope["method"] != "GET":
            return 403, "this app answers requests from its own pages only, got one from a page without an origin"
        # Unauthorised access: the token must be known to the caller.
        query_token, cookie_token = _query_token(scope), _cookie_token(headers.get("cookie", ""))
        if self.token and not (self._token_matches(query_token) or self._token_matches(cookie_token)):
            return 401, "this app requires a token; open the address that was printed when the app was started"
        return None

    def _check_request(self, scope: Scope, headers: dict[str, str]) -> Rejection | None:
        """Check what is requested: a path that is served, with a body of acceptable size."""
        # Attack surface: gradio has endpoints, e.g. a proxy, that the page does not need.
        if not ALLOWED_PATHS.fullmatch(scope["path"]):
            return 404, "this page does not exist"
        # Disk exhaustion: gradio keeps the part of a chunked upload that it had received when it was cut off.
        if _is_upload(scope) and "transfer-encoding" in headers:
            return 411, "an upload must declare its length; send it with Content-Length"
        # Oversized body, declared: reject it before it is read.
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_bytes(scope):
            limit = self.max_upload_bytes // 10**6
            return 413, f"an upload must have at most {limit} MB, got {length} bytes; shrink the image"
        return None

    def _token_matches(self, token: str) -> bool:
        # Timing attack: compare in constant time.
        return hmac.compare_digest(token.encode(), self.token.encode())

    def _max_bytes(self, scope: Scope) -> int:
        return self.max_upload_bytes if _is_upload(scope) else MAX_REQUEST_BYTES

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request to the app, its body limited, and the response with security headers."""
        policy = RESULT_POLICY if scope["path"].startswith("/results/") else PAGE_POLICY
        limit, started = _BodyLimit(self._max_bytes(scope)), False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if limit.exceeded and not started:
                return  # drop the app's own error response; the middleware's follows
            if message["type"] == "http.response.start":
                started = True
                security_headers = [*SECURITY_HEADERS, (b"content-security-policy", policy.encode("latin-1"))]
                message["headers"] = [*message.get("headers", []), *security_headers]
            await send(message)

        try:
            limited_receive = limit.limit(receive)
            if scope["path"].startswith(CALL_PATHS):
                limited_receive = await _read_and_check_paths(limited_receive, self.uploads)
            await self.app(scope, limited_receive, send_with_headers)
        except asyncio.CancelledError:  # the server shuts down while a page is connected
            with suppress(Exception):
                await _end_response(send, started)
        except _Rejected as rejected:
            await _respond(send, 400, str(rejected))
        except Exception:  # the app may wrap _BodyTooLarge in an exception of its own
            if not limit.exceeded:
                raise
        if limit.exceeded and not started:
            await _respond(send, 413, f"a request must have at most {limit.max_bytes // 10**6} MB; shrink it first")


@dataclass
class _BodyLimit:
    """Maximum size of the body of one request.

    Oversized body, undeclared: the bytes are counted while they arrive, since Content-Length may be absent.
    """

    max_bytes: int
    exceeded: bool = False

    def limit(self, receive: Receive) -> Receive:
        """Return a `receive` that raises `_BodyTooLarge` when the limit is exceeded."""
        n_bytes = 0

        async def receive_within_limit() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self.max_bytes:
                self.exceeded = True
                raise _BodyTooLarge
            return message

        return receive_within_limit


async def _read_and_check_paths(receive: Receive, uploads: Path) -> Receive:
    """Read the body of a call, check the files that it refers to, and return a `receive` that replays it.

    Raises:
        _Rejected: the call refers to a file that was not uploaded, or cannot be checked.
    """
    body, more_body = b"", True
    while more_body:
        message = await receive()
        if message["type"] != "http.request":
            return receive
        body += message.get("body", b"")
        more_body = message.get("more_body", False)
    try:
        paths = list(_file_paths(json.loads(body or b"null")))
    except ValueError:
        paths = []  # not JSON: gradio rejects it
    except RecursionError:
        # Parser exhaustion: a body that is nested too deeply to be checked.
        raise _Rejected("a call must not be nested so deeply") from None
    # Path traversal and server-side request forgery: gradio would read local files, and fetch URLs.
    foreign_path = next((path for path in paths if not _is_inside(uploads, path)), None)
    if foreign_path is not None:
        raise _Rejected(f"a file must be uploaded, got {foreign_path!r}")
    replayed = False

    async def replay() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _file_paths(call: object) -> Iterator[str]:
    """Yield each value of a key `path` in the JSON of a call, at any depth."""
    pending = [call]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if isinstance(value.get("path"), str):
                yield value["path"]
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


def _is_upload(scope: Scope) -> bool:
    return bool(scope["path"].rstrip("/") == UPLOAD_PATH)


def _host_name(host: str) -> str:
    """Return a host without its port.

    >>> _host_name("localhost:7860"), _host_name("[::1]:7860"), _host_name("::1")
    ('localhost', '[::1]', '::1')
    """
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d+)?", host)
    return (match[1] if match else host).lower()


def _query_token(scope: Scope) -> str:
    """Return the token in the address of a request, or an empty text."""
    token: str = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
    return token


def _cookie_token(header: str) -> str:
    """Return the token in a Cookie header, or an empty text."""
    try:
        cookie = SimpleCookie(header).get(TOKEN_COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


async def _respond(send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Send a response of plain text."""
    content_type = (b"content-type", b"text/plain; charset=utf-8")
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [content_type, *SECURITY_HEADERS, *(headers or [])],
    }
    await send(start)
    await send({"type": "http.response.body", "body": text.encode()})


async def _end_response(send: Send, started: bool) -> None:
    """Complete a response that is interrupted by the shutdown of the server."""
    if started:
        await send({"type": "http.response.body"})
    else:
        await _respond(send, 503, "this app is shutting down")
