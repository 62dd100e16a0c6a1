"""Attacks on a running app over HTTP: each is one coroutine that returns the statuses of the responses."""

import asyncio
import io
import json
import os
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

from support.app_client import Visitor
from support.app_load import unique_image

ATTACKER = "127.0.0.2"  # where the system allows other loopback addresses
CLOSED = 0  # in place of a status: the server closed the connection
BOUNDARY = "x-boundary"


@asynccontextmanager
async def connect(address: str, source: str = ATTACKER, timeout: float = 60) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client with this source address."""
    transport = httpx.AsyncHTTPTransport(local_address=source)
    async with httpx.AsyncClient(base_url=address, timeout=timeout, transport=transport) as client:
        yield client


async def send_raw(address: str, request: bytes, source: str = ATTACKER, patience: float = 20.0) -> tuple[int, bytes]:
    """Send bytes as they are, and return status and response; the connection stays open meanwhile."""
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, local_addr=(source, 0))
    try:
        writer.write(request)
        with suppress(ConnectionError):
            await writer.drain()
        response = b""
        with suppress(ConnectionError, TimeoutError):
            response = await asyncio.wait_for(reader.read(2**16), patience)
    finally:
        writer.close()
    head = response.split(b"\r\n", 1)[0].split(b" ")
    return (int(head[1]) if len(head) > 1 and head[1].isdigit() else CLOSED), response


def head(address: str, target: str, *headers: str, method: str = "GET") -> bytes:
    """Return the head of a request with the right host."""
    host = urlsplit(address).netloc
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode("latin-1")


def odd_requests(address: str) -> dict[str, bytes]:
    """Return requests that are malformed, or well-formed with odd values."""
    upload = "/gradio_api/upload"
    long_name, form = "a" * 300, f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    get, multipart = head, "Content-Type: multipart/form-data"

    def post(target: str, body: bytes, *headers: str, length: int | str | None = None) -> bytes:
        n_bytes = len(body) if length is None else length
        return head(address, target, *headers, f"Content-Length: {n_bytes}", method="POST") + body

    boundaries = ("", '""', "a" * 71, "é", '"a', "a b", "a; boundary=b", "\t", "=?utf-8?q?a?=")
    return {
        "origin": get(address, "/", "Origin: http://["),
        "origin of a call": post("/gradio_api/queue/join", b"{}", "Origin: http://["),
        "origin with a port": get(address, "/", "Origin: http://127.0.0.1:99999999"),
        "long asset": get(address, f"/assets/{long_name}.js"),
        "long static file": get(address, f"/static/{long_name}"),
        "long path": get(address, "/assets/" + "/".join(["a" * 200] * 20)),
        "null byte": get(address, "/assets/%00"),
        "null byte in a file": get(address, "/gradio_api/file=/uploads/%00"),
        "not UTF-8": get(address, "/assets/%ff%fe"),
        "file of the system": get(address, "/gradio_api/file=/etc/passwd"),
        "folder": get(address, "/gradio_api/file=/uploads"),
        "dots": get(address, "/gradio_api/file=/uploads/../../../etc/passwd"),
        "long name of a file": get(address, f"/gradio_api/file=/uploads/{long_name}"),
        "result": get(address, f"/results/{long_name}/0/report.html"),
        "result number": get(address, f"/results/a/{'9' * 200}/report.html"),
        "session": get(address, f"/gradio_api/queue/data?session_hash={long_name}"),
        "no session": get(address, "/gradio_api/queue/data"),
        "heartbeat": get(address, f"/gradio_api/heartbeat/{long_name}"),
        "no boundary": post(upload, b"--", multipart),
        **{
            f"boundary {number}": post(upload, b"--a\r", f"{multipart}; boundary={boundary}")
            for number, boundary in enumerate(boundaries)
        },
        "no form": post(upload, b"{}", "Content-Type: text/plain"),
        "broken form": post(upload, b"--nothing", form),
        "part without a name": form_request(address, b"Content-Type: image/png\r\n\r\nabc"),
        "part with a long name": form_request(
            address, f'Content-Disposition: form-data; name="files"; filename="{"a" * 5000}.png"\r\n\r\nabc'.encode()
        ),
        "part named by dots": form_request(
            address, b'Content-Disposition: form-data; name="files"; filename="../../../etc/x"\r\n\r\nabc'
        ),
        "charset": form_request(
            address, b"Content-Disposition: form-data; name=\"files\"; filename*=nope''%ff\r\n\r\nabc", "; charset=nope"
        ),
        "much": post(upload, b"", form, length="9" * 19),
        "negative": post(upload, b"", form, length=-1),
        "chunked": head(address, upload, form, "Transfer-Encoding: chunked", method="POST") + b"1\r\na\r\n0\r\n\r\n",
        "method": head(address, "/", method="TRACE"),
        "preflight": head(address, "/gradio_api/queue/join", "Access-Control-Request-Method: POST", method="OPTIONS"),
        "upgrade": get(address, "/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: a"),
        "cookie": get(address, "/", "Cookie: a;;=b; extremal-visitor=x.y; \x80"),
        "range": get(address, "/favicon.ico", "Range: bytes=9-1,x"),
        "forwarded": get(address, "/config", "X-Forwarded-Host: evil.example", "X-Gradio-Server: http://evil.example"),
        "no HTTP": b"\x16\x03\x01\x02\x00",
        "no version": b"GET /\r\n\r\n",
        "two hosts": head(address, "/", "Host: evil.example"),
        "other host": b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "long header": get(address, "/", "X-A: " + "a" * 100_000),
        "many values": get(address, "/?" + "&".join(f"a{n}=" for n in range(500))),
        "JSON": post("/gradio_api/queue/join", b"{]", "Content-Type: application/json"),
        "deep JSON": post("/gradio_api/queue/join", b"[" * 100_000, "Content-Type: application/json"),
    }


def form_request(address: str, part: bytes, parameters: str = "") -> bytes:
    """Return an upload with one part."""
    body = f"--{BOUNDARY}\r\n".encode() + part + f"\r\n--{BOUNDARY}--\r\n".encode()
    content_type = f"Content-Type: multipart/form-data; boundary={BOUNDARY}{parameters}"
    return head(address, "/gradio_api/upload", content_type, f"Content-Length: {len(body)}", method="POST") + body


async def send_odd_requests(address: str, source: str = ATTACKER) -> dict[str, tuple[int, bytes]]:
    """Send all odd requests, and return status and response of each."""
    requests = odd_requests(address)
    responses = await asyncio.gather(*(send_raw(address, request, source, 15) for request in requests.values()))
    return dict(zip(requests, responses, strict=True))


async def invent_sessions(address: str, count: int, source: str = ATTACKER, *, cookies: bool = False) -> Counter[int]:
    """Request an explanation in each of many invented sessions, with a new cookie each or with none."""
    statuses = Counter[int]()
    async with connect(address, source) as client:
        first = Visitor(client)
        await first.open()
        photo = await first.upload(unique_image(7))
        for number in range(count):
            client.cookies.clear()
            if cookies:
                await client.get("/")
            areas = ", ".join(f"{0.01 * step + 0.0001 * number:.4f}" for step in range(5, 20))
            data = [*{**first.fields, "photo": photo, "target": 0, "areas": areas, "refine": True}.values()]
            body = {"data": data, "fn_index": first.events["on_explain"], "session_hash": secrets.token_hex(6)}
            statuses[(await client.post("/gradio_api/queue/join", json=body)).status_code] += 1
    return statuses


async def upload_much(address: str, count: int, n_bytes: int, source: str = ATTACKER) -> Counter[int]:
    """Upload many large files."""
    statuses = Counter[int]()
    async with connect(address, source) as client:
        await client.get("/")
        for _ in range(count):
            files = {"files": ("a.png", os.urandom(1000) * (n_bytes // 1000), "image/png")}
            with suppress(httpx.HTTPError):
                statuses[(await client.post("/gradio_api/upload", files=files)).status_code] += 1
    return statuses


async def break_uploads(address: str, count: int, source: str = ATTACKER, *, hold: float = 0.0) -> Counter[int]:
    """Begin uploads, send a part of each file, wait, and leave."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode()
    begin = head(
        address,
        "/gradio_api/upload",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        "Content-Length: 15000000",
        method="POST",
    )
    data = begin + part + b"\0" * 3_000_000
    sent = (send_raw(address, data, source, hold or 0.2) for _ in range(count))
    return Counter(status for status, _ in await asyncio.gather(*sent))


