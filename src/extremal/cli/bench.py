"""The commands `extremal bench` and `extremal figures`: their options, handed on to what does the work."""

from pathlib import Path
from typing import Annotated

import typer

from extremal.cli.batch import errors_told
from extremal.networks.resolve import loaded
from extremal.scores.parse import class_of

METHODS = (  # those of `extremal.baselines`, told without importing it
    "centre, random, gradient, deconvnet, guided-backprop, integrated-gradients, grad-cam, occlusion, excitation, "
    "contrastive-excitation, rise, mask-gradient, penalty, path"
)
figures = typer.Typer(no_args_is_help=True, help="Figures of the paper, from photographs of yours.")


def bench(
    task: Annotated[str, typer.Argument(help="pointing, grid, faithfulness or sanity.", show_default=False)],
    *,
    data: Annotated[str, typer.Option(help="voc:DIR, coco:DIR, folder:DIR, or scenes:DIR of RGBA cut-outs.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same folder again goes on with it.")],
    methods: Annotated[str, typer.Option(help=f"Separated by commas, of: {METHODS}.", show_default="all")] = "",
    network: Annotated[str, typer.Option(help="A name that `extremal networks` lists.")] = "embedded",
    weights: Annotated[str, typer.Option(help="Its weights: a local file, or random.", show_default="its own")] = "",
    layer: Annotated[str, typer.Option(help="Of Grad-CAM and excitation backprop.", show_default="by rule")] = "",
    areas: Annotated[str, typer.Option(help="Of the extremal maps.", show_default="the paper's")] = "",
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many pictures.", show_default="all")] = 0,
    count: Annotated[int, typer.Option(min=0, help="Of scenes or mosaics.", show_default="100 or 50")] = 0,
    side: Annotated[int, typer.Option(help="Of a grid: 2 or 3.")] = 2,
    cell: Annotated[int, typer.Option(min=0, help="Of a grid, in px.", show_default="the network's own")] = 0,
    confidence: Annotated[float, typer.Option(min=0, max=1, help="Least probability of a picture's class.")] = 0.9,
    tolerance: Annotated[float, typer.Option(min=0, help="Of the pointing game, in px of the picture.")] = 15.0,
    smooth: Annotated[float, typer.Option(min=0, help="Blur of all maps alike, in short sides.")] = 0.09,
    classes: Annotated[Path | None, typer.Option(help="JSON: the data's classes to the network's.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a unit of work.")] = 4,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 2, help="Of methods and mosaics.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The table as JSON on stdout.")] = False,
) -> None:
    """Judge attribution methods on a data set: rows, a table with intervals, a figure. Resumable."""
    with errors_told():
        from extremal.benchmark.bench import Options, bench

        options = Options(**{name: value for name, value in locals().items() if name in Options.__dataclass_fields__})
        bench(lambda: loaded(network, weights), options)


@figures.command("methods")
def figure_methods(
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Picture files.", show_default=False)],
    *,
    methods: Annotated[str, typer.Option(help="Names, separated by commas.")] = "gradient,guided-backprop,grad-cam,"
    "occlusion,contrastive-excitation,mask-gradient,path",
    target: Annotated[str, typer.Option(help="Class name or index.", show_default="the top class")] = "",
    network: Annotated[str, typer.Option(help="A name that `extremal networks` lists.")] = "embedded",
    weights: Annotated[str, typer.Option(help="Its weights: a local file, or random.", show_default="its own")] = "",
    out: Annotated[Path, typer.Option(help="The PNG file.")] = Path("methods.png"),
) -> None:
    """The maps of several methods side by side (the paper's figure of comparisons)."""
    with errors_told():
        from extremal.benchmark.bench import draw_methods

        net = loaded(network, weights)
        draw_methods(net, photos, methods, class_of(net, target), out)


@figures.command("areas")
def figure_areas(
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Picture files.", show_default=False)],
    *,
    areas: Annotated[str, typer.Option(help="Shares of the picture.")] = "0.025,0.05,0.1,0.15,0.2,0.3,0.4,0.5,0.7,0.9",
    solver: Annotated[str, typer.Option(help="path or penalty.")] = "path",
    target: Annotated[str, typer.Option(help="Class name or index.", show_default="the top class")] = "",
    network: Annotated[str, typer.Option(help="A name that `extremal networks` lists.")] = "embedded",
    weights: Annotated[str, typer.Option(help="Its weights: a local file, or random.", show_default="its own")] = "",
    out: Annotated[Path, typer.Option(help="The PNG file.")] = Path("areas.png"),
) -> None:
    """Masks and effect over ten areas, and the share of photographs whose curve rises (the paper's figure of areas)."""
    with errors_told():
        from extremal.benchmark.bench import draw_areas

        net = loaded(network, weights)
        draw_areas(net, photos, areas, solver, class_of(net, target), out)
