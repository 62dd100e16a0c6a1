"""Resolve what a user passes as a network: a `Network`, a module, or a name."""

from torch import nn

from extremal.errors import ExtremalValueError
from extremal.networks.black_box import BlackBox, is_plain_function
from extremal.networks.devices import AUTO, DeviceLike
from extremal.networks.network import Network
from extremal.networks.yolo import find_yolo


def as_network(network: Network | nn.Module | str, *, takes_pictures: bool = False) -> Network:
    """Return a `Network`: itself, a module or function wrapped as one, ultralytics' YOLO, or one loaded by its name.

    Args:
        network: as users pass it.
        takes_pictures: whether a plain function is a black box on pictures (B, H, W, 3), not one on tensors.

    Raises:
        ExtremalValueError, ExtremalTypeError: it is not on one device, cannot be loaded, or is something else.
    """
    if isinstance(network, str):
        return load_network(network)
    if takes_pictures and is_plain_function(network):
        return BlackBox(network)  # type: ignore[arg-type]  # a plain function
    net = network if isinstance(network, Network) else find_yolo(network) or Network(network)
    net.check_device()
    return net


def require_gradient(network: Network, purpose: str, remedy: str) -> None:
    """Raise if a network is a black box, which must not be asked for a gradient.

    Raises:
        ExtremalValueError: it is one.
    """
    if not network.gradient:
        raise ExtremalValueError(f"{purpose} needs a gradient, {network.name} is a black box without one; {remedy}")


def load_network(name: str, weights: str = "", device: DeviceLike = AUTO, number: int = 0) -> Network:
    """Load a network by its name, as `zoo.load` does; `weights` may be empty for the network's own."""
    from extremal.networks import zoo

    return zoo.load(name, weights or None, device, number)
