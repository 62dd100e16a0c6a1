"""The commands `extremal channels` and `extremal class-channels`, without their options."""

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from PIL import Image

from extremal.cli import tables
from extremal.cli.batch import (
    ImageBatch,
    ImageOutcome,
    ProcessImage,
    other_output_on_stderr,
    progress,
    search_minimal,
)
from extremal.cli.networks import load
from extremal.cli.parse import parse_counts
from extremal.errors import ExtremalValueError
from extremal.explanations.channels.class_ranking import class_channels
from extremal.explanations.channels.explain import explain_channels
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.channels.inversion import Inversion, invert
from extremal.explanations.channels.visualisation import Visualisation, visualise
from extremal.explanations.reduce_region import minimal
from extremal.explanations.stages import OnStage, report_stages
from extremal.explanations.verdict import check_finite
from extremal.file_checks import list_names, to_printable
from extremal.masking.games import get_game
from extremal.masking.solvers import get_solver
from extremal.networks.image_files import IMAGE_SUFFIXES, read_image_file
from extremal.networks.layers import get_module
from extremal.networks.memory import keep_freed_memory
from extremal.report.channel_files import channel_record, write_channel_result, write_class_result
from extremal.report.channel_page import minimal_set_sentence
from extremal.scores import ClassGroup, get_score
from extremal.scores.parse import parse_class

if TYPE_CHECKING:
    from extremal.networks.network import Network

MAX_VISUALISED_CHANNELS = 8  # channels of the smallest sufficient set that are visualised


def prepare_channels_run(
    batch: ImageBatch,
    *,
    network: str,
    weights: str,
    device: str,
    layer: str,
    target: str,
    counts: str,
    axis: int | None,
    game: str,
    solver: str,
    score: str,
    seed: int,
    minimal_budget: int,
    with_images: bool,
) -> ProcessImage:
    """Validate the options, load the network, and return the function that explains one image.

    Args:
        batch: the images.
        network, weights, device, layer, target, counts, axis, game, solver, score, seed: as passed to the command.
        minimal_budget: evaluations to reduce the smallest sufficient set; 0: it is not reduced.
        with_images: whether to invert the set and to visualise its channels.
    """
    requested_counts = parse_counts(counts)
    resolved_game, resolved_solver, resolved_score = get_game(game), get_solver(solver), get_score(score)
    keep_freed_memory()  # the process belongs to this command
    net = load(network, weights, device)
    get_module(net, layer)
    class_index = parse_class(net, target)

    def process(image: str, folder: Path, on_stage: OnStage) -> ImageOutcome:
        explanation = explain_channels(
            net,
            image,
            layer,
            class_index,
            counts=requested_counts,
            axis=axis,
            game=resolved_game,
            solver=resolved_solver,
            score=resolved_score,
            seed=seed,
            **report_stages(on_stage),
        )
        check_finite(explanation.status)
        region, sentence = None, ""
        if minimal_budget:
            search = partial(
                minimal,
                *(net, explanation),
                budget=minimal_budget,
                on_evaluations=lambda done, total: on_stage("minimal set", done, total),
            )
            region, sentence = search_minimal(search, minimal_set_sentence)
        inversion, visualisation = None, None
        if with_images:
            inversion, visualisation = _visualise(net, image, batch.images, explanation, axis, seed, on_stage)
        on_stage("writing", 0, 1)
        name = to_printable(image)
        files = write_channel_result(explanation, folder, Path(name).name, inversion, visualisation, region)
        record = channel_record(image, explanation, files, region)
        return ImageOutcome(record, lambda: tables.print_channels(name, explanation, files, sentence))

    return process


def _readable_images(paths: list[str]) -> Iterator[Image.Image]:
    """Yield the images that can be read; the others are reported when they are processed."""
    for path in paths:
        with suppress(ExtremalValueError):
            yield read_image_file(path)


def _visualise(
    net: "Network",
    image: str,
    images: list[str],
    explanation: ChannelExplanation,
    axis: int | None,
    seed: int,
    on_stage: OnStage,
) -> tuple[Inversion, Visualisation]:
    """Invert the smallest sufficient set, and visualise its highest-ranked channels."""
    inversion = invert(
        net,
        explanation.layer,
        image,
        explanation.smallest_mask,
        axis=axis,
        seed=seed,
        on_step=lambda done, total: on_stage("inversion", done, total),
    )
    ranking = explanation.rankings[0, 0]
    ranking_inside = explanation.smallest_mask[0] * (ranking - ranking.min() + 1)
    top = ranking_inside.topk(min(MAX_VISUALISED_CHANNELS, explanation.smallest().count)).indices.tolist()
    visualisation = visualise(
        net,
        explanation.layer,
        top,
        images=list(_readable_images(images)),
        axis=axis,
        seed=seed,
        on_step=lambda done, total: on_stage("channels", done, total),
    )
    return inversion, visualisation


def class_channels_command(
    net: "Network",
    folder: Path,
    layer: str,
    target: int | ClassGroup | None,
    *,
    axis: int | None,
    seed: int,
    with_images: bool,
    top: int,
    output_folder: Path,
    as_json: bool,
) -> None:
    """Rank channels over a folder of images; write table, figure and report; print the top channels."""
    if target is None:
        raise ExtremalValueError("a class must be named, got an empty target; e.g. --target 'tiger cat'")
    paths = [folder / name for name in list_names(folder) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    get_module(net, layer)
    keep_freed_memory()  # the process belongs to this command
    images = [read_image_file(path) for path in paths]
    visualisation = None
    with other_output_on_stderr(), progress(folder.name) as on_stage:
        ranking = class_channels(
            net,
            images,
            layer,
            target,
            axis=axis,
            seed=seed,
            on_step=lambda step: on_stage(step.stage, step.index + 1, step.total),
        )
        if with_images:
            visualisation = visualise(
                net,
                layer,
                ranking.ranking()[:MAX_VISUALISED_CHANNELS],
                images=images,
                axis=axis,
                seed=seed,
                on_step=lambda done, total: on_stage("channels", done, total),
            )
    files = write_class_result(ranking, output_folder, visualisation)
    if as_json:
        typer.echo(json.dumps({"channels": ranking.table().to_pylist(), "files": files}, indent=2))
    else:
        tables.print_class_channels(ranking, top, files)
