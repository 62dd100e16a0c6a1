"""Run a request: one view for each network and question, written to a private folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from extremal.app.job_queue import OnProgress
from extremal.app.networks import ServedNetwork, Upload
from extremal.app.reader_uploads import read_upload, show_middle_frame
from extremal.app.request import RegionOverlap, Request, Response, ResultView
from extremal.app.view_run import ViewRun
from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import encode_jpeg
from extremal.explanations.regions import iou
from extremal.networks.image_files import read_image_file
from extremal.networks.stacks.readers import PreparedStack
from extremal.scores.answer import Answer
from extremal.scores.class_group import ClassGroup

MAX_PIXELS = 40_000_000  # of an image
THUMBNAIL_SIZE = 128  # px, longer side at most


def read_image(path: Path, name: str) -> Image.Image:
    """Read and check an uploaded image.

    Raises:
        ExtremalValueError: the image cannot be read, or has more than 40 megapixels.
    """
    return read_image_file(path, name=name, max_pixels=MAX_PIXELS)


def run_request(
    request: Request, path: Path, networks: dict[str, ServedNetwork], folder: Path, on_progress: OnProgress
) -> Response:
    """Compute the response to a request, one view for each network and question.

    Args:
        request: what to explain, and how.
        path: path of the uploaded image.
        networks: served networks by name.
        folder: empty folder for the views.
        on_progress: called with the progress; an exception that it raises ends the run.

    Raises:
        ExtremalValueError: the image, the class or the layer is invalid.
    """
    first = networks[request.networks[0]]
    images = _read_images(request, path, networks)
    views, explanations = list[ResultView](), list[Explanation]()
    targets = {name: _find_target(request, networks[name], first, images[name]) for name in request.networks}
    pairs = [(networks[name], question) for name in request.networks for question in request.questions]
    for number, (network, question) in enumerate(pairs):
        report = _view_progress(on_progress, number, len(pairs))
        target, image = targets[network.name], images[network.name]
        view, explanation = ViewRun(request, question, network, target, image, folder / f"view-{number}", report).run()
        views.append(view)
        if explanation is not None:
            explanations.append(explanation)
    overlaps = find_overlaps(*explanations[:2]) if len(explanations) > 1 else ()
    return Response(tuple(views), overlaps, _draw_thumbnail(images[first.name]))


def _read_images(request: Request, path: Path, networks: dict[str, ServedNetwork]) -> dict[str, Upload]:
    """Return the upload for each network: a picture, or a clip, volume or sound as its own reader has it."""
    if networks[request.networks[0]].kind:
        return {name: read_upload(path, networks[name]) for name in request.networks}
    return dict.fromkeys(request.networks, read_image(path, request.title))


def _draw_thumbnail(image: Upload) -> bytes:
    """Return a small copy of an image, or of the middle frame of a clip or volume; nothing for a sound."""
    if isinstance(image, Tensor):
        return b""
    return encode_thumbnail(show_middle_frame(image) if isinstance(image, PreparedStack) else np.asarray(image))


def _find_target(
    request: Request, network: ServedNetwork, first: ServedNetwork, image: Upload
) -> int | ClassGroup | Answer:
    """Return the target of a network: a class or group of the name that it has in the first one, or an answer."""
    if network.takes_prompt:
        return network.settle_answer(image, request.prompt, str(request.target))
    return network.matching_class(first, request.target)


def _view_progress(on_progress: OnProgress, number: int, count: int) -> OnProgress:
    """Return a callback that reports the progress of one view as a part of all views."""
    prefix = f"view {number + 1} of {count}: " if count > 1 else ""
    return lambda progress: on_progress(replace(progress, stage=prefix + progress.stage))


def find_overlaps(a: Explanation, b: Explanation) -> tuple[RegionOverlap, ...]:
    """Return the intersection over union of the cut masks at each common area; nothing if their shapes differ."""
    if a.masks.shape[2:] != b.masks.shape[2:]:
        return ()
    common = [area for area in a.areas if area in b.areas]
    return tuple(RegionOverlap(area, iou(a.binary(area)[0], b.binary(area)[0])) for area in common)


def encode_thumbnail(image: np.ndarray[Any, Any]) -> bytes:
    """Encode a small copy of an image as JPEG: (H, W, 3) uint8."""
    return encode_jpeg(image, THUMBNAIL_SIZE, quality=80)
