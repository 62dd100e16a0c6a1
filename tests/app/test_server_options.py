"""Start of the app: options that are rejected, allowed hosts, and the environment of the server."""

import importlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
from torch import nn
from typer.testing import CliRunner

from extremal import zoo
from extremal.app import server
from extremal.cli import main
from extremal.networks.network import Network
from support.app_toys import save_colour_image
from support.errors import message_of


def environment() -> dict[str, str]:
    """Return all variables except those of pytest, and those that torch sets when parts of it are first used."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TORCH"))}


class TestRejected:
    @pytest.fixture(autouse=True)
    def nothing_is_left(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
        """After each rejection the environment is as before, and no folder is left."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(server.secrets, "token_urlsafe", lambda length: f"random-{length}")
        before = environment()
        yield
        assert environment() == before
        assert list(tmp_path.glob("extremal-*")) == []

    @staticmethod
    def message(**options: Any) -> str:
        fail = {"on_start": lambda address: pytest.fail(f"it started at {address}")}
        return message_of(server.serve, **{"port": 0, **fail, **options})

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", "", "127.0.0.1.example.org"])
    def test_open_to_others_without_a_token(self, host: str) -> None:
        assert self.message(host=host) == (
            f"an app that others can reach must require a token, got --host {host!r} without one; e.g. --token "
            "random-16"
        )

    @pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
    @pytest.mark.parametrize(
        "token", ["short", "sixteen letters!", "fifteen-letters", "semi;colon-semi;colon", "é" * 16]
    )
    def test_a_weak_token(self, host: str, token: str) -> None:
        assert self.message(host=host, token=token) == (
            f"--token must have at least 16 letters, digits, - or _, got {len(token)} characters; e.g. random-16"
        )

    def test_a_port_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as used:
            port = used.getsockname()[1]
            assert self.message(port=port) == (
                f"the app must be able to listen on 127.0.0.1 port {port}: Address already in use; "
                "choose another --port, or 0 for a free one"
            )

    def test_an_address_of_another_machine(self) -> None:
        assert self.message(host="203.0.113.1", token="a-token-of-some-length") == (
            "the app must be able to listen on 203.0.113.1 port 0: Cannot assign requested address; "
            "choose another --port, or 0 for a free one"
        )

    @pytest.mark.parametrize("port", [-1, 65536])
    def test_an_invalid_port(self, port: int) -> None:
        assert self.message(port=port) == f"--port must lie in 0..65535, got {port}; 0 chooses a free one"

    @pytest.mark.parametrize(
        ("options", "received"),
        [
            ({"timeout": 0.0}, "a timeout of 0 s and a queue of 32"),
            ({"timeout": float("nan")}, "a timeout of nan s and a queue of 32"),
            ({"queue": 0}, "a timeout of 120 s and a queue of 0"),
        ],
    )
    def test_no_timeout_or_no_queue(self, options: dict[str, Any], received: str) -> None:
        assert self.message(**options) == (
            "the app must have a positive timeout and queue, up to 86,400 s and 10,000, "
            f"got {received}; e.g. 120 and 32"
        )

    @pytest.mark.parametrize("name", ["gradio", "uvicorn"])
    def test_gradio_is_missing(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr("extremal.errors.find_spec", lambda package: None if package == name else package)
        assert self.message() == (
            f"the app must have gradio, uvicorn, {name} is not installed; pip install 'extremal[app]'"
        )

    def test_a_network_that_cannot_be_loaded(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(zoo, "load", lambda name, weights=None, *_: Network(nn.Flatten(0)))
            assert self.message(networks=["toy"]) == (
                "a network must return (B, classes), toy returned shape (196608,); wrap it, e.g. to [:, None]"
            )

    def test_the_command_prints_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        result = CliRunner().invoke(main.app, ["app", "--host", "0.0.0.0"], env={"EXTREMAL_TOKEN": ""})
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == (
            "error: an app that others can reach must require a token, got --host '0.0.0.0' without one; "
            "e.g. --token random-16\n"
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
def test_allowed_hosts(host: str, token: str, names: set[str]) -> None:
    assert server._host_names(host, token) == names


def test_the_environment_inside_the_private_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/own")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    before = environment()
    with server._private_environment() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder / "uploads")
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        (folder / "file").touch()
    assert not folder.exists()
    assert environment() == before


def test_responses_are_sent_without_delay() -> None:
    with server._open_socket("127.0.0.1", 0) as open_socket:
        address = open_socket.getsockname()
        with socket.create_connection(address), open_socket.accept()[0] as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_gradio_rejects_files_that_were_not_uploaded(tmp_path: Path) -> None:
    """Even without the middleware: the check of gradio is on."""
    import gradio as gr
    from fastapi.testclient import TestClient

    from extremal.app.result_cache import ResultCache
    from extremal.app.uploads import UploadStore

    received = list[str]()
    with server._private_environment() as folder:
        with gr.Blocks() as blocks:
            field = gr.File()
            field.change(received.append, field, None, api_name="look")
        client = TestClient(server.create_app(blocks, ResultCache(folder), UploadStore(folder / "uploads"), {}))
        file = {"path": str(save_colour_image(tmp_path / "cat.png")), "meta": {"_type": "gradio.FileData"}}
        response = client.post("/gradio_api/run/look", json={"data": [file]})
    assert response.status_code == 500
    assert "it was not uploaded by a user" in response.text
    assert received == []


def test_gradio_writes_no_stubs_into_the_source() -> None:
    importlib.import_module("extremal.app.page")
    assert not [*Path(server.__file__).parent.glob("*.pyi")]
