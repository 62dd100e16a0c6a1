"""The command `extremal explain`."""

import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from extremal.cli import options, plan_tables, tables
from extremal.cli.argument_checks import check_alternatives, check_areas, check_names, find_minimal_budget
from extremal.cli.batch import ImageBatch, ImageOutcome, ProcessImage, search_minimal
from extremal.cli.networks import copy_to_devices, load
from extremal.cli.parse import parse_areas, parse_perturbation
from extremal.cli.question_checks import check_question, check_shapes
from extremal.explanations.stages import OnStage, report_stages
from extremal.file_checks import to_printable
from extremal.networks.devices import check_device_name
from extremal.networks.names import check_network_name

if TYPE_CHECKING:
    from extremal.explanations.settings import Settings
    from extremal.networks.network import Network
    from extremal.scores.target import Target

_WRITING = threading.Lock()  # figures are drawn by one thread at a time


def explain(
    images: options.Images,
    *,
    target: options.Target = "",
    ask: options.Ask = "",
    prompt: options.Prompt = "",
    areas: options.Areas = options.DEFAULT_AREAS,
    game: options.Game = "preserve",
    perturbation: options.Perturbation = "mixed",
    solver: options.Solver = "consensus",
    effort: options.Effort = "normal",
    score: options.Score = options.DEFAULT_SCORE,
    network: options.Network = "embedded",
    weights: options.Weights = "",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    alternatives: options.Alternatives = 1,
    out: options.ImageFolders = options.DEFAULT_FOLDER,
    refine: options.Refine = False,
    minimal: options.Minimal = False,
    budget: options.Budget = None,
    stability: options.Stability = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Find the smallest regions of images that a network's answer needs, with the evidence."""
    kind = " ".join(part for part in (target, ask, prompt, "" if game == "preserve" else game) if part)
    batch = ImageBatch(out, images, as_json, kind, force, writes=not dry_run)

    def check() -> None:
        check_device_name(device)
        check_areas(areas)
        check_names(game=game, perturbation=perturbation, solver=solver, score=score, effort=effort)
        check_alternatives(alternatives)
        check_network_name(network, weights)
        check_question(target, ask, prompt, network, score)
        find_minimal_budget(minimal, budget)
        check_shapes(batch.images, network)

    def prepare() -> list[ProcessImage]:
        from extremal.explanations.settings import Settings
        from extremal.explanations.smallest_area import check_search
        from extremal.networks.memory import keep_freed_memory
        from extremal.scores.parse import parse_query

        keep_freed_memory()  # the process belongs to this command
        settings = Settings(
            areas=parse_areas(areas),
            game=game,
            perturbation=parse_perturbation(perturbation),
            solver=solver,
            effort=effort,
            score=score,
            alternatives=alternatives,
            seed=seed,
        )
        net = load(network, weights, device)
        if refine:
            check_search(net)
        extras = Extras(refine, find_minimal_budget(minimal, budget), stability)
        if dry_run:
            return [plan_images(net, parse_query(net, target, ask, prompt), settings, extras)]
        return [
            explain_images(copy, parse_query(copy, target, ask, prompt), settings, extras)
            for copy in copy_to_devices(net, device, len(batch.images))
        ]

    batch.process(check, prepare)


@dataclass(frozen=True)
class Extras:
    """Measurements of an image beyond its explanation.

    Attributes:
        refine: whether to search for the smallest sufficient area.
        minimal_budget: evaluations to reduce the sufficient region; 0: it is not reduced.
        stability: whether to explain copies with noise.
    """

    refine: bool
    minimal_budget: int
    stability: bool


def explain_images(net: "Network", query: "Target", settings: "Settings", extras: Extras) -> ProcessImage:
    """Return the function that explains one image and writes its result."""
    import extremal
    from extremal.explanations.smallest_area import smallest_area
    from extremal.explanations.verdict import check_finite
    from extremal.networks.inputs import read_stacks
    from extremal.report import result_files
    from extremal.report.minimal_panel import minimal_sentence

    def process(image: str, folder: Path, on_stage: OnStage) -> ImageOutcome:
        on_stage("reading", 0, 1)
        opened = read_stacks(net, image)
        explanation = extremal.explain(net, opened, query, settings=settings, **report_stages(on_stage))
        check_finite(explanation.status)
        certificate = None
        if extras.refine:
            on_stage("smallest area", 0, 1)
            certificate = smallest_area(net, explanation, query)[0]
        region, sentence = None, ""
        if extras.minimal_budget:
            search = partial(
                extremal.minimal,
                *(net, explanation, query),
                budget=extras.minimal_budget,
                on_evaluations=lambda done, total: on_stage("minimal region", done, total),
            )
            region, sentence = search_minimal(search, minimal_sentence)
        if extras.stability:
            measured = extremal.stability(
                *(net, opened, explanation),
                target=query,
                on_progress=lambda stage, done, total: on_stage(f"copies, {stage}", done, total),
            )
            explanation = replace(explanation, stability=measured)
        on_stage("writing", 0, 1)
        name = to_printable(image)
        with _WRITING:
            files = result_files.write_result(explanation, folder, Path(name).name, certificate, region)
        record = result_files.result_record(image, explanation, files, certificate, region)
        return ImageOutcome(record, lambda: tables.print_explanation(name, explanation, files, certificate, sentence))

    return process


def plan_images(net: "Network", query: "Target", settings: "Settings", extras: Extras) -> ProcessImage:
    """Return the function that plans a run for one image and prints it; nothing is written."""
    from extremal.explanations.explain_copies import COPIES
    from extremal.explanations.preflight.plan import plan
    from extremal.report import result_files

    asked = {"copies": COPIES * extras.stability, "minimal_budget": extras.minimal_budget}
    counts = {name: count for name, count in asked.items() if count}

    def process(image: str, folder: Path, on_stage: OnStage) -> ImageOutcome:
        on_stage("measuring", 0, 1)
        planned = plan(net, image, query, settings=settings, refine=extras.refine)
        record = {"path": image, "folder": str(folder), **planned.as_dict(), **counts}
        return ImageOutcome(
            result_files.to_json_values(record),
            lambda: plan_tables.print_plan(to_printable(image), planned, folder, **counts),
        )

    return process
