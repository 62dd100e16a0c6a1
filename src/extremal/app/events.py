"""Event handlers of the page: image chosen, class chosen, request submitted. Each session is one visitor."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from extremal.app import answer_views, views
from extremal.app.choices import REGIONS, choose_class, choose_layer
from extremal.app.clients import SCOPE_KEY, Client
from extremal.app.form_values import check_alternatives, check_choice, check_target, check_text, parse_areas
from extremal.app.histories import Histories
from extremal.app.image_messages import read_visitors_file
from extremal.app.job_queue import Job, JobProgress, JobQueue, JobState, OnProgress
from extremal.app.networks import ServedNetwork
from extremal.app.request import CONTRAST, SETS, Request
from extremal.app.request_run import run_request
from extremal.app.result_cache import ResultCache
from extremal.app.stage_pace import StagePace
from extremal.app.tab_words import ask_for_file, describe_missing_choice
from extremal.app.upload_field import upload_path
from extremal.errors import ExtremalError, ExtremalValueError
from extremal.explanations.effort import EFFORTS
from extremal.explanations.settings import Settings
from extremal.files import content_hash
from extremal.masking.perturbations import PERTURBATIONS

T = TypeVar("T")

QUESTION_CHOICES = {
    "What is enough (preserve)": ("preserve",),
    "What the answer depends on (delete)": ("delete",),
    "Both, side by side": ("preserve", "delete"),
    "Both at once (dual)": ("dual",),
    "Three regions: sufficient, necessary, both": (SETS,),
    "Why this class rather than another": (CONTRAST,),
}
FIRST_ANSWER = "This is a first answer, from few evaluations; a more careful one will replace it."
POLL_INTERVAL = 0.2  # s between updates of the progress
MAX_UNREAD, MAX_UNREAD_SECONDS = 20, 15.0  # messages that a page has not fetched, and for how long


class Events:
    """Event handlers of the page.

    Args:
        networks: served networks by name.
        queue: runs the requests.
        previews: classifies images, one at a time, so that memory holds one decoded image.
        cache: holds the responses.
        count_unread: returns the number of messages that a session has not fetched.
    """

    def __init__(
        self,
        networks: dict[str, ServedNetwork],
        queue: JobQueue,
        previews: JobQueue,
        cache: ResultCache,
        count_unread: Callable[[str], int] = lambda session: 0,
    ) -> None:
        self.networks, self.queue, self.previews, self.cache = networks, queue, previews, cache
        self.histories, self.kind = Histories(cache), next((net.kind for net in networks.values()), None)
        self.count_unread = count_unread
        self._jobs: dict[str, Job[None]] = {}  # by session

    async def on_photo(self, photo: Any, network: Any, http_request: gr.Request) -> tuple[Any, Any, str, str]:
        """Classify a new image, and clear the results of the previous one."""
        if not upload_path(photo):
            return *_no_classes(), views.render_message(ask_for_file(self.kind)), ""
        path, client = Path(upload_path(photo)), client_of(http_request)
        owner = f"{client.name} {http_request.session_hash}"
        self.previews.cancel(owner)  # of the image before
        try:
            served = self._find_network(network)
            if served.takes_prompt:
                return *_no_classes(), views.render_message("Type a prompt, and press Explain."), ""
            job = self.previews.submit(
                owner, lambda _: served.top_classes(read_visitors_file(path, path.name, served)), group=client.address
            )
        except ExtremalError as error:
            return *_no_classes(), views.render_message(str(error), alert=True), ""
        await wait_for_job(job)
        if job.state is JobState.CANCELLED:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        classes = job.result
        if classes is None:
            return *_no_classes(), views.render_message(job.error, alert=True), ""
        choices = [(_class_choice(item.label, item.probability), item.index) for item in classes]
        target = gr.update(choices=choices, value=classes[0].index)
        return target, "", views.render_message("Choose a class, and press Explain."), ""

    def _find_network(self, name: object) -> ServedNetwork:
        return self.networks[check_choice("network", name, self.networks)]

    def on_network(self, network: Any) -> tuple[Any, Any, Any]:
        """Clear the fields of class and layer, and update the networks to compare with."""
        _show_error(self._find_network, network)
        others = [name for name in self.networks if name != network]
        return "", REGIONS, gr.update(choices=others, value=None)

    def on_class(self, name: Any, network: Any) -> Any:
        """Replace the most probable classes by a class, or a group of classes, chosen by name."""
        if not name:
            return gr.skip()
        served = _show_error(self._find_network, network)
        target = _show_error(choose_class, served, name)
        return gr.update(choices=[(served.label(target), target)], value=target)

    async def on_explain(
        self,
        photo: Any,
        network: Any,
        target: Any,
        prompt: Any,
        answer: Any,
        question: Any,
        layer: Any,
        second_network: Any,
        areas: Any,
        perturbation: Any,
        effort: Any,
        alternatives: Any,
        refine: Any,
        stability: Any,
        http_request: gr.Request,
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Queue a request, show its progress, and show its response."""
        try:
            served = self._find_network(network)
            if not upload_path(photo) or (target is None and not served.takes_prompt):
                raise ExtremalValueError(describe_missing_choice(self.kind))
            path = Path(upload_path(photo))
            second = check_choice("the second network", second_network, self.networks) if second_network else ""
            request = Request(
                await asyncio.to_thread(content_hash, path),
                path.name,
                check_text("an answer", answer) if served.takes_prompt else check_target(target),
                (network, *([second] if second else [])),
                QUESTION_CHOICES[check_choice("the question", question, QUESTION_CHOICES)],
                choose_layer(served, layer),
                bool(refine),
                bool(stability),
                check_text("a prompt", prompt) if served.takes_prompt else "",
                Settings(
                    areas=parse_areas(areas),
                    perturbation=check_choice("the perturbation", perturbation, PERTURBATIONS),
                    alternatives=check_alternatives(alternatives),
                    effort=check_choice("the effort", effort, EFFORTS),
                ),
            )
        except ExtremalError as error:
            yield views.render_message(str(error), alert=True), gr.skip()
            return
        except OSError:
            yield views.render_message("the image is no longer available; drop it again", alert=True), gr.skip()
            return
        async for update in self._answer(request, path, http_request):
            yield update

    async def _answer(self, request: Request, path: Path, http_request: gr.Request) -> AsyncIterator[tuple[Any, Any]]:
        """Show a first answer, and replace it by the answer to a request; show a stored answer at once."""
        client, result = client_of(http_request), self.cache.get(request)
        first, was_known = None, False
        if result is None and (quick := request.first_answer):
            async for html in self._run_and_report(quick, path, http_request):
                yield html, gr.skip()
            first = self.cache.get(quick)
            if first is None:
                return
            was_known = first in self.histories.results(client)
            self.histories.add(client, first)
            yield views.render_message(FIRST_ANSWER), answer_views.render_results(first)
        if result is None:
            async for html in self._run_and_report(request, path, http_request, first=first is not None):
                yield html, gr.skip()
            result = self.cache.get(request)
        if result is not None:
            if first is not None and not was_known:
                self.histories.remove(client, first)
            self.histories.add(client, result)
            related = self.histories.related(client, result)
            yield answer_views.render_summary(result), answer_views.render_results(result, related)

    async def _run_and_report(
        self, request: Request, path: Path, http_request: gr.Request, *, first: bool = False
    ) -> AsyncIterator[str]:
        """Run a request in the queue and yield its progress; its response, if there is one, goes to the cache.

        Args:
            request: to run.
            path: of its image.
            http_request: of the visitor.
            first: whether a first answer is shown already.
        """

        def work(on_progress: OnProgress) -> None:
            if self.cache.get(request):  # an equal request was ahead in the queue
                return
            with self.cache.new_folder() as folder:
                response = run_request(request, path, self.networks, folder, on_progress)
                self.cache.put(request, folder, response)

        client, session = client_of(http_request), str(http_request.session_hash)
        try:
            timeout = self.queue.timeout * request.time_factor
            job = self.queue.submit(client.name, work, group=client.address, timeout=timeout)
        except ExtremalError as error:
            yield views.render_message(str(error), alert=True)
            return
        self._jobs[session] = job
        try:
            async for current in self._watch(job, session):
                yield await asyncio.to_thread(views.render_progress, current, FIRST_ANSWER if first else "")
        finally:
            job.cancel()  # also when the visitor has left
            if self._jobs.get(session) is job:
                del self._jobs[session]
        if job.state is JobState.CANCELLED:
            yield views.render_message(f"Cancelled; {'the first answer stays.' if first else 'nothing was saved.'}")
        elif job.state is JobState.FAILED:
            yield views.render_message(job.error, alert=True)

    async def _watch(self, job: Job[None], session: str) -> AsyncIterator[int | JobProgress]:
        """Yield position or progress when it has changed; cancel a job whose messages are not fetched."""
        shown: int | JobProgress | None = None
        last_read, pace = time.monotonic(), StagePace()
        while not job.finished:
            is_read = self.count_unread(session) < MAX_UNREAD
            last_read = time.monotonic() if is_read else last_read
            if time.monotonic() - last_read > MAX_UNREAD_SECONDS:
                job.cancel()
            current = job.progress if job.state is JobState.RUNNING else self.queue.position(job)
            if current != shown and is_read:
                shown = current
                yield current if isinstance(current, int) else pace.estimate(current, time.monotonic())
            await wait_until_finished(job, POLL_INTERVAL)

    def on_cancel(self, http_request: gr.Request) -> None:
        """Cancel the job of this page."""
        job = self._jobs.get(str(http_request.session_hash))
        if job is not None:
            job.cancel()

    on_unload = on_cancel  # the visitor has closed the page


