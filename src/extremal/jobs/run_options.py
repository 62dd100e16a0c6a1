"""Options of the execution of a run; nothing here imports torch."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import quote
from extremal.number_checks import format_value, is_number, validate_whole

if TYPE_CHECKING:
    from extremal.networks.network import Network

ENGINES = ("local", "ray")
MAX_GPUS = 64  # of a worker
_RANGES = {  # least and largest values, and remedies; more threads end the process
    "workers": (0, 1024, "0 is this process alone"),
    "threads": (1, 512, "leave it out for the usual number"),
    "batch": (1, 4096, "leave it out for the usual number"),
}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of the execution of a run, validated when they are set. For their meaning see `run`.

    Raises:
        ExtremalValueError: an option breaks a rule.
    """

    engine: str = "local"
    address: str | None = None
    gpus_per_worker: float | None = None
    batch: int | None = None
    workers: int | None = None
    threads: int | None = None
    unit_timeout: float | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ExtremalValueError(f"engine must be {' or '.join(ENGINES)}, got {self.engine!r}")
        if self.engine == "ray" and self.workers == 0:
            raise ExtremalValueError("a run with ray must have workers, got 0; leave it out, or use the local engine")
        for name, (low, high, remedy) in _RANGES.items():
            if getattr(self, name) is not None:
                validate_whole(getattr(self, name), name, low, high, remedy)
        self._check_timeout()
        if self.address is not None and self.engine != "ray":
            raise ExtremalValueError(
                f"address must be that of a Ray cluster, got {quote(self.address)} with engine {self.engine}; "
                "leave it out, or use engine ray"
            )
        if self.gpus_per_worker is None:
            return
        if self.engine != "ray":
            raise ExtremalValueError(
                f"gpus_per_worker must be used with engine ray, got engine {self.engine}; leave it out"
            )
        n_gpus = self.gpus_per_worker
        if not is_number(n_gpus):
            raise ExtremalTypeError(f"gpus_per_worker must be a number, got {format_value(n_gpus)}; e.g. 0.25")
        if not 0 <= n_gpus <= MAX_GPUS or (n_gpus > 1 and n_gpus != int(n_gpus)):
            raise ExtremalValueError(
                f"gpus_per_worker must be a fraction of one or a whole number, got {self.gpus_per_worker:g}; e.g. 0.25"
            )

    def _check_timeout(self) -> None:
        limit = self.unit_timeout
        if limit is None:
            return
        if not is_number(limit):
            raise ExtremalTypeError(f"unit_timeout must be a number of seconds, got {quote(limit)}")
        if not 0 < limit < math.inf:
            raise ExtremalValueError(f"unit_timeout must be positive and finite, got {limit:g}; e.g. 600 seconds")
        if self.workers == 0:
            raise ExtremalValueError(
                "unit_timeout must be used with workers, which can be replaced, got workers=0; leave one of them out"
            )

    def check_network(self, network: "Network") -> None:
        """Raise if workers would need a network that is passed as an object."""
        if self.engine == "ray" or self.workers or self.unit_timeout is not None:
            raise ExtremalValueError(
                f"workers must load the network themselves, got {network.name} as an object; name it MODULE:FUNCTION, "
                "or pass workers=0"
            )
