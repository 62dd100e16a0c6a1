"""The commands `extremal sets`, `extremal contrast` and `extremal tokens`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extremal.cli import options
from extremal.cli.argument_checks import check_areas, check_names
from extremal.cli.batch import ImageBatch, ImageOutcome, ProcessImage
from extremal.cli.networks import copy_to_devices, load
from extremal.cli.parse import parse_areas, parse_perturbation
from extremal.cli.question_checks import check_contrast, check_question, check_shapes
from extremal.errors import ExtremalValueError
from extremal.explanations.stages import OnStage
from extremal.file_checks import to_printable
from extremal.networks.devices import check_device_name
from extremal.networks.names import check_network_name

if TYPE_CHECKING:
    from extremal.explanations.preflight.bundle_plan import BundlePlan
    from extremal.explanations.sets.answer_tokens import AnswerTokens
    from extremal.explanations.sets.class_contrast import Contrast
    from extremal.explanations.sets.region_sets import RegionSets
    from extremal.explanations.settings import Settings
    from extremal.networks.network import Network

PlanRegions = Callable[[str], "BundlePlan"]  # image -> the runs for it
FindRegions = Callable[[str, OnStage], "RegionSets | Contrast | AnswerTokens"]  # image, progress -> its regions
Other = Annotated[str, typer.Option(help="The other class, by name or index.", show_default="the runner-up")]


def sets(
    images: options.Images,
    *,
    target: options.Target = "",
    ask: options.Ask = "",
    areas: options.Areas = options.DEFAULT_AREAS,
    perturbation: options.Perturbation = "mixed",
    solver: options.Solver = "consensus",
    effort: options.Effort = "normal",
    score: options.Score = options.DEFAULT_SCORE,
    network: options.Network = "embedded",
    weights: options.Weights = "",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    out: options.ImageFolders = options.DEFAULT_FOLDER,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Find the regions that are sufficient, necessary, and both, each with its evidence."""
    batch = ImageBatch(
        out, images, as_json, " ".join(part for part in ("sets", target, ask) if part), force, writes=not dry_run
    )

    def check() -> None:
        names = {"perturbation": perturbation, "solver": solver, "score": score, "effort": effort}
        _check_options(images, areas, device, network, weights, **names)
        check_question(target, ask, network=network, score=score)

    def prepare() -> list[ProcessImage]:
        import extremal
        from extremal.explanations.preflight.bundle_plan import plan_sets
        from extremal.scores.parse import parse_query

        settings = _parse_settings(areas, perturbation, solver=solver, effort=effort, score=score, seed=seed)
        net = load(network, weights, device)

        def bind(copy: "Network") -> tuple[PlanRegions, FindRegions]:
            query = parse_query(copy, target, ask)
            return (
                lambda image: plan_sets(copy, image, query, settings=settings),
                lambda image, report: extremal.explain_sets(copy, image, query, settings=settings, on_part=report),
            )

        return _build_each(batch, net, device, dry_run, bind)

    batch.process(check, prepare)


