"""Access middleware of the app: calls may refer to uploaded files only."""

import json
from pathlib import Path

import pytest

from support.asgi import CALL_PATH, ProtectedApp, rejection, request


def file_data(path: object) -> dict[str, object]:
    """Return a file as the page refers to it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


class TestForeignFiles:
    @pytest.mark.parametrize("path", [CALL_PATH, f"{CALL_PATH}/", "/gradio_api/run/predict"])
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
    def test_rejected_before_gradio_sees_them(self, path: str, address: str) -> None:
        app = ProtectedApp()
        body = json.dumps({"data": ["embedded", [file_data(address)]]}).encode()
        for parts in ([body], [body[:40], body[40:]]):
            assert rejection(request(path, method="POST", body=parts, app=app), app) == (
                400,
                f"a file must be uploaded, got {address!r}",
            )

    def test_in_any_encoding(self) -> None:
        app = ProtectedApp()
        escaped = b'{"data": [{"p\\u0061th": "\\u0068ttp:\\/\\/evil.example"}]}'
        for body in (escaped, json.dumps({"data": [file_data("http://evil.example")]}).encode("utf-16")):
            response = request(CALL_PATH, method="POST", body=body, app=app)
            assert rejection(response, app) == (
                400,
                "a file must be uploaded, got 'http://evil.example'",
            )

    @pytest.mark.parametrize("depth", [10, 500, 900, 930, 950, 960, 970, 5000])
    def test_at_any_depth(self, depth: int) -> None:
        app = ProtectedApp()
        body = f'{{"x": {"[" * depth}{"]" * depth}, "data": [{json.dumps(file_data("http://evil.example"))}]}}'
        status, text = rejection(request(CALL_PATH, method="POST", body=body.encode(), app=app), app)
        known = "a file must be uploaded, got 'http://evil.example'"
        assert (status, text) in ((400, known), (400, "a call must not be nested so deeply"))
        assert text == known or depth > 900

    def test_behind_a_symbolic_link(self, tmp_path: Path) -> None:
        for name in ("real", "elsewhere"):
            (tmp_path / name).mkdir()
        (tmp_path / "uploads").symlink_to(tmp_path / "real")
        (tmp_path / "real" / "out").symlink_to(tmp_path / "elsewhere")
        for path, status in (("uploads/a.png", 200), ("real/a.png", 200), ("uploads/out/a.png", 400)):
            body = json.dumps({"data": [file_data(str(tmp_path / path))]}).encode()
            assert request(CALL_PATH, method="POST", body=body, uploads=tmp_path / "uploads").status == status

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"no JSON",
            b"\xff\xff",
            json.dumps({"data": [file_data("/private/uploads/cat.png"), "see http://example.org", 5, None]}).encode(),
            json.dumps({"data": [{"path": 7}]}).encode(),
        ],
    )
    def test_all_other_bodies_are_forwarded_unchanged(self, body: bytes) -> None:
        app = ProtectedApp()
        assert request(CALL_PATH, method="POST", body=[body[:9], body[9:]], app=app).status == 200
        assert app.bodies == [body]
