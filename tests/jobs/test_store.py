"""The store of a run: atomic parts, one writer, equal settings."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extremal.errors import ExtremalValueError
from extremal.jobs import store as module
from extremal.jobs.store import diff_settings, is_locked, open_store, read_manifest
from support.errors import message_of

SCHEMA = pa.schema([("key", pa.string()), ("value", pa.float64())])
SETTINGS = {"seed": 0, "methods": {"path": {"areas": (0.1, 0.2)}}}


def test_rows_come_back_in_the_order_of_the_units(tmp_path):
    with open_store(tmp_path / "run", SETTINGS, SCHEMA) as store:
        store.write("b", [{"key": "two", "value": 2.0}, {"key": "three"}])
        store.write("a", [{"key": "one", "value": 1.0}])
        store.write("c", [])
        assert store.find_finished() == {"a", "b", "c"}
        assert store.read_all().to_pylist() == [
            {"key": "one", "value": 1.0},
            {"key": "two", "value": 2.0},
            {"key": "three", "value": None},
        ]
    assert read_manifest(tmp_path / "run") == json.loads(json.dumps(SETTINGS))
    assert pq.read_table(tmp_path / "run" / "parts").num_rows == 3  # opens without code of ours


def test_a_run_is_resumed_and_partial_files_are_removed(tmp_path):
    with open_store(tmp_path, SETTINGS, SCHEMA) as store:
        store.write("a", [{"key": "one", "value": 1.0}])
        store.write_text("plan.json", "[1]")
    (tmp_path / "parts" / ".writing-b.parquet").write_bytes(b"PAR1 half")
    (tmp_path / ".writing-plan.json").write_text("[")
    with open_store(tmp_path, SETTINGS, SCHEMA) as store:
        assert store.find_finished() == {"a"}
        assert store.read_text("plan.json") == "[1]"
        assert store.read_text("other.json") is None
        assert store.read_all().num_rows == 1
    assert not list(tmp_path.rglob(".writing-*"))


def test_other_settings_are_refused_with_their_differences(tmp_path):
    with open_store(tmp_path, SETTINGS, SCHEMA):
        pass
    other = {"seed": 1, "methods": {"path": {"areas": [0.1, 0.2]}, "rise": {}}}
    with pytest.raises(ExtremalValueError) as error, open_store(tmp_path, other, SCHEMA):
        pass
    assert str(error.value) == (
        f"a run must be resumed with the settings that started it, {str(tmp_path)!r} was started with others: "
        "seed: 0 there, 1 now; methods.rise: null there, {} now; choose another folder, or the settings of that run"
    )


def test_differences_name_missing_and_new_settings():
    assert diff_settings({"a": 1, "b": {"c": 2}}, {"b": {"c": 2, "d": 3}}) == [
        "a: 1 there, null now",
        "b.d: null there, 3 now",
    ]
    assert diff_settings({"a": [1]}, {"a": [1]}) == []


def test_a_second_writer_is_refused(tmp_path):
    with open_store(tmp_path, SETTINGS, SCHEMA):
        with pytest.raises(ExtremalValueError) as error, open_store(tmp_path, SETTINGS, SCHEMA):
            pass
        process = subprocess.run(
            [sys.executable, "-c", WRITER.format(folder=str(tmp_path), wait=0)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert str(error.value) == (
        f"a run must be the only one in its folder, {str(tmp_path)!r} is in use by another process; wait for it, or "
        "choose another folder"
    )
    assert "in use by another process" in process.stderr
    with open_store(tmp_path, SETTINGS, SCHEMA):  # free again
        pass


WRITER = textwrap.dedent("""
    import time, pyarrow as pa
    from pathlib import Path
    from extremal.jobs.store import open_store
    schema = pa.schema([("key", pa.string()), ("value", pa.float64())])
    settings = {{"seed": 0, "methods": {{"path": {{"areas": (0.1, 0.2)}}}}}}
    with open_store(Path({folder!r}), settings, schema) as store:
        for index in range(200):
            name = f"{{index:04d}}"
            if name not in store.find_finished():
                store.write(name, [{{"key": name, "value": float(i)}} for i in range(50)])
            print(name, flush=True)
            time.sleep({wait})
