"""The layers of a network: their names and shapes, and whether it can be split at them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from extremal.errors import ExtremalValueError
from extremal.networks.inputs import ImagesLike, prepare
from extremal.networks.network import Network, Run
from extremal.networks.outputs import find_tensors
from extremal.networks.resolve import as_network


@dataclass(frozen=True)
class Layer:
    """A module at which a network may be split."""

    name: str  # in `named_modules`
    kind: str  # its class
    shape: tuple[int, ...]  # of its output for one input, without the batch axis; empty if it is not one tensor
    problem: str = ""  # why the network cannot be split here; empty if it can
    bypassed: bool = False  # part of the output does not pass through it, e.g. inside a residual block

    @property
    def can_split_cleanly(self) -> bool:
        """Whether the network can be split here and its whole output passes through the layer."""
        return not (self.problem or self.bypassed)


def layers(network: Network | nn.Module | str, image: ImagesLike | None = None) -> tuple[Layer, ...]:
    """List the modules of a network in the order in which they finish, and whether it can be split there.

    >>> import torch
    >>> toy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> for layer in layers(toy, torch.zeros(1, 3, 8, 8)):
    ...     print(layer.name, layer.kind, layer.shape, layer.can_split_cleanly)
    0 Conv2d (4, 6, 6) True
    1 ReLU (4, 6, 6) True
    2 Flatten (144,) True
    3 Linear (2,) True

    Args:
        network: as in `explain`.
        image: as in `explain`; None: a grey image of 256 × 256 px with noise.
    """
    net = as_network(network)
    x = net.example_input() if image is None else prepare(net, image)[:1]
    with net.frozen() as run:
        return tuple(trace_layers(run, x))


def trace_layers(run: Run, x: Tensor) -> list[Layer]:
    """List the modules of a frozen network in the order in which they finish for inputs x; costs one evaluation."""
    model = run.network.model
    names = {module: name for name, module in model.named_modules()}
    outputs: dict[nn.Module, list[object]] = {}
    nodes: dict[nn.Module, object] = {}

    def record(module: nn.Module, output: object) -> None:
        outputs.setdefault(module, []).append(output)
        nodes[module] = getattr(output, "grad_fn", None)  # now, since later code may change the output in place

    leaf = x.detach().clone().requires_grad_()
    with hooked(model, lambda _: None, record):
        output = run.evaluate(leaf)
    layers = []
    for module, results in outputs.items():
        problem = split_problem(results, x)
        shape = tuple(results[0].shape[1:]) if isinstance(results[0], Tensor) else ()
        if not problem and nodes[module] is None:
            problem = "no gradient passes through it"
        elif not problem and not depends_on(output, nodes[module]):
            problem = "the output does not depend on it with a gradient"
        bypassed = not problem and depends_on(output, get_gradient_edge(leaf).node, nodes[module])
        layers.append(Layer(names[module], type(module).__name__, shape, problem, bypassed))
    return layers


def get_module(net: Network, name: str) -> nn.Module:
    """Return the module with this name.

    Raises:
        ExtremalValueError: it does not exist; similar names are suggested.
    """
    modules: dict[str, nn.Module] = {path: module for path, module in net.model.named_modules() if path}
    if name in modules:
        return modules[name]
    suggestions = get_close_matches(name, modules, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(suggestions)}? " if suggestions else ""
    raise ExtremalValueError(
        f"a layer must be the name of a module in {net.name}, got {name!r}; {hint}extremal.layers(network) lists them"
    )


@contextmanager
def hooked(
    model: nn.Module,
    on_enter: Callable[[nn.Module], None],
    on_exit: Callable[[nn.Module, Any], Any],
) -> Iterator[None]:
    """Call back before and after every call of a module in the model; `on_exit` may replace the output."""
    with ExitStack() as hooks:
        for module in model.modules():
            if module is not model:
                before = module.register_forward_pre_hook(lambda module, _: on_enter(module))
                hooks.callback(before.remove)
                after = module.register_forward_hook(lambda module, _, output: on_exit(module, output))
                hooks.callback(after.remove)
        yield


def depends_on(output: object, node: object, without: object = None) -> bool:
    """Return whether the gradient graph of an output reaches a node, without passing through another."""
    visited: set[object] = {without}
    pending: list[Any] = [tensor.grad_fn for tensor in find_tensors(output)]
    while pending:
        current = pending.pop()
        if current is None or current in visited:
            continue
        if current is node:
            return True
        visited.add(current)
        pending += [successor for successor, _ in current.next_functions]
    return False


def split_problem(outputs: Sequence[object], x: Tensor) -> str:
    """Return why the network cannot be split at a module with these outputs for x; empty if it can."""
    if len(outputs) != 1:
        return f"it is called {len(outputs)} times in a pass"
    (output,) = outputs
    if not isinstance(output, Tensor):
        return f"its output is a {type(output).__name__}"
    if not output.is_floating_point() or output.ndim < 2 or len(output) != len(x):
        return f"its output is {output.dtype} of shape {tuple(output.shape)}, not a floating (B, K, ...)"
    return ""
