"""Items of a data-set run: images, sounds, clips or volumes with targets, from files, folders and manifests."""

import csv
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import check_file, describe_error, escape_surrogates, find_kind, is_address, quote
from extremal.networks.image_folders import find_inputs
from extremal.networks.input_kinds import NAMED_SUFFIXES, SUFFIXES, InputKind, count_kinds, find_input_kind

COLUMNS = ("path", "target", "key")  # of a manifest
LIST_SUFFIXES = (".tsv", ".txt", ".json", ".jsonl", ".parquet", ".xls", ".xlsx")  # of lists that are not manifests
MAX_MANIFEST_BYTES = 2_000_000_000


@dataclass(frozen=True)
class RunItem:
    """An image, or a sound, clip or volume, and its target."""

    key: str  # unique in a run
    path: str
    target: str = ""  # class, group, or classes joined by `|`; empty: the target of the run
    problem: str = ""  # why it cannot be explained, if that is known already
    kind: InputKind | None = field(default=None, compare=False)  # if it was found in a folder, and not named


def to_sources(images: Any) -> list[str]:
    """Return the sources of a run as a list of texts.

    Raises:
        ExtremalTypeError: one of them is not a path.
    """
    is_single = isinstance(images, str | bytes | os.PathLike) or not isinstance(images, Iterable)
    sources = [images] if is_single else list(images)
    for source in sources:
        if not isinstance(source, str | os.PathLike) or not isinstance(os.fspath(source), str):
            raise ExtremalTypeError(
                f"images of a run must be paths of files, folders or manifests .csv, got {type(source).__name__}; "
                "pass paths, or call explain for other images"
            )
    return [os.fspath(source) for source in sources]


def find_items(sources: Sequence[str]) -> list[RunItem]:
    """Return the items in files, in folders and their subfolders, and in manifests (`.csv`).

    In folders, files of all kinds are found; `select_items` keeps those that a network takes. A manifest has a
    column `path`, relative to itself, and optionally `target` and `key`. An item that cannot be explained is returned
    too, since it only costs its own row.

    Args:
        sources: any of these, in order.

    Raises:
        ExtremalValueError: a folder or manifest is missing, empty or cannot be read, no image exists, or a key occurs
            twice.
    """
    items, missing = list[RunItem](), list[str]()
    for source in sources:
        found = _find_items_in(source)
        missing += [source] if found is None else []
        items += [_check_text(item) for item in ([_single_item(source)] if found is None else found)]
    if not items:
        raise ExtremalValueError("a run must have images, got none; name files, folders, or a manifest .csv")
    duplicates = [key for key, count in Counter(item.key for item in items).items() if count > 1]
    if duplicates:
        raise ExtremalValueError(
            f"every image and target of a run must have a key of its own, got {quote(duplicates[0])} twice; "
            "leave one out, or give keys in a manifest"
        )
    if len(missing) == len(items):
        check_file(missing[0], "an image")  # raises
    return items


def _find_items_in(source: str) -> list[RunItem] | None:
    """Return the items of a source; None for an image that does not exist.

    Raises:
        ExtremalValueError: the source is missing and not named like an image, or has no images.
    """
    suffix = Path(source).suffix.lower()
    is_image = source.lower().endswith(NAMED_SUFFIXES) or not source
    try:
        kind = find_kind(source, "a source of a run")
    except ExtremalValueError:
        if is_image:
            return None
        raise
    if kind == "folder":
        return _find_items_in_folder(Path(source))
    if suffix == ".csv":
        return list(_read_manifest(Path(source)))
    if suffix in LIST_SUFFIXES:
        raise ExtremalValueError(
            f"a list of images must be a manifest .csv with a column path, got {quote(source)}; convert it"
        )
    if kind:
        return [_single_item(source)]
    if is_image:
        return None
    if is_address(source):
        raise ExtremalValueError(
            f"a source of a run must be a local file or folder, got the address {quote(source)}; download it first"
        )
    raise ExtremalValueError(
        f"a source of a run must be an image, a folder or a manifest .csv that exists, got {quote(source)}; check the "
        "path"
    )


def _single_item(source: str) -> RunItem:
    return RunItem(source if is_address(source) or not source else Path(source).as_posix(), source)


