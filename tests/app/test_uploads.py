"""Uploads of the app: budgets for visitors, addresses and all, names, age, and nothing left of broken ones."""

import io
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from extremal.app import uploads
from extremal.app.clients import SCOPE_KEY, Client
from extremal.app.path_alias import PathAlias
from extremal.app.upload_route import add_upload_route
from extremal.app.uploads import Budget, TooManyUploads, UploadStore

ANNA, BEN, CARL = Client("192.0.2.1", "anna"), Client("192.0.2.1", "ben"), Client("192.0.2.2", "carl")
BUDGET = Budget(visitor_bytes=30, address_bytes=50, all_bytes=70, address_active=2, shared_active=2, all_active=3)
FIELD = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nabc\r\n'
FILE = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nabc\r\n'


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path / "uploads", BUDGET)


def put(store: UploadStore, client: Client, n_bytes: int = 10, name: str = "cat.png") -> Path:
    return store.store(client, io.BytesIO(b"x" * n_bytes), name)


def folder_bytes(store: UploadStore) -> int:
    return sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())


class TestBudget:
    def test_of_a_visitor(self, store: UploadStore) -> None:
        paths = [put(store, ANNA) for _ in range(5)]
        assert [path.exists() for path in paths] == [False, False, True, True, True]
        assert folder_bytes(store) == store.n_bytes() == 30

    def test_of_an_address(self, store: UploadStore) -> None:
        first = [put(store, ANNA) for _ in range(3)]
        second = [put(store, BEN) for _ in range(3)]
        assert [path.exists() for path in first] == [False, True, True]
        assert all(path.exists() for path in second)

    def test_of_all_is_paid_by_the_largest_address(self, store: UploadStore) -> None:
        own = [put(store, CARL) for _ in range(2)]
        others = [put(store, client) for client in (ANNA, ANNA, ANNA, BEN, BEN)]
        last = put(store, Client("192.0.2.3", "dora"))
        assert all(path.exists() for path in (*own, last))
        assert [path.exists() for path in others] == [False, True, True, True, True]
        assert folder_bytes(store) == 70

    def test_228_mb_of_one_client(self, tmp_path: Path) -> None:
        """In thousandths of the real sizes."""
        budget = Budget(60_000, 150_000, 600_000)
        store = UploadStore(tmp_path / "a", budget)
        for _ in range(12):
            put(store, ANNA, 19_000)
        assert folder_bytes(store) == 57_000

    def test_many_addresses(self, store: UploadStore) -> None:
        for number in range(50):
            put(store, Client(f"192.0.2.{number}", str(number)), number)
        assert 0 < folder_bytes(store) <= BUDGET.all_bytes

    def test_threads(self, store: UploadStore) -> None:
        def upload(number: int) -> None:
            for _ in range(20):
                put(store, Client(str(number), "x"), 7)

        threads = [threading.Thread(target=upload, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert folder_bytes(store) == store.n_bytes() <= BUDGET.all_bytes


def test_old_files_are_removed(store: UploadStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(uploads.time, "monotonic", lambda: now)
    old = put(store, ANNA)
    now = uploads.MAX_AGE - 1
    recent = put(store, CARL)
    now += 2
    store.remove_old()
    assert (old.exists(), recent.exists()) == (False, True)
    assert list(store.folder.iterdir()) == [recent.parent]


def test_uploads_in_progress(store: UploadStore) -> None:
    with store.slot(ANNA), store.slot(BEN):
        with pytest.raises(TooManyUploads), store.slot(ANNA):
            pass
        with store.slot(CARL):  # an address without any has room
            with pytest.raises(TooManyUploads), store.slot(CARL):
                pass
            with pytest.raises(TooManyUploads), store.slot(Client("192.0.2.3")):
                pass
    with store.slot(ANNA):
        pass


def test_a_file_that_cannot_be_read_leaves_nothing(store: UploadStore) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        store.store(ANNA, Broken(), "cat.png")
    assert list(store.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("cat.png", "cat.png"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\cat.png", "cat.png"),
        ("<b>cat\0\n.png", "bcat.png"),
        ("..", "image"),
        ("", "image"),
        ("猫.png", "猫.png"),
        ("a" * 5000 + ".png", "a" * 96 + ".png"),
        ("猫" * 5000, "猫" * 33),
    ],
)
def test_names(store: UploadStore, name: str, stored: str) -> None:
    path = put(store, ANNA, name=name)
    assert (path.name, path.parents[1]) == (stored, store.folder)


class TestRoute:
    @pytest.fixture
    def client(self, store: UploadStore) -> TestClient:
        app = FastAPI()
        add_upload_route(app, store, PathAlias(store.folder))

        async def identified(scope, receive, send):  # type: ignore[no-untyped-def]
            await app({**scope, SCOPE_KEY: ANNA}, receive, send)

        return TestClient(identified)

    def test_an_upload_is_named_by_its_alias(self, client: TestClient, store: UploadStore) -> None:
        response = client.post("/gradio_api/upload", files={"files": ("cat.png", b"content")})
        (alias,) = response.json()
        assert alias.startswith("/uploads/")
        assert Path(PathAlias(store.folder).to_real(alias)).read_bytes() == b"content"

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("multipart/form-data", b"--x"),
            ("multipart/form-data; boundary=" + "a" * 71, b"--x"),
            ("multipart/form-data; boundary=", b"--x"),
            ("multipart/form-data; boundary=x; charset=nope", b"--x"),
            ("text/plain", b"--x"),
            ("multipart/form-data; boundary=x", b"--y\r\n"),
            ("multipart/form-data; boundary=x", b""),
            ("multipart/form-data; boundary=x", b"--x\r\n\r\nabc\r\n--x--\r\n"),
            ("multipart/form-data; boundary=x", FILE * 2 + b"--x--\r\n"),
            ("multipart/form-data; boundary=x", FILE),  # cut
        ],
    )
    def test_malformed_uploads_leave_nothing(
        self, client: TestClient, store: UploadStore, content_type: str, body: bytes
    ) -> None:
        response = client.post("/gradio_api/upload", content=body, headers={"content-type": content_type})
        assert response.status_code == 400
        assert response.text.startswith("an upload must")
        assert list(store.folder.iterdir()) == []

    def test_too_many(self, client: TestClient, store: UploadStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("extremal.app.upload_route.MAX_WAIT", 0.2)
        with store.slot(ANNA), store.slot(BEN):
            response = client.post("/gradio_api/upload", files={"files": ("cat.png", b"content")})
        assert (response.status_code, response.text) == (429, "too many uploads are in progress; try again in a minute")

    def test_an_upload_waits_for_others_to_end(self, client: TestClient, store: UploadStore) -> None:
        others = ExitStack()
        for other in (ANNA, BEN):
            others.enter_context(store.slot(other))
        ending = threading.Timer(0.3, others.close)
        ending.start()
        response = client.post("/gradio_api/upload", files={"files": ("cat.png", b"content")})
        ending.join()
        assert response.status_code == 200

    def test_the_page_shows_no_progress(self, client: TestClient) -> None:
        assert client.get("/gradio_api/upload_progress?upload_id=a").text == 'data: {"msg": "done"}\n\n'
