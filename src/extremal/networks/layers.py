"""The layers of a network: their names and shapes, and whether it can be split at them."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.acceleration.observe import accepts_hooks
from extremal.networks.compiled import strip_compiled
from extremal.networks.inputs import ImagesLike, prepare
from extremal.networks.network import Network
from extremal.networks.outputs import find_tensors
from extremal.networks.resolve import as_network
from extremal.networks.run import Run
from extremal.networks.torch_state import in_standard_modes
from extremal.networks.turns import exclusive

_NOT_SAVED = "saved tensor hooks"  # in the messages of torch.func, too


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


@in_standard_modes
def layers(network: Network | nn.Module | str, image: ImagesLike | None = None) -> tuple[Layer, ...]:
    """List the modules of a network in the order in which they finish, and whether it can be split at each.

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
    trace = LayerTrace(run, x)
    return [trace.check(module) for module in trace.modules]


class LayerTrace:
    """One evaluation of a frozen network, from which the modules that were called are checked.

    Only shapes, types and the structure of the gradient graph are kept, no activations.

    Args:
        run: the frozen network.
        x: (B, C, *S) inputs; the evaluation is counted.
    """

    def __init__(self, run: Run, x: Tensor) -> None:
        self._names: dict[nn.Module, str] = {module: name for name, module in run.network.model.named_modules()}
        self._outputs: dict[nn.Module, list[object]] = {}
        self._nodes: dict[nn.Module, object] = {}
        self._x, self._leaf = x, x.detach().clone().requires_grad_()

        def record(module: nn.Module, output: object) -> None:
            self._outputs.setdefault(module, []).append(_without_values(output))
            self._nodes[module] = getattr(output, "grad_fn", None)  # now: later code may change the output in place

        def evaluate() -> object:
            self._outputs.clear()
            self._nodes.clear()
            with hooked(run.network.model, lambda _: None, record):
                return run.evaluate(self._leaf)

        self._output = run.repeat_if_layout_changed(lambda: _evaluate_without_saving(evaluate))

    @property
    def modules(self) -> list[nn.Module]:
        """The modules that were called, in the order in which they finished."""
        return list(self._outputs)

    def name(self, module: nn.Module) -> str:
        """Return the name of a module in the network."""
        return self._names[module]

    def shape(self, module: nn.Module) -> tuple[int, ...]:
        """Return the shape of a module's first output for one input; empty if it is not one tensor."""
        first = self._outputs[module][0]
        return tuple(first.shape[1:]) if isinstance(first, Tensor) else ()

    def check(self, module: nn.Module) -> Layer:
        """Return a module as a layer, with whether the network can be split there."""
        node, problem = self._nodes[module], split_problem(self._outputs[module], self._x)
        if not problem and node is None:
            problem = "no gradient passes through it"
        elif not problem and not depends_on(self._output, node):
            problem = "the output does not depend on it with a gradient"
        bypassed = not problem and depends_on(self._output, get_gradient_edge(self._leaf).node, node)
        return Layer(self.name(module), type(module).__name__, self.shape(module), problem, bypassed)


def _without_values(output: object) -> object:
    """Return a tensor on the meta device, of the same shape and dtype; anything else as it is."""
    if type(output) is not Tensor or output.layout != torch.strided or output.is_quantized:
        return output
    return torch.empty(output.shape, dtype=output.dtype, device="meta")


def _evaluate_without_saving(evaluate: Callable[[], object]) -> object:
    """Return an output whose gradient graph holds no tensors.

    A network that computes gradients itself, or uses `torch.func`, is evaluated again with a graph that holds them.
    """
    try:
        with saved_tensors_hooks(lambda _: None, _refuse_backward):
            return evaluate()
    except (RuntimeError, ExtremalValueError) as error:  # as it is, or as an error of the network
        if _NOT_SAVED not in str(error):
            raise
    return evaluate()


def _refuse_backward(_: object) -> Tensor:
    raise RuntimeError(f"no gradient can be computed under {_NOT_SAVED}")


def square_lattice(tokens: int) -> tuple[int, int] | None:
    """Return rows and columns of a square of tokens after up to five others (class, register tokens).

    >>> square_lattice(197), square_lattice(49), square_lattice(12)
    ((14, 14), (7, 7), None)
    """
    side = math.isqrt(tokens)
    return (side, side) if side > 0 and tokens - side * side <= min(5, side) and side > 3 else None


def get_module(net: Network, name: str) -> nn.Module:
    """Return the module with this name.

    Raises:
        ExtremalValueError, ExtremalTypeError: it does not exist, and similar names are suggested; it is no name; or it
            is scripted.
    """
    with exclusive(net.model, net.name):
        parts: list[tuple[str, nn.Module]] = [*net.model.named_modules()]
    modules = {strip_compiled(path): part for path, part in parts if path}
    is_name = isinstance(name, str)
    if is_name and strip_compiled(name) in modules:
        module = modules[strip_compiled(name)]
        if not accepts_hooks(module):
            raise ExtremalValueError(
                f"a layer must be a module whose output can be read, {name!r} of {net.name} is scripted; explain the "
                "network as it was before torch.jit.script"
            )
        return module
    suggestions = get_close_matches(str(name), modules, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(suggestions if is_name else map(repr, suggestions))}? " if suggestions else ""
    error = ExtremalValueError if is_name else ExtremalTypeError
    raise error(
        f"a layer must be the name of a module in {net.name}, got {name!r}; {hint}extremal.layers(network) or "
        "`extremal layers` lists them"
    )


def has_quantised_layers(model: nn.Module) -> bool:
    """Return whether a network has layers with integer weights, through which torch passes no gradient."""
    return any(".quantized." in f"{type(module).__module__}." for module in model.modules())


@contextmanager
def hooked(
    model: nn.Module,
    on_enter: Callable[[nn.Module], None],
    on_exit: Callable[[nn.Module, Any], Any],
) -> Iterator[None]:
    """Call back before and after every call of a module in the model; `on_exit` may replace the output."""
    with ExitStack() as hooks:
        for module in model.modules():
            if module is not model and accepts_hooks(module):
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
