"""Responses do not show where the server keeps its files."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from extremal.app.path_alias import PathAlias

FOLDER = "/srv/app/uploads"


def respond(status: int, *parts: bytes, errors_only: bool) -> tuple[bytes, dict[bytes, bytes]]:
    """The body and the headers that a client receives."""
    sent = list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        rewritten = PathAlias(Path(FOLDER)).rewrite(send, errors_only=errors_only)
        length = [(b"content-length", str(sum(map(len, parts))).encode())]
        await rewritten({"type": "http.response.start", "status": status, "headers": length})
        for number, part in enumerate(parts, start=1):
            more = number < len(parts)
            await rewritten({"type": "http.response.body", "body": part, "more_body": more})

    asyncio.run(run())
    return b"".join(message.get("body", b"") for message in sent), dict(sent[0]["headers"])


@pytest.mark.parametrize("cut", range(1, 40))
def test_the_folder_is_replaced_wherever_the_body_is_cut(cut: int) -> None:
    text = f"File not allowed: {FOLDER}/a.png.".encode()
    body, _ = respond(403, text[:cut], text[cut:], errors_only=True)
    assert body == b"File not allowed: /uploads/a.png."


def test_the_length_is_that_of_the_new_body() -> None:
    body, headers = respond(404, f"{FOLDER}/a.png".encode(), errors_only=True)
    assert headers[b"content-length"] == str(len(body)).encode()


def test_files_are_sent_as_they_are() -> None:
    text = f"an image that contains {FOLDER}".encode()
    assert respond(200, text, errors_only=True)[0] == text
    assert respond(200, text, errors_only=False)[0] == b"an image that contains /uploads"