""")


def test_after_a_kill_at_any_moment_parts_are_complete_and_the_lock_is_free(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", WRITER.format(folder=str(folder), wait=0.0005)]
    for pause in (0.0, 0.013, 0.029, 0.041):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()  # it has begun
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
        with open_store(folder, SETTINGS, SCHEMA) as store:
            done = store.find_finished()
            assert store.read_all().num_rows == 50 * len(done)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open_store(folder, SETTINGS, SCHEMA) as store:
        assert [row["key"] for row in store.read_all().to_pylist()] == [
            f"{i:04d}" for i in range(200) for _ in range(50)
        ]


def test_a_full_disk_is_reported_and_keeps_the_parts(tmp_path, monkeypatch):
    with open_store(tmp_path, SETTINGS, SCHEMA) as store:
        store.write("a", [{"key": "one", "value": 1.0}])

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        path = str(tmp_path / "parts" / "b.parquet")
        with monkeypatch.context() as patch:
            patch.setattr(module.pq, "write_table", full)
            assert message_of(store.write, "b", [{"key": "two", "value": 2.0}]) == (
                f"a run must be able to write, {path!r} could not be written: No space left on device; make room and "
                "run again to resume"
            )
        assert store.find_finished() == {"a"}
        assert not list(tmp_path.rglob(".writing-*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_device_that_is_really_full(tmp_path):
    with open_store(tmp_path, SETTINGS, SCHEMA) as store:
        (tmp_path / "parts" / ".writing-b.parquet").symlink_to("/dev/full")
        with pytest.raises(ExtremalValueError, match="No space left on device"):
            store.write("b", [{"key": "two", "value": 2.0}])
        assert store.find_finished() == frozenset()


def test_a_broken_part_is_named(tmp_path):
    with open_store(tmp_path, SETTINGS, SCHEMA) as store:
        store.write("a", [{"key": "one", "value": 1.0}])
        path = tmp_path / "parts" / "a.parquet"
        path.write_bytes(path.read_bytes()[:40])
    assert message_of(store.read_all) == (
        f"a part of a run must be a complete parquet file, {str(path)!r} is not (ArrowInvalid); delete it and run "
        "again: only its unit is computed again"
    )


def test_other_folders_are_refused_and_unchanged(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ExtremalValueError) as error, open_store(tmp_path, SETTINGS, SCHEMA):
        pass
    assert str(error.value) == (
        f"a run must have a folder of its own, {str(tmp_path)!r} holds 'thesis.tex' and no run; choose another"
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    with (
        pytest.raises(ExtremalValueError, match="is a file; choose another"),
        open_store(tmp_path / "thesis.tex", SETTINGS, SCHEMA),
    ):
        pass
    with pytest.raises(ExtremalValueError, match="is none; name the folder of a run"):
        read_manifest(tmp_path)


def test_a_run_of_another_format_is_refused(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"format": 1, "settings": SETTINGS}))
    expected = (
        f"a run must be of format 2, {str(path)!r} is of format 1; run again with this version, into another folder"
    )
    assert message_of(read_manifest, tmp_path) == expected
    with pytest.raises(ExtremalValueError) as error, open_store(tmp_path, SETTINGS, SCHEMA):
        pass
    assert str(error.value) == expected


def test_a_changed_bit_of_a_part_is_an_error(tmp_path: Path) -> None:
    schema = pa.schema([("numbers", pa.list_(pa.float64()))])
    with open_store(tmp_path / "run", SETTINGS, schema) as store:
        store.write("a", [{"numbers": [0.1 * k for k in range(200)]}])
        (part,) = (tmp_path / "run" / "parts").glob("*.parquet")
        data = bytearray(part.read_bytes())
        data[len(data) // 3] ^= 16  # inside of the numbers
        part.write_bytes(bytes(data))
        with pytest.raises(ExtremalValueError, match="must be a complete parquet file"):
            store.read_all()


@pytest.mark.parametrize("error", [OSError(30, "Read-only file system")])
def test_a_folder_that_cannot_be_written_is_not_locked(
    tmp_path: Path, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").touch()

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("extremal.jobs.store.FileLock.acquire", refuse)
    assert not is_locked(tmp_path)
    with (
        pytest.raises(ExtremalValueError, match="cannot be written: "),
        open_store(tmp_path / "run", SETTINGS, pa.schema([("a", pa.float64())])),
    ):
        pass
