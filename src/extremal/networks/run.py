"""A frozen network that counts its evaluations, accelerated and within its memory."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError, NetworkError
from extremal.networks.acceleration import accelerated
from extremal.networks.calls import ModelCall
from extremal.networks.checkpointing import checkpointed, find_checkpoint_layers
from extremal.networks.counting import EvaluationCount, EvaluationCounter
from extremal.networks.memory import activation_bytes, default_budget, is_out_of_memory
from extremal.networks.outputs import HALF_PRECISIONS, has_bfloat16, read_logits, to_channels_last

if TYPE_CHECKING:
    from extremal.networks.network import Network

T = TypeVar("T")

MAX_FORWARD_ROWS = 32  # at once, of networks without a gradient


class Evaluator(Protocol):
    """A frozen network, complete or from a layer on."""

    @property
    def network(self) -> "Network":
        """The network."""
        ...

    @property
    def undo(self) -> ExitStack:
        """Callbacks that run when the network is no longer frozen."""
        ...

    def evaluate(self, inputs: Tensor, input_index: Tensor, /) -> object:
        """Return the network's output, counted; `input_index` (B,) is the index of the input of each row."""
        ...

    def counted(self) -> AbstractContextManager[EvaluationCount]:
        """Count the evaluations made inside the `with`."""
        ...


