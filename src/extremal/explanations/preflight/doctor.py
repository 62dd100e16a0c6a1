"""`examine`: is anything about a network and an input such that explanations of it would be worth nothing?"""

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.explanations.preflight import network_checks as checks
from extremal.explanations.preflight import objective_checks
from extremal.explanations.preflight.findings import Finding, Findings, Level
from extremal.explanations.preflight.objective_checks import Case
from extremal.explanations.settings import Settings
from extremal.masking.perturbations import PERTURBATIONS, Perturbation, with_spacing
from extremal.networks.inputs import ImagesLike, prepare
from extremal.networks.network import Network, Run
from extremal.networks.resolve import as_network
from extremal.scores import Score
from extremal.scores.class_query import ClassQuery
from extremal.scores.target import Target, parse_target

OBJECTIVE_CHECKS = (  # each with whether a problem there makes the later ones pointless
    (objective_checks.finite_outputs, True),
    (objective_checks.deterministic, True),
    (objective_checks.rows_independent, False),
    (objective_checks.depends_on_the_input, True),
    (objective_checks.raw_outputs, False),
    (objective_checks.gradient, False),
    (objective_checks.destruction_lowers_score, False),
    (objective_checks.saturation, False),
    (objective_checks.clear_class, False),
)
CHECK_NAMES = (
    *("devices", "weights", "input range", "evaluation", "input kept", "mode"),
    *(check.__name__.replace("_", " ") for check, _ in OBJECTIVE_CHECKS),
)


def examine(
    network: Network | nn.Module | str,
    image: ImagesLike,
    target: Target = None,
    *,
    perturbation: str | Perturbation = "blur",
    score: str | Score = "margin",
    seed: int = 0,
) -> Findings:
    """Check a network, an input and a question for what makes explanations worthless, by some 30 evaluations.

    Where a problem makes later checks pointless (a network that does not depend on its input has no gradient either),
    these are left out and named in `Findings.unchecked`.

    >>> toy = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    >>> _ = nn.init.zeros_(toy[1].weight)
    >>> (found,) = examine(toy, torch.rand(1, 3, 4, 4)).illnesses
    >>> print(found.level, "-", found.name)
    problem - depends on the input

    Args:
        network, target, perturbation, score, seed: as `explain` takes them.
        image: as `explain` takes it; one input.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule, as in `explain`.
    """
    settings = Settings(perturbation=perturbation, score=score, seed=seed)
    # a module is wrapped here: `as_network` refuses one on several devices, which here is a finding
    net = as_network(network) if isinstance(network, str) else network
    net = net if isinstance(net, Network) else Network(net)
    x = prepare(net, image)
    if len(x) != 1:
        raise ExtremalValueError(f"an examination must be of one input, got {len(x)}; pass them one after the other")
    name, found = _run_checks(net, x, target, settings)
    done = {finding.name for finding in found}
    return Findings(net.name, name, tuple(found), tuple(check for check in CHECK_NAMES if check not in done))


def _run_checks(net: Network, x: Tensor, target: Target, settings: Settings) -> tuple[str, list[Finding]]:
    """What was asked about, and the findings up to one that makes the rest pointless."""
    found = [checks.devices(net)]
    if found[-1].ok:
        found.append(checks.weights(net))
    if not found[-1].ok:
        return "", found
    found.append(checks.input_range(net, x))
    with net.frozen(settings.seed) as run:
        found.append(checks.evaluation(run, x))
        if not found[-1].ok:
            return "", found
        found.append(checks.input_unchanged(run, x))
    found.append(checks.evaluation_mode(net, x, settings.seed))
    with net.frozen(settings.seed) as run, torch.no_grad():
        case = _build_case(run, x.clone(), target, settings)
        for check, needed in OBJECTIVE_CHECKS:
            found.append(check(case))
            if needed and found[-1].level is Level.PROBLEM:
                break
    return case.name, found


def _build_case(run: Run, x: Tensor, target: Target, settings: Settings) -> Case:
    """Bind the target to one input (1, C, *S), as `build_objective` does, but without its refusals."""
    net, query = run.network, parse_target(target, settings.score)
    index = torch.zeros(1, dtype=torch.int64, device=x.device)
    class_index: int | None = None
    if isinstance(query, ClassQuery):
        (class_index,) = query.resolve(net, run(x.clone()))
        name, bound = net.label(class_index), query.bind_classes(run, torch.tensor([class_index], device=x.device))
    else:
        name, bound = query.name, query.bind(run, x.clone())

    def ask(rows: Tensor) -> Tensor:
        return bound(rows.clone(), index.expand(len(rows)))

    named = {key: PERTURBATIONS[key] for key in ("blur", "fade", "noise")}
    known = {key: value for key, value in PERTURBATIONS.items() if value == settings.perturbation}
    own = known or {"the given perturbation": settings.perturbation}
    perturbations = {key: with_spacing(value, net.spacing) for key, value in (own | named).items()}
    return Case(run, x, ask, class_index, name, settings.score, perturbations, target is not None)


__all__ = ["Finding", "Findings", "Level", "examine"]
