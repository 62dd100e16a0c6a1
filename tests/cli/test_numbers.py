"""Numbers out of range, of thousands of digits, or no numbers: one sentence, in the command line and in Python."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extremal import ExtremalTypeError, ExtremalValueError, solvers
from extremal.explanations.channels.explain import validate_counts
from extremal.explanations.settings import Settings
from extremal.explanations.validation import MAX_AREAS, validate_image, validate_smooth
from extremal.file_checks import quote
from extremal.jobs.run_options import RunOptions
from extremal.number_checks import format_value, is_whole, parse_whole
from support import made_explanations, terminal
from support.commands import call
from support.errors import message_of
from support.fake_network import save_image

pytestmark = pytest.mark.usefixtures("fake_commands")
HUGE = "9" * 4400  # Python parses at most 4300 digits
LONG = "9" * 4000


@pytest.fixture(autouse=True)
def image(tmp_path: Path) -> None:
    save_image(tmp_path / "cat.png")


class TestCommandLine:
    @pytest.mark.parametrize("number", [HUGE, f"-{HUGE}", LONG])
    @pytest.mark.parametrize("options", [["--target"], ["--target", "0|{}"], ["--ask", "unit:a:{}"], ["--ask", "{}"]])
    def test_of_thousands_of_digits(self, options: list[str], number: str) -> None:
        arguments = [option.format(number) for option in options]
        code, printed, error = call("cat.png", *(arguments if len(arguments) > 1 else [*arguments, number]))
        assert (code, printed) == (2, "")
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert len(error) < 700

    @pytest.mark.parametrize(
        "option", ["--batch", "--threads", "--workers", "--seed", "--alternatives", "--gpus-per-worker"]
    )
    @pytest.mark.parametrize("number", [HUGE, LONG, "-1", "99999999999", "nan", "1e400", "²", ""])
    def test_of_runs(self, option: str, number: str) -> None:
        code, _, error = terminal.call("run", "cat.png", "--out", "run", f"{option}={number}")
        assert code == 2
        assert error
        assert not Path("run").exists()

    @pytest.mark.parametrize(
        ("areas", "message"),
        [
            ("5e-324", "areas must be at least 1e-07, since smaller ones keep no place of any input, got 4.94066e-324"),
            ("1e-8,0.1", "areas must be at least 1e-07"),
            (
                ",".join(str((i + 1) / 3001) for i in range(3000)),
                f"areas must be at most {MAX_AREAS}, since each takes",
            ),
            ("0.1,0.100000000001", "areas must differ by at least 1e-08, got 0.1 and 0.100000000001; leave one out"),
            ("nan", "areas must lie in (0, 1), got nan"),
            ("1e400", "areas must lie in (0, 1), got inf"),
            ("1_0", "areas must lie in (0, 1), got 10"),
            (HUGE, "areas must lie in (0, 1), got inf"),
            ("a" * 5000, "--areas must be numbers separated by commas"),
            ("0.1,", "--areas must be numbers separated by commas, got '0.1,'"),
        ],
    )
    def test_areas(self, areas: str, message: str) -> None:
        code, _, error = call("cat.png", areas=areas)
        assert code == 2
        assert message in error
        assert len(error) < 700

    def test_counts(self) -> None:
        for counts in (HUGE, LONG, "1,1", "0", "-1", "a" * 9000):
            code, _, error = terminal.call("channels", "cat.png", "--layer", "0", f"--counts={counts}")
            assert code == 2
            assert error.count("\n") == 1
            assert len(error) < 1700


class TestPython:
    @pytest.mark.parametrize(
        ("areas", "kind"),
        [
            (itertools.repeat(0.1), ExtremalValueError),
            ((i / 1000 for i in itertools.count(1)), ExtremalValueError),
            ([10**400], ExtremalTypeError),
            ((None,), ExtremalTypeError),
            (0.1, ExtremalTypeError),
            ("0.1", ExtremalTypeError),
            (np.array([[0.1]]), ExtremalTypeError),
        ],
    )
    def test_areas(self, areas: Any, kind: type[Exception]) -> None:
        if isinstance(areas, np.ndarray):
            assert Settings(areas=areas.ravel()).areas == (0.1,)
            return
        with pytest.raises(kind):
            Settings(areas=areas)

    @pytest.mark.parametrize("number", [10**5000, -(10**5000), 10**40, None, "3", 0.5, True], ids="abcdefg")
    def test_whole_numbers(self, number: Any) -> None:
        calls: list[Any] = [
            lambda: Settings(seed=number),
            lambda: Settings(alternatives=number),
            lambda: solvers.Path(steps=number),
            lambda: solvers.Consensus(steps=number),
            lambda: solvers.Penalty(steps=number),
            lambda: validate_counts((number,), None, 8, "a"),
        ]
        if number is not None:
            calls += [lambda name=name: RunOptions(**{name: number}) for name in ("threads", "workers", "batch")]
        for attempt in calls:
            assert len(message_of(attempt)) < 300
        if isinstance(number, int) and not isinstance(number, bool):
            assert message_of(validate_image, number, 3).startswith("image must lie in 0..2 for 3 inputs, got a number")

    def test_threads_have_a_bound(self) -> None:
        expected = "threads must be at most 512, got 100000; leave it out for the usual number"
        assert message_of(RunOptions, threads=100_000) == expected

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1.5, 1e300])
    def test_gpus(self, value: float) -> None:
        assert "gpus_per_worker must be" in message_of(RunOptions, engine="ray", gpus_per_worker=value)

    def test_text_of_numbers(self) -> None:
        assert format_value(-(10**5000)) == "a number of about 5,001 digits"
        assert quote(10**5000) == "a number of about 5,001 digits"
        texts = {"7": 7, "-7": -7, "--7": None, "": None, "7.0": None, "٣": 3, HUGE: None}
        assert {text: parse_whole(text) for text in texts} == texts


@pytest.mark.parametrize("value", [np.array([0, 1]), torch.tensor(0.0), torch.tensor(True), True])
def test_arrays_and_truth_are_no_whole_numbers(value: object) -> None:
    assert not is_whole(value)
    assert message_of(validate_image, value, 3).startswith("image must be a whole number, got ")


def test_arrays_of_one_whole_number_are() -> None:
    assert all(map(is_whole, (np.array(3), np.int64(3), torch.tensor(3))))


@pytest.mark.parametrize("value", [-1, -1e-9, float("nan"), float("inf"), 1.5, "1", None, True, 10**400])
def test_a_blur_of_maps_lies_between_nothing_and_the_whole(value: Any) -> None:
    assert message_of(validate_smooth, value).startswith("smooth must ")
    assert message_of(made_explanations.explanation().saliency, value).startswith("smooth must ")
    assert validate_smooth(np.float32(0.5)) == 0.5
