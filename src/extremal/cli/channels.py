"""What the commands about channels do: check, compute, write, tell."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from PIL import Image

from extremal import files as extremal_files
from extremal.cli import tables
from extremal.cli.batch import ImageBatch, ImageOutcome, OnStage, ProcessImage, progress
from extremal.errors import ExtremalValueError
from extremal.explanations.channels.class_ranking import ClassChannels, class_channels
from extremal.explanations.channels.explain import explain_channels
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.channels.inversion import Inversion, invert
from extremal.explanations.channels.visualisation import Visualisation, visualise
from extremal.explanations.verdict import NOT_FINITE
from extremal.masking.games import get_game
from extremal.masking.solvers import get_solver
from extremal.networks.inputs import SUFFIXES, read_picture
from extremal.networks.layers import module_named
from extremal.networks.memory import keep_freed_memory
from extremal.report.channel_files import channel_record, write_channel_result, write_class_result
from extremal.report.result_files import RESULT_FILES
from extremal.scores import get_score

if TYPE_CHECKING:
    from extremal.networks.network import Network

MAX_VISUALISED = 8  # channels of the smallest sufficient set that are made visible


def prepare_channels_run(
    batch: ImageBatch,
    load: Callable[[], "Network"],
    aim: Callable[["Network"], int | None],
    *,
    layer: str,
    counts: str,
    axis: int | None,
    choices: dict[str, str],
    seed: int,
    see: bool,
) -> ProcessImage:
    """Everything that can be wrong before the first photo is looked at; then `explain_channels` for each."""
    wanted = read_counts(counts)
    parts = get_game(choices["game"]), get_solver(choices["solver"]), get_score(choices["score"])
    batch.check_folders()
    keep_freed_memory()  # the process is this command's own
    net = load()
    module_named(net, layer)
    target = aim(net)

    def run(photo: str, folder: Path, report: OnStage) -> ImageOutcome:
        found = explain_channels(
            *(net, photo, layer, target),
            counts=wanted,
            axis=axis,
            game=parts[0],
            solver=parts[1],
            score=parts[2],
            seed=seed,
            on_step=lambda step: report(step.stage, step.index + 1, step.total),
            on_evidence=lambda done, total: report("evidence", done, total),
        )
        if "not finite" in found.status[0]:
            raise ExtremalValueError(NOT_FINITE)
        seen = _visualise(net, photo, batch.images, found, axis, seed, report) if see else (None, None)
        report("writing", 0, 1)
        files = write_channel_result(found, folder, Path(photo).name, *seen)
        record = channel_record(photo, found, files)
        return ImageOutcome(record, lambda: tables.print_channels(photo, found, files))

    return run


def read_counts(text: str) -> tuple[int, ...] | None:
    """Whole numbers with commas; None where there is nothing.

    >>> read_counts("4, 16"), read_counts("")
    ((4, 16), None)
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else None
    except ValueError:
        raise ExtremalValueError(f"counts must be whole numbers with commas, got {text!r}; e.g. 4,16") from None


def _readable(photos: list[str]) -> Iterator[Image.Image]:
    """The pictures among the photos; one that cannot be read is told when its turn comes."""
    for photo in photos:
        with suppress(ExtremalValueError):
            yield read_picture(photo)


def _visualise(
    net: "Network",
    photo: str,
    photos: list[str],
    found: ChannelExplanation,
    axis: int | None,
    seed: int,
    report: OnStage,
) -> tuple[Inversion, Visualisation]:
    """What the smallest sufficient set carries, and what excites the channels in it that count most."""
    inversion = invert(
        *(net, found.layer, photo, found.smallest_mask),
        axis=axis,
        seed=seed,
        on_step=lambda done, total: report("inversion", done, total),
    )
    inside = found.smallest_mask[0] * (found.rankings[0, 0] - found.rankings[0, 0].min() + 1)
    most = inside.topk(min(MAX_VISUALISED, found.smallest().count)).indices.tolist()
    visualisation = visualise(
        *(net, found.layer, most),
        images=list(_readable(photos)),
        axis=axis,
        seed=seed,
        on_step=lambda done, total: report("channels", done, total),
    )
    return inversion, visualisation


def class_channels_command(
    net: "Network",
    folder: Path,
    layer: str,
    target: int | None,
    *,
    axis: int | None,
    seed: int,
    see: bool,
    top: int,
    out: Path,
    as_json: bool,
) -> None:
    """`class_channels` over the pictures of a folder: table, figure and report, and the top in the terminal."""
    if not folder.is_dir():
        raise ExtremalValueError(f"a class must be a folder of pictures, got {str(folder)!r}; check the path")
    if target is None:
        raise ExtremalValueError("a class must be named, got an empty target; e.g. --target 'tiger cat'")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    module_named(net, layer)
    extremal_files.check_writable(out)
    goal = extremal_files.name_folders(out, [folder.resolve().name])[0]
    extremal_files.check_replaceable(goal, RESULT_FILES)
    keep_freed_memory()
    pictures = [read_picture(path) for path in paths]
    visualisation = None
    with progress(folder.name) as report:
        found: ClassChannels = class_channels(
            *(net, pictures, layer, target),
            axis=axis,
            seed=seed,
            on_step=lambda step: report(step.stage, step.index + 1, step.total),
        )
        if see:
            visualisation = visualise(
                *(net, layer, found.ranking()[:MAX_VISUALISED]),
                images=pictures,
                axis=axis,
                seed=seed,
                on_step=lambda done, total: report("channels", done, total),
            )
    files = write_class_result(found, goal, visualisation)
    if as_json:
        typer.echo(json.dumps({"channels": found.table().to_pylist(), "files": files}, indent=2))
    else:
        tables.print_class_channels(found, top, files)
