"""`examine`: check a network and an input for problems that make explanations meaningless."""

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.explanations.preflight import network_checks as checks
from extremal.explanations.preflight import objective_checks
from extremal.explanations.preflight.findings import Finding, Findings, Level
from extremal.explanations.preflight.objective_checks import CheckedObjective
from extremal.explanations.settings import Settings
from extremal.masking.perturbations import PERTURBATIONS, Perturbation, PerturbationLike, split_ways, with_spacing
from extremal.networks.inputs import ImagesLike, prepare, read_stacks, take_spacing
from extremal.networks.module_state import check_weights
from extremal.networks.network import Network
from extremal.networks.reading import Reading
from extremal.networks.resolve import as_network
from extremal.networks.run import Run
from extremal.networks.torch_state import in_standard_modes
from extremal.networks.turns import exclusive
from extremal.scores import Score
from extremal.scores.class_group import ResolvedClass, encode_classes
from extremal.scores.class_query import ClassQuery
from extremal.scores.query import Query
from extremal.scores.target import Target, parse_target, provide_inputs, settle_query

OBJECTIVE_CHECKS = (  # name of the finding, the check, and whether a problem makes the later checks pointless
    ("finite outputs", objective_checks.check_finite_outputs, True),
    ("deterministic", objective_checks.check_determinism, True),
    ("rows independent", objective_checks.check_rows, False),
    ("depends on the input", objective_checks.check_dependence, True),
    ("raw outputs", objective_checks.check_outputs, False),
    ("gradient", objective_checks.check_gradient, False),
    ("destruction lowers score", objective_checks.check_destruction, False),
    ("saturation", objective_checks.check_saturation, False),
    ("answer given", objective_checks.check_answer, False),
    ("clear class", objective_checks.check_clear_class, False),
)
CHECK_NAMES = (
    *("devices", "weights", "input range", "evaluation", "input unchanged", "evaluation mode"),
    *(name for name, _, _ in OBJECTIVE_CHECKS),
)


@in_standard_modes
def examine(
    network: Network | nn.Module | str,
    image: ImagesLike,
    target: Target = None,
    *,
    perturbation: PerturbationLike = "mixed",
    score: str | Score = "margin",
    seed: int = 0,
) -> Findings:
    """Check a network, an input and a target for problems that make explanations meaningless.

    Costs about 30 evaluations. If a problem makes later checks pointless (a network that does not depend on its input
    has no gradient either), they are skipped and named in `Findings.skipped`.

    >>> toy = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    >>> _ = nn.init.zeros_(toy[1].weight)
    >>> (finding,) = examine(toy, torch.rand(1, 3, 4, 4)).issues
    >>> print(finding.level, "-", finding.name)
    problem - depends on the input

    Args:
        network, target, perturbation, score, seed: as for `explain`.
        image: as for `explain`; one input.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule, as for `explain`.
    """
    settings = Settings(perturbation=perturbation, score=score, seed=seed)
    # a module is wrapped here: `as_network` rejects one on several devices, which is a finding here
    net = as_network(network) if isinstance(network, str) else network
    net = net if isinstance(net, Network) else Network(net)
    with exclusive(net.model, net.name):
        return _examine(net, image, target, settings)


def _examine(net: Network, image: ImagesLike, target: Target, settings: Settings) -> Findings:
    """Check a network that no other thread uses meanwhile."""
    check_weights(net.model, net.name)
    image = read_stacks(net, image)
    net = take_spacing(net, image)
    x = prepare(net, image)
    if len(x) != 1:
        raise ExtremalValueError(f"examine must get one input, got {len(x)}; pass them one at a time")
    name, reading, findings = _run_checks(net, x, target, settings)
    done = {finding.name for finding in findings}
    return Findings(
        net.name, name, tuple(findings), tuple(check for check in CHECK_NAMES if check not in done), reading
    )


def _run_checks(
    net: Network, x: Tensor, target: Target, settings: Settings
) -> tuple[str, Reading | None, list[Finding]]:
    """Return the name of the target, how input and output are understood, and the findings up to a decisive problem."""
    findings = [checks.check_devices(net)]
    if findings[-1].ok:
        findings.append(checks.check_weight_values(net))
    if not findings[-1].ok:
        return "", None, findings
    findings.append(checks.check_input_range(net, x))
    with net.frozen(settings.seed) as run:
        findings.append(checks.check_evaluation(run, x))
        if not findings[-1].ok:
            return "", None, findings
        findings.append(checks.check_input_unchanged(run))
    findings.append(checks.check_evaluation_mode(net, x, settings.seed))
    query = settle_query(parse_target(target, settings.score), net, x)
    with net.frozen(settings.seed) as run, provide_inputs(query, net), torch.no_grad():
        objective = _bind_without_checks(run, x.clone(), query, settings, target_named=target is not None)
        reading = objective.describe_reading()
        for _, check, is_required in OBJECTIVE_CHECKS:
            findings.append(check(objective))
            if is_required and findings[-1].level is Level.PROBLEM:
                break
    return objective.name, reading, findings


def _bind_without_checks(
    run: Run, x: Tensor, query: Query, settings: Settings, *, target_named: bool
) -> CheckedObjective:
    """Bind the query to one input (1, C, *S) as `build_objective` does, but without its checks."""
    net = run.network
    index = torch.zeros(1, dtype=torch.int64, device=x.device)
    class_index: ResolvedClass | None = None
    if isinstance(query, ClassQuery):
        output = run(x.clone())
        (class_index,) = query.resolve(net, output)
        name, bound = net.label(class_index), query.bind_classes(run, encode_classes((class_index,), output))
    else:
        name, bound = query.name, query.bind(run, x.clone())

    def ask(rows: Tensor) -> Tensor:
        return bound(rows.clone(), index.expand(len(rows)))

    standard = split_ways(PERTURBATIONS["mixed"])
    ways = split_ways(settings.perturbation)
    requested: dict[str, Perturbation] = {
        key if key in PERTURBATIONS or len(ways) > 1 else "the given perturbation": way for key, way in ways.items()
    }
    perturbations = {key: with_spacing(value, net.spacing) for key, value in (requested | standard).items()}
    return CheckedObjective(run, x, ask, class_index, name, settings.score, perturbations, len(requested), target_named)


__all__ = ["Finding", "Findings", "Level", "examine"]
