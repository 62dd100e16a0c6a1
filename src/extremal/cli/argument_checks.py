"""Check arguments before torch is imported, so that a mistake is reported at once.

Each function raises the error that the library would raise later, as far as text and files show.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from extremal.cli import options
from extremal.cli.parse import parse_areas, parse_counts
from extremal.errors import ExtremalValueError
from extremal.file_checks import quote

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
MIXED = "mixed"  # perturbation
SEVERAL = {"perturbation": "perturbations", "methods": "methods"}  # take names separated by commas


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
        names = [name.strip() for name in text.split(",")] if option in SEVERAL else [text.strip()]
        for name in names:
            _check_name(option, name)
        if len(names) > 1:
            _check_combination(option, names, text)


def _check_name(option: str, name: str) -> None:
    known, noun = NAMES_BY_OPTION[option], NOUNS.get(option, option)
    if name not in known:
        nearest = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        hint = f"; nearest: {nearest[0]}" if nearest else ""
        raise ExtremalValueError(f"{noun} must be one of {', '.join(known)}, got {quote(name)}{hint}")


def _check_combination(option: str, names: Sequence[str], text: str) -> None:
    """Raise if a name occurs twice, or is a mix of several perturbations."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ExtremalValueError(
            f"{SEVERAL[option]} must be distinct, got {twice} twice in {quote(text)}; leave one out"
        )
    if option == "perturbation" and MIXED in names:
        raise ExtremalValueError(
            f"--perturbation {MIXED}, which is a mix itself, must be used alone, got {quote(text)}; name the "
            "perturbations one by one, e.g. blur,fade"
        )


def check_alternatives(number: int) -> None:
    """Check the number of `--alternatives`."""
    from extremal.explanations.validation import validate_alternatives

    validate_alternatives(number)


def check_counts(text: str) -> None:
    """Check the text of `--counts`; the number of channels is known with the network."""
    from extremal.explanations.validation import validate_channel_counts

    counts = parse_counts(text)
    if counts is not None:
        validate_channel_counts(counts)


def check_areas(text: str) -> None:
    """Check the text of `--areas`; a warning about their order is left to the settings."""
    from extremal.explanations.validation import validate_areas

    validate_areas(sorted(parse_areas(text)))


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


def check_execution(options: Mapping[str, Any]) -> None:
    """Check the options of `extremal run` that are not those of an explanation."""
    from extremal.jobs.run_options import RunOptions

    RunOptions(**options)
