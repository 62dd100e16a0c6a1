"""Sources of a run: a bad item costs its own row, a bad source ends the run before anything is written."""

import os
from pathlib import Path
from typing import Any

import pytest

from extremal import jobs
from extremal.jobs.items import RunItem, find_items
from extremal.jobs.runner import run
from support.datasets import NETWORK, sound, write_images
from support.errors import message_of
from support.terminal import call

QUICK: dict[str, Any] = {"areas": (0.1, 0.2), "perturbation": "fade", "threads": 1}


def read_errors(out: Path) -> dict[str, str | None]:
    table = jobs.table(out, ["key", "error"])
    return dict(zip(table["key"].to_pylist(), table["error"].to_pylist(), strict=True))


@pytest.mark.parametrize("workers", [pytest.param(0, id="here"), pytest.param(1, id="worker", marks=pytest.mark.slow)])
def test_bad_lines_of_a_manifest_cost_their_own_rows(tmp_path: Path, workers: int) -> None:
    write_images(tmp_path, 2)
    os.mkfifo(tmp_path / "pipe.png")
    digits, long = "1" * 5000, "a" * 3000
    lines = [
        *("path,target", "picture-000.png,", "nul\0.png,", "pipe.png,", "/dev/zero,", f"picture-001.png,{digits}"),
        *("s3://bucket/cat.png,", "https://example.org/cat.png,", "picture-001.png,tabby, tabby cat", f"{long}.png,"),
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    done = run(tmp_path / "list.csv", tmp_path / "out", network=NETWORK, workers=workers, **QUICK)
    assert (done.state, done.done, done.failed) == ("done", 9, 8)
    errors = read_errors(tmp_path / "out")
    assert errors.pop("picture-000.png") is None
    assert all("; " in str(error) for error in errors.values())  # with a remedy
    nul = f"{tmp_path}/nul\0.png"
    assert errors["nul\0.png"] == (
        f"an image must have a path that can be opened, got {nul!r}: embedded null byte; check the path"
    )
    pipe = str(tmp_path / "pipe.png")
    assert errors["pipe.png"] == f"an image must be a regular file, got {pipe!r}, which is a pipe; copy it to a file"
    assert errors["/dev/zero"] == (
        "an image must be a regular file, got '/dev/zero', which is a device; copy it to a file"
    )
    assert str(errors[f"picture-001.png#{digits}"]).startswith("target must be ")
    assert len(str(errors[f"picture-001.png#{digits}"])) < 600
    for address in ("s3://bucket/cat.png", "https://example.org/cat.png"):
        assert errors[address] == f"an image must be a local file, got the address {address!r}; download it first"
    assert errors["picture-001.png#tabby"] == (
        "a line of a manifest must have a cell for each column, line 9 has 3 for 2 columns; quote cells that contain "
        "commas"
    )


def test_names_that_are_not_utf8_and_an_empty_source_cost_their_own_rows(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pictures", 1)
    odd = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")
    Path(odd).write_bytes((folder / "picture-000.png").read_bytes())
    done = run([folder, ""], tmp_path / "out", network=sound(), **QUICK)
    assert (done.done, done.failed) == (3, 2)
    errors = read_errors(tmp_path / "out")
    assert errors["caf\\udce9.png"] == f"the name of an image must be UTF-8, got {odd!r}; rename the file or its folder"
    assert errors[""] == "an image must be an existing file, got ''; check the path"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (
            ["photos", "a.png"],
            "a source of a run must be an image, a folder or a manifest .csv that exists, got 'photos'; check the path",
        ),
        (["gone.png", "too.png"], "an image must be an existing file, got 'gone.png'; check the path"),
        ([""], "an image must be an existing file, got ''; check the path"),
        (
            ["s3://bucket/photos"],
            "a source of a run must be a local file or folder, got the address 's3://bucket/photos'; download it first",
        ),
        (
            [5],
            "images of a run must be paths of files, folders or manifests .csv, got int; pass paths, or call explain "
            "for other images",
        ),
        (
            b"photos",
            "images of a run must be paths of files, folders or manifests .csv, got bytes; pass paths, or call explain "
            "for other images",
        ),
    ],
)
def test_sources_that_do_not_exist_end_a_run_before_it_writes(tmp_path: Path, sources: Any, message: str) -> None:
    assert message_of(run, sources, tmp_path / "out", network=sound(), **QUICK) == message
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_gone_ends_a_resumed_run_and_leaves_its_folder_as_it_is(tmp_path: Path) -> None:
    folder, out = write_images(tmp_path / "photos", 2, broken=(1,)), tmp_path / "out"
    run(folder, out, network=sound(), **QUICK)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    folder.rename(tmp_path / "elsewhere")
    arguments = ("--network", NETWORK, "--areas", "0.1,0.2", "--perturbation", "fade", "--workers", "0")
    code, _, messages = call("run", folder, "--out", out, *arguments, columns=200)
    assert (code, messages) == (
        2,
        f"error: a source of a run must be an image, a folder or a manifest .csv that exists, got {str(folder)!r}; "
        "check the path\n",
    )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"path,path\na.png,b.png\n", "a manifest must have one column path, {name} has 2; its first line names the "),
        (
            b'path\n"a.png\nb.png\n',
            "a manifest must be a readable .csv in UTF-8, {name} is not: unexpected end of data",
        ),
        (b"path\n" + b"a" * 200_000, "a manifest must be a readable .csv in UTF-8, {name} is not: field larger than "),
        ("path\na.png\n".encode("utf-16"), "a manifest must be a readable .csv in UTF-8, {name} is not: 'utf-8' codec"),
        (b",,\na.png,,", "a manifest must have a column path, {name} has none; its first line names the columns: path"),
        (b"", "a manifest must have a column path, {name} has none; its first line names the columns: path, and"),
    ],
)
def test_manifests_that_would_be_misread_are_refused(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text)
    assert message_of(find_items, [str(path)]).startswith(message.format(name=repr(str(path))))


