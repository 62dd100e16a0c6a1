"""Check arguments before torch is imported, so that a mistake is reported at once.

Each function raises the error that the library would raise later, as far as text and files show.
"""

import os
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

from extremal import files
from extremal.cli import options
from extremal.cli.parse import parse_areas
from extremal.errors import ExtremalValueError
from extremal.file_checks import check_output, expand_user, find_kind, is_address, is_folder, quote
from extremal.networks.class_groups import find_named_groups
from extremal.networks.class_names import GROUP_SEPARATOR, find_class_or_group
from extremal.networks.imagenet import imagenet_labels
from extremal.networks.names import PACKAGED_NAMES
from extremal.networks.stacks.paths import find_stack_kind, is_series
from extremal.number_checks import is_digits, parse_whole
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
NOUNS = {"task": "a task", "methods": "a method"}
IMAGENET_NETWORKS = tuple(PACKAGED_NAMES)  # whose classes are those of ImageNet-1k
SEVERAL = ("perturbation", "methods")  # take names separated by commas


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
        for name in text.split(",") if option in SEVERAL else [text]:
            _check_name(option, name.strip())


def _check_name(option: str, name: str) -> None:
    known, noun = NAMES_BY_OPTION[option], NOUNS.get(option, option)
    if name not in known:
        nearest = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        hint = f"; nearest: {nearest[0]}" if nearest else ""
        raise ExtremalValueError(f"{noun} must be one of {', '.join(known)}, got {quote(name)}{hint}")


def check_areas(text: str) -> None:
    """Check the text of `--areas`; a warning about their order is left to the settings."""
    from extremal.explanations.validation import validate_areas

    validate_areas(sorted(parse_areas(text)))


def check_question(target: str, ask: str, prompt: str = "", network: str = "") -> None:
    """Check the text of `--target`, `--ask` and `--prompt`, and the image that `--ask like:IMAGE` names."""
    from extremal.networks.image_files import check_image_file

    asked = parse_ask(target, ask, prompt)
    if asked.image:
        check_image_file(asked.image)
    for name in (asked.target, asked.against):
        check_class(name, network)


def check_class(text: str, network: str) -> None:
    """Check the classes in the text of `--target`, where their names are known without loading the network.

    Raises:
        ExtremalValueError: there is no such class or group; similar names are suggested.
    """
    if network not in IMAGENET_NETWORKS or not text:
        return
    labels = imagenet_labels()
    if is_digits(text):
        index = parse_whole(text)
        if index is not None and index >= len(labels):
            raise ExtremalValueError(f"target must lie in 0..{len(labels) - 1} for {network}, got {index}")
        return
    groups = find_named_groups(labels)
    for part in map(str.strip, text.split(GROUP_SEPARATOR)):
        if part and not is_digits(part):
            find_class_or_group(part, labels, groups, network)


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


def check_images(paths: Sequence[str]) -> None:
    """Raise the error of the first image file that cannot be read."""
    for error in find_image_errors(paths):
        raise error


def check_sources(sources: Sequence[str], out: Path) -> None:
    """Check the images, folders and manifests of a run, and its folder."""
    from extremal.jobs.items import find_items

    find_items(sources)
    check_output(out, "an output")


def check_run(folder: Path) -> None:
    """Raise if a folder has no run."""
    from extremal.jobs.store import read_manifest

    read_manifest(folder)


def check_data(data: str, out: Path) -> None:
    """Check the data set of `--data`, as far as it names a folder, and the folder of the results."""
    kind, _, path = data.partition(":")
    check_output(out, "an output")
    if data == "photographs":
        return
    if kind not in options.DATA_KINDS or not path:
        nearest = get_close_matches(kind, options.DATA_KINDS, n=1)
        hint = (nearest and path and f"; did you mean {nearest[0]}:DIR?") or f"; e.g. folder:{data or 'DIR'}"
        raise ExtremalValueError(
            f"data must be voc:DIR, coco:DIR, folder:DIR, scenes:DIR or photographs, got {quote(data)}{hint}"
        )
    if find_kind(expand_user(path, "data"), "data") != "folder":
        raise ExtremalValueError(f"data must be in a folder that exists, got {quote(path)}; check the path")
