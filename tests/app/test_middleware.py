"""The guard of the app: strangers, unknown pages, long requests and foreign addresses stay outside."""

import asyncio
import hmac
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from extremal.app import middleware
from extremal.app.middleware import ASKED, COOKIE, POLICY, RESULT_POLICY, Guard, Message, Receive, Scope, Send

HOST = "127.0.0.1:7860"
HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
TOKEN = "a-token-of-some-length"
UPLOADS = Path("/private/uploads")
JOIN = "/gradio_api/queue/join"


@dataclass
class Inside:
    """An application that reads what it is sent, and writes down who came."""

    bodies: list[bytes] = field(default_factory=list)
    raises: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        try:
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
        except Exception as error:  # as starlette does: it answers, and tells who called
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"Internal Server Error"})
            raise RuntimeError("wrapped") from error
        if self.raises:
            raise self.raises
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"inside"})


@dataclass
class Answer:
    """What came back."""

    status: int
    text: str
    headers: list[tuple[str, str]]

    def header(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name]


def ask(
    path: str = "/",
    *,
    method: str = "GET",
    query: str = "",
    body: bytes | list[bytes] = b"",
    token: str = "",
    megabytes: int = 2,
    hosts: frozenset[str] = HOSTS,
    inside: Inside | None = None,
    **headers: str,
) -> Answer:
    """Ask the guard as a server does."""
    sent: list[Message] = []
    parts = body if isinstance(body, list) else [body]
    heard = [
        {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]

    async def receive() -> Message:
        return heard.pop(0) if heard else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    named = {"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()],
    }
    door = Guard(inside or Inside(), hosts=hosts, token=token, megabytes=megabytes, uploads=UPLOADS)
    asyncio.run(door(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"], sent
    start, rest = sent
    return Answer(
        start["status"],
        rest["body"].decode(),
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]],
    )


def turned_away(answer: Answer, inside: Inside) -> tuple[int, str]:
    """Status and sentence of an answer that came from the guard alone."""
    assert inside.bodies == []
    assert answer.header("content-type") == ["text/plain; charset=utf-8"]
    return answer.status, answer.text


class TestStrangers:
    @pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:7860", "LOCALHOST:1"])
    def test_this_machine_is_let_in(self, host: str) -> None:
        assert ask(host=host).status == 200

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "localhost:x"])
    def test_a_foreign_host(self, host: str) -> None:
        inside = Inside()
        assert turned_away(ask(host=host, inside=inside), inside) == (
            403,
            f"this app must be called by one of 127.0.0.1, [::1], localhost, got {host!r}",
        )

    def test_any_host_where_a_token_is_asked_for(self) -> None:
        assert ask(host="box.example", hosts=frozenset(), token=TOKEN, cookie=f"{COOKIE}={TOKEN}").status == 200

    @pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "https://evil.example:7860"])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_foreign_origin(self, origin: str, method: str) -> None:
        inside = Inside()
        assert turned_away(ask(JOIN, method=method, origin=origin, inside=inside), inside) == (
            403,
            f"this app answers its own pages, got a request from {origin!r}",
        )

    def test_its_own_origin(self) -> None:
        assert ask(JOIN, method="POST", origin=f"http://{HOST}").status == 200

    def test_a_page_without_a_name_may_look_and_not_ask(self) -> None:
        inside = Inside()
        assert turned_away(ask(JOIN, method="POST", origin="null", inside=inside), inside) == (
            403,
            "this app answers its own pages, got a request from a page without a name",
        )
        assert ask("/results/name/0/report.html", origin="null").status == 200  # a report in its sandbox


