"""`rebuilt`: an explanation back from its row, equal to rounding; `cut_masks`: its masks alone, without a network."""

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.explanations.batches import Block, in_blocks
from extremal.explanations.evidence import unseen_perturbations
from extremal.explanations.explanation import Explanation
from extremal.explanations.judge import agreed, asked_values, held
from extremal.explanations.objective import Question
from extremal.explanations.settings import Terms
from extremal.explanations.verdict import Status
from extremal.files import content_hash
from extremal.jobs.packing import unpacked, unpacked_shares
from extremal.jobs.rows import DONE
from extremal.jobs.store import differences
from extremal.masking.domain import Domain
from extremal.masking.games import Game, Reward, get_game
from extremal.masking.perturbations import PERTURBATIONS, Perturbation, get_perturbation, prepare_perturbation
from extremal.masking.solvers import rebuild_masks
from extremal.masking.units import cut_to_units
from extremal.networks.inputs import One, prepare
from extremal.networks.network import Network, Run
from extremal.networks.resolve import as_network
from extremal.scores import SCORES, Score, get_score
from extremal.scores.target import Target

SAME = ("spacing", "fuse", "precision", "dtype")  # settings of a network beside its weights that make the numbers
TELLING = 0.01  # of the effect, by which the whole input may score otherwise than it did: rounding is far below
SCORED = (  # columns of numbers that are fields of an explanation
    "score_full",
    "score_blank",
    "mask_areas",
    "scores",
    "binary_scores",
    "unseen_scores",
    "unseen_blank",
    "control_scores",
)


def rebuilt(
    row: Mapping[str, Any],
    network: Network | nn.Module | str,
    picture: One | None = None,
    *,
    settings: Mapping[str, Any],
    target: Target = None,
    game: str | Game | Reward | None = None,
    perturbation: str | Perturbation | None = None,
    score: str | Score | None = None,
) -> Explanation:
    """The explanation that a row is of, of its one input, equal to rounding.

    Scores, trace (its areas and greyness to 5e-7) and verdicts are those of the row. The masks are made of their
    fields, the input of its picture. The network is asked again only for the agreement, which is too large for a row:
    four forward-backward passes for each unseen perturbation and orientation (32 where there are four and the input may
    be mirrored), and about ten forward passes for checks. What ran in a batch may round otherwise alone, in single
    precision in the sixth place.

    Args:
        row: of `SCHEMA`, as pyarrow or pandas hand it out.
        network: with the weights and the preprocessing that were explained.
        picture: the input, as `explain` takes it; None: it is read from the row's path. The bytes of a file must have
            the row's hash.
        settings: that all rows share (`shared_settings`).
        target: the question that was asked, where it was no class.
        game, perturbation, score: those of the run; needed only where they have no short name.

    Raises:
        ExtremalValueError: the row failed or is broken, or picture, network, terms or version are not those of the row.
    """
    key, net = row["key"], as_network(network)
    _check_row(row)
    x = _input(row, net, picture)
    shape = tuple(x.shape[2:])
    within, units = _allowed(row, shape)
    terms = _terms(settings, game, perturbation, score, within, units)
    _check_network(terms.settings(net), settings, net.name)
    asked_of: Target = int(row["target"]) if row["target"] >= 0 else target
    if asked_of is None:
        raise ExtremalValueError(
            f"the target of row {key!r} was no class but a question, {row['target_name']!r}: pass it as target"
        )

    def answered(run: Run, question: Question, block: Block) -> Explanation:
        _check_score(row, float(question.full[0]), net)
        fields = _read(row, "fields", x.dtype, (1, *row["fields_shape"])).to(x.device)
        with torch.no_grad():
            masks = rebuild_masks(settings["solver"], fields, tuple(row["areas"]), question.domain)
        if not any(row["mask_areas"]):  # the run was not finite
            masks = torch.zeros_like(masks)
        unseen = unseen_perturbations(question.perturbation, terms.seed).values()
        perturbs = (prepare_perturbation(one, question.x) for one in unseen)
        speaking = agreed(question, perturbs, masks, block.rows, bool(row["mirror"]))
        found = {"masks": masks, "fields": fields, "agreement": speaking}
        tensors = held(
            {**asked_values(net, question), **found, **_scores(row, question.full.dtype), **_trace(row, x.dtype)}
        )
        return Explanation(
            areas=tuple(row["areas"]),
            **tensors,
            target=(int(row["target"]),),
            target_names=(row["target_name"],),
            unseen_names=tuple(row["unseen_names"]),
            status=(tuple(Status(status) for status in row["statuses"]),),
            keeps=terms.game.keeps,
            settings={**settings, "mirror": bool(row["mirror"]), "evaluations": dict(row["counts"])},
        )

    return in_blocks(net, x, asked_of, terms, answered)


