"""ASGI middleware: host, origin and token checks, limits on requests, and a content security policy."""

import asyncio
import hmac
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from extremal.app.call_check import CallCheck, Events, Rejected
from extremal.app.clients import SCOPE_KEY, Client, Clients, read_cookie
from extremal.app.path_alias import PathAlias
from extremal.app.request_limits import (
    BodyLimit,
    BodyTooLarge,
    BodyTooSlow,
    RateLimit,
    is_possible_path,
)
from extremal.app.sessions import Sessions

Rejection = tuple[int, str]  # status and message

TOKEN_COOKIE = "extremal-token"
MAX_REQUEST_BYTES = 2**20  # of a request that is not an upload
MAX_UPLOAD_SECONDS, MAX_REQUEST_SECONDS, MAX_DRAIN_SECONDS = 300.0, 30.0, 5.0  # in which a body must arrive

# The only paths that are served: those that the page needs, no other endpoint of gradio.
ALLOWED_PATHS = re.compile(
    r"/|/(config|search|theme\.css|favicon\.ico|robots\.txt|manifest\.json)/?|/(assets|static|svelte|results)/.*"
    r"|/gradio_api/(run/predict|queue/(join|data)|upload|upload_progress|cancel|reset|startup-events|info|app_id|theme\.css"
    r"|heartbeat/\w+|file=(?!\w+:).*)/?"
)
UPLOAD_PATH, DATA_PATH, SEARCH_PATH = "/gradio_api/upload", "/gradio_api/queue/data", "/search"
FILE_PREFIX, HEARTBEAT_PREFIX = "/gradio_api/file=", "/gradio_api/heartbeat/"
METHODS = ("GET", "HEAD", "POST")
# Host and scheme injection, spoofed addresses: only headers that the app needs are passed on, none that a proxy sets.
PASSED_HEADERS = re.compile(
    "host|content-(type|length)|accept(-encoding|-language)?|range|if-(range|none-match|modified-since)|cache-control|"
    "origin|user-agent|connection|last-event-id"
)

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