def _find_items_in_folder(folder: Path) -> list[RunItem]:
    paths = find_inputs(folder)
    if not paths:
        pictures = ", ".join(SUFFIXES[InputKind.PICTURE])
        raise ExtremalValueError(
            f"a folder must contain images ({pictures}), or sounds, clips or volumes for a network that takes them, "
            f"{quote(folder)} has none; check the path"
        )
    return [_item_in_folder(path, folder) for path in paths]


def _item_in_folder(path: Path, folder: Path) -> RunItem:
    if path == folder:  # a series, which is one volume
        return RunItem(folder.as_posix(), os.path.realpath(folder), kind=InputKind.VOLUME)
    return RunItem(path.relative_to(folder).as_posix(), str(path), kind=find_input_kind(path))


def select_items(items: Sequence[RunItem], kinds: Sequence[InputKind], network: str) -> list[RunItem]:
    """Return items without those that were found in folders and that a network does not take, with a warning.

    Items that were named keep their place in the run, in which they fail.

    Args:
        items: of `find_items`.
        kinds: of inputs that the network takes.
        network: its name.

    Raises:
        ExtremalValueError: none is left.
    """
    others = [item.kind for item in items if item.kind is not None and item.kind not in kinds]
    if not others:
        return list(items)
    takes = " and ".join(f"{kind}s" for kind in kinds)
    if len(others) == len(items):
        suffixes = ", ".join(suffix for kind in kinds for suffix in SUFFIXES[kind])
        raise ExtremalValueError(
            f"a run of {network} must have {takes} ({suffixes}), got only {count_kinds(others)}; name others, or "
            "another network"
        )
    warnings.warn(
        f"{network} takes {takes}, {count_kinds(others)} in the folders of this run were left out",
        UserWarning,
        stacklevel=2,
    )
    return [item for item in items if item.kind is None or item.kind in kinds]


def _check_text(item: RunItem) -> RunItem:
    """Return an item whose key and path can be stored as text; if they cannot, with its problem."""
    try:
        f"{item.key}{item.path}{item.target}".encode()
    except UnicodeEncodeError:
        key, path, target = map(escape_surrogates, (item.key, item.path, item.target))
        problem = f"the name of an image must be UTF-8, got {quote(item.path)}; rename the file or its folder"
        return RunItem(key, path, target, item.problem or problem)
    return item


def _read_manifest(manifest: Path) -> Iterator[RunItem]:
    check_file(manifest, "a manifest", max_bytes=MAX_MANIFEST_BYTES)
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)  # an open quote would take the rest of the file for one cell
            columns = [name.strip().casefold() for name in next(lines, [])]
            _check_columns(columns, manifest)
            for cells in lines:
                if cells:
                    yield _read_line(cells, columns, manifest, lines.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ExtremalValueError(
            f"a manifest must be a readable .csv in UTF-8, {quote(manifest)} is not: {describe_error(error)}; check "
            "the file"
        ) from None


def _check_columns(columns: Sequence[str], manifest: Path) -> None:
    rule = "its first line names the columns: path, and optionally target and key"
    if "path" not in columns:
        named = quote(", ".join(filter(None, columns)))[1:-1] or "none"
        raise ExtremalValueError(f"a manifest must have a column path, {quote(manifest)} has {named}; {rule}")
    for name in COLUMNS:
        if columns.count(name) > 1:
            raise ExtremalValueError(
                f"a manifest must have one column {name}, {quote(manifest)} has {columns.count(name)}; {rule}"
            )


def _read_line(cells: Sequence[str], columns: Sequence[str], manifest: Path, line: int) -> RunItem:
    """Return the item of a line; cells that are missing at its end are empty."""
    row = dict(zip(columns, cells, strict=False))
    if not row.get("path"):
        raise ExtremalValueError(
            f"each line of a manifest must name a path, line {line} of {quote(manifest)} does not; name one or leave "
            "the line out"
        )
    target = row.get("target", "").strip()
    key = row.get("key") or (f"{row['path']}#{target}" if target else row["path"])
    path = row["path"] if is_address(row["path"]) else str(manifest.parent / row["path"])
    item = RunItem(key, path, target)
    if len(cells) <= len(columns):
        return item
    problem = (
        f"a line of a manifest must have a cell for each column, line {line} has {len(cells)} for {len(columns)} "
        "columns; quote cells that contain commas"
    )
    return replace(item, problem=problem)
