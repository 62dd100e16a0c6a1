"""Prepare what a user passes: network, inputs and query, checked against the settings."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from extremal.explanations.settings import Settings, validate_domain
from extremal.networks.inputs import ImagesLike, prepare
from extremal.networks.network import Network
from extremal.networks.resolve import as_network
from extremal.scores.query import Query
from extremal.scores.target import Target, expand_inputs, is_mirror_invariant, parse_target


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """A network, its inputs, and what is asked about them."""

    net: Network
    x: Tensor  # (N, C, *S)
    query: Query
    mirror: bool  # the mirrored inputs ask the same question
    provenance: dict[str, Any]  # the settings that the result stores


def prepare_run(
    network: Network | nn.Module | str, images: ImagesLike, target: Target, settings: Settings
) -> PreparedRun:
    """Prepare network, images and target as `explain` takes them.

    Raises:
        ExtremalValueError, ExtremalTypeError: they break a rule, or masks of the settings do not fit the inputs.
    """
    net = as_network(network)
    query = parse_target(target, settings.score)
    x = expand_inputs(prepare(net, images), query)
    validate_domain(settings, net, tuple(x.shape[2:]))
    mirror = is_mirror_invariant(net, x, query)
    return PreparedRun(net, x, query, mirror, {**settings.provenance(net), "mirror": mirror})
