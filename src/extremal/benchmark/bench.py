"""`extremal bench`: build a task from its options, run it, and write table and figure beside the rows."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from extremal.benchmark import figure, paper_figures, paper_table
from extremal.benchmark.baselines import METHODS, Method, method_named
from extremal.benchmark.baselines.method import distinct
from extremal.benchmark.data import DataSet, data_named
from extremal.benchmark.runner import run
from extremal.benchmark.table import Table
from extremal.benchmark.tasks.faithfulness import Faithfulness
from extremal.benchmark.tasks.grid import Grid
from extremal.benchmark.tasks.pointing import Pointing
from extremal.benchmark.tasks.sanity import CHANGED, Sanity, curves_of
from extremal.benchmark.tasks.task import Task, schema_of
from extremal.cli.batch import progress, tell
from extremal.errors import ExtremalValueError
from extremal.explanations.settings import checked_areas
from extremal.jobs.store import Store
from extremal.networks.memory import keep_freed_memory
from extremal.networks.network import Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASKS = ("pointing", "grid", "faithfulness", "sanity")
TABLE, TABLE_JSON, FIGURE = "table.md", "table.json", "figure.png"
NEEDED = ("captum", "scipy", "skimage", "zennit")
NAMES, INTERVAL = 34, 22  # columns of a terminal, for methods and items, and for a value with its interval


@dataclass(frozen=True)
class Options:
    """What was asked for, as the command line has it."""

    task: str
    data: str
    methods: str  # names, separated by commas; empty: all
    out: Path
    layer: str  # of Grad-CAM and excitation backprop; empty: by rule
    areas: str  # of the extremal maps; empty: the paper's of the data set
    limit: int  # pictures; 0: all
    count: int  # scenes or mosaics; 0: the task's own number
    side: int  # of a grid
    cell: int
    confidence: float
    tolerance: float
    smooth: float
    classes: Path | None  # JSON: class of the data set -> class of the network
    batch: int
    seed: int
    as_json: bool


def check_installed() -> None:
    """Raise where what rival methods and measures are made with is missing, before anything is computed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ExtremalValueError(
            f"the evaluation must have {', '.join(NEEDED)}, {', '.join(missing)} is not installed; "
            "pip install 'extremal[benchmark]'"
        )


def bench(network: Callable[[], Network], options: Options) -> None:
    """Run the task to its end, and tell the table."""
    check_installed()
    if options.task not in TASKS:
        raise ExtremalValueError(f"a task must be one of {', '.join(TASKS)}, got {options.task!r}")
    methods = methods_of(options)
    data = data_named(options.data, limit=options.limit or None, count=options.count or None)
    keep_freed_memory()  # the process is this command's own
    net = network()
    task = task_of(options, net, data)
    store = Store(options.out, schema_of(task))
    with progress(options.task) as report:
        table = run(task, methods, options.out, batch=options.batch, on_progress=report)
        report("figure", 1, 1)
        figure.write(_figure(task, table, store, net), options.out / FIGURE)
    beside = paper_table.beside(table, options.data.partition(":")[0], net.name) if options.task == "pointing" else ""
    text = f"# {options.task}: {net.name}, {options.data}\n\n{table.markdown()}" + (beside and f"\n{beside}")
    store.keep(TABLE, text)
    store.keep(TABLE_JSON, table.json())
    if options.as_json:
        typer.echo(table.json(), nl=False)
    else:
        _show(table, beside)
        typer.echo(
            "\n".join(["written:", *(f"  {options.out / name}" for name in (TABLE, TABLE_JSON, FIGURE, "parts"))])
        )
    failed = sum(line.failed for line in table.lines)
    if failed:
        tell("warning", f"{failed} questions were not answered because of errors; table.md tells which and why")


def methods_of(options: Options) -> list[Method]:
    """The methods by name, with the layer, areas and seed that were asked for."""
    names = distinct(options.methods.split(",")) if options.methods else list(METHODS)
    kind = options.data.partition(":")[0]
    areas = checked_areas(options.areas.split(",")) if options.areas else paper_table.AREAS.get(kind)  # type: ignore[arg-type]
    chosen = {"layer": options.layer or None, "areas": areas, "seed": options.seed}
    found = []
    for name in names:
        method = method_named(name)
        fields = {field.name for field in dataclasses.fields(method)}  # type: ignore[arg-type]
        changes = {key: value for key, value in chosen.items() if key in fields and value is not None}
        found.append(dataclasses.replace(method, **changes))  # type: ignore[type-var]
    return found