class TestToken:
    REFUSED = (401, "this app asks for its token: open the address that it told when it was started")

    @pytest.mark.parametrize(
        "given", [{}, {"query": "token=wrong"}, {"query": "token="}, {"cookie": f"{COOKIE}=wrong"}, {"cookie": "a;;=b"}]
    )
    def test_without_it(self, given: dict[str, str]) -> None:
        inside = Inside()
        assert turned_away(ask(token=TOKEN, inside=inside, **given), inside) == self.REFUSED

    def test_a_letter_that_is_none(self) -> None:
        inside = Inside()
        assert turned_away(ask(token=TOKEN, query="token=%FF%00é", cookie=f"{COOKIE}=é", inside=inside), inside) == (
            self.REFUSED
        )

    def test_by_its_address_then_by_cookie(self) -> None:
        inside = Inside()
        first = ask(token=TOKEN, query=f"token={TOKEN}", inside=inside)
        assert (first.status, first.header("location"), inside.bodies) == (303, ["/"], [])
        (cookie,) = first.header("set-cookie")
        assert cookie == f"{COOKIE}={TOKEN}; HttpOnly; SameSite=Strict; Path=/"
        second = ask(token=TOKEN, cookie=cookie.split(";")[0], inside=inside)
        assert (second.status, second.text) == (200, "inside")
        assert second.header("set-cookie") == []

    def test_everything_asks_for_it(self) -> None:
        for path in ("/assets/index.js", "/results/a/0/report.html", JOIN, "/nowhere"):
            assert ask(path, token=TOKEN).status == 401

    def test_compared_in_constant_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared, really = list[tuple[bytes, bytes]](), hmac.compare_digest

        def compare(one: bytes, other: bytes) -> bool:
            compared.append((one, other))
            return really(one, other)

        monkeypatch.setattr(middleware.hmac, "compare_digest", compare)
        ask(token=TOKEN, query="token=wrong", cookie=f"{COOKIE}=other")
        assert compared == [(b"wrong", TOKEN.encode()), (b"other", TOKEN.encode())]


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/redoc",
        "/openapi.json",
        "/gradio_api/openapi.json",
        "/gradio_api/proxy=https://evil.example/x",
        "/gradio_api/file=http://evil.example/x",
        "/gradio_api/file=HTTP://evil.example/x",
        "/gradio_api/file=ftp:/x",
        "/gradio_api/file/x",
        "/gradio_api/call/explain",
        "/gradio_api/call/v2/explain",
        "/gradio_api/api/explain",
        "/gradio_api/run/explain",
        "/gradio_api/component_server",
        "/gradio_api/dev/reload",
        "/gradio_api/deep_link",
        "/gradio_api/vibe-code",
        "/gradio_api/process_recording",
        "/gradio_api/stream/a",
        "/gradio_api/runs",
        "/monitoring",
        "/monitoring/summary",
        "/login",
        "/logout",
        "/gradio_api/mcp/",
        "/custom_component/a/b/c/d",
        "//",
        "/\n",
        "",
    ],
)
def test_there_is_no_such_page(path: str) -> None:
    inside = Inside()
    assert turned_away(ask(path, inside=inside), inside) == (404, "there is no such page here")
    assert turned_away(ask(path, method="POST", inside=inside), inside)[0] == 404


@pytest.mark.parametrize("kind", ["websocket", "other"])
def test_nothing_but_http(kind: str) -> None:
    async def unheard(*_: object) -> Message:
        raise AssertionError("nobody is spoken to")

    door = Guard(unheard, hosts=HOSTS, token="", megabytes=1, uploads=UPLOADS)
    asyncio.run(door({"type": kind}, unheard, unheard))


class TestLength:
    UPLOAD = "/gradio_api/upload"

    @pytest.mark.parametrize("length", ["2100001", "-5", "1e3", "much"])
    def test_an_upload_by_its_header(self, length: str) -> None:
        inside = Inside()
        assert turned_away(ask(self.UPLOAD, method="POST", inside=inside, content_length=length), inside) == (
            413,
            f"an upload must have at most 2 MB, got {length} bytes; shrink the photograph",
        )

    def test_as_long_as_it_may_be(self) -> None:
        inside = Inside()
        body = b"x" * 2100000
        assert ask(self.UPLOAD, method="POST", inside=inside, body=body, content_length="2100000").status == 200
        assert inside.bodies == [body]

    def test_an_upload_without_its_length(self) -> None:
        inside = Inside()
        answer = ask(self.UPLOAD, method="POST", inside=inside, transfer_encoding="chunked")
        assert turned_away(answer, inside) == (411, "an upload must tell its length; send it with Content-Length")

    def test_an_upload_by_counting(self) -> None:
        inside = Inside()
        answer = ask(self.UPLOAD, method="POST", inside=inside, body=[b"x" * 10**6] * 3)
        assert turned_away(answer, inside) == (413, "a request must have at most 2 MB; shrink it first")

    def test_a_question_by_its_header(self) -> None:
        inside = Inside()
        answer = ask(JOIN, method="POST", inside=inside, content_length=str(ASKED + 1))
        assert answer.status == 413
        assert inside.bodies == []

    def test_a_question_by_counting(self) -> None:
        inside = Inside()
        answer = ask(JOIN, method="POST", inside=inside, body=[b" " * 2**19] * 3, transfer_encoding="chunked")
        assert turned_away(answer, inside) == (413, "a request must have at most 1 MB; shrink it first")

    def test_other_errors_are_the_servers_own(self) -> None:
        with pytest.raises(ZeroDivisionError):
            ask(inside=Inside(raises=ZeroDivisionError()))


