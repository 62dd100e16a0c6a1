"""Split a network at a named module: the part before it runs once, the part after it runs for each mask.

The user's code of any form runs unmodified: while a split evaluates, the modules that finished before the layer
return their cached outputs, and the layer returns the given activations.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils._pytree import tree_map

from extremal.errors import ExtremalValueError
from extremal.networks.calls import StopEvaluation
from extremal.networks.counting import EvaluationCounter
from extremal.networks.forwards import Forwards, patched_forwards
from extremal.networks.layers import Layer, depends_on, get_module, hooked, split_problem
from extremal.networks.memory import is_out_of_memory
from extremal.networks.network import Network
from extremal.networks.outputs import HALF_PRECISIONS, find_tensors, read_logits, to_channels_last
from extremal.networks.run import Evaluator, Run

SPLIT_TOLERANCE = 1e-4  # of the largest output: allowed difference between the split and the whole network

Call = tuple[nn.Module, object]  # a module and its output


class _LayerReachedError(StopEvaluation):
    """Ends an evaluation at a layer."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output


def compute_activations(run: Evaluator, module: nn.Module, x: Tensor, input_index: Tensor | None = None) -> Tensor:
    """Compute the output of a module for inputs x (B, C, *S); the layers after it are not evaluated.

    After a split, x are activations (B, K, ...), and `input_index` (B,) is the index of the input of each.

    Raises:
        ExtremalValueError: the module is not called, or its output is not one floating-point tensor (B, K, ...).
    """

    def stop(_: nn.Module, __: object, output: object) -> None:
        raise _LayerReachedError(output)

    handle = module.register_forward_hook(stop)
    outputs = []
    if input_index is None:
        input_index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    try:
        run.evaluate(x, input_index)
    except _LayerReachedError as end:
        outputs.append(end.output)
    finally:
        handle.remove()
    problem = split_problem(outputs, x)
    if problem:
        raise ExtremalValueError(
            f"a layer must give one tensor (B, K, ...), this one does not: {problem}; extremal.layers(network) "
            "or `extremal layers` lists those that do"
        )
    return find_tensors(outputs[0])[0]


