"""The settings of a result in words, for people; the stored ones are on the page as well, folded away."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from extremal.explanations.display import network_text
from extremal.masking.solvers.consensus import share_masks
from extremal.report.text import area_percent, join_words, plural

Lines = list[tuple[str, str]]  # what it is about, and the words
DETAIL = re.compile(r"\(.*", re.DOTALL)  # from the first parenthesis of a stored perturbation on: its parameters
GAME_TEXTS = {
    "preserve": "keep the region and destroy the rest (preserve)",
    "delete": "destroy the region and keep the rest (delete)",
    "dual": "keep the region, and destroy it, at once (dual)",
}
SCORE_TEXTS = {
    "margin": "how far the class is ahead of all others together (margin, log-odds)",
    "logit": "the network's output for the class (logit)",
    "probability": "the probability of the class",
    "log_probability": "the logarithm of the class's probability",
    "contrastive": "how far the class is ahead of the strongest other one (contrastive)",
    "negative": "the evidence against the class (negative)",
    "sigmoid": "the output of the class among independent labels (sigmoid)",
}


def describe_settings(settings: Mapping[str, Any], areas: Sequence[float] = (), *, is_class: bool = True) -> Lines:
    """Describe the settings of a result in words.

    >>> describe_settings({"network": "embedded", "perturbation": ["Blur(levels=8, sigma=20.0, spacing=())", "Fade()"]})
    [('Network', 'embedded'), ('The rest is destroyed by', 'blur and fade in turn')]

    Args:
        settings: as results store them; those that are missing or unknown are left out.
        areas: of the masks; may be empty.
        is_class: whether the score of a class was explained; other questions have no choice of the score.
    """
    descriptions: dict[str, Callable[[Mapping[str, Any], Sequence[float]], str]] = {
        "Network": lambda settings, _: network_text(settings) if "network" in settings else "",
        "Weights from": lambda settings, _: str(settings.get("source", "")),
        "Score": lambda settings, _: _name(SCORE_TEXTS, settings.get("score")) if is_class else "",
        "Game": lambda settings, _: _name(GAME_TEXTS, settings.get("game")),
        "The rest is destroyed by": lambda settings, _: describe_perturbation(settings.get("perturbation")),
        "Areas": lambda _, areas: ", ".join(map(area_percent, areas)),
        "Search": lambda settings, areas: describe_solver(settings.get("solver"), len(areas)),
        "Evaluations of the network": lambda settings, _: describe_evaluations(settings.get("evaluations")),
        "Mirrored images": lambda settings, _: "used as well" if settings.get("mirror") is True else "",
        "Random seed": lambda settings, _: str(settings.get("seed", "")),
        "Computed on": lambda settings, _: _describe_device(settings),
        "With": lambda settings, _: _describe_versions(settings.get("versions")),
    }
    lines = [(name, describe(settings, areas)) for name, describe in descriptions.items()]
    return [(name, text) for name, text in lines if text]


def describe_perturbation(plain: Any) -> str:
    """Describe the stored perturbation of a result.

    >>> describe_perturbation("Constant(value=-1.0)"), describe_perturbation(["Blur(levels=8)", "Fade()", "Noise()"])
    ('constant', 'blur, fade and noise in turn')
    """
    ways = plain if isinstance(plain, list | tuple) else [plain] if plain else []
    names = [_perturbation_name(str(way)) for way in ways]
    return join_words(names) + (" in turn" if len(names) > 1 else "")


def describe_solver(solver: Any, areas: int = 0) -> str:
    """Describe the stored solver of a result.

    >>> describe_solver({"name": "consensus", "columns": 8, "steps": 8, "least": 64}, 5)
    '8 steps on all areas at once (consensus)'
    """
    if not isinstance(solver, Mapping):
        return ""
    name = str(solver.get("name", ""))
    describe = _SOLVER_TEXTS.get(name)
    return describe(solver, areas) if describe else name


def _describe_consensus(solver: Mapping[str, Any], areas: int) -> str:
    steps, least, columns = (solver.get(name, 0) for name in ("steps", "least", "columns"))
    if not columns:
        return "consensus"  # of an earlier version
    if areas:
        steps, _ = share_masks(steps, least, columns, areas)
    reduced = solver.get("reduced_steps", steps) if solver.get("reduced_share") else steps
    fewer = f", or {reduced} where the network takes smaller inputs" if reduced < steps else ""
    return f"{plural(steps, 'step')}{' on all areas at once' if areas != 1 else ''}{fewer} (consensus)"


def _describe_path(solver: Mapping[str, Any], _: int) -> str:
    steps, polish = (solver.get(name, 0) for name in ("steps", "polish"))
    last = f", then {plural(polish, 'step')} at each" if polish else ""
    return f"{plural(steps, 'step')} from the largest area to the smallest{last} (path)"


_SOLVER_TEXTS: dict[str, Callable[[Mapping[str, Any], int], str]] = {
    "consensus": _describe_consensus,
    "path": _describe_path,
    "penalty": lambda solver, _: f"{plural(solver.get('steps', 0), 'step')} at each area, the paper's (penalty)",
    "search": lambda solver, _: f"{plural(solver.get('evaluations', 0), 'evaluation')} without gradients (search)",
    "given": lambda *_: "none: the masks were given",
}


def describe_evaluations(counts: Any) -> str:
    """Describe how often the network was evaluated.

    >>> describe_evaluations({"gradients": 90, "forwards": 10, "evidence_gradients": 0, "evidence_forwards": 120})
    '90 with and 10 without a gradient to find the masks, 120 to test them'
    """
    if not isinstance(counts, Mapping) or not all(type(value) is int for value in counts.values()):
        return ""
    found = f"{counts.get('gradients', 0):,} with and {counts.get('forwards', 0):,} without a gradient"
    tested = counts.get("evidence_gradients", 0) + counts.get("evidence_forwards", 0)
    return f"{found} to find the masks, {tested:,} to test them"


def _name(texts: Mapping[str, str], name: Any) -> str:
    return texts.get(str(name), str(name or ""))


def _perturbation_name(stored: str) -> str:
    """Return the name of a perturbation without its parameters, that of the option.

    >>> _perturbation_name("Blur(levels=8, sigma=20.0, spacing=())"), _perturbation_name("<function mine at 0x7f>")
    ('blur', 'mine')
    """
    if stored.startswith("<"):
        words = stored.strip("<>").split()
        return words[1] if len(words) > 1 else stored
    name = DETAIL.sub("", stored)
    return "channels set to zero" if name == "ScaleChannels" else name.lower()


def _describe_device(settings: Mapping[str, Any]) -> str:
    if "device" not in settings:
        return ""
    threads = settings.get("threads")
    parts = [str(settings["device"])]
    if parts[0] == "cpu" and type(threads) is int:
        parts.append(plural(threads, "thread"))
    return ", ".join([*parts, str(settings.get("dtype", "")).removeprefix("torch.")]).rstrip(", ")


def _describe_versions(versions: Any) -> str:
    if not isinstance(versions, Mapping):
        return ""
    names = {"extremal": "extremal", "torch": "PyTorch", "python": "Python"}
    return ", ".join(f"{text} {versions[name]}" for name, text in names.items() if name in versions)
