"""The plan of a data-set run: what is in folders and manifests, and units that keep their company."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extremal.jobs.items import RunItem, find_items
from extremal.jobs.plan import plan_units
from extremal.jobs.rows import SCHEMA
from extremal.jobs.store import open_store
from extremal.networks.image_files import IMAGE_SUFFIXES
from support.datasets import write_images
from support.errors import message_of


def test_folders_are_searched_to_their_ends(tmp_path: Path) -> None:
    write_images(tmp_path / "all" / "b", 2)
    write_images(tmp_path / "all" / "a", 1)
    (tmp_path / "all" / "notes.txt").write_text("no picture")
    (tmp_path / "all" / "CAT.JPG").write_bytes(b"")
    assert [item.key for item in find_items([str(tmp_path / "all")])] == [
        "CAT.JPG",
        "a/picture-000.png",
        "b/picture-000.png",
        "b/picture-001.png",
    ]


def test_manifests_name_targets_and_keys(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "﻿path,target,key\na.png,tiger cat,\na.png,0,\nb.png,,second\n/far/c.png,,\n", encoding="utf-8"
    )
    assert find_items([str(tmp_path / "list.csv"), "d.png"]) == [
        RunItem("a.png#tiger cat", str(tmp_path / "a.png"), "tiger cat"),
        RunItem("a.png#0", str(tmp_path / "a.png"), "0"),
        RunItem("second", str(tmp_path / "b.png"), ""),
        RunItem("/far/c.png", "/far/c.png", ""),
        RunItem("d.png", "d.png", ""),
    ]


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = {
        (): "a run must have images, got none; name files, folders, or a manifest .csv",
        ("a.png", "a.png"): (
            "every image and target of a run must have a key of its own, got 'a.png' twice; leave one out, or give "
            "keys in a manifest"
        ),
        (str(empty),): (
            f"a folder must contain images ({', '.join(IMAGE_SUFFIXES)}), or sounds, clips or volumes for a network "
            f"that takes them, {str(empty)!r} has none; check the path"
        ),
    }
    for sources, message in cases.items():
        assert message_of(find_items, sources) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"file,target\na.png,1\n",
            "a manifest must have a column path, {name} has file, target; its first line names the columns: path, and "
            "optionally target and key",
        ),
        (
            b"path,target\na.png,1\n,2\n",
            "each line of a manifest must name a path, line 3 of {name} does not; name one or leave the line out",
        ),
        (
            b"path\n\xff\xfe\n",
            "a manifest must be a readable .csv in UTF-8, {name} is not: 'utf-8' codec can't decode byte 0xff in "
            "position 5: invalid start byte; check the file",
        ),
    ],
)
def test_broken_manifests_are_told(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text)
    assert message_of(find_items, [str(path)]) == message.format(name=repr(str(path)))


def test_a_missing_manifest_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "no.csv")
    assert message_of(find_items, [path]) == (f"a manifest must be an existing file, got {path!r}; check the path")


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=12), min_size=1, max_size=4), st.integers(1, 5))
def test_units_keep_their_company_whatever_comes_and_goes(
    tmp_path_factory: pytest.TempPathFactory, listings: list[set[int]], batch: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    previous: dict[str, tuple[RunItem, ...]] = {}
    seen: set[str] = set()
    for listing in listings:
        items = [RunItem(f"{number:02d}", f"{number:02d}.png", "") for number in sorted(listing)]
        with open_store(folder, {}, SCHEMA) as store:
            units = {unit.name: unit.items for unit in plan_units(store, items, batch)}
        assert {name: units[name] for name in previous} == previous
        seen |= {item.key for item in items}
        keys = [item.key for unit in units.values() for item in unit]
        assert sorted(keys) == sorted(seen)
        assert max(map(len, units.values())) <= batch
        assert list(units) == sorted(units)
        previous = units
