"""Log with a bounded number of records: a client that causes errors must not fill the disk."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

MAX_RECORDS, INTERVAL = 30, 60.0  # records of one logger, and seconds


class RecordLimit(logging.Filter):
    """Passes a bounded number of records in each interval, and then says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._since, self._count = time.monotonic(), 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is passed."""
        with self._lock:
            now = time.monotonic()
            if now - self._since >= INTERVAL:
                left_out, self._since, self._count = self._count - MAX_RECORDS, now, 0
                if left_out > 0:
                    record.msg = f"({left_out} records were left out before this one) {record.msg}"
            self._count += 1
            return self._count <= MAX_RECORDS


@contextmanager
def bounded_log(*names: str) -> Iterator[None]:
    """Limit the records of these loggers."""
    limits = [(logging.getLogger(name), RecordLimit()) for name in names]
    for logger, limit in limits:
        logger.addFilter(limit)
    try:
        yield
    finally:
        for logger, limit in limits:
            logger.removeFilter(limit)
