"""A small server that answers as the Hugging Face hub does, and folders in the form of its cache."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "a" * 40


@dataclass
class Hub:
    """Repositories OWNER/NAME with their files, and what the server was asked for."""

    repositories: dict[str, Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)  # their files cannot be downloaded
    requests: list[str] = field(default_factory=list)
    status: int = 0  # of every answer of the API; 0: as it should be

    @property
    def downloads(self) -> list[str]:
        """Names of the files whose content was sent, sorted."""
        found = (re.fullmatch(r"GET /[^/]+/[^/]+/resolve/[^/]+/(.+)", request) for request in self.requests)
        return sorted(match[1] for match in found if match)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        status, headers, body = self._respond(path)
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _respond(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path == "/":
            return 200, {}, b"a hub"
        if self.hub.status:
            return self.hub.status, {}, b"{}"
        found = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+)(?:/(revision|tree|resolve)/([^/]+)(?:/(.+))?)?", path)
        folder = self.hub.repositories.get(found[1]) if found else None
        if found is None or folder is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        _, kind, revision, name = found.groups()
        if revision not in (None, "main", "v1", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        if kind == "resolve":
            return self._send_file(found[1], folder, name)
        answer: object = {"id": found[1], "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
        if kind == "tree":
            contents = {file: (folder / file).read_bytes() for file in files}
            answer = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in contents.items()
            ]
        return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def _send_file(self, repository: str, folder: Path, name: str) -> tuple[int, dict[str, str], bytes]:
        if repository in self.hub.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        if not (folder / name).is_file():
            return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
        content = (folder / name).read_bytes()
        return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'}, content


@contextmanager
def serve_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """Serve an empty hub that huggingface_hub asks instead of the real one, with this cache."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}", cache)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """Let huggingface_hub ask another hub, with another cache, without a token."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def write_cache(cache: Path, repository: str, source: Path, revision: str = "main") -> Path:
    """Write a folder to a cache as a snapshot, in the form of huggingface_hub: links to blobs; return the snapshot."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for folder in (root / "refs", root / "blobs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(COMMIT)
    for file in source.iterdir():
        content = file.read_bytes()
        blob = root / "blobs" / hashlib.sha1(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / file.name).symlink_to(blob)
    return snapshot
