"""Files of weights that are damaged, hostile or elsewhere: refused in one sentence."""

import io
import os
import pickle
import resource
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from extremal.networks.zoo.weights import read_state
from support.errors import message_of

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}


def refuse(path: Path | str) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = message_of(read_state, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"w.{suffix}"
    torch.save(STATE, path) if suffix == "pt" else save_file(STATE, path)
    os.truncate(path, int(path.stat().st_size * share))
    assert refuse(path).startswith(f"weights must be a safetensors file or a plain state dict, got {str(path)!r}: ")


def test_entries_that_inflate(tmp_path: Path) -> None:
    content = io.BytesIO()
    torch.save({"a": torch.zeros(10_000_000)}, content)
    with (
        zipfile.ZipFile(content) as source,
        zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as sink,
    ):
        for name in source.namelist():
            sink.writestr(name, source.read(name))
    assert "is compressed, which torch never does" in refuse(tmp_path / "w.pt")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    torch.save({3: torch.zeros(2)}, tmp_path / "w.pt")
    assert "weights must be a state dict of tensors, got something else in" in refuse(tmp_path / "w.pt")


def test_a_name_of_100_000_characters(tmp_path: Path) -> None:
    code = b"\x80\x02c" + b"a" * 100_000 + b"\nb\n."
    for path in (tmp_path / "plain.pt", tmp_path / "zip.pt"):
        torch.save(STATE, path, _use_new_zipfile_serialization=path.stem == "zip")
        if path.stem == "plain":
            path.write_bytes(code)
        else:
            content = io.BytesIO()
            with zipfile.ZipFile(path) as source, zipfile.ZipFile(content, "w") as sink:
                for name in source.namelist():
                    sink.writestr(name, code if name.endswith("data.pkl") else source.read(name))
            path.write_bytes(content.getvalue())
        start = time.monotonic()
        assert "it has a name of 100,0" in refuse(path)
        assert time.monotonic() - start < 2


def test_the_form_without_zip(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert all(torch.equal(value, STATE[name]) for name, value in read_state(tmp_path / "w.pt").items())


def test_a_deep_pickle(tmp_path: Path) -> None:
    value: object = None
    for _ in range(300):
        value = [value]
    (tmp_path / "w.pt").write_bytes(pickle.dumps(value))
    refuse(tmp_path / "w.pt")


def test_paths(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pt")
    assert refuse(tmp_path / "w.pt").endswith("which is a pipe; copy it to a file")
    assert refuse(tmp_path).endswith("name a file in it")
    assert refuse("/dev/zero").endswith("which is a device; copy it to a file")
    assert refuse("s3://bucket/w.pt") == (
        "weights must be a local file, got the address 's3://bucket/w.pt'; download it first"
    )
    assert "whose user does not exist; give the full path" in refuse("~nobody-here/w.pt")
    assert "File name too long" in refuse("a" * 300)
    assert "embedded null byte" in refuse("a\0b")
