"""Access middleware of the app: callers, paths, sizes of bodies, and headers of responses."""

import asyncio
import hmac

import pytest

from extremal.app import middleware as access
from extremal.app.middleware import (
    MAX_REQUEST_BYTES,
    PAGE_POLICY,
    RESULT_POLICY,
    TOKEN_COOKIE,
    AccessMiddleware,
    Message,
    Receive,
    Scope,
    Send,
)
from support.asgi import CALL_PATH, HOST, HOSTS, UPLOADS, ProtectedApp, rejection, request

TOKEN = "a-token-of-some-length"


class TestCaller:
    @pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:7860", "LOCALHOST:1"])
    def test_own_host_names_are_accepted(self, host: str) -> None:
        assert request(host=host).status == 200

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "localhost:x"])
    def test_foreign_hosts_are_rejected(self, host: str) -> None:
        app = ProtectedApp()
        assert rejection(request(host=host, app=app), app) == (
            403,
            f"this app must be called by one of 127.0.0.1, [::1], localhost, got {host!r}",
        )

    def test_any_host_is_accepted_with_a_token(self) -> None:
        assert (
            request(host="box.example", hosts=frozenset(), token=TOKEN, cookie=f"{TOKEN_COOKIE}={TOKEN}").status == 200
        )

    @pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "https://evil.example:7860"])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_foreign_origins_are_rejected(self, origin: str, method: str) -> None:
        app = ProtectedApp()
        assert rejection(request(CALL_PATH, method=method, origin=origin, app=app), app) == (
            403,
            f"this app answers requests from its own pages only, got one from {origin!r}",
        )

    def test_the_own_origin_is_accepted(self) -> None:
        assert request(CALL_PATH, method="POST", origin=f"http://{HOST}").status == 200

    def test_a_page_without_an_origin_may_only_read(self) -> None:
        app = ProtectedApp()
        assert rejection(request(CALL_PATH, method="POST", origin="null", app=app), app) == (
            403,
            "this app answers requests from its own pages only, got one from a page without an origin",
        )
        assert request("/results/name/0/report.html", origin="null").status == 200  # a report in its sandbox


class TestToken:
    REJECTION = (401, "this app requires a token; open the address that was printed when the app was started")

    @pytest.mark.parametrize(
        "credentials",
        [{}, {"query": "token=wrong"}, {"query": "token="}, {"cookie": f"{TOKEN_COOKIE}=wrong"}, {"cookie": "a;;=b"}],
    )
    def test_without_the_token(self, credentials: dict[str, str]) -> None:
        app = ProtectedApp()
        assert rejection(request(token=TOKEN, app=app, **credentials), app) == self.REJECTION

    def test_a_token_that_is_not_ascii(self) -> None:
        app = ProtectedApp()
        assert rejection(request(token=TOKEN, query="token=%FF%00é", cookie=f"{TOKEN_COOKIE}=é", app=app), app) == (
            self.REJECTION
        )

    def test_first_by_address_then_by_cookie(self) -> None:
        app = ProtectedApp()
        first = request(token=TOKEN, query=f"token={TOKEN}", app=app)
        assert (first.status, first.header("location"), app.bodies) == (303, ["/"], [])
        (cookie,) = first.header("set-cookie")
        assert cookie == f"{TOKEN_COOKIE}={TOKEN}; HttpOnly; SameSite=Strict; Path=/"
        second = request(token=TOKEN, cookie=cookie.split(";")[0], app=app)
        assert (second.status, second.text) == (200, "inside")
        assert [name for name in second.header("set-cookie") if TOKEN_COOKIE in name] == []

    def test_all_paths_require_the_token(self) -> None:
        for path in ("/assets/index.js", "/results/a/0/report.html", CALL_PATH, "/nowhere"):
            assert request(path, token=TOKEN).status == 401

    def test_tokens_are_compared_in_constant_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared, compare_digest = list[tuple[bytes, bytes]](), hmac.compare_digest

        def compare(a: bytes, b: bytes) -> bool:
            compared.append((a, b))
            return compare_digest(a, b)

        monkeypatch.setattr(access.hmac, "compare_digest", compare)
        request(token=TOKEN, query="token=wrong", cookie=f"{TOKEN_COOKIE}=other")
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
def test_paths_that_are_not_served(path: str) -> None:
    app = ProtectedApp()
    assert rejection(request(path, app=app), app) == (404, "this page does not exist")
    assert rejection(request(path, method="POST", app=app), app)[0] == 404


