"""Check the data of `extremal bench`, and options that have no effect on its task, before torch is imported."""

from collections.abc import Collection
from pathlib import Path

from extremal.cli import options
from extremal.errors import ExtremalValueError
from extremal.file_checks import check_output, quote

OPTIONS_OF_TASKS = {  # of `extremal bench`: the tasks for which each has an effect, and what else it has one for
    "side": (("grid",), ""),
    "cell": (("grid",), ""),
    "confidence": (("grid", "faithfulness", "sanity"), ""),
    "tolerance": (("pointing",), ""),
    "smooth": (("pointing",), ""),
    "classes": (("pointing", "stability"), ""),
    "count": (("grid",), "data of scenes"),
    "areas": (("stability",), f"the methods {', '.join(options.AREA_METHODS)}"),
    "layer": ((), f"the methods {', '.join(options.LAYER_METHODS)}"),
    "effort": ((), f"the methods {', '.join(options.EFFORT_METHODS)}"),
}


def check_data(task: str, data: str, cutouts: Path | None, out: Path) -> None:
    """Check the data set of `--data`, as far as it is known without its images, and the folder of the results."""
    from extremal.benchmark.data import check_data as check_data_set
    from extremal.benchmark.data import has_regions
    from extremal.benchmark.data.samples import require_regions
    from extremal.jobs.store import check_run_folder

    check_output(out, "an output")
    check_run_folder(out)
    check_data_set(data, cutouts)
    if task == "pointing":
        require_regions(has_regions(data, cutouts), quote(data)[1:-1])


def check_numbers(**numbers: float) -> None:
    """Check the numbers that tasks take, which may be infinite in a text."""
    from extremal.benchmark.tasks.option_checks import check_numbers as check_numbers_of_tasks

    check_numbers_of_tasks(**numbers)


def check_task_options(task: str, data: str, cutouts: Path | None, methods: str, passed: Collection[str]) -> None:
    """Check that options of `extremal bench` have an effect.

    Args:
        task, data, cutouts, methods: as passed to the command.
        passed: names of the options that were passed.

    Raises:
        ExtremalValueError: one has none.
    """
    names = {name.strip() for name in methods.split(",")} if methods else set(options.METHOD_NAMES)
    has_scenes = cutouts is not None or data.startswith("scenes:")
    for option, (tasks, others) in OPTIONS_OF_TASKS.items():
        has_effect = {
            "layer": not names.isdisjoint(options.LAYER_METHODS),
            "areas": not names.isdisjoint(options.AREA_METHODS),
            "effort": not names.isdisjoint(options.EFFORT_METHODS),
            "count": has_scenes,
        }
        if option in passed and task not in tasks and not has_effect.get(option, False):
            use = " or ".join([*([f"the task {' or '.join(tasks)}"] if tasks else []), *([others] if others else [])])
            raise ExtremalValueError(f"--{option} must be used with {use}, got it with {task}; leave it out")
