"""A running app under each attack, briefly: it answers in the 400s, serves others, and logs little."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("gradio")

from support import app_attacks as attacks
from support.app_client import Visitor, serve_app
from support.app_load import run_users

TESTS = Path(__file__).parents[1]
ATTACKER = "127.0.0.1"  # the only loopback address of some systems


@dataclass(frozen=True)
class Target:
    """A running app, with its private folder and its log."""

    address: str
    process: int
    folder: Path
    log: Path


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """An app with a small network; after all attacks it ends within five seconds, and leaves nothing."""
    root = tmp_path_factory.mktemp("attacked")
    (root / "temp").mkdir()
    environment = {"TMPDIR": str(root / "temp"), "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    with (
        (root / "log").open("wb") as stderr,
        serve_app("--network", "support.app_toys:random_network", stderr=stderr, **environment) as (address, process),
    ):
        (folder,) = (root / "temp").glob("extremal-app-*")
        yield Target(address, process, folder, root / "log")
        begin = time.monotonic()
        os.kill(process, signal.SIGTERM)
        while Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
            assert time.monotonic() - begin < 5
            time.sleep(0.02)
        assert not folder.exists()
    log = (root / "log").read_text()
    assert "Traceback" not in log
    assert len(log) < 20_000


def test_odd_requests_are_answered(target: Target) -> None:
    responses = asyncio.run(attacks.send_odd_requests(target.address, ATTACKER))
    harmless = {"part named by dots", "upgrade", "cookie", "forwarded", "long header", "many values"}
    statuses = {name: status for name, (status, _) in responses.items()}
    assert {name: statuses[name] for name in harmless} == dict.fromkeys(harmless, 200)
    others = {name: status for name, status in statuses.items() if name not in harmless}
    assert {name: status for name, status in others.items() if not 400 <= status < 500} == {}
    for _, response in responses.values():
        assert b"evil.example" not in response.replace(b"got 'evil.example'", b"")
        assert str(target.folder).encode() not in response


def test_no_page_shows_the_private_folder(target: Target) -> None:
    async def read() -> list[str]:
        async with attacks.connect(target.address, ATTACKER) as client:
            visitor = Visitor(client)
            await visitor.open()
            messages = [str(message) async for message in visitor.call("load_example", [0])]
            pages = [(await client.get(path)).text for path in ("/", "/config", "/gradio_api/info")]
            return [*pages, *messages, str(await visitor.upload(b"abc"))]

    texts = asyncio.run(read())
    assert not [text for text in texts if str(target.folder) in text]
    assert "/uploads/" in texts[1]


def test_odd_values_are_rejected_without_a_traceback(target: Target) -> None:
    statuses = asyncio.run(attacks.send_odd_values(target.address, 60, ATTACKER))
    assert set(statuses) <= {200, 400, 403, 404}, statuses
    assert statuses[400] > 20


def test_invented_sessions_count_as_one_visitor(target: Target) -> None:
    """Others of the same address are served meanwhile."""

    async def attack() -> list[str]:
        attacking = asyncio.create_task(attacks.invent_sessions(target.address, 60, ATTACKER))
        await asyncio.sleep(1)
        measurements = await run_users(target.address, target.process, 2, 0.1)
        assert (await attacking).total() == 60
        assert len(measurements.requests) == 2
        return measurements.errors

    assert asyncio.run(attack()) == []


def test_uploads_are_bounded_and_broken_ones_leave_nothing(target: Target) -> None:
    async def attack() -> int:
        await attacks.upload_much(target.address, 5, 19_000_000, ATTACKER)
        before = await wait_until_still(target.folder)
        await attacks.break_uploads(target.address, 4, ATTACKER)
        end = time.monotonic() + 10  # on a busy machine the app notices later that they have left
        while held_bytes() != (before, 0) and time.monotonic() < end:
            await asyncio.sleep(0.1)
        assert held_bytes() == (before, 0)
        return before

    def held_bytes() -> tuple[int, int]:
        return attacks.folder_bytes(target.folder), attacks.unlinked_bytes(target.process)

    assert asyncio.run(attack()) < 80_000_000


async def wait_until_still(folder: Path) -> int:
    """Return the bytes of a folder once they stay the same: answers to earlier requests are still being written."""
    end, size = time.monotonic() + 60, attacks.folder_bytes(folder)
    while time.monotonic() < end:
        await asyncio.sleep(3)
        before, size = size, attacks.folder_bytes(folder)
        if size == before:
            break
    return size


def test_half_a_request_is_closed(target: Target) -> None:
    begin = time.monotonic()
    statuses = asyncio.run(attacks.hold_connections(target.address, 3, 25.0, ATTACKER))
    assert set(statuses) == {attacks.CLOSED, 408}
    assert time.monotonic() - begin < 22


def test_thin_and_large_images_do_not_take_the_memory(target: Target) -> None:
    outcomes = asyncio.run(attacks.flood_with_images(target.address, 4, ATTACKER))
    assert outcomes.total() == 4
    assert set(outcomes) <= {"classified", "rejected"}
