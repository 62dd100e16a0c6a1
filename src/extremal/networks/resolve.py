"""A network from what a user passes: a `Network`, a module, or a name."""

from typing import TYPE_CHECKING

from torch import nn

from extremal.networks.network import Network

if TYPE_CHECKING:
    from extremal.networks.network import Network


def as_network(network: Network | nn.Module | str) -> Network:
    """A `Network`, a module wrapped as one, or a zoo name loaded."""
    if isinstance(network, str):
        from extremal.networks import zoo

        return zoo.load(network)
    net = network if isinstance(network, Network) else Network(network)
    net.check_device()
    return net


def load_network(name: str, weights: str) -> "Network":
    """The network of these two options."""
    from extremal.networks import zoo

    return zoo.load(name, weights or None)
