"""Route of uploads, in place of gradio's: one file for each request, stored only when it is complete."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from extremal.app.clients import SCOPE_KEY, Client
from extremal.app.path_alias import PathAlias
from extremal.app.uploads import TooManyUploads, UploadStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

UPLOAD_PATH, PROGRESS_PATH = "/gradio_api/upload", "/gradio_api/upload_progress"
MAX_WAIT = 5.0  # s for a place among the uploads in progress
WAIT_STEP = 0.05  # s
CONTENT_TYPE = re.compile(  # RFC 2046: 1 to 70 characters
    r"""multipart/form-data;\s*boundary=(?:"[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]"|[\w'+./:=?-]{1,70})\s*""",
    re.IGNORECASE,
)


def add_upload_route(app: FastAPI, store: UploadStore, alias: PathAlias) -> None:
    """Add the routes of uploads to an application; uploads are named by their alias."""

    @app.post(UPLOAD_PATH)
    @app.post(f"{UPLOAD_PATH}/")
    async def upload(request: Request) -> Response:
        client = request.scope[SCOPE_KEY]
        if not CONTENT_TYPE.fullmatch(request.headers.get("content-type", "")):
            return PlainTextResponse("an upload must be multipart/form-data with a boundary of 1 to 70 characters", 400)
        try:
            with ExitStack() as held:
                await _wait_for_slot(held, store, client)
                form = await _read_form(request)
                files = [value for value in form.values() if isinstance(value, UploadFile)]
                if len(files) != 1:
                    return PlainTextResponse("an upload must have one file, got none; send it as `files`", 400)
                (file,) = files
                path = await anyio.to_thread.run_sync(store.store, client, file.file, file.filename or "")
        except TooManyUploads:
            return PlainTextResponse("too many uploads are in progress; try again in a minute", 429)
        except ClientDisconnect:
            return Response(status_code=400)  # it is not received
        except (MultiPartException, MultipartParseError, ValueError, KeyError) as error:
            return PlainTextResponse(f"an upload must be complete and well-formed: {type(error).__name__}", 400)
        return JSONResponse([alias.to_alias(str(path))])

    @app.get(PROGRESS_PATH)
    @app.get(f"{PROGRESS_PATH}/")
    async def progress() -> Response:
        """Answer that the upload is done: the page shows no progress."""

        async def messages() -> AsyncIterator[str]:
            yield 'data: {"msg": "done"}\n\n'

        return StreamingResponse(messages(), media_type="text/event-stream")


async def _wait_for_slot(held: ExitStack, store: UploadStore, client: Client) -> None:
    """Count an upload in progress until `held` is left; other uploads, slow ones included, may have to end first.

    Raises:
        TooManyUploads: there are still too many after `MAX_WAIT`.
    """
    deadline = time.monotonic() + MAX_WAIT
    while True:
        try:
            held.enter_context(store.slot(client))
        except TooManyUploads:
            if time.monotonic() >= deadline:
                raise
            await anyio.sleep(WAIT_STEP)
        else:
            return


async def _read_form(request: Request) -> FormData:
    """Read a form; its file is in memory, or if it is large in a temporary file without a name."""
    stream: AsyncGenerator[bytes, None] = request.stream()
    parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=4, max_part_size=10**4)
    return await parser.parse()
