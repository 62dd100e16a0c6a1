"""Values that an explanation by channels returns: effects against counts, and the smallest sufficient set."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChannelCurve:
    """Effects of one input over the number of channels: 0 for nothing kept, 1 for the whole effect."""

    counts: tuple[int, ...]  # (A,) rising
    soft: tuple[float, ...]  # (A,) of the masks as found
    binary: tuple[float, ...]  # (A,) of exactly this number of channels, the others zero
    random: tuple[float, ...]  # (A,) median over random sets
    random_best: tuple[float, ...]  # (A,) best random set
    ranked: dict[str, tuple[float, ...]]  # (A,) of the top channels by each ranking


@dataclass(frozen=True)
class SmallestSet:
    """The smallest sufficient set of channels of one input, and the largest insufficient count below it."""

    channels: tuple[int, ...]  # indices, rising
    effect: float  # of these channels alone, at least the share
    below_count: int  # the largest smaller count that was tried; 0 if none was insufficient
    below_effect: float  # of the best set found at that count; NaN if there is none
    share: float  # fraction of the whole effect that the set must have

    @property
    def count(self) -> int:
        """Number of channels."""
        return len(self.channels)