def contrast(
    images: options.Images,
    *,
    target: options.Target = "",
    other: Other = "",
    areas: options.Areas = options.DEFAULT_AREAS,
    perturbation: options.Perturbation = "mixed",
    solver: options.Solver = "consensus",
    effort: options.Effort = "normal",
    network: options.Network = "embedded",
    weights: options.Weights = "",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    out: options.ImageFolders = options.DEFAULT_FOLDER,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Find why an image is one class rather than another, and the region whose loss turns one into the other."""
    batch = ImageBatch(
        out, images, as_json, " ".join(part for part in ("contrast", target, other) if part), force, writes=not dry_run
    )

    def check() -> None:
        names = {"perturbation": perturbation, "solver": solver, "effort": effort}
        _check_options(images, areas, device, network, weights, **names)
        check_contrast(target, other, network)

    def prepare() -> list[ProcessImage]:
        import extremal
        from extremal.explanations.preflight.bundle_plan import plan_contrast
        from extremal.scores.parse import parse_class

        settings = _parse_settings(areas, perturbation, solver=solver, effort=effort, seed=seed)
        net = load(network, weights, device)
        classes = [parse_class(net, text) for text in (target, other)]
        for option, parsed in zip(("--target", "--other"), classes, strict=True):
            if not (parsed is None or isinstance(parsed, int)):
                raise ExtremalValueError(f"{option} must be a single class for a contrast, got a group; name a class")
        first, second = (parsed if isinstance(parsed, int) else None for parsed in classes)

        def bind(copy: "Network") -> tuple[PlanRegions, FindRegions]:
            return (
                lambda image: plan_contrast(copy, image, first, second, settings=settings),
                lambda image, report: extremal.contrast(copy, image, first, second, settings=settings, on_part=report),
            )

        return _build_each(batch, net, device, dry_run, bind)

    batch.process(check, prepare)


def tokens(
    images: options.Images,
    *,
    prompt: Annotated[str, typer.Option(help="Question to the model.")] = "",
    answer: Annotated[str, typer.Option(help="Text of the answer.", show_default="the model's own")] = "",
    areas: options.Areas = options.DEFAULT_AREAS,
    game: options.Game = "preserve",
    perturbation: options.Perturbation = "mixed",
    solver: options.Solver = "consensus",
    effort: options.Effort = "normal",
    network: Annotated[str, typer.Option(help="Model of images and text: hf:FOLDER or hf:OWNER/NAME.")],
    device: options.Device = "auto",
    seed: options.Seed = 0,
    out: options.ImageFolders = options.DEFAULT_FOLDER,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Find the region that each token of an answer needs, with a model of images and text."""
    kind = " ".join(part for part in ("tokens", answer, prompt, "" if game == "preserve" else game) if part)
    batch = ImageBatch(out, images, as_json, kind, force, writes=not dry_run)

    def check() -> None:
        names = {"game": game, "perturbation": perturbation, "solver": solver, "effort": effort}
        _check_options(images, areas, device, network, "", **names)

    def prepare() -> list[ProcessImage]:
        import extremal
        from extremal.explanations.preflight.bundle_plan import plan_tokens
        from extremal.scores import Answer

        settings = _parse_settings(areas, perturbation, game=game, solver=solver, effort=effort, seed=seed)
        query = Answer(answer or None, prompt)
        net = load(network, "", device)

        def bind(copy: "Network") -> tuple[PlanRegions, FindRegions]:
            return (
                lambda image: plan_tokens(copy, image, query, settings=settings),
                lambda image, report: extremal.explain_tokens(copy, image, query, settings=settings, on_part=report),
            )

        return _build_each(batch, net, device, dry_run, bind)

    batch.process(check, prepare)


def _check_options(images: list[str], areas: str, device: str, network: str, weights: str, **names: str) -> None:
    check_device_name(device)
    check_areas(areas)
    check_names(**names)
    check_network_name(network, weights)
    check_shapes(images, network)


def _parse_settings(areas: str, perturbation: str, **others: Any) -> "Settings":
    from extremal.explanations.settings import Settings

    return Settings(areas=parse_areas(areas), perturbation=parse_perturbation(perturbation), **others)


def _build_each(
    batch: ImageBatch,
    net: "Network",
    device: str,
    dry_run: bool,
    bind: "Callable[[Network], tuple[PlanRegions, FindRegions]]",
) -> list[ProcessImage]:
    """Return for each device the function that finds the regions of an image, or plans their runs."""
    copies = copy_to_devices(net, device, 1 if dry_run else len(batch.images))
    return [_plan_with(plan) if dry_run else _process_with(find) for plan, find in map(bind, copies)]


def _plan_with(plan: PlanRegions) -> ProcessImage:
    """Return the function that plans the runs for one image and prints them; nothing is written."""
    from extremal.cli import plan_tables
    from extremal.report.result_files import to_json_values

    def process(image: str, folder: Path, on_stage: OnStage) -> ImageOutcome:
        on_stage("measuring", 0, 1)
        planned = plan(image)
        record = {"path": image, "folder": str(folder), **planned.as_dict()}
        return ImageOutcome(
            to_json_values(record), lambda: plan_tables.print_bundle_plan(to_printable(image), planned, folder)
        )

    return process


def _process_with(find: FindRegions) -> ProcessImage:
    """Return the function that finds the regions of one image and writes them."""
    from extremal.cli import set_tables
    from extremal.explanations.sets.answer_tokens import AnswerTokens
    from extremal.explanations.verdict import check_finite
    from extremal.networks.memory import keep_freed_memory
    from extremal.report.sets_page import sets_record, write_sets
    from extremal.report.tokens_page import tokens_record, write_tokens

    keep_freed_memory()  # the process belongs to this command

    def process(image: str, folder: Path, on_stage: OnStage) -> ImageOutcome:
        result = find(image, on_stage)
        for part in result.explanations():
            check_finite(part.status)
        on_stage("writing", 0, 1)
        name = to_printable(image)
        source = Path(name).name
        if isinstance(result, AnswerTokens):
            files = write_tokens(result, folder, source)
            return ImageOutcome(
                tokens_record(image, result, files), lambda: set_tables.print_tokens(name, result, files)
            )
        files = write_sets(result, folder, source)
        return ImageOutcome(sets_record(image, result, files), lambda: set_tables.print_sets(name, result, files))

    return process
