"""What happens on the page: a look at a photograph, a place in the line, an answer. Each session is one person."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from extremal.app import views
from extremal.app.job_queue import Line, Progress, Report, State
from extremal.app.networks import Offered
from extremal.app.request import Wish, granted, photograph
from extremal.app.result_cache import Shelf
from extremal.errors import ExtremalError, ExtremalValueError
from extremal.explanations.settings import checked_areas
from extremal.files import content_hash

REGIONS = "Regions of the photograph"
GAMES = {
    "What is enough (preserve)": ("preserve",),
    "What has to go (delete)": ("delete",),
    "Both, side by side": ("preserve", "delete"),
    "Both at once (dual)": ("dual",),
}
TICK = 0.2  # s between looks at a job


class Events:
    """The events of the page, over the networks by name, the line of jobs and the shelf of answers."""

    def __init__(self, offered: dict[str, Offered], line: Line, shelf: Shelf) -> None:
        self.offered, self.line, self.shelf = offered, line, shelf

    def look(self, photo: str | None, network: str) -> tuple[Any, Any, str, str]:
        """The most probable classes of a new photograph; what was said of another goes."""
        if not photo:
            return *_no_class(), views.told("Drop a photograph, or take an example."), ""
        try:
            glances = self.offered[network].glance(photograph(Path(photo), Path(photo).name))
        except ExtremalError as error:
            return *_no_class(), views.told(str(error), alert=True), ""
        choices = [(_told(one.name, one.probability), one.index) for one in glances]
        chosen = gr.update(choices=choices, value=glances[0].index)
        return chosen, gr.update(value=None), views.told("Choose a class, and explain it."), ""

    def offers(self, network: str) -> tuple[Any, Any, Any]:
        """What there is to choose of another network."""
        one = self.offered[network]
        others = [name for name in self.offered if name != network]
        return (
            gr.update(choices=classes(one), value=None),
            gr.update(choices=[REGIONS, *one.layers], value=REGIONS),
            gr.update(choices=others, value=None),
        )

    def named(self, other: int | None, network: str) -> Any:
        """A class by name takes the place of the most probable ones."""
        if other is None:
            return gr.skip()
        return gr.update(choices=[(self.offered[network].network.label(other), other)], value=other)

    async def explain(
        self,
        photo: str | None,
        network: str,
        target: int | None,
        game: str,
        layer: str,
        rival: str | None,
        areas: str,
        perturbation: str,
        answers: int,
        refine: bool,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Stand in the line, tell how far it is, and show what came of it."""
        try:
            if not photo or target is None:
                raise ExtremalValueError("a photograph and a class must be chosen first; drop one, or take an example")
            path = Path(photo)
            digest = await asyncio.to_thread(content_hash, path)
            wish = Wish(
                digest,
                path.name,
                int(target),
                (network, *([rival] if rival else [])),
                GAMES[game],
                "" if layer == REGIONS else layer,
                perturbation,
                checked_areas(_numbers(areas)),
                int(answers),
                bool(refine),
            )
        except (ExtremalError, OSError) as error:
            told = str(error) if isinstance(error, ExtremalError) else "the photograph is no longer here; drop it again"
            yield views.told(told, alert=True), gr.skip()
            return
        kept = self.shelf.find(wish)
        if kept is None:
            async for told in self._done(wish, path, str(request.session_hash)):
                yield told, gr.skip()
            kept = self.shelf.find(wish)
        if kept is not None:
            yield views.done(kept), views.answered(kept)

    async def _done(self, wish: Wish, path: Path, owner: str) -> AsyncIterator[str]:
        """Do what is wished, in the line; the answer is on the shelf then, where there is one."""

        def work(report: Report) -> None:
            if self.shelf.find(wish):  # somebody before in the line asked the same
                return
            with self.shelf.new_folder() as folder:
                self.shelf.keep(wish, folder, granted(wish, path, self.offered, folder, report))

        try:
            job = self.line.join(owner, work)
        except ExtremalError as error:
            yield views.told(str(error), alert=True)
            return
        said: int | Progress | None = None
        try:
            while not job.over:
                now = job.progress if job.state is State.RUNNING else self.line.place(job)
                if now != said:
                    said = now
                    yield await asyncio.to_thread(views.on_the_way, now)
                await asyncio.sleep(TICK)
        finally:
            job.cancel()  # nobody looks any more
        if job.state is State.CANCELLED:
            yield views.told("Cancelled; nothing was kept.")
        elif job.state is State.FAILED:
            yield views.told(job.error, alert=True)

    def cancel(self, request: gr.Request) -> None:
        """Call off what this person waits for."""
        self.line.cancel(str(request.session_hash))

    left = cancel  # the page was closed: nobody waits any more


def _no_class() -> tuple[Any, Any]:
    """Neither of the most probable classes nor by name."""
    return gr.update(choices=[], value=None), gr.update(value=None)


def classes(one: Offered) -> list[tuple[str, int]]:
    """The classes of a network, each with its name and index."""
    return [(label, index) for index, label in enumerate(one.network.labels)]


def _numbers(areas: str) -> list[float]:
    """What was written in the field of the areas, in order.

    Raises:
        ExtremalValueError: something else than numbers.
    """
    numbers = list[float]()
    for part in areas.split(","):
        try:
            numbers.append(float(part))
        except ValueError:
            raise ExtremalValueError(
                f"areas must be numbers with commas between them, got {part.strip()!r}; e.g. 0.05, 0.1"
            ) from None
    return sorted(numbers)


def _told(name: str, probability: float | None) -> str:
    if probability is None:
        return name
    return f"{name} – {'under 1' if probability < 0.01 else f'{100 * probability:.0f}'} %"
