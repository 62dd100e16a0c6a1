"""The server of the app: to whom it opens, what it refuses, and that nothing is left when it is gone."""

import asyncio
import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("gradio")
import httpx
from torch import nn
from typer.testing import CliRunner

import extremal
from extremal import zoo
from extremal.app import server
from extremal.cli import main
from extremal.errors import ExtremalValueError
from extremal.networks.network import Network
from support.app_toys import photo

TESTS = Path(__file__).parents[1]
USERS = 4


def _script() -> ModuleType:
    """benchmarks/crowd.py, which imports from its own folder."""
    sys.path.insert(0, str(TESTS.parent / "benchmarks"))
    try:
        return importlib.import_module("crowd")
    finally:
        sys.path.pop(0)


crowd = _script()


def environment() -> dict[str, str]:
    """All variables but the test's own, and those that torch sets when a part of it is first used."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TORCH"))}


class TestRefused:
    @pytest.fixture(autouse=True)
    def empty(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
        """Whatever is refused, the environment is as before and no folder is left."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(server.secrets, "token_urlsafe", lambda length: f"drawn-{length}")
        before = environment()
        yield
        assert environment() == before
        assert list(tmp_path.glob("extremal-*")) == []

    @staticmethod
    def told(**options: Any) -> str:
        with pytest.raises(ExtremalValueError) as caught:
            server.serve(**{"port": 0, "started": lambda address: pytest.fail(f"it started at {address}"), **options})
        return str(caught.value)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", "", "127.0.0.1.example.org"])
    def test_open_to_others_without_a_token(self, host: str) -> None:
        assert self.told(host=host) == (
            f"an app that others can reach must ask for a token, got --host {host} and none; e.g. --token drawn-16"
        )

    @pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
    @pytest.mark.parametrize(
        "token", ["short", "sixteen letters!", "fifteen-letters", "semi;colon-semi;colon", "é" * 16]
    )
    def test_a_weak_token(self, host: str, token: str) -> None:
        assert self.told(host=host, token=token) == (
            f"--token must have at least 16 letters, digits, - or _, got {len(token)} characters; e.g. drawn-16"
        )

    def test_a_port_that_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert self.told(port=port) == (
                f"the app must be able to listen at 127.0.0.1 port {port}: Address already in use; "
                "choose another --port, 0 takes a free one"
            )

    def test_an_address_of_another_machine(self) -> None:
        assert self.told(host="203.0.113.1", token="a-token-of-some-length") == (
            "the app must be able to listen at 203.0.113.1 port 0: Cannot assign requested address; "
            "choose another --port, 0 takes a free one"
        )

    @pytest.mark.parametrize("port", [-1, 65536])
    def test_no_such_port(self, port: int) -> None:
        assert self.told(port=port) == f"--port must lie in 0..65535, got {port}; 0 takes a free one"

    @pytest.mark.parametrize(
        ("options", "got"),
        [
            ({"seconds": 0.0}, "0 seconds and a queue of 32"),
            ({"seconds": float("nan")}, "nan seconds and a queue of 32"),
            ({"queue": 0}, "120 seconds and a queue of 0"),
        ],
    )
    def test_no_time_or_no_queue(self, options: dict[str, Any], got: str) -> None:
        assert self.told(**options) == f"the app must have time and a queue, got {got}; take more of both"

    @pytest.mark.parametrize("name", ["gradio", "uvicorn"])
    def test_gradio_is_missing(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setitem(sys.modules, name, None)
        assert self.told() == f"the app must have gradio, {name} is missing; pip install 'extremal[app]'"

    def test_a_network_that_cannot_be_loaded(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(zoo, "load", lambda name, weights=None: Network(nn.Flatten(0)))
            assert self.told(networks=["toy"]) == (
                "a network must return (B, classes), toy returned shape (196608,); wrap it, e.g. to [:, None]"
            )

    def test_by_the_command_with_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        result = CliRunner().invoke(main.app, ["app", "--host", "0.0.0.0"], env={"EXTREMAL_TOKEN": ""})
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == (
            "error: an app that others can reach must ask for a token, got --host 0.0.0.0 and none; "
            "e.g. --token drawn-16\n"
        )


@pytest.mark.parametrize(
    ("host", "token", "names"),
    [
        ("127.0.0.1", "", {"127.0.0.1", "localhost", "[::1]"}),
        ("LOCALHOST".lower(), "", {"127.0.0.1", "localhost", "[::1]"}),
        ("127.0.0.5", "", {"127.0.0.1", "127.0.0.5", "localhost", "[::1]"}),
        ("0.0.0.0", "a-token-of-some-length", set()),
        ("127.0.0.1", "a-token-of-some-length", set()),
    ],
)
def test_the_names_by_which_it_may_be_called(host: str, token: str, names: set[str]) -> None:
    assert server._checked_host(host, token) == names


def test_the_environment_within(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/mine")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    before = environment()
    with server._private_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder / "uploads")
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        (folder / "something").touch()
    assert not folder.exists()
    assert environment() == before


@dataclass(frozen=True)
class Session:
    """An app that runs, with a home, a working directory and a temporary directory that are all its own."""

    address: str
    process: int
    root: Path

    @property
    def private(self) -> Path:
        """Its private folder."""
        (folder,) = (self.root / "temp").iterdir()
        return folder

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.address + path, timeout=30)


def listing(*folders: Path) -> dict[str, int]:
    """Every file with the time of its last change, but what Python makes for itself."""
    found = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return {str(path): path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A real app on a small network; whatever is done with it, in the end nothing of it is left."""
    root = tmp_path_factory.mktemp("session")
    for name in ("home", "work", "temp"):
        (root / name).mkdir()
    (root / "work" / "secret.txt").write_text("mine")
    own = (root / "home", root / "work", Path(extremal.__file__).parent / "app")
    before = listing(*own)
    with started(root) as one:
        yield one
    assert list((root / "temp").iterdir()) == []
    assert listing(*own) == before


def started(root: Path) -> Any:
    """An app whose home, working and temporary directory are there."""
    surroundings = {
        "HOME": str(root / "home"),
        "TMPDIR": str(root / "temp"),
        "PYTHONPATH": str(TESTS),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    serving = crowd.serving("--network", "support.app_toys:any_photograph", folder=root / "work", **surroundings)

    class Started:
        def __enter__(self) -> Session:
            address, process = serving.__enter__()
            return Session(address, process, root)

        def __exit__(self, *why: Any) -> None:
            serving.__exit__(*why)

    return Started()


def test_a_small_crowd_is_served_in_turn(session: Session) -> None:
    seen = asyncio.run(crowd.crowd(session.address, session.process, USERS, 3.0))
    told = crowd.told(seen)
    assert (told["errors"], told["overtaken"], told["served"]) == ([], 0, USERS)
    assert told["answers"] >= USERS
    assert min(told["memory"]) > 50
    assert all(0 < one.asked <= one.joined <= one.begun <= one.done for one in seen.asked)
    assert seen.page
    assert seen.file


def test_it_listens_to_this_machine_alone(session: Session) -> None:
    sockets = {os.readlink(entry) for entry in Path(f"/proc/{session.process}/fd").iterdir() if entry.is_symlink()}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    listening = [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]
    port = int(session.address.rsplit(":", 1)[1])
    assert listening == [f"0100007F:{port:04X}"]


def test_what_is_sent_does_not_wait_for_an_acknowledgement() -> None:
    with server._listening("127.0.0.1", 0) as listening:
        address = listening.getsockname()
        with socket.create_connection(address), listening.accept()[0] as taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{root}/work/secret.txt",
        "secret.txt",
        "{private}/uploads/../../../work/secret.txt",
        "{private}/uploads",
        "{private}/uploads/0123456789abcdef/photo.jpg",
        "{private}/{answer}/view-0/report.html",
        "{private}/uploads/../{answer}/view-0/report.html",
        "{private}/uploads/%2e%2e/{answer}/view-0/report.html",
        "{package}/app/page.js",
    ],
)
def test_no_file_of_others_is_given_out(session: Session, path: str) -> None:
    answer = an_answer(session)
    places = {"root": session.root, "private": session.private, "answer": answer, "package": extremal.__path__[0]}
    found = session.get("/gradio_api/file=" + path.format(**places))
    assert found.status_code in (403, 404)
    assert "mine" not in found.text
    assert "<html" not in found.text


def an_answer(session: Session) -> str:
    """The name of an answer on the shelf."""
    names = [entry.parents[1].name for entry in session.private.glob("*/view-0/report.html")]
    assert names, "the crowd left answers"
    return names[0]


def test_results_by_their_own_name_alone(session: Session) -> None:
    name = an_answer(session)
    report = session.get(f"/results/{name}/0/report.html")
    assert report.status_code == 200
    assert report.headers["content-security-policy"] == "sandbox allow-scripts; frame-ancestors 'self'"
    for guess in (
        f"{name[:-1]}x/0/report.html",
        f"{name}/1/report.html",
        f"{name}/0/mask-0.1.png",
        "%C3%A9/0/figure.png",
    ):
        refused = session.get(f"/results/{guess}")
        assert refused.status_code == 404
        assert refused.json() == {"detail": "this result is no longer here; explain the photograph again"}
    for guess in (f"..%2f{name}/0/report.html", f"{name}/0/..%2f..%2freport.html", f"{name}/x/report.html"):
        assert session.get(f"/results/{guess}").status_code in (404, 422)


def questions(session: Session, path: str) -> tuple[int, str]:
    """What is answered to a look at the file of this path."""

    async def look() -> tuple[int, str]:
        async with httpx.AsyncClient(base_url=session.address, timeout=30) as client:
            visitor = crowd.Visitor(client)
            await visitor.open()
            photo = {"path": path, "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
            try:
                messages = [message async for message in visitor.ask("look", [photo, visitor.network])]
            except httpx.HTTPStatusError as error:
                return error.response.status_code, error.response.text
            return 200, json.dumps(messages)

    return asyncio.run(look())


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "{root}/work/cat.png", "{private}/uploads/../{answer}/view-0/figure.png"]
)
def test_no_file_of_others_is_looked_at(session: Session, path: str) -> None:
    photo(session.root / "work" / "cat.png")
    given = path.format(root=session.root, private=session.private, answer=an_answer(session))
    before = set(session.private.rglob("*"))
    assert questions(session, given) == (400, f"a file must be uploaded, got {given!r}")
    assert set(session.private.rglob("*")) == before  # nothing was copied
    (session.root / "work" / "cat.png").unlink()


def test_gradio_itself_would_not_look_at_it_either(tmp_path: Path) -> None:
    """Without the guard: its own check is on."""
    import gradio as gr
    from fastapi.testclient import TestClient

    from extremal.app.result_cache import Shelf

    heard = list[str]()
    with server._private_folder() as folder:
        with gr.Blocks() as blocks:
            field = gr.File()
            field.change(heard.append, field, None, api_name="look")
        inside = TestClient(server.mounted(blocks, Shelf(folder)))
        named = {"path": str(photo(tmp_path / "cat.png")), "meta": {"_type": "gradio.FileData"}}
        answer = inside.post("/gradio_api/run/look", json={"data": [named]})
    assert answer.status_code == 500
    assert "it was not uploaded by a user" in answer.text
    assert heard == []


@pytest.mark.parametrize("number", range(4))
def test_an_example_is_taken(session: Session, number: int) -> None:
    async def take() -> str:
        async with httpx.AsyncClient(base_url=session.address, timeout=30) as client:
            visitor = crowd.Visitor(client)
            await visitor.open()
            taken = [m async for m in visitor.ask("load_example", [number]) if m["msg"] == "process_completed"]
            photo = taken[0]["output"]["data"][0]
            photo = photo.get("value", photo)
            looked = [m async for m in visitor.ask("look", [photo, visitor.network]) if m["msg"] == "process_completed"]
            return json.dumps(looked)

    assert "Choose a class, and explain it." in asyncio.run(take())


def test_what_no_picture_is_is_told_by_its_own_name(session: Session) -> None:
    async def look() -> str:
        async with httpx.AsyncClient(base_url=session.address, timeout=30) as client:
            visitor = crowd.Visitor(client)
            await visitor.open()
            photo = await visitor.upload(b"no picture")
            return json.dumps([message async for message in visitor.ask("look", [photo, visitor.network])])

    told = asyncio.run(look())
    assert "an image must be in a format that Pillow reads, got &#39;photo.jpg&#39;; convert it to PNG or JPEG" in told
    assert str(session.root) not in told


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
    found = session.get(path)
    assert found.status_code == status
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "server" not in found.headers


def test_a_foreign_host_and_a_foreign_page(session: Session) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        assert httpx.get(session.address, headers=headers).status_code == 403


def test_an_upload_that_is_too_large_leaves_nothing(session: Session) -> None:
    before = set(session.private.rglob("*"))
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + b"\0" * 21 * 10**6
    kind = {"content-type": "multipart/form-data; boundary=x"}

    def parts() -> Iterator[bytes]:
        for start in range(0, len(form), 2**16):
            yield form[start : start + 2**16]

    for content, status in ((form, 413), (parts(), 411)):
        try:
            found = httpx.post(f"{session.address}/gradio_api/upload", content=content, headers=kind).status_code
        except httpx.WriteError:  # it hung up before it was told everything
            found = status
        assert found == status
    assert set(session.private.rglob("*")) == before


def test_ended_while_people_wait(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a job with pages open: it ends soon, and its folder goes."""
    for name in ("home", "work", "temp"):
        (tmp_path / name).mkdir()
    picture, running = photo(tmp_path / "cat.png").read_bytes(), threading.Event()

    async def ask(address: str) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=30) as client:
            visitor = crowd.Visitor(client)
            await visitor.open()
            async with visitor.there():
                photo = await visitor.upload(picture)
                assert [message async for message in visitor.ask("look", [photo, visitor.network])]
                areas = ", ".join(f"{0.01 * step:.2f}" for step in range(5, 60))
                question = ["What is enough (preserve)", "Regions of the photograph", None, areas, "blur", 3, True]
                async for message in visitor.ask("explain", [photo, visitor.network, 0, *question]):
                    if "<progress" in json.dumps(message):
                        running.set()

    def person(address: str) -> None:
        with contextlib.suppress(httpx.HTTPError):  # the server goes
            asyncio.run(ask(address))

    with started(tmp_path) as one:
        thread = threading.Thread(target=person, args=(one.address,), daemon=True)
        thread.start()
        assert running.wait(30)
        begin = time.monotonic()
        os.kill(one.process, signal.SIGINT)
        while Path(f"/proc/{one.process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
            assert time.monotonic() - begin < 15
            time.sleep(0.05)
        assert list((tmp_path / "temp").iterdir()) == []
    thread.join(10)
    assert not thread.is_alive()


def test_gradio_leaves_the_source_as_it_is() -> None:
    importlib.import_module("extremal.app.page")
    assert not [*Path(server.__file__).parent.glob("*.pyi")]
