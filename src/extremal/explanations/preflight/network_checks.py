"""Checks of a network and an input, whatever is asked."""

import torch
from torch import Tensor, nn

from extremal.explanations.preflight.findings import Finding, Level, one_line
from extremal.networks.network import Network, Run

ROUNDING = 1e-3  # of the largest output, by which rounding may change it in a larger batch or a second time
MAX_NORMALISED = 10.0  # beyond which a value is hardly normalised
RANGE_SLACK = 0.1  # of the range of normalised pictures, by which an input may leave it
MAX_LISTED = 3  # weights or modules that are named in a sentence


def devices(net: Network) -> Finding:
    """All weights lie on one device, and are there."""
    name, model = "devices", net.model
    tensors = [*model.named_parameters(), *model.named_buffers()]
    empty = [key for key, tensor in tensors if tensor.device.type == "meta"]
    found = net.devices()
    if empty:
        told = f"{len(empty)} of {len(tensors)} weights have no values (device meta), the first is {empty[0]!r}"
        return Finding(name, Level.PROBLEM, told, "load the weights")
    if len(found) > 1:
        return Finding(name, Level.PROBLEM, f"the weights lie on {', '.join(found)}", f"move it: .to({found[-1]!r})")
    return Finding(name, Level.OK, f"all weights lie on {found[0]}" if found else "there are no weights")


def weights(net: Network) -> Finding:
    """All weights are finite (`Network.count_nonfinite_weights`)."""
    broken = net.count_nonfinite_weights()
    if not broken:
        return Finding("weights", Level.OK, f"all weights are finite, in {len([*net.model.parameters()])} tensors")
    told = ", ".join(f"{count} of {key!r}" for key, count in [*broken.items()][:MAX_LISTED])
    more = f" and those of {len(broken) - MAX_LISTED} more" if len(broken) > MAX_LISTED else ""
    return Finding("weights", Level.PROBLEM, f"NaN or infinite are {told}{more}", "load the weights again")


def input_range(net: Network, x: Tensor) -> Finding:
    """The input has the range that the network's normalisation suggests."""
    low, high = float(x.min()), float(x.max())
    told = f"values lie from {low:.4g} to {high:.4g}"
    if low >= 0 and high > MAX_NORMALISED:
        remedy = "divide by 255 and normalise as in training"
        return Finding("input range", Level.WARNING, f"{told}, as those of a picture that is not scaled", remedy)
    if max(-low, high) > MAX_NORMALISED:
        return Finding("input range", Level.WARNING, f"{told}, far from 0", "normalise as in training")
    if not (net.mean and net.std) or len(net.mean) != x.shape[1]:
        return Finding("input range", Level.OK, told)
    ends = [(edge - mean) / std for edge in (0, 1) for mean, std in zip(net.mean, net.std, strict=True)]
    least, most = min(ends), max(ends)
    wanted = f"normalised pictures from {least:.4g} to {most:.4g}"
    spare = RANGE_SLACK * (most - least)
    if low < least - spare or high > most + spare:
        return Finding("input range", Level.WARNING, f"{told}, {wanted}", "normalise once, as in training")
    if least < -0.5 and low >= 0 and high <= 1 and high - low > 0.3:
        return Finding("input range", Level.WARNING, f"{told}, {wanted}", "normalise as in training")
    return Finding("input range", Level.OK, f"{told}, {wanted}")


def evaluation(run: Run, x: Tensor) -> Finding:
    """The network takes the input at all."""
    shape = " × ".join(map(str, x.shape[1:]))
    try:
        with torch.no_grad():
            output = run.evaluate(x.clone())
    except Exception as error:  # whatever a network of the caller's raises
        remedy = "hand in an input of the shape and type that the network takes"
        return Finding("evaluation", Level.PROBLEM, f"an input of {shape} fails: {one_line(error)}", remedy)
    kind = " × ".join(map(str, output.shape[1:])) if isinstance(output, Tensor) else f"a {type(output).__name__}"
    return Finding("evaluation", Level.OK, f"an input of {shape} gives {kind or 'a number'}")


def input_unchanged(run: Run, x: Tensor) -> Finding:
    """The network leaves the tensor that it is given as it is; many inputs of `explain` are copies, so it may do."""
    changed = []
    with torch.no_grad():
        for evaluate in (run.network.model, run.evaluate):
            given = x.clone()
            evaluate(given)
            changed.append(int((given != x).sum()))
    most = max(changed)
    if not most:
        return Finding("input kept", Level.OK, "the network leaves its input as it is")
    level = Level.PROBLEM if changed[1] else Level.WARNING
    told = f"the network changes {most} of {x.numel()} values of the tensor it is given"
    told += "" if changed[1] else ", which explain copies before"
    return Finding("input kept", level, told, "start its forward with x = x.clone(), or take out inplace=True")


def evaluation_mode(net: Network, x: Tensor, seed: int) -> Finding:
    """As the caller hands it in, the network answers as in evaluation mode, in which `explain` asks it."""
    modules = dict(net.model.named_modules())
    left = [name for name, module in modules.items() if module.training]
    if not left:
        return Finding("mode", Level.OK, "all modules are in evaluation mode")
    remedy = "call eval() on it before calls of your own, or they differ from what is explained"
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    names = [f"{name} ({type(modules[name]).__name__})" for name in left if isinstance(modules[name], kinds)]
    told = f"{len(left)} of {len(modules)} modules are in training mode"
    told += f", among them {', '.join(names[:MAX_LISTED])}" if names else ""
    with net.frozen(seed) as run, torch.no_grad():
        before = run.evaluate(x.clone())
    with net.frozen(seed) as run, torch.no_grad():  # anew: the buffers that training mode changes are put back
        for name in left:
            modules[name].training = True
        try:
            after = run.evaluate(x.clone())
        except Exception as error:  # e.g. a batch norm that cannot do with one row
            return Finding("mode", Level.WARNING, f"{told}, in which it fails: {one_line(error)}", remedy)
    if not (isinstance(before, Tensor) and isinstance(after, Tensor)):
        return Finding("mode", Level.WARNING, told, remedy)
    gap = float((after - before).nan_to_num().abs().max())
    if gap <= ROUNDING * float(before.nan_to_num().abs().max()):
        return Finding("mode", Level.OK, f"{told}, which changes nothing")
    return Finding("mode", Level.WARNING, f"{told}; outputs differ by {gap:.3g} from evaluation mode", remedy)