def cut_masks(row: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor:
    """The masks of a row cut to black and white, (A, *S) bool, without its network and its picture.

    Those of a run that was not finite were zero, and are cut to nothing.

    Args:
        row: of `SCHEMA`; of its columns the areas, the fields, the shapes, `within` and `units` are enough, and what
            messages tell.
        settings: that all rows share (`shared_settings`).

    Raises:
        ExtremalValueError: the row failed, is broken, or tells no fields or shape; or the solver is of another version.
    """
    _check_row(row)
    if row["input_shape"] is None:
        raise ExtremalValueError(
            f"a row must tell the shape of its input, {row['key']!r} of a former version does not; explain it again"
        )
    shape, areas = tuple(row["input_shape"]), tuple(row["areas"])
    if not any(row["mask_areas"]):
        return torch.zeros(len(areas), *shape, dtype=torch.bool)
    within, units = _allowed(row, shape)
    domain = Domain(shape, tuple(settings["spacing"]), within, units)
    fields = _read(row, "fields", getattr(torch, settings["dtype"].removeprefix("torch.")), (1, *row["fields_shape"]))
    with torch.no_grad():
        masks = rebuild_masks(settings["solver"], fields, areas, domain)
    return cut_to_units(masks, areas, units)[0, :, 0] > 0


def _allowed(row: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Where masks were allowed, and the unit of each place: each (*S), or None where there is none."""
    within = None if row["within"] is None else _read(row, "within", torch.bool, shape)
    units = None if row["units"] is None else _read(row, "units", torch.int32, shape).long()
    return within, units


def _check_row(row: Mapping[str, Any]) -> None:
    if row["status"] != DONE:
        raise ExtremalValueError(
            f"a row must hold an explanation to be rebuilt, {row['key']!r} failed: {row['error']}; explain it again"
        )
    if row["fields"] is None:
        raise ExtremalValueError(
            f"a row must hold the fields of its masks to be rebuilt, {row['key']!r} has none: its masks were given, or "
            "its solver tells none; keep such explanations with save"
        )


def _input(row: Mapping[str, Any], net: Network, picture: One | None) -> Tensor:
    """The row's input, prepared: (1, C, *S)."""
    shown = row["path"] if picture is None else picture
    if picture is None and not isinstance(shown, str):  # pandas has NaN for null
        raise ExtremalValueError(f"a row without a path needs its picture, {row['key']!r} has none; pass it as picture")
    x = prepare(net, shown)
    if isinstance(shown, str | os.PathLike) and content_hash(shown) != row["content_hash"]:
        raise ExtremalValueError(
            f"a picture must be the one that was explained, the bytes of {str(shown)!r} are not those of row "
            f"{row['key']!r}; put the former file there, or explain again"
        )
    if len(x) != 1:
        raise ExtremalValueError(f"a row is of one input, got {len(x)}; pass the one of row {row['key']!r}")
    return x


def _terms(
    settings: Mapping[str, Any],
    game: str | Game | Reward | None,
    perturbation: str | Perturbation | None,
    score: str | Score | None,
    within: Tensor | None,
    units: Tensor | None,
) -> Terms:
    """The terms that the settings tell, or as given."""
    perturbations = {repr(known): known for known in PERTURBATIONS.values()}
    scores = {known.__name__: known for known in SCORES.values()}
    told = settings["perturbation"], settings["score"]
    return Terms(
        get_game(settings["game"] if game is None else game),
        get_perturbation(perturbations.get(told[0], told[0]) if perturbation is None else perturbation),
        get_score(scores.get(told[1], told[1]) if score is None else score),
        settings["seed"],
        within,
        units,
    )


def _check_network(now: Mapping[str, Any], settings: Mapping[str, Any], name: str) -> None:
    if now["weights"] != settings["weights"]:
        raise ExtremalValueError(
            f"a network must be the one that was explained, {name}'s weights are not those of the row; "
            "load the same weights, or explain again"
        )
    found = differences({name: settings[name] for name in SAME}, {name: now[name] for name in SAME})
    if found:
        raise ExtremalValueError(
            f"a network must be set as when it was explained, {name} is not: {'; '.join(found)}; load it alike"
        )


def _check_score(row: Mapping[str, Any], now: float, net: Network) -> None:
    if not abs(now - row["score_full"]) <= TELLING * abs(row["score_full"] - row["score_blank"]):
        raise ExtremalValueError(
            f"an input must score as its row tells, {row['key']!r} scored {row['score_full']:.6g} and scores {now:.6g} "
            f"now; check the picture, and the preprocessing of {net.name}"
        )


def _scores(row: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """The scores (1, ...) of a row."""
    return {name: torch.tensor(_plain(row[name]), dtype=dtype)[None] for name in SCORED}


def _plain(values: Any) -> Any:
    """Nested lists of what may be numpy's, which pandas hands out."""
    return [_plain(value) for value in values] if hasattr(values, "__len__") else values


def _trace(row: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """The trace of a row."""

    def shares(data: bytes, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
        return unpacked_shares(data, dtype, len(row["areas"])).view(tuple(shape))

    return {
        "trace_step": _read(row, "trace_step", torch.int64, (-1,)),
        "trace_area": _read(row, "trace_area", dtype, (1, -1), shares),
        "trace_reward": _read(row, "trace_reward", dtype, (1, -1)),
        "trace_grey": _read(row, "trace_grey", dtype, (1, -1), shares),
    }


def _read(
    row: Mapping[str, Any],
    name: str,
    dtype: torch.dtype,
    shape: Sequence[int],
    read: Callable[[bytes, torch.dtype, Sequence[int]], Tensor] = unpacked,
) -> Tensor:
    """The tensor in a column."""
    try:
        return read(row[name], dtype, shape)
    except (zlib.error, RuntimeError, TypeError, ValueError):
        raise ExtremalValueError(
            f"a row must be whole, {name} of row {row['key']!r} is broken or not of shape {tuple(shape)}; explain it "
            "again"
        ) from None