@dataclass(eq=False)
class Run(EvaluationCounter):
    """A frozen network that counts its evaluations: x (B, C, *S) -> scores (B, classes)."""

    network: "Network"
    undo: ExitStack  # callbacks that run when the network is no longer frozen
    _autocast: bool = field(default=False, init=False)
    _takes_channels_last: bool | None = field(default=None, init=False)  # None: not known yet
    _changes_input: bool | None = field(default=None, init=False)  # in place; None: not known yet
    _measured: tuple[Tensor, int, Tensor] | None = field(default=None, init=False)  # an input, its version, its output
    _call: ModelCall = field(init=False)

    def __post_init__(self) -> None:
        network = self.network
        dtype = network.dtype if network.dtype in HALF_PRECISIONS else None
        self._call = ModelCall(network.model, network.name, dtype, network.inputs)

    @property
    def changes_input(self) -> bool:
        """Whether the network changes its input in place, as far as its calls have shown."""
        return self._changes_input is True

    def accelerate(self, x: Tensor, keep: Sequence[str] = ()) -> None:
        """Accelerate the network for inputs like x (N, C, *S) until it is no longer frozen, and set its precision.

        Costs two evaluations of the first input, for checks, three where a change is undone; with
        `accelerate="onednn"` up to five more, four of them for the gradient of two rows with and without oneDNN; and
        one more with `check_output`. All count as evaluations without gradient.

        Args:
            x: inputs; the first serves as the example.
            keep: names of modules that must give the output and the gradient they give without acceleration.
        """
        network, example = self.network, x[:1].clone()  # networks may change their input in place
        self._autocast = network.precision == "bfloat16" or (network.precision == "auto" and has_bfloat16(x.device))
        self._call.check_batched(example.clone())
        if not network.gradient:
            self.count_evaluations(2 * len(example), with_gradient=False)
            self._call.check_repeatable(example)
            return
        self.undo.enter_context(
            accelerated(
                network.model,
                self._evaluate_for_setup,
                example,
                keep,
                level=network.accelerate,
                channels_last=x.ndim == 4 and self._takes_channels_last is not False,
            )
        )
        if network.check_output is not None:
            network.check_output(example, self._evaluate_for_setup(example))

    @property
    def row_error(self) -> BaseException | None:
        """The error for several rows, if the network takes one row only and rows are evaluated one at a time."""
        return self._call.row_error

    def max_batch_size(self, x: Tensor) -> int:
        """Return how many rows like those of x (N, C, *S) fit into memory at once; costs one evaluation.

        Its output is kept for `score_whole`. Without a gradient, evaluations save nothing, and the number is fixed. If
        not even one row fits, the layers of a model of transformers are evaluated again for their gradient
        (`checkpointed`) until it is no longer frozen.
        """
        if not self.network.gradient:
            return MAX_FORWARD_ROWS
        example = x[:1]
        self.count_evaluations(1, with_gradient=False)

        def evaluate() -> object:
            output = self._forward(example.detach().requires_grad_())
            if isinstance(output, Tensor):
                self._measured = example, example._version, output.detach()
            return output

        try:
            rows = self._count_rows(evaluate, x.device)
        except (RuntimeError, MemoryError, ExtremalValueError) as error:
            cause = error.__cause__ if isinstance(error, ExtremalValueError) else error
            if cause is None or not is_out_of_memory(cause) or not find_checkpoint_layers(self.network.model):
                raise
            rows = 0
        if rows == 0 and find_checkpoint_layers(self.network.model):
            self.undo.enter_context(checkpointed(self.network.model))
        return max(1, rows)

    def _evaluate_for_setup(self, x: Tensor) -> object:
        self.count_evaluations(len(x), with_gradient=False)
        return self._call(_copy_contiguous(x))

    def fit_batch_size(self, evaluate: Callable[[], object], device: torch.device) -> int:
        """Return how many rows fit into memory, at least 1; `evaluate` runs one row with gradient."""
        return max(1, self._count_rows(evaluate, device))

    def _count_rows(self, evaluate: Callable[[], object], device: torch.device) -> int:
        """Return how many rows fit into memory; 0 if not even one does."""
        network = self.network
        budget = default_budget(device) if network.memory is None else network.memory * 2**30
        row_bytes = activation_bytes(evaluate, (*network.model.parameters(), *network.model.buffers()))
        return int(budget // max(1, row_bytes))

    def __call__(self, x: Tensor, input_index: Tensor | None = None) -> Tensor:
        """Return the scores (B, classes); `input_index` makes no difference here."""
        return read_logits(self.evaluate(x, input_index), self.network.name, self.network.labels, len(x))

    def evaluate(self, x: Tensor, input_index: Tensor | None = None) -> object:
        """Return the network's own output, counted; `input_index` makes no difference here."""
        self.count_evaluations(len(x), with_gradient=x.requires_grad)
        return self._forward(x)

    def score_whole(self, x: Tensor) -> Tensor:
        """Return the scores (N, classes) of whole inputs; of the only one, `max_batch_size` may have evaluated them."""
        measured, self._measured = self._measured, None
        if measured is not None and len(x) == 1:
            example, version, output = measured
            if example.data_ptr() == x.data_ptr() and example.shape == x.shape and x._version == version:
                return read_logits(output, self.network.name, self.network.labels, 1)
        return self(x)

    def repeat_if_layout_changed(self, evaluate: Callable[[], T]) -> T:
        """Return what a function returns; call it again if its evaluation had to be repeated in another layout.

        For functions that record what happens inside the network, where a part of the first evaluation remains.
        """
        was_known = self._takes_channels_last is False
        result = evaluate()
        return result if was_known or self._takes_channels_last is not False else evaluate()

    def _forward(self, x: Tensor, *, by_row: bool = True) -> object:
        """Return the network's own output, uncounted; `by_row`: whether rows may be evaluated one at a time.

        Images are put in channels-last layout, which is faster for convolutions. Networks that take views of their
        activations may raise an error; if the first evaluation of a single input succeeds without it, it is not used.
        """
        if x.ndim != 4:
            return self._call_unchanged(x, by_row=by_row)
        if self._takes_channels_last is False:
            return self._call_in_precision(_copy_contiguous(x), by_row=by_row)
        try:
            output = self._call_unchanged(to_channels_last(x), by_row=by_row)
        except (ExtremalValueError, NetworkError) as error:
            cause = error.__cause__
            is_layout = len(x) == 1 and isinstance(cause, RuntimeError) and not is_out_of_memory(cause)
            if not is_layout or self._takes_channels_last:
                raise
            output = self._call_in_precision(_copy_contiguous(x), by_row=by_row)
            self._takes_channels_last = False
            return output
        if len(x) == 1:  # several may have been evaluated one at a time, as they are
            self._takes_channels_last = True
        return output

    def _call_unchanged(self, x: Tensor, *, by_row: bool) -> object:
        """Call the network so that x stays as it is: with a copy if the first call changed its input in place.

        Raises:
            ExtremalValueError: this call changes x, and the first one did not change its input.
        """
        if self._changes_input is not False:
            copy = x.clone()
            version = copy._version
            output = self._call_in_precision(copy, by_row=by_row)
            self._changes_input = self._changes_input or copy._version != version
            return output
        version = x._version
        output = self._call_in_precision(x, by_row=by_row)
        if x._version != version:
            raise ExtremalValueError(
                f"a network must change its input in place in every call or in none, {self.network.name} changed one "
                "after it had left another as it was; start its forward with x = x.clone()"
            )
        return output

    def _call_in_precision(self, x: Tensor, *, by_row: bool) -> object:
        if not self._autocast:
            return self._call(x, by_row=by_row)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self._call(x, by_row=by_row)


def _copy_contiguous(x: Tensor) -> Tensor:
    """Return a copy in the usual layout, which a network may change in place."""
    return x.clone(memory_format=torch.contiguous_format)
