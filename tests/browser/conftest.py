"""A real browser before the real app: whatever it complains of, or asks of another host, fails the test."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
DESKTOP = {"viewport": {"width": 1280, "height": 1000}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
# ms; a run takes a few seconds on an idle machine, and on a busy one as long as the variable allows
PATIENCE = 1000 * int(os.environ.get("EXTREMAL_PATIENCE", "30"))
expect.set_options(timeout=PATIENCE / 4)


@dataclass(frozen=True)
class Served:
    """An app that runs."""

    address: str
    process: subprocess.Popen[str]
    folder: Path  # in which it makes its private one
    outside: list[str]  # what it asked of other hosts


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """`extremal app` with the embedded network, ended as a service manager ends it."""
    outside: list[str] = []
    with _proxy(outside) as proxy:
        command = [str(Path(sys.executable).with_name("extremal")), "app", "--port", "0"]
        surroundings = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(folder),
            "PYTHONUNBUFFERED": "1",
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy),
        }
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings)
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()  # open ADDRESS in a browser; ...
            assert words[:1] == ["open"], words
            yield Served(words[1], process, folder, outside)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE / 1000)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The app that most tests share; it asks nothing of any other host."""
    with serving(tmp_path_factory.mktemp("app")) as one:
        yield one
    assert one.outside == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as it is installed; of a module, since nothing else can use asyncio while it is there."""
    if CHROMIUM is None:
        reason = "no chromium was found; apt-get install chromium"
        pytest.fail(reason) if os.environ.get("EXTREMAL_BROWSER") == "required" else pytest.skip(reason)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def expected() -> list[str]:
    """Parts of complaints of the browser that a test provokes."""
    return []


@pytest.fixture
def opened(browser: Browser, expected: list[str]) -> Iterator[Callable[..., Page]]:
    """Opens an address in a browser of its own, watched until the test ends."""
    complaints, contexts = list[str](), list[Any]()

    def open_page(address: str, **options: Any) -> Page:
        context = browser.new_context(**{**DESKTOP, **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        home = urlsplit(address).netloc

        def asked(request: Request) -> None:
            parts = urlsplit(request.url)
            if parts.scheme not in ("data", "blob") and parts.netloc != home:
                complaints.append(f"asked {request.url}")

        def said(message: ConsoleMessage) -> None:
            if message.type == "error":
                complaints.append(message.text)

        context.on("request", asked)
        page = context.new_page()
        page.on("console", said)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("filechooser", lambda _: None)  # from the start: one that opens at once would be missed later
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [one for one in complaints if not any(part in one for part in expected)] == []


@pytest.fixture
def page(opened: Callable[..., Page], served: Served) -> Page:
    """The app on a desktop."""
    found = opened(served.address)
    found.locator("#photo").wait_for()
    return found


@contextmanager
def _proxy(heard: list[str]) -> Iterator[str]:
    """A proxy that lets nothing pass and writes down what was asked of it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def listen() -> None:
            while True:
                try:
                    caller, _ = listening.accept()
                except OSError:
                    return
                with caller:
                    heard.append(caller.recv(200).decode("latin-1").splitlines()[0])

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