def test_columns_are_found_without_regard_to_case_and_spaces(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("Path, Target ,label\na.png, tabby,x\n\nb.png\n")
    assert find_items([str(tmp_path / "list.csv")]) == [
        RunItem("a.png#tabby", str(tmp_path / "a.png"), "tabby"),
        RunItem("b.png", str(tmp_path / "b.png"), ""),
    ]


def test_manifests_that_are_pipes_or_lists_of_another_kind_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "list.parquet").touch()
    pipe, table = (str(tmp_path / name) for name in ("pipe.csv", "list.parquet"))
    assert message_of(find_items, [pipe]) == (
        f"a manifest must be a regular file, got {pipe!r}, which is a pipe; copy it to a file"
    )
    assert message_of(find_items, [table]) == (
        f"a list of images must be a manifest .csv with a column path, got {table!r}; convert it"
    )


class TestFolders:
    def test_images_of_all_formats_and_in_linked_folders_are_found(self, tmp_path: Path) -> None:
        for name in ("a.avif", "b.JFIF", "c.jp2", "inner/d.png"):
            (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "all" / name).touch()
        (tmp_path / "far" / "deep").mkdir(parents=True)
        (tmp_path / "far" / "deep" / "e.png").touch()
        (tmp_path / "all" / "again").symlink_to("inner")  # has been searched already
        (tmp_path / "all" / "linked").symlink_to(tmp_path / "far")
        (tmp_path / "far" / "back").symlink_to(tmp_path / "far")
        (tmp_path / "all" / "broken.png").symlink_to("nowhere")
        assert [item.key for item in find_items([str(tmp_path / "all")])] == [
            *("a.avif", "b.JFIF", "broken.png", "c.jp2", "inner/d.png", "linked/deep/e.png")
        ]

    def test_what_is_left_out_is_told(self, tmp_path: Path) -> None:
        for name in ("a.png", "b.heic", "c.HEIC", "d.nef", "out/cat/figure.png", "out/cat/explanation.safetensors"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "up").symlink_to("..")
        source = repr(str(tmp_path))
        with pytest.warns(UserWarning, match="left out") as warned:
            assert [item.key for item in find_items([str(tmp_path)])] == ["a.png"]
        assert [str(warning.message) for warning in warned] == [
            f"images that Pillow does not read were left out of {source}: 2 .heic, 1 .nef; convert them to PNG or JPEG",
            f"results of earlier commands were left out of {source}: {str(tmp_path / 'out' / 'cat')!r}; name a folder "
            "of results itself to explain its images",
            f"links to folders that contain {source} were left out: {str(tmp_path / 'up')!r}; name these folders "
            "instead",
        ]
        assert [item.key for item in find_items([str(tmp_path / "out" / "cat")])] == ["figure.png"]


class TestChanges:
    def test_changed_images_are_told_and_explained_again_on_request(self, tmp_path: Path) -> None:
        folder, out = write_images(tmp_path / "two", 2), tmp_path / "out"
        run(folder, out, network=sound(), **QUICK)
        run(folder, out, network=sound(), **QUICK)  # without a warning
        (folder / "picture-000.png").write_bytes((folder / "picture-001.png").read_bytes())
        before = jobs.table(out)["content_hash"].to_pylist()
        for options in ({}, {"retry": True}):
            with pytest.warns(
                UserWarning, match=r"1 image has changed since the rows were written \('picture-000.png'"
            ):
                run(folder, out, network=sound(), **options, **QUICK)
        assert jobs.table(out)["content_hash"].to_pylist() == [before[1], before[1]]
        run(folder, out, network=sound(), **QUICK)

    def test_another_folder_with_the_same_names_is_told(self, tmp_path: Path) -> None:
        run(write_images(tmp_path / "two", 2), tmp_path / "out", network=sound(), **QUICK)
        other = write_images(tmp_path / "other", 1)
        (other / "picture-000.png").write_bytes((tmp_path / "two" / "picture-001.png").read_bytes())
        with pytest.warns(UserWarning, match="1 image has changed since the rows were written"):
            run(other, tmp_path / "out", network=sound(), **QUICK)

    def test_another_target_is_refused(self, tmp_path: Path) -> None:
        write_images(tmp_path, 1)
        manifest = tmp_path / "list.csv"
        manifest.write_text("path,target,key\npicture-000.png,0,a\n")
        run(manifest, tmp_path / "out", network=sound(), **QUICK)
        manifest.write_text("path,target,key\npicture-000.png,1,a\n")
        assert message_of(run, manifest, tmp_path / "out", network=sound(), **QUICK) == (
            "an image of a run must keep its target, that of 'a' was '0' and is now '1'; give it another key in the "
            "manifest, or choose another folder"
        )
