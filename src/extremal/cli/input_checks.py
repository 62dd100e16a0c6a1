"""Check images, folders and manifests that a command reads, and where it writes, before torch is imported."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from extremal import files
from extremal.errors import ExtremalValueError
from extremal.file_checks import check_output, find_kind, is_address, is_folder, quote
from extremal.networks.stacks.paths import find_stack_kind, is_series
from extremal.report.result_files import RESULT_FILES


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
    from extremal.jobs.store import check_run_folder

    check_output(out, "an output")
    check_run_folder(out)
    find_items(sources)


def check_run(folder: Path) -> None:
    """Raise if a folder has no run."""
    from extremal.jobs.store import read_manifest

    read_manifest(folder)
