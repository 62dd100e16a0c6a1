"""The commands `extremal bench` and `extremal figures`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extremal.cli import options
from extremal.cli.argument_checks import check_areas, check_names
from extremal.cli.batch import print_line, progress, report_errors
from extremal.cli.bench_checks import check_data, check_numbers, check_task_options
from extremal.cli.common_options import find_passed, with_common_options
from extremal.cli.input_checks import check_images, expand_images
from extremal.cli.networks import load
from extremal.cli.parse import parse_areas
from extremal.cli.question_checks import check_class, check_shapes
from extremal.file_checks import check_output_file
from extremal.networks.devices import check_device_name
from extremal.networks.names import check_network_name

if TYPE_CHECKING:
    from rich.console import Console

    from extremal.benchmark.table import Table

NAME_WIDTH, INTERVAL_WIDTH = 34, 22  # terminal columns: for methods and items, and for a value with its interval
METHOD_LIST = ", ".join(options.METHOD_NAMES)
TEN_AREAS = "0.025,0.05,0.1,0.15,0.2,0.3,0.4,0.5,0.7,0.9"
FIGURE_METHODS = "gradient,guided-backprop,grad-cam,occlusion,contrastive-excitation,mask-gradient,consensus"
figures = typer.Typer(no_args_is_help=True, help="Draw figures of the paper for your own images.")


def bench(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="pointing, grid, faithfulness, sanity or stability.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option(help="Output folder; an existing run with the same options is resumed.")],
    data: Annotated[
        str,
        typer.Option(
            help="voc:DIR, coco:DIR, folder:DIR, scenes:DIR of RGBA cut-outs, or photographs (scikit-image's).",
            show_default="photographs for stability",
        ),
    ] = "",
    cutouts: Annotated[
        Path | None, typer.Option(help="Folder of RGBA cut-outs; scenes made of them are added to the data.")
    ] = None,
    methods: Annotated[
        str, typer.Option(help=f"Methods, separated by commas: {METHOD_LIST}.", show_default="all")
    ] = "",
    network: options.Network = "embedded",
    weights: options.Weights = "",
    device: options.Device = "auto",
    layer: Annotated[str, typer.Option(help="Layer of Grad-CAM and excitation backprop.", show_default="by rule")] = "",
    areas: Annotated[
        str, typer.Option(help="Areas of the extremal maps, and of stability.", show_default="the paper's")
    ] = "",
    effort: options.Effort = "normal",
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of images.", show_default="all")] = 0,
    count: Annotated[int, typer.Option(min=0, help="Number of scenes or mosaics.", show_default="100 or 50")] = 0,
    side: Annotated[int, typer.Option(help="Cells along a side of a grid: 2 or 3.")] = 2,
    cell: Annotated[
        int, typer.Option(min=0, help="Side of a grid's cell in px.", show_default="the network's input size")
    ] = 0,
    confidence: Annotated[float, typer.Option(min=0, max=1, help="Minimum probability of an image's top class.")] = 0.9,
    tolerance: Annotated[float, typer.Option(min=0, help="Radius of the pointing game in px of the image.")] = 15.0,
    smooth: Annotated[
        float, typer.Option(min=0, help="Deviation of a blur applied to all maps, as a fraction of the short side.")
    ] = 0.09,
    classes: Annotated[
        Path | None, typer.Option(help="JSON file that maps the data set's classes to the network's.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per unit of work.")] = 4,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 2, help="Random seed of methods, mosaics and noise.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Judge attribution methods on a data set: write rows, a table with intervals, and a figure; resumable."""
    with report_errors():
        check_device_name(device)
        check_names(task=task, effort=effort)
        if methods:
            check_names(methods=methods)
        if areas:
            check_areas(areas)
        check_numbers(tolerance=tolerance, smooth=smooth)
        check_task_options(task, data, cutouts, methods, find_passed(context))
        check_data(task, data or ("photographs" if task == "stability" else ""), cutouts, out)
        check_network_name(network, weights)

        from extremal.benchmark.bench import BenchOptions, run_bench
        from extremal.networks.memory import keep_freed_memory

        bench_options = BenchOptions(
            task=task,
            data=data,
            cutouts=cutouts,
            methods=_split(methods),
            out=out,
            layer=layer,
            areas=parse_areas(areas) if areas else (),
            effort=effort,
            limit=limit,
            count=count,
            side=side,
            cell=cell,
            confidence=confidence,
            tolerance=tolerance,
            smooth=smooth,
            classes=classes,
            batch=batch,
            seed=seed,
        )
        keep_freed_memory()  # the process belongs to this command
        with progress(task) as on_progress:
            result = run_bench(lambda: load(network, weights, device), bench_options, on_progress, device=device)
        if as_json:
            typer.echo(result.table.json(), nl=False)
        else:
            _print_table(result.table, result.published)
            typer.echo("\n".join(["written:", *(f"  {path}" for path in result.files)]))
        if result.failed:
            print_line("warning", f"{result.failed} rows were not judged because of errors; table.md lists the reasons")


