"""Run one benchmark task from plain options, and write its table and figure next to the rows."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from extremal.benchmark import figure, paper_figures, paper_table
from extremal.benchmark.baselines import METHODS, Method, get_method
from extremal.benchmark.baselines.method import check_unique
from extremal.benchmark.data import DataSet, get_data_set
from extremal.benchmark.data.classes import check_class_names
from extremal.benchmark.data.samples import require_regions
from extremal.benchmark.runner import run
from extremal.benchmark.table import Table
from extremal.benchmark.tasks.faithfulness import Faithfulness
from extremal.benchmark.tasks.grid import Grid
from extremal.benchmark.tasks.pointing import Pointing
from extremal.benchmark.tasks.sanity import CHANGED_CORRELATION, Sanity, similarity_curves
from extremal.benchmark.tasks.stability import STABILITY_AREAS, StabilityTask
from extremal.benchmark.tasks.task import OnProgress, Task, row_schema
from extremal.errors import ExtremalValueError, check_installed
from extremal.explanations.effort import validate_effort
from extremal.explanations.explanation import Explanation
from extremal.explanations.validation import validate_areas
from extremal.file_checks import check_output, check_output_file, quote, to_printable
from extremal.jobs.store import Store
from extremal.json_files import read_json
from extremal.networks.devices import DeviceLike
from extremal.networks.network import Network
from extremal.networks.replicas import find_shared_devices, replicate
from extremal.scores import ClassGroup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASK_NAMES = ("pointing", "grid", "faithfulness", "sanity", "stability")
TABLE_FILE, JSON_FILE, FIGURE_FILE = "table.md", "table.json", "figure.png"
REQUIRED_PACKAGES = ("captum", "scipy", "skimage", "zennit")


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Options of a benchmark run."""

    task: str  # one of TASK_NAMES
    data: str  # voc:DIR, coco:DIR, folder:DIR, scenes:DIR or photographs; empty: photographs, for stability only
    cutouts: Path | None = None  # folder of cut-outs, whose scenes are added to the data
    methods: Sequence[str]  # names; empty: all
    out: Path
    layer: str  # of Grad-CAM and excitation backprop; empty: by rule
    areas: Sequence[float]  # of the extremal maps; empty: those of the paper for the data set
    effort: str  # of the explanations behind the extremal maps
    limit: int  # images; 0: all
    count: int  # scenes or mosaics; 0: the default of the task
    side: int  # cells along a side of a grid
    cell: int  # side of a grid's cell in px; 0: the network's own size
    confidence: float  # minimum probability of an image's top class
    tolerance: float  # of the pointing game, in px of the image
    smooth: float  # blur of all maps alike, in short sides
    classes: Path | None  # JSON: class of the data set -> class of the network
    batch: int  # images per unit of work
    seed: int


@dataclass(frozen=True)
class BenchResult:
    """Table of a finished run, and the files that were written."""

    table: Table
    published: str  # markdown table next to the paper's numbers; empty if the paper has none for this setup
    files: tuple[Path, ...]  # table as markdown and JSON, figure, folder of the rows

    @property
    def failed(self) -> int:
        """Number of rows that an error prevented."""
        return sum(scores.failed for scores in self.table.methods)


def run_bench(
    load_network: Callable[[], Network],
    options: BenchOptions,
    on_progress: OnProgress | None = None,
    *,
    device: DeviceLike = "",
) -> BenchResult:
    """Run a task to its end and write table and figure.

    Args:
        load_network: called once all other options are checked.
        options: of the run.
        on_progress: called before each unit of work.
        device: for which the network is loaded by its name; `auto`: all devices of the fastest kind share the images.

    Raises:
        ExtremalValueError: an option breaks a rule, a package is missing, or the folder cannot be written.
    """
    check_installed(*REQUIRED_PACKAGES, purpose="the evaluation", extra="benchmark")
    if options.task not in TASK_NAMES:
        raise ExtremalValueError(f"a task must be one of {', '.join(TASK_NAMES)}, got {options.task!r}")
    check_output(options.out, "an output")
    methods = build_methods(options)
    name = options.data or ("photographs" if options.task == "stability" else "")
    data = get_data_set(name, limit=options.limit or None, count=options.count or None, cutouts=options.cutouts)
    if options.task == "pointing":
        require_regions(data.has_regions, name)
    _check_class_names(options, name, data)
    net = load_network()
    task, *copies = (build_task(options, copy, data) for copy in replicate(net, find_shared_devices(net, device)))
    store = Store(options.out, row_schema(task))
    table = run(task, methods, options.out, batch=options.batch, on_progress=on_progress, copies=copies)
    if on_progress is not None:
        on_progress("figure", 1, 1)
    figure.write_png(_draw_figure(task, table, store, net), options.out / FIGURE_FILE)
    kind = name.partition(":")[0]
    published = paper_table.published_numbers(table, kind, net.name) if options.task == "pointing" else ""
    text = f"# {options.task}: {net.name}, {name}\n\n{table.markdown()}" + (published and f"\n{published}")
    store.write_text(TABLE_FILE, text)
    store.write_text(JSON_FILE, table.json())
    return BenchResult(
        table, published, tuple(options.out / name for name in (TABLE_FILE, JSON_FILE, FIGURE_FILE, "parts"))
    )


