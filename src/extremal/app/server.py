"""Server of the app: local by default, with a private folder that is deleted when it stops."""

import ipaddress
import logging
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from extremal.errors import ExtremalValueError, check_installed
from extremal.number_checks import format_value

if TYPE_CHECKING:
    from fastapi import FastAPI
    from gradio import Blocks

    from extremal.app.result_cache import ResultCache

MAX_UPLOAD_MB = 20
UPLOAD_FOLDER = "uploads"  # inside the private folder
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

MAX_TIMEOUT, MAX_QUEUE = 86_400, 10_000  # seconds; waiting explanations

log = logging.getLogger("extremal.app")


def serve(
    networks: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    token: str = "",
    timeout: float = 120.0,
    queue: int = 32,
    on_start: Callable[[str], None] = print,
) -> None:
    """Serve the app until it is interrupted.

    Args:
        networks: networks to offer, as `zoo.load` takes them, or NAME=FILE with weights; if empty, the embedded one.
        host: address to listen on; addresses that other machines can reach require a token.
        port: port to listen on; 0 chooses a free one.
        token: secret that visitors must know; at least 16 letters, digits, `-` or `_`.
        timeout: time limit of one explanation, in seconds.
        queue: maximum number of waiting explanations.
        on_start: called with the address once it can be opened.

    Raises:
        ExtremalValueError: gradio is missing, an option is invalid, a network cannot be loaded, or the port is in use.
    """
    hosts = _host_names(host, token)
    if not 0 < timeout <= MAX_TIMEOUT or not 1 <= queue <= MAX_QUEUE:  # NaN is rejected, too
        raise ExtremalValueError(
            f"the app must have a positive timeout and queue, up to {MAX_TIMEOUT:,} s and {MAX_QUEUE:,}, got a timeout "
            f"of {format_value(timeout)} s and a queue of {format_value(queue)}; e.g. 120 and 32"
        )
    with _open_socket(host, port) as open_socket, _private_folder() as folder:
        check_installed("gradio", "uvicorn", purpose="the app", extra="app")
        import uvicorn

        from extremal.app.middleware import AccessMiddleware

        with _running_app(networks, folder, timeout, queue) as app:
            protected = AccessMiddleware(
                app, hosts=hosts, token=token, max_upload_mb=MAX_UPLOAD_MB, uploads=folder / UPLOAD_FOLDER
            )
            config = uvicorn.Config(
                protected, log_level="warning", timeout_graceful_shutdown=2, server_header=False, date_header=False
            )
            on_start(_address(host, open_socket.getsockname()[1], token))  # requests wait in the socket from now on
            uvicorn.Server(config).run(sockets=[open_socket])


@contextmanager
def _running_app(networks: Sequence[str], folder: Path, timeout: float, queue: int) -> Iterator["FastAPI"]:
    """Load the networks, and yield the app with a queue that is cancelled at the end."""
    from extremal.app.job_queue import JobQueue
    from extremal.app.networks import load_networks
    from extremal.app.page import build_page
    from extremal.app.result_cache import ResultCache
    from extremal.networks.memory import keep_freed_memory

    keep_freed_memory()  # the process runs nothing but the app
    served_networks, cache = load_networks(networks), ResultCache(folder)
    with JobQueue(queue, timeout, lambda error: log.error("a job failed", exc_info=error)) as jobs:
        yield create_app(build_page(served_networks, jobs, cache), cache)


def create_app(page: "Blocks", cache: "ResultCache") -> "FastAPI":
    """Create the ASGI application that serves the page and the files of the results."""
    import gradio
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse

    from extremal.app.theme import HEAD, build_theme

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/results/{name}/{view}/{file}")
    def result(name: str, view: int, file: str) -> FileResponse:
        path = cache.file_path(name, view, file)
        if path is None:
            raise HTTPException(404, "this result is no longer available; explain the image again")
        return FileResponse(path)

    mounted: FastAPI = gradio.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=f"{MAX_UPLOAD_MB}mb",
        show_error=True,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=build_theme(),
        head=HEAD,
    )
    page.has_launched = True  # otherwise gradio accepts any local file as an upload
    return mounted


def _address(host: str, port: int, token: str) -> str:
    name, query = f"[{host}]" if ":" in host else host, f"?token={token}" if token else ""
    return f"http://{name}:{port}/{query}"


def _host_names(host: str, token: str) -> frozenset[str]:
    """Return the host names under which the app may be called; empty: any.

    Raises:
        ExtremalValueError: other machines could reach the app without a token, or the token is too weak.
    """
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    if token and not re.fullmatch(r"[A-Za-z0-9_-]{16,}", token):
        raise ExtremalValueError(
            f"--token must have at least 16 letters, digits, - or _, got {len(token)} characters; "
            f"e.g. {secrets.token_urlsafe(16)}"
        )
    if is_local:
        return frozenset() if token else LOOPBACK_HOSTS | {host.lower()}
    if not token:
        raise ExtremalValueError(
            f"an app that others can reach must require a token, got --host {host} and none; "
            f"e.g. --token {secrets.token_urlsafe(16)}"
        )
    return frozenset()


@contextmanager
def _open_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Open a socket that listens on this address.

    Raises:
        ExtremalValueError: the address is in use, or does not belong to this machine.
    """
    if not 0 <= port <= 65535:
        raise ExtremalValueError(f"--port must lie in 0..65535, got {port}; 0 chooses a free one")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        open_socket = socket.create_server((host, port), family=family)
    except OSError as error:
        is_system_error = error.errno is not None and error.errno > 0  # otherwise the host name was not resolved
        reason = os.strerror(error.errno) if is_system_error else error.strerror or error  # type: ignore[arg-type]
        raise ExtremalValueError(
            f"the app must be able to listen on {host} port {port}: {reason}; choose another --port, "
            "or 0 for a free one"
        ) from None
    with open_socket:
        # Without this each file takes 40 ms longer; asyncio sets it only on sockets that were given a protocol.
        open_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield open_socket


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Create a folder that only this user can read, and delete it at the end.

    Within this context gradio and matplotlib write to the folder, and telemetry is off.
    """
    temporary = tempfile.TemporaryDirectory(prefix="extremal-app-", ignore_cleanup_errors=True)
    with temporary as name, _environment(Path(name)):
        yield Path(name)


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Set environment variables, and restore their previous values at the end."""
    variables = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder / UPLOAD_FOLDER),
        "MPLCONFIGDIR": str(folder),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