def file(path: object) -> dict[str, object]:
    """A file as the page names it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


class TestForeignFiles:
    @pytest.mark.parametrize("path", [JOIN, f"{JOIN}/", "/gradio_api/run/predict"])
    @pytest.mark.parametrize(
        "address",
        [
            "http://169.254.169.254/latest",
            "https://evil.example/x.png",
            "/private/uploads/http://evil.example",
            "file:///etc/passwd",
            "/etc/passwd",
            "/private/uploads",
            "/private/uploads/../other/cat.png",
            "/private/uploads-of-others/cat.png",
            "/private/uploads/\0",
            "cat.png",
            "",
        ],
    )
    def test_are_refused_before_gradio_sees_them(self, path: str, address: str) -> None:
        inside = Inside()
        body = json.dumps({"data": ["embedded", [file(address)]]}).encode()
        for parts in ([body], [body[:40], body[40:]]):
            assert turned_away(ask(path, method="POST", body=parts, inside=inside), inside) == (
                400,
                f"a file must be uploaded, got {address!r}",
            )

    def test_however_they_are_written(self) -> None:
        inside = Inside()
        escaped = b'{"data": [{"p\\u0061th": "\\u0068ttp:\\/\\/evil.example"}]}'
        for body in (escaped, json.dumps({"data": [file("http://evil.example")]}).encode("utf-16")):
            answer = ask(JOIN, method="POST", body=body, inside=inside)
            assert turned_away(answer, inside) == (
                400,
                "a file must be uploaded, got 'http://evil.example'",
            )

    @pytest.mark.parametrize("depth", [10, 500, 900, 930, 950, 960, 970, 5000])
    def test_however_deep_they_lie_or_what_lies_beside_them(self, depth: int) -> None:
        inside = Inside()
        body = f'{{"x": {"[" * depth}{"]" * depth}, "data": [{json.dumps(file("http://evil.example"))}]}}'
        status, text = turned_away(ask(JOIN, method="POST", body=body.encode(), inside=inside), inside)
        known = "a file must be uploaded, got 'http://evil.example'"
        assert (status, text) in ((400, known), (400, "a question must not be nested so deeply"))
        assert text == known or depth > 900

    def test_also_behind_a_link(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("real", "elsewhere"):
            (tmp_path / name).mkdir()
        (tmp_path / "uploads").symlink_to(tmp_path / "real")
        (tmp_path / "real" / "out").symlink_to(tmp_path / "elsewhere")
        monkeypatch.setattr("test_app_guard.UPLOADS", tmp_path / "uploads")
        for path, status in (("uploads/a.png", 200), ("real/a.png", 200), ("uploads/out/a.png", 400)):
            body = json.dumps({"data": [file(str(tmp_path / path))]}).encode()
            assert ask(JOIN, method="POST", body=body).status == status

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"no JSON",
            b"\xff\xff",
            json.dumps({"data": [file("/private/uploads/cat.png"), "see http://example.org", 5, None]}).encode(),
            json.dumps({"data": [{"path": 7}]}).encode(),
        ],
    )
    def test_anything_else_reaches_it_whole(self, body: bytes) -> None:
        inside = Inside()
        assert ask(JOIN, method="POST", body=[body[:9], body[9:]], inside=inside).status == 200
        assert inside.bodies == [body]


class TestEnd:
    @pytest.mark.parametrize("begun", [True, False])
    def test_a_page_that_listens_when_the_server_ends(self, begun: bool) -> None:
        sent: list[Message] = []

        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            if begun:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.sleep(60)

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def end() -> None:
            door = Guard(stream, hosts=HOSTS, token="", megabytes=1, uploads=UPLOADS)
            headers = [(b"host", HOST.encode())]
            task = asyncio.create_task(
                door({"type": "http", "method": "GET", "path": "/", "headers": headers}, receive, send)
            )
            await asyncio.sleep(0.01)
            task.cancel()
            await task

        asyncio.run(end())
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        assert sent[0]["status"] == (200 if begun else 503)
        assert sent[1].get("body", b"") == (b"" if begun else b"this app is being ended")


class TestHeaders:
    def test_of_the_page(self) -> None:
        answer = ask()
        assert answer.headers == [
            ("content-type", "text/html"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", POLICY),
        ]
        wanted = {"object-src 'none'", "base-uri 'self'", "form-action 'self'", "frame-ancestors 'self'"}
        assert wanted < set(POLICY.split("; "))
        assert "http" not in POLICY.replace("https", "http")  # no other host
        assert "*" not in POLICY

    def test_of_a_result(self) -> None:
        (policy,) = ask("/results/name/0/report.html").header("content-security-policy")
        assert policy == RESULT_POLICY == "sandbox allow-scripts; frame-ancestors 'self'"

    @pytest.mark.parametrize(
        "asked", [{"host": "evil.example"}, {"path": "/docs"}, {"content_length": "x"}, {"token": TOKEN}]
    )
    def test_of_every_refusal(self, asked: dict[str, str]) -> None:
        answer = ask(**asked)  # type: ignore[arg-type]
        assert answer.status >= 400
        assert answer.header("x-content-type-options") == ["nosniff"]
        assert answer.header("referrer-policy") == ["no-referrer"]
