"""The app in a process of its own, and a client that does over HTTP what the page does."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx

import extremal


@contextmanager
def serve_app(
    *options: str, folder: Path | None = None, stderr: BinaryIO | None = None, **environment: str
) -> Iterator[tuple[str, int]]:
    """Run `extremal app` in a process with this working directory, and yield its address and process id."""
    command = [str(Path(sys.executable).with_name("extremal")), "app", "--port", "0", *options]
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    source = str(Path(extremal.__file__).parents[1])  # of the package under test, wherever it is installed
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [source, variables.get("PYTHONPATH", "")]))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=variables, cwd=folder)
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


class Visitor:
    """A session of the page.

    Args:
        client: client with the address of the app.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client, self.session = client, secrets.token_hex(6)

    async def open(self) -> None:
        """Load the page and the list of its events."""
        page = await self.client.get("/")
        page.raise_for_status()
        config = (await self.client.get("/config")).raise_for_status().json()
        self.events = {event["api_name"]: event["id"] for event in config["dependencies"]}
        components = {item["id"]: item["props"] for item in config["components"]}
        (explain,) = [event for event in config["dependencies"] if event["api_name"] == "on_explain"]
        fields = [components[number] for number in explain["inputs"]]
        self.fields = {field["elem_id"]: field.get("value") for field in fields}  # name -> value, in the event's order
        self.network = self.fields["network"]

    async def upload(self, image: bytes) -> dict[str, Any]:
        """Upload an image, and return the value by which the page refers to it."""
        response = await self.client.post("/gradio_api/upload", files={"files": ("photo.jpg", image, "image/jpeg")})
        (path,) = response.raise_for_status().json()
        return {"path": path, "orig_name": "photo.jpg", "meta": {"_type": "gradio.FileData"}}

    def explain(self, **changes: Any) -> AsyncIterator[dict[str, Any]]:
        """Press the button with these values in the named fields and the page's own values in all others."""
        if unknown := changes.keys() - self.fields.keys():
            raise ValueError(f"the page has no field {sorted(unknown)}; fields: {list(self.fields)}")
        return self.call("on_explain", [*{**self.fields, **changes}.values()])

    async def call(self, event: str, data: list[Any]) -> AsyncIterator[dict[str, Any]]:
        """Trigger an event, and yield its messages until it is finished."""
        body = {"data": data, "fn_index": self.events[event], "session_hash": self.session}
        (await self.client.post("/gradio_api/queue/join", json=body)).raise_for_status()
        stream = self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session})
        async with stream as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    message = json.loads(line.removeprefix("data: "))
                    if message["msg"] == "close_stream":
                        return
                    yield message

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Keep the page open, by listening to its heartbeat."""
        async with self.client.stream("GET", f"/gradio_api/heartbeat/{self.session}") as heartbeat:
            heartbeat.raise_for_status()
            yield