def task_of(options: Options, net: Network, data: DataSet) -> Task:
    """The task of this name with the options that are its own."""
    if options.task == "pointing":
        return Pointing(net, data, options.tolerance, options.smooth, _classes(options.classes))
    if options.task == "grid":
        chosen = {"side": options.side, "cell": options.cell, "confidence": options.confidence, "seed": options.seed}
        return Grid(net, data, **chosen, **({"count": options.count} if options.count else {}))  # type: ignore[arg-type]
    kind = Faithfulness if options.task == "faithfulness" else Sanity
    return kind(net, data, confidence=options.confidence, seed=options.seed)


def _figure(task: Task, table: Table, store: Store, net: Network) -> "Figure":
    """The figure of a run, drawn from its rows."""
    if isinstance(task, Sanity):
        stages, lines = curves_of(store.table(), [line.method for line in table.lines])
        return figure.curves(stages, lines, f"Sanity: {net.name} re-initialised from the top", CHANGED)
    return figure.bars(table, f"{task.name}: {net.name}")


def _classes(path: Path | None) -> dict[str, int | str]:
    """The network's class for each class of the data set that it names otherwise."""
    if path is None:
        return {}
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(given, dict) or not all(isinstance(value, int | str) for value in given.values()):
            raise ValueError("it is no object of names and classes")
    except (OSError, ValueError) as error:
        raise ExtremalValueError(
            f"--classes must be a JSON object of the data set's classes to the network's, got {str(path)!r}: {error}"
        ) from None
    return given


def _show(table: Table, beside: str) -> None:
    """The table in a terminal; where it is too narrow, without the intervals."""
    from rich import box
    from rich.console import Console
    from rich.table import Column
    from rich.table import Table as Drawn

    console = Console()
    narrow = console.width < NAMES + INTERVAL * len(table.measures)
    titles = [Column(measure.title, justify="right") for measure in table.measures]
    head = Column("method", no_wrap=True)
    drawn = Drawn(
        head, *titles, Column("items", justify="right"), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False
    )
    for row in _cells(table):
        drawn.add_row(*([cell.split(" [")[0] for cell in row] if narrow else row))
    console.print(drawn)
    if narrow:
        console.print(f"The intervals are in {TABLE}.", markup=False)
    for reason, count in table.reasons:
        console.print(f"not judged, {count} rows: {reason}", markup=False)
    if beside:
        console.print(beside, markup=False)


def _cells(table: Table) -> Sequence[list[str]]:
    lines = table.markdown().splitlines()[2 : 2 + len(table.lines)]
    return [[cell.strip().replace("**", "") for cell in line.strip("| ").split(" | ")][:-1] for line in lines]


def draw_methods(net: Network, photos: Sequence[str], methods: str, target: int | None, out: Path) -> None:
    """Write the figure of methods side by side."""
    check_installed()
    chosen = [method_named(name) for name in distinct(methods.split(","))]
    keep_freed_memory()
    with progress("methods") as report:
        found = paper_figures.compare(net, photos, chosen, target, on_progress=report)
    figure.write(paper_figures.compare_figure(found, [method.name for method in chosen]), out)
    typer.echo(f"written: {out}")


def draw_areas(net: Network, photos: Sequence[str], areas: str, solver: str, target: int | None, out: Path) -> None:
    """Write the figure of masks over areas, and tell which curves rise."""
    wanted = checked_areas(areas.split(","))  # type: ignore[arg-type]  # it reads numbers, also from text
    keep_freed_memory()
    with progress("areas") as report:
        found = paper_figures.over_areas(net, photos, target, wanted, solver, report)
    figure.write(paper_figures.areas_figure(found, [Path(photo).stem for photo in photos]), out)
    typer.echo(paper_figures.told_rising(found))
    for photo, one in zip(photos, found, strict=True):
        if not paper_figures.rises(one):
            typer.echo(f"  falls: {photo}")
    typer.echo(f"written: {out}")
