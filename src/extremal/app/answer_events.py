"""Event handlers for answers that are stored: page opened, answer chosen again, two compared, file opened."""

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr

from extremal.app import answer_views, views
from extremal.app.answer_views import PAIR_SEPARATOR
from extremal.app.answers import open_answer
from extremal.app.clients import Client
from extremal.app.events import Events, client_of, wait_for_job
from extremal.app.job_queue import JobState
from extremal.app.request import RegionOverlap
from extremal.app.request_run import find_overlaps
from extremal.app.result_cache import CachedResult
from extremal.app.upload_field import upload_path
from extremal.errors import ExtremalError, ExtremalValueError
from extremal.explanations.explanation import Explanation
from extremal.files import EXPLANATION_FILE

ADDRESS_PREFIX = "#answer="  # of the part of the page's address that names the answers shown

Shown = tuple[Any, Any]  # updates of status and results


class AnswerEvents:
    """Event handlers for stored answers.

    Args:
        events: of the page; answers are in its histories.
    """

    def __init__(self, events: Events) -> None:
        self.histories, self.cache, self.previews = events.histories, events.cache, events.previews

    async def on_load(self, fragment: Any, http_request: gr.Request) -> tuple[Any, Any, str]:
        """Show the answers that the address names, if it names any, and the history."""
        history = self.on_history(http_request)
        if not isinstance(fragment, str) or not fragment.startswith(ADDRESS_PREFIX):
            return gr.skip(), gr.skip(), history
        return *await self.on_show(fragment.removeprefix(ADDRESS_PREFIX), http_request), history

    def on_history(self, http_request: gr.Request) -> str:
        """List the answers of a visitor."""
        return answer_views.render_history(self.histories.results(client_of(http_request)))

    async def on_show(self, chosen: Any, http_request: gr.Request) -> Shown:
        """Show an answer again, or two side by side."""
        client = client_of(http_request)
        try:
            results = [self._find(client, name) for name in _split_names(chosen)]
        except ExtremalError as error:
            return views.render_message(str(error), alert=True), gr.skip()
        if len(results) == 1:
            return self._show(client, results[0])
        a, b = results
        overlaps = await asyncio.to_thread(_find_pair_overlaps, a, b)
        return answer_views.render_pair_summary(a, b), answer_views.render_pair(a, b, overlaps)

    async def on_open(self, file: Any, http_request: gr.Request) -> Shown:
        """Open a saved answer, and show it."""
        if not upload_path(file):
            return gr.skip(), gr.skip()
        path, client = Path(upload_path(file)), client_of(http_request)
        owner = f"{client.name} {http_request.session_hash} file"
        try:
            job = self.previews.submit(owner, lambda _: open_answer(path, path.name, self.cache), group=client.address)
        except ExtremalError as error:
            return views.render_message(str(error), alert=True), gr.skip()
        await wait_for_job(job)
        if job.state is JobState.CANCELLED or job.result is None:
            return views.render_message(job.error or "Cancelled; nothing was opened.", alert=True), gr.skip()
        self.histories.add(client, job.result)
        return self._show(client, job.result)

    def _show(self, client: Client, result: CachedResult) -> Shown:
        if self.cache.is_example(result.name):
            return answer_views.render_example_summary(result), answer_views.render_results(result)
        related = self.histories.related(client, result)
        return answer_views.render_summary(result), answer_views.render_results(result, related)

    def _find(self, client: Client, name: str) -> CachedResult:
        """Return an answer of a visitor.

        Raises:
            ExtremalValueError: it is another visitor's, or no longer stored.
        """
        result = self.histories.find(client, name)
        if result is None:
            raise ExtremalValueError(
                "this answer is not from this visit, or is no longer stored; open its explanation file, or explain "
                "the photograph again"
            )
        return result


def _split_names(chosen: object) -> list[str]:
    """Return the one or two names of answers in a text.

    Raises:
        ExtremalValueError: the text does not name one or two answers.
    """
    names = chosen.split(PAIR_SEPARATOR) if isinstance(chosen, str) else []
    if not 1 <= len(names) <= 2 or not all(names):
        raise ExtremalValueError("one answer, or two to compare, must be chosen; choose them in the list")
    return names


def _find_pair_overlaps(a: CachedResult, b: CachedResult) -> tuple[RegionOverlap, ...]:
    """Return the overlap of the regions of two answers' first views; nothing if one is by channels."""
    paths = [result.response.views[0].folder / EXPLANATION_FILE for result in (a, b)]
    if not all(path.is_file() for path in paths):
        return ()
    first, second = (Explanation.load(path) for path in paths)
    return find_overlaps(first, second)
