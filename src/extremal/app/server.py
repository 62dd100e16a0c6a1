"""Server of the app: local by default, with a private folder that is deleted when it stops."""

import ipaddress
import logging
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from extremal.app.bounded_log import bounded_log
from extremal.app.clients import Clients
from extremal.app.private_folder import private_folder
from extremal.app.uploads import MAX_FILE_MB, UploadStore
from extremal.environment import changed_environment
from extremal.errors import ExtremalValueError, check_installed
from extremal.networks.devices import AUTO, DeviceLike
from extremal.number_checks import format_value

if TYPE_CHECKING:
    from fastapi import FastAPI
    from gradio import Blocks
    from starlette.types import ASGIApp

    from extremal.app.networks import ServedNetwork
    from extremal.app.result_cache import ResultCache

CLEANING_INTERVAL = 60.0  # s between removals of old uploads
PREVIEW_TIMEOUT = 30.0  # s, to classify an image
UPLOAD_FOLDER = "uploads"  # inside the private folder
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

MAX_TIMEOUT, MAX_QUEUE = 86_400, 10_000  # seconds; waiting explanations
LOGGERS = ("uvicorn.error", "python_multipart.multipart", "extremal.app")

log = logging.getLogger("extremal.app")


def serve(
    networks: Sequence[str] = (),
    *,
    device: DeviceLike = AUTO,
    host: str = "127.0.0.1",
    port: int = 7860,
    token: str = "",
    timeout: float = 120.0,
    queue: int = 32,
    proxy: str = "",
    on_start: Callable[[str], None] = print,
) -> None:
    """Serve the app until it is interrupted.

    Args:
        networks: networks to offer, as `zoo.load` takes them, or NAME=FILE with weights; if empty, the embedded one.
        device: of the networks, as `zoo.load` takes it; auto is the fastest that there is.
        host: address to listen on; addresses that other machines can reach require a token.
        port: port to listen on; 0 chooses a free one.
        token: secret that visitors must know; at least 16 letters, digits, `-` or `_`.
        timeout: time limit of one plain explanation, in seconds; a request for several has a multiple of it.
        queue: maximum number of waiting explanations.
        proxy: address of a reverse proxy, whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed; empty: none.
        on_start: called with the address once it can be opened.

    Raises:
        ExtremalValueError: gradio is missing, an option is invalid, a network cannot be loaded, or the port is in use.
    """
    hosts, clients = _host_names(host, token), Clients(proxy)
    if not 0 < timeout <= MAX_TIMEOUT or not 1 <= queue <= MAX_QUEUE:  # NaN is rejected, too
        raise ExtremalValueError(
            f"the app must have a positive timeout and queue, up to {MAX_TIMEOUT:,} s and {MAX_QUEUE:,}, got a timeout "
            f"of {format_value(timeout)} s and a queue of {format_value(queue)}; e.g. 120 and 32"
        )
    with _open_socket(host, port) as open_socket, _private_environment() as folder:
        check_installed("gradio", "uvicorn", purpose="the app", extra="app")
        import uvicorn

        from extremal.app.connections import Connections, build_protocol

        access = _Access(hosts, token, clients)
        with bounded_log(*LOGGERS), _running_app(networks, device, folder, timeout, queue, access) as app:
            config = uvicorn.Config(
                app,
                http=build_protocol(Connections(clients.proxy)),
                ws="none",
                proxy_headers=False,  # every client could set them
                log_level="warning",
                timeout_graceful_shutdown=1,
                server_header=False,
                date_header=False,
            )
            on_start(_address(host, open_socket.getsockname()[1], token))  # requests wait in the socket from now on
            uvicorn.Server(config).run(sockets=[open_socket])


@dataclass(frozen=True)
class _Access:
    """Names, token and clients of the app."""

    hosts: frozenset[str]  # names under which it may be called; empty: any
    token: str
    clients: Clients


@contextmanager
def _running_app(
    networks: Sequence[str],
    device: DeviceLike,
    folder: Path,
    timeout: float,
    queue: int,
    access: _Access,
) -> Iterator["ASGIApp"]:
    """Load the networks, and yield the protected app with queues that are cancelled at the end."""
    from extremal.app.job_queue import JobQueue
    from extremal.app.middleware import AccessMiddleware
    from extremal.app.networks import load_networks
    from extremal.app.page import build_page, find_input_kinds
    from extremal.app.page_head import with_own_tags
    from extremal.app.result_cache import ResultCache
    from extremal.app.sessions import GradioSessions, Sessions
    from extremal.networks.memory import keep_freed_memory

    keep_freed_memory()  # the process runs nothing but the app
    served_networks = load_networks(networks, device)
    cache, uploads = ResultCache(folder), UploadStore(folder / UPLOAD_FOLDER)

    def report(error: BaseException) -> None:
        log.error("a job failed", exc_info=error)

    with (
        JobQueue(queue, timeout, report) as jobs,
        JobQueue(queue, PREVIEW_TIMEOUT, report) as previews,
        _cleaning(uploads),
    ):
        page = build_page(served_networks, jobs, previews, cache)
        try:
            yield AccessMiddleware(
                with_own_tags(create_app(page, cache, uploads, served_networks)),
                hosts=access.hosts,
                token=access.token,
                max_upload_mb=MAX_FILE_MB,
                uploads=uploads.folder,
                clients=access.clients,
                sessions=Sessions(GradioSessions(page)),
                events=find_input_kinds(page),
            )
        finally:
            jobs.close()  # so that the jobs of both queues end at the same time


@contextmanager
def _cleaning(uploads: UploadStore) -> Iterator[None]:
    """Remove old uploads from time to time."""
    stopped = threading.Event()

    def clean() -> None:
        while not stopped.wait(CLEANING_INTERVAL):
            uploads.remove_old()

    threading.Thread(target=clean, name="extremal-cleaning", daemon=True).start()
    try:
        yield
    finally:
        stopped.set()


def create_app(
    page: "Blocks", cache: "ResultCache", uploads: UploadStore, networks: "dict[str, ServedNetwork]"
) -> "FastAPI":
    """Create the ASGI application that serves the page, searches names, takes uploads, and serves files of results."""
    import gradio
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse

    from extremal.app.page import EXAMPLES, example_photograph
    from extremal.app.path_alias import PathAlias
    from extremal.app.search_route import add_search_route
    from extremal.app.sessions import MAX_SESSIONS
    from extremal.app.theme import build_head, build_theme
    from extremal.app.upload_route import add_upload_route

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    add_upload_route(app, uploads, PathAlias(uploads.folder))
    add_search_route(app, networks)

    @app.get("/results/{name}/{view}/{file}")
    def result(name: str, view: int, file: str) -> FileResponse:
        path = cache.file_path(name, view, file)
        if path is None:
            raise HTTPException(404, "this result is no longer available; explain the image again")
        return FileResponse(path)

    page.state_session_capacity = MAX_SESSIONS
    mounted: FastAPI = gradio.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=f"{MAX_FILE_MB}mb",
        show_error=True,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=build_theme(),
        head=build_head({name: example_photograph(name) for name in EXAMPLES}),
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
            f"an app that others can reach must require a token, got --host {host!r} without one; "
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
def _private_environment() -> Iterator[Path]:
    """Create the private folder of this server, and delete it at the end.

    Within this context gradio and matplotlib write to the folder, and telemetry is off.
    """
    with private_folder() as folder:
        variables = {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": str(folder / UPLOAD_FOLDER),
            "MPLCONFIGDIR": str(folder),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
            "DO_NOT_TRACK": "1",
        }
        with changed_environment(variables):
            yield folder
