"""Event handlers of the page: image chosen, class chosen, request submitted. Each session is one visitor."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from extremal.app import views
from extremal.app.job_queue import JobProgress, JobQueue, JobState, OnProgress
from extremal.app.networks import ServedNetwork
from extremal.app.request import Request, read_image, run_request
from extremal.app.result_cache import ResultCache
from extremal.errors import ExtremalError, ExtremalValueError
from extremal.explanations.settings import Settings
from extremal.files import content_hash

REGIONS = "Regions of the image"
GAME_CHOICES = {
    "What is enough (preserve)": ("preserve",),
    "What has to go (delete)": ("delete",),
    "Both, side by side": ("preserve", "delete"),
    "Both at once (dual)": ("dual",),
}
POLL_INTERVAL = 0.2  # s between updates of the progress


class Events:
    """Event handlers of the page.

    Args:
        networks: served networks by name.
        queue: runs the requests.
        cache: holds the responses.
    """

    def __init__(self, networks: dict[str, ServedNetwork], queue: JobQueue, cache: ResultCache) -> None:
        self.networks, self.queue, self.cache = networks, queue, cache

    def on_photo(self, photo: str | None, network: str) -> tuple[Any, Any, str, str]:
        """Classify a new image, and clear the results of the previous one."""
        if not photo:
            return *_no_classes(), views.render_message("Drop an image, or choose an example."), ""
        try:
            classes = self.networks[network].top_classes(read_image(Path(photo), Path(photo).name))
        except ExtremalError as error:
            return *_no_classes(), views.render_message(str(error), alert=True), ""
        choices = [(_class_choice(item.label, item.probability), item.index) for item in classes]
        target = gr.update(choices=choices, value=classes[0].index)
        return target, gr.update(value=None), views.render_message("Choose a class, and press Explain."), ""

    def on_network(self, network: str) -> tuple[Any, Any, Any]:
        """Update the classes, layers and networks to compare with."""
        served = self.networks[network]
        others = [name for name in self.networks if name != network]
        return (
            gr.update(choices=class_choices(served), value=None),
            gr.update(choices=[REGIONS, *served.layers], value=REGIONS),
            gr.update(choices=others, value=None),
        )

    def on_class(self, target: int | str | None, network: str) -> Any:
        """Replace the most probable classes by a class, or a group of classes, chosen by name."""
        if target is None:
            return gr.skip()
        return gr.update(choices=[(self.networks[network].label(target), target)], value=target)

    async def on_explain(
        self,
        photo: str | None,
        network: str,
        target: int | str | None,
        game: str,
        layer: str,
        second_network: str | None,
        areas: str,
        perturbation: str,
        alternatives: int,
        refine: bool,
        stability: bool,
        http_request: gr.Request,
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Queue a request, show its progress, and show its response."""
        try:
            if not photo or target is None:
                raise ExtremalValueError("an image and a class must be chosen first; drop one, or choose an example")
            path = Path(photo)
            request = Request(
                await asyncio.to_thread(content_hash, path),
                path.name,
                target if isinstance(target, str) else int(target),
                (network, *([second_network] if second_network else [])),
                GAME_CHOICES[game],
                "" if layer == REGIONS else layer,
                bool(refine),
                bool(stability),
                Settings(areas=_parse_areas(areas), perturbation=perturbation, alternatives=int(alternatives)),
            )
        except ExtremalError as error:
            yield views.render_message(str(error), alert=True), gr.skip()
            return
        except OSError:
            yield views.render_message("the image is no longer available; drop it again", alert=True), gr.skip()
            return
        result = self.cache.get(request)
        if result is None:
            async for html in self._run_and_report(request, path, str(http_request.session_hash)):
                yield html, gr.skip()
            result = self.cache.get(request)
        if result is not None:
            yield views.render_summary(result), views.render_results(result)

    async def _run_and_report(self, request: Request, path: Path, owner: str) -> AsyncIterator[str]:
        """Run a request in the queue and yield its progress; its response, if there is one, goes to the cache."""

        def work(on_progress: OnProgress) -> None:
            if self.cache.get(request):  # an equal request was ahead in the queue
                return
            with self.cache.new_folder() as folder:
                response = run_request(request, path, self.networks, folder, on_progress)
                self.cache.put(request, folder, response)

        try:
            job = self.queue.submit(owner, work)
        except ExtremalError as error:
            yield views.render_message(str(error), alert=True)
            return
        shown: int | JobProgress | None = None
        try:
            while not job.finished:
                current = job.progress if job.state is JobState.RUNNING else self.queue.position(job)
                if current != shown:
                    shown = current
                    yield await asyncio.to_thread(views.render_progress, current)
                await asyncio.sleep(POLL_INTERVAL)
        finally:
            job.cancel()  # also when the visitor has left
        if job.state is JobState.CANCELLED:
            yield views.render_message("Cancelled; nothing was saved.")
        elif job.state is JobState.FAILED:
            yield views.render_message(job.error, alert=True)

    def on_cancel(self, http_request: gr.Request) -> None:
        """Cancel the job of this visitor."""
        self.queue.cancel(str(http_request.session_hash))

    on_unload = on_cancel  # the visitor has closed the page


def _no_classes() -> tuple[Any, Any]:
    """Return updates that clear both fields of the class."""
    return gr.update(choices=[], value=None), gr.update(value=None)


def class_choices(served: ServedNetwork) -> list[tuple[str, int | str]]:
    """Return groups of classes of a network, each with its label and name, then the classes with label and index."""
    network = served.network
    groups = [(network.label(tuple(members)), name) for name, members in network.named_groups.items()]
    return [*groups, *((label, index) for index, label in enumerate(network.labels))]


def _parse_areas(text: str) -> list[float]:
    """Return the areas in a text of numbers separated by commas, sorted.

    Raises:
        ExtremalValueError: a part of the text is not a number.
    """
    areas = list[float]()
    for part in text.split(","):
        try:
            areas.append(float(part))
        except ValueError:
            raise ExtremalValueError(
                f"areas must be numbers separated by commas, got {part.strip()!r}; e.g. 0.05, 0.1"
            ) from None
    return sorted(areas)


def _class_choice(label: str, probability: float | None) -> str:
    if probability is None:
        return label
    return f"{label} – {'under 1' if probability < 0.01 else f'{100 * probability:.0f}'} %"
