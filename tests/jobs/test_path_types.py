"""Values that are no paths, where a file or a folder is asked for."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extremal import (
    ChannelExplanation,
    ClipReader,
    Explanation,
    ExtremalTypeError,
    RegionSets,
    SoundReader,
    VolumeReader,
    jobs,
    read_volume,
)
from support.made_explanations import explanation
from support.sounds import write_planted_tone


@pytest.mark.parametrize("value", [None, 5, b"a.wav", 2.5])
@pytest.mark.parametrize(
    "call_with",
    [
        explanation().save,
        Explanation.load,
        explanation().report,
        ChannelExplanation.load,
        RegionSets.load,
        read_volume,
        ClipReader(2).read,
        VolumeReader().read,
        SoundReader(8000).read,
        jobs.summary,
        jobs.status,
        jobs.table,
        jobs.settings,
        lambda value: jobs.explanation(value, "a"),
        lambda value: jobs.compare(value, value),
        lambda value: jobs.run(".", value, network="blank"),
    ],
)
def test_other_values_are_no_paths(call_with: Callable[[Any], object], value: object) -> None:
    with pytest.raises(ExtremalTypeError, match=f"must be given by its path, .*, got {re.escape(repr(value))}; e.g. "):
        call_with(value)


def test_an_open_file_is_not_closed(tmp_path: Path) -> None:
    written = write_planted_tone(tmp_path / "a.wav")
    with written.open("rb") as file:
        with pytest.raises(ExtremalTypeError, match="a sound must be given by its path"):
            SoundReader(8000).read(file.fileno())  # type: ignore[arg-type]
        assert file.read(4) == b"RIFF"