@figures.command("methods")
@with_common_options
def figure_methods(
    images: options.Images,
    *,
    methods: Annotated[str, typer.Option(help="Method names, separated by commas.")] = FIGURE_METHODS,
    target: options.Target = "",
    network: options.Network = "embedded",
    weights: options.Weights = "",
    device: options.Device = "auto",
    out: Annotated[Path, typer.Option(help="The PNG file.")] = Path("methods.png"),
) -> None:
    """Draw the maps of several methods side by side (the paper's comparison figure)."""
    with report_errors():
        check_names(methods=methods)
        images = expand_images(images)
        _check_figure(images, target, network, weights, device, out)

        from extremal.benchmark.bench import write_method_figure
        from extremal.networks.memory import keep_freed_memory
        from extremal.scores.parse import parse_class

        net = load(network, weights, device)
        class_index = parse_class(net, target)
        keep_freed_memory()
        with progress("methods") as on_progress:
            write_method_figure(net, images, _split(methods), class_index, out, on_progress)
        typer.echo(f"written: {out}")


@figures.command("areas")
@with_common_options
def figure_areas(
    images: options.Images,
    *,
    areas: options.Areas = TEN_AREAS,
    solver: options.Solver = "consensus",
    target: options.Target = "",
    network: options.Network = "embedded",
    weights: options.Weights = "",
    device: options.Device = "auto",
    out: Annotated[Path, typer.Option(help="The PNG file.")] = Path("areas.png"),
) -> None:
    """Draw masks and effect over ten areas, and count the curves that rise (the paper's figure of areas)."""
    with report_errors():
        check_areas(areas)
        check_names(solver=solver)
        images = expand_images(images)
        _check_figure(images, target, network, weights, device, out)

        from extremal.benchmark import paper_figures
        from extremal.benchmark.bench import write_area_figure
        from extremal.networks.memory import keep_freed_memory
        from extremal.scores.parse import parse_class

        net = load(network, weights, device)
        class_index = parse_class(net, target)
        keep_freed_memory()
        with progress("areas") as on_progress:
            explanations = write_area_figure(net, images, parse_areas(areas), solver, class_index, out, on_progress)
        typer.echo(paper_figures.rising_sentence(explanations))
        for image, explanation in zip(images, explanations, strict=True):
            if not paper_figures.rises(explanation):
                typer.echo(f"  falls: {image}")
        typer.echo(f"written: {out}")


def _check_figure(images: list[str], target: str, network: str, weights: str, device: str, out: Path) -> None:
    """Check what both figures are made of and where they are written."""
    check_device_name(device)
    check_network_name(network, weights)
    check_class(target, network)
    check_output_file(out)
    check_images(images)
    check_shapes(images, network)


def _split(text: str) -> list[str]:
    """Split a comma-separated option; an empty one has no entries."""
    return text.split(",") if text else []


def _print_table(table: "Table", published: str) -> None:
    """Print the table, each group of its columns under a heading."""
    from rich.console import Console

    console = Console()
    for title, part in table.split():
        if title:
            console.print(title, markup=False)
        _print_part(console, part)
    for reason, count in table.reasons:
        console.print(f"not judged, {count} rows: {reason}", markup=False)
    if published:
        console.print(published, markup=False)


def _print_part(console: "Console", table: "Table") -> None:
    """Print one table; in a terminal that is too narrow, without the intervals."""
    from rich import box
    from rich.table import Column
    from rich.table import Table as TerminalTable

    from extremal.benchmark.bench import TABLE_FILE

    narrow = console.width < NAME_WIDTH + INTERVAL_WIDTH * len(table.columns)
    titles = [Column(column.title, justify="right") for column in table.columns]
    terminal_table = TerminalTable(
        Column("method", no_wrap=True),
        *titles,
        Column("items", justify="right"),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for *row, _ in table.cells(mark_best=False):
        terminal_table.add_row(*([cell.split(" [")[0] for cell in row] if narrow else row))
    console.print(terminal_table)
    if narrow:
        console.print(f"The intervals are in {TABLE_FILE}.", markup=False)