def _no_classes() -> tuple[Any, Any]:
    """Return updates that clear both fields of the class."""
    return gr.update(choices=[], value=None), ""


def client_of(http_request: gr.Request) -> Client:
    """Return the client that the middleware has identified."""
    client: Client = http_request.request.scope[SCOPE_KEY]  # type: ignore[union-attr]
    return client


async def wait_for_job(job: Job[Any]) -> None:
    """Wait until a short job has finished; cancel it if the visitor leaves."""
    try:
        await wait_until_finished(job)
    finally:
        job.cancel()


async def wait_until_finished(job: Job[Any], seconds: float = math.inf) -> None:
    """Wait until a job has finished, at most for some seconds; what follows it is queued before that of later jobs."""
    end = time.monotonic() + seconds
    while not job.finished and time.monotonic() < end:
        await asyncio.sleep(POLL_INTERVAL / 10)


def _show_error(find: Callable[..., T], *arguments: object) -> T:
    """Return what a function finds; its error is shown on the page, without a traceback in the log."""
    try:
        return find(*arguments)
    except ExtremalError as error:
        raise gr.Error(str(error), print_exception=False) from None


def _class_choice(label: str, probability: float | None) -> str:
    if probability is None:
        return label
    return f"{label} – {'under 1' if probability < 0.01 else f'{100 * probability:.0f}'} %"
