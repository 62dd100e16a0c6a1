"""Checks of a network and an input, independent of the target."""

import torch
from torch import Tensor, nn

from extremal.explanations.preflight.findings import Finding, Level, one_line
from extremal.networks.network import Network
from extremal.networks.run import Run

ROUNDING = 1e-3  # of the largest output, by which rounding may change it in a larger batch or a second time
MAX_NORMALISED_VALUE = 10.0  # magnitude beyond which values are unlikely to be normalised
RANGE_SLACK = 0.1  # of the range of normalised images, by which an input may leave it
MAX_LISTED_NAMES = 3  # weights or modules named in a sentence


def max_difference(output: Tensor, expected: Tensor) -> float:
    """Return the largest difference of two outputs; infinite values that are equal do not differ.

    >>> max_difference(torch.tensor([1.0, -torch.inf]), torch.tensor([3.0, -torch.inf]))
    2.0
    """
    return float(torch.where(output == expected, 0.0, output - expected).nan_to_num(0.0).abs().max())


def max_magnitude(output: Tensor) -> float:
    """Return the largest magnitude of an output's finite values.

    >>> max_magnitude(torch.tensor([1.0, -torch.inf]))
    1.0
    """
    return float(output.nan_to_num(0.0, 0.0, 0.0).abs().max())


def check_devices(net: Network) -> Finding:
    """Check that all weights have values and are on one device."""
    name, model = "devices", net.model
    tensors = [*model.named_parameters(), *model.named_buffers()]
    empty = [key for key, tensor in tensors if tensor.device.type == "meta"]
    names = net.devices()
    if empty:
        measured = f"{len(empty)} of {len(tensors)} weights have no values (device meta), the first is {empty[0]!r}"
        return Finding(name, Level.PROBLEM, measured, "load the weights")
    if len(names) > 1:
        return Finding(name, Level.PROBLEM, f"the weights are on {', '.join(names)}", f"move it: .to({names[-1]!r})")
    return Finding(name, Level.OK, f"all weights are on {names[0]}" if names else "there are no weights")


def check_weight_values(net: Network) -> Finding:
    """Check that all weights are finite (`Network.count_nonfinite_weights`)."""
    broken = net.count_nonfinite_weights()
    if not broken:
        return Finding("weights", Level.OK, f"all weights are finite, in {len([*net.model.parameters()])} tensors")
    listed = ", ".join(f"{count} of {key!r}" for key, count in [*broken.items()][:MAX_LISTED_NAMES])
    more = f" and some in {len(broken) - MAX_LISTED_NAMES} more tensors" if len(broken) > MAX_LISTED_NAMES else ""
    return Finding("weights", Level.PROBLEM, f"NaN or infinite weights: {listed}{more}", "load the weights again")


def check_input_range(net: Network, x: Tensor) -> Finding:
    """Check that the input has the range that the network's normalisation suggests."""
    low, high = float(x.min()), float(x.max())
    measured = f"values lie from {low:.4g} to {high:.4g}"
    if low >= 0 and high > MAX_NORMALISED_VALUE:
        remedy = "divide by 255 and normalise as in training"
        return Finding("input range", Level.WARNING, f"{measured}, like those of an image that is not scaled", remedy)
    if max(-low, high) > MAX_NORMALISED_VALUE:
        return Finding("input range", Level.WARNING, f"{measured}, far from 0", "normalise as in training")
    if not net.mean:
        return Finding("input range", Level.OK, measured)
    limits = [(limit - mean) / std for limit in (0, 1) for mean, std in zip(net.mean, net.std, strict=True)]
    lower, upper = min(limits), max(limits)
    measured = f"{measured}, normalised images from {lower:.4g} to {upper:.4g}"
    slack = RANGE_SLACK * (upper - lower)
    if low < lower - slack or high > upper + slack:
        return Finding("input range", Level.WARNING, measured, "normalise once, as in training")
    if lower < -0.5 and low >= 0 and high <= 1 and high - low > 0.3:
        return Finding("input range", Level.WARNING, measured, "normalise as in training")
    return Finding("input range", Level.OK, measured)


def check_evaluation(run: Run, x: Tensor) -> Finding:
    """Check that the network accepts the input at all."""
    shape = " × ".join(map(str, x.shape[1:]))
    try:
        with torch.no_grad():
            output = run.evaluate(x.clone())
    except Exception as error:  # the caller's network may raise anything
        remedy = "pass an input of the shape and type that the network accepts"
        return Finding("evaluation", Level.PROBLEM, f"an input of {shape} fails: {one_line(error)}", remedy)
    kind = " × ".join(map(str, output.shape[1:])) if isinstance(output, Tensor) else f"a {type(output).__name__}"
    return Finding("evaluation", Level.OK, f"an input of {shape} gives {kind or 'a number'}")


def check_input_unchanged(run: Run) -> Finding:
    """Check that no call of a run has modified its input, which it then copies for each call."""
    if not run.changes_input:
        return Finding("input unchanged", Level.OK, "the network does not modify its input")
    measured = "the network changes its input in place, so that explain copies it for each call"
    remedy = "start its forward with x = x.clone(), or remove inplace=True"
    return Finding("input unchanged", Level.WARNING, measured, remedy)


def check_evaluation_mode(net: Network, x: Tensor, seed: int) -> Finding:
    """Check that the current mode gives the same outputs as evaluation mode, which `explain` uses."""
    name, modules = "evaluation mode", dict(net.model.named_modules())
    training = [key for key, module in modules.items() if module.training]
    if not training:
        return Finding(name, Level.OK, "all modules are in evaluation mode")
    remedy = "call eval() on it before your own calls, or they differ from what is explained"
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    affected = [f"{key} ({type(modules[key]).__name__})" for key in training if isinstance(modules[key], kinds)]
    measured = f"{len(training)} of {len(modules)} modules are in training mode"
    measured += f", among them {', '.join(affected[:MAX_LISTED_NAMES])}" if affected else ""
    with net.frozen(seed) as run, torch.no_grad():
        expected = run.evaluate(x.clone())
    with net.frozen(seed) as run, torch.no_grad():  # frozen again: buffers that training mode changes are restored
        for key in training:
            modules[key].training = True
        try:
            output = run.evaluate(x.clone())
        except Exception as error:  # e.g. a batch norm that needs more than one row
            return Finding(name, Level.WARNING, f"{measured}, in which it fails: {one_line(error)}", remedy)
    if not (isinstance(expected, Tensor) and isinstance(output, Tensor)):
        return Finding(name, Level.WARNING, measured, remedy)
    difference = max_difference(output, expected)
    if difference <= ROUNDING * max_magnitude(expected):
        return Finding(name, Level.OK, f"{measured}, which changes nothing")
    return Finding(name, Level.WARNING, f"{measured}; outputs differ by {difference:.3g} from evaluation mode", remedy)
