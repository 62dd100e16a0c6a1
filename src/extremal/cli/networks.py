"""Load the network of a command onto its device."""

from typing import TYPE_CHECKING

from extremal.cli.batch import other_output_on_stderr, print_line
from extremal.cli.common_options import OUTPUT
from extremal.networks.devices import AUTO, describe_device, list_devices

if TYPE_CHECKING:
    from extremal.networks.network import Network


def load(name: str, weights: str, device: str) -> "Network":
    """Load a network by its name; what its code prints, and the device that was chosen for it, go to stderr."""
    from extremal.networks.resolve import load_network

    with other_output_on_stderr():
        network = load_network(name, weights, device)
    report_choice(device, str(network.anchor.device))
    return network


def copy_to_devices(network: "Network", device: str, limit: int) -> "list[Network]":
    """Return a copy of a loaded network for each device that shares the images of a command, the network itself first.

    Args:
        network: from `load`.
        device: as passed to the command.
        limit: of the number of devices: the number of images.
    """
    from extremal.networks.replicas import find_shared_devices, replicate

    return replicate(network, find_shared_devices(network, device)[:limit])


def report_choice(device: str, chosen: str = "") -> None:
    """Print the device that was chosen, if the user left it to the program and there are several.

    Args:
        device: as passed to the command.
        chosen: the device; empty: the fastest.
    """
    present = list_devices() if device == AUTO and not OUTPUT.quiet else []
    if len(present) > 1:
        chosen = chosen or present[0]
        others = ", ".join(other for other in present if other != chosen)
        print_line("device", f"{describe_device(chosen)}; others by --device: {others}")
