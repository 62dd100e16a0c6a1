"""Networks from the user's own modules: MODULE:CALLABLE is imported and called without arguments."""

from importlib import import_module
from typing import Any

from torch import nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.names import check_no_weights
from extremal.networks.network import Network
from extremal.networks.suggestions import suggest
from extremal.networks.zoo.weights import Weights, first_line


class ModuleNotFound(Exception):
    """Raised if a module does not exist; the message is the part of its name that was not found."""


def load(module: str, factory: str, weights: Weights) -> Network:
    """Load the `Network` or `nn.Module` that a callable of a module returns; a module gets pixel values / 255.

    The module is searched on PYTHONPATH, as in any import; its code is run.

    Args:
        module: its dotted name.
        factory: the name of the callable in it, dotted if it is part of a class.
        weights: None, the callable provides them.

    Raises:
        NoModule: there is none.
        ExtremalValueError, ExtremalTypeError: it cannot be imported, has no such callable, or the callable returns
            something else.
    """
    name = f"{module}:{factory}"
    check_no_weights(name, weights)
    make = _find_callable(_import_module(module, name), factory, name)
    try:
        network: Any = make()
    except (Exception, SystemExit) as error:
        raise ExtremalValueError(
            f"a network's callable must work without arguments, {name!r} raised {type(error).__name__}: "
            f"{first_line(error)}; correct it, or wrap it in a function that passes its arguments"
        ) from error
    if isinstance(network, Network):
        return network
    if isinstance(network, nn.Module):
        return Network(network, name=name)
    raise ExtremalTypeError(
        f"a network's callable must return an extremal.Network or a torch.nn.Module, {name!r} returned a "
        f"{type(network).__name__}"
    )


def _import_module(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ModuleNotFound(error.name) from None
        raise _import_error(name, error) from error
    except (Exception, SystemExit) as error:
        raise _import_error(name, error) from error


def _import_error(name: str, error: BaseException) -> ExtremalValueError:
    return ExtremalValueError(
        f"a network's module must be importable, that of {name!r} raised {type(error).__name__}: {first_line(error)}; "
        "correct it"
    )


def _find_callable(module: Any, factory: str, name: str) -> Any:
    value = module
    for part in factory.split("."):
        if not hasattr(value, part):
            suggestion = suggest(part, [name for name in dir(value) if callable(getattr(value, name, None))])
            raise ExtremalValueError(
                f"a network's module must contain the named callable, {name!r} does not exist{suggestion}"
            )
        value = getattr(value, part)
    if not callable(value):
        raise ExtremalTypeError(
            f"a network must come from a callable, {name!r} is a {type(value).__name__}; name a function"
        )
    return value
