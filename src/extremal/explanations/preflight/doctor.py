"""`examine`: is anything about a network and an input such that explanations of it would be worth nothing?"""

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.explanations.preflight import network_checks as checks
from extremal.explanations.preflight import objective_checks
from extremal.explanations.preflight.findings import Finding, Findings, Level
from extremal.explanations.preflight.objective_checks import Case
from extremal.explanations.settings import Terms, terms_named
from extremal.masking.perturbations import PERTURBATIONS, Perturbation, with_spacing
from extremal.networks.inputs import Input, prepare
from extremal.networks.network import Network, Run
from extremal.networks.resolve import as_network
from extremal.scores import Score
from extremal.scores.query import per_row
from extremal.scores.target import Target, queried, resolve_targets

ASKED = (  # each with whether a problem there makes the later ones pointless
    (objective_checks.finite_outputs, True),
    (objective_checks.repeatable, True),
    (objective_checks.rows_by_themselves, False),
    (objective_checks.depends_on_the_input, True),
    (objective_checks.raw_outputs, False),
    (objective_checks.gradient, False),
    (objective_checks.destroyed, False),
    (objective_checks.saturation, False),
    (objective_checks.clear_class, False),
)
NAMES = (
    *("devices", "weights", "input range", "evaluation", "input kept", "mode"),
    *(check.__name__.replace("_", " ") for check, _ in ASKED),
)


def examine(
    network: Network | nn.Module | str,
    image: Input,
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
    terms = terms_named("preserve", perturbation, score, seed)
    # a module is wrapped here: `as_network` refuses one on several devices, which here is a finding
    net = as_network(network) if isinstance(network, str) else network
    net = net if isinstance(net, Network) else Network(net)
    x = prepare(net, image)
    if len(x) != 1:
        raise ExtremalValueError(f"an examination must be of one input, got {len(x)}; pass them one after the other")
    name, found = _examined(net, x, target, terms)
    done = {finding.name for finding in found}
    return Findings(net.name, name, tuple(found), tuple(check for check in NAMES if check not in done))


def _examined(net: Network, x: Tensor, target: Target, terms: Terms) -> tuple[str, list[Finding]]:
    """What was asked about, and the findings up to one that makes the rest pointless."""
    found = [checks.devices(net)]
    if found[-1].ok:
        found.append(checks.weights(net))
    if not found[-1].ok:
        return "", found
    found.append(checks.input_range(net, x))
    with net.frozen(terms.seed) as run:
        found.append(checks.evaluation(run, x))
        if not found[-1].ok:
            return "", found
        found.append(checks.input_kept(run, x))
    found.append(checks.mode(net, x, terms.seed))
    with net.frozen(terms.seed) as run, torch.no_grad():
        case = _posed(run, x.clone(), target, terms)
        for check, needed in ASKED:
            found.append(check(case))
            if needed and found[-1].level is Level.PROBLEM:
                break
    return case.name, found


def _posed(run: Run, x: Tensor, target: Target, terms: Terms) -> Case:
    """The question about one input (1, C, *S), as `question.pose` has it but without its refusals."""
    net, query = run.network, queried(target)
    images = torch.zeros(1, dtype=torch.int64, device=x.device)
    if query is None:
        index = resolve_targets(net, run(x.clone()), target)[0]
        name = net.label(index)

        def ask(rows: Tensor) -> Tensor:
            classes = images.new_full((len(rows),), index)
            return per_row(terms.score(run(rows.clone()), classes), len(rows), "score")
    else:
        index, name, asked = -1, query.name, query.bind(run, x.clone())

        def ask(rows: Tensor) -> Tensor:
            return asked(rows.clone(), images.expand(len(rows)))

    named = {key: PERTURBATIONS[key] for key in ("blur", "fade", "noise")}
    known = {key: one for key, one in PERTURBATIONS.items() if one == terms.perturbation}
    own = known or {"the given perturbation": terms.perturbation}
    tried = {key: with_spacing(one, net.spacing) for key, one in (own | named).items()}
    return Case(run, x, ask, index, name, terms.score, tried, target is not None)


__all__ = ["Finding", "Findings", "Level", "examine"]
