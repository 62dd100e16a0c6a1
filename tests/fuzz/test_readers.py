"""Every reader of files takes what is intact, and reads or refuses in one sentence what is changed at random."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extremal import ExtremalError
from support.readers import READERS, Trial, start_trial

MAX_LENGTH = 2000  # characters of a message

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=sorted(READERS))
def trial(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    if "json" in request.param or request.param == "model.safetensors":
        pytest.importorskip("transformers")
    return start_trial(request.param, tmp_path_factory.mktemp("reader") / "files")


def test_intact_files(trial: Trial) -> None:
    trial.read_intact()


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_changed_files(trial: Trial, seed: int) -> None:
    try:
        trial.read_changed(seed)
    except ExtremalError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message
    assert len(message) < MAX_LENGTH


def test_changes_are_a_function_of_the_seed(tmp_path: Path) -> None:
    first, second = (start_trial("option texts", tmp_path / name) for name in "ab")
    for seed in range(20):
        results = []
        for trial in (first, second):
            try:
                trial.read_changed(seed)
                results.append("read")
            except ExtremalError as error:
                results.append(str(error))
        assert results[0] == results[1]
