"""HTML fragments of the page: messages and progress; all text is escaped."""

from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from extremal.app.job_queue import JobProgress
from extremal.app.view_run import Preview
from extremal.explanations.overlay import encode_jpeg, fade
from extremal.report.stage_text import STAGE_WORDS
from extremal.report.table_widget import jpeg_uri
from extremal.report.text import area_percent, duration

PREVIEW_SIZE = 320  # px, longer side at most
MAX_PREVIEWS = 5  # masks of a step that are shown


def render_progress(current: int | JobProgress, note: str = "") -> str:
    """Render the position of a waiting job, or the progress of a running one; a note stands above it."""
    return render_position(current, note) if isinstance(current, int) else render_running(current, note)


def render_position(position: int, note: str = "") -> str:
    """Render the number of jobs ahead of a waiting job."""
    jobs = {0: "No job is", 1: "1 job is"}.get(position, f"{position} jobs are")
    return render_fragment("position.html.j2", jobs=jobs, note=note)


def render_running(current: JobProgress, note: str = "") -> str:
    """Render the progress of a running job, with the image under the masks of its last step."""
    preview, images, areas = current.preview, list[str](), list[str]()
    if isinstance(preview, Preview):
        images = [_overlay(preview, k) for k in range(min(MAX_PREVIEWS, len(preview.masks)))]
        areas = [area_percent(float(mask.mean())) for mask in preview.masks]
    left = "" if current.seconds_left is None else f"about {duration(max(1, current.seconds_left))}"
    return render_fragment(
        "running.html.j2",
        progress=current,
        stage=describe_stage(current.stage),
        left=left,
        images=images,
        areas=areas,
        note=note,
    )


def describe_stage(stage: str) -> str:
    """Describe a stage of a job to a visitor.

    >>> describe_stage("descent"), describe_stage("view 1 of 2: evidence"), describe_stage("copies, descent")
    ('Searching', 'View 1 of 2: testing what was found', 'Copies with noise: searching')
    """
    stage = stage.replace("copies, ", "copies with noise: ")
    before, colon, last = stage.rpartition(": ")
    text = f"{before}{colon}{STAGE_WORDS.get(last, last)}"
    return text[:1].upper() + text[1:]


def render_message(text: str, alert: bool = False) -> str:
    """Render one sentence, with a capital and a full stop; screen readers announce an alert at once."""
    text = f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '…')) else '.'}"
    return render_fragment("message.html.j2", text=text, alert=alert)


def _overlay(preview: Preview, k: int) -> str:
    """Return the image under mask k, its removed part pale, as a data URI."""
    image = preview.image.numpy()
    mask = preview.masks[k].detach().float().cpu().numpy()[..., None]
    overlay = (mask * image + (1 - mask) * fade(image)).round().astype(np.uint8)
    return jpeg_uri(encode_jpeg(overlay, PREVIEW_SIZE, quality=75))


@cache
def _templates() -> Environment:
    loader = PackageLoader("extremal.app", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def render_fragment(template: str, **values: object) -> str:
    """Render a template of this package; all values are escaped."""
    return _templates().get_template(template).render(**values)