def build_methods(options: BenchOptions) -> list[Method]:
    """Return the methods by name, with the requested layer, areas, seed and effort."""
    names = check_unique(options.methods) if options.methods else list(METHODS)
    kind = options.data.partition(":")[0]
    areas = validate_areas(options.areas) if options.areas else paper_table.DATA_SET_AREAS.get(kind)
    effort = validate_effort(options.effort)
    requested = {"layer": options.layer or None, "areas": areas, "seed": options.seed, "effort": effort}
    methods = []
    for name in names:
        method = get_method(name)
        fields = {field.name for field in dataclasses.fields(method)}  # type: ignore[arg-type]
        changes = {key: value for key, value in requested.items() if key in fields and value is not None}
        methods.append(dataclasses.replace(method, **changes))  # type: ignore[type-var]
    return methods


def build_task(options: BenchOptions, net: Network, data: DataSet) -> Task:
    """Return the task of this name with the options that apply to it."""
    if options.task == "pointing":
        return Pointing(net, data, options.tolerance, options.smooth, _read_classes(options.classes))
    if options.task == "grid":
        grid = {"side": options.side, "cell": options.cell, "confidence": options.confidence, "seed": options.seed}
        return Grid(net, data, **grid, **({"count": options.count} if options.count else {}))  # type: ignore[arg-type]
    if options.task == "stability":
        areas = validate_areas(options.areas) if options.areas else STABILITY_AREAS
        return StabilityTask(net, data, areas, options.seed, _read_classes(options.classes))
    task_class = Faithfulness if options.task == "faithfulness" else Sanity
    return task_class(net, data, confidence=options.confidence, seed=options.seed)


def write_method_figure(
    net: Network,
    images: Sequence[str],
    methods: Sequence[str],
    target: int | ClassGroup | None,
    out: Path,
    on_progress: OnProgress | None = None,
) -> None:
    """Write the figure of several methods' maps side by side."""
    check_installed(*REQUIRED_PACKAGES, purpose="the evaluation", extra="benchmark")
    check_output_file(out)
    selected = [get_method(name) for name in check_unique(methods)]
    maps = paper_figures.attribute_images(net, images, selected, target, on_progress=on_progress)
    figure.write_png(paper_figures.draw_methods(maps, [method.name for method in selected]), out)


def write_area_figure(
    net: Network,
    images: Sequence[str],
    areas: Sequence[float],
    solver: str,
    target: int | ClassGroup | None,
    out: Path,
    on_progress: OnProgress | None = None,
) -> list[Explanation]:
    """Write the figure of masks over areas, and return the explanations in it."""
    values = validate_areas(areas)
    check_output_file(out)
    explanations = paper_figures.explain_over_areas(net, images, target, values, solver, on_progress)
    figure.write_png(paper_figures.draw_areas(explanations, [to_printable(Path(image).stem) for image in images]), out)
    return explanations


def _draw_figure(task: Task, table: Table, store: Store, net: Network) -> "Figure":
    """Draw the figure of a run from its rows."""
    if isinstance(task, Sanity):
        stages, curves = similarity_curves(store.read_all(), [scores.method for scores in table.methods])
        return figure.draw_curves(
            stages, curves, f"Sanity: {net.name} re-initialised from the top", CHANGED_CORRELATION
        )
    return figure.draw_bars(table, f"{task.name}: {net.name}")


def _check_class_names(options: BenchOptions, name: str, data: DataSet) -> None:
    """Raise unless the data set has the classes of `--classes`, within the limit or beyond it."""
    class_map = _read_classes(options.classes)
    if options.limit and not set(class_map) <= set(data.classes):
        data = get_data_set(name, count=options.count or None, cutouts=options.cutouts)
    check_class_names(class_map, data.classes)


def _read_classes(path: Path | None) -> dict[str, int | str]:
    """Read the network's class for each class of the data set that has another name there."""
    if path is None:
        return {}
    classes = read_json(path, "--classes")
    if not isinstance(classes, dict) or not all(isinstance(value, int | str) for value in classes.values()):
        raise ExtremalValueError(
            "--classes must be a JSON object of the data set's classes to the network's, got something else in "
            f'{quote(path)}; e.g. {{"cat": "tabby"}}'
        )
    return classes
