"""`stability`: explain copies of an input with one grey level of noise, and compare their masks with a result's."""

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.explanations.explain import explain
from extremal.explanations.explanation import Explanation
from extremal.explanations.preparation import check_result, check_same_scores, restore_network, restore_query
from extremal.explanations.settings import Settings
from extremal.explanations.stability import Stability
from extremal.explanations.stages import OnStage, report_stages
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import PerturbationLike
from extremal.masking.solvers import Solver
from extremal.networks.inputs import ImagesLike, prepare, read_stacks
from extremal.networks.network import Network
from extremal.networks.noise import prepare_noisy
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import validate_callbacks, validate_whole
from extremal.scores import Answer, PerInput, Score
from extremal.scores.query import Query
from extremal.scores.target import Target, per_input, provide_inputs, settle_query

COPIES = 4  # of each input
MAX_COPIES = 256
MAX_DIFFERENCE = 1e-3  # of the inputs' range, by which the image may differ from that of the result (devices round)


@in_standard_modes
def stability(
    network: Network | nn.Module | str,
    image: ImagesLike,
    result: Explanation,
    copies: int = COPIES,
    *,
    target: Target = None,
    game: str | Game | Reward | None = None,
    perturbation: PerturbationLike | None = None,
    solver: str | Solver | None = None,
    score: str | Score | None = None,
    on_progress: OnStage | None = None,
) -> Stability:
    """Explain copies of an image with one grey level of noise, and compare their masks with those of a result.

    Each copy adds −1, 0 or +1 grey level, drawn uniformly, to every pixel and channel (`networks.noise`), which is
    invisible. All copies are explained together under the settings of the result, at the cost of `copies` times its
    evaluations. `dataclasses.replace(result, stability=...)` stores the measurement with the result: its verdicts then
    include `unstable`.

    >>> toy = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> result = explain(toy, x, areas=(0.1, 0.3), solver="path")
    >>> measured = stability(toy, x, result, copies=2)
    >>> measured.ious.shape, measured.core.shape
    (torch.Size([1, 2, 2]), torch.Size([1, 2, 1, 16, 16]))

    Args:
        network: the one that was explained.
        image: the one that was explained, as for `explain`.
        result: a result of `explain`, of N inputs; its alternatives are not measured.
        copies: number of copies of each input, at least 1.
        target: the target of the result, if it was not a class.
        game, perturbation, solver, score: those of the result; required only if they were callables. The solver is also
            required if the masks were given (`judge`).
        on_progress: called with the stage, the number of steps or masks done, and the total.

    Returns:
        A `Stability` of N inputs at A areas, on the CPU.

    Raises:
        ExtremalValueError, ExtremalTypeError: the network, the image or the settings are not those of the result.
    """
    validate_whole(copies, "copies", 1, MAX_COPIES, f"e.g. {COPIES}")
    validate_callbacks(on_progress=on_progress)
    check_result(result, Explanation)
    net = restore_network(network, result.settings)
    image = read_stacks(net, image)
    within, units = result.allowed_places()
    settings = Settings.from_dict(
        result.settings, {"game": game, "perturbation": perturbation, "solver": solver, "score": score}
    ).replace(areas=result.areas, within=within, units=units, alternatives=1)
    _check_same_inputs(net, image, result)
    query = restore_query(net, result, target, settings.score)
    if isinstance(query, Answer | PerInput):  # the answer is that to the image itself, not one of each copy
        target = query = settle_query(query, net, result.inputs.to(net.anchor))
    _check_same_question(net, query, result, settings.seed)
    noisy = [
        _expand(prepare_noisy(net, image, (settings.seed, copy)), len(result.masks)) for copy in range(1, copies + 1)
    ]
    targets = _targets(result, target, copies)
    explained = explain(net, torch.cat(noisy), targets, settings=settings, **report_stages(on_progress))
    return compare_copies(result, explained, settings.seed)


def compare_copies(result: Explanation, copies: Explanation, seed: int) -> Stability:
    """Compare the masks of N inputs with those of R·N copies, ordered copy by copy."""
    count, areas = len(result.masks), result.areas

    def by_input(values: Tensor) -> Tensor:  # (R·N, ...) -> (N, R, ...)
        return values.view(-1, count, *values.shape[1:]).transpose(0, 1)

    own = torch.stack([result.binary(area) for area in areas], 1).bool()  # (N, A, 1, *S)
    others = by_input(torch.stack([copies.binary(area) for area in areas], 1).bool())  # (N, R, A, 1, *S)
    both, either = (own[:, None] & others).flatten(3).sum(3), (own[:, None] | others).flatten(3).sum(3)
    core = own & others.all(1)
    smallest = [
        next((a for a, verdict in zip(areas, row, strict=True) if verdict.is_sufficient), torch.nan)
        for row in copies.verdict
    ]
    return Stability(
        areas=areas,
        ious=(both / either.float()).transpose(1, 2),
        core=core,
        core_shares=core.flatten(2).sum(2) / own.flatten(2).sum(2).float(),
        effects=by_input(copies.effects(copies.binary_scores)).transpose(1, 2),
        unseen_effects=by_input(copies.unseen_effects().nanmedian(2).values).transpose(1, 2),
        smallest_areas=by_input(torch.tensor(smallest, dtype=torch.float64)),
        seed=seed,
        evaluations=sum(copies.settings["evaluations"].values()),
    )


def _check_same_inputs(net: Network, image: ImagesLike, result: Explanation) -> None:
    x, known = prepare(net, image).cpu(), result.inputs
    same_shape = x.shape[1:] == known.shape[1:] and len(x) in (1, len(known))
    tolerance = MAX_DIFFERENCE * float(known.max() - known.min())
    if not same_shape or float((x - known).abs().max()) > tolerance:
        raise ExtremalValueError(
            "an image must be the one that was explained, got one that is prepared as another input of shape "
            f"{tuple(x.shape)}; pass the image of the result, or result.inputs"
        )


def _check_same_question(net: Network, query: Query, result: Explanation, seed: int) -> None:
    """Raise unless the query gives the inputs the scores of the result; costs one evaluation of each input."""
    with net.frozen(seed) as run, torch.no_grad():
        x = result.inputs.to(net.anchor.device).clone()
        run.undo.enter_context(provide_inputs(query, net))
        check_same_scores(query.bind(run, x)(x, torch.arange(len(x), device=x.device)), result)


def _expand(x: Tensor, count: int) -> Tensor:
    """Repeat a single input (1, C, *S) for several targets."""
    return x.expand(count, *x.shape[1:]) if len(x) == 1 else x


def _targets(result: Explanation, target: Target, copies: int) -> Target:
    """Return the target of all copies, or one for each."""
    if result.is_class:
        return [index for index in result.target if index is not None] * copies
    each = per_input(target, len(result.masks))
    return target if each is None else each * copies
