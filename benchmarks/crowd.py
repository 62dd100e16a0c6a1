"""A crowd before the app: users who come at once, each served in turn, while the page stays quick and memory bounded.

Use: python benchmarks/crowd.py [--users 20] [--seconds 120]

Each user does over plain HTTP what the page does: opens it, uploads a photograph, has it looked at, asks for an
explanation of one area and follows it to its end; then the next one, in a new session. Who stands in line when the time
is up is still served. Beside them the page and a file of it are asked for twice a second.
Each run is appended to benchmarks/results/crowd.jsonl; it ends with 1 where a promise is broken: no errors, first come
first served, the page within 300 ms for 95 of 100, memory that does not grow.
"""

import argparse
import asyncio
import io
import itertools
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

import records

RESULTS = records.FOLDER / "crowd.jsonl"
PHOTOGRAPHS = Path(__file__).parents[1] / "src" / "extremal" / "app" / "photographs"
PROBE, MEMORY = 0.5, 30.0  # s between looks
QUICK = 300.0  # ms, for 95 of 100 answers of the page
GROWTH = 1.15  # of the memory after the warm-up, at most
PATIENCE = 900.0  # s


@dataclass(frozen=True)
class Asked:
    """One explanation."""

    user: int
    joined: float  # s, when it was known to stand in the line
    asked: float  # s, when it was asked for
    begun: float  # s, when it was first told to run
    done: float  # s


@dataclass
class Seen:
    """What the crowd has seen."""

    asked: list[Asked] = field(default_factory=list)
    page: list[float] = field(default_factory=list)  # s
    file: list[float] = field(default_factory=list)  # s
    glances: list[float] = field(default_factory=list)  # s
    memory: list[float] = field(default_factory=list)  # MB, every 30 s
    errors: list[str] = field(default_factory=list)

    def overtaken(self) -> int:
        """Pairs where one asked when the other stood in the line already, and was served before it."""
        pairs = itertools.permutations(self.asked, 2)
        return sum(first.joined < other.asked and other.done < first.done for first, other in pairs)


class Visitor:
    """A browser's part of a session.

    Args:
        client: of the app's address.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client, self.session = client, secrets.token_hex(6)

    async def open(self) -> None:
        """The page, and what it tells of its events."""
        page = await self.client.get("/")
        page.raise_for_status()
        config = (await self.client.get("/config")).raise_for_status().json()
        self.events = {one["api_name"]: one["id"] for one in config["dependencies"]}
        (chosen,) = [one for one in config["components"] if one["props"].get("elem_id") == "network"]
        self.network = chosen["props"]["value"]

    async def upload(self, picture: bytes) -> dict[str, Any]:
        """A photograph to the server; how the page names it from then on."""
        answer = await self.client.post("/gradio_api/upload", files={"files": ("photo.jpg", picture, "image/jpeg")})
        (path,) = answer.raise_for_status().json()
        return {"path": path, "orig_name": "photo.jpg", "meta": {"_type": "gradio.FileData"}}

    async def ask(self, event: str, data: list[Any]) -> AsyncIterator[dict[str, Any]]:
        """Every message of an event, until it is over."""
        question = {"data": data, "fn_index": self.events[event], "session_hash": self.session}
        (await self.client.post("/gradio_api/queue/join", json=question)).raise_for_status()
        stream = self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session})
        async with stream as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    message = json.loads(line.removeprefix("data: "))
                    if message["msg"] == "close_stream":
                        return
                    yield message

    @asynccontextmanager
    async def there(self) -> AsyncIterator[None]:
        """Within this the page is open: as long as its heartbeat is listened to."""
        async with self.client.stream("GET", f"/gradio_api/heartbeat/{self.session}") as beats:
            beats.raise_for_status()
            yield


def picture(number: int) -> bytes:
    """A photograph that nobody else has: a crop of one of the app's own, as JPEG."""
    names = sorted(PHOTOGRAPHS.glob("*.jpg"))
    with Image.open(names[number % len(names)]) as whole:
        side = min(whole.size) - number % 50
        left, top = (whole.width - side) * (number % 7) // 6, (whole.height - side) * (number % 5) // 4
        buffer = io.BytesIO()
        whole.convert("RGB").crop((left, top, left + side, top + side)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


async def visit(client: httpx.AsyncClient, user: int, number: int, seen: Seen) -> None:
    """One session of one user: from the page to the answer and its report."""
    visitor = Visitor(client)
    await visitor.open()
    async with visitor.there():
        photo = await visitor.upload(picture(number))
        begin = time.monotonic()
        (looked,) = [m async for m in visitor.ask("look", [photo, visitor.network]) if m["msg"] == "process_completed"]
        seen.glances.append(time.monotonic() - begin)
        target = looked["output"]["data"][0]["value"]
        area = f"{0.05 + 0.001 * (number % 100):.3f}"
        question = ["What is enough (preserve)", "Regions of the photograph", None, area, "blur", 1, False]
        asked, joined, begun, told = time.monotonic(), 0.0, 0.0, ""
        async for message in visitor.ask("explain", [photo, visitor.network, target, *question]):
            text = json.dumps(message)
            if message["msg"] == "process_generating":
                joined = joined or time.monotonic()
                begun = begun or (time.monotonic() if "<progress" in text else 0.0)
            if message["msg"] == "process_completed":
                told = text
        done = time.monotonic()
        report = re.search(r"/results/[\w-]+/0/report\.html", told)
        if report is None:
            raise ValueError(f"no answer: {told}")
        (await client.get(report[0])).raise_for_status()
        seen.asked.append(Asked(user, joined, asked, begun or done, done))


async def keep_visiting(address: str, user: int, users: int, end: float, seen: Seen) -> None:
    """One user, session after session until the time is up."""
    async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as client:
        for number in itertools.count(user, users):
            try:
                await visit(client, user, number, seen)
            except (httpx.HTTPError, ValueError, KeyError) as error:
                seen.errors.append(f"user {user}: {type(error).__name__}: {error}")
                await asyncio.sleep(1)
            if time.monotonic() > end:
                return


async def probe(address: str, seen: Seen) -> None:
    """How quickly the page and a file of it come, until this is cancelled."""
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        while True:
            for path, found in (("/", seen.page), ("/favicon.ico", seen.file)):
                begin = time.monotonic()
                try:
                    (await client.get(path)).raise_for_status()
                except httpx.HTTPError as error:
                    seen.errors.append(f"{path}: {type(error).__name__}: {error}")
                found.append(time.monotonic() - begin)
            await asyncio.sleep(PROBE)


async def weigh(process: int, seen: Seen) -> None:
    """The memory of the server, until this is cancelled."""
    while True:
        seen.memory.append(resident(process))
        await asyncio.sleep(MEMORY)


def resident(process: int) -> float:
    """Resident memory of a process, MB."""
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1000


async def crowd(address: str, process: int, users: int, seconds: float) -> Seen:
    """So many users at once for so long; everybody who came is served."""
    seen, end = Seen(), time.monotonic() + seconds
    beside = [asyncio.create_task(probe(address, seen)), asyncio.create_task(weigh(process, seen))]
    await asyncio.gather(*(keep_visiting(address, user, users, end, seen) for user in range(users)))
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    seen.memory.append(resident(process))
    return seen


@contextmanager
def serving(*options: str, folder: Path | None = None, **surroundings: str) -> Iterator[tuple[str, int]]:
    """`extremal app` in a process of its own, in this folder: its address and process."""
    command = [str(Path(sys.executable).with_name("extremal")), "app", "--port", "0", *options]
    told = {**os.environ, "PYTHONUNBUFFERED": "1", **surroundings}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=told, cwd=folder)
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()  # open ADDRESS in a browser; ...
        if words[:1] != ["open"]:
            raise RuntimeError(f"the app did not start: {words}")
        httpx.get(words[1], timeout=60).raise_for_status()
        yield words[1].rstrip("/"), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def spread(seconds: list[float]) -> dict[str, float]:
    """Middle, 95 of 100, and the most, in ms."""
    middle, high = np.percentile(seconds, (50, 95))
    return {"p50": round(1e3 * middle, 1), "p95": round(1e3 * high, 1), "max": round(1e3 * max(seconds), 1)}


