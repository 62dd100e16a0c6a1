"""Load on the app: users who come at the same time, and measurements of the server meanwhile."""

import asyncio
import io
import itertools
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from extremal.app.events import POLL_INTERVAL
from support.app_client import Visitor

PHOTOGRAPHS = Path(__file__).parents[2] / "src" / "extremal" / "app" / "photographs"
PROBE_INTERVAL, MEMORY_INTERVAL = 0.5, 30.0  # s between measurements
TIMEOUT = 900.0  # s


@dataclass(frozen=True)
class ServedRequest:
    """One explanation, with times in seconds."""

    user: int
    queued: float  # when it was known to be in the queue
    submitted: float
    started: float  # when it was first reported to be running
    finished: float


@dataclass
class Measurements:
    """Measurements of all users."""

    requests: list[ServedRequest] = field(default_factory=list)
    page: list[float] = field(default_factory=list)  # s
    file: list[float] = field(default_factory=list)  # s
    top_classes: list[float] = field(default_factory=list)  # s
    memory: list[float] = field(default_factory=list)  # MB, every 30 s
    errors: list[str] = field(default_factory=list)

    def count_overtaken(self) -> int:
        """Count pairs in which a request was in the queue before the other was submitted, and finished after it.

        An answer is seen up to one poll of the app after it is finished: pairs that differ by less are not counted.
        """
        pairs = itertools.permutations(self.requests, 2)
        return sum(
            first.queued < second.submitted and second.finished < first.finished - 1.5 * POLL_INTERVAL
            for first, second in pairs
        )


def unique_image(number: int) -> bytes:
    """Return a crop of one of the app's examples as JPEG, different for each number."""
    paths = sorted(PHOTOGRAPHS.glob("*.jpg"))
    with Image.open(paths[number % len(paths)]) as image:
        side = min(image.size) - number % 50
        left, top = (image.width - side) * (number % 7) // 6, (image.height - side) * (number % 5) // 4
        buffer = io.BytesIO()
        image.convert("RGB").crop((left, top, left + side, top + side)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


async def visit(client: httpx.AsyncClient, user: int, number: int, measurements: Measurements) -> None:
    """Run one session of one user: from the page to the results and their report."""
    visitor = Visitor(client)
    await visitor.open()
    async with visitor.connected():
        photo = await visitor.upload(unique_image(number))
        begin = time.monotonic()
        messages = [message async for message in visitor.call("on_photo", [photo, visitor.network])]
        (completed,) = [message for message in messages if message["msg"] == "process_completed"]
        measurements.top_classes.append(time.monotonic() - begin)
        target = completed["output"]["data"][0]["value"]
        area = f"{0.05 + 0.001 * (number % 100):.3f}"
        options = {"photo": photo, "target": target, "areas": area, "instead": "blur"}
        submitted, queued, started, result = time.monotonic(), 0.0, 0.0, ""
        async for message in visitor.explain(**options):
            text = json.dumps(message)
            if message["msg"] == "process_generating":
                queued = queued or time.monotonic()
                started = started or (time.monotonic() if "<progress" in text else 0.0)
            if message["msg"] == "process_completed":
                result = text
        finished = time.monotonic()
        report = re.search(r"/results/[\w-]+/0/report\.html", result)
        if report is None:
            raise ValueError(f"no result: {result}")
        (await client.get(report[0])).raise_for_status()
        measurements.requests.append(ServedRequest(user, queued, submitted, started or finished, finished))


async def visit_repeatedly(address: str, user: int, users: int, deadline: float, measurements: Measurements) -> None:
    """Run one session of a user after the other until the deadline."""
    async with httpx.AsyncClient(base_url=address, timeout=TIMEOUT) as client:
        for number in itertools.count(user, users):
            try:
                await visit(client, user, number, measurements)
            except (httpx.HTTPError, ValueError, KeyError) as error:
                measurements.errors.append(f"user {user}: {type(error).__name__}: {error}")
                await asyncio.sleep(1)
            if time.monotonic() > deadline:
                return


async def measure_latency(address: str, measurements: Measurements) -> None:
    """Measure how long the page and a file take, until this is cancelled."""
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        while True:
            for path, seconds in (("/", measurements.page), ("/favicon.ico", measurements.file)):
                begin = time.monotonic()
                try:
                    (await client.get(path)).raise_for_status()
                except httpx.HTTPError as error:
                    measurements.errors.append(f"{path}: {type(error).__name__}: {error}")
                seconds.append(time.monotonic() - begin)
            await asyncio.sleep(PROBE_INTERVAL)


async def measure_memory(process: int, measurements: Measurements) -> None:
    """Measure the memory of the server, until this is cancelled."""
    while True:
        measurements.memory.append(resident_memory(process))
        await asyncio.sleep(MEMORY_INTERVAL)


def resident_memory(process: int) -> float:
    """Return the resident memory of a process in MB."""
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1000


async def run_users(address: str, process: int, users: int, seconds: float) -> Measurements:
    """Let users submit requests for some time, and wait until each of them has been served."""
    measurements, deadline = Measurements(), time.monotonic() + seconds
    background = [
        asyncio.create_task(measure_latency(address, measurements)),
        asyncio.create_task(measure_memory(process, measurements)),
    ]
    await asyncio.gather(*(visit_repeatedly(address, user, users, deadline, measurements) for user in range(users)))
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    measurements.memory.append(resident_memory(process))
    return measurements


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return median, 95th percentile and maximum in ms."""
    median, p95 = np.percentile(seconds, (50, 95))
    return {"p50": round(1e3 * median, 1), "p95": round(1e3 * p95, 1), "max": round(1e3 * max(seconds), 1)}


def summarise(measurements: Measurements) -> dict[str, Any]:
    """Summarise measurements as numbers."""
    waits = [request.finished - request.submitted for request in measurements.requests]
    runs = [request.finished - request.started for request in measurements.requests]
    return {
        "answers": len(measurements.requests),
        "served": len({request.user for request in measurements.requests}),
        "errors": measurements.errors,
        "overtaken": measurements.count_overtaken(),
        "ms": {
            "page": percentiles(measurements.page),
            "file": percentiles(measurements.file),
            "glance": percentiles(measurements.top_classes),
        },
        "wait": [round(float(np.median(waits)), 1), round(max(waits), 1)] if waits else [],
        "run": [round(float(np.median(runs)), 1), round(max(runs), 1)] if runs else [],
        "memory": [round(value) for value in measurements.memory],
    }
