"""Check arguments before torch is imported, so that a mistake is reported at once.

Each function raises the error that the library would raise later, as far as text and files show.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from extremal import files
from extremal.cli import options
from extremal.cli.parse import parse_areas, parse_counts
from extremal.errors import ExtremalValueError
from extremal.file_checks import check_output, find_kind, is_address, is_folder, quote
from extremal.networks.class_groups import find_named_groups
from extremal.networks.class_names import (
    GROUP_SEPARATOR,
    check_class_index,
    check_members,
    find_class_or_group,
    parse_class_index,
    split_group,
)
from extremal.networks.imagenet import imagenet_labels
from extremal.networks.names import FILE_FAMILIES, PACKAGED_NAMES, names_code
from extremal.networks.stacks.paths import find_stack_kind, is_series
from extremal.number_checks import is_digits
from extremal.report.result_files import RESULT_FILES
from extremal.scores.parse import parse_ask

NAMES_BY_OPTION = {
    "game": options.GAME_NAMES,
    "perturbation": options.PERTURBATION_NAMES,
    "solver": options.SOLVER_NAMES,
    "score": options.SCORE_NAMES,
    "effort": options.EFFORT_NAMES,
    "engine": options.ENGINE_NAMES,
    "task": options.TASK_NAMES,
    "methods": options.METHOD_NAMES,
}
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
}
NOUNS = {"task": "a task", "methods": "a method"}
IMAGENET_NETWORKS = tuple(PACKAGED_NAMES)  # whose classes are those of ImageNet-1k
MIXED = "mixed"  # perturbation
SEVERAL = {"perturbation": "perturbations", "methods": "methods"}  # take names separated by commas


def check_no_empty_argument(arguments: Sequence[str]) -> None:
    """Check that no argument of the command line is empty, which would count as left out.

    Raises:
        ExtremalValueError: one is, as from a variable of the shell that is not set.
    """
    for before, argument in pairwise(("", *arguments)):
        has_no_value = re.fullmatch(r"--[\w-]+=", argument) is not None
        if has_no_value or not argument:
            option = argument[:-1] if has_no_value else before if before.startswith("-") else "an argument"
            raise ExtremalValueError(
                f"{option} must not be empty, got {quote('')}; leave it out, or check the variable that it comes from"
            )


def check_names(**texts: str) -> None:
    """Check the short names that options take, by option.

    Raises:
        ExtremalValueError: a name is unknown; the nearest one is offered.
    """
    for option, text in texts.items():
        names = [name.strip() for name in text.split(",")] if option in SEVERAL else [text.strip()]
        for name in names:
            _check_name(option, name)
        if len(names) > 1:
            _check_combination(option, names, text)


def _check_name(option: str, name: str) -> None:
    known, noun = NAMES_BY_OPTION[option], NOUNS.get(option, option)
    if name not in known:
        nearest = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        hint = f"; nearest: {nearest[0]}" if nearest else ""
        raise ExtremalValueError(f"{noun} must be one of {', '.join(known)}, got {quote(name)}{hint}")


def _check_combination(option: str, names: Sequence[str], text: str) -> None:
    """Raise if a name occurs twice, or is a mix of several perturbations."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ExtremalValueError(
            f"{SEVERAL[option]} must be distinct, got {twice} twice in {quote(text)}; leave one out"
        )
    if option == "perturbation" and MIXED in names:
        raise ExtremalValueError(
            f"--perturbation {MIXED}, which is a mix itself, must be used alone, got {quote(text)}; name the "
            "perturbations one by one, e.g. blur,fade"
        )


def check_alternatives(number: int) -> None:
    """Check the number of `--alternatives`."""
    from extremal.explanations.validation import validate_alternatives

    validate_alternatives(number)


def check_counts(text: str) -> None:
    """Check the text of `--counts`; the number of channels is known with the network."""
    from extremal.explanations.validation import validate_channel_counts

    counts = parse_counts(text)
    if counts is not None:
        validate_channel_counts(counts)


def check_areas(text: str) -> None:
    """Check the text of `--areas`; a warning about their order is left to the settings."""
    from extremal.explanations.validation import validate_areas

    validate_areas(sorted(parse_areas(text)))


def check_question(target: str, ask: str, prompt: str = "", network: str = "", score: str = "") -> None:
    """Check `--target`, `--ask`, `--prompt` and `--score` together, and the image that `--ask like:IMAGE` names."""
    from extremal.networks.image_files import check_image_file

    asked = parse_ask(target, ask, prompt)
    if ask and score not in ("", options.DEFAULT_SCORE):
        raise ExtremalValueError(
            f"--score must be used for a class, got {score} with --ask {ask.partition(':')[0]}, which has its own; "
            "leave one of them out"
        )
    if asked.image:
        check_image_file(asked.image)
    for name in (asked.target, asked.against):
        check_class(name, network)


def check_class(text: str, network: str) -> int | tuple[int, ...] | None:
    """Return the class or group in the text of `--target`; None if it is known with the network only, or empty.

    Raises:
        ExtremalValueError: there is no such class or group; similar names are suggested.
    """
    labels = imagenet_labels() if network in IMAGENET_NETWORKS else ()
    if is_digits(text):
        return _check_index(text, labels, network)
    if not text or not labels:
        return None
    groups = find_named_groups(labels)
    try:
        return find_class_or_group(text, labels, groups, network)
    except ExtremalValueError:
        if GROUP_SEPARATOR not in text:
            raise
    members = list[int]()
    for part in split_group(text):
        if part.isdecimal():
            members.append(_check_index(part, labels, network))
        else:
            found = find_class_or_group(part, labels, groups, network)
            members += [found] if isinstance(found, int) else found
    check_members(members, labels.__getitem__, text)
    return tuple(members) if len(members) > 1 else members[0]


