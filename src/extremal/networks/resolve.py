"""Resolve what a user passes as a network: a `Network`, a module, or a name."""

from torch import nn

from extremal.networks.devices import AUTO, DeviceLike
from extremal.networks.network import Network


def as_network(network: Network | nn.Module | str) -> Network:
    """Return a `Network`: itself, a module or function wrapped as one, or one loaded by its name.

    Raises:
        ExtremalValueError, ExtremalTypeError: it is not on one device, cannot be loaded, or is something else.
    """
    if isinstance(network, str):
        return load_network(network)
    net = network if isinstance(network, Network) else Network(network)
    net.check_device()
    return net


def load_network(name: str, weights: str = "", device: DeviceLike = AUTO, number: int = 0) -> Network:
    """Load a network by its name, as `zoo.load` does; `weights` may be empty for the network's own."""
    from extremal.networks import zoo

    return zoo.load(name, weights or None, device, number)
