"""What the page is told while it waits and when it has an answer, as HTML; every text is escaped."""

from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from extremal.app.job_queue import Progress
from extremal.app.request import Seen, View
from extremal.app.result_cache import FILES, Kept
from extremal.explanations.overlay import jpeg, pale
from extremal.report.table_widget import jpeg_uri
from extremal.report.text import area_percent

TILE = 320  # px at most, of a picture on the way
TOGETHER = 5  # masks of a step that are shown


def on_the_way(now: int | Progress) -> str:
    """For somebody who waits: how many come before, or how far the run is."""
    return waiting(now) if isinstance(now, int) else running(now)


def waiting(place: int) -> str:
    """For somebody who stands in the line."""
    before = {0: "No job comes", 1: "1 job comes"}.get(place, f"{place} jobs come")
    return _filled("waiting.html.j2", before=before)


def running(progress: Progress) -> str:
    """How far a run is, with the photograph under the masks of its last step."""
    seen = progress.shown
    pictures = [_under(seen, k) for k in range(min(TOGETHER, len(seen.masks)))] if isinstance(seen, Seen) else []
    areas = [area_percent(float(mask.mean())) for mask in seen.masks] if isinstance(seen, Seen) else []
    return _filled("running.html.j2", progress=progress, pictures=pictures, areas=areas)


def told(message: str, alert: bool = False) -> str:
    """One sentence; an alert is read aloud at once."""
    return _filled("told.html.j2", message=message, alert=alert)


def done(kept: Kept) -> str:
    """What was found, a sentence a view."""
    return _filled("done.html.j2", views=[(view.heading, view.sentence) for view in kept.answer.views])


def answered(kept: Kept) -> str:
    """The views side by side, each the report itself in a frame, with its files."""
    views = [
        (view.heading, f"/results/{kept.name}/{number}", _files(view)) for number, view in enumerate(kept.answer.views)
    ]
    overlaps = [(area_percent(one.area), f"{one.iou:.2f}") for one in kept.answer.overlaps]
    return _filled("answered.html.j2", views=views, overlaps=overlaps)


def _files(view: View) -> list[tuple[str, str]]:
    """The files of a view, each with what it is called."""
    return [(file, label) for file, label in FILES.items() if (view.folder / file).is_file()]


def _under(seen: Seen, k: int) -> str:
    """The photograph under one mask, what is not left pale, as a data URI."""
    picture = seen.picture.numpy()
    mask = seen.masks[k].detach().float().cpu().numpy()[..., None]
    mixed = (mask * picture + (1 - mask) * pale(picture)).round().astype(np.uint8)
    return jpeg_uri(jpeg(mixed, TILE, quality=75))


@cache
def _templates() -> Environment:
    loader = PackageLoader("extremal.app", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def _filled(template: str, **values: object) -> str:
    return _templates().get_template(template).render(**values)
