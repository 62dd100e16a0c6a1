"""The server of the app: bound to this machine unless told otherwise, with a private folder that goes when it goes."""

import ipaddress
import logging
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extremal.errors import ExtremalValueError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from extremal.app.result_cache import Shelf

MEGABYTES = 20  # of an upload
UPLOADS = "uploads"  # folder within the private one
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

log = logging.getLogger("extremal.app")


def serve(
    networks: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    token: str = "",
    seconds: float = 120.0,
    queue: int = 32,
    started: Callable[[str], None] = print,
) -> None:
    """Serve the app until it is interrupted.

    Args:
        networks: that it offers, as `zoo.load` takes them, or NAME=FILE with weights; none: the embedded one.
        host: address to listen at; another than this machine's own asks for a token.
        port: to listen at; 0 takes a free one.
        token: without which nobody comes in; at least 16 letters, digits, `-` or `_`.
        seconds: that one explanation may take.
        queue: explanations that may wait.
        started: told the address once it can be opened.

    Raises:
        ExtremalValueError: gradio is missing, an option breaks a rule, a network cannot be loaded, the port is taken.
    """
    hosts = _checked_host(host, token)
    if not seconds > 0 or queue < 1:  # also where it is not a number
        raise ExtremalValueError(
            f"the app must have time and a queue, got {seconds:g} seconds and a queue of {queue}; take more of both"
        )
    with ExitStack() as stack:
        listening = stack.enter_context(_listening(host, port))
        folder = stack.enter_context(_private_folder())
        try:
            import gradio  # noqa: F401
            import uvicorn
        except ImportError as missing:
            raise ExtremalValueError(
                f"the app must have gradio, {missing.name} is missing; pip install 'extremal[app]'"
            ) from None
        from extremal.app.job_queue import Line
        from extremal.app.middleware import Guard
        from extremal.app.networks import offered
        from extremal.app.page import page
        from extremal.app.result_cache import Shelf
        from extremal.networks.memory import keep_freed_memory

        keep_freed_memory()  # the process is this app's own
        found, shelf = offered(networks), Shelf(folder)
        line = stack.enter_context(Line(queue, seconds, lambda error: log.error("a job failed", exc_info=error)))
        served = mounted(page(found, line, shelf), shelf)
        guarded = Guard(served, hosts=hosts, token=token, megabytes=MEGABYTES, uploads=folder / UPLOADS)
        shown, taken = f"[{host}]" if ":" in host else host, listening.getsockname()[1]
        config = uvicorn.Config(
            guarded, log_level="warning", timeout_graceful_shutdown=2, server_header=False, date_header=False
        )
        address = f"http://{shown}:{taken}/{f'?token={token}' if token else ''}"
        started(address)  # the socket listens already: whoever asks now is answered as soon as the server runs
        uvicorn.Server(config).run(sockets=[listening])


def mounted(blocks: Any, shelf: "Shelf") -> "FastAPI":
    """The page and the results as one ASGI application."""
    import gradio
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse

    from extremal.app.theme import HEAD, theme

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/results/{name}/{view}/{file}")
    def result(name: str, view: int, file: str) -> FileResponse:
        path = shelf.file(name, view, file)
        if path is None:
            raise HTTPException(404, "this result is no longer here; explain the photograph again")
        return FileResponse(path)

    served: FastAPI = gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=f"{MEGABYTES}mb",
        show_error=True,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        head=HEAD,
    )
    blocks.has_launched = True  # else gradio takes any file of this machine for an uploaded one
    return served


def _checked_host(host: str, token: str) -> frozenset[str]:
    """The names by which the app may be called; empty: any.

    Raises:
        ExtremalValueError: it would be open to others without a token, or the token is too weak.
    """
    try:
        own = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        own = False
    if token and not re.fullmatch(r"[A-Za-z0-9_-]{16,}", token):
        raise ExtremalValueError(
            f"--token must have at least 16 letters, digits, - or _, got {len(token)} characters; "
            f"e.g. {secrets.token_urlsafe(16)}"
        )
    if own:
        return frozenset() if token else LOOPBACK | {host.lower()}
    if not token:
        raise ExtremalValueError(
            f"an app that others can reach must ask for a token, got --host {host} and none; "
            f"e.g. --token {secrets.token_urlsafe(16)}"
        )
    return frozenset()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at this address.

    Raises:
        ExtremalValueError: it is taken, or none of this machine's.
    """
    if not 0 <= port <= 65535:
        raise ExtremalValueError(f"--port must lie in 0..65535, got {port}; 0 takes a free one")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        named = error.errno is not None and error.errno > 0  # else it is the name that was not found
        reason = os.strerror(error.errno) if named else error.strerror or error  # type: ignore[arg-type]
        raise ExtremalValueError(
            f"the app must be able to listen at {host} port {port}: {reason}; choose another --port, 0 takes a free one"
        ) from None
    with listening:
        # asyncio does it where a socket tells its protocol, which this one does not; else every file takes 40 ms more
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listening


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder that nobody else reads and that is gone at the end.

    Gradio and matplotlib write into it, and tell nobody of what is done here; the environment comes back as it was.
    """
    made = tempfile.TemporaryDirectory(prefix="extremal-app-", ignore_cleanup_errors=True)
    with made as name, _environment(Path(name)):
        yield Path(name)


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    wanted = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder / UPLOADS),
        "MPLCONFIGDIR": str(folder),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }
    former = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
