"""The command `extremal doctor`."""

import json
from typing import Annotated

import typer

from extremal.cli import options, tables
from extremal.cli.argument_checks import check_names
from extremal.cli.batch import other_output_on_stderr, report_errors
from extremal.cli.input_checks import check_images
from extremal.cli.networks import load
from extremal.cli.parse import parse_perturbation
from extremal.cli.question_checks import check_question, check_shapes
from extremal.networks.devices import check_device_name
from extremal.networks.names import check_network_name

EXIT_PROBLEM = 1  # explanations would be meaningless


def doctor(
    network: Annotated[str, typer.Argument(help="Network name; `extremal networks` lists them.", show_default=False)],
    image: Annotated[str, typer.Argument(help="Image file.", show_default=False)],
    *,
    target: options.Target = "",
    ask: options.Ask = "",
    prompt: options.Prompt = "",
    perturbation: options.Perturbation = "mixed",
    score: options.Score = options.DEFAULT_SCORE,
    weights: options.Weights = "",
    device: options.Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Check a network and an image for problems that make explanations meaningless; exit with 1 if there are any."""
    with report_errors(), other_output_on_stderr():
        check_device_name(device)
        check_names(perturbation=perturbation, score=score)
        check_network_name(network, weights)
        check_question(target, ask, prompt, network, score)
        check_images([image])
        check_shapes([image], network)

        from extremal.explanations.preflight.doctor import examine
        from extremal.scores.parse import parse_query

        net = load(network, weights, device)
        query = parse_query(net, target, ask, prompt)
        findings = examine(net, image, query, perturbation=parse_perturbation(perturbation), score=score)
    if as_json:
        typer.echo(json.dumps({"path": image, **findings.as_dict()}, indent=2))
    else:
        tables.print_findings(image, findings)
    if not findings.ok:
        raise typer.Exit(EXIT_PROBLEM)