class AccessMiddleware:
    """Checks each request before it reaches the app, and adds security headers to each response.

    Args:
        app: application to protect.
        hosts: host names, without ports, under which the server may be called; empty: any.
        token: secret that each caller must present, as a cookie or once as `?token=`; empty: none.
        max_upload_mb: maximum size of an upload, in MB.
        uploads: folder of uploaded files; calls may refer to files in this folder only.
        clients: identifies who sends a request.
        sessions: their owners; None: sessions are not checked.
        events: of the page; None: they are not checked.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: frozenset[str],
        token: str,
        max_upload_mb: int,
        uploads: Path,
        clients: Clients | None = None,
        sessions: Sessions | None = None,
        events: Events | None = None,
    ) -> None:
        self.app, self.hosts, self.token = app, hosts, token
        self.clients, self.sessions = clients or Clients(), sessions
        self.calls, self.alias, self.rate = CallCheck(uploads, sessions, events), PathAlias(uploads), RateLimit()
        self.max_upload_bytes = max_upload_mb * 10**6 + 10**5  # the form around the file needs some bytes, too

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request, exchange a token for a cookie, or forward the request to the app."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":  # the page uses no websockets: do not serve any
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        client = self.clients.identify(scope, headers)
        rejection = (
            self._check_caller(scope, headers)
            or self._check_request(scope, headers)
            or await self._check_client(scope, client)
        )
        if rejection:
            await _drain(scope, headers, receive)
            await _respond(send, *rejection)
        elif self.token and self._token_matches(_query_token(scope)):
            # Token leak: move the token from the address, which logs and histories keep, to a cookie that neither
            # scripts nor other sites can use.
            cookie = f"{TOKEN_COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            await _respond(send, 303, "", [(b"location", b"/"), (b"set-cookie", cookie.encode("latin-1"))])
        else:
            await self._forward(self._clean_scope(scope, headers, client), receive, send)

    def _check_caller(self, scope: Scope, headers: dict[str, str]) -> Rejection | None:
        """Check who calls: by which host name, from which page, and with which token."""
        # DNS rebinding: a foreign domain that resolves to this machine would share an origin with the app.
        host = headers.get("host", "")
        if self.hosts and _host_name(host) not in self.hosts:
            return 403, f"this app must be called by one of {', '.join(sorted(self.hosts))}, got {host!r}"
        # CSRF: pages of other sites must not send requests to the app.
        origin = headers.get("origin", "")
        if origin not in ("", "null") and _origin_host(origin) != host:
            return 403, f"this app answers requests from its own pages only, got one from {origin!r}"
        # CSRF from a sandboxed or local page: those have the origin "null", as the reports have, which only read.
        if origin == "null" and scope["method"] != "GET":
            return 403, "this app answers requests from its own pages only, got one from a page without an origin"
        # Unauthorised access: the token must be known to the caller.
        query_token, cookie_token = _query_token(scope), read_cookie(headers.get("cookie", ""), TOKEN_COOKIE)
        if self.token and not (self._token_matches(query_token) or self._token_matches(cookie_token)):
            return 401, "this app requires a token; open the address that was printed when the app was started"
        return None

    def _check_request(self, scope: Scope, headers: dict[str, str]) -> Rejection | None:
        """Check what is requested: a path that is served, with a body of acceptable size."""
        # Attack surface: gradio has endpoints, e.g. a proxy, that the page does not need.
        if not ALLOWED_PATHS.fullmatch(scope["path"]) or not is_possible_path(scope["path"]):
            return 404, "this page does not exist"
        if scope["method"] not in METHODS:
            return 405, f"this app answers {', '.join(METHODS)} only"
        # Disk exhaustion: gradio keeps the part of a chunked upload that it had received when it was cut off.
        if _is_upload(scope) and "transfer-encoding" in headers:
            return 411, "an upload must declare its length; send it with Content-Length"
        # Oversized body, declared: reject it before it is read.
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self._max_bytes(scope):
            limit = self.max_upload_bytes // 10**6
            return 413, f"an upload must have at most {limit} MB, got {length[:30]} bytes; shrink the image"
        return None

    async def _check_client(self, scope: Scope, client: Client) -> Rejection | None:
        """Check how often a client calls, and that a session is its own."""
        is_counted = scope["method"] == "POST" or scope["path"] == SEARCH_PATH
        if is_counted and not self.rate.allow(client.address):
            return 429, "this address sends too many requests; try again in a minute"
        if self.sessions is None:
            return None
        # Session hijacking: messages and results of a session go to the client that opened it.
        path = scope["path"].rstrip("/")
        if path == DATA_PATH and not self.sessions.is_open(_query_value(scope, "session_hash"), client):
            return 404, "this session does not exist; reload the page"
        if path.startswith(HEARTBEAT_PREFIX):
            session = path.removeprefix(HEARTBEAT_PREFIX)
            if not await self.sessions.claim(session, client):
                return 403, "this session belongs to another visitor; reload the page"
        return None

    def _clean_scope(self, scope: Scope, headers: dict[str, str], client: Client) -> Scope:
        """Return a scope with the headers that the app needs, the client, and the path of a file in place of its alias.

        From a reverse proxy, `X-Forwarded-Proto` is kept: pages that are loaded by https must refer to https.
        """
        passed = {name: value for name, value in headers.items() if PASSED_HEADERS.fullmatch(name)}
        if self.clients.is_proxy(scope) and headers.get("x-forwarded-proto") in ("http", "https"):
            passed["x-forwarded-proto"] = headers["x-forwarded-proto"]
        path: str = scope["path"]
        if path.startswith(FILE_PREFIX):
            path = FILE_PREFIX + self.alias.to_real(path.removeprefix(FILE_PREFIX))
        elif _names_files(path):
            passed.pop("accept-encoding", None)  # the response is searched for paths
        clean = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in passed.items()]
        return {**scope, "path": path, "headers": clean, SCOPE_KEY: client}

    def _token_matches(self, token: str) -> bool:
        # Timing attack: compare in constant time.
        return hmac.compare_digest(token.encode(), self.token.encode())

    def _max_bytes(self, scope: Scope) -> int:
        return self.max_upload_bytes if _is_upload(scope) else MAX_REQUEST_BYTES

    def _response_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Return the headers that are added to a response; a new visitor gets a cookie with the page."""
        is_file = scope["path"].startswith(("/results/", FILE_PREFIX))
        policy = (b"content-security-policy", (RESULT_POLICY if is_file else PAGE_POLICY).encode())
        is_new = scope["path"] == "/" and not scope[SCOPE_KEY].visitor
        cookie = [(b"set-cookie", self.clients.new_cookie(scope).encode("latin-1"))] if is_new else []
        return [*SECURITY_HEADERS, policy, *cookie]

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request to the app, its body limited, and the response with security headers."""
        limit = BodyLimit(self._max_bytes(scope), MAX_UPLOAD_SECONDS if _is_upload(scope) else MAX_REQUEST_SECONDS)
        added, started = self._response_headers(scope), False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if limit.is_broken and not started:
                return  # drop the app's own error response; the middleware's follows
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        respond: Send = send_with_headers
        if _names_files(scope["path"]) or scope["path"].startswith(FILE_PREFIX):
            respond = self.alias.rewrite(send_with_headers, errors_only=not _names_files(scope["path"]))
        try:
            limited_receive = await self.calls.read(scope, limit.limit(receive))
            await self.app(scope, limited_receive, respond)
        except asyncio.CancelledError:  # the server shuts down while a page is connected
            with suppress(Exception):
                await _end_response(send, started)
        except Rejected as rejected:
            await _respond(send, rejected.status, str(rejected))
        except Exception:  # the app may wrap the exception of a limit in one of its own
            if not limit.is_broken:
                raise
        if limit.is_broken and not started:
            await _respond(send, *limit.rejection(), [(b"connection", b"close")])


def _is_upload(scope: Scope) -> bool:
    return bool(scope["path"].rstrip("/") == UPLOAD_PATH)


def _host_name(host: str) -> str:
    """Return a host without its port.

    >>> _host_name("localhost:7860"), _host_name("[::1]:7860"), _host_name("::1")
    ('localhost', '[::1]', '::1')
    """
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d+)?", host)
    return (match[1] if match else host).lower()


def _origin_host(origin: str) -> str | None:
    """Return host and port of an origin; None if it is malformed.

    >>> _origin_host("http://127.0.0.1:7860"), _origin_host("http://[")
    ('127.0.0.1:7860', None)
    """
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _names_files(path: str) -> bool:
    """Return whether a response may contain paths of uploaded files."""
    is_api = path.startswith(("/config", "/gradio_api/")) and not path.startswith((FILE_PREFIX, HEARTBEAT_PREFIX))
    return is_api or path == "/"


def _query_value(scope: Scope, name: str) -> str:
    """Return a value in the address of a request, or an empty text."""
    try:
        values = parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=100)
    except ValueError:
        return ""
    return str(values.get(name, [""])[0])


def _query_token(scope: Scope) -> str:
    return _query_value(scope, "token")


async def _drain(scope: Scope, headers: dict[str, str], receive: Receive) -> None:
    """Read the short body of a rejected request, since some clients see a response only after they have sent it."""
    length = headers.get("content-length", "")
    if scope["method"] != "POST" or not length.isdecimal() or len(length) > 7 or int(length) > MAX_REQUEST_BYTES:
        return
    limited = BodyLimit(MAX_REQUEST_BYTES, MAX_DRAIN_SECONDS).limit(receive)
    with suppress(BodyTooLarge, BodyTooSlow):
        while (await limited()).get("more_body", False):
            pass


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