@pytest.mark.parametrize("kind", ["websocket", "other"])
def test_only_http_is_served(kind: str) -> None:
    async def unexpected(*_: object) -> Message:
        raise AssertionError("nothing is called")

    middleware = AccessMiddleware(unexpected, hosts=HOSTS, token="", max_upload_mb=1, uploads=UPLOADS)
    asyncio.run(middleware({"type": kind}, unexpected, unexpected))


class TestBodySize:
    UPLOAD = "/gradio_api/upload"

    @pytest.mark.parametrize("length", ["2100001", "-5", "1e3", "much"])
    def test_a_declared_upload(self, length: str) -> None:
        app = ProtectedApp()
        assert rejection(request(self.UPLOAD, method="POST", app=app, content_length=length), app) == (
            413,
            f"an upload must have at most 2 MB, got {length} bytes; shrink the image",
        )

    def test_the_largest_upload(self) -> None:
        app = ProtectedApp()
        body = b"x" * 2100000
        assert request(self.UPLOAD, method="POST", app=app, body=body, content_length="2100000").status == 200
        assert app.bodies == [body]

    def test_an_upload_without_a_length(self) -> None:
        app = ProtectedApp()
        response = request(self.UPLOAD, method="POST", app=app, transfer_encoding="chunked")
        assert rejection(response, app) == (411, "an upload must declare its length; send it with Content-Length")

    def test_an_undeclared_upload(self) -> None:
        app = ProtectedApp()
        response = request(self.UPLOAD, method="POST", app=app, body=[b"x" * 10**6] * 3)
        assert rejection(response, app) == (413, "a request must have at most 2 MB; shrink it first")

    def test_a_declared_call(self) -> None:
        app = ProtectedApp()
        response = request(CALL_PATH, method="POST", app=app, content_length=str(MAX_REQUEST_BYTES + 1))
        assert response.status == 413
        assert app.bodies == []

    def test_an_undeclared_call(self) -> None:
        app = ProtectedApp()
        response = request(CALL_PATH, method="POST", app=app, body=[b" " * 2**19] * 3, transfer_encoding="chunked")
        assert rejection(response, app) == (413, "a request must have at most 1 MB; shrink it first")

    def test_errors_of_the_app_are_passed_on(self) -> None:
        with pytest.raises(ZeroDivisionError):
            request(app=ProtectedApp(raises=ZeroDivisionError()))


class TestShutdown:
    @pytest.mark.parametrize("started", [True, False])
    def test_a_page_is_connected(self, started: bool) -> None:
        sent: list[Message] = []

        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            if started:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.sleep(60)

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def shut_down() -> None:
            middleware = AccessMiddleware(stream, hosts=HOSTS, token="", max_upload_mb=1, uploads=UPLOADS)
            headers = [(b"host", HOST.encode())]
            task = asyncio.create_task(
                middleware({"type": "http", "method": "GET", "path": "/", "headers": headers}, receive, send)
            )
            await asyncio.sleep(0.01)
            task.cancel()
            await task

        asyncio.run(shut_down())
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        assert sent[0]["status"] == (200 if started else 503)
        assert sent[1].get("body", b"") == (b"" if started else b"this app is shutting down")


class TestHeaders:
    def test_of_the_page(self) -> None:
        response = request()
        assert response.headers == [
            ("content-type", "text/html"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", PAGE_POLICY),
            ("set-cookie", *response.header("set-cookie")),
        ]
        required = {"object-src 'none'", "base-uri 'self'", "form-action 'self'", "frame-ancestors 'self'"}
        assert required < set(PAGE_POLICY.split("; "))
        assert "http" not in PAGE_POLICY.replace("https", "http")  # no other host
        assert "*" not in PAGE_POLICY

    def test_of_a_result(self) -> None:
        (policy,) = request("/results/name/0/report.html").header("content-security-policy")
        assert policy == RESULT_POLICY == "sandbox allow-scripts; frame-ancestors 'self'"

    @pytest.mark.parametrize(
        "options", [{"host": "evil.example"}, {"path": "/docs"}, {"content_length": "x"}, {"token": TOKEN}]
    )
    def test_of_all_rejections(self, options: dict[str, str]) -> None:
        response = request(**options)  # type: ignore[arg-type]
        assert response.status >= 400
        assert response.header("x-content-type-options") == ["nosniff"]
        assert response.header("referrer-policy") == ["no-referrer"]
