"""Query about a hidden layer: one of its units, or one of its channels."""

from dataclasses import dataclass

from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.run import Evaluator
from extremal.number_checks import format_no_whole, format_value, is_whole
from extremal.scores.layer_reader import read_layer
from extremal.scores.query import BoundQuery


@dataclass(frozen=True, eq=False)
class Unit:
    """The value of a unit, or the mean of a channel over its places; later layers are not evaluated.

    >>> import torch
    >>> from extremal import Network
    >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    >>> with Network(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten())).frozen() as run:
    ...     Unit("0", 0).bind(run, x)(x, torch.tensor([0])), Unit("0", 0, (1, 1)).bind(run, x)(x, torch.tensor([0]))
    (tensor([3.]), tensor([6.]))

    Args:
        layer: name of a module that is called once and returns one tensor; `extremal.layers` lists them.
        channel: 0..K−1.
        place: index of the unit in each dimension of a map, or of the token; None: the mean of all.
        axis: of the layer's output, along which the channels lie: None is 1, but 2 for (B, tokens, channels); −1 is for
            networks with channels last.
    """

    layer: str
    channel: int
    place: int | tuple[int, ...] | None = None
    axis: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.layer, str) or not self.layer:
            raise ExtremalTypeError(f"a unit's layer must be the name of a module, got {self.layer!r}")
        for index in (self.channel, *self._place):
            if not is_whole(index):
                raise ExtremalTypeError(
                    f"a unit's channel and place must be whole numbers, got {format_no_whole(index)}; e.g. 0"
                )

    @property
    def name(self) -> str:
        """Layer, channel and place."""
        at = f" at {', '.join(map(str, self._place))}" if self._place else ""
        return f"{self.layer} channel {self.channel}{at}"

    @property
    def depends_on_position(self) -> bool:
        """Whether the query is about a single unit of the channel."""
        return self.place is not None

    @property
    def _place(self) -> tuple[int, ...]:
        if self.place is None:
            return ()
        return self.place if isinstance(self.place, tuple) else (self.place,)

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the value to a network and inputs; costs one evaluation, for checks."""
        reader = read_layer(run, self.layer, self.axis, x)
        self._check(*reader.shape)

        def score_inputs(inputs: Tensor, input_index: Tensor) -> Tensor:
            values = reader.read(inputs, input_index)[:, self.channel]  # (B, *places)
            for index in self._place:
                values = values.select(1, index)
            return values.reshape(len(inputs), -1).mean(1)

        return score_inputs

    def _check(self, channels: int, *places: int) -> None:
        if not 0 <= self.channel < channels:
            raise ExtremalValueError(
                f"channel must lie in 0..{channels - 1} for {self.layer!r}, got {format_value(self.channel)}"
            )
        place = self._place
        if not place:
            return
        if not places:
            raise ExtremalValueError(f"place must be None for {self.layer!r}, whose channels are units, got {place}")
        if len(place) != len(places):
            raise ExtremalValueError(
                f"place must have {len(places)} numbers for {self.layer!r}, whose channels are {places}, got {place}"
            )
        if not all(0 <= index < size for index, size in zip(place, places, strict=True)):
            raise ExtremalValueError(f"place must lie within {places} for {self.layer!r}, got {format_value(place)}")
