"""Alias of the upload folder: the page and its visitors never see where the server keeps its files."""

import os
from pathlib import Path

from starlette.types import Message, Send

ALIAS = "/uploads"


class PathAlias:
    """Translates paths in the upload folder.

    >>> alias = PathAlias(Path("/srv/app/uploads"))
    >>> alias.to_real("/uploads/a/cat.png"), alias.to_alias("/srv/app/uploads/a/cat.png")
    ('/srv/app/uploads/a/cat.png', '/uploads/a/cat.png')

    Args:
        folder: of the uploads.
    """

    def __init__(self, folder: Path) -> None:
        # gradio resolves links
        self._real = list(dict.fromkeys((str(folder), os.path.realpath(folder))))

    def to_real(self, path: str) -> str:
        """Return the path of an alias, and any other path unchanged."""
        return f"{self._real[0]}{path.removeprefix(ALIAS)}" if path.startswith(f"{ALIAS}/") else path

    def to_alias(self, path: str) -> str:
        """Return the alias of a path in the folder, and any other path unchanged."""
        for real in self._real:
            if path.startswith(f"{real}/"):
                return ALIAS + path.removeprefix(real)
        return path

    def rewrite(self, send: Send, *, errors_only: bool = False) -> Send:
        """Return a `send` that replaces the folder in a response, wherever its body is cut; its length may change.

        Args:
            send: of the response.
            errors_only: leave successful responses, such as files, unchanged.
        """
        needles = [real.encode() for real in self._real]
        start: Message | None = None
        rest, is_unchanged = b"", False

        async def send_rewritten(message: Message) -> None:
            nonlocal start, rest, is_unchanged
            if message["type"] == "http.response.start":
                is_unchanged = errors_only and message["status"] < 400
            if is_unchanged:
                await send(message)
                return
            if message["type"] == "http.response.start":
                if any(name.lower() == b"content-length" for name, _ in message["headers"]):
                    start = message  # until its length is known
                else:
                    await send(message)
                return
            more, body = message.get("more_body", False), rest + message.get("body", b"")
            for needle in needles:
                body = body.replace(needle, ALIAS.encode())
            kept = max(_overlap(body, needle) for needle in needles) if more else 0
            rest = body[len(body) - kept :]
            body = body[: len(body) - kept]
            if start is not None:
                headers = [item for item in start["headers"] if item[0].lower() != b"content-length"]
                length = [] if more else [(b"content-length", str(len(body)).encode())]
                await send({**start, "headers": [*headers, *length]})
                start = None
            await send({**message, "body": body})

        return send_rewritten


def _overlap(body: bytes, needle: bytes) -> int:
    """Return the length of the longest end of a body with which the needle begins, short of the whole needle."""
    return next((n for n in range(min(len(needle) - 1, len(body)), 0, -1) if needle.startswith(body[-n:])), 0)
