"""A running app: whom it serves, what it rejects, and that nothing is left when it stops."""

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("gradio")
import httpx

import extremal
from extremal.app.page import EXAMPLES
from support.app_client import Visitor, serve_app
from support.app_load import run_users, summarise
from support.app_toys import save_colour_image

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
USERS = 4


@dataclass(frozen=True)
class Session:
    """A running app, with a home, a working directory and a temporary directory of its own."""

    address: str
    process: int
    root: Path

    @property
    def private(self) -> Path:
        """Private folder of the app."""
        (folder,) = (self.root / "temp").iterdir()
        return folder

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.address + path, timeout=30)


def modification_times(*folders: Path) -> dict[str, int]:
    """Return the modification time of each file, except those that Python writes."""
    paths = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return {str(path): path.stat().st_mtime_ns for path in paths}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A real app with a small network; after all tests, nothing of it is left."""
    root = tmp_path_factory.mktemp("session")
    for name in ("home", "work", "temp"):
        (root / name).mkdir()
    (root / "work" / "secret.txt").write_text("private content")
    watched = (root / "home", root / "work", Path(extremal.__file__).parent / "app")
    before = modification_times(*watched)
    with run_app(root) as running:
        yield running
    assert list((root / "temp").iterdir()) == []
    assert modification_times(*watched) == before


@contextmanager
def run_app(root: Path) -> Iterator[Session]:
    """Run an app whose home, working directory and temporary directory are inside `root`."""
    environment = {
        "HOME": str(root / "home"),
        "TMPDIR": str(root / "temp"),
        "PYTHONPATH": str(TESTS),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    options = ("--network", "support.app_toys:random_network")
    with serve_app(*options, folder=root / "work", **environment) as (address, process):
        yield Session(address, process, root)


def test_several_users_are_served_in_order(session: Session) -> None:
    measurements = asyncio.run(run_users(session.address, session.process, USERS, 3.0))
    summary = summarise(measurements)
    assert (summary["errors"], summary["overtaken"], summary["served"]) == ([], 0, USERS)
    assert summary["answers"] >= USERS
    assert min(summary["memory"]) > 50
    times = [(item.submitted, item.queued, item.started, item.finished) for item in measurements.requests]
    assert all(0 < submitted <= queued <= started <= finished for submitted, queued, started, finished in times)
    assert measurements.page
    assert measurements.file


def test_only_this_machine_can_connect(session: Session) -> None:
    sockets = {os.readlink(entry) for entry in Path(f"/proc/{session.process}/fd").iterdir() if entry.is_symlink()}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    listening = [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]
    port = int(session.address.rsplit(":", 1)[1])
    assert listening == [f"0100007F:{port:04X}"]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{root}/work/secret.txt",
        "secret.txt",
        "{private}/uploads/../../../work/secret.txt",
        "{private}/uploads",
        "{private}/uploads/0123456789abcdef/photo.jpg",
        "{private}/{result}/view-0/report.html",
        "{private}/uploads/../{result}/view-0/report.html",
        "{private}/uploads/%2e%2e/{result}/view-0/report.html",
        "{package}/app/page.js",
    ],
)
def test_other_files_are_not_served(session: Session, path: str) -> None:
    result, package = any_result(session), extremal.__path__[0]
    folders = {"root": session.root, "private": session.private, "result": result, "package": package}
    response = session.get("/gradio_api/file=" + path.format(**folders))
    assert response.status_code in (403, 404)
    assert "private content" not in response.text
    assert "<html" not in response.text


def any_result(session: Session) -> str:
    """Return the name of a result in the cache."""
    names = [entry.parents[1].name for entry in session.private.glob("*/view-0/report.html")]
    assert names, "the test of several users leaves results"
    return names[0]


def test_results_are_served_by_their_exact_name_only(session: Session) -> None:
    name = any_result(session)
    report = session.get(f"/results/{name}/0/report.html")
    assert report.status_code == 200
    assert report.headers["content-security-policy"] == "sandbox allow-scripts; frame-ancestors 'self'"
    for guess in (
        f"{name[:-1]}x/0/report.html",
        f"{name}/1/report.html",
        f"{name}/0/mask-0.1.png",
        "%C3%A9/0/figure.png",
    ):
        response = session.get(f"/results/{guess}")
        assert response.status_code == 404
        assert response.json() == {"detail": "this result is no longer available; explain the image again"}
    for guess in (f"..%2f{name}/0/report.html", f"{name}/0/..%2f..%2freport.html", f"{name}/x/report.html"):
        assert session.get(f"/results/{guess}").status_code in (404, 422)


def classify(session: Session, path: str) -> tuple[int, str]:
    """Return the response to a request for the top classes of the file at this path."""

    async def call() -> tuple[int, str]:
        async with httpx.AsyncClient(base_url=session.address, timeout=30) as client:
            visitor = Visitor(client)
            await visitor.open()
            photo = {"path": path, "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
            try:
                messages = [message async for message in visitor.call("on_photo", [photo, visitor.network])]
            except httpx.HTTPStatusError as error:
                return error.response.status_code, error.response.text
            return 200, json.dumps(messages)

    return asyncio.run(call())


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "{root}/work/cat.png", "{private}/uploads/../{result}/view-0/figure.png"]
)
def test_other_files_are_not_read(session: Session, path: str) -> None:
    full_path = path.format(root=session.root, private=session.private, result=any_result(session))
    before = set(session.private.rglob("*"))
    image = save_colour_image(session.root / "work" / "cat.png")
    try:
        answer = classify(session, full_path)
    finally:
        image.unlink()  # the fixture compares the folder before and after
    assert answer == (400, f"a file must be uploaded, got {full_path!r}")
    assert set(session.private.rglob("*")) == before  # nothing was copied


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples(session: Session, number: int) -> None:
    async def choose() -> str:
        async with httpx.AsyncClient(base_url=session.address, timeout=30) as client:
            visitor = Visitor(client)
            await visitor.open()
            messages = [message async for message in visitor.call("load_example", [number])]
            (photo,) = next(item for item in messages if item["msg"] == "process_completed")["output"]["data"]
            photo = photo.get("value", photo)
            messages = [message async for message in visitor.call("on_photo", [photo, visitor.network])]
            return json.dumps([item for item in messages if item["msg"] == "process_completed"])

    assert "Choose a class, and press Explain." in asyncio.run(choose())


def test_a_file_that_is_not_an_image_is_reported_by_its_own_name(session: Session) -> None:
    async def upload() -> str:
        async with httpx.AsyncClient(base_url=session.address, timeout=30) as client:
            visitor = Visitor(client)
            await visitor.open()
            photo = await visitor.upload(b"not an image")
            return json.dumps([message async for message in visitor.call("on_photo", [photo, visitor.network])])

    text = asyncio.run(upload())
    message = "is not an image that can be read here. Choose a photograph in JPEG or PNG format."
    assert json.dumps(f"“photo.jpg” {message}").strip('"') in text
    assert str(session.root) not in text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/docs", 404),
        ("/openapi.json", 404),
        ("/gradio_api/openapi.json", 404),
        ("/monitoring", 404),
        ("/gradio_api/proxy=http://127.0.0.1:9/", 404),
        ("/gradio_api/file=http://127.0.0.1:9/", 404),
        ("/assets/..%2f..%2f..%2fsetup.py", 403),
        ("/static/..%2f..%2fgradio%2froutes.py", 403),
        ("/theme.css", 200),
        ("/", 200),
    ],
)
def test_pages(session: Session, path: str, status: int) -> None:
    response = session.get(path)
    assert response.status_code == status
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "server" not in response.headers


def test_foreign_hosts_and_origins(session: Session) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        assert httpx.get(session.address, headers=headers).status_code == 403


def test_a_rejected_upload_leaves_nothing(session: Session) -> None:
    before = set(session.private.rglob("*"))
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + b"\0" * 21 * 10**6
    content_type = {"content-type": "multipart/form-data; boundary=x"}

    def parts() -> Iterator[bytes]:
        for start in range(0, len(form), 2**16):
            yield form[start : start + 2**16]

    for content, expected in ((form, 413), (parts(), 411)):
        try:
            status = httpx.post(
                f"{session.address}/gradio_api/upload", content=content, headers=content_type
            ).status_code
        except httpx.WriteError:  # the server closed the connection before it had received everything
            status = expected
        assert status == expected
    assert set(session.private.rglob("*")) == before


def test_stopped_while_visitors_wait(tmp_path: Path) -> None:
    """Ctrl-C during a job with pages open: the app stops soon, and deletes its folder."""
    for name in ("home", "work", "temp"):
        (tmp_path / name).mkdir()
    image, running = save_colour_image(tmp_path / "cat.png").read_bytes(), threading.Event()

    async def explain(address: str) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=30) as client:
            visitor = Visitor(client)
            await visitor.open()
            async with visitor.connected():
                photo = await visitor.upload(image)
                assert [message async for message in visitor.call("on_photo", [photo, visitor.network])]
                areas = ", ".join(f"{0.01 * step:.2f}" for step in range(5, 60, 3))
                options = {"areas": areas, "instead": "blur", "effort": "thorough", "answers": 3, "refine": True}
                async for message in visitor.explain(photo=photo, target=0, **options):
                    if "<progress" in json.dumps(message):
                        running.set()

    def visit(address: str) -> None:
        with contextlib.suppress(httpx.HTTPError):  # the server stops
            asyncio.run(explain(address))

    with run_app(tmp_path) as app:
        thread = threading.Thread(target=visit, args=(app.address,), daemon=True)
        thread.start()
        assert running.wait(30)
        begin = time.monotonic()
        os.kill(app.process, signal.SIGINT)
        while Path(f"/proc/{app.process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
            assert time.monotonic() - begin < 15
            time.sleep(0.05)
        assert list((tmp_path / "temp").iterdir()) == []
    thread.join(10)
    assert not thread.is_alive()