def told(seen: Seen) -> dict[str, Any]:
    """What was seen, as numbers."""
    waits = [one.done - one.asked for one in seen.asked]
    runs = [one.done - one.begun for one in seen.asked]
    return {
        "answers": len(seen.asked),
        "served": len({one.user for one in seen.asked}),
        "errors": seen.errors,
        "overtaken": seen.overtaken(),
        "ms": {"page": spread(seen.page), "file": spread(seen.file), "glance": spread(seen.glances)},
        "wait": [round(float(np.median(waits)), 1), round(max(waits), 1)] if waits else [],
        "run": [round(float(np.median(runs)), 1), round(max(runs), 1)] if runs else [],
        "memory": [round(one) for one in seen.memory],
    }


def broken(row: dict[str, Any]) -> list[str]:
    """Which promises are."""
    memory = row["memory"]
    warm = memory[min(2, len(memory) - 1)]  # after a minute
    promises = {
        f"{len(row['errors'])} errors": not row["errors"],
        f"{row['users'] - row['served']} users without an answer": row["served"] == row["users"],
        f"{row['overtaken']} overtaken": row["overtaken"] == 0,
        f"the page takes {row['ms']['page']['p95']} ms": row["ms"]["page"]["p95"] <= QUICK,
        f"memory grew from {warm} to {memory[-1]} MB": memory[-1] <= GROWTH * warm,
    }
    return [name for name, kept in promises.items() if not kept]


def show(row: dict[str, Any]) -> None:
    """The row as a table."""
    print(f"{row['users']} users, {row['answers']} answers, {len(row['errors'])} errors, {row['overtaken']} overtaken")
    print(f"{'ms':8s}{'p50':>8s}{'p95':>8s}{'max':>8s}")
    for name, values in row["ms"].items():
        print(f"{name:8s}" + "".join(f"{values[key]:8.0f}" for key in ("p50", "p95", "max")))
    print(f"from question to answer, s: {row['wait']} (median, longest); of it the run: {row['run']}")
    print(f"memory, MB, every {MEMORY:g} s: {row['memory']}")
    for error in row["errors"][:10]:
        print(error)


def main() -> None:
    """Let the crowd in, and tell what it saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with serving() as (address, process):
        seen = asyncio.run(crowd(address, process, options.users, options.seconds))
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    row = {"users": options.users, "seconds": options.seconds, "threads": threads, "load": round(load, 1), **told(seen)}
    records.append(RESULTS, {**row, "torch": torch.__version__})
    show(row)
    if failed := broken(row):
        sys.exit("; ".join(failed))


if __name__ == "__main__":
    main()
