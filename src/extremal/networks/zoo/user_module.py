"""Networks from the caller's own modules: MODULE:CALLABLE is imported and called without arguments."""

from importlib import import_module
from typing import Any

from torch import nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.network import Network
from extremal.networks.zoo.weights import Weights, first_line, nearest, refuse_weights


class NoModule(Exception):
    """There is no module of this name; the message is the part of the name that was not found."""


def load(module: str, factory: str, weights: Weights) -> Network:
    """What a callable of a module makes: a `Network`, or an `nn.Module`, which is handed pixel values / 255.

    The module is found where Python finds others, on PYTHONPATH; its code is run, as by any import.

    Args:
        module: its dotted name.
        factory: the callable's name in it, dotted where it stands in a class.
        weights: None, the callable brings them.

    Raises:
        NoModule: there is none.
        ExtremalValueError, ExtremalTypeError: it cannot be imported, has no such callable, or makes something else.
    """
    name = f"{module}:{factory}"
    refuse_weights(name, weights)
    make = _callable(_imported(module, name), factory, name)
    try:
        made: Any = make()
    except Exception as error:
        raise ExtremalValueError(
            f"a network's callable must work without arguments, {name!r} raised {type(error).__name__}: "
            f"{first_line(error)}; mend it, or wrap it in a function that gives it what it needs"
        ) from error
    if isinstance(made, Network):
        return made
    if isinstance(made, nn.Module):
        return Network(made, name=name)
    raise ExtremalTypeError(
        f"a network's callable must return an extremal.Network or a torch.nn.Module, {name!r} returned a "
        f"{type(made).__name__}"
    )


def _imported(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise NoModule(error.name) from None
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> ExtremalValueError:
    return ExtremalValueError(
        f"a network's module must be importable, that of {name!r} raised {type(error).__name__}: {first_line(error)}; "
        "mend it"
    )


def _callable(module: Any, factory: str, name: str) -> Any:
    found = module
    for part in factory.split("."):
        if not hasattr(found, part):
            near = nearest(part, [other for other in dir(found) if callable(getattr(found, other, None))])
            raise ExtremalValueError(
                f"a network's module must have the callable that is named, {name!r} has none{near}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise ExtremalTypeError(
            f"a network must be made by a callable, {name!r} is a {type(found).__name__}; name a function"
        )
    return found