@dataclass(eq=False)
class Split(EvaluationCounter):
    """A frozen network from one layer on, which counts its evaluations: activations (B, K, ...) -> output.

    Built by `split`, and usable until the network is no longer frozen.
    """

    run: Run
    layer: Layer
    module: nn.Module
    activations: Tensor  # (N, K, ...) of the inputs at the layer
    x: Tensor  # (N, C, *S)
    cached_calls: list[Call]  # calls that finished before the layer was called
    needs_batch: bool = False  # the output needs more than the layer's output, in a batch of the same size
    layer_dtype: torch.dtype = torch.float32  # that the code after the layer takes

    @property
    def network(self) -> Network:
        """The whole network."""
        return self.run.network

    @property
    def undo(self) -> ExitStack:
        """Callbacks that run when the network is no longer frozen."""
        return self.run.undo

    def __call__(self, activations: Tensor, input_index: Tensor) -> Tensor:
        """Return the scores (B, classes) of activations (B, K, ...); `input_index` (B,) selects the input of each."""
        net = self.run.network
        return read_logits(self.evaluate(activations, input_index), net.name, net.labels, len(activations))

    def evaluate(self, activations: Tensor, input_index: Tensor) -> object:
        """Return the network's own output, counted."""
        self.count_evaluations(len(activations), with_gradient=activations.requires_grad)
        return self._forward(activations, input_index)

    def max_batch_size(self) -> int:
        """Return how many rows fit into the network's memory at once; costs one evaluation."""
        index = torch.zeros(1, dtype=torch.int64, device=self.x.device)
        first = self.activations[:1].detach().clone().requires_grad_()
        return self.run.fit_batch_size(lambda: self.evaluate(first * 1.0, index), self.x.device)

    def _forward(self, activations: Tensor, input_index: Tensor) -> object:
        """Return the network's own output, uncounted."""
        if self.activations.ndim == 4 and self.activations.is_contiguous(memory_format=torch.channels_last):
            activations = to_channels_last(activations)
        # A hook keeps torch from computing a transformer layer around the module in one call that passes it by.
        hook = self.module.register_forward_hook(lambda *_: None)
        try:
            with patched_forwards(self._replay_forwards(activations, input_index)):
                return self.run._forward(self._select_rows(self.x, input_index), by_row=False)
        finally:
            hook.remove()

    def _select_rows(self, value: Any, input_index: Tensor) -> Any:
        """Return a cached output with one row for each of the activations, if the batch size matters."""
        if not self.needs_batch:
            return value

        def select(leaf: Any) -> Any:
            is_batch = isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == len(self.x)
            return leaf.index_select(0, input_index) if is_batch else leaf

        return tree_map(select, value)

    def _replay_forwards(self, activations: Tensor, input_index: Tensor) -> Forwards:
        """Return forwards that replay cached outputs before the layer, and return the activations at the layer."""
        cached: dict[nn.Module, list[object]] = {}
        for module, output in self.cached_calls:
            cached.setdefault(module, []).append(output)
        calls: Counter[nn.Module] = Counter()

        def replay(module: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
            def forward(*args: Any, **options: Any) -> Any:
                calls[module] += 1
                if calls[module] <= len(cached[module]):
                    return self._select_rows(cached[module][calls[module] - 1], input_index)
                return original(*args, **options)

            return forward

        forwards: Forwards = {module: replay(module, module.forward) for module in cached}
        # A copy, since code after the layer may change it in place, as `out += identity` and ReLU(inplace=True) do.
        forwards[self.module] = lambda *_, **__: activations.to(self.layer_dtype, copy=True)
        return forwards


@dataclass(frozen=True)
class _Record:
    """A recorded evaluation, from which a split is built."""

    output: object  # of the network
    layer_outputs: list[object]  # of the layer at each of its calls
    layer_nodes: list[object]  # of these in the gradient graph
    calls: list[Call]  # that finished before the layer's first call, none of them inside another


def _record(run: Run, module: nn.Module, leaf: Tensor) -> _Record:
    """Evaluate the network, and record the calls before a layer and the outputs of the layer."""
    frames: list[list[Call]] = [[]]  # for each call in progress, the finished calls inside it
    outputs, calls, nodes = list[object](), list[Call](), list[object]()

    def enter(called: nn.Module) -> None:
        if called is module and not outputs:
            calls.extend(call for frame in frames for call in frame)
        frames.append([])

    def leave(called: nn.Module, output: Any) -> Any:
        frames.pop()
        if called is module:
            outputs.append(_detach(output))
            nodes.append(getattr(output, "grad_fn", None))
        elif not outputs:  # calls after the layer are not cached
            frames[-1].append((called, _detach(output)))

    with torch.enable_grad(), hooked(run.network.model, enter, leave):
        return _Record(run.evaluate(leaf), outputs, nodes, calls)


def split(run: Run, name: str, x: Tensor) -> Split:
    """Split a frozen network at a layer for inputs x (N, C, *S), and check that its output stays the same.

    Costs N evaluations of the whole network, and two or four of the part after the layer for each input.

    Raises:
        ExtremalValueError: the layer does not exist, is not called exactly once or does not give one floating-point
            tensor, the output does not depend on it, or the split network gives another output.
    """
    net = run.network
    module = get_module(net, name)
    leaf = x.detach().clone().requires_grad_()
    record = run.repeat_if_layout_changed(lambda: _record(run, module, leaf))
    problem = split_problem(record.layer_outputs, x)
    if not problem and not (record.layer_nodes[0] is not None and depends_on(record.output, record.layer_nodes[0])):
        problem = "the output does not depend on it with a gradient"
    if problem:
        raise ExtremalValueError(
            "a network is split at a module that is called once and gives one tensor (B, K, ...) on which the output "
            f"depends; {name!r} is not suitable: {problem}; extremal.layers(network) or `extremal layers` lists "
            "those that are"
        )
    activations = find_tensors(record.layer_outputs[0])[0]
    layer_dtype = activations.dtype
    if layer_dtype in HALF_PRECISIONS:
        activations = activations.float()  # masks must not be rounded
    bypassed = depends_on(record.output, get_gradient_edge(leaf).node, record.layer_nodes[0])
    layer = Layer(name, type(module).__name__, tuple(activations.shape[1:]), "", bypassed)
    expected = [tensor.detach() for tensor in find_tensors(record.output)]
    calls = record.calls
    del record  # frees the gradient graph
    for needs_batch in [True] if bypassed else [False, True]:
        part = Split(run, layer, module, activations, x.clone(), _detach(calls), needs_batch, layer_dtype)
        if _gives_output(part, expected):
            return part
    raise ExtremalValueError(
        f"a network split at a layer must give the same output as before, {net.name} split at {name!r} does not; "
        "code after the layer uses more than the outputs of the modules before it: choose another layer"
    )


@torch.no_grad()
def _gives_output(part: Split, expected: Sequence[Tensor]) -> bool:
    """Return whether a split gives the expected output with each input twice, and leaves its cache unchanged."""
    cached = [part.x, *(tensor for _, output in part.cached_calls for tensor in find_tensors(output))]
    versions = [tensor._version for tensor in cached]
    twice = torch.arange(2 * len(part.x), device=part.x.device) % len(part.x)
    try:
        outputs = find_tensors(part._forward(part.activations[twice], twice))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        return False  # shapes do not match: code after the layer uses values from before it
    return (
        [tensor._version for tensor in cached] == versions
        and len(outputs) == len(expected)
        and all(
            len(after) == 2 * len(before)
            and torch.allclose(after, before[twice], rtol=0, atol=SPLIT_TOLERANCE * float(before.abs().max()))
            for after, before in zip(outputs, expected, strict=True)
        )
    )


def _detach(output: Any) -> Any:
    """Copy an output without its gradient graph, since later code may change it in place."""
    return tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, output)
