"""Requests to the app's access middleware, as a server sends them."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from extremal.app.middleware import AccessMiddleware

HOST = "127.0.0.1:7860"
HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
UPLOADS = Path("/private/uploads")
CALL_PATH = "/gradio_api/queue/join"


@dataclass
class ProtectedApp:
    """Application that reads its requests and records their bodies."""

    bodies: list[bytes] = field(default_factory=list)
    raises: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more_body = b"", True
        try:
            while more_body:
                message = await receive()
                body += message.get("body", b"")
                more_body = message.get("more_body", False)
        except Exception as error:  # as starlette does: it responds, and raises an exception of its own
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"Internal Server Error"})
            raise RuntimeError("wrapped") from error
        if self.raises:
            raise self.raises
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"inside"})


@dataclass
class HttpResponse:
    """Response of the middleware."""

    status: int
    text: str
    headers: list[tuple[str, str]]

    def header(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for known, value in self.headers if known == name]


def request(
    path: str = "/",
    *,
    method: str = "GET",
    query: str = "",
    body: bytes | list[bytes] = b"",
    token: str = "",
    max_upload_mb: int = 2,
    hosts: frozenset[str] = HOSTS,
    uploads: Path = UPLOADS,
    app: ProtectedApp | None = None,
    **headers: str,
) -> HttpResponse:
    """Send a request through the middleware, and return the response."""
    sent: list[Message] = []
    parts = body if isinstance(body, list) else [body]
    pending = [
        {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]

    async def receive() -> Message:
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    all_headers = {"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in all_headers.items()],
    }
    middleware = AccessMiddleware(
        app or ProtectedApp(), hosts=hosts, token=token, max_upload_mb=max_upload_mb, uploads=uploads
    )
    asyncio.run(middleware(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"], sent
    start, end = sent
    return HttpResponse(
        start["status"],
        end["body"].decode(),
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]],
    )


def rejection(response: HttpResponse, app: ProtectedApp) -> tuple[int, str]:
    """Return status and message of a response that did not come from the app."""
    assert app.bodies == []
    assert response.header("content-type") == ["text/plain; charset=utf-8"]
    return response.status, response.text
