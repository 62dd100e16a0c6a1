"""Split a network at a named module: what comes before runs once, what comes after runs for each mask.

The user's code runs as it is, whatever it looks like: while a split evaluates, the modules that had finished before the
layer answer from memory, and the layer answers with what it is given.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils._pytree import tree_map

from extremal.errors import ExtremalValueError
from extremal.networks.counting import EvaluationCounter
from extremal.networks.layers import Layer, get_module, split_problem, depends_on, hooked
from extremal.networks.network import Evaluator, Network, Run
from extremal.networks.outputs import to_channels_last, read_logits, find_tensors

SPLIT_TOLERANCE = 1e-4  # of the largest output, by which the split network may differ from the whole one


class _ReachedError(Exception):
    """Ends an evaluation at a layer."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output


def compute_activations(run: Evaluator, module: nn.Module, x: Tensor, images: Tensor | None = None) -> Tensor:
    """The output of a module for inputs x (B, C, *S); nothing behind it is evaluated.

    After a split, x are activations (B, K, ...), and `images` (B,) tells of which input each is.

    Raises:
        ExtremalValueError: it is not called, or its output is not one floating tensor (B, K, ...).
    """

    def reached(_: nn.Module, __: object, output: object) -> None:
        raise _ReachedError(output)

    handle = module.register_forward_hook(reached)
    outputs = []
    try:
        run.evaluate(x, torch.zeros(len(x), dtype=torch.int64, device=x.device) if images is None else images)
    except _ReachedError as end:
        outputs.append(end.output)
    finally:
        handle.remove()
    problem = split_problem(outputs, x)
    if problem:
        raise ExtremalValueError(
            f"a layer must give one tensor (B, K, ...), this one does not: {problem}; extremal.layers(network) lists "
            "those that do"
        )
    return find_tensors(outputs[0])[0]