def _check_index(text: str, labels: Sequence[str], network: str) -> int:
    index = parse_class_index(text)
    check_class_index(index, len(labels) or None, network)
    return index


def check_contrast(target: str, other: str, network: str) -> None:
    """Check the texts of `--target` and `--other`.

    Raises:
        ExtremalValueError: there is no such class, one is a group, or both are the same.
    """
    classes = [check_class(text, network) for text in (target, other)]
    for option, text, found in zip(("--target", "--other"), (target, other), classes, strict=True):
        if isinstance(found, tuple):
            raise ExtremalValueError(
                f"{option} must be a single class for a contrast, got the group {quote(text)}; name one of its classes"
            )
    if target and (target == other or (classes[0] is not None and classes[0] == classes[1])):
        raise ExtremalValueError(
            f"--other must be another class than --target, got {quote(other)} for both; name another"
        )


def find_minimal_budget(minimal: bool, budget: int | None) -> int:
    """Return the largest number of evaluations of `--minimal`; 0 without that option.

    Raises:
        ExtremalValueError: a budget is given without it.
    """
    if budget is not None and not minimal:
        raise ExtremalValueError(
            f"--budget must be used with --minimal, got {budget} without it; add it, or leave it out"
        )
    return (options.DEFAULT_BUDGET if budget is None else budget) if minimal else 0


def expand_images(paths: Sequence[str]) -> list[str]:
    """Return image paths with each folder replaced by the images in it and its subfolders, sorted.

    Raises:
        ExtremalValueError: a folder has no images.
    """
    return [image for path in paths for image in _expand(path)]


def _expand(path: str) -> Iterator[str]:
    if not is_folder(path) or Path(path).name in ("", "..") or is_series(path):
        yield path
        return
    from extremal.networks.image_folders import find_images

    images = find_images(Path(path))
    if not images:
        raise ExtremalValueError(f"a folder must hold images, got {quote(path)} without any; check the path")
    yield from map(str, images)


def find_image_errors(paths: Sequence[str]) -> list[ExtremalValueError]:
    """Return the errors of the images, sounds, clips and volumes that cannot be read, by their headers."""
    errors = []
    for path in paths:
        try:
            _check_input_file(path)
        except ExtremalValueError as error:
            errors.append(error)
    return errors


def _check_input_file(path: str) -> None:
    from extremal.networks.image_files import check_image_file
    from extremal.networks.sounds.sound_files import check_sound_file, is_sound
    from extremal.networks.stacks.checks import check_stack_file

    kind = find_stack_kind(path)
    if is_sound(path):
        check_sound_file(path)
    elif kind is None:
        check_image_file(path)
    else:
        check_stack_file(path, kind)


def find_class_folder(folder: Path, out: Path, kind: str, *, replace: bool) -> Path:
    """Return the output folder for a folder of images of a class, after checking both.

    Args:
        folder: of images.
        out: of results.
        kind: what is asked, as part of the name.
        replace: whether an earlier result is replaced.

    Raises:
        ExtremalValueError: there is no such folder of images, or the result cannot be written.
    """
    if find_kind(folder, "a class") != "folder":
        remedy = "download it first" if is_address(folder) else "check the path"
        raise ExtremalValueError(f"a class must be a folder of images, got {quote(folder)}; {remedy}")
    files.check_writable(out)
    name = f"{Path(os.path.realpath(folder)).name}-{files.simplify_name(kind)}"
    output_folder = files.choose_folder(out, name, replace=replace)
    files.check_replaceable(output_folder, RESULT_FILES)
    return output_folder


def check_shapes(paths: Sequence[str], network: str) -> None:
    """Raise the error of the first image if all are too thin to be scaled for a network."""
    from extremal.networks.image_files import check_image_file
    from extremal.networks.sounds.sound_files import is_sound

    if names_code(network) or network.partition(":")[0] in FILE_FAMILIES:  # these need not scale images
        return
    errors = list[ExtremalValueError]()
    for path in paths:
        if find_kind(path, "an image") != "file" or find_stack_kind(path) is not None or is_sound(path):
            return
        try:
            check_image_file(path, is_scaled=True)
        except ExtremalValueError as error:
            errors.append(error)
    if errors and len(errors) == len(paths):
        raise errors[0]


def check_images(paths: Sequence[str]) -> None:
    """Raise the error of the first image file that cannot be read."""
    for error in find_image_errors(paths):
        raise error


def check_sources(sources: Sequence[str], out: Path) -> None:
    """Check the images, folders and manifests of a run, and its folder."""
    from extremal.jobs.items import find_items
    from extremal.jobs.store import check_run_folder

    check_output(out, "an output")
    check_run_folder(out)
    find_items(sources)


def check_execution(options: Mapping[str, Any]) -> None:
    """Check the options of `extremal run` that are not those of an explanation."""
    from extremal.jobs.run_options import RunOptions

    RunOptions(**options)


def check_run(folder: Path) -> None:
    """Raise if a folder has no run."""
    from extremal.jobs.store import read_manifest

    read_manifest(folder)


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
            "count": has_scenes,
        }
        if option in passed and task not in tasks and not has_effect.get(option, False):
            use = " or ".join([*([f"the task {' or '.join(tasks)}"] if tasks else []), *([others] if others else [])])
            raise ExtremalValueError(f"--{option} must be used with {use}, got it with {task}; leave it out")