async def hold_connections(address: str, count: int, seconds: float, source: str = ATTACKER) -> Counter[int]:
    """Send a part of a request's head, or of its body, and wait."""
    beginnings = (
        head(address, "/")[:-4],
        head(address, "/gradio_api/queue/join", "Content-Length: 100", method="POST") + b"{",
        b"",
    )
    held = (send_raw(address, beginnings[number % 3], source, seconds) for number in range(count))
    results = await asyncio.gather(*held, return_exceptions=True)
    return Counter(CLOSED if isinstance(result, BaseException) else result[0] for result in results)


def odd_values() -> Iterator[Any]:
    """Yield values that no field of the page has."""
    yield from (
        None,
        True,
        -1,
        10**30,
        1e308,
        float("nan"),
        "",
        "x" * 5000,
        "\0",
        "\ud800",
        "../../etc/passwd",
        [],
        {},
        [[]],
    )
    yield from (
        {"path": "/etc/passwd"},
        {"path": None},
        {"path": 5, "meta": {"_type": "gradio.FileData"}},
        {"value": 1},
    )
    yield from ({"path": "http://127.0.0.1:9/", "meta": {"_type": "gradio.FileData"}, "is_stream": True}, "5e-324")
    yield from (", ".join(str(0.0001 * n) for n in range(1, 200)), "9" * 5000, ["0.1"], "nan", "-inf")