@dataclass(eq=False)
class Split(EvaluationCounter):
    """A frozen network from one layer on: activations (B, K, ...) -> output, counting its evaluations.

    Made by `split`, and usable until the network is no longer frozen.
    """

    run: Run
    layer: Layer
    module: nn.Module
    activations: Tensor  # (N, K, ...) of the inputs at the layer
    x: Tensor  # (N, C, *S)
    cached_calls: list[tuple[nn.Module, object]]  # calls that had finished when the layer was called, and what they gave
    needs_batch: bool = False  # the answer needs more than the layer's output, so all of it must have as many rows

    @property
    def network(self) -> Network:
        """The whole network."""
        return self.run.network

    @property
    def undo(self) -> ExitStack:
        """Closed when the network is no longer frozen."""
        return self.run.undo

    def __call__(self, activations: Tensor, images: Tensor) -> Tensor:
        """The scores (B, classes) of activations (B, K, ...), each of which is of one of the N inputs."""
        return read_logits(self.evaluate(activations, images), self.run.network.name)

    def evaluate(self, activations: Tensor, images: Tensor) -> object:
        """The output as the network gives it."""
        self.count_evaluations(len(activations), with_gradient=activations.requires_grad)
        return self._evaluate_uncounted(activations, images)

    def _evaluate_uncounted(self, activations: Tensor, images: Tensor) -> object:
        """Return the network's output, uncounted."""
        if self.activations.ndim == 4 and self.activations.is_contiguous(memory_format=torch.channels_last):
            activations = to_channels_last(activations)
        with self._cached_forwards(activations, images):
            return self.run._evaluate_uncounted(self._select_rows(self.x, images))

    def max_batch_size(self) -> int:
        """How many rows fit into the network's memory at once."""
        one = torch.zeros(1, dtype=torch.int64, device=self.x.device)
        first = self.activations[:1].detach().clone().requires_grad_()
        return self.run.fit_batch_size(lambda: self.evaluate(first * 1.0, one), self.x.device)

    def _select_rows(self, value: Any, images: Tensor) -> Any:
        """What a finished call gave, a row for each of the activations where that makes a difference."""
        if not self.needs_batch:
            return value

        def selected(leaf: Any) -> Any:
            batch = isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == len(self.x)
            return leaf.index_select(0, images) if batch else leaf

        return tree_map(selected, value)

    @contextmanager
    def _cached_forwards(self, activations: Tensor, images: Tensor) -> Iterator[None]:
        """The modules before the layer answer from memory, and the layer with the activations."""
        kept: dict[nn.Module, list[object]] = {}
        for module, output in self.cached_calls:
            kept.setdefault(module, []).append(output)
        calls: Counter[nn.Module] = Counter()

        def remembered(module: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
            def forward(*args: Any, **named: Any) -> Any:
                calls[module] += 1
                if calls[module] <= len(kept[module]):
                    return self._select_rows(kept[module][calls[module] - 1], images)
                return original(*args, **named)

            return forward

        with ExitStack() as undo:
            for module in kept:
                _replace_forward(module, remembered(module, module.forward), undo)
            _replace_forward(self.module, lambda *_, **__: activations, undo)
            yield


def _replace_forward(module: nn.Module, forward: Callable[..., Any], undo: ExitStack) -> None:
    own = module.__dict__.get("forward")
    undo.callback(lambda: module.__dict__.pop("forward") if own is None else module.__dict__.update(forward=own))
    module.__dict__["forward"] = forward


def _record(
    run: Run, module: nn.Module, leaf: Tensor
) -> tuple[object, list[object], list[object], list[tuple[nn.Module, object]]]:
    """Evaluate the network, and remember what a split needs.

    Returns:
        The answer; what the module gave at each call, and the nodes of these in the gradient graph; and the calls that
        had finished when it was called first, none of them within another, with what they gave.
    """
    frames: list[list[tuple[nn.Module, object]]] = [[]]  # for each call under way the finished calls that it made
    outputs, before, nodes = list[object](), list[tuple[nn.Module, object]](), list[object]()

    def entered(called: nn.Module) -> None:
        if called is module and not outputs:
            before.extend(call for frame in frames for call in frame)
        frames.append([])

    def left(called: nn.Module, output: Any) -> Any:
        frames.pop()
        if called is module:
            outputs.append(_detach(output))
            nodes.append(getattr(output, "grad_fn", None))
        elif not outputs:  # what comes after the layer is not remembered
            frames[-1].append((called, _detach(output)))

    with torch.enable_grad(), hooked(run.network.model, entered, left):
        return run.evaluate(leaf), outputs, nodes, before


def split(run: Run, name: str, x: Tensor) -> Split:
    """Split a frozen network at a layer for inputs x (N, C, *S), and check that it answers as before.

    Costs N evaluations of the whole network, and two or four of what comes after the layer for each input.

    Raises:
        ExtremalValueError: there is no such layer, it is called more or less than once, its output is not one floating
            tensor, the answer does not depend on it, or the parts do not answer as the whole does.
    """
    net = run.network
    module = get_module(net, name)
    leaf = x.detach().clone().requires_grad_()
    answer, outputs, nodes, before = _record(run, module, leaf)
    problem = split_problem(outputs, x)
    if not problem and not (nodes[0] is not None and depends_on(answer, nodes[0])):
        problem = "the answer does not depend on it with a gradient"
    if problem:
        raise ExtremalValueError(
            "a network is split at a module that is called once and gives one tensor (B, K, ...) on which the answer "
            f"depends; {name!r} does not serve: {problem}; extremal.layers(network) lists those that do"
        )
    activations = find_tensors(outputs[0])[0]
    if activations.dtype in (torch.bfloat16, torch.float16) and run.network.precision != "float32":
        activations = activations.float()  # autocast's; masks are not to be rounded
    bypassed = depends_on(answer, get_gradient_edge(leaf).node, nodes[0])
    layer = Layer(name, type(module).__name__, tuple(activations.shape[1:]), "", bypassed)
    whole = [tensor.detach() for tensor in find_tensors(answer)]
    del answer
    for copied in [True] if bypassed else [False, True]:
        made = Split(run, layer, module, activations, x.clone(), _detach(before), copied)
        if _is_same_output(made, whole):
            return made
    raise ExtremalValueError(
        f"a network split at a layer must answer as the whole does, {net.name} split at {name!r} does not; "
        "what runs after the layer needs more than the modules before it have given: choose another layer"
    )


@torch.no_grad()
def _is_same_output(made: Split, whole: Sequence[Tensor]) -> bool:
    """Whether a split answers as the whole network did, each input twice, and leaves what it remembers as it is."""
    kept = [made.x, *(tensor for _, output in made.cached_calls for tensor in find_tensors(output))]
    versions = [tensor._version for tensor in kept]
    twice = torch.arange(2 * len(made.x), device=made.x.device) % len(made.x)
    try:
        again = find_tensors(made._evaluate_uncounted(made.activations[twice], twice))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
        return False  # shapes that do not fit: code after the layer looked at what came before it
    return (
        [tensor._version for tensor in kept] == versions
        and len(again) == len(whole)
        and all(
            len(new) == 2 * len(old)
            and torch.allclose(new, old[twice], rtol=0, atol=SPLIT_TOLERANCE * float(old.abs().max()))
            for new, old in zip(again, whole, strict=True)
        )
    )


def _detach(output: Any) -> Any:
    """An output without its gradient graph, safe from what follows, which may change it in place."""
    return tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, output)
