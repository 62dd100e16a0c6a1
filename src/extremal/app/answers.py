"""Answers that are stored already: the example that a new visitor sees, and files that a visitor has saved."""

import lzma
import shutil
from importlib.resources import files
from pathlib import Path

from extremal.app.request import CONTRAST, SETS, Request, Response, ResultView
from extremal.app.request_run import encode_thumbnail
from extremal.app.result_cache import CachedResult, ResultCache
from extremal.app.tab_words import describe_heading, describe_tab
from extremal.errors import ExtremalValueError
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import has_image
from extremal.explanations.sets.bundle import Bundle
from extremal.explanations.sets.class_contrast import Contrast
from extremal.explanations.sets.region_sets import RegionSets
from extremal.file_checks import quote
from extremal.files import CHANNELS_FILE, EXPLANATION_FILE, content_hash
from extremal.networks.names import EMBEDDED_NAME
from extremal.report import channel_page, explanation_page, sets_page
from extremal.report.channel_page import summarise_channels
from extremal.report.result_files import REPORT_FILE
from extremal.report.text import summarise

EXAMPLE = "tripod"  # answered when the page is opened
MAX_OPENED_AREAS, MAX_OPENED_SIDE = 100, 4096  # of a saved answer: areas or counts of channels, and px

Answer = Explanation | ChannelExplanation | RegionSets | Contrast


def example_path() -> Path:
    """Return the path of the stored explanation of the example, an explanation file compressed by xz."""
    return Path(str(files("extremal.app") / "answered" / f"{EXAMPLE}.safetensors.xz"))


def add_example(cache: ResultCache) -> CachedResult:
    """Write the report of the stored example, and add it to a cache."""
    request = Request(content_hash(example_path()), f"{EXAMPLE}.jpg", -1, (EMBEDDED_NAME,))
    with cache.new_folder() as folder:
        path = folder / EXPLANATION_FILE
        path.write_bytes(lzma.decompress(example_path().read_bytes()))
        response = _write_answer(Explanation.load(path), path, folder, request.title)
        path.unlink()
        return cache.put_example(request, folder, response)


def open_answer(path: Path, name: str, cache: ResultCache) -> CachedResult:
    """Write the report of a saved answer, and add it to a cache.

    Args:
        path: of the file.
        name: of the file, as its user calls it.
        cache: for the report.

    Raises:
        ExtremalValueError: the file is not an explanation, holds several, or is too large to be shown.
    """
    request = Request(content_hash(path), name, -1, ())
    stored = cache.get(request)
    if stored is not None:
        return stored
    answer = _read_answer(path, name)
    with cache.new_folder() as folder:
        try:
            response = _write_answer(answer, path, folder, name)
        except Exception:  # a file that was made by hand can be inconsistent in any way
            raise _unreadable(name) from None
        return cache.put(request, folder, response)


def _read_answer(path: Path, name: str) -> Answer:
    """Read an explanation of one image: by regions, by channels, by sets of regions, or by a contrast."""
    for kind in (Explanation, ChannelExplanation, RegionSets, Contrast):
        try:
            answer: Answer = kind.load(path)
        except ExtremalValueError:
            continue
        _check_answer(answer, name)
        return answer
    raise _unreadable(name)


def _check_answer(answer: Answer, name: str) -> None:
    """Check that an answer is of one image, and can be shown.

    Resource exhaustion: a report grows with each area and each pixel.
    """
    if isinstance(answer, Bundle):
        for part in answer.explanations():
            _check_answer(part, name)
        return
    sizes = answer.areas if isinstance(answer, Explanation) else answer.counts
    if len(answer.target_names) != 1:
        raise ExtremalValueError(
            f"a saved answer must be about one image, got {len(answer.target_names)} in {quote(name)}; "
            "open it with the library"
        )
    if len(sizes) > MAX_OPENED_AREAS or max(answer.pictures.shape) > MAX_OPENED_SIDE:
        raise ExtremalValueError(
            f"a saved answer must have at most {MAX_OPENED_AREAS} areas and {MAX_OPENED_SIDE} px, got "
            f"{len(sizes)} and {max(answer.pictures.shape)} in {quote(name)}; open it with the library"
        )


def _write_answer(answer: Answer, path: Path, folder: Path, title: str) -> Response:
    """Write the report of an answer, and copy its file."""
    view = folder / "view-0"
    if isinstance(answer, RegionSets | Contrast):
        return _write_several_regions(answer, view, title)
    view.mkdir()
    network, game = str(answer.settings.get("network", "unnamed network")), str(answer.settings.get("game", "preserve"))
    (label,) = answer.target_names
    if isinstance(answer, Explanation):
        explanation_page.write(answer, view / REPORT_FILE, source=title)
        shutil.copyfile(path, view / EXPLANATION_FILE)
        summary = summarise(answer)
        sentence, layer = f"{summary.headline} {summary.caution}".strip(), ""
    else:
        channel_page.write(answer, view / REPORT_FILE, title=title)
        shutil.copyfile(path, view / CHANNELS_FILE)
        channel_summary = summarise_channels(answer)
        sentence, layer = f"{channel_summary.headline} {channel_summary.caution}".strip(), answer.layer
    heading = describe_heading(label, game, network, layer)
    thumbnail = encode_thumbnail(answer.pictures[0].numpy()) if _has_picture(answer) else b""
    return Response((ResultView(heading, view, sentence, describe_tab(game, layer), label),), (), thumbnail)


def _write_several_regions(answer: RegionSets | Contrast, view: Path, title: str) -> Response:
    """Write the report and the files of sets of regions or of a contrast."""
    first = answer.explanations()[0]
    question = CONTRAST if isinstance(answer, Contrast) else SETS
    label = answer.names[0] if isinstance(answer, Contrast) else first.target_names[0]
    sets_page.write_sets(answer, view, title)
    heading = describe_heading(label, question, str(first.settings.get("network", "unnamed network")))
    thumbnail = encode_thumbnail(first.pictures[0].numpy()) if _has_picture(first) else b""
    result = ResultView(heading, view, sets_page.headline(answer), describe_tab(question), label)
    return Response((result,), (), thumbnail)


def _has_picture(answer: Explanation | ChannelExplanation) -> bool:
    return has_image(answer) if isinstance(answer, Explanation) else answer.pictures.numel() > 0


def _unreadable(name: str) -> ExtremalValueError:
    return ExtremalValueError(
        f"a saved answer must be an explanation file of this app or of the library, got {quote(name)}; "
        "save an answer under its report, and open that file"
    )