PLAIN_VALUES = (None, True, False, -1, 0, 10**18, 1e308, 0.5, "", "x" * 2000, "\0", "../../etc/passwd", "5e-324", "nan")
OTHER_FIELDS = ("data", "fn_index", "session_hash", "event_data", "trigger_id", "batched", "event_id")


async def send_odd_values(address: str, count: int, source: str = ATTACKER, seed: int = 0) -> Counter[int]:
    """Call the page's events with odd values, odd numbers of them, and odd other fields; 10 calls per second."""
    draw, statuses = random.Random(seed), Counter[int]()
    async with connect(address, source) as client:
        visitor = Visitor(client)
        await visitor.open()
        photo = await visitor.upload(unique_image(3))
        values = [*odd_values(), *PLAIN_VALUES]
        for _ in range(count):
            event = draw.choice(list(visitor.events))
            data: list[Any] = draw.sample(values, draw.randint(0, 3))
            if event == "on_explain":  # well-formed, but for one value
                data = [*{**visitor.fields, "photo": photo, "target": 0}.values()]
                data[draw.randrange(len(data))] = draw.choice(values if draw.random() < 0.3 else PLAIN_VALUES)
            body: Any = {"data": data, "fn_index": visitor.events[event], "session_hash": secrets.token_hex(4)}
            if draw.random() < 0.2:
                body[draw.choice(OTHER_FIELDS)] = draw.choice(values)
            path = draw.choice(["/gradio_api/queue/join"] * 4 + ["/gradio_api/run/predict", "/gradio_api/cancel"])
            content = json.dumps(body).encode() if draw.random() < 0.97 else b'{"data": ' + b"9" * 5000
            response = await client.post(path, content=content, headers={"content-type": "application/json"})
            statuses[response.status_code] += 1
            await asyncio.sleep(0.1)
    return statuses


def thin_image() -> bytes:
    """Return a small file of an image of 4 megapixels that is 10 pixels wide."""
    buffer = io.BytesIO()
    Image.new("L", (10, 400_000)).save(buffer, "PNG")
    return buffer.getvalue()


async def classify(client: httpx.AsyncClient, image: bytes) -> str:
    """Upload an image and return the response to its choice as JSON."""
    visitor = Visitor(client)
    await visitor.open()
    photo = await visitor.upload(image)
    return json.dumps([message async for message in visitor.call("on_photo", [photo, visitor.network])])


async def flood_with_images(address: str, count: int, source: str = ATTACKER) -> Counter[str]:
    """Classify many images of 40 megapixels and thin ones at once."""
    buffer = io.BytesIO()
    Image.new("1", (8000, 5000)).save(buffer, "PNG")
    images = (buffer.getvalue(), thin_image())

    async def look(number: int) -> str:
        async with connect(address, source, 120) as client:
            try:
                text = await classify(client, images[number % 2])
            except (httpx.HTTPError, ValueError) as error:
                return type(error).__name__
            return "rejected" if 'role=\\"alert' in text or "alert" in text else "classified"

    return Counter(await asyncio.gather(*(look(number) for number in range(count))))


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder; files that disappear meanwhile do not count."""
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                total += os.stat(os.path.join(parent, file)).st_size
    return total


def unlinked_bytes(process: int) -> int:
    """Return the bytes of files that a process has open and that have no name any more."""
    total = 0
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):
            if os.readlink(entry).endswith("(deleted)"):
                total += entry.stat().st_size
    return total
